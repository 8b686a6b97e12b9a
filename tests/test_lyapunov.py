"""Lyapunov exponents and covariant vectors against published values, closed forms and NumPy."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

import jaxrnn
from jaxrnn import analysis
from jaxrnn.analysis.covariant import covariant_vectors
from jaxrnn.analysis.householder import is_lost, qr
from jaxrnn.analysis.lyapunov import lyapunov_spectrum
from jaxrnn.analysis.parallel import longest_expansion, parallel_outlook
from jaxrnn.analysis.tangents import starting_columns

# ---- user cells with nothing but the three methods


class Plane(NamedTuple):
    """A point of a map of the plane."""

    x: jax.Array
    y: jax.Array


class Henon:
    """x' = 1 − a x² + y, y' = b x."""

    def init(self, key, dtype=jnp.float64):
        return jnp.array([1.4, 0.3], dtype)

    def initial_carry(self, params):
        return Plane(jnp.full((), 0.1, params.dtype), jnp.full((), 0.1, params.dtype))

    def step(self, params, carry, x):
        a, b = params
        carry = Plane(1 - a * carry.x**2 + carry.y, b * carry.x)
        return carry, carry.x


class Logistic:
    """x' = r x (1 − x)."""

    def init(self, key, dtype=jnp.float64):
        return jnp.asarray(4.0, dtype)

    def initial_carry(self, params):
        return jnp.full((), 0.3, params.dtype)

    def step(self, params, carry, x):
        carry = params * carry * (1 - carry)
        return carry, carry


class Lorenz:
    """One step of Runge and Kutta's method of fourth order through Lorenz' equations."""

    dt = 0.01

    def init(self, key, dtype=jnp.float64):
        return jnp.array([10.0, 28.0, 8 / 3], dtype)

    def initial_carry(self, params):
        return jnp.array([1.0, 1.0, 20.0], params.dtype)

    def step(self, params, carry, x):
        sigma, rho, beta = params

        def flow(s):
            x, y, z = s
            return jnp.stack([sigma * (y - x), x * (rho - z) - y, x * y - beta * z])

        a = flow(carry)
        b = flow(carry + self.dt / 2 * a)
        c = flow(carry + self.dt / 2 * b)
        d = flow(carry + self.dt * c)
        carry = carry + self.dt / 6 * (a + 2 * b + 2 * c + d)
        return carry, carry


class Linear:
    """h' = W h, whatever the input."""

    def init(self, key, dtype=jnp.float64):
        return jax.random.normal(key, (4, 4), dtype)

    def initial_carry(self, params):
        return jnp.zeros(params.shape[0], params.dtype)

    def step(self, params, carry, x):
        carry = params @ carry
        return carry, carry


class Products:
    """h' = X h: the inputs are the matrices themselves."""

    input_rank = 2

    def init(self, key, dtype=jnp.float64):
        return jnp.zeros(0, dtype)

    def initial_carry(self, params):
        return jnp.zeros(4, params.dtype)

    def step(self, params, carry, x):
        carry = x @ carry
        return carry, carry


class CatMap:
    """Arnold's map of the torus, (x, y)' = (2 x + y, x + y) mod 1."""

    def init(self, key, dtype=jnp.float64):
        return jnp.array([[2, 1], [1, 1]], dtype)

    def initial_carry(self, params):
        return jnp.array([0.1, 0.2], params.dtype)

    def step(self, params, carry, x):
        carry = (params @ carry) % 1
        return carry, carry


def still(steps, dtype=jnp.float64):
    """Inputs of a cell that takes none."""
    return jnp.zeros((steps, 0), dtype)


# ---- the factorisation


def log_diagonal(matrix):
    """ln R_ii by Gram and Schmidt, three times over, in extended precision."""
    basis, logs = [], []
    for column in matrix.astype(np.longdouble).T:
        for other in 3 * basis:
            column = column - other * (other @ column)
        size = np.sqrt(column @ column)
        basis.append(column / size)
        logs.append(np.log(size))
    return np.array(logs, float)


@pytest.mark.parametrize("shape", [(2, 2), (9, 5), (40, 40)])
def test_qr_is_numpys(shape):
    a = np.random.default_rng(0).normal(size=shape)
    q, r = jax.jit(qr)(jnp.asarray(a))
    Q, R = np.linalg.qr(a)
    sign = np.sign(np.diag(R))
    np.testing.assert_allclose(q, Q * sign, rtol=0, atol=1e-13)
    np.testing.assert_allclose(r, R * sign[:, None], rtol=0, atol=1e-13)


