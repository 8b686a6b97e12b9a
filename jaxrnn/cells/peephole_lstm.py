"""The LSTM whose gates look at the cell through peepholes."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_choice, draw_blocks
from jaxrnn.cells.gated import Gated
from jaxrnn.cells.lstm import LSTMCarry, LSTMGates
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate, Initializer, Uniform, draw_gates


class PeepholeLSTMParams(NamedTuple):
    """Parameters of a `PeepholeLSTM`, gates in the order input, forget, candidate, output.

    `peepholes` are those of input, forget and output.
    """

    W_x: Float[Array, "4 H I"]
    W_h: Float[Array, "4 H H"]
    b: Float[Array, "4 H"] | None
    b_h: Float[Array, "4 H"] | None
    initial: LSTMCarry | None
    peepholes: Float[Array, "3 H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class PeepholeLSTM(Gated):
    """Gers and Schmidhuber 2000, "Recurrent nets that time and count": gates that see the cell.

        i, f = σ(W x_t + b + U h_{t-1} + b_h + p ⊙ c_{t-1})      one p for each gate
        g    = tanh(W x_t + b + U h_{t-1} + b_h)
        c_t  = f ⊙ c_{t-1} + i ⊙ g
        o    = σ(W x_t + b + U h_{t-1} + b_h + p ⊙ c_t)
        h_t  = o ⊙ tanh(c_t)

    x_t has shape (input_size,); h_t, which is also the output, and c_t have (hidden_size,).
    `params.W_x` stacks the W, `params.W_h` the U, in the order i, f, g, o, and
    `params.peepholes` the p, in the order i, f, o. The output gate sees the new c.

    output_activation: "tanh", as in Graves 2013 (1308.0850) and all libraries, or "identity",
        h_t = o ⊙ c_t, as in the paper and in Gers, Schraudolph and Schmidhuber 2002.
    peephole_initializer: for the peepholes.
    """

    output_activation: str = "tanh"
    _: dataclasses.KW_ONLY
    peephole_initializer: Initializer | tuple[Initializer, ...] = Uniform()

    gates_of_x = (
        Gate("input", writes=+1),
        Gate("forget", keeps=+1),
        Gate("candidate"),
        Gate("output"),
    )
    params_type = PeepholeLSTMParams
    carry_type = LSTMCarry

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "output_activation", ("tanh", "identity"))

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> PeepholeLSTMParams:
        """Draws fresh parameters."""
        k_blocks, k_p = jax.random.split(key)
        blocks = draw_blocks(self, self.gates_of_x, k_blocks, dtype)
        i, f, _, o = self.gates_of_x
        p = draw_gates(self.peephole_initializer, k_p, (i, f, o), (self.hidden_size,), dtype)
        return PeepholeLSTMParams(*blocks, self.learned(dtype), p)

    def stages(self, params: PeepholeLSTMParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x, with the peepholes, and of h."""
        of_x = Dense(params.W_x, params.b, tuple(params.peepholes))
        return of_x, (Dense(params.W_h, params.b_h),)

    def gate_values(self, carry: LSTMCarry, from_x: tuple[Array, ...], of_h: Map) -> LSTMGates:
        """The values of the three gates and the candidate."""
        *gates, p_i, p_f, p_o = from_x
        a_i, a_f, a_g, a_o = of_h(carry.h, plus=tuple(gates))
        i = jax.nn.sigmoid(a_i + p_i * carry.c)
        f = jax.nn.sigmoid(a_f + p_f * carry.c)
        g = jnp.tanh(a_g)
        c = f * carry.c + i * g
        return LSTMGates(i, f, g, jax.nn.sigmoid(a_o + p_o * c))

    def elementwise(
        self, carry: LSTMCarry, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[LSTMCarry, Float[Array, " H"]]:
        """The step between the dense maps."""
        i, f, g, o = self.gate_values(carry, from_x, of_h)
        c = f * carry.c + i * g
        h = o * (jnp.tanh(c) if self.output_activation == "tanh" else c)
        return LSTMCarry(h, c), h
