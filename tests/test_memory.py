"""Memory against closed forms, NumPy and each other; forgetting against products of Jacobians."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import analysis
from jaxrnn.analysis.edge import EdgeOfChaos
from jaxrnn.analysis.forgetting import ForgettingCurve, forgetting_curve
from jaxrnn.analysis.memory import FisherMemory, MemoryCapacity, fisher_memory, memory_capacity
from jaxrnn.analysis.theory import DeterminantSplit, MeanField, SpectralBounds
from jaxrnn.plot import memory as plot

KEY = jax.random.key(0)
# few shapes, because compiling is what costs
LAGS = 24


def linear(W, v, dtype=jnp.float64):
    """A linear network with one input, and its params."""
    cell = jaxrnn.LinearRNN(1, len(v), biases=0)
    W, v = jnp.asarray(W, dtype), jnp.asarray(v, dtype)
    return cell, cell.init(KEY, dtype=dtype)._replace(W_h=W, W_x=v[:, None])


def textbook(W, v, lags):
    """MC_k = v'W'ᵏ C⁺ Wᵏ v with the sum for C written out."""
    columns, sequence = np.asarray(v), []
    for _ in range(3000):
        sequence.append(columns)
        columns = W @ columns
    K = np.stack(sequence, axis=1)
    return np.diag(K.T @ np.linalg.pinv(K @ K.T) @ K)[:lags]


def rotated(W, v, seed=0):
    """The same system in another orthonormal basis."""
    Q = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(v), len(v))))[0]
    return Q @ W @ Q.T, Q @ v


def chain(N, factor):
    return np.diag(np.full(N - 1, factor), -1), np.eye(N)[0]


# memory capacity, solved


@pytest.mark.long
def test_capacity_of_one_leaky_unit_and_of_a_small_network():
    # five more units that nothing reaches
    v = 3.0 * np.eye(6)[0]
    got = memory_capacity(*linear(0.8 * np.eye(6), v), lags=LAGS)
    np.testing.assert_allclose(got.capacity, 0.36 * 0.64 ** np.arange(LAGS), rtol=1e-13)
    W = np.random.default_rng(1).normal(size=(6, 6))
    W *= 0.8 / np.abs(np.linalg.eigvals(W)).max()
    got = memory_capacity(*linear(W, v), lags=LAGS)
    np.testing.assert_allclose(got.capacity, textbook(W, v, LAGS), rtol=0, atol=1e-9)
    np.testing.assert_allclose(got.total, got.capacity.sum(), rtol=1e-14)


@pytest.mark.long
def test_capacity_of_a_complex_diagonal_cell():
    cell = jaxrnn.LRU(2, 3, 1)
    params = cell.init(KEY, dtype=jnp.float64)
    p = jax.tree.map(np.asarray, params)
    modes = np.exp(-np.exp(p.log_nu) + 1j * np.exp(p.log_theta))
    B = np.exp(p.log_gamma) * ((p.B_real + 1j * p.B_imag) @ np.full(2, 0.5**0.5))
    W = np.block(
        [[np.diag(modes.real), -np.diag(modes.imag)], [np.diag(modes.imag), np.diag(modes.real)]]
    )
    got = memory_capacity(cell, params, lags=8)
    np.testing.assert_allclose(got.capacity, textbook(W, np.r_[B.real, B.imag], 8), atol=1e-8)
    assert got.reachable == 6


@pytest.mark.parametrize("N, r, lags", [(6, 0.9, LAGS), (50, 0.99, 400)])
def test_capacity_of_a_ring(N, r, lags):
    # Rodan and Tiňo 2011, IEEE Transactions on Neural Networks 22: with lags from 1 the simple
    # cycle reservoir has N − (1 − r^2N)
    got = memory_capacity(*linear(r * np.roll(np.eye(N), 1, axis=0), np.eye(N)[0]), lags=lags)
    rounds = np.arange(lags) // N
    expected = r ** (2 * N * rounds) * (1 - r ** (2 * N))
    np.testing.assert_allclose(got.capacity, expected, rtol=0, atol=1e-12)
    # and, over these rounds, without what the later ones hold
    left = N * r ** (2 * N * (lags // N))
    np.testing.assert_allclose(got.total - got.capacity[0] + left, N - (1 - r ** (2 * N)), 1e-12)


@pytest.mark.parametrize("dtype, close", [(jnp.float64, 1e-9), (jnp.float32, 1e-3)])
def test_capacity_of_a_delay_line_whatever_its_basis(dtype, close):
    # its eigenvalues, all 0, come out at ε^(1/N), which is not small; its capacity does not care
    for W, v in (chain(6, 0.7), rotated(*chain(6, 0.7))):
        got = memory_capacity(*linear(W, v, dtype), lags=LAGS)
        np.testing.assert_allclose(got.capacity, np.arange(LAGS) < 6, atol=close)
        assert got.capacity.dtype == dtype and got.reachable == 6


def test_total_capacity_is_the_rank_of_the_controllability_matrix():
    # one mode twice, one that the input does not reach, two as good as any: in a hidden basis
    modes, reached = np.diag([0.6, 0.6, 0.3, -0.5, 0.4, 0.1]), np.array([1, 2, 0, 1, 1, 0.0])
    W, v = rotated(modes, reached)
    controllability = np.stack([np.linalg.matrix_power(W, k) @ v for k in range(6)])
    got = memory_capacity(*linear(W, v), lags=LAGS)
    assert int(got.reachable) == np.linalg.matrix_rank(controllability) == 3
    np.testing.assert_allclose(got.total, 3, rtol=0, atol=1e-8)


def test_a_network_of_fifty_units_has_all_of_its_capacity():
    draw = np.random.default_rng(3)
    W = draw.normal(size=(50, 50))
    W *= 0.9 / np.abs(np.linalg.eigvals(W)).max()
    v = draw.normal(size=50)
    got = memory_capacity(*linear(W, v), lags=400)
    np.testing.assert_allclose(got.total, 50, atol=1e-6)
    # what the formula as it stands makes of it
    assert textbook(W, v, 400).sum() < 45


def test_capacity_of_degenerate_systems():
    def capacity(modes, v=1.0):
        cell, params = linear(np.diag(np.array(modes, float)), np.full(6, v))
        return np.asarray(memory_capacity(cell, params, lags=LAGS).capacity)

    # modes on the unit circle and outside leave a finite lag to the others
    half = 0.75 * 0.25 ** np.arange(LAGS)
    np.testing.assert_allclose(capacity([1.5, 0.5, 0.5, 0.5, 0.5, 0.5]), half, rtol=1e-9)
    np.testing.assert_allclose(capacity([1.0, 0.5, -1.0, 0.5, 2.0, 0.5]), half, rtol=1e-9)
    np.testing.assert_allclose(capacity(6 * [0.0]), np.arange(LAGS) == 0, atol=1e-15)
    np.testing.assert_array_equal(capacity(6 * [0.5], v=0.0), np.zeros(LAGS))


@pytest.mark.long
def test_capacity_under_jit_and_vmap():
    cell = jaxrnn.LinearRNN(1, 6, biases=0)
    params = jax.vmap(lambda key: cell.init(key, dtype=jnp.float64))(jax.random.split(KEY, 2))
    together = jax.jit(jax.vmap(lambda p: memory_capacity(cell, p, lags=LAGS)))(params)
    for i in range(2):
        alone = memory_capacity(cell, jax.tree.map(lambda a, i=i: a[i], params), lags=LAGS)
        np.testing.assert_allclose(together.capacity[i], alone.capacity, rtol=0, atol=1e-9)


def test_who_is_linear():
    def solved(cell):
        seen = []

        def traced(params):
            got = memory_capacity(cell, params, key=KEY, steps=40)
            seen.append(got.reachable is not None)
            return got.total

        jax.eval_shape(traced, cell.init(KEY, dtype=jnp.float64))
        return seen[0]

    assert solved(jaxrnn.Elman(1, 2, activation="identity"))
    assert solved(jaxrnn.Stack((jaxrnn.LinearRNN(1, 2), jaxrnn.LRU(2, 1, 1))))
    assert solved(jaxrnn.Leaky(1, 2, activation="identity"))
    assert not solved(jaxrnn.Elman(1, 2, activation="relu"))
    assert not solved(jaxrnn.MinGRU(1, 2))  # linear in its carry, but not with constant A


# memory capacity, measured


@pytest.mark.long
def test_measured_capacity_agrees_with_the_solved_one():
    cell, params = linear(*rotated(*chain(6, 0.9)))
    params = params._replace(W_h=params.W_h + 0.1 * jnp.eye(6))
    solved = memory_capacity(cell, params, lags=LAGS)
    options = dict(analytic=False, input_scale=[0.5, 2.0], lags=LAGS)
    measured = memory_capacity(cell, params, key=jax.random.key(1), **options)
    # five standard deviations, and the bias of a lag without memory
    deviation = 2 * np.sqrt(solved.capacity / 4000) * (1 - solved.capacity)
    assert np.all(np.abs(measured.capacity - solved.capacity) <= 5 * deviation + 10 / 4000)
    np.testing.assert_allclose(measured.capacity[0], measured.capacity[1], rtol=1e-6)


def test_in_sample_capacity_is_too_high_and_held_out_is_not():
    # nothing is remembered beyond lag 1, so that of 80 lags 78 are to be 0
    cell, params = linear(*chain(2, 1.0))
    N, K, steps = 2, 80, 200
    got = [
        memory_capacity(cell, params, analytic=False, lags=K, steps=steps, key=key)
        for key in jax.random.split(jax.random.key(5), 5)
    ]
    fitted = np.mean([r.in_sample_total for r in got]) - 2
    new = np.mean([r.total for r in got]) - 2
    np.testing.assert_allclose(fitted, N * (K - 2) / steps, rtol=0.25)
    np.testing.assert_allclose(new, (K - 2) / steps, rtol=0.35)


@pytest.mark.long
def test_capacity_of_a_tanh_network_falls_with_the_input_scale():
    cell = jaxrnn.Elman(1, 6, biases=0, recurrent_initializer=jaxrnn.initializers.Orthogonal(0.9))
    params = cell.init(KEY, dtype=jnp.float64)
    options = dict(input_scale=[1e-3, 4.0, 40.0], key=KEY, lags=LAGS)
    got = memory_capacity(cell, params, **options)
    assert got.total[0] > got.total[1] > got.total[2]
    # a whisper goes through tanh as it is
    solved = memory_capacity(*linear(params.W_h, params.W_x[:, 0]), lags=LAGS)
    np.testing.assert_allclose(got.capacity[0], solved.capacity, atol=0.03)
    assert np.all((got.capacity >= 0) & (got.capacity <= 1))
    narrow = jax.tree.map(lambda a: a.astype(jnp.float32), params)
    again = memory_capacity(cell, narrow, **options)
    assert again.capacity.dtype == jnp.float32
    np.testing.assert_allclose(again.capacity, got.capacity, atol=2e-4)


@pytest.mark.long
def test_measured_capacity_is_never_nan():
    cell = jaxrnn.Elman(1, 3, activation="relu")
    params = cell.init(KEY, dtype=jnp.float64)
    dead = params._replace(b=jnp.full(3, -1e3))
    exploding = params._replace(W_h=jnp.full((3, 3), 9.0), b=jnp.ones(3))
    for p in (dead, exploding):
        got = memory_capacity(cell, p, key=KEY, steps=500, lags=3)
        np.testing.assert_array_equal(got.capacity, np.zeros(3))


@pytest.mark.long
@pytest.mark.parametrize(
    "cell", [jaxrnn.LSTM(1, 2), jaxrnn.Leaky(1, 3, tau=2.0, noise=0.1)], ids=["LSTM", "noisy"]
)
def test_gated_and_noisy_cells_have_a_capacity(cell):
    params = cell.init(KEY, dtype=jnp.float64)
    got = memory_capacity(cell, params, key=KEY, lags=4, steps=500)
    assert got.capacity[0] > 0.3 and np.all(np.isfinite(got.capacity))


def test_a_cell_with_several_inputs_has_a_capacity():
    foreign, w = jaxrnn.as_cell(_two_inputs, _zero), jnp.array(0.5)
    direction = {"left": jnp.array([1.0]), "right": jnp.array([0.0])}
    got = memory_capacity(foreign, w, key=KEY, lags=3, direction=direction)
    assert got.reachable == 1
    np.testing.assert_allclose(got.capacity, 0.75 * 0.25 ** np.arange(3), rtol=1e-12)


def _zero(params):
    return jnp.zeros(1, params.dtype)


def _two_inputs(params, carry, x):
    carry = params * carry + x["left"] - x["right"]
    return carry, carry


def test_capacity_says_what_is_wrong():
    cell = jaxrnn.GRU(1, 2)
    params = cell.init(KEY, dtype=jnp.float64)
    with pytest.raises(ValueError, match=r"pass key=jax\.random\.key"):
        memory_capacity(cell, params)
    with pytest.raises(ValueError, match="GRU is not linear in its carry and input"):
        memory_capacity(cell, params, analytic=True)
    with pytest.raises(ValueError, match="lags must be at least 1, got 0"):
        memory_capacity(cell, params, lags=0)
    with pytest.raises(ValueError, match=r"above N \+ 1 = 3, got 3"):
        memory_capacity(cell, params, key=KEY, steps=3)
    with pytest.raises(ValueError, match="burn_in must be at least 0, got -1"):
        memory_capacity(cell, params, key=KEY, burn_in=-1)
    both = jaxrnn.Bidirectional(cell)
    with pytest.raises(TypeError, match="no single direction of time"):
        memory_capacity(both, both.init(KEY, dtype=jnp.float64), key=KEY, direction=jnp.ones(1))


# Fisher memory


@pytest.mark.parametrize("T", [1, 12])
def test_fisher_memory_of_normal_networks_sums_to_one(T):
    draw = np.random.default_rng(0)
    square = draw.normal(size=(4, 4))
    Q = np.linalg.qr(square)[0]
    v = draw.normal(size=4)
    v /= np.linalg.norm(v)
    symmetric = square + square.T
    symmetric *= 0.9 / np.linalg.norm(symmetric, 2)
    for W in (symmetric, 0.95 * Q, 1.2 * Q, Q):
        got = fisher_memory(*linear(W, v), jnp.zeros((T, 1)))
        np.testing.assert_allclose(got.total, 1, rtol=1e-10)
    if T == 1:
        return
    k = np.arange(T)
    curve = fisher_memory(*linear(0.95 * Q, v), jnp.zeros((T, 1))).log_information
    a = 0.95**2
    np.testing.assert_allclose(curve, np.log(a**k * (1 - a) / (1 - a**T)), rtol=1e-10)


def test_fisher_memory_of_an_amplifying_delay_line():
    # Ganguli, Huh and Sompolinsky 2008: C is diagonal, and the total comes near N
    N, a = 4, 4.0
    k = np.arange(N)
    expected = a**k * (1 - a) / (1 - a ** (k + 1))
    for W, v in (chain(N, a**0.5), rotated(*chain(N, a**0.5))):
        got = fisher_memory(*linear(W, v), jnp.zeros((12, 1)))
        np.testing.assert_allclose(np.exp(got.log_information[:N]), expected, rtol=1e-9)
        np.testing.assert_allclose(got.total, expected.sum(), rtol=1e-9)
    assert 0.75 * N < expected.sum() < N


B, T = 3, 9
LENGTHS = jnp.array([9, 0, 6])
RESETS = jnp.zeros((B, T), bool).at[0, 6].set(True).at[2, 2].set(True)
EVERYTHING = {"lengths": LENGTHS, "resets": RESETS}
BY_HAND = [
    (jaxrnn.Elman, True),
    pytest.param(jaxrnn.GRU, False, marks=pytest.mark.long),
    pytest.param(jaxrnn.LSTM, True, marks=pytest.mark.long),
]


def flat(carries):
    """The carries of all steps as one array."""
    return np.concatenate([np.asarray(leaf) for leaf in carries], axis=-1)


def setup(cell, dtype=jnp.float64, scale=1.0):
    params = cell.init(KEY, dtype=dtype)
    return params, scale * jax.random.normal(jax.random.key(1), (B, T, cell.input_size), dtype)


def travelled(row, length, reverse):
    """The steps of a row in the order in which they are taken."""
    return list(range(length))[::-1] if reverse else list(range(length))


@pytest.mark.parametrize("kind, reverse", BY_HAND)
def test_fisher_memory_by_hand(kind, reverse):
    cell = kind(2, 3)
    params, xs = setup(cell)
    options = dict(EVERYTHING, reverse=reverse)
    J = np.asarray(analysis.step_jacobians(cell, params, xs, **options))
    direction = jnp.array([0.3, -2.0])
    unflatten = jaxrnn.flatten_carry(cell.initial_carry(params))[1]

    @jax.jit
    @jax.jacrev
    def of_x(x, start):
        return jaxrnn.flatten_carry(cell.step(params, unflatten(start), x)[0])[0]

    got = fisher_memory(cell, params, xs, direction=direction, **options)
    carries = flat(jaxrnn.trajectory(cell, params, xs, **options)[0])
    N = carries.shape[-1]
    begins = np.asarray(RESETS)
    for b, length in enumerate(np.asarray(LENGTHS)):
        order, before, signals = travelled(b, length, reverse), np.zeros(N), []
        for t in order:
            fresh = (t + 1 < length and begins[b, t + 1]) if reverse else begins[b, t]
            start = jnp.zeros(N) if fresh else jnp.asarray(before)
            signals.append(np.asarray(of_x(xs[b, t], start) @ direction))
            before = carries[b, t]
        product, noise, arriving = np.eye(N), np.zeros((N, N)), []
        for t, signal in zip(order[::-1], signals[::-1], strict=True):
            noise += product @ product.T
            arriving.append(product @ signal)
            product = product @ J[b, t]
        information = [s @ np.linalg.solve(noise, s) for s in arriving]
        found = np.exp(np.asarray(got.log_information[b]))
        np.testing.assert_allclose(found[:length], information, rtol=1e-9, atol=1e-14)
        np.testing.assert_array_equal(found[length:], np.zeros(T - length))
        np.testing.assert_allclose(got.total[b], sum(information), rtol=1e-9)


def test_fisher_memory_of_a_complex_diagonal_cell_is_that_of_a_normal_network():
    cell = jaxrnn.LRU(1, 3, 1)
    params = cell.init(KEY, dtype=jnp.float64)
    got = fisher_memory(cell, params, jnp.ones((2, 12, 1)))
    p = jax.tree.map(np.asarray, params)
    B = np.exp(p.log_gamma)[:, None] * (p.B_real + 1j * p.B_imag)
    np.testing.assert_allclose(got.total, 2 * [np.linalg.norm(B) ** 2], rtol=1e-10)


@pytest.mark.long
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_fisher_memory_survives_chaos_and_death(dtype):
    # noise grows by e^140 in 200 steps; a dead relu hands nothing on
    cell, params = linear(2.0 * np.eye(2), [1.0, 0.0], dtype)
    got = fisher_memory(cell, params, jnp.zeros((200, 1), dtype))
    # 4ᵏ · 3 / (4^200 − 1)
    exact = np.log(3.0) + (np.arange(200) - 200) * np.log(4.0)
    np.testing.assert_allclose(got.log_information, exact, atol=1e-3)
    dead = jaxrnn.Elman(1, 2, activation="relu")
    params = dead.init(KEY, dtype=dtype)._replace(b=jnp.full(2, -9, dtype))
    got = fisher_memory(dead, params, jnp.zeros((3, 1), dtype))
    np.testing.assert_array_equal(got.log_information, np.full(3, -np.inf))
    assert got.total == 0
    nothing = fisher_memory(dead, params, jnp.zeros((0, 1), dtype))
    assert nothing.total == 0 and nothing.log_information.shape == (0,)


# forgetting


@pytest.mark.parametrize("kind, reverse", BY_HAND)
def test_forgetting_by_hand(kind, reverse):
    cell = kind(2, 3)
    params, xs = setup(cell)
    # the last difference is at another step in every row, and padding does not count
    other = xs.at[0, 1].add(1.0).at[0, 2].add(0.5).at[2, 3].add(1e-3).at[2, 7].add(9.0)
    options = dict(EVERYTHING, reverse=reverse)
    got = forgetting_curve(cell, params, xs, other, **options)
    J = np.asarray(analysis.step_jacobians(cell, params, xs, **options))
    runs = [flat(jaxrnn.trajectory(cell, params, x, **options)[0]) for x in (xs, other)]
    for b, length in enumerate(np.asarray(LENGTHS)):
        order = travelled(b, length, reverse)
        differ = [i for i, t in enumerate(order) if np.any(xs[b, t] != other[b, t])]
        if not differ:
            np.testing.assert_array_equal(got.log_tangent[b], np.full(T + 1, -np.inf))
            continue
        after = order[differ[-1] :]
        gaps = [runs[1][b, t] - runs[0][b, t] for t in after]
        tangent, tangents = gaps[0], [gaps[0]]
        for t in after[1:]:
            tangent = J[b, t] @ tangent
            tangents.append(tangent)
        for curve, vectors in ((got.log_distance, gaps), (got.log_tangent, tangents)):
            norms = np.linalg.norm(vectors, axis=-1)
            expected = np.log(norms, where=norms > 0, out=np.full(norms.shape, -np.inf))
            np.testing.assert_allclose(curve[b, : len(after)], expected, rtol=1e-6)
            np.testing.assert_array_equal(curve[b, len(after) :], -np.inf)
        size = np.log(0.5 * np.finfo(float).eps * np.linalg.norm(runs[0][b, after[0]]))
        np.testing.assert_allclose(got.log_resolution[b, 0], size, rtol=1e-12)


@pytest.mark.long
def test_forgetting_never_outlives_the_gradient():
    cell = jaxrnn.Elman(2, 3)
    params, xs = setup(cell)
    start = type(cell.initial_carry(params))(jnp.full((B, 3), 1e-4))
    got = forgetting_curve(cell, params, xs, other_carry=start)
    # from carry to carry T steps later: the one lag that both curves measure from the same start
    norm = analysis.gradient_decay(cell, params, xs).log_spectral_norm[:, -1]
    lost = got.log_tangent[:, T] - got.log_tangent[:, 0]
    assert np.all(lost < norm) and np.all(lost > norm - 4)
    np.testing.assert_allclose(got.log_distance, got.log_tangent, atol=1e-3)


def test_a_linear_network_forgets_at_its_rate_for_a_hundred_thousand_steps_of_float32():
    cell, params = linear([[0.5]], [2.0], jnp.float32)
    xs = jnp.zeros((100_000, 1), jnp.float32)
    got = forgetting_curve(cell, params, xs, xs.at[0].set(1.0))
    expected = np.log(2.0) + np.arange(100_000) * np.log(0.5)
    np.testing.assert_allclose(got.log_tangent[:-1], expected, rtol=1e-6)
    np.testing.assert_allclose(got.rate, np.log(0.5), rtol=1e-6)
    np.testing.assert_allclose(got.half_life, 1, rtol=1e-6)
    assert got.horizon == 20 and got.log_tangent[-1] == -np.inf
    # the real distance is as long as a float32 holds it
    np.testing.assert_allclose(got.log_distance[:120], expected[:120], rtol=1e-6)
    assert np.all(got.log_distance[160:] == -np.inf)


@pytest.mark.long
def test_a_float32_distance_ends_in_rounding_and_the_tangent_does_not():
    cell = jaxrnn.Elman(2, 3)
    params = cell.init(KEY, dtype=jnp.float64)
    params = params._replace(W_h=1.5 * params.W_h)
    xs = jax.random.normal(jax.random.key(1), (60, 2))
    narrow = jax.tree.map(lambda a: a.astype(jnp.float32), (params, xs))
    wide = forgetting_curve(cell, params, xs, xs.at[0].add(0.1))
    got = forgetting_curve(cell, *narrow, narrow[1].at[0].add(0.1))
    np.testing.assert_allclose(got.log_tangent[:60], wide.log_tangent[:60], atol=2e-3)
    wide, got, resolution = (
        np.asarray(a, np.float64)[:60]
        for a in (wide.log_distance, got.log_distance, got.log_resolution)
    )
    below = wide < resolution - 4
    assert below.sum() >= 10
    # nothing of the truth is left there: rounding, or nothing at all
    assert np.all(np.abs(got - wide)[below] > 1) and np.all(got[below] < resolution[below] + 3)


def test_forgetting_of_tokens_of_the_same_and_of_nothing():
    table = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)
    cell = jaxrnn.as_cell(_token_step, _token_carry, input_rank=0)
    tokens = jnp.array([0, 3, 1, 2])
    got = forgetting_curve(cell, table, tokens, tokens.at[0].set(2))
    first = np.linalg.norm(np.tanh(table[2]) - np.tanh(table[0]))
    np.testing.assert_allclose(got.log_tangent[0], np.log(first), rtol=1e-12)
    assert np.all(np.isfinite(got.log_tangent[:4])) and got.log_tangent[4] == -np.inf
    same = forgetting_curve(cell, table, tokens, tokens)
    for curve in (same.log_distance, same.log_tangent):
        np.testing.assert_array_equal(curve, np.full(5, -np.inf))
    empty = forgetting_curve(cell, table, tokens[:0], other_carry=jnp.full(3, 2.0))
    np.testing.assert_allclose(empty.log_distance, [np.log(2 * 3**0.5)], rtol=1e-12)
    for record in (got, same, empty):
        assert not any(np.any(np.isnan(leaf)) for leaf in jax.tree.leaves(record))


def _token_carry(params):
    return jnp.zeros(3, params.dtype)


def _token_step(params, carry, token):
    h = jnp.tanh(0.5 * carry + params[token])
    return h, h


@pytest.mark.parametrize("deep", [False, pytest.param(True, marks=pytest.mark.long)])
def test_fisher_memory_and_forgetting_of_a_batch_are_the_loop_over_its_rows(deep):
    cell = jaxrnn.Elman(2, 2)
    cell = jaxrnn.Stack((jaxrnn.GRU(2, 2), cell)) if deep else cell
    params, xs = setup(cell)
    other = xs.at[:, 1].add(1.0)

    @jax.jit
    def both(x, y, n, r):
        options = dict(lengths=n, resets=r)
        fisher = fisher_memory(cell, params, x, **options)
        return fisher, forgetting_curve(cell, params, x, y, **options)

    together = both(xs, other, LENGTHS, RESETS) if deep else None
    nested = jax.jit(jax.vmap(both))(xs, other, LENGTHS, RESETS)
    for b in range(B):
        alone = both(xs[b], other[b], LENGTHS[b], RESETS[b])
        for record in (together, nested) if deep else (nested,):
            for whole, row in zip(record, alone, strict=True):
                for field in dataclasses.fields(row):
                    if field.name != "lags":
                        got, want = getattr(whole, field.name)[b], getattr(row, field.name)
                        np.testing.assert_allclose(got, want, rtol=1e-9, err_msg=field.name)


def test_fisher_memory_and_forgetting_say_what_is_wrong():
    cell = jaxrnn.GRU(2, 2)
    params, xs = setup(cell)
    with pytest.raises(ValueError, match="two runs that are the same: pass other_xs"):
        forgetting_curve(cell, params, xs)
    with pytest.raises(ValueError, match=r"other_xs is .*expected .*like xs"):
        forgetting_curve(cell, params, xs, xs[:, :-1])
    with pytest.raises(ValueError, match="threshold must be positive, got 0"):
        forgetting_curve(cell, params, xs, xs, threshold=0)
    with pytest.raises(ValueError, match=r"direction is .*expected .*like one moment of xs"):
        fisher_memory(cell, params, xs, direction=jnp.ones(3))


# figures


def test_figures_draw_what_the_records_hold():
    lags = jnp.arange(3, dtype=jnp.int32)
    fall = jnp.array([[0.0, -4.0, -jnp.inf], [0.0, -6.0, -9.0]])
    scales, two, one = jnp.array([0.1, 2.0]), jnp.ones(2), jnp.array(1.0)
    capacity = MemoryCapacity(lags, scales, jnp.exp(fall), 1.5 * two, two, None)
    axes = plot.memory_capacity(capacity)
    assert [t.get_text() for t in axes.get_legend().get_texts()] == [
        "input σ = 0.1: Σ = 1.5",
        "input σ = 2: Σ = 1.5",
    ]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), np.exp(fall[1]))
    (line,) = plot.fisher_memory(FisherMemory(lags, fall, two)).lines
    np.testing.assert_allclose(line.get_ydata(), np.array([0, -5, -9]) / np.log(10))
    forgotten = ForgettingCurve(lags, fall - 1, fall, fall - 20, two, two, two)
    tangent, distance, rounding = plot.forgetting_curve(forgotten).lines
    np.testing.assert_allclose(distance.get_ydata(), tangent.get_ydata() - 1 / np.log(10))
    np.testing.assert_allclose(rounding.get_ydata(), tangent.get_ydata() - 20 / np.log(10))
    gains, dead = jnp.array([1.0, 2.0, 4.0]), jnp.full(3, -jnp.inf)
    settled = EdgeOfChaos((), gains[1], one, one, jnp.array(True), gains, dead)
    assert "gain 2" in [t.get_text() for t in plot.edge_of_chaos(settled).texts]
    line, _ = plot.mean_field(MeanField(gains, 0 * gains, gains, fall[1])).lines
    np.testing.assert_allclose(line.get_ydata(), fall[1])
    split = plot.determinant_split(DeterminantSplit(-one, fall, fall - 1))
    np.testing.assert_allclose(split.lines[0].get_ydata(), -np.ones(3))
    bounds = plot.spectral_bounds(SpectralBounds(one, -jnp.inf * one), steps=10)
    assert len(bounds.lines) == 1 and bounds.get_ylim()[1] > 10 / np.log(10)
