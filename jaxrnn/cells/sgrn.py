"""The simple gated recurrent network: one gate, whose dense map of x is the candidate too."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_one_bias
from jaxrnn.cells.gated import CarryH, Gated, GatedParams
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate


class SGRNGates(NamedTuple):
    """Gate values of one step: f in (0, 1), and the candidate, which is linear in x."""

    forget: Float[Array, " H"]
    candidate: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class SGRN(Gated):
    """Zu and Wei 2020 (doi 10.1049/gtd2.12056): the simple gated recurrent network.

        f   = σ(W x_t + U h_{t-1} + b)
        h_t = tanh(f ⊙ h_{t-1} + (1 − f) ⊙ W x_t)            the same W

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` and `params.W_h` hold one block each. The equations are those that
    RecurrentLayers.jl quotes from the paper; its code, as that of torchrecurrent, adds a bias to
    W x_t in both places.

    biases: 0 for none, 1 for b, which is that of the gate alone.
    """

    gates_of_x = (Gate("forget", keeps=+1),)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_bias(self)

    def stages(self, params: GatedParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x and of h; the bias is on the side of h, as W x is read bare."""
        return Dense(params.W_x), (Dense(params.W_h, params.b),)

    def gate_values(self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map) -> SGRNGates:
        """The values of the gate and of the candidate."""
        (f,) = of_h(carry.h, plus=from_x)
        return SGRNGates(jax.nn.sigmoid(f), *from_x)

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        f, n = self.gate_values(carry, from_x, of_h)
        h = jnp.tanh(f * carry.h + (1 - f) * n)
        return CarryH(h), h
