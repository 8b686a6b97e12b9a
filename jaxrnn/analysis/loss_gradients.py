"""Which moments of the past a loss still reaches."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxrnn.analysis.scaled import log_scaled, norm, rescale, shift
from jaxrnn.analysis.walk import Walk, check_steps, over_batch
from jaxrnn.cell import flatten_carry
from jaxrnn.methods import Method
from jaxrnn.methods.lowered import guarded_step


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossGradientDecay:
    """Size of the gradient of a loss at every step, as natural logarithms of Euclidean norms.

    log_norm_carry: ln ‖∂L/∂carry‖ of the carry that step t starts from, through that step and all
        later ones. For a loss on the last output alone it is the δ_{t−1} of the textbooks.
    log_norm_x: ln ‖∂L/∂x_t‖; None if xs holds no floating numbers (differentiate with respect to
        embedded tokens, not tokens).

    Index t is that of xs. −inf where nothing arrives, and at padding.
    """

    log_norm_carry: Float[Array, "*batch T"]
    log_norm_x: Float[Array, "*batch T"] | None


def loss_gradient_decay(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    loss: Callable[..., Float[Array, ""]],
    *,
    loss_data: PyTree = None,
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> LossGradientDecay:
    """Measures how much of a loss's gradient reaches each step, however little it is.

    The adjoint recursion λ_{t−1} = J_tᵀ λ_t + (∂y_t/∂carry_{t−1})ᵀ ∂L/∂y_t runs back through
    time with its power of two kept aside as an integer, so that it does not underflow.

    Args:
        loss: `loss(ys) -> scalar` of one row's ys, `(T, …)`, zero at padding; or
            `loss(ys, data)` with `loss_data`, a tree with the batch axes of xs.

    Other options as for `jaxrnn.unroll`. The loss is traced anew at every call; inside a
    `jax.jit` of yours, only once.
    """
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_steps(cell, params, xs, start=start, **options)
    reverse = bool(reverse)
    one = functools.partial(_loss_decay, cell, params, loss, reverse, loss_data is not None)
    return over_batch(one, cell, params, sequences, loss_data, reverse=reverse, method=method)


def _loss_decay(
    cell: Any, params: PyTree, loss: Callable, reverse: bool, with_data: bool, walk: Walk, data: Any
) -> LossGradientDecay:
    def of_outputs(ys):
        ys = _mend(ys, walk.moments.real, reverse)
        return loss(ys, data) if with_data else loss(ys)

    outputs = jax.grad(of_outputs)(walk.ys)
    vector, _ = flatten_carry(walk.initial)
    first = (jnp.zeros_like(vector), jnp.zeros((), jnp.int32))
    _, (log_carry, log_x) = jax.lax.scan(
        functools.partial(_one_step_back, cell, params, walk.initial),
        first,
        (walk.befores, walk.moments, outputs),
        reverse=True,
    )
    if walk.moments.real is not None:
        log_carry = jnp.where(walk.moments.real, log_carry, -jnp.inf)
    if reverse:
        log_carry, log_x = jax.tree.map(lambda a: a[::-1], (log_carry, log_x))
    return LossGradientDecay(log_carry, log_x)


def _one_step_back(cell: Any, params: PyTree, initial: PyTree, state: tuple, inputs: tuple):
    adjoint, exponent = state
    before, moment, outputs = inputs
    point, unflatten = flatten_carry(before)
    floating, fixed = _split(moment.x)

    def step(flat, floating):
        x = _join(floating, fixed)
        after, y = guarded_step(cell, params, initial, unflatten(flat), moment._replace(x=x))
        return flatten_carry(after)[0], y

    # what arrives from later steps and from this step's own output, under one exponent
    adjoint, outputs, exponent = _align(adjoint, outputs, exponent)
    _, pull = jax.vjp(step, point, floating)
    adjoint, at_x = pull((adjoint, outputs))
    log_x = _log_norm(at_x, exponent) if floating else None
    adjoint, exponent = rescale(adjoint, exponent)
    return (adjoint, exponent), (_log_norm([adjoint], exponent), log_x)


def _align(
    adjoint: Float[Array, " N"], outputs: PyTree, exponent: Int[Array, ""]
) -> tuple[Float[Array, " N"], PyTree, Int[Array, ""]]:
    # both under the larger of their two exponents, so that neither overflows
    flat, unflatten = flatten_carry(outputs)
    flat, own = rescale(flat, jnp.zeros((), jnp.int32))
    lowest = jnp.iinfo(jnp.int32).min // 2
    exponent = jnp.where(jnp.any(adjoint != 0), exponent, lowest)
    own = jnp.where(jnp.any(flat != 0), own, lowest)
    common = jnp.maximum(exponent, own)
    common = jnp.where(common == lowest, 0, common)
    adjoint = shift(adjoint, exponent - common)
    return adjoint, unflatten(shift(flat, own - common)), common


def _log_norm(leaves: list[Array], exponent: Int[Array, ""]) -> Float[Array, ""]:
    flat, exponent = rescale(flatten_carry(leaves)[0], exponent)
    return log_scaled(norm(flat), exponent)


def _mend(ys: PyTree, real: Bool[Array, " T"] | None, reverse: bool) -> PyTree:
    # from the order of travel to that of xs, and zero at padding, as `unroll` returns them
    def one(y):
        if real is not None:
            y = jnp.where(real.reshape(-1, *(1,) * (y.ndim - 1)), y, 0)
        return y[::-1] if reverse else y

    return jax.tree.map(one, ys)


def _split(x: PyTree) -> tuple[list[Array], tuple]:
    leaves, treedef = jax.tree.flatten(x)
    inexact = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
    floating = [leaf for leaf, is_float in zip(leaves, inexact, strict=True) if is_float]
    return floating, (leaves, inexact, treedef)


def _join(floating: list[Array], fixed: tuple) -> PyTree:
    leaves, inexact, treedef = fixed
    rest = iter(floating)
    return jax.tree.unflatten(
        treedef, [next(rest) if f else leaf for leaf, f in zip(leaves, inexact, strict=True)]
    )
