"""The microscope against NumPy products, closed forms and `jax.jacrev` of the whole unroll."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import analysis
from jaxrnn.analysis.scaled import top_singular_value

CELLS = {
    "Elman": jaxrnn.Elman(3, 4),
    "LSTM": jaxrnn.LSTM(3, 4),
    "GRU": jaxrnn.GRU(3, 4),
    "GRU after old": jaxrnn.GRU(3, 4, reset="after", update_weighs="old", biases=2),
    "Stack": jaxrnn.Stack((jaxrnn.LSTM(3, 2), jaxrnn.GRU(2, 3))),
}
B, T = 3, 11
LENGTHS = jnp.array([11, 0, 7])
RESETS = jnp.zeros((B, T), bool).at[0, 8].set(True).at[2, 3].set(True)
OPTIONS = {
    "plain": {},
    "lengths": {"lengths": LENGTHS},
    "resets": {"resets": RESETS},
    "reverse": {"reverse": True},
    "all": {"lengths": LENGTHS, "resets": RESETS, "reverse": True},
}


def setup(cell, seed=0, dtype=jnp.float64, scale=1.0):
    params = cell.init(jax.random.key(seed), dtype=dtype)
    xs = scale * jax.random.normal(jax.random.key(seed + 1), (B, T, cell.input_size), dtype)
    return params, xs


def products(jacobians, lengths, reverse):
    """∂carry_T/∂carry_{T−k} for k = 1, 2, …, newest on the left, with a plain NumPy loop."""
    rows = []
    for row, length in zip(np.asarray(jacobians), np.asarray(lengths), strict=True):
        order = range(length) if reverse else reversed(range(length))
        product, found = np.eye(row.shape[-1]), []
        for t in order:
            product = product @ row[t]
            found.append(product)
        rows.append(found)
    return rows


def log_norm(matrix):
    return np.log(np.linalg.norm(matrix, 2)) if matrix.any() else -np.inf


# all options together for every cell, each alone for one, in the long run: compiling is what costs
@pytest.mark.parametrize(
    "name, option",
    [pytest.param(cell, "all", marks=() if cell == "LSTM" else pytest.mark.long) for cell in CELLS]
    + [pytest.param("LSTM", o, marks=pytest.mark.long) for o in OPTIONS if o != "all"],
)
def test_decay_is_the_norm_of_the_ordered_product(name, option):
    cell, options = CELLS[name], OPTIONS[option]
    params, xs = setup(cell)
    lengths = options.get("lengths", jnp.full(B, T))
    jacobians = analysis.step_jacobians(cell, params, xs, **options)
    decay = analysis.gradient_decay(cell, params, xs, **options)
    expected = np.full((B, T), -np.inf)
    frobenius = np.full((B, T), -np.inf)
    for b, row in enumerate(products(jacobians, lengths, options.get("reverse", False))):
        for k, product in enumerate(row):
            expected[b, k] = log_norm(product)
            if product.any():
                frobenius[b, k] = np.log(np.linalg.norm(product))
    np.testing.assert_allclose(decay.log_spectral_norm, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(decay.log_frobenius_norm, frobenius, rtol=0, atol=1e-12)
    iterative = analysis.gradient_decay(cell, params, xs, spectral="iterative", **options)
    finite = np.isfinite(expected)
    error = np.abs(np.asarray(iterative.log_spectral_norm) - np.where(finite, expected, 0))
    # a float's rounding on top: the residual itself is exact only to that
    assert np.all(error[finite] <= np.asarray(iterative.spectral_residual)[finite] + 1e-12)
    np.testing.assert_array_equal(np.isfinite(iterative.log_spectral_norm), finite)


@pytest.mark.parametrize("name", CELLS)
def test_product_of_step_jacobians_is_jacrev_of_the_unroll(name):
    cell = CELLS[name]
    params, xs = setup(cell)
    jacobians = analysis.step_jacobians(cell, params, xs)
    start, unflatten = jaxrnn.flatten_carry(cell.initial_carry(params))

    @jax.jit
    @jax.vmap
    def whole(x):
        def run(flat):
            return jaxrnn.flatten_carry(jaxrnn.unroll(cell, params, x, carry=unflatten(flat))[0])[0]

        return jax.jacrev(run)(start)

    for matrix, row in zip(whole(xs), products(jacobians, [T] * B, False), strict=True):
        np.testing.assert_allclose(matrix, row[-1], rtol=0, atol=1e-14)


def test_the_wrong_order_has_nearly_the_same_norm_and_points_elsewhere():
    # a test of norms alone would let the wrong product pass
    cell = jaxrnn.Elman(64, 64)
    params = cell.init(jax.random.key(0), dtype=jnp.float64)
    xs = jax.random.normal(jax.random.key(1), (50, 64), jnp.float64)
    jacobians = np.asarray(analysis.step_jacobians(cell, params, xs))
    right = np.linalg.multi_dot(jacobians[::-1])
    wrong = np.linalg.multi_dot(jacobians)
    decay = analysis.gradient_decay(cell, params, xs)
    np.testing.assert_allclose(decay.log_frobenius_norm[-1], np.log(np.linalg.norm(right)), 1e-12)
    assert abs(np.log(np.linalg.norm(right) / np.linalg.norm(wrong))) / 50 < 0.01
    assert np.linalg.norm(right - wrong) > 0.5 * np.linalg.norm(right)


@pytest.mark.long
def test_lstm_curves_under_their_names():
    cell = CELLS["LSTM"]
    H = cell.hidden_size
    params, xs = setup(cell)
    curves = analysis.gradient_decay(cell, params, xs).curves
    jacobians = np.asarray(analysis.step_jacobians(cell, params, xs))
    joint = products(jacobians, [T] * B, False)
    frozen = products(jacobians[..., :H, :H], [T] * B, False)
    carries, _ = jaxrnn.trajectory(cell, params, xs)
    for b in range(B):
        before = jax.tree.map(lambda a, b=b: jnp.pad(a[b], ((1, 0), (0, 0)))[:-1], carries)
        forget = np.asarray(jax.vmap(cell.gates, (None, 0, 0))(params, before, xs[b]).forget)
        for k in range(T):
            checks = {
                "joint": log_norm(joint[b][k]),
                "hidden_block": log_norm(joint[b][k][:H, :H]),
                "product_of_hidden_blocks": log_norm(frozen[b][k]),
                "direct_path": np.log(np.max(np.prod(forget[T - 1 - k :], axis=0))),
            }
            for curve, value in checks.items():
                np.testing.assert_allclose(getattr(curves, curve)[b, k], value, atol=1e-12)


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("spectral", ["exact", "iterative"])
def test_ten_thousand_steps_in_float32(factor, spectral):
    # ±6931 nats: forty times beyond what a float32 can hold
    cell = jaxrnn.Elman(1, 2, activation="identity", biases=0)
    params = cell.init(jax.random.key(0))._replace(W_h=factor * jnp.eye(2, dtype=jnp.float32))
    xs = jnp.zeros((10_000, 1), jnp.float32)
    decay = analysis.gradient_decay(cell, params, xs, spectral=spectral)
    exact = np.arange(1, 10_001) * np.log(factor)
    assert np.max(np.abs(np.asarray(decay.log_spectral_norm, np.float64) - exact)) <= 1e-3
    np.testing.assert_allclose(decay.rate, np.log(factor), rtol=1e-6)
    assert decay.half_life == (np.inf if factor > 1 else pytest.approx(1.0))
    assert decay.horizon == (np.inf if factor > 1 else 20)


def test_ten_thousand_dense_steps_in_float32_agree_with_float64():
    cell = jaxrnn.Elman(2, 8)
    params = cell.init(jax.random.key(3), dtype=jnp.float32)
    xs = jax.random.normal(jax.random.key(4), (10_000, 2), jnp.float32)
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), (params, xs))
    jacobians = np.asarray(analysis.step_jacobians(cell, *wide))
    product, log_scale, exact = np.eye(8), 0.0, []
    for J in jacobians[::-1]:
        product = product @ J
        size = np.linalg.norm(product, 2)
        product, log_scale = product / size, log_scale + np.log(size)
        exact.append(log_scale)
    decay = analysis.gradient_decay(cell, params, xs)
    assert exact[-1] < -5000
    assert np.max(np.abs(np.asarray(decay.log_spectral_norm) - exact)) <= 1e-3


@pytest.mark.long
def test_decay_of_a_batch_is_the_loop_over_its_rows():
    cell = CELLS["GRU"]
    params, xs = setup(cell)
    together = analysis.gradient_decay(cell, params, xs, lengths=LENGTHS, resets=RESETS)
    nested = jax.jit(
        jax.vmap(
            lambda x, n, r: analysis.gradient_decay(
                cell, params, x[None], lengths=n[None], resets=r[None]
            )
        )
    )(xs, LENGTHS, RESETS)
    for b in range(B):
        alone = analysis.gradient_decay(cell, params, xs[b], lengths=LENGTHS[b], resets=RESETS[b])
        for field in ("log_spectral_norm", "mean_log_step_norm", "rate", "half_life", "horizon"):
            np.testing.assert_allclose(
                getattr(together, field)[b], getattr(alone, field), rtol=1e-9, err_msg=field
            )
            np.testing.assert_allclose(
                getattr(nested, field)[b, 0], getattr(alone, field), rtol=1e-9, err_msg=field
            )


@pytest.mark.long
def test_mean_log_step_norm_leaves_out_padding_and_resets():
    cell = CELLS["Elman"]
    params, xs = setup(cell)
    jacobians = np.asarray(analysis.step_jacobians(cell, params, xs))
    decay = analysis.gradient_decay(cell, params, xs, lengths=LENGTHS)
    logs = np.log(np.linalg.norm(jacobians, 2, axis=(-2, -1)))
    np.testing.assert_allclose(decay.mean_log_step_norm[0], logs[0].mean(), rtol=1e-12)
    np.testing.assert_allclose(decay.mean_log_step_norm[2], logs[2, :7].mean(), rtol=1e-12)
    assert decay.mean_log_step_norm[1] == -np.inf
    reset = analysis.gradient_decay(cell, params, xs, resets=RESETS)
    assert np.all(np.isfinite(reset.mean_log_step_norm))


def test_dead_relu_and_no_steps_give_minus_infinity_never_nan():
    cell = jaxrnn.Elman(3, 4, activation="relu")
    params, xs = setup(cell)
    params = params._replace(b=jnp.full(4, -1e3))
    dead = analysis.gradient_decay(cell, params, xs)
    for spectral in ("exact", "iterative", "none"):
        for record in (dead, analysis.gradient_decay(cell, params, xs[:, :0], spectral=spectral)):
            for leaf in jax.tree.leaves(record):
                assert not np.any(np.isnan(leaf))
            assert np.all(record.rate == -np.inf)
    assert np.all(dead.log_spectral_norm == -np.inf)


def test_rate_is_the_slope_over_the_last_nine_tenths():
    lags = jnp.arange(1, 101)
    curve = jnp.where(lags < 10, 50.0, 3.0 - 0.25 * lags.astype(float))  # the head must not count
    rate, r_squared = analysis.decay_rate(curve, lags)
    np.testing.assert_allclose([rate, r_squared], [-0.25, 1.0], rtol=1e-12)
    np.testing.assert_allclose(analysis.half_life(rate), np.log(2) / 0.25)
    noisy = curve + jnp.asarray(np.random.default_rng(0).normal(size=100))
    rate, r_squared = analysis.decay_rate(noisy, lags)
    slope, _ = np.polyfit(np.arange(10, 101), np.asarray(noisy)[9:], 1)
    correlation = np.corrcoef(np.arange(10, 101), np.asarray(noisy)[9:])[0, 1]
    np.testing.assert_allclose([rate, r_squared], [slope, correlation**2], rtol=1e-9)
    one = jnp.full(100, -jnp.inf).at[50].set(0.0)
    assert analysis.decay_rate(one, lags)[0] == -np.inf


@pytest.mark.parametrize(
    "name, option",
    [pytest.param("Elman", o, marks=pytest.mark.long) for o in OPTIONS]
    + [("LSTM", "all"), pytest.param("Stack", "all", marks=pytest.mark.long)],
)
def test_loss_gradients_equal_jax_grad(name, option):
    cell, options = CELLS[name], OPTIONS[option]
    params, xs = setup(cell)
    target = jax.random.normal(jax.random.key(9), (B, cell.output_size), jnp.float64)

    def loss(ys, row):
        return jnp.sum(ys[-1] * row) + jnp.sum(ys[3] ** 2)

    got = analysis.loss_gradient_decay(cell, params, xs, loss, loss_data=target, **options)

    def total(xs):
        return jnp.sum(jax.vmap(loss)(jaxrnn.unroll(cell, params, xs, **options)[1], target))

    norms = np.linalg.norm(jax.grad(total)(xs), axis=-1)
    expected = np.log(norms, where=norms > 0, out=np.full(norms.shape, -np.inf))
    np.testing.assert_allclose(got.log_norm_x, expected, rtol=0, atol=1e-12)


@pytest.mark.long
def test_loss_gradient_of_the_carry_is_that_of_a_restart_there():
    cell = CELLS["LSTM"]
    params, xs = setup(cell)
    x = xs[0]

    def loss(ys):
        return jnp.sum(jnp.sin(ys[-1])) + jnp.sum(ys[5] ** 3)

    got = analysis.loss_gradient_decay(cell, params, x, loss)
    carries, ys = jaxrnn.trajectory(cell, params, x)
    for t in (1, 5, 6, T - 1):
        before = jax.tree.map(lambda a, t=t: a[t - 1], carries)

        def rest(carry, t=t):
            later = jaxrnn.unroll(cell, params, x[t:], carry=carry)[1]
            return loss(jnp.concatenate([ys[:t], later]))

        flat, _ = jaxrnn.flatten_carry(jax.grad(rest)(before))
        np.testing.assert_allclose(
            got.log_norm_carry[t], np.log(np.linalg.norm(flat)), rtol=0, atol=1e-12
        )


def test_loss_gradients_do_not_underflow():
    cell = jaxrnn.Elman(1, 1, activation="identity", biases=0)
    params = cell.init(jax.random.key(0), dtype=jnp.float32)
    params = params._replace(W_h=jnp.full((1, 1), 0.5, jnp.float32))
    xs = jnp.ones((2000, 1), jnp.float32)
    got = analysis.loss_gradient_decay(cell, params, xs, lambda ys: 1e-30 * ys[-1, 0])
    steps_back = np.arange(2000)[::-1]
    expected = np.log(1e-30) + steps_back * np.log(0.5)
    np.testing.assert_allclose(got.log_norm_carry, expected + np.log(0.5), rtol=1e-6)
    size = np.log(abs(float(params.W_x[0, 0])))
    np.testing.assert_allclose(got.log_norm_x, expected + size, rtol=1e-6)


def test_integer_inputs_have_no_gradient():
    params = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)
    cell = jaxrnn.as_cell(_token_step, _token_carry, input_rank=0)
    got = analysis.loss_gradient_decay(cell, params, jnp.array([0, 3, 1]), lambda ys: ys[-1].sum())
    assert got.log_norm_x is None
    assert np.all(np.isfinite(got.log_norm_carry))


def _token_carry(params):
    return jnp.zeros(3, params.dtype)


def _token_step(params, carry, token):
    h = jnp.tanh(0.5 * carry + params[token])
    return h, h


@pytest.mark.parametrize(
    "size", [1, 5, *(pytest.param(n, marks=pytest.mark.long) for n in (64, 128))]
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_top_singular_value_to_rounding(size, dtype):
    draw = np.random.default_rng(size)
    dense = draw.normal(size=(4, size, size)) / np.sqrt(size)
    orthogonal = np.linalg.qr(dense)[0]  # all singular values equal: the hardest case
    for matrix in (dense, dense @ dense[0] @ dense[1], orthogonal, 0 * dense):
        matrix = matrix.astype(dtype)
        with jax.default_matmul_precision("highest"):
            got = jax.jit(jax.vmap(top_singular_value))(matrix)
        expected = np.linalg.norm(matrix.astype(np.float64), 2, axis=(-2, -1))
        np.testing.assert_allclose(got, expected, rtol=16 * jnp.finfo(dtype).eps)


def test_analyses_say_what_is_wrong():
    cell = CELLS["GRU"]
    params, xs = setup(cell)
    both = jaxrnn.Bidirectional(cell)
    with pytest.raises(TypeError, match="no single direction of time"):
        analysis.gradient_decay(both, both.init(jax.random.key(0), dtype=jnp.float64), xs)
    with pytest.raises(ValueError, match="spectral must be 'exact', 'iterative' or 'none'"):
        analysis.gradient_decay(cell, params, xs, spectral="svd")
    with pytest.raises(ValueError, match="threshold must be positive, got 0"):
        analysis.gradient_decay(cell, params, xs, threshold=0.0)
    with pytest.raises(ValueError, match="lengths holds 12, expected 0…11"):
        analysis.gradient_decay(cell, params, xs, lengths=jnp.array([1, 12, 2]))
