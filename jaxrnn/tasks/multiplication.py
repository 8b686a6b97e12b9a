"""Multiplication: the product of two marked numbers."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jaxrnn.tasks.adding import MarkedNumbers
from jaxrnn.tasks.task import Example, answer_once


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Multiplication(MarkedNumbers):
    """The product of the two marked ones among T numbers, which summing alone does not give.

    xs (T, 2): a number from U(0, 1) and a marker, 1 at two steps and else 0. Only the last step
    counts; its target is x_i x_j, of the two marked numbers.

    baseline: 1/9 − 1/16 = 7/144, the variance of the product of two numbers from U(0, 1): the mean
        squared error of the constant answer 1/4. Computed: the paper prints none.
    correct: |error| < 0.04, as in Hochreiter and Schmidhuber 1997, experiment 5.

    length: T.
    markers: "early", as in that paper: one of the first ten steps, then one of the first half that
        is still unmarked; "halves": one in each half, the usual form of the adding problem.
        The paper also marks the two ends with −1, and its length varies by a tenth.
    tolerance: what `correct` allows.
    """

    length: int = 200
    markers: str = "halves"
    tolerance: float = 0.04

    @property
    def baseline(self) -> float:
        """7/144, whatever the length."""
        return 7 / 144

    def sample(self, key: Array, dtype: DTypeLike = jnp.float32) -> Example:
        """Draws one example."""
        xs, marked = self._draw(key, dtype)
        return answer_once(xs, jnp.prod(marked, keepdims=True))
