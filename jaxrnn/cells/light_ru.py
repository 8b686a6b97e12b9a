"""The light recurrent unit."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import draw_blocks
from jaxrnn.cells.gated import CarryH, Gated
from jaxrnn.dense import Map
from jaxrnn.initializers import Gate


class LightRUParams(NamedTuple):
    """Parameters of a `LightRU`: `W_x` of candidate and forget, the others of forget alone."""

    W_x: Float[Array, "2 H I"]
    W_h: Float[Array, "1 H H"]
    b: Float[Array, "1 H"] | None
    b_h: Float[Array, "1 H"] | None
    initial: CarryH | None


class LightRUGates(NamedTuple):
    """Gate values of one step: f in (0, 1), the candidate in (−1, 1)."""

    forget: Float[Array, " H"]
    candidate: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class LightRU(Gated):
    """Ye et al. 2024, Electronics 13, 3204: one gate, and a candidate made of x alone.

        n   = tanh(W x_t)
        f   = σ(W x_t + b + U h_{t-1} + b_h)
        h_t = (1 − f) ⊙ h_{t-1} + f ⊙ n

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W in the order n, f; U and the biases are those of f. An initialiser of
    b given as a tuple has two members; that of n is not kept. A larger f forgets more.

    The paper calls it LRU, as others call the linear recurrent unit. This is one layer; the paper's
    changed activation between stacked layers is left out.
    """

    gates_of_x = (Gate("candidate"), Gate("forget", keeps=-1))
    gates_of_carry = (Gate("forget", keeps=-1),)
    params_type = LightRUParams

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> LightRUParams:
        """Draws fresh parameters."""
        blocks = draw_blocks(self, self.gates_of_x, key, dtype, of_carry=self.gates_of_carry)
        b = None if blocks.b is None else blocks.b[1:]
        return LightRUParams(*blocks._replace(b=b), self.learned(dtype))

    def gate_values(self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map) -> LightRUGates:
        """The values of the gate and the candidate."""
        x_n, x_f = from_x
        (f,) = of_h(carry.h, plus=(x_f,))
        return LightRUGates(jax.nn.sigmoid(f), jnp.tanh(x_n))

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        f, n = self.gate_values(carry, from_x, of_h)
        h = (1 - f) * carry.h + f * n
        return CarryH(h), h
