"""Parity: is the number of ones even or odd?"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jaxrnn.tasks.task import (
    Classification,
    Example,
    check_dtype,
    check_whole,
    draw_int,
    step_numbers,
)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Parity(Classification):
    """Whether the number of ones among T fair bits is even, class 0, or odd, class 1.

    One flipped bit anywhere flips the answer, and no part of the sequence tells anything of it.

    xs (T, 1): 1 or −1. The targets are the parity of the bits up to and with each step; only the
    last step counts, or each with `every_step`, which is far easier to learn.

    baseline: ln 2 nats, a guess.
    correct: the right class has the larger output at every step that counts.

    length: T.
    every_step: whether each step counts.

    Bengio, Simard and Frasconi 1994, "Learning long-term dependencies with gradient descent is
    difficult". Hochreiter and Schmidhuber 1996, "LSTM can solve hard long time lag problems", with
    1 and −1 as here, 500–600 steps and a target at the end, of which an error of 0.1 is allowed.
    """

    length: int = 50
    every_step: bool = False

    def __post_init__(self) -> None:
        check_whole(self, "length", 1)

    @property
    def input_size(self) -> int:
        """The bit."""
        return 1

    @property
    def output_size(self) -> int:
        """Even and odd."""
        return 2

    @property
    def baseline(self) -> float:
        """ln 2."""
        return math.log(2)

    def sample(self, key: Array, dtype: DTypeLike = jnp.float32) -> Example:
        """Draws one example."""
        check_dtype(self, dtype)
        bits = draw_int(key, (self.length,), 0, 2)
        parities = (jnp.cumsum(bits) % 2).astype(jnp.int32)
        counts = (step_numbers(self.length) == self.length - 1) | self.every_step
        xs = (2 * bits - 1).astype(dtype)[:, None]
        length = jnp.asarray(self.length, jnp.int32)
        return Example(xs, jnp.where(counts, parities, 0), counts.astype(dtype), length)
