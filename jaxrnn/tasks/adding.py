"""Adding: the sum of two marked numbers."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.tasks.task import (
    Example,
    Regression,
    answer_once,
    check_dtype,
    check_whole,
    draw_int,
    draw_uniform,
    step_numbers,
)


class MarkedNumbers(Regression):
    """Numbers with two of them marked: what adding and multiplication have in common."""

    length: int
    markers: str
    tolerance: float

    def __post_init__(self) -> None:
        if self.markers not in ("halves", "early"):
            raise ValueError(
                f"{type(self).__name__}: markers must be 'halves' (one in each half) or 'early' "
                f"(both in the first half), got {self.markers!r}"
            )
        check_whole(self, "length", 2 if self.markers == "halves" else 4)

    @property
    def input_size(self) -> int:
        """A number and its marker."""
        return 2

    @property
    def output_size(self) -> int:
        """The answer."""
        return 1

    def _steps_solved(self, outputs: Array, targets: Array) -> Array:
        return jnp.all(jnp.abs(outputs - targets) < self.tolerance, -1)

    def _draw(self, key: Array, dtype: DTypeLike) -> tuple[Float[Array, "T 2"], Float[Array, " 2"]]:
        # xs and the two marked numbers, the earlier draw first
        check_dtype(self, dtype)
        k_values, k_first, k_second = jax.random.split(key, 3)
        values = draw_uniform(k_values, (self.length,), dtype)
        half = self.length // 2
        if self.markers == "halves":
            first = draw_int(k_first, (), 0, half)
            second = draw_int(k_second, (), half, self.length)
        else:
            first = draw_int(k_first, (), 0, min(10, half))
            second = draw_int(k_second, (), 0, half - 1)
            second = second + (second >= first).astype(jnp.int32)  # of those still unmarked
        steps = step_numbers(self.length)
        marks = ((steps == first) | (steps == second)).astype(dtype)
        return jnp.stack([values, marks], -1), values[jnp.stack([first, second])]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Adding(MarkedNumbers):
    """The sum of the two marked ones among T numbers.

    xs (T, 2): a number from U(0, 1) and a marker, 1 at two steps and else 0. Only the last step
    counts; its target is x_i + x_j, of the two marked numbers.

    baseline: 1/6, the variance of the sum of two numbers from U(0, 1): the mean squared error of
        the constant answer 1.
    correct: |error| < 0.04, the number of Hochreiter and Schmidhuber 1997, experiment 4. Their sum
        is scaled to [0, 1], ours goes from 0 to 2: here it asks for twice the precision.

    length: T.
    markers: "halves", as in Arjovsky et al. 2016 (1511.06464): one in the first half and one in
        the second; "early", as in Hochreiter and Schmidhuber: one of the first ten, then one of
        the first half that is still unmarked, so that the last half is only waiting. There, numbers
        are from U(−1, 1), the two ends are marked −1, and the length varies by a tenth.
    tolerance: what `correct` allows.
    """

    length: int = 200
    markers: str = "halves"
    tolerance: float = 0.04

    @property
    def baseline(self) -> float:
        """1/6, whatever the length."""
        return 1 / 6

    def sample(self, key: Array, dtype: DTypeLike = jnp.float32) -> Example:
        """Draws one example."""
        xs, marked = self._draw(key, dtype)
        return answer_once(xs, jnp.sum(marked, keepdims=True))
