"""The minimal gated recurrent unit."""

import dataclasses
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from jaxrnn.cells.affine import AffineElement, InputGated, InputGatedParams
from jaxrnn.cells.gated import CarryH
from jaxrnn.initializers import Gate


class MinGRUGates(NamedTuple):
    """Values of one step: z in (0, 1), the candidate any number."""

    update: Float[Array, " H"]
    candidate: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class MinGRU(InputGated):
    """Feng et al. 2024 (2410.01201): the GRU without a look at its past.

        z   = σ(W x_t + b)
        n   = W x_t + b
        h_t = (1 − z) ⊙ h_{t-1} + z ⊙ n

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W in the order z, n.
    The paper also has a form whose parallel scan runs in log space, with g(n) > 0 in place of n,
    where g(a) = a + ½ for a ≥ 0, else σ(a). It is another function; this is the plain one.
    """

    jacobian = "diagonal"
    gates_of_x = (Gate("update", keeps=-1), Gate("candidate"))

    def gates(
        self, params: InputGatedParams, carry: CarryH | None, x: Float[Array, " I"]
    ) -> MinGRUGates:
        """The values of the gate and the candidate in one step."""
        z, n = self.of_x(params, x)
        return MinGRUGates(jax.nn.sigmoid(z), n)

    def element(self, params: InputGatedParams, x: Float[Array, " I"]) -> AffineElement:
        """What is kept, and what enters."""
        z, n = self.gates(params, None, x)
        return AffineElement(1 - z, z * n)
