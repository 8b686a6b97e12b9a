"""The transition to chaos, measured on small networks, beside theory and a NumPy loop."""

import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from experiments import _chaos_measure as measure
from experiments import _chaos_verdicts as weigh
from experiments import _claims as claims
from experiments import _common as common
from experiments import chaos_transition as chaos

SMALL: dict[str, Any] = dict(quick=True, seeds=2, sizes=(), gains=(0.5, 0.75, 1.25, 1.75, 2.5, 3.0))


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """What a run finds, and the folder that it wrote to."""
    folder = tmp_path_factory.mktemp("chaos")
    return chaos.run(chaos.Config(output=folder, **SMALL)), folder


# the run


@pytest.mark.long
def test_measured_exponents_and_variances_follow_the_mean_field(result):
    row = weigh.of_size(result[0]["elman"], 128)
    g, apart = np.array(row["gains"]), measure.distances(row).mean(-1)
    # 2.9/N in chaos; in order the radius of W_h, which is off by 1/√N; a mean of two networks
    assert np.max(np.abs(apart)) < 0.1
    strong = row["variances"].index(1.0)
    assert np.max(np.abs(apart[strong])) < 0.04
    assert np.max(np.abs(weigh.q_errors(row)[strong])) < 0.03
    # the law itself, not a neighbour of it: without the input in q, or without sech⁴
    exponents = np.array(row["exponent"])[strong].mean(-1)
    assert np.max(np.abs(exponents - np.log(g))) > 0.3
    assert np.max(np.abs(exponents - np.array(row["theory"]["exponent"])[0])) > 0.3


@pytest.mark.long
def test_without_input_and_below_one_the_exponent_is_that_of_the_largest_eigenvalue(result):
    row = weigh.of_size(result[0]["elman"], 128)
    below = np.array(row["exponent"])[0, :2]
    expected = np.log(row["gains"][:2])[:, None] + np.array(row["log_radius"])
    np.testing.assert_allclose(below, expected, atol=0.01)


@pytest.mark.long
def test_input_moves_the_edge_to_where_theory_has_it(result):
    row = weigh.of_size(result[0]["elman"], 128)
    found = measure.onsets(row)
    assert np.all(np.diff(found[1:], axis=0) > 0)
    # straight lines between gains half a unit apart
    np.testing.assert_allclose(found[1:].mean(1), row["theory"]["edge"][1:], rtol=0.07)


@pytest.mark.long
def test_gradients_go_back_at_the_rate_that_differences_grow_at(result):
    back = result[0]["back"]
    forward, backward = np.array(back["exponent"]), np.array(back["rate"])
    np.testing.assert_allclose(backward.mean(-1), forward.mean(-1), atol=0.03)
    assert forward.min() < -1 and forward.max() > 0.05


