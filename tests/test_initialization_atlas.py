"""The atlas of beginnings: rates that are known, a row for every cell, verdicts that can say no."""

import contextlib
import dataclasses
import io
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from experiments import _atlas_figure as figure
from experiments import _atlas_measure as measuring
from experiments import _atlas_plan as plans
from experiments import _atlas_verdicts as weighing
from experiments import _claims as claims
from experiments import _common as common
from experiments import initialization_atlas as atlas
from jaxrnn import catalogue
from jaxrnn.initializers import ForgetBias, Zeros

CELLS = ("Elman", "GRU", "LinearRNN", "MinGRU", "huge")
SMALL: dict[str, Any] = dict(quick=True, hidden_size=12, input_size=8, length=40, seeds=2)


@dataclasses.dataclass(frozen=True)
class Huge:
    """A cell whose carry is large at any size."""

    def init(self, key, dtype=jnp.float32):
        return jnp.zeros((100,), dtype)

    def initial_carry(self, params):
        return params

    def step(self, params, carry, x):
        return carry, carry


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """One run on the quick path: its folder, its result and what it printed."""
    folder, out = tmp_path_factory.mktemp("atlas"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setitem(plans.KINDS, "huge", plans.Kind("Huge", lambda m, d: Huge()))
        result = atlas.run(atlas.Config(cells=CELLS, output=folder, **SMALL))
    return folder, result, out.getvalue()


@pytest.fixture(scope="module")
def of(quick):
    """Columns of each row by name, as arrays `(scales, seeds)`."""
    return {
        row["name"]: {
            column: {name: np.array(values) for name, values in found.items()}
            for column, found in row["columns"].items()
        }
        for row in quick[1]["rows"]
    }


def drawn(name, column):
    """The plan of a row, and the params with which a column of it was measured, seed by seed."""
    plan = plans.plan(plans.KINDS[name], SMALL["input_size"], SMALL["hidden_size"], SMALL["length"])
    keys, noise_keys = jax.random.split(jax.random.key(0), (2, SMALL["seeds"]))
    params = jax.tree.map(lambda a: np.asarray(a[0]), measuring.draw((plan.begins[column],), keys))
    shape = (SMALL["length"] + 1, SMALL["input_size"])
    return plan, params, np.asarray(measuring.noise(shape, (0.0, 1.0), noise_keys))


def holds(verdicts):
    return [verdict["holds"] for verdict in verdicts]


# numbers


@pytest.mark.long
def test_linear_networks_have_the_rates_of_their_matrices(of):
    found = of["LinearRNN"]
    np.testing.assert_allclose(found["orthogonal"]["rate"], 0, atol=1e-6)
    np.testing.assert_allclose(found["orthogonal"]["log_kept"], 0, atol=1e-5)
    np.testing.assert_array_equal(found["identity"]["rate"], 0)
    assert np.all(found["zeros"]["rate"] == -np.inf)
    for name, column in (("default", "uniform"), ("normal", "normal")):
        _, params, _ = drawn("LinearRNN", column)
        # σ_max of powers, by NumPy in float64
        for seed, W in enumerate(params.W_h.astype(np.float64)):
            lags = np.arange(4, 41)
            powers = [np.linalg.norm(np.linalg.matrix_power(W, k), 2) for k in lags]
            slope = np.polyfit(lags, np.log(powers), 1)[0]
            np.testing.assert_allclose(found[name]["rate"][:, seed], slope, atol=1e-4)
            kept = found[name]["log_kept"][:, seed]
            np.testing.assert_allclose(kept, np.log(powers[-1]), atol=1e-3)


@pytest.mark.long
def test_gates_that_read_nothing_but_their_bias_keep_what_it_says(of):
    rates = {column: values["rate"][0] for column, values in of["MinGRU"].items()}
    np.testing.assert_allclose(rates["default"], -math.log(2), rtol=1e-5)
    np.testing.assert_allclose(rates["forget bias 1"], -math.log1p(math.exp(-1)), rtol=1e-5)
    # b = ln u keeps u / (1 + u): the slowest unit is what a norm sees
    _, params, _ = drawn("MinGRU", "chrono")
    np.testing.assert_allclose(
        rates["chrono"], -np.log1p(np.exp(params.b[:, 0])).min(-1), rtol=1e-4
    )
    # without recurrent weights, the Jacobian of a GRU is diag(1 − z)
    _, params, _ = drawn("GRU", "zeros")
    slowest = -np.log1p(np.exp(params.b[:, 1])).min(-1)
    np.testing.assert_allclose(of["GRU"]["zeros"]["rate"][0], slowest, rtol=1e-4)


@pytest.mark.long
def test_a_gru_of_zeros_halves_its_carry(quick):
    plan, _, xs = drawn("GRU", "default")
    cells = tuple(dict.fromkeys(plan.begins.values()))
    params = measuring.draw(cells, jax.random.split(jax.random.key(0), 2))
    found = measuring.look(plan.cell, jax.tree.map(jnp.zeros_like, params), jnp.asarray(xs))
    for name in ("rate", "frobenius_rate"):
        np.testing.assert_allclose(found[name], -math.log(2), rtol=1e-5)
    np.testing.assert_array_equal(found["log_growth"], 0)


@pytest.mark.long
def test_elman_is_measured_as_a_loop_in_numpy_measures_it(of):
    _, params, xs = drawn("Elman", "default")
    for seed in range(2):
        W_x, W_h, b = (a[seed].astype(np.float64) for a in (params.W_x, params.W_h, params.b))
        for scale in range(2):
            h, jacobians = np.zeros(12), []
            for x in xs[seed, scale].astype(np.float64):
                h = np.tanh(W_x @ x + W_h @ h + b)
                jacobians.append((1 - h**2)[:, None] * W_h)
            product, norms = np.eye(12), []
            for J in jacobians[:0:-1]:
                product = product @ J
                norms.append([np.linalg.norm(product, 2), np.linalg.norm(product)])
            logs = np.log(norms)
            slopes = np.polyfit(np.arange(4, 41), logs[3:], 1)[0]
            found = of["Elman"]["default"]
            assert found["rate"][scale, seed] == pytest.approx(slopes[0], rel=1e-3)
            assert found["frobenius_rate"][scale, seed] == pytest.approx(slopes[1], rel=1e-3)
            assert found["log_kept"][scale, seed] == pytest.approx(logs[-1, 0], rel=1e-3)
            growth = max(0, logs[:, 0].max())
            assert found["log_growth"][scale, seed] == pytest.approx(growth, abs=1e-4)


@pytest.mark.long
def test_default_rates_are_those_on_record_at_64_units():
    # the record names no input size: rates of Elman's network with inputs fit 16, not 64
    record = dict(LSTM=(-0.46, -0.48), GRU=(-0.44, -0.46), Elman=(-0.46, -0.62))
    config = atlas.Config(seeds=3)
    for name, rates in record.items():
        plan = plans.plan(plans.KINDS[name], 16, 64, 100)
        columns = [c for c in ("default", "forget bias 1") if c in plan.begins]
        plan = plan._replace(begins={c: plan.begins[c] for c in columns})
        found = measuring.measure(plan, config)
        measured = found["default"]["rate"].mean(1)
        np.testing.assert_allclose(measured, rates, atol=0.08)
        if name == "LSTM":
            np.testing.assert_allclose(found["forget bias 1"]["rate"].mean(1)[1], -0.18, atol=0.04)


# the plan


def test_every_cell_of_the_catalogue_has_a_row_that_can_be_measured():
    assert set(catalogue.classes()) <= set(plans.KINDS)
    planned = {name: plans.plan(kind, 32, 32, 100) for name, kind in plans.KINDS.items()}
    for name, plan in planned.items():
        assert plan.begins[plans.DEFAULT] == plan.cell and plan.carry_size <= 96, name
        assert set(plan.begins) <= set(plans.COLUMNS)
    assert tuple(planned["LSTM"].begins) == plans.COLUMNS
    assert tuple(planned["S5"].begins) == ("default",)
    # a vector of weights is no orthogonal matrix; what has no gate has no bias that keeps
    assert set(planned["IndRNN"].begins) == {"default", "uniform", "normal", "zeros"}
    assert "chrono" not in planned["Elman"].begins and planned["MinGRU"].family == "linear"
    assert [planned[k].family for k in ("GRU", "Elman")] == ["keeps", "other"]
    assert planned["S4D"].hidden_size < 32 == planned["LSTM"].hidden_size


def test_a_forget_bias_goes_to_the_gate_that_keeps():
    begins = plans.begins(jaxrnn.GRU(2, 3), 50.0)["forget bias 1"]
    by_default = jaxrnn.GRU(2, 3).init(jax.random.key(0)).b
    np.testing.assert_allclose(
        np.asarray(begins.init(jax.random.key(0)).b) - np.asarray(by_default),
        np.repeat([[0.0], [-1.0], [0.0]], 3, axis=1),
        atol=1e-6,
    )
    assert plans.keeping_bias(jaxrnn.MinimalRNN(2, 3)) == "recurrent_bias_initializer"
    assert plans.keeping_bias(jaxrnn.Elman(2, 3)) is None
    # an SLSTM has a forget bias of 3 by default
    sl = plans.begins(jaxrnn.SLSTM(2, 3), 50.0)["forget bias 1"]
    assert sl.bias_initializer == ForgetBias(1.0, Zeros())


# the experiment


@pytest.mark.long
def test_the_quick_run_leaves_a_record_and_redraws_it(quick, tmp_path, capsys):
    folder, result, shown = quick
    record = json.loads((folder / "initialization_atlas.json").read_text())
    assert record["machine"]["jax"] and record["config"]["seeds"] == 2
    assert (folder / "initialization_atlas.png").stat().st_size > 20_000
    for verdict in result["verdicts"]:
        assert claims.sentence(verdict) in shown
    assert "Not measured: Huge: a carry of 100 numbers or more." in shown
    path = folder / "initialization_atlas.json"
    atlas.run(atlas.Config(redraw=path, output=tmp_path))
    assert capsys.readouterr().out.split("Wrote")[0] == shown.split("Wrote")[0]
    assert [p.name for p in tmp_path.iterdir()] == ["initialization_atlas.png"]


@pytest.mark.long
def test_the_quick_run_weighs_its_claims(quick):
    keep, bursts, orthogonal, biases, linear = quick[1]["verdicts"]
    assert not keep["holds"] and bursts["holds"] and biases["holds"] and not linear["holds"]
    assert not orthogonal["holds"] and orthogonal["only_if"] == "the network is linear"
    assert "0 of 4 do: none" in keep["measured"]


def found(rate, kept=None, growth=0.0):
    """A column in which the two scales, and the two seeds, nearly agree."""
    rates = np.array([[rate, rate + 1e-4]] * 2)
    kept = 100 * rate if kept is None else kept
    both = dict(rate=rates, frobenius_rate=rates, log_kept=np.full((2, 2), kept))
    return both | dict(log_growth=np.full((2, 2), growth))


def cell(name, family="other", **columns):
    label = plans.KINDS[name].label
    return dict(name=name, label=label, family=family, columns=columns)


def test_verdicts_say_yes_and_no():
    config = atlas.Config()

    def weigh(*rows):
        return holds(weighing.verdicts(list(rows), config))

    fades, stays = found(-0.5), found(-1e-3)
    assert weigh(cell("Elman", default=fades)) == [False, True]
    assert weigh(cell("Elman", default=found(0.1, growth=10.0))) == [True, False]
    gated = {"forget bias 1": found(-0.2), "chrono": found(-0.01)}
    three = [cell("LSTM", "keeps", default=found(-0.4), **gated)]
    three += [cell(k, default=found(r)) for k, r in (("GRU", -0.4), ("Elman", -0.8))]
    assert weigh(*three)[2:] == [True, True]
    three[2] = cell("Elman", default=found(-0.4))
    # a bias that shortens
    three[0] = cell("LSTM", "keeps", default=found(-0.1), **gated)
    assert weigh(*three)[2:] == [False, False]
    for orthogonal in (stays, fades):
        row = cell("LinearRNN", "linear", default=fades, orthogonal=orthogonal)
        assert weigh(row)[2:] == [orthogonal is stays, False]
    assert weigh(cell("S5", "linear", default=stays))[2:] == [True]
    for identity in (stays, fades):
        rows = [cell(k, default=fades, identity=identity) for k in ("Elman", "Elman-relu")]
        assert weigh(*rows)[2:] == [identity is stays]


def test_what_grows_in_some_inputs_alone_is_a_condition():
    rates = np.array([[-0.5, -0.4], [-0.8, -0.7]])
    rows = [cell(k, default=found(-0.5)) for k in ("LSTM", "GRU")]
    rows.append(cell("Elman", default=found(-0.5) | dict(rate=rates)))
    verdict = weighing.verdicts(rows, atlas.Config())[2]
    assert not verdict["holds"] and verdict["only_if"] == "inputs have standard deviation 1"


def test_what_is_gone_has_a_median_where_some_seeds_are_left():
    assert weighing.middle([-1.0, -3.0]) == -2.0
    assert weighing.middle([-np.inf, -0.1, -0.2]) == -0.2


def test_numbers_are_short():
    shown = [figure.short(r) for r in (-0.4649, -0.0119, 2e-4, 0.0684, 7.586, -math.inf)]
    assert shown == ["−.46", "−.012", "0", "+.068", "+7.59", "−∞"]
    lives = [figure.half_life(r) for r in (-math.log(2), -math.log(2) / 200, 0.0, 0.1, -math.inf)]
    assert lives == ["1.0", "200", "∞", "×2: 6.9", "0.0"]


@pytest.mark.parametrize(
    "config, sentence",
    [
        (dict(cells=("Elmen",)), "--cells takes one or more of 'ATR'"),
        (dict(hidden_size=10), "--hidden-size must be a multiple of 4"),
        (dict(hidden_size=4), "--hidden-size must be at least 8, got 4"),
        (dict(length=5), "--length must be at least 20, got 5"),
        (dict(input_scales=(1.0, 0.0)), "--input-scales takes numbers of at least 0"),
        (dict(redraw="nowhere.json"), "cannot read nowhere.json"),
    ],
)
def test_what_makes_no_sense_is_refused(config, sentence, tmp_path):
    if "redraw" in config:
        config = dict(redraw=tmp_path / config["redraw"])
        sentence = "cannot read .*nowhere.json"
    with pytest.raises(common.UsageError, match=sentence):
        atlas.run(atlas.Config(output=tmp_path, **config))


@pytest.mark.long
def test_every_cell_is_measured(tmp_path, capsys):
    config = atlas.Config(output=tmp_path, hidden_size=8, input_size=8, length=20, seeds=1)
    result = atlas.run(config)
    assert [row["label"] for row in result["rows"] if row["reason"]] == []
    assert {row["name"] for row in result["rows"]} == set(plans.KINDS)
    of = {row["name"]: row["columns"] for row in result["rows"]}
    for name in ("LinearAttention", "OrthogonalRNN", "UnitaryRNN"):
        np.testing.assert_allclose(of[name]["default"]["rate"], 0, atol=1e-4, err_msg=name)
    for name in ("TRNN", "QRNN", "SRU", "TLSTM"):
        np.testing.assert_allclose(of[name]["default"]["rate"][0], -math.log(2), rtol=1e-4)
    # σ(1), but the forget and the input gate of a MinLSTM are normalised to add up to one
    bias = of["MinLSTM"]["forget bias 1"]["rate"][0]
    sigma = 1 / (1 + math.exp(-1))
    np.testing.assert_allclose(bias, math.log(sigma / (sigma + 0.5)), rtol=1e-4)
    capsys.readouterr()
