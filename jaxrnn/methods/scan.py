"""`jax.lax.scan`: compiled once whatever the length, with gradients in √T memory on request."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxrnn.methods.lowered import Moment, guarded_step

_LONG = 64  # steps from which a sequence is scanned in segments


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Scan:
    """Step after step in one compiled loop.

    unroll: steps per turn of the loop; more costs compile time.
    checkpoint: False keeps what the backward pass needs of every step. True keeps one carry per
        segment of about √T steps and computes each segment a second time: memory ~ √T for about
        a third more work. A number, 2 or more, is the length of the segments.
    """

    unroll: int = 1
    checkpoint: bool | int = False

    def __post_init__(self) -> None:
        check_options(self)

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

        steps = jax.tree.leaves(moments)[0].shape[0]
        if self.checkpoint is False and steps < _LONG:
            carry, out = scan(carry, moments)
        else:
            # also without checkpoints: gradients of params, which scan adds up step by step, are
            # added up segment by segment, and in float32 lose some √T rounding errors, not T
            carry, out = in_segments(scan, carry, moments, reverse, self.checkpoint)
        return out if every else (carry, out)


def check_options(method: Any) -> None:
    """Raises if `unroll` or `checkpoint` of a method makes no sense."""
    name, unroll, checkpoint = type(method).__name__, method.unroll, method.checkpoint
    if isinstance(unroll, bool) or not isinstance(unroll, int) or unroll < 1:
        raise ValueError(f"{name}: unroll must be an int of at least 1, got {unroll!r}")
    # 1 == True in Python: jit would take a Scan(checkpoint=1) for a Scan(checkpoint=True)
    if not isinstance(checkpoint, bool) and (not isinstance(checkpoint, int) or checkpoint < 2):
        raise ValueError(
            f"{name}: checkpoint must be False, True or an int of at least 2, got {checkpoint!r}"
        )


def in_segments(
    walk: Callable, carry: PyTree, moments: Moment, reverse: bool, checkpoint: bool | int
) -> tuple[PyTree, PyTree]:
    """`walk(carry, moments) -> (carry, out)` over one segment of a sequence after the other."""
    steps = jax.tree.leaves(moments)[0].shape[0]
    length = int(checkpoint) if checkpoint > 1 else _about_the_root(steps)
    length = max(1, min(length, steps))
    count = steps // length
    # the steps left over come last in the order in which time is walked
    cut = steps - count * length if reverse else count * length
    first = jax.tree.map(lambda a: a[:cut], moments)
    second = jax.tree.map(lambda a: a[cut:], moments)
    whole, rest = (second, first) if reverse else (first, second)
    segments = jax.tree.map(lambda a: a.reshape(count, length, *a.shape[1:]), whole)
    segment = walk if checkpoint is False else jax.checkpoint(walk, prevent_cse=False)
    carry, out = jax.lax.scan(segment, carry, segments, reverse=reverse)
    out = jax.tree.map(lambda a: a.reshape(count * length, *a.shape[2:]), out)
    if steps == count * length:
        return carry, out
    carry, tail = segment(carry, rest)
    parts = (tail, out) if reverse else (out, tail)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *parts)


def _about_the_root(steps: int) -> int:
    # √T, or a number not far from it that divides T and so leaves no steps over
    root = math.isqrt(steps)
    divisors = [n for n in range(root // 2 + 1, 2 * root) if steps % n == 0]
    return min(divisors, key=lambda n: abs(n - root), default=root)
