"""What is known exactly about recurrent networks, and what goes wrong where it is not minded.

Most of these facts are proven where their analysis is tested; here are those that were not.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import analysis
from jaxrnn.analysis.scaled import norm
from jaxrnn.analysis.theory import spectral_bounds

N, T = 4, 30
NOTHING = jnp.zeros((T, 1))


def network(W, activation="identity"):
    """h' = φ(W h), without input and bias."""
    cell = jaxrnn.Elman(1, len(W), activation=activation, biases=0)
    params = cell.init(jax.random.key(0), dtype=jnp.float64)
    return cell, params._replace(W_h=jnp.asarray(W))


def log_singular_values(W):
    cell, params = network(W)
    options = dict(spectral="none", singular_values=N)
    return analysis.gradient_decay(cell, params, NOTHING, **options).log_singular_values


# ---- products of Jacobians


def test_singular_values_of_linear_networks():
    lags = np.arange(1, T + 1)[:, None]
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))[0]
    for r in (1.0, 0.5, 1.3):
        exact = np.log(r) * lags * np.ones(N)
        np.testing.assert_allclose(log_singular_values(r * Q), exact, rtol=0, atol=1e-12)
    found = log_singular_values(np.diag([-1.1, 0.8, -0.5, 0.1]))
    np.testing.assert_allclose(found, lags * np.log([1.1, 0.8, 0.5, 0.1]), rtol=1e-12)


def test_a_tanh_network_at_rest_has_the_powers_of_its_matrix():
    W = np.random.default_rng(1).normal(size=(N, N)) / 2
    cell, params = network(W, "tanh")
    found = analysis.gradient_decay(cell, params, NOTHING).log_spectral_norm
    powers = [np.linalg.norm(np.linalg.matrix_power(W, k), 2) for k in range(1, T + 1)]
    np.testing.assert_allclose(found, np.log(powers), rtol=0, atol=1e-11)


def test_networks_without_weights_halve_what_they_have():
    expected = {
        jaxrnn.GRU(1, 2): np.eye(2) / 2,
        # h' = ½ tanh c', c' = ½ c, at c = 0
        jaxrnn.LSTM(1, 2): np.kron([[0, 1 / 4], [0, 1 / 2]], np.eye(2)),
    }
    for cell, jacobian in expected.items():
        params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0), dtype=jnp.float64))
        found = analysis.step_jacobians(cell, params, jnp.ones((2, 1)))
        np.testing.assert_array_equal(found, [jacobian, jacobian])
    # the last one: eigenvalues 0 and ½, yet a norm above ½
    np.testing.assert_allclose(np.linalg.norm(found[0], 2), np.sqrt(1 / 4 + 1 / 16), rtol=1e-15)


def test_gradients_of_nonnormal_networks_grow_before_they_fade():
    # every eigenvalue is 0, and the gradient doubles until it is gone
    chain = log_singular_values(np.diag([2.0] * (N - 1), -1))[:, 0]
    np.testing.assert_allclose(chain[: N - 1], np.log(2) * np.arange(1, N), rtol=1e-12)
    assert np.all(chain[N - 1 :] == -np.inf)
    # every eigenvalue is below 1: in the end it fades by them, at first it does not
    W = np.diag([0.6, 0.55, 0.5, 0.45]) + np.diag([2.0] * (N - 1), 1)
    curve = np.asarray(log_singular_values(W)[:, 0])
    bounds, lags = spectral_bounds(jnp.asarray(W), "identity"), np.arange(1, T + 1)
    radius, largest = float(bounds.log_radius), float(bounds.log_norm)
    assert curve[0] > 0 and curve[1] > curve[0] and curve[-1] < 0
    assert np.all(curve > lags * radius) and np.all(curve <= lags * largest + 1e-12)
    assert abs(curve[-1] - curve[-2] - np.log(0.6)) < 0.2


# ---- exponents


@dataclasses.dataclass(frozen=True)
class Map:
    """h' = W h, with just the three methods."""

    def init(self, key, dtype=jnp.float32):
        return jnp.eye(2, dtype=dtype)

    def initial_carry(self, params):
        return jnp.ones(len(params), params.dtype)

    def step(self, params, carry, x):
        carry = params @ carry
        return carry, carry


