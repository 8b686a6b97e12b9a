"""The recurrent additive network."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_choice, draw_blocks
from jaxrnn.cells.gated import Gated
from jaxrnn.dense import Map
from jaxrnn.initializers import Gate


class RANCarry(NamedTuple):
    """What the next step of a `RAN` needs: c, of which its output is made."""

    c: Float[Array, " H"]


class RANParams(NamedTuple):
    """Parameters of a `RAN`: `W_x` of content, input and forget, the others of the two gates."""

    W_x: Float[Array, "3 H I"]
    W_h: Float[Array, "2 H H"]
    b: Float[Array, "2 H"] | None
    b_h: Float[Array, "2 H"] | None
    initial: RANCarry | None


class RANGates(NamedTuple):
    """Values of one step: the content, which is linear in x, and two gates in (0, 1)."""

    content: Float[Array, " H"]
    input: Float[Array, " H"]
    forget: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class RAN(Gated):
    """Lee, Levy and Zettlemoyer 2017 (1705.07393): gated sums of linear maps of the input.

        n    = W x_t
        i, f = σ(W x_t + b + U h_{t-1} + b_h)      one W, U, b, b_h for each gate
        c_t  = i ⊙ n + f ⊙ c_{t-1}
        h_t  = tanh(c_t), or c_t itself

    x_t has shape (input_size,); c_t and h_t, which is the output, have (hidden_size,). Only c is
    carried, as h follows from it. `params.W_x` stacks the W in the order n, i, f; the U and the
    biases are those of i and f. An initialiser of b given as a tuple has three members; that of n
    is not kept.

    output_activation: "tanh" or "identity", which the paper both has.
    """

    output_activation: str = "tanh"

    gates_of_x = (Gate("content"), Gate("input", writes=+1), Gate("forget", keeps=+1))
    gates_of_carry = (Gate("input", writes=+1), Gate("forget", keeps=+1))
    params_type = RANParams
    carry_type = RANCarry

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "output_activation", ("tanh", "identity"))

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> RANParams:
        """Draws fresh parameters."""
        blocks = draw_blocks(self, self.gates_of_x, key, dtype, of_carry=self.gates_of_carry)
        b = None if blocks.b is None else blocks.b[1:]
        return RANParams(*blocks._replace(b=b), self.learned(dtype))

    def gate_values(self, carry: RANCarry, from_x: tuple[Array, ...], of_h: Map) -> RANGates:
        """The content and the values of the two gates."""
        n, x_i, x_f = from_x
        i, f = of_h(self.output(carry.c), plus=(x_i, x_f))
        return RANGates(n, jax.nn.sigmoid(i), jax.nn.sigmoid(f))

    def elementwise(
        self, carry: RANCarry, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[RANCarry, Float[Array, " H"]]:
        """The step between the dense maps."""
        n, i, f = self.gate_values(carry, from_x, of_h)
        c = i * n + f * carry.c
        return RANCarry(c), self.output(c)

    def output(self, c: Float[Array, " H"]) -> Float[Array, " H"]:
        """What h is, given c."""
        return jnp.tanh(c) if self.output_activation == "tanh" else c
