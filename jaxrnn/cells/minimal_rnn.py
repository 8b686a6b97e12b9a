"""The recurrent network that does nothing but average what it sees."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import draw_blocks
from jaxrnn.cells.gated import CarryH, Gated
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate


class MinimalRNNParams(NamedTuple):
    """Parameters of a `MinimalRNN`: `W_x` and `b` make z, `W_h` stacks U_h and U_z.

    `b_h` is the bias of the gate, and with biases=2 one for each of U_h and U_z.
    """

    W_x: Float[Array, "1 H I"]
    W_h: Float[Array, "2 H H"]
    b: Float[Array, "1 H"] | None
    b_h: Float[Array, "own H"] | None
    initial: CarryH | None


class MinimalRNNGates(NamedTuple):
    """Values of one step: u in (0, 1), and z, the input as the carry sees it, in (−1, 1)."""

    update: Float[Array, " H"]
    candidate: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class MinimalRNN(Gated):
    """Chen 2017 (1711.06788): each unit averages the encoded input, and no unit mixes with others.

        z   = tanh(W x_t + b)
        u   = σ(U_h h_{t-1} + U_z z + b_h)
        h_t = u ⊙ h_{t-1} + (1 − u) ⊙ z

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_h` stacks U_h and U_z. The paper leaves the encoder z = Φ(x_t) open; this is its
    example of one layer. Any other one goes before the cell.

    biases: 0 for none, 1 for b and b_h, 2 for one b_h for each of U_h and U_z.
    bias_initializer, recurrent_bias_initializer: for b, that of z, and for b_h, that of u.
    """

    gates_of_x = (Gate("candidate"),)
    gates_of_carry = (Gate("update", keeps=+1), Gate("update", keeps=+1))
    params_type = MinimalRNNParams

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> MinimalRNNParams:
        """Draws fresh parameters."""
        of_carry = self.gates_of_carry
        blocks = draw_blocks(self, self.gates_of_x, key, dtype, own=1, of_carry=of_carry)
        return MinimalRNNParams(*blocks, self.learned(dtype))

    def stages(self, params: MinimalRNNParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x, of h and of z."""
        U, b = params.W_h, params.b_h
        b_h = b[:1] if b is not None and len(b) == 2 else None
        b_z = None if b is None else b[-1:]
        return Dense(params.W_x, params.b), (Dense(U[:1], b_h), Dense(U[1:], b_z))

    def gate_values(
        self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map, of_z: Map
    ) -> MinimalRNNGates:
        """The values of the gate and of the encoded input."""
        (x_z,) = from_x
        z = jnp.tanh(x_z)
        (a_u,) = of_z(z, plus=of_h(carry.h))
        return MinimalRNNGates(jax.nn.sigmoid(a_u), z)

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], *of_carry: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        u, z = self.gate_values(carry, from_x, *of_carry)
        h = u * carry.h + (1 - u) * z
        return CarryH(h), h
