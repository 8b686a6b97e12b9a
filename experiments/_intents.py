"""Chinese commands for a home, labelled by intent, expanded from templates and split by them.

The templates are those of home-assistant-intents (zh-CN, written by native speakers, Apache-2.0),
parsed by hassil. What they leave open, and the intent to play music, are ours: `_intent_values.py`.

No template is in two parts. But templates overlap: so a held-out sentence is dropped if an earlier
part has it, or has one that differs only in what fills the slots, or if hassil can read it by a
template of training. What two intents say alike is dropped everywhere.
"""

import collections
import contextlib
import functools
import hashlib
import json
import logging
import random
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import _common as common
from experiments import _intent_values as ours
from experiments._common import UsageError
from experiments._data import INTENTS, Package, cache_folder, fetch, read

EVERYTHING = ("train", "validation", "test")


class Sentence(NamedTuple):
    """A command: its text and intent, the template it is from, and its form with slots unfilled."""

    text: str
    intent: str
    template: str
    form: str


class Template(NamedTuple):
    """A template of one intent, and the kinds of things that its {name} may be."""

    intent: str
    text: str
    kinds: tuple[str, ...] = ()


class Corpus(NamedTuple):
    """The three parts, the intents in alphabetical order, and how much was dropped and why."""

    train: list[Sentence]
    validation: list[Sentence]
    test: list[Sentence]
    intents: tuple[str, ...]
    dropped: dict[str, int]

    def labels(self, part: Sequence[Sentence]) -> list[int]:
        """The number of each sentence's intent."""
        number = {intent: i for i, intent in enumerate(self.intents)}
        return [number[sentence.intent] for sentence in part]


class Grammar(NamedTuple):
    """What templates refer to: lists of words, and rules, parsed by hassil."""

    lists: dict[str, Any]
    rules: dict[str, Any]


def corpus(
    cache: Path | None = None,
    *,
    seed: int = 0,
    per_template: int = 20,
    share: float = 0.2,
    without: Sequence[str] = (),
    package: Package = INTENTS,
) -> Corpus:
    """Expands and splits; a pure function of its arguments.

    Args:
        seed: draws the sentences, and which templates are held out.
        per_template: at most so many different sentences of each.
        share: of an intent's templates, at least one each, for validation and for the test.
        without: texts that are in no part, because they are asked later.
    """
    spoken = json.loads(_only(read(fetch(package, cache), "*/data/zh-CN.json")))
    grammar, templates = _grammar(spoken), _templates(spoken)
    counts = collections.Counter(template.intent for template in templates)
    few = {intent for intent, count in counts.items() if count < 3}
    parts = _split([t for t in templates if t.intent not in few], seed, share)
    sentences = {
        name: [s for t in part for s in expand(t, grammar, seed, per_template)]
        for name, part in parts.items()
    }
    dropped = {"intents of fewer than three templates": len(few)}
    kept = _without_leaks(sentences, set(without), dropped)
    _without_readable(kept, spoken, dropped)
    return Corpus(**kept, intents=tuple(sorted(set(counts) - few)), dropped=dropped)


def expand(template: Template, grammar: Grammar, seed: int, most: int) -> list[Sentence]:
    """Different sentences of one template, drawn at random: each choice by an even chance."""
    draw, found = random.Random(f"{seed} {template.intent} {template.text}"), {}
    names = [name for kind in template.kinds for name in ours.NAMES.get(kind, ())]
    values = ours.VALUES | ({"name": tuple(names)} if names else {})
    parsed = _parse(template.text)
    for _ in range(4 * most):
        text, form = _walk(parsed, grammar, values, draw)
        if text and len(found) < most:
            found.setdefault(text, Sentence(text, template.intent, template.text, form))
    return list(found.values())


def characters(text: str) -> list[str]:
    """A text character by character."""
    return list(text)


def words(text: str) -> list[str]:
    """A text in words, as jieba cuts it."""
    return [word for word in _jieba().lcut(text) if word.strip()]


