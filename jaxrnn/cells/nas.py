"""The recurrent cell that a search over architectures found."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrnn.cells.gated import CarryHC, Gated
from jaxrnn.dense import Map
from jaxrnn.initializers import Gate


class NASGates(NamedTuple):
    """The four inner nodes p, q, r, s of one step: s in (0, 1), the others in (−1, 1).

    first, second: what c is made of. third, fourth: what opens the output.
    """

    first: Float[Array, " H"]
    second: Float[Array, " H"]
    third: Float[Array, " H"]
    fourth: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class NAS(Gated):
    """Zoph and Le 2016 (1611.01578): the cell found by neural architecture search.

        a_k = W x_t + b,  u_k = U h_{t-1} + b_h               k = 0 … 7, one W, U, b, b_h for each
        p   = tanh(σ(a_0 + u_0) ⊙ relu(a_1 + u_1))
        q   = tanh(σ(a_2 + u_2) + relu(a_3 ⊙ u_3))
        r   = tanh(tanh(a_4 + u_4) ⊙ σ(a_5 + u_5))
        s   = σ(tanh(a_6 + u_6) + σ(a_7 + u_7))
        c_t = tanh(p + c_{t-1}) ⊙ q
        h_t = tanh(c_t ⊙ tanh(r + s))

    x_t has shape (input_size,); h_t, which is also the output, and c_t have (hidden_size,).
    `params.W_x` stacks the W, `params.W_h` the U, in the order of k.

    The paper draws this cell and writes no equations; they are those of its authors' code,
    TensorFlow's `NASCell` (use_biases=False: biases=0; its one bias is the b_h of biases=2).
    """

    gates_of_x = tuple(Gate(str(k)) for k in range(8))
    carry_type = CarryHC

    def gate_values(self, carry: CarryHC, from_x: tuple[Array, ...], of_h: Map) -> NASGates:
        """The values of the four inner nodes."""
        x_3 = from_x[3]
        # the search chose a product here, so these two must come apart
        plus = (*from_x[:3], None, *from_x[4:])
        a_0, a_1, a_2, u_3, a_4, a_5, a_6, a_7 = of_h(carry.h, plus=plus)
        sigmoid, relu, tanh = jax.nn.sigmoid, jax.nn.relu, jnp.tanh
        return NASGates(
            first=tanh(sigmoid(a_0) * relu(a_1)),
            second=tanh(sigmoid(a_2) + relu(x_3 * u_3)),
            third=tanh(tanh(a_4) * sigmoid(a_5)),
            fourth=sigmoid(tanh(a_6) + sigmoid(a_7)),
        )

    def elementwise(
        self, carry: CarryHC, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[CarryHC, Float[Array, " H"]]:
        """The step between the dense maps."""
        p, q, r, s = self.gate_values(carry, from_x, of_h)
        c = jnp.tanh(p + carry.c) * q
        h = jnp.tanh(c * jnp.tanh(r + s))
        return CarryHC(h, c), h
