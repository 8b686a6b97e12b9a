"""The light gated recurrent unit of speech recognition."""

import dataclasses
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from jaxrnn.cells.gated import CarryH, Gated
from jaxrnn.dense import Map
from jaxrnn.initializers import Gate


class LiGRUGates(NamedTuple):
    """Gate values of one step: z in (0, 1), and the candidate, which is never negative."""

    update: Float[Array, " H"]
    candidate: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class LiGRU(Gated):
    """Ravanelli et al. 2018 (1803.10225): the GRU without a reset gate, and with relu.

        z   = σ(W x_t + b + U h_{t-1} + b_h)      one W, U, b, b_h for each of z and n
        n   = relu(W x_t + b + U h_{t-1} + b_h)
        h_t = z ⊙ h_{t-1} + (1 − z) ⊙ n

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W, `params.W_h` the U, in the order z, n.

    In the paper W x_t passes through batch normalisation, whose shift is the only bias. One step
    of one example has no batch, so it is left out here, and b stands for the shift. Relu bounds
    nothing: without the normalisation h can grow where U is large.
    """

    gates_of_x = (Gate("update", keeps=+1), Gate("candidate"))

    def gate_values(self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map) -> LiGRUGates:
        """The values of the gate and the candidate."""
        z, n = of_h(carry.h, plus=from_x)
        return LiGRUGates(jax.nn.sigmoid(z), jax.nn.relu(n))

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        z, n = self.gate_values(carry, from_x, of_h)
        h = z * carry.h + (1 - z) * n
        return CarryH(h), h
