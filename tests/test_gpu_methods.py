"""`Kernel` and `CuDNN` on a machine without a GPU.

The kernel is interpreted, and its program for a GPU written down without being run. In cuDNN's
place stands `jax.experimental.rnn.lstm_ref`, which says what cuDNN computes, and in which layout.
"""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn
from oracle import assert_close, assert_same, see, seen_by_hand, situation
from rows import problem

import jaxrnn
from jaxrnn import GRU, LSTM, CuDNN, Elman, Kernel, Loop, Staged, trajectory, unroll
from jaxrnn.cell import staged_step
from jaxrnn.methods import cudnn

B, T = 4, 5
LENGTHS = [0, 1, 3, 5]
RESETS = np.array([[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 0, 1]], bool)


def against_the_loop(cell, method, given, reverse, dtype, rounding):
    """Compares values and gradients with backpropagation in plain Python, in float64."""
    at = problem(cell, (B, T), dtype=dtype)
    options = dict(lengths=given.lengths, reverse=reverse, method=method)
    options |= dict(resets=given.resets) if given.resets.any() else {}

    @jax.jit
    def run(*at):
        return see(lambda p, xs, c: unroll(cell, p, xs, carry=c, **options), *at)

    got = run(*at)
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(dtype)}
    assert_close(widen(got), seen_by_hand(cell, *widen(at), given, reverse), rounding)


def widen(tree):
    return jax.tree.map(lambda a: a.astype(jnp.float64), tree)


# ---- Kernel


@pytest.mark.parametrize(
    ("cell", "reverse", "dtype", "rounding"),
    [
        pytest.param(
            *(Elman(3, 4, "relu", learned_carry=True), False, jnp.float64, 1e-12),
            id="elman",
            marks=pytest.mark.long,
        ),
        pytest.param(LSTM(3, 4, biases=2), True, jnp.float64, 1e-12, id="lstm"),
        pytest.param(GRU(3, 4), False, jnp.float64, 1e-12, id="gru-two-stages"),
        pytest.param(
            *(GRU(3, 4, reset="after", learned_carry=True), True, jnp.float32, 1e-5),
            id="gru-after-float32",
            marks=pytest.mark.long,
        ),
    ],
)
def test_the_kernel_equals_the_python_loop(cell, reverse, dtype, rounding):
    against_the_loop(cell, Kernel(), situation(LENGTHS, RESETS), reverse, dtype, rounding)


def test_every_derivative_goes_through_the_kernel():
    cell = GRU(3, 2)
    params, xs, carry = problem(cell, (2,))
    direction = problem(cell, (2,), seed=9).params

    def derivatives(method, params, xs):
        def number(params):
            after, ys = unroll(cell, params, xs, carry=carry, method=method)
            return jnp.sum(jnp.sin(after.h)) * jnp.sum(ys**2)

        return jax.jvp(jax.value_and_grad(number), (params,), (direction,))

    together = jax.jit(jax.vmap(functools.partial(derivatives, Kernel()), (None, 0)))
    want = jax.jit(functools.partial(derivatives, Loop()))(params, xs)
    assert_close(jax.tree.map(lambda a: a[0], together(params, xs[None])), want)


def launches(function, *arguments):
    """How often the kernel is launched, and how many loops there are, the kernel's own too."""
    text = str(jax.make_jaxpr(function)(*arguments))
    return text.count("pallas_call["), text.count("scan[")


def test_a_batch_is_one_launch_however_it_is_nested():
    cell = LSTM(3, 4)
    params, xs, _ = problem(cell, (2, 3, 4, T))
    run = jax.vmap(lambda xs: unroll(cell, params, xs, method=Kernel()))
    assert launches(run, xs) == (1, 1)
    got = jax.jit(run)(xs)  # 24 rows: two blocks, one of them not full
    assert_close(got, unroll(cell, params, xs, method=Staged()))
    assert run(xs[:, :, :0])[1].shape == (2, 3, 0, T, 4)
    # one launch forwards for the gradient too; the linear recurrence is scanned back
    assert launches(jax.grad(lambda xs: jnp.sum(run(xs)[1])), xs) == (1, 2)


def test_an_ensemble_of_params_goes_through_the_kernel():
    cell = GRU(3, 4)
    problems = [problem(cell, (2, T), seed) for seed in range(3)]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(p.params for p in problems))
    run = jax.vmap(lambda p, method: unroll(cell, p, problems[0].xs, method=method), (0, None))
    assert_close(run(params, Kernel()), run(params, Staged()))


@dataclasses.dataclass(frozen=True)
class Holding:
    """A staged cell whose element-wise part holds an array."""

    def initial_carry(self, params):
        return jnp.zeros(4, params.W_h.dtype)

    def stages(self, params):
        return Elman(3, 4).stages(params)

    def elementwise(self, carry, from_x, of_h):
        (a,) = of_h(carry, plus=from_x)
        carry = jnp.tanh(a) * np.arange(4.0)
        return carry, carry

    def step(self, params, carry, x):
        return staged_step(self, params, carry, x)


