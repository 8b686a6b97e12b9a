"""What cells linear in time share: a step made of its element, and carry ← a ⊙ carry + b.

A stretch of such steps is of the same form as one of them, which is what `combine` says.
"""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float, Inexact

from jaxrnn.cells.blocks import check_dtype, check_one_bias, check_sizes
from jaxrnn.cells.gated import CarryH
from jaxrnn.dense import Dense
from jaxrnn.initializers import FanIn, Gates, Initializer, Zeros, draw_gates


class AssociativeStep:
    """A cell that writes `element`, `combine`, `apply` and `output`, and so has its step."""

    element: Any
    combine: Any
    apply: Any
    output: Any

    def step(self, params: Any, carry: Any, x: Array) -> tuple[Any, Array]:
        """One step for one example."""
        carry = self.apply(self.element(params, x), carry)
        return carry, self.output(params, carry, x)


class AffineElement(NamedTuple):
    """What a stretch of steps does to a carry: carry ← a ⊙ carry + b."""

    a: Inexact[Array, "*shape"]
    b: Inexact[Array, "*shape"]


class Diagonal(AssociativeStep):
    """A cell whose carry, of one field, goes through a ⊙ carry + b."""

    def combine(self, older: AffineElement, newer: AffineElement) -> AffineElement:
        """First one stretch, then the next."""
        return AffineElement(newer.a * older.a, newer.a * older.b + newer.b)

    def apply(self, element: AffineElement, carry: Any) -> Any:
        """The carry after a stretch of steps."""
        (before,) = carry
        return type(carry)(element.a * before + element.b)

    def output(self, params: Any, carry: Any, x: Array) -> Array:
        """The carry itself."""
        (y,) = carry
        return y


class InputGatedParams(NamedTuple):
    """Parameters of a cell whose gates read x alone, in the order its docstring names them."""

    W_x: Float[Array, "gates H K"]
    b: Float[Array, "gates H"] | None


@dataclasses.dataclass(frozen=True)
class InputGated(Diagonal):
    """The common part of cells whose gates read x alone.

    biases: 0 for none, 1 for b.
    input_initializer, bias_initializer: for W_x and b; one for all gates, or a tuple.
    """

    input_size: int
    hidden_size: int
    _: dataclasses.KW_ONLY
    biases: int = 1
    input_initializer: Initializer | tuple[Initializer, ...] = FanIn()
    bias_initializer: Initializer | tuple[Initializer, ...] = Zeros()

    gates_of_x: ClassVar[Gates]
    carry_type: ClassVar[Any] = CarryH

    def __post_init__(self) -> None:
        check_sizes(self)
        check_one_bias(self)

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.hidden_size

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> Any:
        """Draws fresh parameters."""
        return InputGatedParams(*self.draw(self.gates_of_x, self.input_size, key, dtype))

    def draw(
        self, gates: Gates, columns: int, key: Array, dtype: DTypeLike
    ) -> tuple[Array, Array | None]:
        """W_x, with so many columns, and b."""
        check_dtype(dtype)
        k_x, k_b = jax.random.split(key)
        H = self.hidden_size
        W_x = draw_gates(self.input_initializer, k_x, gates, (H, columns), dtype)
        if self.biases == 0:
            return W_x, None
        return W_x, draw_gates(self.bias_initializer, k_b, gates, (H,), dtype)

    def initial_carry(self, params: Any) -> Any:
        """Zeros."""
        return self.carry_type(jnp.zeros(self.hidden_size, params.W_x.dtype))

    def of_x(self, params: Any, x: Float[Array, " K"]) -> tuple[Float[Array, " H"], ...]:
        """W x + b, gate by gate."""
        return Dense(params.W_x, params.b)(x)


def discretize(
    A: Complex[Array, "*shape"], delta: Float[Array, "*some"], rule: str
) -> tuple[Complex[Array, "*shape"], Complex[Array, "*shape"]]:
    """dh/dt = A h + B u, diagonal, held for a time Δ: Ā, and what B is to be multiplied by.

    rule: "zero-order hold" of u, exp(Δ A) and (exp(Δ A) − 1) / A; or "bilinear",
        (1 + Δ A / 2) / (1 − Δ A / 2) and Δ / (1 − Δ A / 2).
    """
    z = A * delta.astype(A.dtype)
    if rule == "bilinear":
        half = 1 - z / 2
        return (1 + z / 2) / half, delta.astype(A.dtype) / half
    return jnp.exp(z), jnp.expm1(z) / A


def as_complex(real: Float[Array, "*shape"], imag: Float[Array, "*shape"]) -> Array:
    """real + i imag, where bfloat16 becomes complex64."""
    wide = at_least_float32(real.dtype)
    return jax.lax.complex(real.astype(wide), imag.astype(wide))


def complex_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Zeros of the complex dtype that goes with real params of `dtype`."""
    zeros = jnp.zeros(shape, dtype)
    return as_complex(zeros, zeros)


def log_uniform(
    key: Array, shape: tuple[int, ...], least: float, most: float, dtype: DTypeLike
) -> Array:
    """ln u, where ln u is uniform between ln least and ln most."""
    limits = (math.log(least), math.log(most))
    return jax.random.uniform(key, shape, at_least_float32(dtype), *limits).astype(dtype)


def inverse_softplus(a: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The b whose softplus is a."""
    # ln(eᵃ − 1), without overflow or cancellation
    return a + jnp.log(-jnp.expm1(-a))


def at_least_float32(dtype: DTypeLike) -> Any:
    """What numbers of `dtype` are drawn, or made complex, in."""
    return jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32


def check_range(cell: Any, least: str, most: str, highest: float = math.inf) -> None:
    """Raises unless 0 < least < most ≤ highest, for two fields."""
    low, high = getattr(cell, least), getattr(cell, most)
    if not 0 < low < high <= highest:
        end = "" if highest == math.inf else f" <= {highest}"
        raise ValueError(
            f"{type(cell).__name__}: expected 0 < {least} < {most}{end}, got {low!r} and {high!r}"
        )
