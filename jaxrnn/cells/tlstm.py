"""The strongly-typed long short-term memory: its gates read two inputs, and never the carry."""

import dataclasses
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from jaxrnn.cells.tgru import Typed, TypedParams


class TLSTMCarry(NamedTuple):
    """What the next step of a `TLSTM` needs: its cell state c, and the input x just read."""

    c: Float[Array, " H"]
    x: Float[Array, " I"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class TLSTM(Typed):
    """Balduzzi and Ghifary 2016 (1602.02218): the strongly-typed LSTM, their T-LSTM.

        z   = W x_t + V x_{t-1} + b                   one W, V, b for each gate
        f   = σ(W x_t + V x_{t-1} + b)
        o   = tanh(W x_t + V x_{t-1} + b)
        c_t = f ⊙ c_{t-1} + (1 − f) ⊙ z
        y_t = c_t ⊙ o

    x_t has shape (input_size,); c_t and the output y_t, which no later step needs, (hidden_size,).
    `params.W_x` stacks the W, `params.V_x` the V, in the order z, f, o. The input before the
    first is zero.
    """

    carry_type = TLSTMCarry

    def step(
        self, params: TypedParams, carry: TLSTMCarry, x: Float[Array, " I"]
    ) -> tuple[TLSTMCarry, Float[Array, " H"]]:
        """One step for one example."""
        z, f, o = self.gates(params, carry, x)
        c = f * carry.c + (1 - f) * z
        return TLSTMCarry(c, x), c * o
