"""Experiments on how gradients travel, end to end on small networks; their verdicts can say no."""

import dataclasses
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import _claims as claims
from experiments import _common as common
from experiments import _spectral_small as small_networks
from experiments import depth_and_direction as depth
from experiments import forgetting
from experiments import gate_time_constants as gates
from experiments import gradient_clipping as clipping
from experiments import spectral_bounds as bounds


@pytest.fixture(autouse=True)
def as_on_the_command_line():
    """Optax mixes dtypes, and a newcomer has 32 bits."""
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        yield


def end_to_end(experiment, tmp_path, capsys, **config):
    """Runs it, checks what every experiment leaves behind, and returns verdicts and JSON."""
    result = experiment.run(experiment.Config(output=tmp_path, **config))
    shown = capsys.readouterr().out
    path = tmp_path / f"{experiment.NAME}.json"
    record = json.loads(path.read_text())
    assert record["machine"]["jax"] and record["config"]["seeds"] == 2 and record["verdicts"]
    assert (tmp_path / f"{experiment.NAME}.png").stat().st_size > 20_000
    for verdict in result["verdicts"]:
        assert claims.sentence(verdict) in shown
    # from the JSON alone, the same tables and verdicts again
    again = tmp_path / "again"
    experiment.run(experiment.Config(redraw=path, output=again))
    assert capsys.readouterr().out.split("Wrote")[0] == shown.split("Wrote")[0]
    assert [p.name for p in again.iterdir()] == [f"{experiment.NAME}.png"]
    return result


def holds(verdicts):
    return [v["holds"] for v in verdicts]


# what they share


def test_a_verdict_has_three_words():
    yes, no = claims.claim("A", True, "1"), claims.claim("A", False, "2")
    half = claims.claim("A", False, "3", only_if="B")
    assert [claims.sentence(v).split(": ")[0] for v in (yes, no, half)] == [
        "Holds",
        "False as written",
        "Holds if B, false as written",
    ]


def test_above_and_below_ask_for_more_than_the_spread():
    assert claims.above([1.0, 2.0]) and not claims.above([0.1, 2.0]) and not claims.below([1.0])
    assert claims.below([-1.0, -2.0]) and not claims.below([-0.1, -2.0])
    assert claims.spread([1.0, 2.0], 2) == "+1.50 ± 0.71" and claims.spread([-math.inf]) == "-inf"


