"""A method over batch axes, and over long sequences in segments, if that is how it wants them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, PyTree

from jaxrnn.cell import step
from jaxrnn.methods.lowered import Method, Moment


class Segments(NamedTuple):
    """How a sequence is cut: into pieces of `length` steps, the last of which may be shorter.

    checkpoint: whether a piece is computed a second time for its gradients, to keep less.
    """

    length: int
    checkpoint: bool = False


def carry_out(
    method: Method,
    cell: Any,
    params: PyTree,
    carry: PyTree,
    moments: Moment,
    *,
    reverse: bool,
    every: bool,
    batch: int = 0,
) -> tuple[PyTree, PyTree]:
    """What `method` returns, for sequences with `batch` batch axes, which come behind time.

    Segments are for derivatives: where none is taken, a sequence is walked in one go. The loop
    over them is outside of the batch; inside, `vmap` would have each segment transposed.
    """

    def at_once(params: PyTree, carry: PyTree, moments: Moment) -> tuple[PyTree, PyTree]:
        def one_sequence(carry: PyTree, moments: Moment) -> tuple[PyTree, PyTree]:
            return method(cell, params, carry, moments, reverse=reverse, every=every)

        for _ in range(batch):
            one_sequence = jax.vmap(one_sequence, (0, 1), (1 if every else 0, 1))
        return one_sequence(carry, moments)

    steps = jax.tree.leaves(moments)[0].shape[0]
    ask = getattr(method, "segments", None)
    segments = None if ask is None or steps == 0 else ask(cell, steps)
    if segments is None:
        return at_once(params, carry, moments)

    def in_segments(params: PyTree, carry: PyTree, moments: Moment) -> tuple[PyTree, PyTree]:
        def walk(carry: PyTree, moments: Moment) -> tuple[PyTree, PyTree]:
            out, ys = at_once(params, carry, moments)
            last = jax.tree.map(lambda a: a[0 if reverse else -1], out) if every else out
            return last, (out if every else None, ys)

        carry, (carries, ys) = _in_segments(walk, carry, moments, reverse, segments)
        return (carries if every else carry), ys

    if closes_over_traced(cell, params, carry, moments, batch):
        return in_segments(params, carry, moments)
    return _differentiated_as(in_segments, at_once)(params, carry, moments)


def closes_over_traced(
    cell: Any, params: PyTree, carry: PyTree, moments: Moment, batch: int = 0
) -> bool:
    """Whether a cell's step uses a traced array of its own, which a custom rule cannot see."""
    carry, moment = (
        jax.tree.map(lambda a, n=n: jax.ShapeDtypeStruct(a.shape[n:], a.dtype), tree)
        for tree, n in ((carry, batch), (moments, batch + 1))
    )

    def once(params: PyTree, carry: PyTree, moment: Moment) -> PyTree:
        return cell.initial_carry(params), step(cell, params, carry, moment.x, moment.key)

    consts = jax.make_jaxpr(once)(params, carry, moment).consts
    return any(isinstance(a, Tracer) for a in consts)


def _differentiated_as(derivative_of: Callable, function: Callable) -> Callable:
    """`function`, with the derivative of another one that is equal to it."""

    def call(*arguments: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(arguments)
        run = jax.custom_jvp(lambda *leaves: function(*structure.unflatten(leaves)))

        def rule(primals: tuple, tangents: tuple) -> tuple[PyTree, PyTree]:
            moving = [i for i, d in enumerate(tangents) if not isinstance(d, SymbolicZero)]

            def of_moving(*some: Array) -> PyTree:
                leaves = list(primals)
                for i, leaf in zip(moving, some, strict=True):
                    leaves[i] = leaf
                return derivative_of(*structure.unflatten(leaves))

            return jax.jvp(
                of_moving, tuple(primals[i] for i in moving), tuple(tangents[i] for i in moving)
            )

        run.defjvp(rule, symbolic_zeros=True)
        return run(*leaves)

    return call


def _in_segments(
    walk: Callable, carry: PyTree, moments: Moment, reverse: bool, segments: Segments
) -> tuple[PyTree, PyTree]:
    """`walk(carry, moments) -> (carry, out)` over one segment of a sequence after the other."""
    steps = jax.tree.leaves(moments)[0].shape[0]
    length = min(segments.length, steps)
    count = steps // length
    # the steps left over come last in the order in which time is walked
    cut = steps - count * length if reverse else count * length
    first = jax.tree.map(lambda a: a[:cut], moments)
    second = jax.tree.map(lambda a: a[cut:], moments)
    whole, rest = (second, first) if reverse else (first, second)
    pieces = jax.tree.map(lambda a: a.reshape(count, length, *a.shape[1:]), whole)
    piece = jax.checkpoint(walk, prevent_cse=False) if segments.checkpoint else walk
    carry, out = jax.lax.scan(piece, carry, pieces, reverse=reverse)
    out = jax.tree.map(lambda a: a.reshape(count * length, *a.shape[2:]), out)
    if steps == count * length:
        return carry, out
    carry, tail = piece(carry, rest)
    parts = (tail, out) if reverse else (out, tail)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *parts)


def even_length(wanted: int, steps: int) -> int:
    """A number not far from the one wanted that divides `steps` and so leaves none over."""
    wanted = max(1, min(wanted, steps))
    near = [n for n in range(wanted // 2 + 1, 2 * wanted) if steps % n == 0]
    return min(near, key=lambda n: abs(n - wanted), default=wanted)


def checkpointed(checkpoint: bool | int, steps: int) -> Segments:
    """The segments that an option `checkpoint` stands for: √T steps, or as many as it says."""
    if checkpoint > 1:
        return Segments(int(checkpoint), True)
    return Segments(even_length(math.isqrt(steps), steps), bool(checkpoint))
