"""The worked example: its numbers against an independent loop, and that it can be refuted."""

import importlib.util
import json

import numpy as np
import pytest
from oracles import numpy_loop

from experiments import _common as common
from experiments import worked_example
from experiments.worked_example import Config, draw, judge, run


def expected(numbers):
    """h_1 … h_T by the tests' own loop."""
    weights = numpy_loop.Weights(
        numbers.W_x[None], numbers.W_h[None], numbers.b[None], np.zeros((1, len(numbers.b)))
    )
    xs, h = numbers.xs[None], np.zeros((1, len(numbers.b)))
    ys = np.zeros((1, len(numbers.xs), len(numbers.b)))
    result = numpy_loop.run("tanh", [[weights]], xs, [[(h,)]], [len(xs[0])], ys, [[(h,)]])
    return result.ys[0]


@pytest.mark.parametrize("quick", [True, False])
def test_every_program_gives_the_numbers_of_an_independent_loop(tmp_path, capsys, quick):
    config = Config(output=tmp_path, quick=quick)
    result = run(config)
    want = expected(draw(Config(embedding_size=8) if quick else config))
    assert want.shape == (4, 3)
    np.testing.assert_allclose([step["h"] for step in result.steps], want, rtol=1e-12)
    assert result.verdict.startswith("the claim holds")
    compared = ["jaxrnn", "rows"] + ["PyTorch"] * bool(importlib.util.find_spec("torch"))
    assert all(result.differences[name] <= 1e-12 for name in compared)
    assert result.differences["W_h not transposed"] > 0.01
    shown = capsys.readouterr().out
    assert "t = 4   《稻香》" in shown and "Verdict: the claim holds" in shown
    # a student can redo the last step from what is on the page
    page = [line.split("=")[1].split() for line in shown.splitlines() if "_4  " in line]
    W_x_x, a, h = (np.array([float(word) for word in line[:3]]) for line in page[1:])
    W_h_h, b = (_printed(shown, name) for name in ("W_h h_3", "b  "))
    np.testing.assert_allclose(W_x_x + W_h_h + b, a, atol=2e-4)
    np.testing.assert_allclose(np.tanh(a), h, atol=2e-4)
    np.testing.assert_allclose(h, want[3], atol=6e-5)


def _printed(page, name):
    (line, *_) = [line for line in page.splitlines() if line.strip().startswith(name)]
    return np.array([float(word) for word in line.split("=")[1].split()[:3]])


def test_the_record_holds_what_was_shown(tmp_path):
    result = run(Config(output=tmp_path, quick=True, words=("a", "b", "a")))
    record = json.loads((tmp_path / "worked_example.json").read_text())
    assert record["config"]["seed"] == 42 and record["config"]["embedding_size"] == 8
    assert [step["word"] for step in record["steps"]] == ["a", "b", "a"]
    first, _, third = record["steps"]
    assert first["from_input"] == third["from_input"]  # one word, one embedding
    assert first["h"] != third["h"]  # but as many states as contexts
    assert record["verdict"] == result.verdict


def test_another_program_refutes_it(tmp_path, monkeypatch, capsys):
    right = worked_example.with_jaxrnn
    monkeypatch.setattr(worked_example, "with_jaxrnn", lambda numbers: right(numbers) + 1e-9)
    verdict = run(Config(output=tmp_path, quick=True)).verdict
    assert verdict == "the claim is refuted: jaxrnn differs by 1.0e-09, allowed is 1e-12"
    assert f"Verdict: {verdict}." in capsys.readouterr().out


@pytest.mark.parametrize("name", ["jaxrnn", "rows", "PyTorch", "by hand"])
def test_each_comparison_counts_and_nan_is_no_agreement(name):
    fine = {"jaxrnn": 0.0, "rows": 0.0, "PyTorch": None, "by hand": 1e-4}
    assert judge(fine).startswith("the claim holds")
    assert judge(fine | {name: float("nan")}).startswith("the claim is refuted")
    assert judge(fine | {name: 3e-4}).startswith("the claim is refuted")


def test_without_pytorch_it_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = run(Config(output=tmp_path, quick=True))
    assert result.torch is None and result.verdict.startswith("the claim holds")
    assert "not installed: pip install 'jaxrnn[parity]'" in capsys.readouterr().out


def test_nothing_to_compute_is_one_line(tmp_path):
    with pytest.raises(common.UsageError, match="--words: got 0, expected at least 1"):
        run(Config(words=(), output=tmp_path))
