"""`python -m experiments.gradient_decay`, end to end on small networks: claims, words, errors."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from matplotlib.figure import Figure

from experiments import _common as common
from experiments import _decay_exact as exact
from experiments import _decay_measure as measuring
from experiments import _decay_report as report
from experiments import _text as texts
from experiments import gradient_decay as experiment
from jaxrnn import plot
from jaxrnn.plot.axes import Curve

POEM = (
    "床前明月光，疑是地上霜。举头望明月，低头思故乡。\n"
    "白日依山尽，黄河入海流。欲穷千里目，更上一层楼。\n"
    "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。\n"
)
SMALL = ["--hidden-size", "8", "--embedding-size", "4", "--length", "30", "--windows", "2"]
SMALL += ["--seeds", "2", "--steps", "12", "--batch", "4", "--learning-rate", "0.03"]


def run(*arguments: str) -> None:
    common.main(experiment.Config, experiment.run, [str(a) for a in arguments])


@pytest.fixture
def poem(tmp_path: Path) -> Path:
    path = tmp_path / "诗.txt"
    path.write_text(POEM * 12, encoding="utf-8")
    return path


# Table 1


def test_every_exact_fact_holds_with_a_measured_value():
    facts = exact.facts()
    assert len(facts) == 10
    assert all(fact.holds for fact in facts), [f for f in facts if not f.holds]
    # ln 0.5³⁰ = −20.8 in float32 is known to 2e-6
    assert float(facts[0].measured) == pytest.approx(0.5**30, rel=2e-6)
    assert float(facts[1].measured) == pytest.approx(0.5**29, rel=2e-6)
    assert float(facts[2].measured) < 0.5**30
    assert facts[3].measured == f"{1.5**20:.6g}"


def test_a_false_fact_is_not_ticked():
    assert not exact._equal("half", 0.5, np.float32(0.51)).holds  # type: ignore[arg-type]
    assert not next(exact.wrong_order(lag=1, draws=2)).holds  # one factor has only one order


# end to end


@pytest.mark.long
def test_chinese_text_from_the_command_line_to_the_redrawn_figure(poem, tmp_path, capsys):
    out = tmp_path / "results"
    cells = ["--cells", "elman", "lstm", "lstm-bias-1"]
    run(*SMALL, *cells, "--text", poem, "--output", out)
    printed = capsys.readouterr().out
    assert printed.index("Table 1") < printed.index("诗.txt") < printed.index("Table 2")
    assert "✗" not in printed and "unigram" in printed
    assert sorted(p.name for p in out.iterdir()) == ["gradient_decay.json", "gradient_decay.png"]

    result = common.read_json(out / "gradient_decay.json", "gradient_decay")
    elman, lstm, biased = (row["measurements"] for row in result["rows"])
    assert [m["step"] for m in elman] == [0, 10, 12]
    assert [m["windows"] for m in elman] == [2, 1, 2]
    # the claim: an open forget gate, not the gates, makes the difference at initialisation
    assert max(elman[0]["rate"] + lstm[0]["rate"]) < min(biased[0]["rate"]) < 0
    assert np.all(np.array(elman[0]["horizon"]) < 30) and np.all(np.isinf(biased[0]["horizon"]))
    # learning has begun
    assert np.mean(biased[-1]["bits"]) < np.mean(biased[0]["bits"]) - 0.5
    assert result["strip"]["characters"] in POEM * 12
    assert result["machine"]["jax"] and result["config"]["seeds"] == 2 and result["seconds"] > 0

    run("--from", out / "gradient_decay.json", "--output", tmp_path / "again", "--format", "svg")
    again = capsys.readouterr().out
    assert (
        again.split("Table 2")[1].split("Wrote")[0] == printed.split("Table 2")[1].split("Wrote")[0]
    )
    assert [p.name for p in (tmp_path / "again").iterdir()] == ["gradient_decay.svg"]


@pytest.mark.long
def test_curves_are_those_of_the_analysis_and_few_windows_give_the_same_as_many():
    import jax
    import jax.numpy as jnp

    import jaxrnn
    from jaxrnn import analysis

    cell = jaxrnn.Elman(3, 5)
    params = jax.vmap(cell.init)(jax.random.split(jax.random.key(0), 2))
    xs = jax.random.normal(jax.random.key(1), (2, 3, 20, 3), jnp.float32)
    data = jnp.broadcast_to(jnp.eye(5, dtype=jnp.float32)[0], (2, 3, 5))
    several = [
        measuring.measure(cell, measuring.probe_loss, 1e-6, params, xs, data, n) for n in (2, 3)
    ]
    for a, b in zip(*map(jax.tree.leaves, several), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    one = jax.tree.map(lambda a: a[1], params)
    wanted = analysis.gradient_decay(cell, one, xs[1], spectral="exact").log_spectral_norm
    np.testing.assert_allclose(several[0]["log_norm"][1], np.mean(wanted, axis=0), rtol=1e-4)

    def loss(xs):
        return jaxrnn.unroll(cell, one, xs)[1][-1, 0]

    gradient = np.linalg.norm(jax.grad(loss)(xs[1, 0]), axis=-1)[::-1]
    np.testing.assert_allclose(np.exp(several[0]["first_window"][1]), gradient, rtol=1e-3)
    # ln |φ'| by finite differences of the activation itself
    hs = np.asarray(jaxrnn.unroll(cell, one, xs[1])[1], np.float64)
    slope = several[0]["elman"]["log_slope"][1]
    assert slope == pytest.approx(np.mean(np.log(1 - hs**2)), rel=1e-4)


@pytest.mark.long
def test_weights_of_a_network_from_a_file(tmp_path, capsys):
    draw = np.random.default_rng(0)
    H, I = 4, 3
    arrays = {
        "rnn.weight_ih_l0": draw.uniform(-1, 1, (H, I)),
        "rnn.weight_hh_l0": 0.5 * np.eye(H),
        "other.weight": np.zeros(2),
    }
    arrays = {k: v.astype(np.float32) for k, v in arrays.items()}
    safetensors.numpy.save_file(arrays, tmp_path / "w.safetensors")
    np.save(tmp_path / "xs.npy", np.zeros((2, 40, I)))
    options = ["--weights", tmp_path / "w.safetensors", "--prefix", "rnn.", "--seeds", "2"]
    run(*options, "--inputs", tmp_path / "xs.npy", "--output", tmp_path / "out")
    result = common.read_json(tmp_path / "out" / "gradient_decay.json", "gradient_decay")
    (row,) = result["rows"]
    fresh, loaded = row["measurements"]
    assert len(fresh["rate"]) == 2 and len(loaded["rate"]) == 1
    # no input: the carry stays 0, and the product is exactly 0.5^k I
    assert loaded["rate"][0] == pytest.approx(math.log(0.5), abs=1e-4)
    assert loaded["horizon"] == [20.0]
    assert "as loaded" in capsys.readouterr().out
    assert (tmp_path / "out" / "gradient_decay.png").exists()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["deep", "bidirectional"])
def test_every_part_of_a_deep_or_bidirectional_network_is_a_row(kind, tmp_path):
    import jax

    import jaxrnn
    from jaxrnn.convert import to_torch

    gru = jaxrnn.GRU(3, 4, reset="after", update_weighs="old", biases=2)
    above = jaxrnn.GRU(4, 4, reset="after", update_weighs="old", biases=2)
    layers = (gru, above) if kind == "deep" else (jaxrnn.Bidirectional(gru),)
    stack = jaxrnn.Stack(layers)
    arrays = {k: np.asarray(v) for k, v in to_torch(stack, stack.init(jax.random.key(0))).items()}
    safetensors.numpy.save_file(arrays, tmp_path / "w.safetensors")
    options = ["--weights", tmp_path / "w.safetensors", "--seeds", "1", "--length", "20"]
    run(*options, "--windows", "2", "--output", tmp_path)
    result = common.read_json(tmp_path / "gradient_decay.json", "gradient_decay")
    labels = [row["label"] for row in result["rows"]]
    wanted = {
        "deep": ["all layers", "GRU, layer 1", "GRU, layer 2"],
        "bidirectional": ["GRU, forward", "GRU, backward"],
    }
    assert labels == wanted[kind]


@pytest.mark.long
def test_quick_is_the_same_path(tmp_path, capsys):
    run("--quick", "--output", tmp_path)
    result = common.read_json(tmp_path / "gradient_decay.json", "gradient_decay")
    assert [row["label"] for row in result["rows"]] == [
        "Elman",
        "LSTM, forget bias 0",
        "LSTM, forget bias 1",
        "GRU",
    ]
    assert 1 <= len(result["verdicts"]) <= 6
    assert "pydoc_data.topics" in capsys.readouterr().out


def test_quick_keeps_what_was_asked_for():
    config = experiment.common.sized(experiment.Config(quick=True, length=60), experiment.QUICK)
    assert config.length == 60 and config.seeds == 2 and config.hidden_size < 64
    assert experiment.common.sized(experiment.Config(), experiment.QUICK) == experiment.Config()
    assert experiment.measured_at(300) == [0, 10, 30, 100, 300]
    assert experiment.measured_at(40) == [0, 10, 30, 40] and experiment.measured_at(0) == [0]


# bad input: one line, exit code 2, nothing written


def _bad_inputs(folder: Path) -> dict[str, tuple[list, str]]:
    (folder / "empty.txt").write_text(" \n")
    (folder / "short.txt").write_text("too short " * 3)
    (folder / "gbk.txt").write_bytes("床前明月光".encode("gb18030") * 200)
    (folder / "file").write_text("not a folder")
    (folder / "junk.safetensors").write_bytes(b"not a safetensors file")
    array = {"weight_ih_l0": np.zeros((8, 3), np.float32)}
    safetensors.numpy.save_file(array, folder / "partial.safetensors")
    whole = array | {"weight_hh_l0": np.zeros((8, 2), np.float32)}
    safetensors.numpy.save_file(whole, folder / "whole.safetensors")
    np.save(folder / "wrong.npy", np.zeros((5, 20, 4)))
    (folder / "other.json").write_text(json.dumps({"experiment": "other"}))
    whole_path = folder / "whole.safetensors"
    return {
        "missing text": (["--text", folder / "none.txt"], "cannot read the text"),
        "folder as text": (["--text", folder], "cannot read the text"),
        "empty text": (["--text", folder / "empty.txt"], "is empty"),
        "short text": (["--text", folder / "short.txt"], "at least 402 are needed"),
        "undecodable": (["--text", folder / "gbk.txt"], "--encoding"),
        "unknown encoding": (["--text", folder / "gbk.txt", "--encoding", "x"], "unknown encoding"),
        "hidden size 0": (["--hidden-size", "0"], "--hidden-size must be at least 1, got 0"),
        "no seeds": (["--seeds", "0"], "--seeds must be at least 1"),
        "bad threshold": (["--threshold", "nan"], "--threshold must be positive"),
        "unknown cell": (["--cells", "elman", "rwkv"], "unknown cell 'rwkv'"),
        "twice the same": (["--cells", "gru", "gru"], "each once"),
        "unwritable": (["--output", folder / "file" / "sub"], "cannot write to the folder"),
        "missing weights": (["--weights", folder / "none.safetensors"], "none.safetensors"),
        "no weights": (["--weights", folder / "junk.safetensors"], "junk.safetensors"),
        "part of weights": (["--weights", folder / "partial.safetensors"], "weight_hh_l0"),
        "wrong prefix": (["--weights", whole_path, "--prefix", "lstm."], "lstm."),
        "wrong inputs": (
            ["--weights", whole_path, "--inputs", folder / "wrong.npy"],
            "expected (T, 3) or (windows, T, 3)",
        ),
        "inputs are text": (
            ["--weights", whole_path, "--inputs", folder / "short.txt"],
            "not a .npy file",
        ),
        "inputs alone": (["--inputs", folder / "wrong.npy"], "--weights"),
        "no such result": (["--from", folder / "none.json"], "cannot read"),
        "not a result": (["--from", folder / "other.json"], "not a result of"),
        "not JSON": (["--from", folder / "short.txt"], "not a JSON file"),
    }


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for name, (arguments, sentence) in _bad_inputs(inputs).items():
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as stopped:
            run(*arguments)
        told = capsys.readouterr()
        assert stopped.value.code == 2, name
        assert sentence in told.err and told.err.count("\n") == 1, (name, told.err)
        assert told.err.startswith("error: ") and told.out == "", name
        assert sorted(tmp_path.rglob("*")) == before, name


# words


def _measurement(rate, step_norm=-0.1, bits=None, when="at initialisation", **more) -> dict:
    lags = np.arange(1, 101)
    found = {
        "when": when,
        "rate": [rate, rate - 0.001],
        "half_life": [math.log(2) / -rate if rate < 0 else math.inf] * 2,
        "horizon": [min((k for k in lags if rate * k < math.log(1e-6)), default=math.inf)] * 2,
        "input_rate": [rate, rate - 0.001],
        "log_step_norm": [step_norm, step_norm],
        "log_norm": [rate * lags, rate * lags],
    }
    return found | ({} if bits is None else {"bits": [bits, bits + 0.01]}) | more


def _row(label, before, after) -> dict:
    return {"label": label, "measurements": [before, after | {"when": "after 9 updates"}]}


def _rows(elman=-0.6, lstm=-0.5, biased=-0.2, norm=0.1, bits=(2.9, 2.8, 2.7)) -> list[dict]:
    rates = {"Elman": elman, "LSTM, forget bias 0": lstm, "LSTM, forget bias 1": biased}
    return [
        _row(label, _measurement(rate, norm), _measurement(rate / 2, norm, b))
        for (label, rate), b in zip(rates.items(), bits, strict=True)
    ]


def test_verdicts_turn_with_the_numbers():
    said = " ".join(report.verdicts(_rows()))
    assert "Norm above 1, gradient vanishes all the same" in said
    assert "gates without a forget bias slow the decay somewhat and cure none of it" in said
    assert "at initialisation slower (-0.500 to -0.200 per step)"[:24] in said
    assert "is also the one whose loss reaches furthest back" in said
    assert len(report.verdicts(_rows())) <= 6

    said = " ".join(report.verdicts(_rows(norm=-0.2)))
    assert "forces every gradient to decay" in said and "all the same" not in said
    said = " ".join(report.verdicts(_rows(elman=0.2, lstm=0.2, biased=0.2)))
    assert "and the gradient grows" in said
    said = " ".join(report.verdicts(_rows(lstm=-0.61)))
    assert "do not slow the decay" in said
    said = " ".join(report.verdicts(_rows(lstm=-0.03)))
    assert "slow the decay somewhat:" in said and "cure none" not in said
    said = " ".join(report.verdicts(_rows(bits=(2.0, 2.8, 2.7))))
    assert "reach and prediction are two things" in said


def test_the_direct_path_is_never_called_the_gradient():
    curves = dict(joint=-0.1, hidden_block=-0.2, product_of_hidden_blocks=-1.0, direct_path=-0.3)
    lags = np.arange(1, 101)
    rows = _rows()
    for direct, side in ((-0.3, "below"), (-0.05, "above")):
        curves["direct_path"] = direct
        rows[1]["measurements"][-1]["curves"] = {k: [v * lags] for k, v in curves.items()}
        (said,) = [s for s in report.verdicts(rows) if "direct path" in s]
        assert said.startswith("The direct path is not the gradient") and side in said


def test_a_model_below_chance_is_warned_about():
    about = {"unigram_bits": 2.85}
    (warning,) = report.warnings(_rows(), about)
    assert warning.startswith("Elman: 2 of 2 models") and "2.85 bits/char" in warning
    rows = _rows(bits=(math.nan, 2.8, 2.7))
    assert "Elman: 2 of 2" in report.warnings(rows, about)[0]  # a model that blew up, too


def test_horizons_are_censored_in_words():
    inf = math.inf
    assert report.horizon_text([10, 20, 30], 200) == "20"
    assert report.horizon_text([10, inf, inf, 20, inf], 200) == "> 200, 3 of 5 seeds"
    assert report.horizon_text([10, 30, inf], 200) == "30 (> 200: 1 of 3)"


def test_differences_within_the_spread_are_not_told():
    assert report.compare([-0.6, -0.4], [-0.5, -0.3]) == "about as fast"
    assert report.compare([-0.60, -0.61], [-0.5, -0.51]) == "slower"
    assert report.compare([-0.5, -0.51], [-0.60, -0.61]) == "faster"
    assert report.compare([-0.6, -0.4], [-0.45]) == "about as fast"  # one network has no spread


# text


def test_trigram_model_is_a_distribution_and_beats_unigram_on_regular_text():
    train = np.tile(np.array([0, 1, 2, 0, 1, 3], np.int32), 50)
    size = 5
    for context in ([0, 1], [4, 4], [3, 4]):
        test = np.array([[*context, c] for c in range(size)], np.int32)
        total = np.sum(2.0 ** -texts.trigram_bits(train, test, size))
        assert total == pytest.approx(1, rel=1e-12)
    test = train[None, :60]
    trigram = texts.trigram_bits(train, test, size).mean()
    assert trigram < 0.5 < texts.unigram_bits(train, test, size).mean()


def test_witten_bell_by_hand():
    # "aab": after aa comes b once; after a: a once, b once; unigrams 3/5 and 2/5
    bits = texts.trigram_bits(np.array([0, 0, 1]), np.array([[0, 0, 1]]), 2)
    after_a = (1 + 2 * 2 / 5) / (2 + 2)
    assert 2.0 ** -bits[0, 0] == pytest.approx((1 + 1 * after_a) / (1 + 1))


def test_rare_characters_share_a_number():
    alphabet = texts.most_frequent("aaabbc", most=2)
    assert alphabet.characters == ("a", "b")
    assert list(alphabet.encode("cab?")) == [2, 0, 1, 2] and alphabet.size == 3


def test_the_built_in_text_repeats_no_paragraph():
    name, text = texts.read_text(None)
    paragraphs = text.split("\n\n")
    assert "pydoc_data.topics" in name
    assert len(text) > 100_000 and len(set(paragraphs)) == len(paragraphs)


# figure


def test_characters_without_a_font_become_boxes_and_a_line(monkeypatch, tmp_path):
    dejavu = {k: v for k, v in plot.text._regular_fonts().items() if "DejaVu" in k}
    monkeypatch.setattr(plot.text, "_regular_fonts", lambda: dejavu)
    plot.text._characters.cache_clear()
    families, missing = plot.families_for("明月 moon")
    assert families == ["DejaVu Sans Mono"] and set(missing) == set("明月")
    assert plot.drawable("明 m\n", families) == "□ m↵"
    (line,) = common.about_fonts(missing)
    assert "fonts-noto-cjk" in line
    plot.text._characters.cache_clear()


def test_names_never_overlap_and_stay_inside():
    draw = np.random.default_rng(0)
    for _ in range(50):
        heights = list(draw.uniform(0.5, 1.5, 5))
        wanted = sorted(draw.uniform(0, 10, 5), reverse=True)
        places = plot.spread(wanted, heights, 0.0, 10.0)
        tops = [y + h / 2 for y, h in zip(places, heights, strict=True)]
        bottoms = [y - h / 2 for y, h in zip(places, heights, strict=True)]
        assert min(bottoms) > -1e-9 and max(tops) < 10 + 1e-9
        assert all(b >= t - 1e-9 for b, t in zip(bottoms[:-1], tops[1:], strict=True))


def test_the_shaded_region_is_where_a_float32_norm_reads_zero():
    import jax.numpy as jnp

    edge = math.exp(plot.FLOAT32_ZERO)
    assert float(jnp.linalg.norm(jnp.array([1.01 * edge, 0], jnp.float32))) > 0
    if jnp.zeros(0).device.platform == "cpu":
        assert float(jnp.linalg.norm(jnp.array([0.99 * edge, 0], jnp.float32))) == 0


def test_a_record_is_drawn_by_one_call(tmp_path):
    import jax
    import jax.numpy as jnp

    import jaxrnn
    from jaxrnn import analysis

    cell = jaxrnn.Elman(2, 3)
    record = analysis.gradient_decay(
        cell, cell.init(jax.random.key(0)), jnp.zeros((2, 20, 2), jnp.float32)
    )
    axes = plot.gradient_decay(record, label="Elman")
    axes.get_figure().savefig(tmp_path / "decay.png")
    (line,) = [line for line in axes.lines if len(line.get_xdata()) == 21]
    wanted = np.median(np.asarray(record.log_spectral_norm), axis=0) / math.log(10)
    np.testing.assert_allclose(line.get_ydata()[1:], wanted, rtol=1e-5)


def test_results_survive_a_crash_in_the_middle_of_writing(tmp_path):
    path = tmp_path / "result.json"
    common.write_json(path, {"a": math.inf, "b": [1.0, -math.inf], "c": np.arange(2)})
    assert json.loads(path.read_text()) == {"a": "Infinity", "b": [1.0, "-Infinity"], "c": [0, 1]}
    before = copy.copy(path.read_bytes())
    with pytest.raises(TypeError):
        common.write_json(path, {"a": object()})
    with pytest.raises(RuntimeError), common.whole_file(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_names_of_curves_that_leave_close_together_stand_above_each_other():
    axes = Figure(figsize=(8, 6)).add_subplot()
    axes.set(xlim=(0, 100), ylim=(-10, 1))
    lowest = (-30, -29, -12)  # two go through the floor side by side, the third far behind
    curves = [Curve(np.linspace(0, low, 100), f"to {low}", "black") for low in lowest]
    plot.label_ends(axes, curves)
    heights = {text.get_text(): text.xyann[1] for text in axes.texts}
    assert heights["to -30 ↓"] - heights["to -29 ↓"] > 0.4  # a line of letters
    assert heights["to -29 ↓"] == heights["to -12 ↓"]
