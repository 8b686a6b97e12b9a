"""The strongly-typed gated recurrent unit: its gates read two inputs, and never the carry."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_dtype, check_one_bias, check_sizes
from jaxrnn.dense import Dense
from jaxrnn.initializers import FanIn, Gate, Initializer, Zeros, draw_gates


class TypedParams(NamedTuple):
    """Parameters of a `TGRU` or `TLSTM`, gates in the order z, f, o.

    `W_x` is applied to this input, `V_x` to the one before.
    """

    W_x: Float[Array, "3 H I"]
    V_x: Float[Array, "3 H I"]
    b: Float[Array, "3 H"] | None


class TypedGates(NamedTuple):
    """Gate values of one step: z is linear, f lies in (0, 1), o in (−1, 1)."""

    candidate: Float[Array, " H"]
    forget: Float[Array, " H"]
    output: Float[Array, " H"]


class TGRUCarry(NamedTuple):
    """What the next step of a `TGRU` needs: its output h, and the input x it has just read."""

    h: Float[Array, " H"]
    x: Float[Array, " I"]


@dataclasses.dataclass(frozen=True)
class Typed:
    """The common part of `TGRU` and `TLSTM`: three gates of this input and the one before.

    biases: 0 for none, 1 for b.
    input_initializer: for W and V; one for all gates, or a tuple.
    bias_initializer: for b.
    """

    input_size: int
    hidden_size: int
    _: dataclasses.KW_ONLY
    biases: int = 1
    input_initializer: Initializer | tuple[Initializer, ...] = FanIn()
    bias_initializer: Initializer | tuple[Initializer, ...] = Zeros()

    gates_of_x: ClassVar = (Gate("candidate"), Gate("forget", keeps=+1), Gate("output"))
    carry_type: ClassVar[Any]

    def __post_init__(self) -> None:
        check_sizes(self)
        check_one_bias(self)

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.hidden_size

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> TypedParams:
        """Draws fresh parameters."""
        check_dtype(dtype)
        k_w, k_v, k_b = jax.random.split(key, 3)
        gates, H, shape = self.gates_of_x, self.hidden_size, (self.hidden_size, self.input_size)
        W_x = draw_gates(self.input_initializer, k_w, gates, shape, dtype)
        V_x = draw_gates(self.input_initializer, k_v, gates, shape, dtype)
        b = draw_gates(self.bias_initializer, k_b, gates, (H,), dtype) if self.biases else None
        return TypedParams(W_x, V_x, b)

    def initial_carry(self, params: TypedParams) -> Any:
        """Zeros: the input before the first is zero too."""
        zeros = (jnp.zeros(n, params.W_x.dtype) for n in (self.hidden_size, self.input_size))
        return self.carry_type(*zeros)

    def gates(self, params: TypedParams, carry: Any, x: Float[Array, " I"]) -> TypedGates:
        """The values of the candidate and the two gates in one step."""
        last = Dense(params.V_x, params.b)(carry.x)
        z, f, o = Dense(params.W_x)(x, plus=last)
        return TypedGates(z, jax.nn.sigmoid(f), jnp.tanh(o))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class TGRU(Typed):
    """Balduzzi and Ghifary 2016 (1602.02218): the strongly-typed GRU, their T-GRU.

        z   = W x_t + V x_{t-1} + b                   one W, V, b for each gate
        f   = σ(W x_t + V x_{t-1} + b)
        o   = tanh(W x_t + V x_{t-1} + b)
        h_t = f ⊙ h_{t-1} + z ⊙ o

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W, `params.V_x` the V, in the order z, f, o. The input before the
    first is zero.
    """

    carry_type = TGRUCarry

    def step(
        self, params: TypedParams, carry: TGRUCarry, x: Float[Array, " I"]
    ) -> tuple[TGRUCarry, Float[Array, " H"]]:
        """One step for one example."""
        z, f, o = self.gates(params, carry, x)
        h = f * carry.h + z * o
        return TGRUCarry(h, x), h
