"""The LSTM whose gates see the cell state through a squashed matrix, not through peepholes."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import draw_blocks
from jaxrnn.cells.gated import Gated
from jaxrnn.cells.lstm import LSTMCarry, LSTMGates
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate, draw_gates


class WMCLSTMParams(NamedTuple):
    """Parameters of a `WMCLSTM`: those of an `LSTM`, and W_c in the order i, f, o."""

    W_x: Float[Array, "4 H I"]
    W_h: Float[Array, "4 H H"]
    b: Float[Array, "4 H"] | None
    b_h: Float[Array, "4 H"] | None
    initial: LSTMCarry | None
    W_c: Float[Array, "3 H H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class WMCLSTM(Gated):
    """Landi et al. 2021 (2109.00020): the LSTM with working memory connections.

        i, f = σ(W x_t + b + U h_{t-1} + b_h + tanh(V c_{t-1}))  one W, U, V, b, b_h for each gate
        g    = tanh(W x_t + b + U h_{t-1} + b_h)
        c_t  = f ⊙ c_{t-1} + i ⊙ g
        o    = σ(W x_t + b + U h_{t-1} + b_h + tanh(V c_t))
        h_t  = o ⊙ tanh(c_t)

    x_t has shape (input_size,); h_t, which is also the output, and c_t have (hidden_size,).
    `params.W_x` stacks the W, `params.W_h` the U, in the order i, f, g, o, and `params.W_c` the V,
    in the order i, f, o. The output gate sees the new c.

    recurrent_initializer: for the U, a tuple having one for each of them, and the V.
    """

    gates_of_x = (
        Gate("input", writes=+1),
        Gate("forget", keeps=+1),
        Gate("candidate"),
        Gate("output"),
    )
    carry_type = LSTMCarry

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> WMCLSTMParams:
        """Draws fresh parameters."""
        key, k_c = jax.random.split(key)
        blocks = draw_blocks(self, self.gates_of_x, key, dtype)
        square = (self.hidden_size, self.hidden_size)
        V = draw_gates(self.recurrent_initializer, k_c, self.gates_of_x, square, dtype)
        return WMCLSTMParams(*blocks, self.learned(dtype), jnp.delete(V, 2, axis=0))

    def stages(self, params: WMCLSTMParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x, of h, of c for i and f, and of the new c for o."""
        of_h, of_c, of_new = params.W_h, params.W_c[:2], params.W_c[2:]
        return Dense(params.W_x, params.b), (Dense(of_h, params.b_h), Dense(of_c), Dense(of_new))

    def gate_values(
        self, carry: LSTMCarry, from_x: tuple[Array, ...], of_h: Map, of_c: Map, of_new: Map
    ) -> LSTMGates:
        """The values of the three gates and the candidate."""
        a_i, a_f, a_g, a_o = of_h(carry.h, plus=from_x)
        v_i, v_f = of_c(carry.c)
        i = jax.nn.sigmoid(a_i + jnp.tanh(v_i))
        f = jax.nn.sigmoid(a_f + jnp.tanh(v_f))
        g = jnp.tanh(a_g)
        (v_o,) = of_new(f * carry.c + i * g)
        return LSTMGates(i, f, g, jax.nn.sigmoid(a_o + jnp.tanh(v_o)))

    def elementwise(
        self, carry: LSTMCarry, from_x: tuple[Array, ...], of_h: Map, of_c: Map, of_new: Map
    ) -> tuple[LSTMCarry, Float[Array, " H"]]:
        """The step between the dense maps."""
        i, f, g, o = self.gate_values(carry, from_x, of_h, of_c, of_new)
        c = f * carry.c + i * g
        h = o * jnp.tanh(c)
        return LSTMCarry(h, c), h