def test_small_diagonal_entries_are_true_in_float32():
    # rows as of tanh units that are more or less saturated: over 26 powers of ten
    rng = np.random.default_rng(1)
    a = (np.exp(-rng.uniform(0, 60, (12, 1))) * rng.normal(size=(12, 12))).astype(np.float32)
    _, r = jax.jit(qr)(jnp.asarray(a))
    got = np.log(np.asarray(jnp.diagonal(r), np.float64))
    np.testing.assert_allclose(got, log_diagonal(a), rtol=0, atol=1e-4)
    assert not np.any(is_lost(jnp.asarray(a), jnp.diagonal(r)))


def test_rows_of_zeros_give_zeros_and_an_orthonormal_basis_all_the_same():
    factors = jax.jit(qr)
    a = np.random.default_rng(2).normal(size=(9, 9))
    a[[0, 4, 5]] = 0
    q, r = factors(jnp.asarray(a))
    assert np.all(np.diagonal(r)[-3:] == 0) and np.all(np.diagonal(r)[:-3] > 0.01)
    np.testing.assert_allclose(q.T @ q, np.eye(9), rtol=0, atol=1e-14)
    np.testing.assert_allclose(q @ r, a, rtol=0, atol=1e-14)
    # rows in proportion are no zeros, but no more than rounding is left of them
    a = jnp.asarray(np.random.default_rng(3).normal(size=(4, 9)))
    a = jnp.concatenate([a, 0.3 * a, 2 * a[:1]])
    lost = is_lost(a, jnp.diagonal(factors(a)[1]))
    np.testing.assert_array_equal(lost, np.arange(9) >= 4)


def test_derivative_of_qr_is_that_of_differences():
    rng = np.random.default_rng(4)
    a, d, weight = rng.normal(size=(3, 6, 4))

    def value(a):
        Q, R = np.linalg.qr(a)
        Q = Q * np.sign(np.diag(R))
        return np.sum(np.log(np.abs(np.diag(R)))) + np.sum(weight * Q)

    def ours(a):
        q, r = qr(a)
        return jnp.sum(jnp.log(jnp.diagonal(r))) + jnp.sum(weight * q)

    slope = (value(a + 1e-5 * d) - value(a - 1e-5 * d)) / 2e-5
    gradient = jax.jit(jax.grad(ours))(jnp.asarray(a))
    np.testing.assert_allclose(np.sum(gradient * d), slope, rtol=1e-6)


# ---- published values


@pytest.mark.parametrize("dtype", [jnp.float64, pytest.param(jnp.float32, marks=pytest.mark.long)])
def test_henon(dtype):
    cell = Henon()
    found = lyapunov_spectrum(cell, cell.init(None, dtype), still(100_000, dtype), burn_in=1000)
    first, second = np.asarray(found.exponents, np.float64)
    assert abs(first - 0.41922) < min(4 * float(found.standard_error[0]), 0.005)
    # the map contracts areas by b at every point
    assert abs(first + second - np.log(0.3)) < 1e-5
    assert abs(found.kaplan_yorke_dimension - 1.258) < 0.005
    assert found.entropy_rate == found.exponents[0]
    assert abs(float(found.sum_rule)) < 20 * float(jnp.finfo(dtype).eps)
    assert found.steps == 99_000


def test_logistic_map_at_four():
    found = lyapunov_spectrum(Logistic(), Logistic().init(None), still(50_000), burn_in=100)
    assert abs(found.exponents[0] - np.log(2)) < min(4 * found.standard_error[0], 1e-3)


@pytest.mark.long
def test_lorenz():
    # Sprott 2003, Chaos and Time-Series Analysis: 0.9056, 0, −14.5723; dimension 2.06215
    cell = Lorenz()
    xs, dt = still(100_000), Lorenz.dt
    found = lyapunov_spectrum(cell, cell.init(None), xs, burn_in=2000, interval=5, dt=dt)
    error = np.abs(np.asarray(found.exponents) - [0.9056, 0, -14.5723])
    assert np.all(error < [0.03, 0.005, 0.03]) and error[0] < 4 * found.standard_error[0]
    # the divergence of the flow is the same everywhere; the rest is that of the integrator
    np.testing.assert_allclose(np.sum(found.exponents), -(10 + 1 + 8 / 3), atol=1e-3)
    assert abs(found.kaplan_yorke_dimension - 2.062) < 0.005


