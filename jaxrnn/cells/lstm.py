"""Long short-term memory, in the form with a forget gate that everyone uses."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cell import staged_step
from jaxrnn.cells.blocks import check_sizes, draw_blocks
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate, Initializer, Uniform, Zeros

_GATES = (Gate("input", writes=+1), Gate("forget", keeps=+1), Gate("candidate"), Gate("output"))


class LSTMParams(NamedTuple):
    """Parameters of an `LSTM`, gates in the order input, forget, candidate, output."""

    W_x: Float[Array, "4 H I"]
    W_h: Float[Array, "4 H H"]
    b: Float[Array, "4 H"] | None
    b_h: Float[Array, "4 H"] | None
    initial: "LSTMCarry | None"


class LSTMCarry(NamedTuple):
    """What the next step of an `LSTM` needs: its output h and its cell state c."""

    h: Float[Array, " H"]
    c: Float[Array, " H"]


class LSTMGates(NamedTuple):
    """Gate values of one step: i, f and o in (0, 1), the candidate in (−1, 1)."""

    input: Float[Array, " H"]
    forget: Float[Array, " H"]
    candidate: Float[Array, " H"]
    output: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class LSTM:
    """Hochreiter and Schmidhuber 1997, with the forget gate of Gers, Schmidhuber and Cummins 2000.

        i, f, o = σ(W x_t + b + U h_{t-1} + b_h)      one W, U, b, b_h for each gate
        g       = tanh(W x_t + b + U h_{t-1} + b_h)
        c_t     = f ⊙ c_{t-1} + i ⊙ g
        h_t     = o ⊙ tanh(c_t)

    x_t has shape (input_size,); h_t, which is also the output, and c_t have (hidden_size,).
    `params.W_x` stacks the W, `params.W_h` the U, in the order i, f, g, o, which is PyTorch's.

    biases: 0 for none, 1 for b, 2 for b and b_h (PyTorch's `nn.LSTM`).
    learned_carry: whether h_0 and c_0 are parameters, `params.initial`, which start at zero.
    """

    input_size: int
    hidden_size: int
    biases: int = 1
    learned_carry: bool = False
    input_initializer: Initializer | tuple[Initializer, ...] = Uniform()
    recurrent_initializer: Initializer | tuple[Initializer, ...] = Uniform()
    bias_initializer: Initializer | tuple[Initializer, ...] = Uniform()
    recurrent_bias_initializer: Initializer | tuple[Initializer, ...] = Zeros()

    def __post_init__(self) -> None:
        check_sizes(self)

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.hidden_size

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> LSTMParams:
        """Draws fresh parameters."""
        blocks = draw_blocks(self, _GATES, key, dtype)
        zeros = jnp.zeros(self.hidden_size, dtype)
        return LSTMParams(*blocks, LSTMCarry(zeros, zeros) if self.learned_carry else None)

    def initial_carry(self, params: LSTMParams) -> LSTMCarry:
        """Zeros, or `params.initial` if the carry is learned."""
        if params.initial is not None:
            return params.initial
        zeros = jnp.zeros(self.hidden_size, params.W_h.dtype)
        return LSTMCarry(zeros, zeros)

    def stages(self, params: LSTMParams) -> tuple[Dense, tuple[Dense]]:
        """The dense maps of x and of h, all four gates at once."""
        return Dense(params.W_x, params.b), (Dense(params.W_h, params.b_h),)

    def elementwise(
        self, carry: LSTMCarry, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[LSTMCarry, Float[Array, " H"]]:
        """The step between the dense maps."""
        i, f, g, o = _activate(of_h(carry.h, plus=from_x))
        c = f * carry.c + i * g
        h = o * jnp.tanh(c)
        return LSTMCarry(h, c), h

    def step(
        self, params: LSTMParams, carry: LSTMCarry, x: Float[Array, " I"]
    ) -> tuple[LSTMCarry, Float[Array, " H"]]:
        """One step for one example."""
        return staged_step(self, params, carry, x)

    def gates(self, params: LSTMParams, carry: LSTMCarry, x: Float[Array, " I"]) -> LSTMGates:
        """The values of the three gates and the candidate."""
        of_x, (of_h,) = self.stages(params)
        return _activate(of_h(carry.h, plus=of_x(x)))


def _activate(a: tuple[Array, ...]) -> LSTMGates:
    i, f, g, o = a
    return LSTMGates(jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o))
