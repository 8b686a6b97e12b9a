"""The one form that every method serves: a single sequence, its lengths and resets spelled out."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from jaxrnn.cell import step


class Moment(NamedTuple):
    """What one step is given; with a leading time axis, what a whole sequence is.

    x: the input, finite wherever the sequence is: padding has been replaced.
    real: False at padding, where the carry is held. None if every step is real.
    fresh: True where the carry is the initial one *before* this step. None if nowhere.
    key: the step's random key, or None.
    """

    x: Any
    real: Bool[Array, "*T"] | None = None
    fresh: Bool[Array, "*T"] | None = None
    key: Array | None = None


@runtime_checkable
class Method(Protocol):
    """How an unroll is carried out, for one sequence without batch axes.

    Goes through `moments` in the order of time, or backwards if `reverse`, and returns the last
    carry and ys with `ys[t]` belonging to `x[t]`; with `every`, all carries in place of the last.
    What `ys` holds at padding does not matter.

    A method may also have `segments(cell, steps)`, which returns how a long sequence is cut for
    its derivative, or None; see `segments.py`.
    """

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
        """Carries the unroll out."""
        ...


def guarded_step(
    cell: Any, params: PyTree, initial: PyTree, carry: PyTree, moment: Moment
) -> tuple[PyTree, PyTree]:
    """One step under a method: starts afresh where `fresh`, holds the carry where not `real`.

    Both choices are made by `where`, never by multiplying, so that a NaN on the side that is not
    chosen stays there.
    """
    start = carry if moment.fresh is None else select(moment.fresh, initial, carry)
    after, y = step(cell, params, start, moment.x, moment.key)
    return (after if moment.real is None else select(moment.real, after, carry)), y


def select(condition: Array, yes: PyTree, no: PyTree) -> PyTree:
    """`yes` where the scalar condition holds, else `no`, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def before_each(first: PyTree, after: PyTree, reverse: bool) -> PyTree:
    """The carry before every step, from the first and the one after every step."""

    def shift(f: Array, a: Array) -> Array:
        return jnp.concatenate([a[1:], f[None]] if reverse else [f[None], a[:-1]])

    return jax.tree.map(shift, first, after)


def all_steps(cell: Any, params: PyTree, before: PyTree, moments: Moment) -> tuple[PyTree, PyTree]:
    """The carry after every step and ys, from the carry before every step, all at once."""
    initial = None if moments.fresh is None else cell.initial_carry(params)

    def one(before: PyTree, moment: Moment) -> tuple[PyTree, PyTree]:
        return guarded_step(cell, params, initial, before, moment)

    return jax.vmap(one)(before, moments)
