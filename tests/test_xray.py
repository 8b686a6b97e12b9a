"""`python -m experiments.xray`, end to end on small networks: numbers, words, the page, errors."""

import base64
import html.parser
import json
import math
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import jaxrnn
from experiments import _common as common
from experiments import _xray_dynamics as dynamics
from experiments import _xray_gradients as gradients
from experiments import _xray_load as loading
from experiments import _xray_measure as measuring
from experiments import xray

VOID = {"meta", "img", "br"}


def run(folder, *arguments):
    options = ["--output", folder, *arguments]
    common.main(xray.Config, xray.run, [str(a) for a in options])
    result = common.read_json(folder / "xray.json", "xray")
    return result, (folder / "xray.html").read_text(encoding="utf-8")


class Reader(html.parser.HTMLParser):
    """Reads a page; fails where elements do not nest."""

    def __init__(self, page):
        super().__init__()
        self.open, self.images, self.words, self.tags = [], [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())


def check_page(page, figures):
    """Self-contained, well-formed, every figure explained; returns its words."""
    read = Reader(page)
    assert not re.search(r"(https?:)?//[a-z]", page) and "<script" not in page
    assert len(read.images) == figures
    for image in read.images:
        kind, content = image["src"].split(",", 1)
        assert kind == "data:image/svg+xml;base64" and len(image["alt"]) > 40
        assert base64.b64decode(content).rstrip().endswith(b"</svg>")
    captions = read.tags.count("figcaption")
    assert captions >= figures
    assert read.text.count("What you see.") == read.text.count("How to read it.") == captions
    return read.text


@pytest.fixture
def module(monkeypatch):
    """A module of a user's own."""
    made = types.ModuleType("users_own")
    monkeypatch.setitem(sys.modules, "users_own", made)
    return made


@pytest.mark.long
def test_an_lstm_of_ours_without_inputs(tmp_path):
    # no recurrent weights, f = 0.9 whatever comes: the chain of cells is 0.9^k, known in advance
    H, I = 3, 2
    cell = jaxrnn.LSTM(I, H)
    params = jax.tree.map(lambda a: 0.3 * a, cell.init(jax.random.key(0), dtype=jnp.float32))
    bias = params.b.at[1].set(math.log(9.0))
    W_x = params.W_x.at[1].set(0.0)
    params = params._replace(W_x=W_x, W_h=jnp.zeros_like(params.W_h), b=bias)
    jaxrnn.save(tmp_path / "mine.safetensors", cell, params)
    result, page = run(tmp_path, "--weights", tmp_path / "mine.safetensors", "--quick")
    text = check_page(page, figures=7)
    assert "No inputs were given" in text and "LSTM, H = 3, from mine.safetensors" in text
    assert "Not measured" not in text
    summary = result["summary"]
    assert summary["median_time_constant"] == pytest.approx(-1 / math.log(0.9), rel=1e-4)
    assert summary["rate"] == pytest.approx(math.log(0.9), abs=1e-3)
    assert summary["horizon"] == math.inf and "> 24" in text
    answers = result["answers"]
    found = answers[xray.EXPONENTS]["exponents"]
    # h is not handed on at all: as many exponents of −∞
    assert found[:H] == pytest.approx([math.log(0.9)] * H, abs=2e-3)
    assert found[H:] == [-math.inf] * H
    assert answers[xray.REST]["kinds"] == ["stable"]
    radius = answers[xray.REST]["eigenvalues_real"][0][:H]
    assert radius == pytest.approx([0.9] * H, abs=1e-4)
    paths = answers[xray.PATHS]
    direct = np.array(paths["log_part_norm"])[:, paths["names"].index("direct")]
    assert np.allclose(direct, paths["log_norm"], atol=1e-4)


def refuse(*_):
    raise RuntimeError("<out of memory>\nand much more")


