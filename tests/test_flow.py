"""Flow of gradients against NumPy products, compound matrices, closed forms and `jax.jacrev`."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import analysis
from jaxrnn.analysis.flow import (
    GradientMap,
    GradientProbes,
    LayerDecay,
    gradient_map,
    gradient_probes,
    layer_decay,
)
from jaxrnn.analysis.sensitivity import InputSensitivity, input_decay, input_sensitivity
from jaxrnn.plot import flow as plot

B, T = 2, 9
LENGTHS = jnp.array([9, 6])
RESETS = jnp.zeros((B, T), bool).at[0, 2].set(True)
ALL = dict(lengths=LENGTHS, resets=RESETS)
LONG = pytest.mark.long  # compiling is what costs


def setup(cell, seed=0, dtype=jnp.float64, steps=T):
    params = cell.init(jax.random.key(seed), dtype=dtype)
    return params, jax.random.normal(jax.random.key(seed + 1), (B, steps, cell.input_size), dtype)


def linear(W, dtype=jnp.float32):
    """h' = W h + W_x x, whose Jacobian is W at every step."""
    cell = jaxrnn.Elman(1, len(W), activation="identity", biases=0)
    params = cell.init(jax.random.key(0), dtype=dtype)
    return cell, params._replace(W_h=jnp.asarray(W, dtype))


def product(jacobians, first, last):
    """J_last … J_first, newest on the left."""
    out = np.eye(jacobians.shape[-1])
    for t in range(last, first - 1, -1):
        out = out @ jacobians[t]
    return out


def log_norm(matrix, order=None):
    return np.log(np.linalg.norm(matrix, order)) if np.any(matrix) else -np.inf


def compound(matrix, j):
    """All minors of j rows and j columns: its largest singular value is σ_1 … σ_j."""
    sets = list(itertools.combinations(range(len(matrix)), j))
    return np.array([[np.linalg.det(matrix[np.ix_(r, c)]) for c in sets] for r in sets])


def log_singular_values(jacobians):
    """From products of compound matrices, so that no small number is a difference of large ones."""
    logs, N = [0.0], jacobians.shape[-1]
    for j in range(1, N + 1):
        whole, log = np.eye(1), 0.0
        for t, J in enumerate(jacobians[::-1]):
            whole = compound(J, j) if t == 0 else whole @ compound(J, j)
            size = np.linalg.norm(whole, 2)
            whole, log = whole / size, log + np.log(size)
        logs.append(log)
    return np.diff(logs)


@pytest.mark.parametrize("dtype", [jnp.float64, pytest.param(jnp.float32, marks=LONG)])
def test_small_singular_values_are_true(dtype):
    # after 60 steps the condition number is about 1e120
    cell = jaxrnn.GRU(2, 4)
    params, xs = setup(cell, dtype=jnp.float32, steps=60)
    params = params._replace(W_h=3 * params.W_h)
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, xs[0]))
    jacobians = np.asarray(analysis.step_jacobians(cell, *wide))
    params, x = wide if dtype == jnp.float64 else (params, xs[0])
    decay = analysis.gradient_decay(cell, params, x, spectral="none", singular_values=4)
    got = decay.log_singular_values
    for lag in (1, 7, 60):
        expected = log_singular_values(jacobians[60 - lag :])
        atol = lag * (2e-14 if dtype == jnp.float64 else 2e-5)
        np.testing.assert_allclose(got[lag - 1], expected, rtol=0, atol=atol)
    assert expected[0] - expected[-1] > -2 * np.log(jnp.finfo(jnp.float64).eps)
    assert decay.log_singular_values.dtype == dtype
    assert np.all(np.diff(got, axis=1) <= 0)


@pytest.mark.long
def test_singular_values_of_batches_with_lengths_and_resets():
    cell = jaxrnn.Stack((jaxrnn.LSTM(2, 1), jaxrnn.Elman(1, 2)))
    params = cell.init(jax.random.key(0), dtype=jnp.float64)
    xs = jax.random.normal(jax.random.key(1), (B, T, 2), jnp.float64)
    decay = analysis.gradient_decay(cell, params, xs, spectral="none", singular_values=2, **ALL)
    jacobians = np.asarray(analysis.step_jacobians(cell, params, xs, **ALL))
    for b, lag in itertools.product(range(B), range(1, T + 1)):
        n = int(LENGTHS[b])
        got = decay.log_singular_values[b, lag - 1]
        if lag > n or (b == 0 and lag >= 7):
            assert np.all(got == -np.inf)
            continue
        values = np.linalg.svd(product(jacobians[b], n - lag, n - 1), compute_uv=False)
        np.testing.assert_allclose(got, np.log(values[:2]), rtol=0, atol=1e-9)


