"""The update gate RNN."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrnn.cells.gated import CarryH, Gated
from jaxrnn.dense import Map
from jaxrnn.initializers import Gate


class UGRNNGates(NamedTuple):
    """Gate values of one step: g in (0, 1), the candidate in (−1, 1)."""

    update: Float[Array, " H"]
    candidate: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class UGRNN(Gated):
    """Collins, Sohl-Dickstein and Sussillo 2017 (1611.09913): an update gate and nothing else.

        g   = σ(W x_t + b + U h_{t-1} + b_h)      one W, U, b, b_h for each of g and n
        n   = tanh(W x_t + b + U h_{t-1} + b_h)
        h_t = g ⊙ h_{t-1} + (1 − g) ⊙ n

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W, `params.W_h` the U, in the order g, n.
    """

    gates_of_x = (Gate("update", keeps=+1), Gate("candidate"))

    def gate_values(self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map) -> UGRNNGates:
        """The values of the gate and the candidate."""
        g, n = of_h(carry.h, plus=from_x)
        return UGRNNGates(jax.nn.sigmoid(g), jnp.tanh(n))

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        g, n = self.gate_values(carry, from_x, of_h)
        h = g * carry.h + (1 - g) * n
        return CarryH(h), h