def spectrum(W, steps, **options):
    xs = jnp.zeros((steps, 0))
    return analysis.lyapunov_spectrum(Map(), jnp.asarray(W), xs, **options)


def test_a_dimension_of_zero_where_everything_shrinks():
    found = spectrum(np.diag([0.9, 0.5]), 40, burn_in=20)
    assert np.all(found.exponents < 0)
    assert found.kaplan_yorke_dimension == 0 and found.entropy_rate == 0


@pytest.mark.long
def test_exponents_add_up_to_the_mean_log_determinant():
    cell = jaxrnn.Elman(2, 3)
    params = cell.init(jax.random.key(0), dtype=jnp.float64)
    params = params._replace(W_h=4 * params.W_h)
    xs = jax.random.normal(jax.random.key(1), (40, 2), jnp.float64)
    found = analysis.lyapunov_spectrum(cell, params, xs, burn_in=10)
    logs = np.linalg.slogdet(np.asarray(analysis.step_jacobians(cell, params, xs)))[1]
    np.testing.assert_allclose(np.sum(found.exponents), logs[10:].mean(), rtol=0, atol=1e-13)


@pytest.mark.long
def test_without_burn_in_the_basis_costs_one_over_the_steps():
    W, exact = np.array([[0.9, 3.0], [0.0, 0.3]]), np.log([0.9, 0.3])
    few, many = (spectrum(W, steps, burn_in=0).exponents - exact for steps in (50, 100))
    np.testing.assert_allclose(few, 2 * many, rtol=1e-6)
    assert np.all(np.abs(many) > 1e-3)
    settled = spectrum(W, 100, burn_in=50).exponents
    np.testing.assert_allclose(settled, exact, rtol=0, atol=1e-12)


@pytest.mark.long
def test_without_burn_in_the_way_to_the_attractor_counts():
    cell, params = network([[2.0]], "tanh")
    start, xs = jaxrnn.cells.ElmanCarry(jnp.array([1e-6])), jnp.zeros((200, 1))
    rest = 1.0
    for _ in range(200):
        rest = np.tanh(2 * rest)
    exact = np.log(2 * (1 - rest**2))
    at_once = analysis.lyapunov_spectrum(cell, params, xs, carry=start, burn_in=0).exponents[0]
    settled = analysis.lyapunov_spectrum(cell, params, xs, carry=start, burn_in=100).exponents[0]
    assert at_once - exact > 0.1
    np.testing.assert_allclose(settled, exact, rtol=0, atol=1e-12)


@pytest.mark.long
def test_too_long_an_interval_loses_the_small_exponents():
    # 13.8 nats apart: rounding, at −36, is reached in less than three steps
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    W, exact = turn @ np.diag([1e3, 1e-3]) @ turn.T, np.log([1e3, 1e-3])
    options = dict(burn_in=8)
    close = spectrum(W, 24, **options).exponents
    np.testing.assert_allclose(close, exact, rtol=0, atol=1e-6)
    far = spectrum(W, 24, interval=8, **options).exponents
    np.testing.assert_allclose(far[0], exact[0], rtol=0, atol=1e-6)
    assert not abs(far[1] - exact[1]) < 1


# ---- points and norms


def test_the_speed_is_half_the_sum_of_squares():
    cell = jaxrnn.GRU(1, 3)
    params = cell.init(jax.random.key(0), dtype=jnp.float64)
    h, x = jnp.array([[0.3, -0.7, 0.2], [1.0, 0.5, -0.5]]), jnp.array([0.4])
    carries = cell.initial_carry(params)._replace(h=h)
    found = analysis.minimize_speed(cell, params, x, carries, steps=0, newton_steps=0)
    moved = [np.asarray(cell.step(params, carries._replace(h=row), x)[1]) - row for row in h]
    np.testing.assert_array_equal(found.vectors, h)
    np.testing.assert_allclose(found.speeds, np.sum(np.square(moved), axis=1) / 2, rtol=1e-13)


@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_a_norm_has_a_gradient_of_zero_at_zero(shape):
    np.testing.assert_array_equal(jax.grad(norm)(jnp.zeros(shape)), np.zeros(shape))
    a = jnp.full(shape, 2.0)
    np.testing.assert_allclose(jax.grad(norm)(a), a / jnp.linalg.norm(a.ravel()), rtol=1e-14)
