"""Delayed recall: which cue was there, so many distractors ago?"""

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
    surely,
    symbols,
)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class DelayedRecall(Classification):
    """A cue, `delay` distractors, and the question which cue it was.

    xs (T, cues + distractors + 1), one-hot: one of the cues, then `delay` times one of the
    distractors, each drawn alone, then the question: T = delay + 2 steps. Only the last step
    counts; its target is the cue. The lag between cue and answer is delay + 1 steps.

    baseline: ln(cues) nats, a guess.
    correct: every probability is closer than 0.2 to the 0 or 1 it should be, so that of the cue is
        above 0.8: the criterion of the paper, whose outputs are logistic.

    delay: distractors between the cue and the question.
    cues: kinds of cues.
    distractors: kinds of distractors.

    Hochreiter and Schmidhuber 1997, experiment 2c, which has two cues, a sign before the cue, and
    a delay that varies.
    """

    delay: int = 100
    cues: int = 8
    distractors: int = 8

    def __post_init__(self) -> None:
        check_whole(self, "delay", 0)
        check_whole(self, "cues", 2)
        check_whole(self, "distractors", 1)

    @property
    def input_size(self) -> int:
        """The cues, the distractors and the question."""
        return self.cues + self.distractors + 1

    @property
    def output_size(self) -> int:
        """The cues."""
        return self.cues

    @property
    def length(self) -> int:
        """T = delay + 2."""
        return self.delay + 2

    @property
    def baseline(self) -> float:
        """ln(cues)."""
        return math.log(self.cues)

    def sample(self, key: Array, dtype: DTypeLike = jnp.float32) -> Example:
        """Draws one example."""
        check_dtype(self, dtype)
        k_cue, k_distractors = jax.random.split(key)
        cue = draw_int(k_cue, (), 0, self.cues)
        between = draw_int(k_distractors, (self.delay,), self.cues, self.input_size - 1)
        question = jnp.full(1, self.input_size - 1, jnp.int32)
        ids = jnp.concatenate([cue[None], between, question])
        return answer_once(symbols(ids, self.input_size, dtype), cue)

    def _steps_solved(self, outputs: Array, targets: Array) -> Array:
        return surely(outputs, targets, 0.2)
