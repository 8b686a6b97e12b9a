"""The minimal long short-term memory."""

import dataclasses
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from jaxrnn.cells.affine import AffineElement, InputGated, InputGatedParams
from jaxrnn.cells.gated import CarryH
from jaxrnn.initializers import Gate


class MinLSTMGates(NamedTuple):
    """Values of one step: f′ and i′ in (0, 1), which add up to one; the candidate any number."""

    forget: Float[Array, " H"]
    input: Float[Array, " H"]
    candidate: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class MinLSTM(InputGated):
    """Feng et al. 2024 (2410.01201): the LSTM without a look at its past, nor an output gate.

        f, i = σ(W x_t + b)                            one W, b for each gate
        n    = W x_t + b
        f′   = f / (f + i)
        i′   = i / (f + i)
        h_t  = f′ ⊙ h_{t-1} + i′ ⊙ n

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W in the order f, i, n.
    The paper also has a form whose parallel scan runs in log space, with g(n) > 0 in place of n,
    where g(a) = a + ½ for a ≥ 0, else σ(a). It is another function; this is the plain one.
    """

    jacobian = "diagonal"
    gates_of_x = (Gate("forget", keeps=+1), Gate("input", writes=+1), Gate("candidate"))

    def gates(
        self, params: InputGatedParams, carry: CarryH | None, x: Float[Array, " I"]
    ) -> MinLSTMGates:
        """The values of the gates, as they are applied, and the candidate in one step."""
        f, i, n = self.of_x(params, x)
        # f / (f + i) = σ(ln f − ln i), which is not 0 / 0 where both gates are shut
        odds = jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i)
        return MinLSTMGates(jax.nn.sigmoid(odds), jax.nn.sigmoid(-odds), n)

    def element(self, params: InputGatedParams, x: Float[Array, " I"]) -> AffineElement:
        """What is kept, and what enters."""
        f, i, n = self.gates(params, None, x)
        return AffineElement(f, i * n)
