"""The addition-subtraction twin-gated recurrent network."""

import dataclasses
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from jaxrnn.cells.gated import CarryH, Gated
from jaxrnn.dense import Map
from jaxrnn.initializers import Gate


class ATRGates(NamedTuple):
    """Values of one step: the twin gates in (0, 1), and p, which is linear in x."""

    input: Float[Array, " H"]
    forget: Float[Array, " H"]
    candidate: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ATR(Gated):
    """Zhang et al. 2018 (1810.12546): two gates from the sum and the difference of two maps.

        p   = W x_t + b
        q   = U h_{t-1} + b_h
        i   = σ(p + q)
        f   = σ(p − q)
        h_t = i ⊙ p + f ⊙ h_{t-1}

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` and `params.W_h` have one block each, W and U. The paper writes no biases.
    """

    # a larger p keeps more too, but it is the content: no initialiser should shift it for that
    gates_of_x = (Gate("candidate"),)
    gates_of_carry = (Gate("difference", keeps=-1),)

    def gate_values(self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map) -> ATRGates:
        """The values of the two gates and the candidate."""
        (p,) = from_x
        (q,) = of_h(carry.h)
        return ATRGates(jax.nn.sigmoid(p + q), jax.nn.sigmoid(p - q), p)

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        i, f, p = self.gate_values(carry, from_x, of_h)
        h = i * p + f * carry.h
        return CarryH(h), h
