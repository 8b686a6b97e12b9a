"""Temporal order: in which order did two or three symbols come?"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jaxrnn.tasks.task import (
    Classification,
    Example,
    answer_once,
    check_dtype,
    check_whole,
    draw_int,
    step_numbers,
    surely,
    symbols,
)

SYMBOLS = ("a", "b", "c", "d", "X", "Y", "E", "B")
# first steps at which X or Y may stand in sequences of 110, each with ten more to choose from
PLACES = {2: (10, 50), 3: (10, 33, 66)}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class TemporalOrder(Classification):
    """Which of X and Y came first and which then, among noise: 4 classes, or 8 with three symbols.

    xs (T, 8), one-hot over a b c d X Y E B: an E, then noise from a … d with an X or Y at each of
    `relevant` steps, and a B at the end. Only this last step counts; its target is the order read
    as a binary number with X = 0 and Y = 1: XX, XY, YX, YY are 0, 1, 2, 3.

    baseline: ln 4, or ln 8 with three symbols, in nats: a guess.
    correct: every probability is closer than 0.3 to the 0 or 1 it should be, so that of the right
        class is above 0.7: the criterion of the paper, whose outputs are logistic.

    length: T of the longest. With 110 as in the paper, sequences have 100–110 steps and the
        symbols stand at steps 10–20 and 50–60, or 10–20, 33–43 and 66–76, the E at step 0. Other
        lengths scale all of these, rounded down.
    relevant: 2 or 3 symbols that matter.

    Hochreiter and Schmidhuber 1997, experiments 6a and 6b.
    """

    length: int = 110
    relevant: int = 2

    def __post_init__(self) -> None:
        if self.relevant not in PLACES:
            raise ValueError(f"TemporalOrder: relevant must be 2 or 3, got {self.relevant!r}")
        check_whole(self, "length", 11)

    @property
    def input_size(self) -> int:
        """The eight symbols."""
        return len(SYMBOLS)

    @property
    def output_size(self) -> int:
        """The orders there are."""
        return 2**self.relevant

    @property
    def baseline(self) -> float:
        """ln 4 or ln 8."""
        return math.log(self.output_size)

    def sample(self, key: Array, dtype: DTypeLike = jnp.float32) -> Example:
        """Draws one example."""
        check_dtype(self, dtype)
        k_length, k_noise, k_places, k_kinds = jax.random.split(key, 4)
        length = draw_int(k_length, (), self.length - self.length // 11, self.length + 1)
        kinds = draw_int(k_kinds, (self.relevant,), 0, 2)
        low, high = jnp.asarray(self._places()).T
        places = draw_int(k_places, (self.relevant,), low, high + 1)
        ids = draw_int(k_noise, (self.length,), 0, 4).at[places].set(4 + kinds)
        ids = ids.at[0].set(6).at[length - 1].set(7)
        ids = jnp.where(step_numbers(self.length) < length, ids, -1)
        order = jnp.sum(kinds * 2 ** jnp.arange(self.relevant - 1, -1, -1, jnp.int32))
        return answer_once(symbols(ids, self.input_size, dtype), order.astype(jnp.int32), length)

    def _places(self) -> list[tuple[int, int]]:
        # the first and the last step at which each relevant symbol may stand
        return [
            (first * self.length // 110, (first + 10) * self.length // 110)
            for first in PLACES[self.relevant]
        ]

    def _steps_solved(self, outputs: Array, targets: Array) -> Array:
        return surely(outputs, targets, 0.3)
