"""The delta rule with a forget gate."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.affine import at_least_float32, inverse_softplus, log_uniform
from jaxrnn.cells.blocks import check_dtype
from jaxrnn.cells.delta_net import DeltaCarry, DeltaGates, DeltaRule


class GatedDeltaNetParams(NamedTuple):
    """Parameters of a `GatedDeltaNet`."""

    W_q: Float[Array, "heads K I"]
    W_k: Float[Array, "heads K I"]
    W_v: Float[Array, "heads V I"]
    W_beta: Float[Array, "heads I"]
    W_alpha: Float[Array, "heads I"]
    b_alpha: Float[Array, " heads"]
    log_A: Float[Array, " heads"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class GatedDeltaNet(DeltaRule):
    """Yang, Kautz and Hatamizadeh 2024 (2412.06464): the delta rule of a matrix that also decays.

        k   = φ(W_k x_t),  q = φ(W_q x_t)              φ(a) = silu(a) / |silu(a)|
        v   = silu(W_v x_t)
        β   = σ(w_β x_t)                               one number for each head, as is α
        α   = exp(−exp(log_A) softplus(w_α x_t + b_α))
        S_t = S_{t-1} α (I − β k kᵀ) + β v kᵀ
        y_t = S_t q

    for each head alone. x_t has shape (input_size,), y_t (hidden_size,), S_t
    (heads, hidden_size / heads, K). Short convolutions, norm and output gate are not part of it.
    α is that of Mamba-2, which begins here as it does there: exp(log_A) uniform between 1 and 16,
    softplus(b_α) log-uniform between 0.001 and 0.1. The published code begins with 0 to 16, and
    divides q by √K, which its norm undoes.
    """

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> GatedDeltaNetParams:
        """Draws fresh parameters."""
        check_dtype(dtype)
        k_q, k_k, k_v, k_beta, k_alpha, k_b, k_A = jax.random.split(key, 7)
        wide = at_least_float32(dtype)
        delta = jnp.exp(log_uniform(k_b, (self.heads,), 1e-3, 1e-1, wide))
        A = jax.random.uniform(k_A, (self.heads,), wide, 1, 16)
        return GatedDeltaNetParams(
            self.draw(k_q, self.keys, dtype),
            self.draw(k_k, self.keys, dtype),
            self.draw(k_v, self.values, dtype),
            self.draw(k_beta, 1, dtype)[:, 0],
            self.draw(k_alpha, 1, dtype)[:, 0],
            inverse_softplus(delta).astype(dtype),
            jnp.log(A).astype(dtype),
        )

    def values_of(
        self, W: Float[Array, "heads V I"], x: Float[Array, " I"]
    ) -> Float[Array, "heads V"]:
        """A value from its map of x."""
        return jax.nn.silu(W @ x)

    def gates(
        self, params: GatedDeltaNetParams, carry: DeltaCarry | None, x: Float[Array, " I"]
    ) -> DeltaGates:
        """β and α of one step."""
        rate = jax.nn.softplus(params.W_alpha @ x + params.b_alpha)
        keep = jnp.exp(-jnp.exp(params.log_A) * rate)
        return DeltaGates(jax.nn.sigmoid(params.W_beta @ x), keep)