@pytest.mark.parametrize(
    ("cell", "steps"),
    [(Elman(3, 4), 0), (Holding(), 3), (jaxrnn.as_cell(lambda p, c, x: (c + x, c), jnp.copy), 3)],
    ids=["no-steps", "an-array-of-its-own", "no-stages"],
)
def test_the_kernel_gives_way(cell, steps):
    params = jnp.ones(3) if not hasattr(cell, "stages") else problem(Elman(3, 4), (1,)).params
    xs = jnp.ones((2, steps, 3))
    run = functools.partial(unroll, cell, params, xs)
    assert launches(lambda: run(method=Kernel()))[0] == 0
    assert_same(run(method=Kernel()), run(method=Staged()))


@pytest.mark.parametrize(
    ("cell", "dtype", "served"),
    [
        (Elman(3, 16, jnp.sin), jnp.float32, True),
        (Elman(3, 16, "relu", biases=2), jnp.float32, True),
        (LSTM(3, 16), jnp.float32, True),  # matrices in registers
        (LSTM(5, 128), jnp.float32, True),  # read anew for every step
        (GRU(3, 32), jnp.float32, True),
        (GRU(3, 32, reset="after"), jnp.float32, True),
        (LSTM(3, 512), jnp.float32, False),
        (LSTM(3, 24), jnp.float32, False),
        (LSTM(3, 8), jnp.float32, False),
        (LSTM(3, 16), jnp.float64, False),
    ],
)
def test_the_program_for_a_gpu_has_one_kernel_and_no_loop(cell, dtype, served):
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), dtype=dtype))
    xs = jax.ShapeDtypeStruct((33, 7, cell.input_size), dtype)
    lengths = jax.ShapeDtypeStruct((33,), jnp.int32)
    resets = jax.ShapeDtypeStruct((33, 7), jnp.bool_)

    @jax.jit
    def run(params, xs, lengths, resets):
        options = dict(lengths=lengths, resets=resets, reverse=True)
        return unroll(cell, params, xs, method=Kernel(interpret=False), **options)

    call = "__gpu$xla.gpu.triton"
    checks = [jax.export.DisabledSafetyCheck.custom_call(call)]
    export = jax.export.export(run, platforms=["cuda"], disabled_checks=checks)
    text = export(params, xs, lengths, resets).mlir_module()
    assert (text.count(f"@{call}("), text.count("stablehlo.while")) == (
        (1, 0) if served else (0, 1)
    )
    assert ("grid_x = 3" in text) == served  # blocks of 16 rows


# ---- CuDNN


def reference(x, h, c, weights, lengths, *, precision, **sizes):
    layout = {k: v for k, v in sizes.items() if k != "dropout"}
    return rnn.lstm_ref(x, h, c, *rnn.unpack_lstm_weights(weights, **layout), lengths, **sizes)


def reference_fwd(x, h, c, weights, lengths, **options):
    out = reference(x, h, c, weights, lengths, **options)
    # in the place of what cuDNN keeps: x, without which there is no going back
    return out, (jnp.zeros_like(x), h, c, weights, lengths, out[0], x.reshape(-1))


def reference_bwd(*, residuals, gradients, **options):
    x, h, c, weights, lengths, _, kept = residuals
    forward = functools.partial(reference, lengths=lengths, **options)
    _, pull = jax.vjp(forward, kept.reshape(x.shape), h, c, weights)
    return (*pull(gradients), np.zeros(lengths.shape, jax.dtypes.float0))


# another method than CuDNN(), so that nothing compiled with the reference outlives a test
PRETENDED = CuDNN(precision="high")


@pytest.fixture
def pretend(monkeypatch):
    monkeypatch.setattr(cudnn, "_has_cudnn", lambda: True)
    monkeypatch.setattr(cudnn, "_lstm_fwd", reference_fwd)
    monkeypatch.setattr(cudnn, "_lstm_bwd", reference_bwd)


@pytest.mark.parametrize(
    ("biases", "reverse"),
    [(1, True), *(pytest.param(b, False, marks=pytest.mark.long) for b in (0, 2))],
)
def test_cudnn_equals_the_python_loop(biases, reverse, pretend):
    given = situation(LENGTHS, np.zeros((B, T)))
    against_the_loop(LSTM(3, 4, biases=biases), PRETENDED, given, reverse, jnp.float32, 1e-5)


def calls(function, *arguments):
    """How often cuDNN is called forwards and backwards, and whether within a loop."""
    text = str(jax.make_jaxpr(function)(*arguments))
    return text.count("cudnn_lstm["), text.count("cudnn_lstm_backward["), "scan[" in text


LEARNED = LSTM(3, 2, learned_carry=True)


def number(params, xs, method):
    """A number made of all that an unroll without lengths gives."""
    carry, ys = unroll(LEARNED, params, xs, reverse=True, method=method)
    return jnp.sum(jnp.sin(carry.h)) + jnp.sum(carry.c**2) + jnp.sum(jnp.cos(ys))


