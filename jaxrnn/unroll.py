"""`unroll` and `trajectory`: any cell or network through time.

Batch axes, lengths, resets and direction are lowered once, in `sequences.py`, to the form of
`methods/lowered.py`; a method sees one sequence and nothing of them.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from jaxrnn import cell as contract
from jaxrnn.methods import Method, Moment, choose
from jaxrnn.methods.segments import carry_out
from jaxrnn.sequences import (
    Sequences,
    check_sequences,
    lower,
    sequence_shape,
    without_padding,
    zero_padding,
)


def unroll(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    *,
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> tuple[PyTree, PyTree]:
    """Runs a cell or network over sequences.

    Args:
        cell: a cell or network, ours or anything with `init`, `initial_carry` and `step`.
        params: what `cell.init` returned, or the same with other numbers.
        xs: `(*batch, T, *moment)`, an array or a tree of arrays, in the dtype of params.
        carry: what the first step starts from, `(*batch, …)`; `initial_carry(params)` by default.
        lengths: `(*batch,)`, 0…T: how many steps of each row are real. Padding changes nothing,
            not even if it is NaN; its outputs and gradients are exactly zero.
        resets: bool `(*batch, T)`: an episode begins at t. Forwards, the carry before step t is
            `initial_carry(params)`; with `reverse`, the carry before step t − 1 is.
        reverse: from the last real step to the first. `ys[t]` still belongs to `xs[t]`.
        method: how: `Staged(…)`, `Scan(…)`, `Loop()`; None chooses, by `jaxrnn.methods.choose`.
        key: None for no noise; one key, or one for each row, `(*batch,)`, or one for each step,
            `(*batch, T)`. Step t of row b uses `fold_in(fold_in(key, b), start + t)`.
        start: the index of `xs[0]` in a longer sequence that is fed in pieces.

    Returns:
        carry: after the last real step in the direction of travel, `(*batch, …)`.
        ys: `(*batch, T, …)`, zero at padding.

    Raises:
        ValueError, TypeError: a shape, dtype or structure does not fit; nothing has run yet.
    """
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_sequences(cell, params, xs, start=start, **options)
    return _run(cell, check_method(method), bool(reverse), False, params, sequences)


def trajectory(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    *,
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> tuple[PyTree, PyTree]:
    """Like `unroll`, but returns the carry after *every* step, `(*batch, T, …)`, and ys.

    `carries[t]` is the carry after the step at `xs[t]`; at padding it is the one held there.
    """
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_sequences(cell, params, xs, start=start, **options)
    return _run(cell, check_method(method), bool(reverse), True, params, sequences)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(
    cell: Any,
    method: Method | None,
    reverse: bool,
    every: bool,
    params: PyTree,
    sequences: Sequences,
) -> tuple[PyTree, PyTree]:
    xs, carry, lengths, resets, keys = sequences
    *batch, steps = sequence_shape(cell, params, xs)
    carry = _start(cell, params, carry, batch)
    if isinstance(cell, contract.Network):
        # here too, for what a network does to xs outside its layers: W x of a residual connection
        xs = xs if lengths is None else without_padding(xs, lengths)
        out, ys = cell.unroll(
            params,
            xs,
            verb=trajectory if every else unroll,
            carry=carry,
            lengths=lengths,
            resets=resets,
            reverse=reverse,
            method=method,
            key=keys,
        )
    else:
        way = choose(cell, params, tuple(batch), steps) if method is None else method
        moments, time = _lowered(cell, params, carry, sequences, reverse), len(batch)
        out, ys = carry_out(
            way, cell, params, carry, moments, reverse=reverse, every=every, batch=time
        )
        out = jax.tree.map(lambda a: jnp.moveaxis(a, 0, time), out) if every else out
        ys = jax.tree.map(lambda a: jnp.moveaxis(a, 0, time), ys)
    if lengths is not None:
        ys = zero_padding(ys, lengths, steps)
    return out, ys


def _start(cell: Any, params: PyTree, carry: PyTree | None, batch: list[int]) -> PyTree:
    if carry is not None:
        return carry
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (*batch, *jnp.shape(leaf))), cell.initial_carry(params)
    )


def _lowered(
    cell: Any, params: PyTree, carry: PyTree, sequences: Sequences, reverse: bool
) -> Moment:
    """What methods are given: time first and the batch after it, where a step lies side by side."""
    xs, _, lengths, resets, keys = sequences
    *batch, _ = sequence_shape(cell, params, xs)

    def one_sequence(carry: PyTree, xs: PyTree, length: Any, resets: Any, keys: Any) -> Moment:
        moments = lower(xs, length, resets, keys, reverse)
        first = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), moments)
        contract.check_step_keeps_carry(cell, params, carry, first.x, first.key)
        return moments

    time = len(batch)
    xs, resets, keys = jax.tree.map(lambda a: jnp.moveaxis(a, time, 0), (xs, resets, keys))
    for _ in batch:
        one_sequence = jax.vmap(one_sequence, (0, 1, 0, 1, 1), 1)
    return one_sequence(carry, xs, lengths, resets, keys)


@dataclasses.dataclass(frozen=True)
class UnrollReport:
    """How an unroll is carried out.

    method: the method named, or the one that `None` chooses for this cell, shape and device.
    turns: of an iterative method, how many each row takes, int `(*batch,)`; None for the others.
    fell_back: whether a row is walked by the scan after all, bool `(*batch,)`; None likewise.
    """

    method: Method
    turns: Int[Array, "*batch"] | None
    fell_back: Bool[Array, "*batch"] | None


def unroll_report(
    cell: Any, params: PyTree, xs: PyTree, *, method: Method | None = None, **options: Any
) -> UnrollReport:
    """Says how `unroll` with the same arguments goes about it; cells only, not networks."""
    if isinstance(cell, contract.Network):
        raise TypeError(
            f"{type(cell).__name__} hands its method to each of its layers: ask for one of them"
        )
    reverse = bool(options.get("reverse", False))
    sequences = check_sequences(cell, params, xs, **options)
    *batch, steps = sequence_shape(cell, params, sequences.xs)
    way = check_method(method) or choose(cell, params, tuple(batch), steps)
    if not hasattr(way, "report"):
        return UnrollReport(way, None, None)
    return UnrollReport(way, *_report(cell, way, reverse, params, sequences))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _report(
    cell: Any, method: Any, reverse: bool, params: PyTree, sequences: Sequences
) -> tuple[Array, Array]:
    *batch, _ = sequence_shape(cell, params, sequences.xs)
    carry = _start(cell, params, sequences.carry, batch)
    moments = _lowered(cell, params, carry, sequences, reverse)

    def one_sequence(carry: PyTree, moments: Moment) -> tuple[Array, Array]:
        return method.report(cell, params, carry, moments, reverse=reverse)

    for _ in batch:
        one_sequence = jax.vmap(one_sequence, (0, 1))
    return one_sequence(carry, moments)


def check_method(method: Method | None) -> Method | None:
    """Raises if `method` is not one that `jax.jit` can recognise."""
    if method is None:
        return None
    if isinstance(method, type) or not callable(method):
        got = f"the class {method.__name__}" if isinstance(method, type) else repr(method)
        raise TypeError(f"method must be an object such as Scan() or Loop(), got {got}")
    contract.check_hash(method)
    return method