@LONG
def test_singular_values_of_a_complex_carry():
    # a product of diagonal λ: as real numbers, every |λ|^k twice
    cell = jaxrnn.LRU(2, 3, 2)
    params = cell.init(jax.random.key(0), dtype=jnp.float64)
    jacobian = analysis.step_jacobians(cell, params, jnp.zeros((1, 2)))[0]
    sizes = np.sort(np.repeat(np.abs(np.linalg.eigvals(jacobian)[::2]), 2))[::-1]
    decay = analysis.gradient_decay(
        cell, params, jnp.zeros((5, 2)), spectral="none", singular_values=len(sizes)
    )
    exact = np.arange(1, 6)[:, None] * np.log(sizes)
    np.testing.assert_allclose(decay.log_singular_values, exact, rtol=0, atol=1e-12)


def test_singular_values_after_a_hundred_thousand_steps_in_float32():
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    cell, params = linear(turn @ np.diag([1.01, 0.5]) @ turn.T)
    xs = jnp.zeros((100_000, 1), jnp.float32)
    decay = analysis.gradient_decay(cell, params, xs, spectral="none", singular_values=2)
    # W is symmetric: singular values are powers of its eigenvalues, those of W as float32 holds it
    values = np.linalg.eigvalsh(np.asarray(params.W_h, np.float64))[::-1]
    exact = np.arange(1, 100_001)[:, None] * np.log(values)
    np.testing.assert_allclose(decay.log_singular_values, exact, rtol=1e-5, atol=1e-5)


def test_singular_jacobians_give_minus_infinity():
    cell, params = linear(np.array([[1.0, 2.0], [2.0, 4.0]]), jnp.float64)
    options = dict(spectral="none", singular_values=2)
    decay = analysis.gradient_decay(cell, params, jnp.zeros((5, 1)), **options)
    np.testing.assert_allclose(
        decay.log_singular_values[:, 0], np.arange(1, 6) * np.log(5), rtol=1e-12
    )
    assert np.all(decay.log_singular_values[:, 1] == -np.inf)
    empty = analysis.gradient_decay(cell, params, jnp.zeros((0, 1)), **options)
    assert empty.log_singular_values.shape == (0, 2)
    with pytest.raises(ValueError, match="singular_values must be 0…2, the size of the carry"):
        analysis.gradient_decay(cell, params, jnp.zeros((5, 1)), singular_values=3)


@pytest.mark.parametrize("reverse", [pytest.param(False, marks=LONG), True])
def test_map_of_lags_and_ends(reverse):
    cell = jaxrnn.LSTM(2, 2)
    params, xs = setup(cell)
    options = dict(reverse=reverse, **ALL)
    ends = (8, 0, 5, -2)
    found = gradient_map(cell, params, xs, ends=ends, norm="spectral", **options)
    jacobians = np.asarray(analysis.step_jacobians(cell, params, xs, **options))
    expected = np.full((B, len(ends), T), -np.inf)
    for b, (i, end) in itertools.product(range(B), enumerate(e % T for e in ends)):
        n = int(LENGTHS[b])
        # against the direction of travel, from the end to the first real step
        older = range(end, n) if reverse else range(end, -1, -1)
        matrix = np.eye(4)
        for k, t in enumerate(older if end < n else ()):
            matrix = matrix @ jacobians[b, t]
            expected[b, i, k] = log_norm(matrix, 2)
    np.testing.assert_allclose(found.log_norm, expected, rtol=0, atol=1e-12)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found.count, finite.sum(1))
    for b, k in zip(*np.nonzero(finite.sum(1) > 1), strict=True):
        logs = expected[b, finite[b, :, k], k]
        np.testing.assert_allclose(found.mean[b, k], logs.mean(), rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.spread[b, k], logs.std(ddof=1), rtol=0, atol=1e-12)
    assert np.all(found.mean[finite.sum(1) == 0] == -np.inf) and np.all(np.isfinite(found.spread))


