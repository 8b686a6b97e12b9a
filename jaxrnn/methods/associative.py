"""All steps of an associative recurrence at once, in a tree of combinations.

A cell that declares `element`, `combine` and `apply` says that a stretch of steps acts on a carry
as one element, and how two neighbouring stretches combine. The elements of all prefixes are had by
`jax.lax.associative_scan` (Blelloch 1990) in about 2 T combinations of depth 2 log₂ T.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, PyTree

from jaxrnn.methods.lowered import Moment, all_steps, before_each, select
from jaxrnn.methods.scan import Scan


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Associative:
    """Parallel in time, for cells that declare `element`, `combine` and `apply`.

    Serves them with lengths, resets and in reverse; any other cell goes through `Scan`. Takes about
    twice the work of the scan and memory for every element, and needs log T turns in place of T.
    Elements that are matrices need much of it: `Scan(checkpoint=True)` may then be better.
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
        """Carries the unroll out; see `Method`."""
        if not is_associative(cell) or len(jax.tree.leaves(moments)[0]) == 0:
            return Scan()(cell, params, carry, moments, reverse=reverse, every=every)
        elements = jax.vmap(cell.element, (None, 0))(params, moments.x)
        stretches = _Stretch(elements, moments.real, moments.fresh)

        def combine(older: _Stretch, newer: _Stretch) -> _Stretch:
            return jax.vmap(lambda a, b: _combine(cell, a, b))(older, newer)

        stretches = jax.lax.associative_scan(combine, stretches, reverse=reverse)
        initial = None if moments.fresh is None else cell.initial_carry(params)

        def after(stretch: _Stretch) -> PyTree:
            start = carry if stretch.fresh is None else select(stretch.fresh, initial, carry)
            end = cell.apply(stretch.element, start)
            return end if stretch.real is None else select(stretch.real, end, carry)

        carries = jax.vmap(after)(stretches)
        _, ys = all_steps(cell, params, before_each(carry, carries, reverse), moments)
        last = jax.tree.map(lambda a: a[0 if reverse else -1], carries)
        return (carries if every else last), ys


class _Stretch(NamedTuple):
    """What a stretch of steps does to a carry.

    real: whether any of its steps is; if not, it does nothing. None if every step is real.
    fresh: whether an episode begins within it; element then belongs to what follows. None if never.
    """

    element: PyTree
    real: Array | None
    fresh: Array | None


def is_associative(cell: Any) -> bool:
    """Whether a cell declares itself associative in time."""
    return all(hasattr(cell, name) for name in ("element", "combine", "apply"))


def _combine(cell: Any, older: _Stretch, newer: _Stretch) -> _Stretch:
    past, fresh, real = older.element, None, None
    if newer.fresh is not None:
        # what is older than an episode is replaced before it is combined, not only afterwards: its
        # NaN would otherwise come back in the gradient
        past = select(newer.fresh, newer.element, past)
    element = cell.combine(past, newer.element)
    if newer.fresh is not None and older.fresh is not None:
        fresh = older.fresh | newer.fresh
        element = select(newer.fresh, newer.element, element)
    if newer.real is not None and older.real is not None:
        real = older.real | newer.real
        element = select(older.real, element, newer.element)
        element = select(newer.real, element, older.element)
    return _Stretch(element, real, fresh)