def test_pytorch_weights_in_float64_with_inputs_and_text(tmp_path, monkeypatch):
    # looked at in the test before
    monkeypatch.setattr(dynamics, "exponents", refuse)
    monkeypatch.setattr(dynamics, "rest", refuse)
    # h' = ½ h + x: every derivative is a power of two
    arrays = {"rnn.weight_ih_l0": np.eye(2), "rnn.weight_hh_l0": 0.5 * np.eye(2)}
    safetensors.numpy.save_file(arrays, tmp_path / "w.safetensors")
    letters = "<b>&\nabcdefghijklmnopqr"
    np.save(tmp_path / "xs.npy", np.zeros((len(letters), 2)))
    (tmp_path / "text.txt").write_text(letters)
    options = ["--weights", tmp_path / "w.safetensors", "--prefix", "rnn.", "--quick"]
    options += ["--inputs", tmp_path / "xs.npy", "--text", tmp_path / "text.txt"]
    result, page = run(tmp_path, *options)
    text = check_page(page, figures=3)
    answers = result["answers"]
    lags = np.arange(len(letters))
    assert np.allclose(answers[xray.INPUT]["log_norm"], -lags * math.log(2), atol=1e-4)
    assert answers[xray.INPUT]["horizon"] == 20  # 2^-20 is the first under 1e-6
    assert result["summary"]["rate"] == pytest.approx(-math.log(2), abs=1e-4)
    assert result["summary"]["horizon"] == 20
    # a plain network has no gates: a sentence stands in place of these two answers
    assert "keep gate" in answers[xray.CONSTANTS]["failure"]
    assert text.count("Not measured") == sum("failure" in a for a in answers.values())
    assert "random ones" not in text
    # text is escaped, and each character names its lag
    assert "<b>" not in page.split("class='text'")[1].split("</div>")[0]
    assert "title='lag 0: 1 of the most'>r</span>" in page
    assert "title='lag 1: 0.5 of the most'>q</span>" in page
    assert ">&lt;</span>" in page and ">&amp;</span>" in page


def test_a_function_of_the_users_own(tmp_path, module):
    def moving_sum(xs):  # y_t = x_t + 0.1 x_(t−3), of a single sequence
        assert xs.ndim == 2
        older = jnp.concatenate([jnp.zeros_like(xs[:3]), xs[:-3]])
        return xs + 0.1 * older

    module.moving_sum = moving_sum
    options = ["--function", "users_own:moving_sum", "--features", "1", "--quick"]
    result, page = run(tmp_path, *options)
    text = check_page(page, figures=1)
    (answer,) = result["answers"].values()
    found = dict(zip(answer["lags"], answer["log_norm"][0], strict=True))
    assert found[0] == pytest.approx(0, abs=1e-5) and found[3] == pytest.approx(
        math.log(0.1), rel=1e-5
    )
    assert found[1] == found[4] == -math.inf
    assert "depends most on the input at lag 0; from lag 4 on, it is less than" in text
    assert result["summary"]["horizon"] == 4
    assert result["summary"]["median_time_constant"] is None


class Decay:
    """A cell with just the three methods."""

    input_size = 2

    def init(self, key, dtype=jnp.float32):
        return jnp.full(2, 0.5, dtype)

    def initial_carry(self, params):
        return jnp.zeros_like(params)

    def step(self, params, carry, x):
        carry = params * carry + x
        return carry, carry