@pytest.mark.long
def test_map_by_number_of_ends_jit_and_vmap():
    cell = jaxrnn.Elman(2, 3)
    params, xs = setup(cell)
    found = gradient_map(cell, params, xs, ends=3)
    np.testing.assert_array_equal(found.ends, [2, 5, 8])
    last = analysis.gradient_decay(cell, params, xs, spectral="none").log_frobenius_norm
    np.testing.assert_allclose(found.log_norm[:, 2], last, rtol=0, atol=1e-12)
    nested = jax.jit(jax.vmap(lambda x: gradient_map(cell, params, x, ends=3)))(xs)
    np.testing.assert_allclose(nested.log_norm, found.log_norm, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="ends holds 9, expected an index of xs, which has 9"):
        gradient_map(cell, params, xs, ends=(0, 9))
    with pytest.raises(ValueError, match="norm must be 'frobenius' or 'spectral'"):
        gradient_map(cell, params, xs, norm="nuclear")
    assert gradient_map(cell, params, xs[:, :0]).log_norm.shape == (B, 0, 0)


@LONG
def test_as_many_probes_as_directions_are_exact():
    cell = jaxrnn.GRU(2, 3)
    params, xs = setup(cell)
    found = gradient_probes(cell, params, xs, jax.random.key(2), probes=3, **ALL)
    decay = analysis.gradient_decay(cell, params, xs, spectral="none", **ALL)
    expected = decay.log_frobenius_norm - np.log(3) / 2
    np.testing.assert_allclose(found.log_norm, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.rate, decay.rate, rtol=0, atol=1e-12)
    assert np.all(found.standard_error == 0)
    with pytest.raises(ValueError, match="probes must be 1…3, the size of the carry, got 4"):
        gradient_probes(cell, params, xs, jax.random.key(2), probes=4)


@LONG
def test_probes_are_as_far_off_as_they_say():
    cell = jaxrnn.Elman(1, 24)
    params = cell.init(jax.random.key(0), dtype=jnp.float64)
    x = jax.random.normal(jax.random.key(1), (6, 1), jnp.float64)
    decay = analysis.gradient_decay(cell, params, x, spectral="none")
    exact = decay.log_frobenius_norm - np.log(24) / 2
    keys = jax.random.split(jax.random.key(3), 400)
    found = jax.vmap(lambda key: gradient_probes(cell, params, x, key, probes=6))(keys)
    off = np.asarray(found.log_norm - exact)
    claimed = np.sqrt(np.mean(np.square(found.standard_error), axis=0))
    ratio = np.sqrt(np.mean(off**2, axis=0)) / claimed
    assert np.all((ratio > 0.8) & (ratio < 1.3)), ratio
    # unbiased in the square: 400 draws of 6
    square = np.mean(np.exp(2 * off), axis=0)
    assert np.all(np.abs(square - 1) < 5 * 2 * claimed / 20), square


@pytest.mark.long
def test_layers_are_the_blocks_of_the_product():
    cell = jaxrnn.Stack((jaxrnn.LSTM(2, 2), jaxrnn.GRU(2, 3), jaxrnn.Elman(3, 2)))
    params = cell.init(jax.random.key(0), dtype=jnp.float64)
    xs = jax.random.normal(jax.random.key(1), (B, T, 2), jnp.float64)
    found = layer_decay(cell, params, xs, **ALL)
    jacobians = np.asarray(analysis.step_jacobians(cell, params, xs, **ALL))
    edges = [0, 4, 7, 9]
    for b, lag in itertools.product(range(B), range(1, T + 1)):
        n = int(LENGTHS[b])
        whole = product(jacobians[b], n - lag, n - 1) if lag <= n else np.zeros((9, 9))
        blocks = np.array(
            [
                [log_norm(c) for c in np.hsplit(r, edges[1:-1])]
                for r in np.vsplit(whole, edges[1:-1])
            ]
        )
        np.testing.assert_allclose(found.log_norm[b, :, :, lag - 1], blocks, rtol=0, atol=1e-11)
        # the output of the top layer, an Elman, is its carry
        np.testing.assert_allclose(
            found.log_output_norm[b, :, lag - 1], blocks[2], rtol=0, atol=1e-11
        )
    with pytest.raises(TypeError, match="layers of a Stack, got GRU: use gradient_decay"):
        layer_decay(cell.layers[1], params[1], xs)


