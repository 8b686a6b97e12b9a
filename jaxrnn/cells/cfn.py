"""The chaos-free network: a gated cell whose carry decays to zero when no input comes."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.gated import CarryH, Gated, GatedParams
from jaxrnn.dense import Map
from jaxrnn.initializers import Gate

_FORGET, _INPUT = Gate("forget", keeps=+1), Gate("input", writes=+1)


class CFNGates(NamedTuple):
    """Gate values of one step: the candidate in (−1, 1), θ and η in (0, 1)."""

    candidate: Float[Array, " H"]
    forget: Float[Array, " H"]
    input: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class CFN(Gated):
    """Laurent and von Brecht 2016 (1612.06212): the chaos-free network.

        θ, η = σ(W x_t + b + U h_{t-1} + b_h)         one W, U, b, b_h for each gate
        h_t  = θ ⊙ tanh(h_{t-1}) + η ⊙ tanh(W x_t)

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W in the order candidate, θ, η; `params.W_h`, `b` and `b_h` belong to
    θ, η: the candidate has no bias, without which h = 0 would not be where the carry decays to.
    The paper starts b at 1 for θ and at −1 for η.
    """

    gates_of_x = (Gate("candidate"), _FORGET, _INPUT)
    gates_of_carry = (_FORGET, _INPUT)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> GatedParams:
        """Draws fresh parameters."""
        params = super().init(key, dtype)
        return params if params.b is None else params._replace(b=params.b[1:])

    def gate_values(self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map) -> CFNGates:
        """The values of the candidate and the two gates."""
        x_n, x_f, x_i = from_x
        f, i = of_h(carry.h, plus=(x_f, x_i))
        return CFNGates(jnp.tanh(x_n), jax.nn.sigmoid(f), jax.nn.sigmoid(i))

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        n, f, i = self.gate_values(carry, from_x, of_h)
        h = f * jnp.tanh(carry.h) + i * n
        return CarryH(h), h
