"""The plain recurrent network with a weighted residual connection, of two numbers more."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import draw_blocks
from jaxrnn.cells.gated import CarryH, Gated
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate


class FastRNNParams(NamedTuple):
    """Parameters of a `FastRNN`, with the logits of its two weights."""

    W_x: Float[Array, "1 H I"]
    W_h: Float[Array, "1 H H"]
    b: Float[Array, "1 H"] | None
    b_h: Float[Array, "1 H"] | None
    initial: CarryH | None
    alpha: Float[Array, ""]
    beta: Float[Array, ""]


class FastRNNGates(NamedTuple):
    """What one step of a `FastRNN` computes on its way: the candidate in (−1, 1)."""

    candidate: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class FastRNN(Gated):
    """Kusupati et al. 2018 (1901.02358): the plain network with a weighted residual connection.

        n   = tanh(W x_t + b + U h_{t-1} + b_h)
        h_t = σ(α) n + σ(β) h_{t-1}

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    α and β are learned numbers; they start at −3 and 3, as in the authors' EdgeML, so that at
    first h_t is about 0.05 n + 0.95 h_{t-1}. The paper's low-rank and sparse W, U are not built.
    """

    gates_of_x = (Gate("candidate"),)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> FastRNNParams:
        """Draws fresh parameters."""
        blocks = draw_blocks(self, self.gates_of_x, key, dtype)
        alpha, beta = jnp.asarray(-3.0, dtype), jnp.asarray(3.0, dtype)
        return FastRNNParams(*blocks, self.learned(dtype), alpha, beta)

    def stages(self, params: FastRNNParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x, with the two weights, and of h."""
        weights = (params.alpha, params.beta)
        return Dense(params.W_x, params.b, weights), (Dense(params.W_h, params.b_h),)

    def gate_values(self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map) -> FastRNNGates:
        """The candidate."""
        (n,) = of_h(carry.h, plus=from_x[:1])
        return FastRNNGates(jnp.tanh(n))

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        _, alpha, beta = from_x
        (n,) = self.gate_values(carry, from_x, of_h)
        h = jax.nn.sigmoid(alpha) * n + jax.nn.sigmoid(beta) * carry.h
        return CarryH(h), h