@pytest.mark.long
def test_products_of_gaussian_matrices():
    # Newman 1986; with one step after the other isotropic, every step has exactly this mean
    N, T, sigma = 4, 20_000, 1.3
    xs = sigma / np.sqrt(N) * jax.random.normal(jax.random.key(0), (T, N, N), jnp.float64)
    found = lyapunov_spectrum(Products(), jnp.zeros(0), xs, burn_in=0, blocks=50)
    degrees = (N - np.arange(N)) / 2
    expected = 0.5 * (np.log(2 * sigma**2 / N) + special.digamma(degrees))
    deviation = np.sqrt(special.polygamma(1, degrees) / 4 / T)
    assert np.all(np.abs(found.exponents - expected) < 4 * deviation)
    # its own estimate of that deviation, from 50 blocks, is good to a tenth or so
    np.testing.assert_allclose(found.standard_error, deviation, rtol=0.45)


# ---- closed forms


def test_linear_network_has_the_logarithms_of_its_eigenvalues():
    W = np.diag([1.2, -0.8, 0.5, 0.1]) + np.triu(np.random.default_rng(0).normal(size=(4, 4)), 1)
    found = lyapunov_spectrum(Linear(), jnp.asarray(W), still(300), burn_in=150)
    np.testing.assert_allclose(found.exponents, np.log([1.2, 0.8, 0.5, 0.1]), rtol=0, atol=1e-12)
    # partial sums: 0.182, −0.041: 1 + 0.182/0.223
    dimension = 1 + np.log(1.2) / -np.log(0.8)
    np.testing.assert_allclose(found.kaplan_yorke_dimension, dimension, rtol=1e-9)
    np.testing.assert_allclose(found.entropy_rate, np.log(1.2), rtol=1e-9)
    # the same program for other matrices of this shape
    Q = np.linalg.qr(W)[0]
    still_there = lyapunov_spectrum(Linear(), jnp.asarray(Q), still(300), burn_in=150)
    np.testing.assert_allclose(still_there.exponents, 0, rtol=0, atol=1e-14)
    grows = lyapunov_spectrum(Linear(), jnp.asarray(1.5 * Q), still(300), burn_in=150)
    np.testing.assert_allclose(grows.exponents, np.log(1.5), rtol=1e-12)
    assert grows.kaplan_yorke_dimension == 4
    np.testing.assert_allclose(grows.entropy_rate, 4 * np.log(1.5), rtol=1e-12)
    singular = lyapunov_spectrum(Linear(), jnp.diag(jnp.array([2.0, 0.5, 0, 0])), still(300))
    np.testing.assert_allclose(singular.exponents[:2], np.log([2.0, 0.5]), rtol=0, atol=0.02)
    assert np.all(singular.exponents[2:] == -np.inf)
    np.testing.assert_allclose(singular.kaplan_yorke_dimension, 2, atol=0.05)
    assert singular.sum_rule == 0


@pytest.mark.long
def test_too_few_exponents_leave_the_dimension_open():
    W = jnp.diag(jnp.array([2.0, 0.9, 0.5, 0.1]))
    found = lyapunov_spectrum(Linear(), W, still(40), exponents=2, burn_in=20)
    assert found.kaplan_yorke_dimension == np.inf
    assert found.sum_rule is None and found.exponents.shape == (2,)


@pytest.mark.long
def test_a_hundred_thousand_steps_in_float32():
    # e^±(100 000 · 12): the logarithm of the product itself has eight digits before the point
    W = jnp.diag(jnp.array([1e5, 1, 1e-5, 1e-30], jnp.float32))
    found = lyapunov_spectrum(Linear(), W, still(100_000, jnp.float32))
    expected = np.log([1e5, 1, 1e-5, 1e-30])
    np.testing.assert_allclose(found.exponents, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.long
def test_zero_weights():
    # an LSTM without weights: the c halve, and the h, made of them, are a direction that is lost
    cell = jaxrnn.LSTM(1, 2)
    params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0), dtype=jnp.float64))
    found = lyapunov_spectrum(cell, params, jnp.ones((40, 1)))
    assert not any(np.any(np.isnan(leaf)) for leaf in jax.tree.leaves(found))
    np.testing.assert_allclose(found.exponents[:2], -np.log(2), rtol=0, atol=1e-12)
    assert np.all(found.exponents[2:] == -np.inf)


