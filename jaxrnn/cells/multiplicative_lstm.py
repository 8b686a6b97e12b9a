"""The LSTM whose recurrent map depends on the input."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import draw_blocks
from jaxrnn.cells.gated import Gated
from jaxrnn.cells.lstm import LSTMCarry
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate


class MultiplicativeLSTMParams(NamedTuple):
    """Parameters of a `MultiplicativeLSTM`: intermediate, input, forget, candidate, output.

    The intermediate state has no bias: `b` and `b_h` belong to the other four.
    """

    W_x: Float[Array, "5 H I"]
    W_h: Float[Array, "5 H H"]
    b: Float[Array, "4 H"] | None
    b_h: Float[Array, "4 H"] | None
    initial: LSTMCarry | None


class MultiplicativeLSTMGates(NamedTuple):
    """Values of one step: the intermediate m, and the gates and candidate made of it."""

    intermediate: Float[Array, " H"]
    input: Float[Array, " H"]
    forget: Float[Array, " H"]
    candidate: Float[Array, " H"]
    output: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class MultiplicativeLSTM(Gated):
    """Krause et al. 2016 (1609.07959): an LSTM with another transition for every input.

        m       = (W x_t) ⊙ (U h_{t-1})
        i, f, o = σ(W x_t + b + U m + b_h)      one W, U, b, b_h for each gate
        g       = tanh(W x_t + b + U m + b_h)
        c_t     = f ⊙ c_{t-1} + i ⊙ g
        h_t     = o ⊙ tanh(c_t)

    x_t has shape (input_size,); h_t, which is also the output, and c_t have (hidden_size,).
    `params.W_x` stacks the W, `params.W_h` the U, in the order m, i, f, g, o; an initialiser given
    as a tuple has five members, for biases too, which m does not keep.

    The authors' first code squashes once, h_t = tanh(o ⊙ c_t + b), with a linear candidate; this
    is their later code's form.
    """

    gates_of_x = (
        Gate("intermediate"),
        Gate("input", writes=+1),
        Gate("forget", keeps=+1),
        Gate("candidate"),
        Gate("output"),
    )
    params_type = MultiplicativeLSTMParams
    carry_type = LSTMCarry

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> MultiplicativeLSTMParams:
        """Draws fresh parameters."""
        W_x, W_h, b, b_h = draw_blocks(self, self.gates_of_x, key, dtype)
        b, b_h = (None if rows is None else rows[1:] for rows in (b, b_h))
        return MultiplicativeLSTMParams(W_x, W_h, b, b_h, self.learned(dtype))

    def stages(self, params: MultiplicativeLSTMParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x, of h and of m."""
        of_carry = Dense(params.W_h[:1]), Dense(params.W_h[1:], params.b_h)
        return Dense(params.W_x, params.b), of_carry

    def gate_values(
        self, carry: LSTMCarry, from_x: tuple[Array, ...], of_h: Map, of_m: Map
    ) -> MultiplicativeLSTMGates:
        """The values of the intermediate state, the three gates and the candidate."""
        x_m, *gates = from_x
        (h_m,) = of_h(carry.h)
        m = x_m * h_m
        i, f, g, o = of_m(m, plus=tuple(gates))
        i, f, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jax.nn.sigmoid(o)
        return MultiplicativeLSTMGates(m, i, f, jnp.tanh(g), o)

    def elementwise(
        self, carry: LSTMCarry, from_x: tuple[Array, ...], *of_carry: Map
    ) -> tuple[LSTMCarry, Float[Array, " H"]]:
        """The step between the dense maps."""
        _, i, f, g, o = self.gate_values(carry, from_x, *of_carry)
        c = f * carry.c + i * g
        h = o * jnp.tanh(c)
        return LSTMCarry(h, c), h
