"""The stackable recurrent cell: few parameters, and gradients that survive many layers."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrnn.cells.gated import CarryH, Gated
from jaxrnn.dense import Map
from jaxrnn.initializers import Gate


class STARGates(NamedTuple):
    """Gate values of one step: the candidate in (−1, 1), the input gate in (0, 1)."""

    candidate: Float[Array, " H"]
    input: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class STAR(Gated):
    """Turkoglu et al. 2019 (1911.11033): one gate, and a candidate that does not read the carry.

        z   = tanh(W x_t + b)
        k   = σ(W x_t + b + U h_{t-1} + b_h)
        h_t = tanh((1 − k) ⊙ h_{t-1} + k ⊙ z)

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W in the order z, k; `params.W_h` holds the U of k alone. The
    published code weighs as `JANET` does, σ(a) ⊙ h_{t-1} + (1 − σ(a − 1)) ⊙ z within the outer
    tanh; this cell follows the equations.
    """

    gates_of_x = (Gate("candidate"), Gate("input", keeps=-1))
    gates_of_carry = (Gate("input", keeps=-1),)

    def gate_values(self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map) -> STARGates:
        """The values of the candidate and of the gate."""
        x_z, x_k = from_x
        (k,) = of_h(carry.h, plus=(x_k,))
        return STARGates(jnp.tanh(x_z), jax.nn.sigmoid(k))

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        z, k = self.gate_values(carry, from_x, of_h)
        h = jnp.tanh((1 - k) * carry.h + k * z)
        return CarryH(h), h
