"""The LSTM that forgets exactly what it overwrites."""

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
from jaxrnn.initializers import Gate, Initializer, Uniform, draw_gates


class CoupledLSTMParams(NamedTuple):
    """Parameters of a `CoupledLSTM`, gates in the order input, candidate, output.

    `peepholes`, if there are any, are those of input and output.
    """

    W_x: Float[Array, "3 H I"]
    W_h: Float[Array, "3 H H"]
    b: Float[Array, "3 H"] | None
    b_h: Float[Array, "3 H"] | None
    initial: LSTMCarry | None
    peepholes: Float[Array, "2 H"] | None


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class CoupledLSTM(Gated):
    """Greff et al. 2015 (1503.04069), CIFG: the LSTM with input and forget gate coupled.

        i   = σ(W x_t + b + U h_{t-1} + b_h + p ⊙ c_{t-1})      one W, U, b, b_h for each gate
        f   = 1 − i
        g   = tanh(W x_t + b + U h_{t-1} + b_h)
        c_t = f ⊙ c_{t-1} + i ⊙ g
        o   = σ(W x_t + b + U h_{t-1} + b_h + p ⊙ c_t)
        h_t = o ⊙ tanh(c_t)

    x_t has shape (input_size,); h_t, which is also the output, and c_t have (hidden_size,).
    `params.W_x` stacks the W, `params.W_h` the U, in the order i, g, o.

    peepholes: whether there are the p, `params.peepholes`, in the order i, o. The paper has them;
        without them, the default, what differs from `LSTM` is the coupling alone.
    peephole_initializer: for the peepholes.
    """

    peepholes: bool = False
    _: dataclasses.KW_ONLY
    peephole_initializer: Initializer | tuple[Initializer, ...] = Uniform()

    gates_of_x = (Gate("input", keeps=-1), Gate("candidate"), Gate("output"))
    params_type = CoupledLSTMParams
    carry_type = LSTMCarry

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> CoupledLSTMParams:
        """Draws fresh parameters."""
        k_blocks, k_p = jax.random.split(key)
        blocks = draw_blocks(self, self.gates_of_x, k_blocks, dtype)
        p = None
        if self.peepholes:
            i, _, o = self.gates_of_x
            p = draw_gates(self.peephole_initializer, k_p, (i, o), (self.hidden_size,), dtype)
        return CoupledLSTMParams(*blocks, self.learned(dtype), p)

    def stages(self, params: CoupledLSTMParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x, with the peepholes, and of h."""
        p = () if params.peepholes is None else tuple(params.peepholes)
        return Dense(params.W_x, params.b, p), (Dense(params.W_h, params.b_h),)

    def gate_values(self, carry: LSTMCarry, from_x: tuple[Array, ...], of_h: Map) -> LSTMGates:
        """The values of the gates, f = 1 − i among them, and of the candidate."""
        gates, p = from_x[:3], from_x[3:]
        i, g, o = of_h(carry.h, plus=gates)
        i = jax.nn.sigmoid(i + p[0] * carry.c if p else i)
        f, g = 1 - i, jnp.tanh(g)
        o = jax.nn.sigmoid(o + p[1] * (f * carry.c + i * g) if p else o)
        return LSTMGates(i, f, g, o)

    def elementwise(
        self, carry: LSTMCarry, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[LSTMCarry, Float[Array, " H"]]:
        """The step between the dense maps."""
        i, f, g, o = self.gate_values(carry, from_x, of_h)
        c = f * carry.c + i * g
        h = o * jnp.tanh(c)
        return LSTMCarry(h, c), h