@pytest.mark.long
def test_dead_relu_and_no_steps_give_minus_infinity_never_nan():
    cell = jaxrnn.Elman(2, 3, activation="relu")
    params = cell.init(jax.random.key(0), dtype=jnp.float64)
    one = params._replace(b=params.b.at[1].set(-1e3), W_h=jnp.eye(3) + 0.1 * params.W_h)
    one = one._replace(b=one.b + jnp.array([1.0, 0, 1.0]))
    partly = lyapunov_spectrum(cell, one, jnp.ones((50, 2)))
    assert np.all(np.isfinite(partly.exponents[:2])) and partly.exponents[2] == -np.inf
    dead = lyapunov_spectrum(cell, params._replace(b=jnp.full(3, -1e3)), jnp.ones((50, 2)))
    for record in (partly, dead, lyapunov_spectrum(cell, params, jnp.ones((0, 2)))):
        assert not any(np.any(np.isnan(leaf)) for leaf in jax.tree.leaves(record))
    assert np.all(dead.exponents == -np.inf) and np.all(dead.standard_error == np.inf)
    assert np.all(record.exponents == -np.inf) and record.steps == 0
    assert record.convergence.shape == (0, 3)


# ---- the options of unroll, against a loop in NumPy

B, T = 3, 12
LENGTHS = jnp.array([12, 0, 7])
RESETS = jnp.zeros((B, T), bool).at[0, 8].set(True).at[2, 3].set(True)


def episodes(length, resets, reverse):
    """The steps of each episode in the order of travel."""
    found = [[]]
    for t in reversed(range(length)) if reverse else range(length):
        if resets[t] and not reverse:
            found.append([])
        found[-1].append(t)
        if resets[t] and reverse:
            found.append([])
    return found


@functools.partial(jax.jit, static_argnums=0)
def step_and_jacobian(cell, params, vector, x):
    def flat(vector):
        back = jaxrnn.flatten_carry(cell.initial_carry(params))[1]
        return jaxrnn.flatten_carry(cell.step(params, back(vector), x)[0])[0]

    return flat(vector), jax.jacfwd(flat)(vector)


def benettin(cell, params, xs, steps, burn_in, count):
    """ln R_ii of the counted steps of one episode, with LAPACK's QR."""
    vector, _ = jaxrnn.flatten_carry(cell.initial_carry(params))
    basis = np.asarray(starting_columns(cell.initial_carry(params), count))
    logs = []
    for t in steps:
        vector, jacobian = step_and_jacobian(cell, params, vector, xs[t])
        basis, r = np.linalg.qr(np.asarray(jacobian) @ basis)
        logs.append(np.log(np.abs(np.diag(r))))
    return np.array(logs).reshape(-1, count)[burn_in:]


@pytest.mark.long
@pytest.mark.parametrize(
    "cell",
    [
        jaxrnn.LSTM(3, 2),
        jaxrnn.Stack((jaxrnn.Elman(3, 2), jaxrnn.GRU(2, 2))),
    ],
    ids=["LSTM", "Stack"],
)
def test_lengths_resets_and_reverse_as_the_episodes_alone(cell):
    params = cell.init(jax.random.key(0), dtype=jnp.float64)
    xs = jax.random.normal(jax.random.key(1), (B, T, 3), jnp.float64)
    options = dict(lengths=LENGTHS, resets=RESETS)

    @jax.jit
    @jax.vmap
    def one_by_one(xs, lengths, resets):
        one = dict(lengths=lengths, resets=resets, reverse=True)
        return lyapunov_spectrum(cell, params, xs, burn_in=1, **one)

    record = lyapunov_spectrum(cell, params, xs, burn_in=1, reverse=True, **options)
    for found in (record, one_by_one(xs, LENGTHS, RESETS)):
        for b in range(B):
            walked = episodes(int(LENGTHS[b]), RESETS[b], True)
            logs = [benettin(cell, params, xs[b], e, 1, 4) for e in walked]
            logs = np.concatenate(logs)
            assert found.steps[b] == len(logs)
            expected = -np.sort(-logs.mean(axis=0)) if len(logs) else np.full(4, -np.inf)
            np.testing.assert_allclose(found.exponents[b], expected, rtol=0, atol=1e-11)
            assert abs(found.sum_rule[b]) < 1e-11


