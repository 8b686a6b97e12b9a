"""Theory against SciPy, the eigenvalues of Jacobians, published statements and simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize, special

import jaxrnn
from jaxrnn import analysis
from jaxrnn.analysis.edge import edge_of_chaos
from jaxrnn.analysis.theory import (
    chrono_time_constants,
    critical_gain,
    determinant_split,
    mean_field,
    newman_spectrum,
    spectral_bounds,
)
from jaxrnn.initializers import Chrono, Gate

KEY = jax.random.key(0)


# bounds


@pytest.mark.long
@pytest.mark.parametrize("activation, gamma", [("tanh", 1.0), ("logistic", 0.25)])
def test_the_norm_bounds_every_lag_and_the_radius_does_not(activation, gamma):
    cell = jaxrnn.Elman(2, 6, activation=activation)
    params = cell.init(KEY, dtype=jnp.float64)
    params = params._replace(W_h=4 * params.W_h)
    bounds = spectral_bounds(params.W_h, activation)
    W = np.asarray(params.W_h)
    np.testing.assert_allclose(bounds.log_norm, np.log(gamma * np.linalg.norm(W, 2)), rtol=1e-12)
    radius = np.abs(np.linalg.eigvals(W)).max()
    np.testing.assert_allclose(bounds.log_radius, np.log(gamma * radius), rtol=1e-12)
    xs = 0.1 * jax.random.normal(KEY, (15, 2), jnp.float64)
    measured = analysis.gradient_decay(cell, params, xs).log_spectral_norm
    assert np.all(measured <= np.arange(1, 16) * np.asarray(bounds.log_norm))


def test_bounds_of_a_nilpotent_matrix_of_a_batch_and_of_what_is_out_of_reach():
    # every eigenvalue is 0, and the gradient doubles for five steps
    W = np.diag(np.full(5, 2.0), -1)
    bounds = spectral_bounds(jnp.asarray(np.stack([W, 0 * W, 1e-300 * np.eye(6)])), "identity")
    np.testing.assert_allclose(bounds.log_norm, [np.log(2), -np.inf, np.log(1e-300)], rtol=1e-12)
    np.testing.assert_allclose(bounds.log_radius, [-np.inf, -np.inf, np.log(1e-300)], rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(np.linalg.matrix_power(W, 5), 2), 32)
    with pytest.raises(ValueError, match=r"activation must be one of .*, got 'sine'"):
        spectral_bounds(jnp.eye(2), "sine")


# critical gains


@pytest.mark.parametrize(
    "cell",
    [
        jaxrnn.Elman(1, 5),
        jaxrnn.GRU(1, 5),
        jaxrnn.GRU(1, 5, reset="after", update_weighs="old", biases=2),
        jaxrnn.LSTM(1, 5),
    ],
)
@pytest.mark.parametrize("forget_bias", [0.0, 2.0])
def test_at_the_critical_gain_an_eigenvalue_of_the_jacobian_is_one(cell, forget_bias):
    params = jax.tree.map(jnp.zeros_like, cell.init(KEY, dtype=jnp.float64))
    if isinstance(cell, jaxrnn.LSTM):
        params = params._replace(b=params.b.at[1].set(forget_bias))
    draw = np.random.default_rng(2).normal(size=params.W_h.shape)
    # the eigenvalue that stands for the edge of the disk: real, and the largest
    draw = draw @ np.swapaxes(draw, -1, -2)
    draw /= np.linalg.norm(draw, 2, axis=(-2, -1), keepdims=True)
    gain = float(critical_gain(cell, forget_bias=forget_bias))
    radii = [
        np.abs(np.linalg.eigvals(_jacobian_at_zero(cell, params._replace(W_h=g * draw)))).max()
        for g in (0.99 * gain, gain, 1.01 * gain)
    ]
    np.testing.assert_allclose(radii[1], 1, rtol=1e-12)
    assert radii[0] < 1 < radii[2]


def _jacobian_at_zero(cell, params):
    params = jax.tree.map(jnp.asarray, params)
    return np.asarray(analysis.step_jacobians(cell, params, jnp.zeros((1, 1)))[0])


def test_critical_gains_as_published_and_of_what_has_none():
    assert critical_gain(jaxrnn.Elman(1, 1)) == 1 and critical_gain(jaxrnn.GRU(1, 1)) == 2
    biases = jnp.array([0.0, 1.0, 40.0])
    expected = 4 * (1 - special.expit(np.array([0.0, 1.0])))
    got = critical_gain(jaxrnn.LSTM(1, 1), forget_bias=biases)
    np.testing.assert_allclose(got[:2], expected, rtol=1e-15)
    np.testing.assert_allclose(got[2], 4 * np.exp(-40), rtol=1e-15)
    with pytest.raises(TypeError, match=r"no closed form for Elman\(.*relu"):
        critical_gain(jaxrnn.Elman(1, 1, activation="relu"))


# mean field


def average(f, q):
    """E f(√q z) by SciPy."""

    def integrand(z):
        return f(np.sqrt(q) * z) * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)

    return 2 * integrate.quad(integrand, 0, 40, epsabs=1e-14, epsrel=1e-13, limit=500)[0]


def sech4(x):
    return (1 - np.tanh(x) ** 2) ** 2


@pytest.mark.parametrize("g, variance", [(0.5, 0.3), (1.5, 0.0), (3.0, 0.5), (12.0, 0.01)])
def test_mean_field_by_scipy(g, variance):
    q = optimize.brentq(
        lambda q: g**2 * average(lambda x: np.tanh(x) ** 2, q) + variance - q,
        1e-3,
        g**2 + variance + 1,
        xtol=1e-14,
    )
    got = mean_field(g, variance)
    np.testing.assert_allclose(got.q, q, rtol=1e-11)
    np.testing.assert_allclose(got.exponent, 0.5 * np.log(g**2 * average(sech4, q)), atol=1e-11)
    narrow = mean_field(jnp.float32(g), variance)
    assert narrow.exponent.dtype == jnp.float32
    np.testing.assert_allclose(narrow.exponent, got.exponent, atol=1e-5)


def test_chaos_sets_in_at_one_and_input_moves_it_up():
    # Sompolinsky, Crisanti and Sommers 1988: h = 0 below g = 1, chaos above
    below = mean_field(jnp.array([0.2, 0.7, 0.95]))
    np.testing.assert_allclose(below.q, 0, atol=1e-12)
    np.testing.assert_allclose(below.exponent, np.log([0.2, 0.7, 0.95]), atol=1e-12)
    # to second order above it: q = ε + …, λ₁ = ⅔ ε² + …
    epsilon = 1e-3
    above = mean_field(1 + epsilon)
    np.testing.assert_allclose(above.q, epsilon, rtol=1e-2)
    np.testing.assert_allclose(above.exponent, 2 / 3 * epsilon**2, rtol=1e-2)
    # Molgedey, Schuchhardt and Schuster 1992: noise suppresses chaos
    gains = [
        optimize.brentq(lambda g, s=s: float(mean_field(g, s).exponent), 0.9, 6.0)
        for s in (0.05, 0.2, 1.0)
    ]
    assert 1 < gains[0] < gains[1] < gains[2]


def test_mean_field_at_the_edges_and_its_derivatives():
    got = mean_field(jnp.array([0.0, 1.0, 0.0]), jnp.array([0.4, 0.0, 0.0]))
    np.testing.assert_allclose(got.q, [0.4, 0, 0], atol=1e-7)
    np.testing.assert_allclose(got.exponent, [-np.inf, 0, -np.inf], atol=1e-7)
    exponent = jax.jit(lambda g, s: mean_field(g, s).exponent)
    for g, s in ((1.8, 0.3), (0.7, 0.1)):
        step = 1e-5
        by_gain = (exponent(g + step, s) - exponent(g - step, s)) / (2 * step)
        by_input = (exponent(g, s + step) - exponent(g, s - step)) / (2 * step)
        slopes = jax.grad(exponent, argnums=(0, 1))(g, s)
        np.testing.assert_allclose(slopes, [by_gain, by_input], rtol=1e-7)
    # without input and below 1 λ₁ = ln g
    np.testing.assert_allclose(jax.grad(exponent)(0.5, 0.0), 2, rtol=1e-9)
    batch = mean_field(jnp.linspace(0.5, 3.0, 4)[:, None], jnp.array([0.0, 1.0]))
    assert batch.q.shape == (4, 2)


@pytest.mark.long
def test_a_large_random_network_follows_the_mean_field():
    # 2 % for 512 units, ten steps of which are a transient: input keeps it away from criticality
    N, g, s = 512, 1.5, 0.5
    cell = jaxrnn.as_cell(_rate_step, _rate_carry)
    J = g / N**0.5 * jax.random.normal(KEY, (N, N), jnp.float64)
    xs = s * jax.random.normal(jax.random.key(1), (600, N), jnp.float64)
    theory = mean_field(g, s**2)
    carries, _ = jaxrnn.trajectory(cell, J, xs)
    np.testing.assert_allclose(jnp.var(carries[50:]), theory.q, rtol=0.03)
    got = edge_of_chaos(
        cell, J, xs, scale=_times, lowest=1.0, highest=1.0001, tried=2, halvings=0, burn_in=100
    )
    np.testing.assert_allclose(got.exponent, theory.exponent, atol=0.02)


def _rate_carry(params):
    return jnp.zeros(len(params), params.dtype)


def _rate_step(params, carry, x):
    h = params @ jnp.tanh(carry) + x
    return h, h


def _times(params, gain):
    return gain * params


# spectra and time constants


def test_newman_spectrum_by_scipy_and_by_a_sum_rule():
    got = newman_spectrum(5, 1.7)
    i = np.arange(1, 6)
    expected = 0.5 * (np.log(2 * 1.7**2 / 5) + special.digamma((5 - i + 1) / 2))
    np.testing.assert_allclose(got, expected, rtol=1e-14)
    # Σ λ_i is the mean of ln|det|, and ln‖G e‖ of one random matrix the largest
    draw = 1.7 / 5**0.5 * np.random.default_rng(0).normal(size=(40_000, 5, 5))
    logs = np.linalg.slogdet(draw)[1]
    error = logs.std() / len(logs) ** 0.5
    np.testing.assert_allclose(got.sum(), logs.mean(), atol=5 * error)
    growth = np.log(np.linalg.norm(draw[:, :, 0], axis=1))
    np.testing.assert_allclose(got[0], growth.mean(), atol=5 * growth.std() / 200)
    assert newman_spectrum(3, jnp.array([1.0, 2.0], jnp.float32)).shape == (2, 3)


def test_chrono_time_constants():
    longest, units = 500.0, 4
    got = chrono_time_constants(longest, units)
    # 1/ln(1 + 1/u) by way of the gate: f = σ(ln u)
    u = 1 + (np.arange(units) + 0.5) / units * (longest - 2)
    np.testing.assert_allclose(got, -1 / np.log(special.expit(np.log(u))), rtol=1e-9)
    # a gate with b = ln(T − 1) keeps 1 − 1/T, and its time constant is T − ½ − 1/12T
    T = np.array([20.0, 1000.0])
    np.testing.assert_allclose(special.expit(np.log(T - 1)), 1 - 1 / T, rtol=1e-12)
    exact = 1 / np.log1p(1 / (T - 1))
    np.testing.assert_allclose(exact, T - 0.5 - 1 / (12 * T), rtol=1e-5)
    assert np.all(np.abs(exact - (T - 0.5)) < 0.1 / T)
    # quantiles of what the initialiser draws
    gates = (Gate("forget", keeps=1),)
    drawn = Chrono(longest)(KEY, gates, (100_000,), jnp.float64)[0]
    taus = -1 / np.log(special.expit(np.asarray(drawn)))
    quantiles = np.quantile(taus, (np.arange(units) + 0.5) / units)
    np.testing.assert_allclose(got, quantiles, rtol=0.02)


# determinants


@pytest.mark.parametrize("activation", ["tanh", pytest.param("logistic", marks=pytest.mark.long)])
def test_the_determinant_splits_into_recurrent_matrix_and_slopes(activation):
    cell = jaxrnn.Elman(2, 4, activation=activation, biases=2)
    params = cell.init(KEY, dtype=jnp.float64)
    xs = jax.random.normal(jax.random.key(1), (2, 6, 2), jnp.float64)
    resets = jnp.zeros((2, 6), bool).at[0, 3].set(True)
    options = dict(lengths=jnp.array([6, 4]), resets=resets, reverse=True)
    got = determinant_split(cell, params, xs, **options)
    jacobians = np.asarray(analysis.step_jacobians(cell, params, xs, **options))
    with np.errstate(divide="ignore"):
        expected = np.linalg.slogdet(jacobians)[1]
    np.testing.assert_allclose(got.log_det, expected, rtol=0, atol=1e-12)
    assert expected[0, 2] == -np.inf and np.all(expected[1, 4:] == 0)
    of_W = np.linalg.slogdet(np.asarray(params.W_h))[1]
    np.testing.assert_allclose(got.log_det_recurrent, of_W, rtol=1e-12)
    plain = np.isfinite(expected) & (np.arange(6) < np.array([[6], [4]]))
    whole = np.asarray(got.log_slopes + got.log_det_recurrent)
    np.testing.assert_allclose(whole[plain], expected[plain], rtol=1e-12)
    assert np.all(np.asarray(got.log_slopes) <= 0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_slopes_of_saturated_and_dead_units(dtype):
    xs, one = jnp.zeros((2, 1), dtype), jnp.ones((1, 1), dtype)

    def slopes(activation, bias):
        cell = jaxrnn.Elman(1, 1, activation=activation)
        params = cell.init(KEY, dtype=dtype)._replace(W_h=one, b=jnp.full(1, bias, dtype))
        return determinant_split(cell, params, xs)

    # the derivative of tanh at 100 is 0 in any float: 4 e⁻²⁰⁰ it is
    saturated = slopes("tanh", 100.0)
    np.testing.assert_allclose(saturated.log_slopes[0], np.log(4) - 200, rtol=1e-6)
    np.testing.assert_array_equal(slopes("relu", -1.0).log_det, [-np.inf, -np.inf])
    np.testing.assert_array_equal(slopes("identity", 3.0).log_det, [0, 0])
    with pytest.raises(TypeError, match="which GRU does not have"):
        cell = jaxrnn.GRU(1, 1)
        determinant_split(cell, cell.init(KEY, dtype=dtype), xs)


# the edge of chaos


def test_the_gain_of_a_linear_network_is_known():
    cell = jaxrnn.Elman(1, 4, activation="identity", biases=0)
    params = cell.init(KEY, dtype=jnp.float64)
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    params = params._replace(W_h=jnp.asarray(0.5 * Q))
    xs = jnp.ones((2, 8, 1))
    options = dict(lengths=jnp.array([8, 5]), resets=jnp.zeros((2, 8), bool).at[0, 4].set(True))
    for wanted in (0.0, -0.1):
        got = edge_of_chaos(cell, params, xs, exponent=wanted, **options)
        np.testing.assert_allclose(got.gain, 2 * np.exp(wanted), rtol=1e-7)
        np.testing.assert_allclose(got.exponent, wanted, atol=1e-7)
        np.testing.assert_allclose(got.params.W_h, got.gain * params.W_h, rtol=1e-15)
        np.testing.assert_allclose(got.exponents, np.log(0.5 * got.gains), atol=1e-12)
        np.testing.assert_array_equal(got.params.W_x, params.W_x)
        assert got.found
    # between these gains there is none
    got = edge_of_chaos(cell, params, xs, exponent=9.0, **options)
    assert not got.found and np.argmin(np.abs(got.exponents - 9)) == len(got.gains) - 1
    np.testing.assert_allclose(got.gain, got.gains[-1], rtol=1e-12)


@pytest.mark.parametrize("forget_bias", [0.0, 1.0])
def test_without_input_the_edge_is_the_critical_gain(forget_bias):
    # rough blocks: any direction, 1 for the candidate; what decides is its eigenvalue 1
    cell = jaxrnn.LSTM(1, 3)
    params = jax.tree.map(jnp.zeros_like, cell.init(KEY, dtype=jnp.float64))
    params = params._replace(
        W_h=params.W_h.at[2].set(jnp.eye(3)), b=params.b.at[1].set(forget_bias)
    )
    got = edge_of_chaos(cell, params, jnp.zeros((120, 1)), burn_in=60)
    np.testing.assert_allclose(got.gain, critical_gain(cell, forget_bias=forget_bias), rtol=1e-6)


def test_the_edge_under_jit_and_vmap_in_float32_and_for_foreign_params():
    cell = jaxrnn.as_cell(_scalar_step, _scalar_carry)
    xs = jnp.zeros((3, 5, 1), jnp.float32)
    params = {"deep": {"factor": jnp.array([0.1, 0.5, 2.0], jnp.float32)}}

    def solve(p, x):
        return edge_of_chaos(cell, p, x, scale=_deep, halvings=20).gain

    gains = jax.jit(jax.vmap(solve))(params, xs)
    np.testing.assert_allclose(gains, [10.0, 2.0, 0.5], rtol=1e-4)
    with pytest.raises(ValueError, match=r"no recurrent matrix of the name W_h: pass scale="):
        edge_of_chaos(cell, {"deep": {"factor": jnp.float32(1)}}, xs[0])
    with pytest.raises(ValueError, match=r"0 < lowest < highest, got 2\.0 and 1\.0"):
        edge_of_chaos(cell, params, xs, lowest=2.0, highest=1.0)
    with pytest.raises(ValueError, match="tried must be at least 2, got 1"):
        edge_of_chaos(cell, params, xs, tried=1)


def _scalar_carry(params):
    return jnp.zeros(1, jnp.float32)


def _scalar_step(params, carry, x):
    h = params["deep"]["factor"] * carry + x
    return h, h


def _deep(params, gain):
    return {"deep": {"factor": params["deep"]["factor"] * gain}}


def test_the_edge_of_nothing_is_never_nan():
    cell = jaxrnn.Elman(1, 2, activation="relu")
    params = cell.init(KEY, dtype=jnp.float64)._replace(b=jnp.full(2, -9.0))
    for steps in (0, 3):
        got = edge_of_chaos(cell, params, jnp.zeros((steps, 1)), halvings=2)
        assert got.exponent == -np.inf and not got.found
        assert not any(np.any(np.isnan(leaf)) for leaf in jax.tree.leaves(got))
