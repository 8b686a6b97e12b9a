"""Copying: say again, much later, what was said at first."""

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
    symbols,
)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Copying(Classification):
    """`count` symbols in a row, a long blank, and then the same symbols again.

    xs (T, symbols + 2), one-hot: `count` symbols, `delay` − 1 blanks, one sign to begin, `count`
    blanks: T = delay + 2 count steps. Every step counts; the targets are blanks, class `symbols`,
    and at the last `count` steps the symbols of the beginning.

    baseline: count ln(symbols) / (delay + 2 count), in nats: blanks for certain, then a guess; by
        default 10 ln 8 / (T + 20) with T = delay, the line in Arjovsky et al. 2016 (1511.06464).
    correct: the right class has the largest output at every step.

    delay: steps from the last symbol to the sign, T in papers.
    symbols: kinds of symbols besides the blank and the sign.
    count: how many are to be copied.

    The form is that of Arjovsky et al. and of their code.
    """

    delay: int = 100
    symbols: int = 8
    count: int = 10

    def __post_init__(self) -> None:
        check_whole(self, "delay", 1)
        check_whole(self, "symbols", 2)
        check_whole(self, "count", 1)

    @property
    def input_size(self) -> int:
        """The symbols, the blank and the sign."""
        return self.symbols + 2

    @property
    def output_size(self) -> int:
        """The symbols and the blank."""
        return self.symbols + 1

    @property
    def length(self) -> int:
        """T = delay + 2 count."""
        return self.delay + 2 * self.count

    @property
    def baseline(self) -> float:
        """count ln(symbols) / (delay + 2 count)."""
        return self.count * math.log(self.symbols) / self.length

    def sample(self, key: Array, dtype: DTypeLike = jnp.float32) -> Example:
        """Draws one example."""
        check_dtype(self, dtype)
        said = draw_int(key, (self.count,), 0, self.symbols)
        blanks = jnp.full(self.length - self.count, self.symbols, jnp.int32)
        ids = jnp.concatenate([said, blanks]).at[-self.count - 1].set(self.symbols + 1)
        targets = jnp.concatenate([blanks, said])
        weights = jnp.ones(self.length, dtype)
        xs = symbols(ids, self.input_size, dtype)
        return Example(xs, targets, weights, jnp.asarray(self.length, jnp.int32))
