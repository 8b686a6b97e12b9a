"""What a cell that declares `stages` is made of, and how its pieces hang together."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, PyTree

from jaxrnn.cell import is_random
from jaxrnn.dense import Dense, add_gates
from jaxrnn.methods.segments import even_length

# what is worth keeping for the backward pass: the rest follows from it by a few multiplications
_DEAR = (
    "acos acosh asin asinh atan atan2 atanh cbrt cos cosh erf erf_inv erfc exp exp2 expm1 lgamma "
    "log log1p logistic pow rsqrt sin sinh sqrt tan tanh"
)


class Routes(NamedTuple):
    """Where the gates of x go; static.

    into: for each map of the carry, for each of its gates, the gate of x that is added to it.
    direct: the gates of x that the element-wise part reads itself, and behind them its vectors.
    """

    into: tuple[tuple[int | None, ...], ...]
    direct: tuple[int, ...]


def has_stages(cell: Any) -> bool:
    """Whether a cell declares its stages and draws no noise."""
    return hasattr(cell, "stages") and hasattr(cell, "elementwise") and not is_random(cell)


def find_routes(cell: Any, params: PyTree, carry: PyTree) -> Routes | None:
    """The routes through a cell's stages, or None if it has to be taken as a whole."""
    if not has_stages(cell):
        return None
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(carry)):
        return None
    shapes = gate_shapes(cell.stages(params))
    closed = jax.make_jaxpr(functools.partial(elementwise_part, cell))(carry, *shapes)
    if any(isinstance(constant, Tracer) for constant in closed.consts):
        return None  # a custom rule cannot see what a function closes over
    return _read_routes(closed.jaxpr, cell, params, carry, shapes)


def elementwise_part(
    cell: Any, carry: PyTree, from_x: tuple, sums: tuple, upto: int | None = None
) -> PyTree:
    """The element-wise part alone, what the maps of the carry give being given.

    Returns (carry, y); with `upto` = k, what the k-th map reads, in place of both. A gate of x
    that is added to what a map gives is in `sums` already.
    """
    out, calls = _listen(cell, carry, from_x, sums)
    return out if upto is None else calls[upto].read


class _Call(NamedTuple):
    """What an element-wise part called a map of the carry with.

    into: for each gate of the map, the gate of x that is added to it, if that is what is added.
    """

    read: Array
    into: tuple[int | None, ...]


def _listen(
    cell: Any, carry: PyTree, from_x: tuple, sums: tuple
) -> tuple[tuple[PyTree, PyTree], list[_Call]]:
    """Runs the element-wise part on given `sums`, and writes down how it calls its maps."""
    calls: list[_Call] = []

    def which(p: Array | None) -> int | None:
        return next((g for g, a in enumerate(from_x) if a is p), None)

    def stand_in(k: int) -> Any:
        def of_carry(v: Array, plus: tuple | None = None) -> tuple[Array, ...]:
            if len(calls) != k:
                raise ValueError(
                    f"{type(cell).__name__}.elementwise called its maps of the carry out of "
                    "order or more than once: call each once, in the order of `stages`"
                )
            plus = plus or (None,) * len(sums[k])
            calls.append(_Call(v, tuple(map(which, plus))))
            rest = (p if which(p) is None else None for p in plus)
            return add_gates(sums[k], tuple(rest))

        return of_carry

    out = cell.elementwise(carry, from_x, *(stand_in(k) for k in range(len(sums))))
    if len(calls) != len(sums):
        raise ValueError(
            f"{type(cell).__name__}.elementwise called {len(calls)} of the {len(sums)} maps of "
            "the carry that `stages` declares: call each once, in that order"
        )
    return out, calls


def _read_routes(
    jaxpr: Any, cell: Any, params: PyTree, carry: PyTree, shapes: tuple[tuple, tuple]
) -> Routes:
    into: list[tuple[int | None, ...]] = []

    def trace(*at: PyTree) -> PyTree:
        out, calls = _listen(cell, *at)
        into.extend(call.into for call in calls)
        return out

    jax.eval_shape(trace, carry, *shapes)
    gates = len(shapes[0]) - len(jax.eval_shape(cell.stages, params)[0].vectors)
    if any(g is not None and g >= gates for route in into for g in route):
        raise ValueError(
            f"{type(cell).__name__}.elementwise adds one of its vectors to a map of the carry: "
            "declare that one as the bias of the map"
        )
    first = len(jax.tree.leaves(carry))
    of_x = jaxpr.invars[first : first + len(shapes[0])]
    used = {id(v) for eqn in jaxpr.eqns for v in eqn.invars} | {id(v) for v in jaxpr.outvars}
    return Routes(tuple(into), tuple(g for g, v in enumerate(of_x) if id(v) in used))


def gate_shapes(maps: tuple[Dense, tuple[Dense, ...]]) -> tuple[tuple, tuple]:
    """Shapes of what the map of x and the maps of the carry give, gate by gate."""
    of_x, of_carry = maps

    def gates(dense: Dense) -> tuple:
        count, size, _ = dense.W.shape
        one = jax.ShapeDtypeStruct((size,), dense.W.dtype)
        vectors = (jax.ShapeDtypeStruct(v.shape, v.dtype) for v in dense.vectors)
        return (*(one,) * count, *vectors)

    return gates(of_x), tuple(gates(dense) for dense in of_carry)


def runs_of(route: tuple[int | None, ...]) -> list[tuple[int, int, int | None]]:
    """Runs (first, last, start) of gates to which gates start, start + 1, … of x are added."""
    runs: list[tuple[int, int, int | None]] = []
    for j, g in enumerate(route):
        if runs:
            first, last, start = runs[-1]
            if g == (None if start is None else start + last - first):
                runs[-1] = (first, j + 1, start)
                continue
        runs.append((j, j + 1, g))
    return runs


def stretches_of(gates: tuple[int, ...]) -> list[tuple[int, int]]:
    """Consecutive numbers as (first, last)."""
    stretches: list[tuple[int, int]] = []
    for g in gates:
        if stretches and stretches[-1][1] == g:
            stretches[-1] = (stretches[-1][0], g + 1)
        else:
            stretches.append((g, g + 1))
    return stretches


def at_all_steps(row: Array, steps: int) -> Array:
    """`row` once for each step. The transpose adds up in blocks, whose error grows as √steps."""
    size = even_length(math.isqrt(steps), steps)
    blocks = -(-steps // size)
    # products, as XLA would merge two sums into one that goes step by step
    rows = jnp.outer(jnp.ones(blocks, row.dtype), row)
    return jnp.einsum("s,bn->bsn", jnp.ones(size, row.dtype), rows).reshape(-1, len(row))[:steps]


def is_dear(primitive: Any, *_: Any, **__: Any) -> bool:
    """Whether what a primitive gives is kept for the backward pass."""
    return primitive.name in _DEAR.split()