class Tokens:
    """Tokens of some texts by number; all others share the last number.

    unit: "character", or "word" as jieba cuts it.
    """

    def __init__(self, unit: str, texts: Iterable[str]) -> None:
        self.cut = words if unit == "word" else characters
        seen = {token for text in texts for token in self.cut(text)}
        self._number = {token: i for i, token in enumerate(sorted(seen))}

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return len(self._number) + 1

    def encode(self, text: str) -> np.ndarray:
        """The numbers of the tokens of a text."""
        return np.array([self._number.get(t, self.size - 1) for t in self.cut(text)], np.int32)

    def padded(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Texts of unequal lengths in one array, and their lengths."""
        rows = [self.encode(text) for text in texts]
        lengths = np.array([len(row) for row in rows], np.int32)
        tokens = np.zeros((len(rows), lengths.max()), np.int32)
        for into, row in zip(tokens, rows, strict=True):
            into[: len(row)] = row
        return tokens, lengths


def _only(members: dict[str, bytes]) -> bytes:
    (content,) = members.values()
    return content


def _templates(spoken: dict) -> list[Template]:
    """All templates, each once for an intent, with the kinds of all places where it stands."""
    kinds: dict[tuple[str, str], dict[str, None]] = {}
    for intent, body in spoken["intents"].items():
        for block in body["data"]:
            domain = block.get("requires_context", {}).get("domain", [])
            domains = [domain] if isinstance(domain, str) else domain
            for text in block["sentences"]:
                kinds.setdefault((intent, text), {}).update(dict.fromkeys(domains))
    music = [Template(ours.PLAY_MUSIC, text) for text in ours.MUSIC_TEMPLATES]
    return [Template(*place, tuple(found)) for place, found in kinds.items()] + music


def _split(templates: list[Template], seed: int, share: float) -> dict[str, list[Template]]:
    """Of each intent, some templates to each part, drawn by the seed."""
    parts: dict[str, list[Template]] = {name: [] for name in EVERYTHING}
    drawn = sorted(templates, key=lambda t: hashlib.sha256(f"{seed} {t.text}".encode()).digest())
    for intent in sorted({template.intent for template in templates}):
        mine = [template for template in drawn if template.intent == intent]
        held = max(1, round(share * len(mine)))
        parts["test"] += mine[:held]
        parts["validation"] += mine[held : 2 * held]
        parts["train"] += mine[2 * held :]
    return parts


def _without_leaks(
    parts: dict[str, list[Sentence]], asked: set[str], dropped: dict[str, int]
) -> dict[str, list[Sentence]]:
    """Drops what is asked later, what two intents say alike, and what an earlier part knows."""
    meanings = collections.defaultdict(set)
    for sentence in (s for part in parts.values() for s in part):
        meanings[sentence.text].add(sentence.intent)
    alike = {text for text, intents in meanings.items() if len(intents) > 1}
    seen: set[str] = set()
    kept, known = {}, 0
    for name, part in parts.items():
        once = {s.text: s for s in part if s.text not in asked | alike}.values()
        kept[name] = [s for s in once if not {s.text, s.form} & seen]
        known += len(once) - len(kept[name])
        seen |= {words for s in part for words in (s.text, s.form)}
    dropped["sentences that two intents would say alike"] = len(alike)
    dropped["held-out sentences that an earlier part has but for its slots"] = known
    return kept


def _without_readable(
    parts: dict[str, list[Sentence]], spoken: dict, dropped: dict[str, int]
) -> None:
    """Drops, of the held-out parts, what hassil can read by a template of training."""
    readable, before = _reader(parts["train"], spoken), sum(map(len, parts.values()))
    with common.progress(before - len(parts["train"])) as advance:
        for name in EVERYTHING[1:]:
            kept = []
            for sentence in parts[name]:
                kept += [] if readable(sentence.text) else [sentence]
                advance(1, "looking for what training templates say, too")
            parts[name] = kept
    count = before - sum(map(len, parts.values()))
    dropped["held-out sentences that a training template would say, too"] = count


def _reader(sentences: list[Sentence], spoken: dict) -> Callable[[str], bool]:
    """Whether hassil can read a text by the templates of these sentences, under any intent."""
    templates: dict[str, dict[str, None]] = collections.defaultdict(dict)
    for sentence in sentences:
        templates[sentence.intent][sentence.template] = None
    intents = {name: {"data": [{"sentences": list(t)}]} for name, t in templates.items()}
    settings = {"settings": {"ignore_whitespace": True}, "skip_words": [], "intents": intents}
    names = sorted(set(ours.VALUES["name"]).union(*ours.NAMES.values()))
    from_strings = _hassil().TextSlotList.from_strings
    slots = {k: from_strings(v) for k, v in (ours.VALUES | {"name": names}).items()}
    grammar = _hassil().Intents.from_dict(spoken | settings)
    recognize = _hassil().recognize
    return lambda text: recognize(text, grammar, slot_lists=slots, language="zh") is not None


def _walk(
    item: Any, grammar: Grammar, values: dict[str, tuple[str, ...]], draw: random.Random
) -> tuple[str, str]:
    """One way through an expression of hassil: the text, and the same with its slots unfilled."""
    from hassil import expression as kinds

    def walk(inner: Any) -> tuple[str, str]:
        return _walk(inner, grammar, values, draw)

    match item:
        case kinds.TextChunk():
            text = "".join(item.original_text.split())
            return text, text
        case kinds.Alternative():
            return walk(draw.choice(item.items))
        case kinds.Permutation():
            return _joined(walk, draw.sample(item.items, len(item.items)))
        case kinds.Sequence():
            return _joined(walk, item.items)
        case kinds.RuleReference():
            return walk(grammar.rules[item.rule_name].expression)
        case kinds.ListReference():
            return _value(item.list_name, grammar, values, draw, walk), f"{{{item.list_name}}}"
    raise UsageError(f"hassil reads {item!r}, which these experiments do not know")


def _joined(walk: Callable[[Any], tuple[str, str]], items: Sequence[Any]) -> tuple[str, str]:
    texts, forms = zip(*map(walk, items), strict=True)
    return "".join(texts), "".join(forms)


def _value(
    name: str,
    grammar: Grammar,
    values: dict[str, tuple[str, ...]],
    draw: random.Random,
    walk: Callable[[Any], tuple[str, str]],
) -> str:
    """What fills a slot: a word of ours or of the package, or a number, in digits or characters."""
    if name in values:
        return draw.choice(values[name])
    known: Any = grammar.lists.get(name)
    if hasattr(known, "get_numbers"):
        number = draw.choice(list(known.get_numbers()))
        return _in_characters(number) if draw.random() < 0.5 else f"{number:g}"
    if hasattr(known, "values"):
        return walk(draw.choice(known.values).text_in)[0]
    raise UsageError(f"no words are known for the slot {{{name}}}")


def _grammar(spoken: dict) -> Grammar:
    found = _hassil().Intents.from_dict(spoken)
    return Grammar(found.slot_lists, found.expansion_rules)


def _parse(text: str) -> Any:
    return _hassil().parse_sentence(text).expression


@functools.cache
def _in_characters(number: float) -> str:
    numbers = _hassil().numbers.get_rbnf_engine("zh")
    return numbers.format_number(number).text_by_ruleset["spellout-cardinal"]


def _hassil() -> Any:
    try:
        import hassil
        import hassil.numbers
    except ImportError:
        raise _missing("hassil") from None
    return hassil


@functools.cache
def _jieba() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is of 2020, and Python has become stricter since
            import jieba
    except ImportError:
        raise _missing("jieba") from None
    jieba.setLogLevel(logging.ERROR)
    folder, tokenizer = cache_folder(), jieba.Tokenizer()
    with contextlib.suppress(OSError):  # then it computes its dictionary each time
        folder.mkdir(parents=True, exist_ok=True)
    # else it keeps that where anybody may write
    tokenizer.tmp_dir = str(folder)  # pyright: ignore[reportAttributeAccessIssue]
    return tokenizer


def _missing(name: str) -> UsageError:
    return UsageError(f"{name} is not installed: pip install 'jaxrnn[experiments,intents]'")
