"""Just another network: the LSTM with its forget gate alone."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrnn.cells.gated import CarryH, Gated
from jaxrnn.dense import Map
from jaxrnn.initializers import Gate


class JANETGates(NamedTuple):
    """Values of one step: what is kept and what is let in, in (0, 1), and the candidate."""

    forget: Float[Array, " H"]
    input: Float[Array, " H"]
    candidate: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class JANET(Gated):
    """Van der Westhuizen and Lasenby 2018 (1804.04849): the LSTM with its forget gate alone.

        s   = W x_t + b + U h_{t-1} + b_h             one W, U, b, b_h for each of s and n
        n   = tanh(W x_t + b + U h_{t-1} + b_h)
        h_t = σ(s) ⊙ h_{t-1} + (1 − σ(s − β)) ⊙ n

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,). The paper's c_t is
    the same as h_t. `params.W_x` stacks the W, `params.W_h` the U, in the order s, n.
    The paper starts with `bias_initializer=Chrono(longest)`.

    beta: β, by which more is let in than is forgotten; 1 in the paper, 0 couples the two.
    """

    beta: float = 1.0

    gates_of_x = (Gate("forget", keeps=+1), Gate("candidate"))

    def gate_values(self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map) -> JANETGates:
        """The values of the gate, of what it lets in, and of the candidate."""
        s, n = of_h(carry.h, plus=from_x)
        # 1 − σ(a) = σ(−a), without the rounding
        return JANETGates(jax.nn.sigmoid(s), jax.nn.sigmoid(self.beta - s), jnp.tanh(n))

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        f, i, n = self.gate_values(carry, from_x, of_h)
        h = f * carry.h + i * n
        return CarryH(h), h