@LONG
def test_layers_that_fade_at_different_rates_do_not_drown_each_other():
    # in float32 after 1000 steps: 0.5^1000 beside 0.9^1000
    (slow, p), (fast, q) = linear([[0.9]]), linear([[0.5]])
    cell, params = jaxrnn.Stack((slow, fast)), (p, q)
    found = layer_decay(cell, params, jnp.zeros((1000, 1), jnp.float32))
    k = np.arange(1, 1001)
    np.testing.assert_allclose(found.log_norm[0, 0], k * np.log(0.9), rtol=1e-6)
    np.testing.assert_allclose(found.log_norm[1, 1], k * np.log(0.5), rtol=1e-6)
    # from below: w Σ_{j=1}^k 0.5^(k−j) 0.9^j
    down = np.log(np.abs(float(q.W_x[0, 0])) * 0.9 * (0.9**k - 0.5**k) / 0.4)
    np.testing.assert_allclose(found.log_norm[1, 0], down, rtol=1e-5)
    assert np.all(found.log_norm[0, 1] == -np.inf)


@pytest.mark.long
def test_inputs_against_jacrev():
    cell = jaxrnn.LSTM(2, 3)
    params, xs = setup(cell)
    found = input_decay(cell, params, xs, **ALL)

    @jax.jit
    @jax.vmap
    def jacobian(x, n, r):
        def last(x):
            carry = jaxrnn.unroll(cell, params, x, lengths=n, resets=r)[0]
            return jaxrnn.flatten_carry(carry)[0]

        return jax.jacrev(last)(x)

    blocks = np.asarray(jacobian(xs, LENGTHS, RESETS))  # (B, N, T, I)
    for b, lag in itertools.product(range(B), range(T)):
        t = int(LENGTHS[b]) - 1 - lag
        block = blocks[b, :, t] if t >= 0 else np.zeros((6, 2))
        got = found.log_frobenius_norm[b, lag], found.log_spectral_norm[b, lag]
        np.testing.assert_allclose(got, [log_norm(block), log_norm(block, 2)], rtol=0, atol=1e-12)
    tokens = jaxrnn.as_cell(_token_step, _token_carry, input_rank=0)
    with pytest.raises(TypeError, match=r"xs holds no floating numbers.*pass embedded tokens"):
        input_decay(tokens, jnp.ones((3, 2)), jnp.array([0, 1]))


def _token_carry(params):
    return jnp.zeros(2, params.dtype)


def _token_step(params, carry, token):
    return carry + params[token], carry


def attention(xs):
    """Everything at distance one: softmax(x x'/√I) x over all steps, those ahead too."""
    scores = xs @ xs.swapaxes(-1, -2) / np.sqrt(xs.shape[-1])
    return jax.nn.softmax(scores) @ xs


def convolution(xs):
    """Two steps back, and no further."""
    padded = jnp.pad(xs, ((0, 0), (2, 0), (0, 0)))
    return sum(w * padded[:, 2 - k : padded.shape[1] - k] for k, w in enumerate((0.5, 2.0, 3.0)))


def test_any_function_on_the_same_axis():
    xs = jax.random.normal(jax.random.key(0), (B, T, 3), jnp.float64)
    found = input_sensitivity(attention, xs, end=3)
    np.testing.assert_array_equal(found.lags, np.arange(-5, 4))
    jacobian = np.asarray(jax.vmap(jax.jacrev(lambda x: attention(x)[3]))(xs))
    for b, (i, lag) in itertools.product(range(B), enumerate(range(-5, 4))):
        block = jacobian[b, :, 3 - lag]
        got = found.log_frobenius_norm[b, i], found.log_spectral_norm[b, i]
        np.testing.assert_allclose(got, [log_norm(block), log_norm(block, 2)], rtol=0, atol=1e-12)
    found = jax.jit(lambda xs: input_sensitivity(convolution, xs))(xs)
    np.testing.assert_allclose(
        found.log_spectral_norm[0, :3], np.log([0.5, 2, 3]), rtol=0, atol=1e-12
    )
    assert np.all(found.log_frobenius_norm[:, 3:] == -np.inf)


@LONG
def test_as_many_probes_as_outputs_are_exact():
    xs = jax.random.normal(jax.random.key(0), (B, T, 3), jnp.float64)
    exact = input_sensitivity(attention, xs, probes=3, probe_key=jax.random.key(1))
    expected = input_sensitivity(attention, xs).log_frobenius_norm
    np.testing.assert_allclose(exact.log_frobenius_norm, expected, rtol=0, atol=1e-12)
    assert exact.log_spectral_norm is None and np.all(exact.standard_error == 0)


