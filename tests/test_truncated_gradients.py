"""The experiment on truncated gradients, end to end, and that its verdicts can say no."""

import json

import jax
import numpy as np
import pytest

from experiments import truncated_gradients as experiment


@pytest.fixture(autouse=True)
def as_on_the_command_line():
    """Optax mixes dtypes, and a newcomer has 32 bits."""
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        yield


REACHES = [1, 4, 16]
COSTS = [dict(steps=64, window=1e-3, whole=2e-3), dict(steps=1024, window=1e-3, whole=3e-2)]


def found(elman, open_gate):
    """Two seeds of all kinds, with these errors of Elman and the LSTM with bias 1 at reach 16."""

    def errors(last):
        return dict(error=np.array([[0.9, 0.8, last], [0.9, 0.7, last + 0.02]]))

    kinds = {kind: dict(initial=errors(0.1), trained=errors(0.3)) for kind in experiment.KINDS}
    kinds["Elman"]["trained"] = errors(elman)
    kinds["LSTM, forget bias 1"]["trained"] = errors(open_gate)
    return kinds


def holds(kinds, costs=COSTS):
    return [v["holds"] for v in experiment.verdicts(kinds, REACHES, costs)]


def test_verdicts_say_yes_and_no():
    assert holds(found(0.3, 0.5)) == [True, True, True]
    # not by more than the spread; the wrong way round
    assert holds(found(0.3, 0.31)) == [True, False, True]
    assert holds(found(0.5, 0.3)) == [True, False, True]
    # an error that rises with the reach
    assert not holds(found(0.99, 0.3))[0]
    slow = [COSTS[0], dict(steps=1024, window=2e-3, whole=3e-2)]
    assert holds(found(0.3, 0.5), slow) == [True, True, False]


@pytest.mark.long
def test_at_full_reach_nothing_is_left_out():
    config = experiment.Config(hidden_size=4, length=40, batch=2, updates=2, seeds=2)
    measured = experiment.measure("Elman", config, [1, 8, 40])
    for when in ("initial", "trained"):
        error, cosine = measured[when]["error"], measured[when]["cosine"]
        assert (error[:, 2] < 1e-6).all() and (error[:, 0] > 0.05).all()
        np.testing.assert_allclose(cosine[:, 2], 1, rtol=1e-6)


@pytest.mark.long
def test_it_runs_to_the_end(tmp_path, capsys):
    config = experiment.Config(
        hidden_size=4, length=40, batch=2, updates=2, seeds=2, output=tmp_path, quick=True
    )
    experiment.run(config)
    shown = capsys.readouterr().out
    assert "Relative error of the gradient over its reach" in shown and "LSTM: ms of one" in shown
    record = json.loads((tmp_path / "truncated_gradients.json").read_text())
    assert set(record["kinds"]) == set(experiment.KINDS) and len(record["verdicts"]) == 3
    assert (tmp_path / "truncated_gradients.png").stat().st_size > 20_000