def test_a_cell_of_the_users_own_and_failures_that_stay_where_they_are(
    tmp_path, module, monkeypatch
):
    module.network = lambda: (Decay(), jnp.full(2, 0.5, jnp.float32))
    monkeypatch.setattr(dynamics, "exponents", refuse)
    monkeypatch.setattr(dynamics, "rest", refuse)
    result, page = run(tmp_path, "--function", "users_own:network", "--quick")
    text = check_page(page, figures=2)
    assert result["summary"]["rate"] == pytest.approx(math.log(0.5), abs=1e-4)
    assert "shows no gates" in result["answers"][xray.PATHS]["failure"]
    assert result["answers"][xray.EXPONENTS]["failure"] == "RuntimeError: <out of memory>."
    assert "RuntimeError: <out of memory>." in text
    assert "its units have no keep gate" in text


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, module):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / "junk.safetensors").write_bytes(b"not a safetensors file")
    (inputs / "model.pt").write_bytes(b"a pickle")
    (inputs / "a.txt").write_text("abc")
    arrays = {"weight_ih_l0": np.eye(2), "weight_hh_l0": np.eye(2)}
    safetensors.numpy.save_file(arrays, inputs / "whole.safetensors")
    whole = ["--weights", inputs / "whole.safetensors"]
    np.save(inputs / "xs.npy", np.zeros((20, 2)))
    np.save(inputs / "wrong.npy", np.zeros((20, 3)))
    module.raises = lambda: 1 / 0
    module.number = 3
    module.wrong = lambda xs: xs @ jnp.zeros((5, 1))
    module.either = lambda xs: jnp.cumsum(xs, axis=0)
    cases = {
        "nothing": ([], "name one network"),
        "both": ([*whole, "--function", "a:b"], "name one network"),
        "junk": (["--weights", inputs / "junk.safetensors"], "junk.safetensors"),
        "missing": (["--weights", inputs / "none.safetensors"], "cannot read the weights"),
        "pickle": (["--weights", inputs / "model.pt"], "pickle"),
        "prefix": ([*whole, "--prefix", "lstm."], "lstm."),
        "inputs": ([*whole, "--inputs", inputs / "wrong.npy"], "expected (T, 2)"),
        "text alone": ([*whole, "--text", inputs / "a.txt"], "--text needs to know"),
        "short text": (
            [*whole, "--inputs", inputs / "xs.npy", "--text", inputs / "a.txt"],
            "3 characters and 1 words, the inputs 20 steps",
        ),
        "part": ([*whole, "--part", "2"], "the network has the parts 1 Elman"),
        "length": ([*whole, "--length", "3"], "--length must be at least 10"),
        "embedding": ([*whole, "--embedding", "e"], "belong together"),
        "no module": (["--function", "no_such_module:f"], "ModuleNotFoundError"),
        "no name": (["--function", "users_own:f"], "AttributeError"),
        "no colon": (["--function", "users_own"], "module:name"),
        "raises": (["--function", "users_own:raises"], "ZeroDivisionError"),
        "number": (["--function", "users_own:number"], "is int: expected f(xs)"),
        "no features": (["--function", "users_own:wrong"], "--features"),
        "shape": (["--function", "users_own:wrong", "--features", "2"], "did not take xs"),
        "either": (["--function", "users_own:either", "--features", "2"], "assert xs.ndim == 3"),
    }
    for name, (arguments, sentence) in cases.items():
        with pytest.raises(SystemExit) as stopped:
            run(tmp_path / "out", *arguments, "--quick")
        told = capsys.readouterr()
        assert stopped.value.code == 2, name
        assert sentence in told.err and told.err.count("\n") == 1, (name, told.err)
        assert told.err.startswith("error: ") and told.out == "", name
        assert not (tmp_path / "out").exists(), name


def test_windows_are_spread_and_do_not_overlap_and_keep_their_text():
    xs = np.arange(100.0).reshape(1, 100, 1)
    tokens = [[str(i) for i in range(100)]]
    cut, named = loading.cut(xs, tokens, 3, 20)
    assert cut.shape == (3, 20, 1) and cut[:, 0, 0].tolist() == [0, 40, 80]
    assert [[float(t) for t in row] for row in named] == cut[..., 0].tolist()
    cut, _ = loading.cut(xs, None, 9, 30)
    assert cut.shape == (3, 30, 1) and np.all(np.diff(cut[:, 0, 0]) >= 30)
    cut, _ = loading.cut(np.zeros((5, 12, 1)), None, 2, 200)
    assert cut.shape == (2, 12, 1)


