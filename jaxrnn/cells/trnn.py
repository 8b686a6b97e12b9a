"""The strongly-typed recurrent network: a moving average of W x, weighted by gates of x."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.affine import AffineElement, InputGated, InputGatedParams
from jaxrnn.cells.gated import CarryH
from jaxrnn.initializers import Gate


class TRNNGates(NamedTuple):
    """Gate values of one step: the candidate, which is linear in x, and f in (0, 1)."""

    candidate: Float[Array, " H"]
    forget: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class TRNN(InputGated):
    """Balduzzi and Ghifary 2016 (1602.02218): the strongly-typed recurrent network, their T-RNN.

        z   = W x_t
        f   = σ(W x_t + b)
        h_t = f ⊙ h_{t-1} + (1 − f) ⊙ z

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W in the order z, f; `params.b` belongs to f alone.

    biases: 0 for none, 1 for b.
    input_initializer, bias_initializer: for W and b; one for all gates, or a tuple.
    """

    gates_of_x = (Gate("candidate"), Gate("forget", keeps=+1))

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> InputGatedParams:
        """Draws fresh parameters."""
        params = super().init(key, dtype)
        return params if params.b is None else params._replace(b=params.b[1:])

    def gates(self, params: Any, carry: CarryH, x: Float[Array, " I"]) -> TRNNGates:
        """The values of candidate and gate in one step, which do not depend on the carry."""
        z, f = self.of_x(params, x)
        return TRNNGates(z, jax.nn.sigmoid(f))

    def element(self, params: Any, x: Float[Array, " I"]) -> AffineElement:
        """The step as f ⊙ h + (1 − f) ⊙ z."""
        z, f = self.of_x(params, x)
        f = jax.nn.sigmoid(f)
        return AffineElement(f, (1 - f) * z)
