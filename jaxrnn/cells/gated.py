"""What cells made of gates share: sizes, initialisers, stacked blocks, and the step itself."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cell import staged_step
from jaxrnn.cells.blocks import check_sizes, draw_blocks
from jaxrnn.dense import Dense
from jaxrnn.initializers import Gates, Initializer, Uniform, Zeros


class GatedParams(NamedTuple):
    """Parameters of a gated cell, gates in the order its docstring names them.

    `W_x` and `b` hold the gates that read x, `W_h` and `b_h` those that read the carry.
    """

    W_x: Float[Array, "gates H I"]
    W_h: Float[Array, "gates H H"]
    b: Float[Array, "gates H"] | None
    b_h: Float[Array, "own H"] | None
    initial: Any


class CarryH(NamedTuple):
    """The carry of a cell that needs nothing but its output h."""

    h: Float[Array, " H"]


class CarryHC(NamedTuple):
    """The carry of a cell that keeps c beside its output h."""

    h: Float[Array, " H"]
    c: Float[Array, " H"]


@dataclasses.dataclass(frozen=True)
class Gated:
    """The common part of gated cells, which write `gate_values` and `elementwise`.

    gate_values(carry, from_x, *of_carry) returns a NamedTuple with the value of every gate in one
    step; elementwise, which calls it, the next carry and the output; see `jaxrnn.cell`.

    biases: 0 for none, 1 for b, on the side of x, 2 for b and b_h, one on each side.
    learned_carry: whether the initial carry is a parameter, `params.initial`, which starts at zero.
    input_initializer, recurrent_initializer: for W_x and W_h; one for all gates, or a tuple.
    bias_initializer, recurrent_bias_initializer: for b and b_h.
    """

    input_size: int
    hidden_size: int
    _: dataclasses.KW_ONLY
    biases: int = 1
    learned_carry: bool = False
    input_initializer: Initializer | tuple[Initializer, ...] = Uniform()
    recurrent_initializer: Initializer | tuple[Initializer, ...] = Uniform()
    bias_initializer: Initializer | tuple[Initializer, ...] = Uniform()
    recurrent_bias_initializer: Initializer | tuple[Initializer, ...] = Zeros()

    # the gates that read x, and those that read the carry, which are the same unless named
    gates_of_x: ClassVar[Gates] = ()
    gates_of_carry: ClassVar[Gates | None] = None
    params_type: ClassVar[Any] = GatedParams
    carry_type: ClassVar[Any] = CarryH

    def __post_init__(self) -> None:
        check_sizes(self)

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.hidden_size

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> Any:
        """Draws fresh parameters."""
        blocks = draw_blocks(self, self.gates_of_x, key, dtype, of_carry=self.gates_of_carry)
        return self.params_type(*blocks, initial=self.learned(dtype))

    def learned(self, dtype: DTypeLike) -> Any:
        """What `params.initial` starts as: zeros, or None if the carry is not learned."""
        return self.zero_carry(dtype) if self.learned_carry else None

    def zero_carry(self, dtype: DTypeLike) -> Any:
        """A carry of zeros, H in each field."""
        zeros = jnp.zeros(self.hidden_size, dtype)
        return self.carry_type(*(zeros for _ in self.carry_type._fields))

    def initial_carry(self, params: Any) -> Any:
        """Zeros, or `params.initial` if the carry is learned."""
        return self.zero_carry(params.W_x.dtype) if params.initial is None else params.initial

    def stages(self, params: Any) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x and of the carry, all gates at once."""
        return Dense(params.W_x, params.b), (Dense(params.W_h, params.b_h),)

    def step(self, params: Any, carry: Any, x: Float[Array, " I"]) -> tuple[Any, Array]:
        """One step for one example."""
        return staged_step(self, params, carry, x)

    def gates(self, params: Any, carry: Any, x: Float[Array, " I"]) -> Any:
        """The values of the gates in one step, before the carry is made of them."""
        of_x, of_carry = self.stages(params)
        return self.gate_values(carry, of_x(x), *of_carry)

    # (carry, from_x, *of_carry) -> NamedTuple; each cell names the maps of its own
    gate_values: ClassVar[Callable[..., Any]]


def two_maps(W_h: Array, b_h: Array | None, first: int) -> tuple[Dense, Dense]:
    """W_h and its biases as two maps of the carry, the first of which has `first` gates."""
    b_1, b_2 = (None, None) if b_h is None else (b_h[:first], b_h[first:])
    return Dense(W_h[:first], b_1), Dense(W_h[first:], b_2)