@pytest.mark.long
def test_intervals_and_a_default_burn_in_of_a_tenth():
    cell = jaxrnn.GRU(2, 3)
    params = cell.init(jax.random.key(0), dtype=jnp.float64)
    xs = jax.random.normal(jax.random.key(1), (2, 30, 2), jnp.float64)
    resets = jnp.zeros((2, 30), bool).at[1, 20].set(True)
    found = lyapunov_spectrum(cell, params, xs, exponents=2, resets=resets)
    for b, walked in enumerate(([range(30)], [range(20), range(20, 30)])):
        logs = [benettin(cell, params, xs[b], e, len(e) // 10, 2) for e in walked]
        expected = np.concatenate(logs).mean(axis=0)
        np.testing.assert_allclose(found.exponents[b], -np.sort(-expected), rtol=0, atol=1e-12)
    # stretches of four, of which 20 is a bound: their growth is what it was
    rare = lyapunov_spectrum(cell, params, xs, exponents=2, resets=resets, burn_in=4, interval=4)
    often = lyapunov_spectrum(cell, params, xs, exponents=2, resets=resets, burn_in=4)
    np.testing.assert_allclose(rare.exponents, often.exponents, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(rare.steps, [26, 22])
    # a reset at 22: the two steps from 20 on are cut off, and those from 24 on touch the burn-in
    cut = lyapunov_spectrum(
        cell, params, xs, exponents=2, resets=jnp.roll(resets, 2, 1), burn_in=4, interval=4
    )
    np.testing.assert_array_equal(cut.steps, [26, 16 + 2])


@pytest.mark.long
def test_float32_agrees_and_so_do_foreign_and_complex_carries():
    # a complex diagonal recurrence: every |λ| counts twice
    cell = jaxrnn.LRU(2, 3, 2)
    params = cell.init(jax.random.key(0), dtype=jnp.float64)
    xs = jax.random.normal(jax.random.key(1), (50, 2), jnp.float64)
    wide = lyapunov_spectrum(cell, params, xs)
    jacobian = np.asarray(analysis.step_jacobians(cell, params, xs[:1]))[0]
    expected = np.sort(np.log(np.abs(np.linalg.eigvals(jacobian))))[::-1]
    np.testing.assert_allclose(np.sum(wide.exponents), expected.sum(), rtol=1e-10)
    # pairs of conjugates turn within a plane, so that their sum is exact and each is not
    np.testing.assert_allclose(wide.exponents, expected, rtol=0, atol=0.05)
    half = jax.tree.map(lambda a: a.astype(jnp.float32), (params, xs))
    narrow = lyapunov_spectrum(cell, *half)
    np.testing.assert_allclose(narrow.exponents, wide.exponents, rtol=0, atol=1e-5)


# ---- derivatives


def test_derivative_for_a_diagonal_network():
    a = jnp.array([1.5, 0.9, 0.5, 0.2])

    def exponents(a):
        return lyapunov_spectrum(Linear(), jnp.diag(a), still(70), burn_in=50).exponents

    slopes = jax.jit(jax.jacrev(exponents))(a)
    np.testing.assert_allclose(slopes, np.diag(1 / a), rtol=0, atol=1e-9)


def descend(loss, params, steps=25, rate=0.03):
    """First and last loss under Adam."""
    optimiser = optax.adam(rate)
    state = optimiser.init(params)

    @jax.jit
    def update(params, state):
        value, gradient = jax.value_and_grad(loss)(params)
        with jax.numpy_dtype_promotion("standard"):  # Optax divides floats by integers
            change, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, change), state, value

    values = []
    for _ in range(steps):
        params, state, value = update(params, state)
        values.append(float(value))
    assert np.all(np.isfinite(values))
    return values[0], values[-1]


@pytest.mark.parametrize(
    "cell", [pytest.param(jaxrnn.LSTM(2, 2), marks=pytest.mark.long), Linear()], ids=["LSTM", "own"]
)
def test_flossing_brings_exponents_to_zero(cell):
    params = cell.init(jax.random.key(0), dtype=jnp.float64)
    xs = jax.random.normal(jax.random.key(1), (12, 2), jnp.float64)

    def loss(params):
        return jnp.mean(lyapunov_spectrum(cell, params, xs, exponents=2).exponents ** 2)

    first, last = descend(loss, params)
    assert last < 0.2 * first


@pytest.mark.long
@pytest.mark.parametrize("cell", [jaxrnn.LSTM(2, 2), Linear()], ids=["LSTM", "own"])
def test_pascanus_regulariser_keeps_the_norm_of_the_gradient(cell):
    # Pascanu, Mikolov and Bengio 2013: Σ_t (‖δ_(t−1)‖/‖δ_t‖ − 1)²
    params = cell.init(jax.random.key(0), dtype=jnp.float64)
    xs = jax.random.normal(jax.random.key(1), (12, 2), jnp.float64)

    def omega(params):
        of_last = analysis.loss_gradient_decay(cell, params, xs, lambda ys: jnp.sum(ys[-1]))
        return jnp.sum(jnp.expm1(-jnp.diff(of_last.log_norm_carry)) ** 2)

    first, last = descend(omega, params)
    assert last < 0.3 * first


# ---- covariant vectors


def test_cat_map_has_the_directions_of_its_matrix():
    found = covariant_vectors(CatMap(), CatMap().init(None), still(200))
    golden = (1 + np.sqrt(5)) / 2
    directions = np.array([[golden, 1], [1, -golden]]).T / np.sqrt(1 + golden**2)
    inner = np.abs(np.einsum("tnk,nk->tk", found.vectors[50:150], directions))
    np.testing.assert_allclose(inner, 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.exponents, 2 * np.log([golden, 1 / golden]), rtol=1e-12)
    np.testing.assert_allclose(found.angles[50:150, 0, 1], np.pi / 2, rtol=1e-12)
    assert found.settled.sum() == 160


@pytest.mark.parametrize("dtype", [jnp.float64, pytest.param(jnp.float32, marks=pytest.mark.long)])
def test_linear_network_has_its_eigenvectors(dtype):
    values = np.array([1.5, -0.9, 0.5, 0.2])
    basis = np.random.default_rng(1).normal(size=(4, 4))
    basis /= np.linalg.norm(basis, axis=0)
    W = basis @ np.diag(values) @ np.linalg.inv(basis)
    found = covariant_vectors(Linear(), jnp.asarray(W, dtype), still(160, dtype), dt=0.5)
    tolerance = 1e-9 if dtype == jnp.float64 else 1e-4
    inner = np.abs(np.einsum("nk,nk->k", np.asarray(found.vectors[80], np.float64), basis))
    np.testing.assert_allclose(inner, 1, rtol=0, atol=tolerance)
    angle = np.arccos(np.abs(basis[:, 0] @ basis[:, 2]))
    np.testing.assert_allclose(found.angles[80, 0, 2], angle, rtol=tolerance * 10)
    expected = np.log(np.abs(values)) / 0.5
    np.testing.assert_allclose(found.local_exponents[80], expected, rtol=0, atol=tolerance * 10)


@pytest.mark.long
def test_henon_vectors_are_carried_along_and_grow_at_its_exponents():
    cell, xs = Henon(), still(2000)
    params = cell.init(None)
    found = covariant_vectors(cell, params, xs)
    spectrum = lyapunov_spectrum(cell, params, xs)
    jacobians = np.asarray(analysis.step_jacobians(cell, params, xs))
    moved = np.einsum("tij,tjk->tik", jacobians[1:], found.vectors[:-1])
    size = np.linalg.norm(moved, axis=1)
    inner = np.abs(np.sum(moved * found.vectors[1:], axis=1)) / size
    inside = np.asarray(found.settled[1:] & found.settled[:-1])
    np.testing.assert_allclose(inner[inside], 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.local_exponents[1:][inside], np.log(size)[inside], atol=1e-9)
    np.testing.assert_allclose(found.exponents, spectrum.exponents, rtol=0, atol=0.01)
    # stable and unstable directions nearly touch at places: the map is not hyperbolic
    assert found.angles[200:1800, 0, 1].min() < 0.05


@pytest.mark.long
def test_covariant_vectors_of_each_episode_alone_never_nan():
    cell = jaxrnn.Elman(3, 3)
    params = cell.init(jax.random.key(0), dtype=jnp.float64)
    xs = jax.random.normal(jax.random.key(1), (B, T, 3), jnp.float64)
    options = dict(lengths=LENGTHS, resets=RESETS, reverse=True)
    found = covariant_vectors(cell, params, xs, burn_in=1, settle=0, **options)
    alone = covariant_vectors(cell, params, xs[2, 3:7], burn_in=1, settle=0, reverse=True)
    inner = np.abs(np.sum(np.asarray(found.vectors[2, 3:7]) * alone.vectors, axis=1))
    # the end of an episode, where the pull back starts, is the same; so is all that follows
    np.testing.assert_allclose(inner, 1, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(found.settled[2, 3:7], alone.settled)
    np.testing.assert_allclose(found.local_exponents[2, 3:7], alone.local_exponents, atol=1e-10)
    assert np.all(found.vectors[1] == 0) and np.all(found.exponents[1] == -np.inf)
    dead = params._replace(W_h=params.W_h.at[:, 1].set(0).at[1].set(0))
    for record in (found, covariant_vectors(cell, dead, xs, burn_in=1, settle=0, **options)):
        assert not any(np.any(np.isnan(leaf)) for leaf in jax.tree.leaves(record))
    assert record.exponents[0, 2] == -np.inf


# ---- theory


def mean_field(gain, variance):
    """½ ln(g² E sech⁴(√q z)) at q = g² E tanh²(√q z) + s², by quadrature."""
    z, weights = np.polynomial.hermite_e.hermegauss(101)
    weights = weights / weights.sum()
    q = 1.0
    for _ in range(2000):
        q = gain**2 * weights @ np.tanh(np.sqrt(q) * z) ** 2 + variance
    return 0.5 * np.log(gain**2 * weights @ np.cosh(np.sqrt(q) * z) ** -4.0)


@pytest.mark.long
@pytest.mark.parametrize("gain, std", [(2.5, 0.3), (2.5, 1.5), (1.6, 0.1), (1.6, 1.5)])
def test_random_network_against_mean_field(gain, std):
    N, T, draws = 256, 1500, 3
    cell = jaxrnn.Elman(N, N)
    params = cell.init(jax.random.key(0), dtype=jnp.float32)

    def first_exponent(key):
        of_W, of_x = jax.random.split(key)
        W_h = gain / N**0.5 * jax.random.normal(of_W, (N, N), jnp.float32)
        own = params._replace(W_h=W_h, W_x=std * jnp.eye(N, dtype=jnp.float32), b=0 * params.b)
        xs = jax.random.normal(of_x, (T, N), jnp.float32)
        return lyapunov_spectrum(cell, own, xs, exponents=1).exponents[0]

    found = np.array([first_exponent(jax.random.key(i)) for i in range(draws)])
    assert np.std(found) < 0.05
    # finite N leaves some 1/√N
    assert abs(found.mean() - mean_field(gain, std**2)) < 0.04
    # strong input suppresses chaos at the smaller gain
    assert np.all((found > 0) == ((gain, std) != (1.6, 1.5)))


# ---- the outlook for Newton


def test_longest_expansion_is_that_of_a_double_loop():
    rng = np.random.default_rng(0)
    draws = rng.normal(-0.1, 1, (20, 30))
    draws[3] = -1
    draws[4] = 1
    draws[5, 7] = -np.inf
    fresh = rng.uniform(size=(20, 30)) < 0.1
    found = jax.jit(jax.vmap(longest_expansion))(jnp.asarray(draws), jnp.asarray(fresh))
    whole = jax.jit(jax.vmap(longest_expansion))(jnp.asarray(draws))

    def slowly(logs, fresh):
        best = 0
        for s in range(len(logs)):
            for t in range(s, len(logs)):
                if np.sum(logs[s : t + 1]) >= 0 and not np.any(fresh[s + 1 : t + 1]):
                    best = max(best, t - s + 1)
        return best

    assert list(found) == [slowly(*pair) for pair in zip(draws, fresh, strict=True)]
    assert list(whole) == [slowly(row, np.zeros(30, bool)) for row in draws]


@pytest.mark.long
def test_outlook_against_the_turns_that_newton_takes():
    cell, T, N = jaxrnn.Elman(3, 12), 64, 12
    gains = jnp.array([0.5, 0.6, 0.7, 4.0, 5.0, 6.0])
    params = cell.init(jax.random.key(0), dtype=jnp.float64)
    W_h = jax.random.normal(jax.random.key(1), (6, N, N), jnp.float64) / np.sqrt(N)
    W_h = gains[:, None, None] * W_h
    xs = 0.3 * jax.random.normal(jax.random.key(2), (6, T, 3), jnp.float64)
    method = jaxrnn.Newton(iterations=T)

    @jax.jit
    @jax.vmap
    def both(W_h, x):
        own = params._replace(W_h=W_h)
        turns = jaxrnn.unroll_report(cell, own, x, method=method).turns
        return parallel_outlook(cell, own, x), turns

    found, turns = both(W_h, xs)
    few, hopeless = np.asarray(found.few), np.asarray(found.hopeless)
    assert few.sum() >= 2 and hopeless.sum() >= 2
    assert np.all(turns[few] <= 9) and np.all(2 * turns[hopeless] >= T)
    assert np.all(found.expected_turns[few] <= 11)
    assert np.all(found.expected_turns[hopeless] == T)
    assert np.all(found.exponent[few] < 0) and np.all(found.expected_turns <= T)
    assert turns[hopeless].min() > 2 * turns[few].max()


@pytest.mark.long
def test_outlook_of_padding_and_episodes():
    xs = jnp.stack([jnp.ones((20, 0))] * 3)
    resets = jnp.zeros((3, 20), bool).at[1, 12].set(True)
    W = 1.5 * jnp.eye(4)
    options = dict(lengths=jnp.array([20, 20, 0]), resets=resets)
    found = parallel_outlook(Linear(), W, xs, **options)
    np.testing.assert_array_equal(found.longest_expansion, [20, 12, 0])
    np.testing.assert_array_equal(found.expected_turns, [20, 12, 0])
    np.testing.assert_allclose(found.exponent, [np.log(1.5), np.log(1.5), -np.inf], rtol=1e-12)
    np.testing.assert_array_equal(found.hopeless, [True, True, False])


# ---- pictures


@pytest.mark.long
def test_pictures_show_what_the_records_hold():
    plot = pytest.importorskip("jaxrnn.plot.lyapunov")
    cell, xs = Henon(), still(2000)
    spectrum = lyapunov_spectrum(cell, cell.init(None), xs)
    axes = plot.lyapunov_spectrum(spectrum, label="Hénon")
    line = next(line for line in axes.lines if line.get_marker() == "o")
    np.testing.assert_array_equal(line.get_ydata(), spectrum.exponents)
    assert "1.26" in axes.get_title(loc="left")
    axes = plot.lyapunov_convergence(spectrum)
    running = spectrum.convergence[spectrum.convergence_steps > 0, 1]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), running)
    vectors = covariant_vectors(cell, cell.init(None), xs)
    shares = plot.covariant_vectors(vectors).patches[0].get_xy()[:, 1]
    degrees = np.degrees(vectors.angles[vectors.settled][:, 0, 1])
    counts = np.histogram(degrees, np.linspace(0, 90, 46))[0]
    np.testing.assert_allclose(shares.max(), 100 * counts.max() / len(degrees), rtol=1e-9)
    # a dead direction, and a batch
    batch = jax.tree.map(lambda a: jnp.stack([a, a]), spectrum)
    assert plot.lyapunov_spectrum(batch).collections
    gone = dataclasses.replace(spectrum, exponents=spectrum.exponents.at[1].set(-jnp.inf))
    assert "1 at −∞" in plot.lyapunov_spectrum(gone).get_title(loc="left")


def test_analyses_say_what_is_wrong():
    cell = jaxrnn.GRU(3, 4)
    params = cell.init(jax.random.key(0), dtype=jnp.float64)
    xs = jnp.ones((5, 3))
    with pytest.raises(ValueError, match=r"exponents must be a whole number from 1 to 4.*got 5"):
        lyapunov_spectrum(cell, params, xs, exponents=5)
    with pytest.raises(ValueError, match="interval must be a whole number of at least 1, got 0"):
        lyapunov_spectrum(cell, params, xs, interval=0)
    with pytest.raises(ValueError, match="burn_in must be a whole number of at least 0, got -1"):
        lyapunov_spectrum(cell, params, xs, burn_in=-1)
    with pytest.raises(ValueError, match="dt must be positive, got 0"):
        lyapunov_spectrum(cell, params, xs, dt=0.0)
    with pytest.raises(ValueError, match="settle must be a whole number of at least 0, got -2"):
        covariant_vectors(cell, params, xs, settle=-2)
    counter = jaxrnn.as_cell(lambda p, c, x: (c + 1, x), lambda p: jnp.zeros((), jnp.int32))
    with pytest.raises(ValueError, match="holds no real numbers"):
        lyapunov_spectrum(counter, (), xs)