def test_a_cell_by_its_function_and_by_its_steps():
    cell = jaxrnn.Elman(2, 3)
    params, xs = setup(cell)
    by_function = input_sensitivity(lambda xs: jaxrnn.unroll(cell, params, xs)[1], xs)
    by_steps = input_decay(cell, params, xs)
    np.testing.assert_array_equal(by_function.lags, by_steps.lags)
    for field in ("log_frobenius_norm", "log_spectral_norm"):
        np.testing.assert_allclose(
            getattr(by_function, field), getattr(by_steps, field), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("factor", [0.5, pytest.param(2.0, marks=LONG)])
def test_sensitivity_sees_further_than_float32_reaches(factor):
    cell, params = linear([[factor]])
    xs = jnp.ones((230, 1), jnp.float32)
    found = input_sensitivity(
        lambda xs: jaxrnn.unroll(cell, params, 0 * xs + xs)[0].h, xs, end=None
    )
    exact = np.arange(230) * np.log(factor) + np.log(abs(float(params.W_x[0, 0])))
    seen = exact > float(found.log_floor) + 1e-3
    np.testing.assert_allclose(found.log_frobenius_norm[seen], exact[seen], rtol=1e-6)
    assert np.all(found.log_frobenius_norm[~seen] == -np.inf)
    # a plain jacrev in float32 is zero, or infinite, from lag 128 on
    assert seen.sum() > 195
    by_steps = input_decay(cell, params, xs)
    np.testing.assert_allclose(by_steps.log_spectral_norm, exact, rtol=1e-6)
    assert by_steps.log_floor == -np.inf


def test_sensitivity_says_what_is_wrong():
    xs = jnp.ones((2, 5, 3))
    with pytest.raises(ValueError, match="pass end=None if it has no time axis"):
        input_sensitivity(lambda xs: xs.sum(1), xs)
    assert input_sensitivity(lambda xs: xs.sum(1), xs, end=None).log_frobenius_norm.shape == (2, 5)
    with pytest.raises(ValueError, match="end is 5, expected an index of ys, which has 5 steps"):
        input_sensitivity(lambda xs: xs, xs, end=5)
    with pytest.raises(ValueError, match=r"probes must be 1…3.*come with a probe_key"):
        input_sensitivity(lambda xs: xs, xs, probes=2)
    with pytest.raises(ValueError, match="pass embedded tokens, not tokens"):
        input_sensitivity(lambda xs: xs, jnp.ones((5, 3), jnp.int32))
    dead = input_sensitivity(lambda xs: 0 * xs, xs)
    assert np.all(dead.log_frobenius_norm == -np.inf) and np.all(dead.log_spectral_norm == -np.inf)
    broken = input_sensitivity(lambda xs: jnp.sqrt(xs - xs), xs)
    assert np.all(np.isnan(broken.log_frobenius_norm[:, 0]))


def test_figures_show_what_the_records_hold():
    lags = jnp.arange(1, T + 1, dtype=jnp.int32)
    # two rows, the second of which ends early
    logs = -jnp.stack([lags, 2 * lags]).astype(float).at[1, 6:].set(jnp.inf)
    nothing = jnp.zeros(B)
    values = jnp.stack([logs, 3 * logs], axis=-1)
    decay = analysis.GradientDecay(
        *(lags, None, logs, None, nothing, nothing, nothing, nothing, None, None, values)
    )
    axes = plot.singular_values(decay)
    np.testing.assert_allclose(axes.lines[1].get_ydata()[1], -4.5 / np.log(10))  # median of −3, −6
    assert {"σ₁", "σ₂"} <= {text.get_text() for text in axes.texts}
    ends = jnp.array([8, 2])
    found = GradientMap(
        ends, lags, jnp.stack([logs, logs], 1), logs, 0 * logs, jnp.ones((B, T), jnp.int32)
    )
    axes = plot.gradient_map(found)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["2", "8"]
    assert axes.collections[0].get_array().shape == (2, T)
    probes = GradientProbes(lags, logs, 0.1 + 0 * logs, nothing, nothing)
    assert len(plot.gradient_probes(probes).lines) == 1
    blocks = jnp.full((B, 2, 2, T), -jnp.inf).at[:, 1, 0].set(logs).at[:, 0, 0].set(logs)
    axes = plot.layer_decay(LayerDecay(lags, blocks, blocks[:, 1], logs[:, :2], logs[:, :2]))
    names = {text.get_text() for text in axes.texts}
    assert "layer 0" in names and "layer 1" not in names  # nothing there
    found = InputSensitivity(lags - 1, logs, None, 0 * logs, nothing)
    axes = plot.input_sensitivity(found, label="a")
    axes = plot.input_sensitivity(found, axes, "b", "#000000")
    assert len(axes.lines) == 2 and axes.get_legend() is not None
