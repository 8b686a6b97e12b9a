"""The bistable recurrent cell whose units set each other's feedback."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrnn.cells.br import BRGates
from jaxrnn.cells.gated import CarryH, Gated
from jaxrnn.dense import Map
from jaxrnn.initializers import Gate

_FEEDBACK, _UPDATE = Gate("feedback"), Gate("update", keeps=+1)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class NBR(Gated):
    """Vecoven, Ernst and Drion 2020 (2006.05252): the recurrently neuromodulated BRC, their nBRC.

        a   = 1 + tanh(W x_t + b + U h_{t-1} + b_h)
        c   = σ(W x_t + b + U h_{t-1} + b_h)
        n   = tanh(W x_t + b + a ⊙ h_{t-1})
        h_t = c ⊙ h_{t-1} + (1 − c) ⊙ n

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W in the order a, c, n; `params.W_h` the U of a and c.

    biases: 0 for none, as in the paper, 1 for b, 2 for b and the b_h of a and c.
    """

    gates_of_x = (_FEEDBACK, _UPDATE, Gate("candidate"))
    gates_of_carry = (_FEEDBACK, _UPDATE)

    def gate_values(self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map) -> BRGates:
        """The values of the two gates and the candidate."""
        x_a, x_c, x_n = from_x
        a, c = of_h(carry.h, plus=(x_a, x_c))
        a = 1 + jnp.tanh(a)
        return BRGates(a, jax.nn.sigmoid(c), jnp.tanh(x_n + a * carry.h))

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        _, c, n = self.gate_values(carry, from_x, of_h)
        h = c * carry.h + (1 - c) * n
        return CarryH(h), h
