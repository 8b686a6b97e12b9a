"""`jax.lax.scan`: compiled once whatever the length, with gradients in √T memory on request."""

import dataclasses
from typing import Any

import jax
from jaxtyping import PyTree

from jaxrnn.methods.lowered import Moment, guarded_step
from jaxrnn.methods.segments import Segments, checkpointed

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

        carry, out = jax.lax.scan(body, carry, moments, reverse=reverse, unroll=self.unroll)
        return out if every else (carry, out)

    def segments(self, cell: Any, steps: int) -> Segments | None:
        """Checkpoints, and for long sequences segments of √T steps without."""
        # gradients of params, which scan adds up step by step, are so added up segment by segment,
        # and in float32 lose some √T rounding errors, not T
        if self.checkpoint is False and steps < _LONG:
            return None
        return checkpointed(self.checkpoint, steps)


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