def test_text_through_an_embedding_of_the_same_file(tmp_path):
    rows = np.arange(6.0).reshape(3, 2)
    arrays = {"weight_ih_l0": np.eye(2), "weight_hh_l0": np.eye(2), "e.weight": rows}
    safetensors.numpy.save_file(arrays, tmp_path / "w.safetensors")
    (tmp_path / "letters.json").write_text(json.dumps(["a", "b", "c"]))
    (tmp_path / "text.txt").write_text("abcabcabcabc")
    config = xray.Config(
        weights=tmp_path / "w.safetensors",
        embedding="e.weight",
        alphabet=tmp_path / "letters.json",
        text=tmp_path / "text.txt",
        windows=1,
        length=12,
    )
    inputs = loading.load(config).inputs
    assert inputs.xs[0, :4].tolist() == [[0, 1], [2, 3], [4, 5], [0, 1]]
    assert inputs.tokens == [list("abcabcabcabc")]
    (tmp_path / "text.txt").write_text("abcabcabcabz")
    with pytest.raises(common.UsageError, match="lacks 'z'"):
        loading.load(config)


def test_the_words_follow_the_numbers():
    assert measuring.change_words(math.log(0.9)) == "loses 10 % of its size"
    assert measuring.change_words(math.log(1.5)) == "grows by 50 %"
    assert measuring.change_words(0.0) == "keeps its size"
    dead = dict(rate=-math.inf, horizon=1.0, log_norm=np.zeros((1, 5)))
    assert "exactly zero from lag 1 on" in gradients.rate_words("A", dead, 1e-6)
    stack = jaxrnn.Stack((jaxrnn.GRU(3, 8), jaxrnn.LSTM(8, 4)))
    assert loading.describe_network(stack) == "GRU, H = 8, under LSTM, H = 4"
    numbers = dict(rate=-0.1, horizon=138.0, median_time_constant=4.0)
    assert "looks back about 138 steps" in xray.plain_words(numbers, 200, 1e-6)[0]
    assert "typical unit would keep things for 4 steps" in xray.plain_words(numbers, 200, 1e-6)[1]
    numbers = dict(rate=0.1, horizon=math.inf, median_time_constant=None)
    (only,) = xray.plain_words(numbers, 200, 1e-6)
    assert "amplified" in only


@pytest.mark.long
def test_every_part_of_a_bidirectional_stack_and_a_look_ahead(tmp_path):
    gru = jaxrnn.GRU(3, 4)
    above = jaxrnn.GRU(8, 4)
    network = jaxrnn.Stack((jaxrnn.Bidirectional(gru), jaxrnn.Bidirectional(above)))
    params = network.init(jax.random.key(0), dtype=jnp.float32)
    jaxrnn.save(tmp_path / "mine.safetensors", network, params)
    options = ["--weights", tmp_path / "mine.safetensors", "--quick", "--part", "4"]
    result, page = run(tmp_path, *options)
    text = check_page(page, figures=7)
    labels = ["layer 2, backward", "layer 1, forward", "layer 1, backward", "layer 2, forward"]
    assert [p.removeprefix("GRU, ") for p in result["about"]["parts"]] == labels
    assert "--part 3 is GRU, layer 2, forward" in text
    lags = result["answers"][xray.INPUT]["lags"]
    # in the middle of a window, both ways
    assert lags[0] < 0 < lags[-1] and "the future" in text


@pytest.mark.long
def test_a_large_network_gets_cheaper_settings_and_the_page_says_so(tmp_path):
    cell = jaxrnn.Elman(2, 520)
    params = cell.init(jax.random.key(0), dtype=jnp.float32)
    jaxrnn.save(tmp_path / "mine.safetensors", cell, params)
    options = ["--weights", tmp_path / "mine.safetensors", "--quick", "--length", "12"]
    result, page = run(tmp_path, *options)
    text = check_page(page, figures=4)
    assert "N = 520 is large" in text and "16 random directions" in text
    assert len(result["answers"][xray.EXPONENTS]["exponents"]) == 8
