"""`jax.lax.scan`: compiled once whatever the length, with gradients in √T memory on request."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxrnn.methods.lowered import Moment, guarded_step


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Scan:
    """Step after step in one compiled loop.

    unroll: steps per turn of the loop; more costs compile time.
    checkpoint: False keeps what the backward pass needs of every step. True keeps one carry per
        segment of about √T steps and computes each segment a second time: memory ~ √T for about
        a third more work. A number is the length of the segments.
    """

    unroll: int = 1
    checkpoint: bool | int = False

    def __post_init__(self) -> None:
        for field, value in (("unroll", self.unroll), ("checkpoint", self.checkpoint)):
            if not isinstance(value, int) or (value is not False and value < 1):
                raise ValueError(f"Scan: {field} must be an int of at least 1, got {value!r}")

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
        initial = carry if moments.fresh is None else cell.initial_carry(params)

        def body(carry: PyTree, moment: Moment) -> tuple[PyTree, PyTree]:
            carry, y = guarded_step(cell, params, initial, carry, moment)
            return carry, (carry, y) if every else y

        def scan(carry: PyTree, moments: Moment) -> tuple[PyTree, PyTree]:
            return jax.lax.scan(body, carry, moments, reverse=reverse, unroll=self.unroll)

        if self.checkpoint is False:
            carry, out = scan(carry, moments)
        else:
            carry, out = self._in_segments(scan, carry, moments, reverse)
        return out if every else (carry, out)

    def _in_segments(
        self, scan: Callable, carry: PyTree, moments: Moment, reverse: bool
    ) -> tuple[PyTree, PyTree]:
        steps = jax.tree.leaves(moments)[0].shape[0]
        length = math.isqrt(steps) if self.checkpoint is True else int(self.checkpoint)
        length = max(1, min(length, steps))
        count = steps // length
        # the steps left over come last in the order in which time is walked
        cut = steps - count * length if reverse else count * length
        first = jax.tree.map(lambda a: a[:cut], moments)
        second = jax.tree.map(lambda a: a[cut:], moments)
        whole, rest = (second, first) if reverse else (first, second)
        segments = jax.tree.map(lambda a: a.reshape(count, length, *a.shape[1:]), whole)
        segment = jax.checkpoint(scan, prevent_cse=False)
        carry, out = jax.lax.scan(segment, carry, segments, reverse=reverse)
        out = jax.tree.map(lambda a: a.reshape(count * length, *a.shape[2:]), out)
        carry, tail = jax.checkpoint(scan)(carry, rest)
        parts = (tail, out) if reverse else (out, tail)
        return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *parts)