def test_a_batch_is_one_call_of_cudnn_however_it_is_nested(pretend):
    params, xs, _ = problem(LEARNED, (2, 2, 2, 2), dtype=jnp.float32)

    def loss(method, params, xs):
        return jnp.sum(jax.vmap(lambda xs: number(params, xs, method))(xs))

    gradient = jax.grad(functools.partial(loss, PRETENDED), (0, 1))
    assert calls(functools.partial(loss, PRETENDED), params, xs) == (1, 0, False)
    assert calls(gradient, params, xs) == (1, 1, False)
    want = jax.grad(functools.partial(loss, Loop()), (0, 1))
    assert_close(jax.jit(gradient)(params, xs), jax.jit(want)(params, xs), 1e-5)


@pytest.mark.long
def test_gradients_of_each_row_and_params_of_each_row(pretend):
    params, xs, _ = problem(LEARNED, (2, 2, 2), dtype=jnp.float32)
    ensemble = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), params)

    def all_three(method):
        gradient = jax.grad(functools.partial(number, method=method), (0, 1))
        each = jax.vmap(gradient, (None, 0))
        return (
            each(params, xs),
            jax.vmap(gradient)(ensemble, xs),
            jax.jacrev(lambda xs: unroll(LEARNED, params, xs, method=method))(xs[0, 0]),
        )

    got, want = (jax.jit(functools.partial(all_three, m))() for m in (PRETENDED, Loop()))
    assert_close(got, want, 1e-5)


def test_cudnn_has_no_derivative_but_the_first_in_reverse(pretend):
    params, xs, _ = problem(LEARNED, (2, 3), dtype=jnp.float32)

    def f(xs):
        return number(params, xs, PRETENDED)

    sentence = r"CuDNN\(\) has nothing but first derivatives in reverse mode: .* use Staged\(\)"
    for wrong in (
        lambda: jax.jvp(f, (xs,), (xs,)),
        lambda: jax.jvp(jax.grad(f), (xs,), (xs,)),
        lambda: jax.grad(lambda xs: jnp.sum(jax.grad(f)(xs)))(xs),
    ):
        with pytest.raises(NotImplementedError, match=sentence):
            wrong()


def test_jax_takes_what_cudnn_is_given(monkeypatch):
    # JAX's own two functions, up to the library that is not here
    sizes = types.SimpleNamespace(compute_rnn_workspace_reserve_space_sizes=lambda *_: (0, 77))
    monkeypatch.setattr(rnn, "gpu_rnn", sizes)
    how = cudnn._How("highest")
    shapes = ((2, 5, 3), (2, 4), (2, 4), (4 * 4 * (3 + 4 + 2),))
    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    given.append(jax.ShapeDtypeStruct((2,), jnp.int32))
    ys, h, c, kept = jax.eval_shape(functools.partial(cudnn._forward, how=how), *given)
    assert (ys.shape, h.shape, c.shape, kept.shape) == ((2, 5, 4), (2, 4), (2, 4), (77,))
    back = functools.partial(cudnn._backward, how=how)
    gradients = jax.eval_shape(back, ys, h, c, *given, ys, kept)
    assert [g.shape for g in gradients] == list(shapes)
    text = str(jax.make_jaxpr(functools.partial(cudnn._forward, how=how))(*given))
    assert "cudnn_allow_tf32=False" in text


def test_without_an_nvidia_gpu_cudnn_gives_way():
    cell = LSTM(3, 4)
    params, xs, carry = problem(cell, (2, T), dtype=jnp.float32)
    options = dict(carry=carry, lengths=[2, 5], reverse=True)
    got = unroll(cell, params, xs, method=CuDNN(), **options)
    assert_same(got, unroll(cell, params, xs, method=Staged(), **options))


def test_what_cudnn_cannot_do_is_said():
    params, xs, _ = problem(LSTM(3, 4), (2, T), dtype=jnp.float32)
    run = functools.partial(unroll, LSTM(3, 4), params, xs, method=CuDNN())
    with pytest.raises(ValueError, match=r"cannot begin anew .*: for resets use Staged\(\)"):
        run(resets=np.zeros((2, T), bool))
    with pytest.raises(ValueError, match=r"after the last step only: for every carry use Staged"):
        trajectory(LSTM(3, 4), params, xs, method=CuDNN())
    with pytest.raises(TypeError, match=r"computes in float32, got params of dtype float64: conv"):
        run = functools.partial(unroll, LSTM(3, 4), widen(params), widen(xs))
        run(method=CuDNN())
    params, xs, _ = problem(GRU(3, 4), (2, T), dtype=jnp.float32)
    with pytest.raises(TypeError, match=r"CuDNN\(\) serves LSTM, got GRU: use Staged\(\)"):
        unroll(GRU(3, 4), params, xs, method=CuDNN())
    with pytest.raises(ValueError, match=r"must be None, 'high' or 'highest', got 'low'"):
        CuDNN(precision="low")
