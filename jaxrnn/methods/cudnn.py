"""NVIDIA's own LSTM, to which `jax.experimental.rnn` gives access.

That function takes a whole batch, `(B, T, I)`, and has no rule for `vmap`, while a method sees one
sequence. So it stands here behind three primitives with rules of their own: `forward_p`; its
tangent, which is never computed but says what is linear in what; and `backward_p`, the tangent's
transpose. A batch then goes to cuDNN in one call forwards and in one call backwards, whose weight
gradients are those of the batch, already summed: what a `custom_vjp` under `vmap` cannot have.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.experimental import rnn
from jax.extend.backend import get_backend
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, PyTree

from jaxrnn.cells import LSTM, LSTMCarry, LSTMParams
from jaxrnn.methods.lowered import Moment
from jaxrnn.methods.staged import Staged

# what a test puts JAX's own reference in the place of
_lstm_fwd, _lstm_bwd = rnn.lstm_fwd, rnn.lstm_bwd

_PRECISIONS = (None, "high", "highest")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class CuDNN:
    """The LSTM of NVIDIA's cuDNN: one call for all steps of a batch. Unmeasured.

    Serves `LSTM` in float32, with any number of biases, a carry passed in or learned, lengths,
    either direction and any batch axes that are not empty. What it does not have is an error, on
    every machine alike: other cells, other dtypes, `resets`, and `jaxrnn.trajectory`, because
    cuDNN returns c after the last step only. There is no forward mode and no second derivative.
    With params that have a batch axis of their own, or gradients of params for each row of a
    batch, as in `vmap(grad(…))`, rows go to cuDNN one after the other. Each call waits until the
    GPU has told it the lengths.

    Without an NVIDIA GPU as JAX's default backend, and for T = 0 or input_size = 0, it gives way
    to `Staged()`, so that a program written for one machine runs on another.

    precision: "highest" for products in full float32, "high" for TF32, which has ten bits; None
        for what `jax_default_matmul_precision` says, and for TF32 if it says nothing.
    """

    precision: str | None = None

    def __post_init__(self) -> None:
        if self.precision not in _PRECISIONS:
            raise ValueError(
                f"CuDNN: precision must be None, 'high' or 'highest', got {self.precision!r}"
            )

    def __call__(
        self,
        cell: Any,
        params: PyTree,
        carry: PyTree,
        moments: Moment,
        *,
        reverse: bool,
        every: bool,
    ) -> tuple[PyTree, PyTree]:
        """Carries the unroll out; see `Method`."""
        _check(cell, params, moments, every)
        x, real = moments.x, moments.real
        if x.size == 0 or not _has_cudnn():
            return Staged()(cell, params, carry, moments, reverse=reverse, every=every)
        steps = len(x)
        length = jnp.int32(steps) if real is None else jnp.sum(real, dtype=jnp.int32)
        turn = functools.partial(_turn, length=None if real is None else length)
        # cuDNN takes no empty row: that one goes a step through its padding, which is finite
        ys, h, c, _ = forward_p.bind(
            (turn(x) if reverse else x)[None],
            carry.h[None],
            carry.c[None],
            _pack(params),
            jnp.maximum(length, 1)[None],
            how=_How(self._precision()),
        )
        after = LSTMCarry(h[0], c[0])
        if real is not None:
            after = jax.tree.map(lambda a, b: jnp.where(length > 0, a, b), after, carry)
        return after, turn(ys[0]) if reverse else ys[0]

    def _precision(self) -> str | None:
        # read when the program is traced, as JAX's own products do
        default = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
        return default if self.precision is None else self.precision


def _check(cell: Any, params: PyTree, moments: Moment, every: bool) -> None:
    """Raises on what cuDNN does not have, whether this machine has it or not."""
    if type(cell) is not LSTM:
        raise TypeError(f"CuDNN() serves LSTM, got {type(cell).__name__}: use Staged()")
    if params.W_h.dtype != jnp.float32:
        raise TypeError(
            f"CuDNN() computes in float32, got params of dtype {params.W_h.dtype}: "
            "convert params and xs, or use Staged()"
        )
    if moments.fresh is not None:
        raise ValueError("CuDNN() cannot begin anew within a sequence: for resets use Staged()")
    if every:
        raise ValueError(
            "CuDNN() returns the carry after the last step only: for every carry use Staged()"
        )


def _has_cudnn() -> bool:
    # an AMD GPU is called "gpu" as well, and has another library with another order of gates
    return jax.default_backend() == "gpu" and "cuda" in get_backend().platform_version


def _turn(a: Float[Array, "T K"], length: Array | None) -> Float[Array, "T K"]:
    """The real steps in the opposite order, padding where it is; its own inverse."""
    if length is None:
        return a[::-1]
    t = jnp.arange(len(a), dtype=jnp.int32)
    source = jnp.where(t < length, length - 1 - t, t)
    return a.at[source].get(unique_indices=True, mode="promise_in_bounds")


def _pack(params: LSTMParams) -> Float[Array, " N"]:
    """W_x, W_h, b, b_h one after the other: cuDNN has our order of gates, and two biases."""
    W_x, W_h, b, b_h, _ = params
    zeros = jnp.zeros(W_h.shape[:2], W_h.dtype)
    parts = (W_x, W_h, zeros if b is None else b, zeros if b_h is None else b_h)
    return jnp.concatenate([part.reshape(-1) for part in parts])


# ---- what is given to cuDNN, with the batch first: x, h, c, weights, lengths


class _How(NamedTuple):
    """How cuDNN computes; static."""

    precision: str | None

    def options(self, x: Any, h: Any) -> dict[str, Any]:
        """The arguments of cuDNN that are not arrays."""
        return dict(
            input_size=x.shape[-1],
            hidden_size=h.shape[-1],
            num_layers=1,
            dropout=0.0,
            bidirectional=False,
            precision=self.precision,
        )


def _forward(x: Array, h: Array, c: Array, weights: Array, lengths: Array, *, how: _How) -> list:
    """ys, h, c after the last step, and what cuDNN wants back for the gradient."""
    (ys, h, c), kept = _lstm_fwd(x, h[None], c[None], weights, lengths, **how.options(x, h))
    return [ys, h[0], c[0], kept[-1]]


def _backward(*arrays: Array, how: _How) -> list:
    """Gradients of x, h, c and the weights."""
    d_ys, d_h, d_c, x, h, c, weights, lengths, ys, reserve = arrays
    d_x, d_h, d_c, d_weights, _ = _lstm_bwd(
        residuals=(x, h[None], c[None], weights, lengths, ys, reserve),
        gradients=(d_ys, d_h[None], d_c[None]),
        **how.options(x, h),
    )
    return [d_x, d_h[0], d_c[0], d_weights]


def _no_such_derivative(*_: Any, **__: Any) -> Any:
    raise NotImplementedError(
        "CuDNN() has nothing but first derivatives in reverse mode: "
        "for jvp, jacfwd and Hessians use Staged()"
    )


def _shapes(*arrays: Any, how: _How) -> list[ShapedArray]:
    given = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays]
    out = jax.eval_shape(functools.partial(_forward, how=how), *given)
    return [ShapedArray(a.shape, a.dtype) for a in out]


def _tangent_shapes(*arrays: Any, how: _How) -> list[ShapedArray]:
    h, ys = arrays[1], arrays[9]
    return [ShapedArray(a.shape, a.dtype) for a in (ys, h, h)]


def _gradient_shapes(*arrays: Any, how: _How) -> list[ShapedArray]:
    return [ShapedArray(a.shape, a.dtype) for a in arrays[3:7]]


def _jvp(primals: tuple, tangents: tuple, *, how: _How) -> tuple[list, list]:
    ys, h, c, reserve = forward_p.bind(*primals, how=how)
    moving = map(ad.instantiate_zeros, tangents[:4])
    d_out = tangent_p.bind(*moving, *primals, ys, reserve, how=how)
    return [ys, h, c, reserve], [*d_out, jnp.zeros_like(reserve)]


def _transpose(cts: Any, *arrays: Any, how: _How) -> list:
    moving, kept = arrays[:4], arrays[4:]
    gradients = backward_p.bind(*map(ad.instantiate_zeros, cts), *kept, how=how)
    asked = map(ad.is_undefined_primal, moving)
    return [g if a else None for g, a in zip(gradients, asked, strict=True)] + [None] * len(kept)


def _batch_forward(arrays: tuple, axes: tuple, *, how: _How) -> tuple[list, list]:
    if axes[3] is not None:
        # every row has weights of its own
        return _one_by_one(functools.partial(forward_p.bind, how=how), arrays, axes)
    x, h, c, lengths = (_merge(a, i, _rows(arrays, axes)) for a, i in _but(arrays, axes, 3))
    *out, reserve = forward_p.bind(x, h, c, arrays[3], lengths, how=how)
    rows = _rows(arrays, axes)
    # what is kept for the gradient has no batch axis; the rule below does without it
    return [*(a.reshape(rows, -1, *a.shape[1:]) for a in out), reserve], [0, 0, 0, None]


def _batch_backward(arrays: tuple, axes: tuple, *, how: _How) -> tuple[list, list]:
    # this is not the gradient of a batch but a batch of gradients, each of the weights too: what
    # was kept belongs to all rows at once, so every row goes forwards once more
    def one(*arrays: Array) -> list:
        *_, reserve = forward_p.bind(*arrays[3:8], how=how)
        return backward_p.bind(*arrays[:9], reserve, how=how)

    return _one_by_one(one, arrays[:9], axes[:9])


def _one_by_one(function: Any, arrays: tuple, axes: tuple) -> tuple[list, list]:
    moved = [a if i is None else jnp.moveaxis(a, i, 0) for a, i in zip(arrays, axes, strict=True)]
    mapped = [a for a, i in zip(moved, axes, strict=True) if i is not None]

    def one(mapped: list) -> list:
        rest = iter(mapped)
        given = (a if i is None else next(rest) for a, i in zip(moved, axes, strict=True))
        return list(function(*given))

    out = jax.lax.map(one, mapped)
    return out, [0] * len(out)


def _but(arrays: tuple, axes: tuple, left_out: int) -> list[tuple[Any, int | None]]:
    pairs = list(zip(arrays, axes, strict=True))
    return pairs[:left_out] + pairs[left_out + 1 :]


def _rows(arrays: tuple, axes: tuple) -> int:
    return next(a.shape[i] for a, i in zip(arrays, axes, strict=True) if i is not None)


def _merge(a: Array, axis: int | None, rows: int) -> Array:
    """Makes the axis of `vmap` and the batch axis behind it one."""
    a = jnp.broadcast_to(a, (rows, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
    return a.reshape(-1, *a.shape[2:])


def _primitive(name: str, function: Any, shapes: Any) -> Primitive:
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_impl(function)
    primitive.def_abstract_eval(shapes)
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=True))
    return primitive


forward_p = _primitive("cudnn_lstm", _forward, _shapes)
ad.primitive_jvps[forward_p] = _jvp
batching.primitive_batchers[forward_p] = _batch_forward

# tangents of x, h, c and the weights, then what forward_p was given, ys and what was kept
tangent_p = _primitive("cudnn_lstm_tangent", _no_such_derivative, _tangent_shapes)
ad.primitive_jvps[tangent_p] = _no_such_derivative
ad.primitive_transposes[tangent_p] = _transpose
batching.primitive_batchers[tangent_p] = _no_such_derivative

# gradients of ys, h and c, then the same
backward_p = _primitive("cudnn_lstm_backward", _backward, _gradient_shapes)
ad.primitive_jvps[backward_p] = _no_such_derivative
batching.primitive_batchers[backward_p] = _batch_backward
