"""The monitor: it measures what the analyses measure, and leaves training as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrnn import GRU, LSTM, Elman, unroll
from jaxrnn.analysis.gradients import gradient_decay
from jaxrnn.analysis.lyapunov import lyapunov_spectrum
from jaxrnn.analysis.monitor import monitor
from jaxrnn.analysis.timescales import time_constants

CELL = LSTM(2, 3)
B, T = 6, 12


def batches(count, seed=0):
    return jax.random.normal(jax.random.key(seed), (count, B, T, 2), jnp.float64)


def loss(params, xs):
    return jnp.mean((unroll(CELL, params, xs)[1] - 0.3) ** 2)


def train(optimizer, xs):
    params = CELL.init(jax.random.key(1), dtype=jnp.float64)

    def one(carry, xs):
        params, state = carry
        gradients = jax.grad(loss)(params, xs)
        updates, state = optimizer.update(gradients, state, params, xs=xs)
        return (optax.apply_updates(params, updates), state), (params, gradients, state)

    return jax.jit(lambda p: jax.lax.scan(one, (p, optimizer.init(p)), xs))(params)


@pytest.fixture(scope="module")
def run():
    seen = []
    watch = monitor(CELL, every=3, clip=0.073, exponents=2, rows=2, steps=8, log=seen.append)
    xs = batches(7)
    (end, _), (params, gradients, states) = train(optax.chain(watch, optax.sgd(0.5)), xs)
    jax.effects_barrier()
    return end, params, gradients, states[0], seen, xs


def test_it_measures_what_the_analyses_do(run):
    _, params, _, seen, _, xs = run
    for update in (0, 3, 6):
        p = jax.tree.map(lambda a, i=update: a[i], params)
        few = xs[update, :2, :8]
        rate = gradient_decay(CELL, p, few, spectral="none").rate.mean()
        exponents = lyapunov_spectrum(CELL, p, few, exponents=2).exponents.mean(0)
        tau = np.median(time_constants(CELL, p, few).time_constant)
        for later in range(update, min(update + 3, 7)):  # it stands until the next
            assert seen.measured_at[later] == update + 1
            np.testing.assert_allclose(seen.rate[later], rate, rtol=1e-10)
            np.testing.assert_allclose(seen.exponents[later], exponents, rtol=1e-9)
            np.testing.assert_allclose(seen.time_constant[later], tau, rtol=1e-10)


def test_it_counts_what_clipping_would_meet(run):
    _, _, gradients, seen, _, _ = run
    squares = [np.sum(np.asarray(g) ** 2, axis=tuple(range(1, g.ndim))) for g in gradients[:3]]
    norms = np.sqrt(sum(squares))
    np.testing.assert_allclose(seen.gradient_norm, norms, rtol=1e-12)
    assert 0 < seen.clipped[-1] < 7  # else this would show nothing
    np.testing.assert_array_equal(seen.clipped, np.cumsum(norms > 0.073))


def test_training_is_the_same_without_it(run):
    end, *_, xs = run
    plain = optax.with_extra_args_support(optax.sgd(0.5))
    (alone, _), _ = train(plain, xs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), end, alone)


def test_log_is_called_after_each_measurement(run):
    assert sorted(int(record.updates) for record in run[4]) == [1, 4, 7]


def test_a_model_around_the_cell_and_a_cell_without_gates():
    cell = Elman(2, 3)
    watch = monitor(cell, select=lambda model: model["cell"], exponents=3)
    model = {"cell": cell.init(jax.random.key(0)), "head": jnp.ones(3, jnp.float32)}
    xs = jax.random.normal(jax.random.key(1), (B, T, 2), jnp.float32)
    updates, state = watch.update(model, watch.init(model), model, xs=xs, lengths=[T] * B)
    assert updates is model
    assert np.isfinite(state.rate) and state.exponents.shape == (3,)
    assert np.isnan(state.time_constant)


def test_what_makes_no_sense_is_said():
    for options, sentence in (
        (dict(every=0), "every must be a whole number of at least 1, got 0"),
        (dict(rows=0), "rows must be a whole number of at least 1, got 0"),
        (dict(clip=0.0), "clip must be positive or None, got 0.0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            monitor(CELL, **options)
    cell = GRU(2, 3)
    params = cell.init(jax.random.key(0))
    with pytest.raises(ValueError, match="whole number from 1 to 3"):
        monitor(cell, exponents=4).init(params)
    watch = monitor(cell)
    with pytest.raises(ValueError, match="update\\(gradients, state, params, xs=xs\\)"):
        watch.update(params, watch.init(params), params)


def test_the_figure_draws_every_measurement(run):
    plot = pytest.importorskip("jaxrnn.plot.monitor")
    rate = plot.monitored(run[3]).lines[1]
    np.testing.assert_array_equal(rate.get_xdata(), [1, 4, 7])
