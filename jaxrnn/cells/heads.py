"""What cells with a matrix for memory share: queries, keys and values of several heads."""

import dataclasses

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.affine import AssociativeStep
from jaxrnn.cells.blocks import check_at_least, check_divides
from jaxrnn.initializers import FanIn, Gate, Initializer, draw_gates


@dataclasses.dataclass(frozen=True)
class Heads(AssociativeStep):
    """The common part of cells of several heads, each with a matrix of its own.

    heads: how many; each has values of size hidden_size / heads.
    key_size: of the queries and keys of one head; None for that of the values.
    input_initializer: for every map of x, head by head.
    """

    input_size: int
    hidden_size: int
    heads: int = 1
    key_size: int | None = None
    _: dataclasses.KW_ONLY
    input_initializer: Initializer = FanIn()

    def __post_init__(self) -> None:
        check_at_least(self, 0, "input_size")
        check_at_least(self, 1, "hidden_size", "keys")
        check_divides(self, "heads", "hidden_size")

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.hidden_size

    @property
    def values(self) -> int:
        """Size of a value."""
        return self.hidden_size // self.heads

    @property
    def keys(self) -> int:
        """Size of a key."""
        return self.values if self.key_size is None else self.key_size

    def draw(self, key: Array, size: int, dtype: DTypeLike) -> Float[Array, "heads size I"]:
        """A map of x to so many numbers for each head."""
        heads = (Gate("head"),) * self.heads
        return draw_gates(self.input_initializer, key, heads, (size, self.input_size), dtype)


def outer(v: Float[Array, "heads V"], k: Float[Array, "heads K"]) -> Float[Array, "heads V K"]:
    """v kᵀ, head by head."""
    return v[:, :, None] * k[:, None, :]


def times(M: Float[Array, "heads V K"], k: Float[Array, "heads K"]) -> Float[Array, "heads V"]:
    """M k, head by head."""
    return (M @ k[:, :, None])[:, :, 0]


def unit(v: Float[Array, "heads K"]) -> Float[Array, "heads K"]:
    """v / |v|, head by head, where the square has 1e-6 added: |v| has no derivative at zero."""
    return v / jnp.sqrt((v * v).sum(axis=1, keepdims=True) + 1e-6)