@pytest.mark.long
def test_the_run_leaves_a_record_and_draws_it_again(result, tmp_path, capsys):
    found, folder = result
    path = folder / "chaos_transition.json"
    record = json.loads(path.read_text())
    assert record["machine"]["jax"] and record["config"]["seeds"] == 2
    assert (folder / "chaos_transition.png").stat().st_size > 50_000
    again = chaos.run(chaos.Config(redraw=path, output=tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["chaos_transition.png"]
    shown = capsys.readouterr().out
    assert "Elman's network of 128 units" in shown and "N = 128" in shown
    assert len(found["verdicts"]) >= 8 and again["verdicts"] == found["verdicts"]
    for verdict in found["verdicts"]:
        assert claims.sentence(verdict) in shown


# what it is made of


def test_elman_and_the_loop_of_theory_have_one_exponent_and_variance():
    # short of chaos, where rounding would tell the trajectories apart
    size, steps, burn_in, gain, scale = 128, 400, 100, 1.2, 0.6
    cell = measure.network("elman", size)
    of = measure.draw(cell, steps, jax.random.key(3))
    # shapes as in the run, which has compiled it
    found = measure.look(cell, burn_in, of, jnp.full(6, gain, jnp.float32), jnp.float32(scale))
    # h ← J tanh(h) + input, in NumPy; what Elman's cell carries is tanh(h)
    J, inputs = gain * np.asarray(of.params.W_h, float), scale * np.asarray(of.noise, float)
    h = J @ np.asarray(of.carry.h, float) + inputs[0]
    vector, grown, squares = np.ones(size), [], []
    for t in range(1, steps):
        vector = J @ ((1 - np.tanh(h) ** 2) * vector)
        h = J @ np.tanh(h) + inputs[t]
        grown.append(math.log(np.linalg.norm(vector)))
        squares.append(np.mean(h**2))
        vector /= np.linalg.norm(vector)
    # the loops are cut at different points, which tells at the ends alone
    assert float(found["exponent"][0]) == pytest.approx(np.mean(grown[burn_in:]), abs=3e-3)
    assert float(found["q"][0]) == pytest.approx(np.mean(squares[burn_in:]), rel=1e-5)


@pytest.mark.parametrize("variance", [0.05, 1.0])
def test_the_edge_of_theory_is_where_its_exponent_vanishes(variance):
    z, weights = np.polynomial.hermite_e.hermegauss(101)
    weights = weights / weights.sum()

    def exponent(gain):
        q = 1.0
        for _ in range(1000):
            q = gain**2 * weights @ np.tanh(np.sqrt(q) * z) ** 2 + variance
        return 0.5 * np.log(gain**2 * weights @ np.cosh(np.sqrt(q) * z) ** -4.0)

    expected = optimize.brentq(exponent, 1, 3)
    assert measure.theory_edge(variance) == pytest.approx(expected, rel=1e-4)
    assert measure.theory_edge(0.0) == 1


def test_edges_lie_on_straight_lines_and_may_be_missing():
    gains = [1.0, 2.0, 4.0]
    exponents = np.array([[-1.0, 3.0, 4.0], [0.5, -0.5, 0.5], [-3, -2, -1], [1, 2, 3]], float).T
    found = measure.edges(gains, exponents)
    # of two crossings the last; none if it stays on one side
    np.testing.assert_allclose(found, [1.25, 3.0, np.nan, np.nan])
    np.testing.assert_allclose(measure.edges(gains, exponents, 1.0)[[0, 3]], [1.5, 1.0])
    row = dict(gains=gains, variances=[0.0, 1.0], exponent=[[[0.0], [0.0], [1.0]]] * 2)
    np.testing.assert_allclose(measure.onsets(row)[:, 0], [2 + 2 * measure.LEVEL, 2])


@pytest.mark.long
def test_in_chaos_the_distance_to_the_mean_field_is_one_over_size():
    config = chaos.Config(length=1000, seeds=4)

    def distance(size):
        row = measure.sweep("elman", size, (2.5, 3.0), (0.2, 1.0), config, lambda *_: None)
        return float(np.mean(measure.distances(row)))

    near, far = distance(256), distance(64)
    assert far < near < 0 and 2.5 < far / near < 6


# verdicts

GAINS = (0.5, 0.75, 1.0, 1.05, 1.25, 1.5, 2.0, 3.0)
VARIANCES = (0.0, 0.2, 1.0)


def ideal(size, off=0.0, of_q=1.0, label="Elman") -> dict[str, Any]:
    """Two networks as theory has them, but for what is said."""
    theory = measure.theory(GAINS, VARIANCES)
    # the spread of two networks
    exponent = theory["exponent"][..., None] + off + np.array([0.0, 1e-4])
    found: dict[str, Any] = dict(
        size=size, gains=GAINS, variances=VARIANCES, exponent=exponent, label=label
    )
    q = of_q * theory["q"][..., None] + np.zeros(2)
    return found | dict(theory=theory, q=q, log_radius=np.zeros(2), critical_gain=1.0)


def weighed(rows, rate=0.0, gated=()):
    back = rows[-1] | dict(rate=rows[-1]["exponent"] + rate)
    return weigh.verdicts(dict(elman=rows, back=back, gated=list(gated)), rows[-1]["size"])


def holds(verdicts):
    return [v["holds"] for v in verdicts]


def test_verdicts_say_yes_to_networks_that_are_as_theory_has_them():
    rows = [ideal(size, off=-0.6 / size) for size in (32, 64, 128)]
    gated = ideal(64, label="GRU")
    verdicts = weighed(rows, gated=[gated])
    # 1/N off: the exponent without input and below gain 1 is, too; its onset is above LEVEL
    assert holds(verdicts) == [True, True, True, True, True, False, True, True, True, True]
    onset = verdicts[5]["measured"]
    assert "N = 128: 1.1" in onset and "h = 0 is lost at 1.00 ± 0.00" in onset
    assert "Powers of N: chaos -1.0" in verdicts[2]["measured"]


def test_verdicts_say_no():
    def of(**row):
        return weighed([ideal(size, **row) for size in (32, 64, 128)], rate=0.03)

    wrong = of(off=0.03, of_q=1.1)
    # what does not shrink, edges that lie too low, a gradient of its own
    assert holds(wrong) == [False, False, False, True, False, True, False, False, True]
    assert not any(v["only_if"] for v in wrong if not v["holds"])
    driven = ideal(128)
    driven["exponent"][0] += 0.1
    driven["q"][0] *= 2
    exponent, q, suppressed = weighed([driven])[:3]
    assert not exponent["holds"] and exponent["only_if"] == "s² is at least 0.2"
    assert not q["holds"] and q["only_if"] == "s² is at least 0.2"
    assert suppressed["claim"].startswith("the more input")


def test_verdicts_say_no_where_input_does_not_suppress_chaos():
    turned = ideal(128)
    turned["exponent"] = turned["exponent"][::-1]
    found = {v["claim"][:20]: v for v in weighed([turned], gated=[turned | dict(label="LSTM")])}
    assert not found["the more input, the "]["holds"] and not found["with input chaos set"]["holds"]
    assert not found["input moves the edge"]["holds"] and not found["input of variance 1 "]["holds"]
    # chaos that was never met is no edge at all
    quiet = ideal(128)
    quiet["exponent"] = quiet["exponent"] - 2
    assert not weighed([quiet])[3]["holds"]


@pytest.mark.parametrize(
    "config, sentence",
    [
        (dict(hidden_size=2), "--hidden-size must be at least 8, got 2"),
        (dict(gains=(1.0, 0.5, 2.0, 3.0)), "--gains takes 4 or more numbers in ascending order"),
        (dict(variances=(0.1, 0.2)), "--variances must begin with 0"),
        (dict(cells=("rnn",)), "--cells takes one or more of 'gru', 'lstm', each once"),
        (dict(sizes=(32, 32)), "--sizes takes numbers of at least 8, each once"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(config, sentence, tmp_path):
    with pytest.raises(common.UsageError, match=sentence):
        chaos.run(chaos.Config(output=tmp_path, **config))
