"""The bistable recurrent cell: every unit remembers by itself, in one of two stable states."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_dtype, check_one_bias
from jaxrnn.cells.gated import CarryH, Gated
from jaxrnn.dense import Dense
from jaxrnn.initializers import Gate, draw_gates


class BRParams(NamedTuple):
    """Parameters of a `BR`, gates in the order a, c, n; W_h holds the vectors w of a and c."""

    W_x: Float[Array, "3 H I"]
    W_h: Float[Array, "2 H"]
    b: Float[Array, "3 H"] | None
    initial: CarryH | None


class BRGates(NamedTuple):
    """Gate values of one step: a in (0, 2), c in (0, 1), the candidate in (−1, 1).

    A unit with feedback a > 1 has two stable states, with a < 1 one.
    """

    feedback: Float[Array, " H"]
    update: Float[Array, " H"]
    candidate: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class BR(Gated):
    """Vecoven, Ernst and Drion 2020 (2006.05252): the bistable recurrent cell, their BRC.

        a   = 1 + tanh(W x_t + b + w ⊙ h_{t-1})
        c   = σ(W x_t + b + w ⊙ h_{t-1})
        n   = tanh(W x_t + b + a ⊙ h_{t-1})
        h_t = c ⊙ h_{t-1} + (1 − c) ⊙ n

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W in the order a, c, n; `params.W_h` the w of a and c.

    biases: 0 for none, as in the paper, 1 for b.
    recurrent_initializer: for the w, which are drawn like biases: Orthogonal is not for them.
    """

    gates_of_x = (Gate("feedback"), Gate("update", keeps=+1), Gate("candidate"))
    jacobian = "diagonal"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_bias(self)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> BRParams:
        """Draws fresh parameters."""
        check_dtype(dtype)
        k_x, k_h, k_b = jax.random.split(key, 3)
        gates, H = self.gates_of_x, self.hidden_size
        W_x = draw_gates(self.input_initializer, k_x, gates, (H, self.input_size), dtype)
        w = draw_gates(self.recurrent_initializer, k_h, gates[:2], (H,), dtype)
        b = draw_gates(self.bias_initializer, k_b, gates, (H,), dtype) if self.biases else None
        return BRParams(W_x, w, b, self.learned(dtype))

    def stages(self, params: BRParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense map of x, and the vectors that take the place of one of the carry."""
        return Dense(params.W_x, params.b, (params.W_h[0], params.W_h[1])), ()

    def gate_values(self, carry: CarryH, from_x: tuple[Array, ...]) -> BRGates:
        """The values of the two gates and the candidate."""
        x_a, x_c, x_n, w_a, w_c = from_x
        a = 1 + jnp.tanh(x_a + w_a * carry.h)
        c = jax.nn.sigmoid(x_c + w_c * carry.h)
        return BRGates(a, c, jnp.tanh(x_n + a * carry.h))

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...]
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step behind the dense map of x."""
        _, c, n = self.gate_values(carry, from_x)
        h = c * carry.h + (1 - c) * n
        return CarryH(h), h