@pytest.mark.parametrize(
    "experiment, config, sentence",
    [
        (bounds, dict(length=5), "--length must be at least 20, got 5"),
        (bounds, dict(cells=("lstn",)), "--cells takes one or more of 'elman'"),
        (depth, dict(depths=(1,)), "--depths takes one or more numbers of at least 2"),
        (clipping, dict(threshold=0.0), "--threshold and --learning-rate must be positive"),
        (gates, dict(windows=0), "--windows must be at least 2, got 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(experiment, config, sentence, tmp_path):
    with pytest.raises(common.UsageError, match=sentence):
        experiment.run(experiment.Config(output=tmp_path, **config))


# spectral_bounds


def test_small_networks_part_norms_eigenvalues_and_growth():
    small = [small_networks.measure(toy) for toy in small_networks.toys()]
    for toy in small:
        # a random matrix is not normal, and its norm wavers around that of its largest eigenvalue
        allowed = 0.02 if toy["label"].startswith("random") else 1e-9
        assert toy["rate"] == pytest.approx(toy["expected"], abs=allowed), toy["label"]
    shift, turns = small[3], small[4]
    np.testing.assert_allclose(shift["log_norm"][:15], np.log(2.0) * np.arange(1, 16))
    assert np.all(shift["log_norm"][15:] == -np.inf)
    assert shift["log_rho"] == -np.inf and turns["log_rho"] == -np.inf
    assert turns["log_norm"][-1] == pytest.approx(100 * math.log(2))


def test_determinants_split_as_those_of_numpy_do():
    rng = np.random.default_rng(0)
    S, W, T, H = 2, 3, 5, 4
    W_h, W_x, b = rng.normal(size=(S, H, H)), rng.normal(size=(S, H, 2)), rng.normal(size=(S, H))
    xs, hs, jacobians = rng.normal(size=(S, W, T, 2)), [], []
    h = np.zeros((S, W, H))
    for t in range(T):
        h = np.tanh(
            np.einsum("sij,swj->swi", W_h, h)
            + np.einsum("sij,swj->swi", W_x, xs[:, :, t])
            + b[:, None]
        )
        hs.append(h)
        jacobians.append((1 - h**2)[..., None] * W_h[:, None])
    hs, jacobians = np.stack(hs, 2), np.stack(jacobians, 2)
    params = bounds.jaxrnn.ElmanParams(W_x=W_x, W_h=W_h, b=b, b_h=None, initial=None)  # type: ignore[arg-type]
    found = bounds.split(params, xs, hs, jacobians)
    assert np.max(found["split_error"]) < 1e-9
    np.testing.assert_allclose(found["log_slope"], np.log(1 - hs**2).mean((1, 2, 3)))
    np.testing.assert_allclose(
        found["log_det_step"], found["log_det"] + found["log_slope"], rtol=1e-9
    )
    # the wrong slopes do not add up
    assert np.max(bounds.split(params, xs, -hs, jacobians)["split_error"]) > 0.1


def row(label="Elman", rate=-0.5, log_sigma=0.1, largest=0.2, log_rho=-0.1, excess=-1e-9, W=0.1):
    both = np.array([0.0, 1e-3])
    found: dict[str, Any] = dict(label=label, rate=rate + both, log_sigma=log_sigma + both)
    found |= dict(largest_log_sigma=largest + both, log_rho=log_rho + both, excess=excess + both)
    if label.startswith("Elman"):
        of = dict(log_sigma=W, log_rho=W - 0.5, log_det=-1.0, log_det_step=-1.1, log_slope=-0.1)
        of |= dict(rounding=1e-12)
        found["elman"] = {key: value + both for key, value in of.items()} | dict(
            split_error=0 * both
        )
    return found


def test_spectral_verdicts_say_yes_and_no():
    small = [small_networks.measure(toy) for toy in small_networks.toys()]
    quiet = row("Elman, half", rate=-1.0, log_sigma=-0.6, largest=-0.5, W=-0.6, excess=-1.0)
    growing = row("Elman, gain 4", rate=0.2, log_sigma=1.0, largest=1.5, W=2.0, log_rho=0.5)
    shrinking = row("LSTM, default")
    assert holds(bounds.verdicts([row(excess=-1), quiet, growing, shrinking], small)) == [
        # excess by the spread of 1e-3 refutes the first
        False, True, True, False, False, False, True, False,
    ]  # fmt: skip
    found = bounds.verdicts([quiet | dict(rate=np.array([0.1, 0.1]))], small)
    # growth below the bound: neither sufficient nor necessary
    assert holds(found)[:3] == [True, False, False]
    tame = [*small[:2], small[2] | dict(rate=0.1), *small[3:]]
    only_growing = bounds.verdicts([growing | dict(excess=np.array([-1.0]))], tame)
    assert only_growing[0]["holds"] and only_growing[3]["holds"] and not only_growing[1]["holds"]
    assert found[3]["only_if"] and found[4]["only_if"]


@pytest.mark.long
def test_spectral_bounds_end_to_end(tmp_path, capsys):
    result = end_to_end(
        bounds,
        tmp_path,
        capsys,
        quick=True,
        seeds=2,
        hidden_size=31,
        input_size=31,
        cells=("elman", "elman-half", "elman-gain-4"),
    )
    bound, sufficient, _, norm, eigenvalue, radius, split = result["verdicts"]
    assert bound["holds"] and sufficient["holds"] and split["holds"]
    assert not norm["holds"] and not eigenvalue["holds"] and not radius["holds"]
    default, half, gain = result["rows"]
    # the counter-example: a norm above 1, and decay
    assert min(default["elman"]["log_sigma"]) > 0 > max(default["rate"])
    # all at once: half the matrix, a rate below by at least ln 2 but for the slopes
    assert np.mean(half["rate"]) < np.mean(default["rate"]) - 0.5
    assert np.mean(gain["rate"]) > np.mean(default["rate"])


# depth_and_direction


def layers(kind="Elman", deep=1, rate=-0.6, layer_rates=(-0.6,), loss=None, curve=None):
    both = np.array([0.0, 1e-2])
    curve = np.linspace(0, -60, 100) if curve is None else curve
    found = dict(kind=kind, depth=deep, residual=False, rate=rate + both, input_rate=rate + both)
    found |= dict(layer_rates=np.array(layer_rates)[:, None] + both, horizon=23 + both)
    found |= dict(log_norm_input=np.stack([curve, curve]))
    return found | (dict(trained=learned(*loss)) if loss else {})


def learned(some, of):
    return dict(loss=np.where(np.arange(of) < some, 0.1, 1.0), rate=np.zeros(of))


def test_depth_verdicts_say_yes_and_no():
    half = dict(rate=np.array([-0.6, -0.59]), log_norm_input=layers()["log_norm_input"])
    direction: list[dict] = [dict(kind="Elman", forward=half, backward=half)]
    control = learned(8, 8)
    one = layers(loss=(1, 8))
    two = layers(deep=2, rate=-0.58, layer_rates=(-0.6, -0.61), loss=(3, 8))
    assert holds(depth.verdicts([one, two], direction, control)) == [True] * 5
    assert len(depth.verdicts([one, two], direction, None)) == 4
    cured = layers(deep=2, rate=-0.2, layer_rates=(-0.6, -0.61), loss=(8, 8))
    assert holds(depth.verdicts([one, cured], direction, control)) == [
        False,
        False,
        True,
        True,
        False,
    ]
    other: list[dict] = [
        dict(kind="Elman", forward=half, backward=half | dict(rate=np.array([-0.3, -0.31])))
    ]
    short = other[0]["forward"] | dict(log_norm_input=np.zeros((2, 100)))
    other[0]["forward"] = short
    assert holds(depth.verdicts([one, two], other, control))[2:] == [False, False, True]


@pytest.mark.long
def test_depth_and_direction_end_to_end(tmp_path, capsys):
    result = end_to_end(depth, tmp_path, capsys, quick=True, hidden_size=6, length=50, seeds=2)
    single, two, residual = result["rows"]
    assert (single["depth"], two["depth"], residual["residual"]) == (1, 2, True)
    assert result["verdicts"][0]["holds"] and result["verdicts"][1]["holds"]
    assert max(two["rate"]) < -0.2
    # one layer *is* its only layer
    np.testing.assert_allclose(single["rate"], single["layer_rates"][0], rtol=1e-5)
    # the gradient of the forward half with respect to its inputs, by jax.grad
    network = depth.jaxrnn.Bidirectional(depth.jaxrnn.Elman(6, 6))
    config = depth.Config(hidden_size=6, length=50, windows=2, seeds=2)
    params = jax.vmap(network.init)(depth.seeds(config))
    own, xs = jax.tree.map(lambda a: a[0], params), depth.noise(config)[0]

    def ends(xs):
        ys = depth.jaxrnn.unroll(network, own, xs)[1]
        return jnp.sum(ys[-1, :6]), jnp.sum(ys[0, 6:])

    both = [jax.vmap(jax.grad(lambda x, i=i: ends(x)[i]))(xs) for i in (0, 1)]
    norms = [np.log(np.linalg.norm(g[:, 20:30], axis=-1)).mean(0) for g in both]
    forward, backward = (
        result["directions"][0][h]["log_norm_input"][0] for h in ("forward", "backward")
    )
    np.testing.assert_allclose(np.array(forward)[::-1][20:30], norms[0], rtol=1e-3)
    np.testing.assert_allclose(np.array(backward)[20:30], norms[1], rtol=1e-3)


@pytest.mark.long
def test_what_is_one_step_away_is_learnt_and_without_training_nothing_is():
    config = depth.Config(hidden_size=4, recall=1, updates=200, learners=3)
    found = depth.learn(depth.jaxrnn.Elman(4, 4), config)
    assert depth.recalls(found) == (3, 3) and max(found["rate"]) < 0
    still = dataclasses.replace(config, updates=1)
    assert depth.recalls(depth.learn(depth.jaxrnn.Elman(4, 4), still))[0] == 0


# gradient_clipping


def training(loss, norm, share=-20.0, rate=-0.6):
    both = np.ones((2, 1))
    found = dict(loss=both * loss, norm=both * norm, rate=np.array([rate, rate]))
    return found | dict(log_share_of_first=np.array([share, share]))


def test_clipping_verdicts_say_yes_and_no():
    calm, burst = training([1.0, 1.1], [0.5, 0.6]), training([1.0, np.nan], [9.0, np.inf])
    before = dict(rate=np.array([-0.6, -0.6]))
    large = dict(clipped=training([1.0, 2.0], [9.0, 3.0]), free=burst, before=before)
    kinds = {"default": dict(clipped=calm, free=calm, before=before), "large gain": large}
    assert holds(clipping.verdicts(kinds, 5.0)) == [True] * 4
    kinds["large gain"] = dict(clipped=burst, free=calm, before=before)
    assert holds(clipping.verdicts(kinds, 5.0))[:2] == [False, False]
    kinds["default"] = dict(clipped=training([1.0, 0.2], [0.5, 0.6], share=-1.0), free=calm)
    kinds["default"]["before"] = before
    assert holds(clipping.verdicts(kinds, 5.0))[2:] == [False, False]
    found = clipping.summary(burst, 5.0)
    assert np.all(found["largest_loss"] == np.inf) and np.all(found["clipped_share"] == 1)


@pytest.mark.long
def test_training_takes_the_steps_that_optax_takes():
    config = clipping.Config(hidden_size=3, length=10, batch=4, updates=2, learning_rate=0.5)
    net = clipping.network(config)
    params, key = (
        jax.tree.map(lambda a: a[0], clipping.start("large gain", config)),
        jax.random.key(1),
    )
    train = jax.jit(clipping.train, static_argnums=(0, 1))
    after, losses, norms = train(net, config, jnp.asarray(0.01), params, key)
    differentiate = jax.jit(jax.value_and_grad(clipping.loss, argnums=1), static_argnums=0)
    for k, loss, norm in zip(jax.random.split(key, 2), losses, norms, strict=True):
        value, gradient = differentiate(net, params, *clipping.draw(config, k))
        np.testing.assert_allclose([value, optax.tree.norm(gradient)], [loss, norm], rtol=1e-5)
        step = 0.5 * min(1, 0.01 / float(norm))
        params = jax.tree.map(lambda p, g: p - step * g, params, gradient)  # noqa: B023
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.long
def test_gradient_clipping_end_to_end(tmp_path, capsys):
    result = end_to_end(clipping, tmp_path, capsys, quick=True, seeds=2, updates=40)
    assert holds(result["verdicts"]) == [True] * 4


# gate_time_constants


def test_time_constants_of_gates_given_by_hand_are_those_of_the_specification():
    leaky, gate = gates.exact()
    assert round(leaky["measured"], 2) == 0.39
    assert round(gate["measured"], 1) == 3.2 and round(gate["measured_of_mean"], 1) == 9.1


def test_gate_verdicts_say_yes_and_no():
    facts = gates.exact()

    def units(*tau, ratio=1.5, path=-10.0, predicted=(-10.0, -5.0), rate=-0.1):
        tau = np.array([tau, tau])
        found = dict(tau=tau, tau_of_mean=ratio * tau, direct_path=np.array([path, path]))
        found["rate"] = np.array([rate, rate])
        return found | dict(predicted=np.array([predicted, predicted]))

    kinds = {"LSTM": dict(before=units(1.0, 2.0), after=units(1.0, 15.0))}
    assert holds(gates.verdicts(facts, kinds, 20.0)) == [True] * 5
    kinds["GRU"] = dict(before=units(1.0, 20.0), after=units(1.0, 2.0, ratio=0.9))
    # the last: a carry that lives for 10 steps beside gates of 2
    assert holds(gates.verdicts(facts, kinds, 20.0)) == [True, False, True, False, False]
    del kinds["GRU"]
    kinds["LSTM"]["after"]["rate"] = np.array([0.1, 0.1])
    assert not gates.verdicts(facts, kinds, 20.0)[4]["holds"]
    kinds["LSTM"]["after"] = units(1.0, 15.0, predicted=(-5.0, -10.0))
    assert not gates.verdicts(facts, kinds, 20.0)[2]["holds"]


@pytest.mark.long
def test_gate_time_constants_end_to_end(tmp_path, capsys, monkeypatch):
    few = {k: gates.KINDS[k] for k in ("LSTM", "LSTM, chrono 40")}
    monkeypatch.setattr(gates, "KINDS", few)
    result = end_to_end(gates, tmp_path, capsys, quick=True, hidden_size=8, seeds=2, updates=20)
    exact, averages, direct = result["verdicts"][:3]
    assert exact["holds"] and averages["holds"] and direct["holds"]
    # a gate at ½ keeps for 1/ln 2 steps
    before = np.array(result["kinds"]["LSTM"]["before"]["tau"])
    assert np.median(before) == pytest.approx(1 / math.log(2), rel=0.2)
    # time constants uniform up to 40 − 1: the slowest of 8 are long
    assert np.mean(gates.slowest(result["kinds"]["LSTM, chrono 40"]["before"]["tau"])) > 15


# forgetting


def fades(distance=-20.0, rate=-0.3, gradient_rate=-0.31, recent=0.9):
    both = np.array([0.0, 1e-3])
    found = dict(log_distance=np.array([[0.0, distance]] * 2), rate=rate + both)
    return found | dict(gradient_rate=gradient_rate + both, recent_share=recent - both)


def test_forgetting_verdicts_say_yes_and_no():
    def verdicts(**after):
        row = dict(label="LSTM", before=fades(distance=-np.inf), after=fades(**after))
        return holds(forgetting.verdicts([row]))

    assert verdicts() == [True, True, True]
    assert verdicts(distance=-5.0) == [False, True, True]
    assert verdicts(distance=np.nan) == [False, True, True]
    assert verdicts(rate=-0.2) == [True, False, True]
    assert verdicts(recent=0.4) == [True, True, False]


@pytest.mark.long
def test_forgetting_end_to_end(tmp_path, capsys):
    text = tmp_path / "poem.txt"
    text.write_text("床前明月光，疑是地上霜。举头望明月，低头思故乡。\n" * 40, encoding="utf-8")
    config = dict(quick=True, text=text, cells=("elman",), hidden_size=8, length=40, steps=5)
    result = end_to_end(forgetting, tmp_path, capsys, **config)
    same, rates, recency = result["verdicts"]
    assert same["holds"] and rates["holds"] and recency["holds"]
    # the distance of two carries after one and the same input, by hand
    data = forgetting.read(forgetting.Config(**{**forgetting.QUICK, **config}))  # type: ignore[arg-type]
    assert np.all(data.windows[:, 0] != data.others[:, 0])
    np.testing.assert_array_equal(data.windows[:, 1:], data.others[:, 1:])
    kind = forgetting.models.KINDS["elman"]
    model, _ = forgetting.models.start(
        forgetting.jaxrnn.Readout(kind.make(8, 8), data.size), 1e-2, 5.0, 2
    )
    one = jax.tree.map(lambda a: a[0], model)
    distances = []
    for a, b in zip(data.windows, data.others, strict=True):
        params = jax.tree.map(lambda p: np.asarray(p, np.float64), one.network.network)
        h = np.zeros((2, 8))
        for pair in np.stack([a, b], 1)[:4]:
            x = np.asarray(one.embedding, np.float64)[pair]
            h = np.tanh(x @ params.W_x.T + h @ params.W_h.T + params.b)
        distances.append(np.log(np.linalg.norm(h[1] - h[0]) / np.linalg.norm(h[0])))
    measured = result["rows"][0]["before"]["log_distance"][0][3]
    assert measured == pytest.approx(np.median(distances), rel=1e-3)
