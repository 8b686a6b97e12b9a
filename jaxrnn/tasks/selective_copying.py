"""Selective copying: say again what was scattered among noise."""

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
    symbols,
)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class SelectiveCopying(Classification):
    """`count` symbols at random steps among noise, then the same symbols in order.

    As the gaps vary, counting steps, which is enough for `Copying`, no longer helps: what is to be
    kept must be told by what it is.

    xs (T, symbols + 2), one-hot: over the first `window` steps the symbols at random places and
    the sign for noise, `symbols`, elsewhere; then `count` times the sign to answer, `symbols` + 1.
    Only these last steps count; their targets are the symbols in the order in which they came.

    baseline: ln(symbols) nats, a guess.
    correct: the right class has the largest output at each of them.

    window: steps over which the symbols are scattered; sequences of the paper have 4096 steps.
    symbols: kinds of symbols; with the two signs the vocabulary of 16 of the paper.
    count: how many are to be copied.

    Gu and Dao 2023 (2312.00752), after the denoising task of Jing et al. 2019 (1706.02761).
    """

    window: int = 100
    symbols: int = 14
    count: int = 16

    def __post_init__(self) -> None:
        check_whole(self, "symbols", 2)
        check_whole(self, "count", 1)
        check_whole(self, "window", self.count, why=", the count of symbols in it")

    @property
    def input_size(self) -> int:
        """The symbols, the noise and the sign to answer."""
        return self.symbols + 2

    @property
    def output_size(self) -> int:
        """The symbols."""
        return self.symbols

    @property
    def length(self) -> int:
        """T = window + count."""
        return self.window + self.count

    @property
    def baseline(self) -> float:
        """ln(symbols)."""
        return math.log(self.symbols)

    def sample(self, key: Array, dtype: DTypeLike = jnp.float32) -> Example:
        """Draws one example."""
        check_dtype(self, dtype)
        k_symbols, k_places = jax.random.split(key)
        said = draw_int(k_symbols, (self.count,), 0, self.symbols)
        places = jnp.sort(jax.random.permutation(k_places, self.window)[: self.count])
        noise = jnp.full(self.window, self.symbols, jnp.int32)
        ask = jnp.full(self.count, self.symbols + 1, jnp.int32)
        xs = symbols(jnp.concatenate([noise.at[places].set(said), ask]), self.input_size, dtype)
        targets = jnp.concatenate([jnp.zeros(self.window, jnp.int32), said])
        weights = (step_numbers(self.length) >= self.window).astype(dtype)
        return Example(xs, targets, weights, jnp.asarray(self.length, jnp.int32))
