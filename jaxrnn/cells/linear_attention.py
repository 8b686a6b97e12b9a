"""Attention without softmax, as a recurrence."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_dtype
from jaxrnn.cells.heads import Heads, outer


class LinearAttentionParams(NamedTuple):
    """Parameters of a `LinearAttention`."""

    W_q: Float[Array, "heads K I"]
    W_k: Float[Array, "heads K I"]
    W_v: Float[Array, "heads V I"]


class LinearAttentionCarry(NamedTuple):
    """What the next step of a `LinearAttention` needs; also what a stretch of steps adds to it."""

    S: Float[Array, "heads K V"]
    z: Float[Array, "heads K"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class LinearAttention(Heads):
    """Katharopoulos et al. 2020 (2006.16236): causal attention as sums over the past.

        q, k, v = W x_t                                one W for each
        S_t     = S_{t-1} + φ(k) vᵀ
        z_t     = z_{t-1} + φ(k)
        y_t     = φ(q)ᵀ S_t / (φ(q) · z_t + ε)         φ(a) = elu(a) + 1

    for each head alone. x_t has shape (input_size,), y_t (hidden_size,), S_t
    (heads, K, hidden_size / heads), z_t (heads, K).

    epsilon: ε; the paper's equations have none, its code 1e-6.
    """

    epsilon: float = 1e-6

    # every step adds, whatever was there
    jacobian = "diagonal"

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> LinearAttentionParams:
        """Draws fresh parameters."""
        check_dtype(dtype)
        k_q, k_k, k_v = jax.random.split(key, 3)
        return LinearAttentionParams(
            self.draw(k_q, self.keys, dtype),
            self.draw(k_k, self.keys, dtype),
            self.draw(k_v, self.values, dtype),
        )

    def initial_carry(self, params: LinearAttentionParams) -> LinearAttentionCarry:
        """Zeros."""
        dtype = params.W_q.dtype
        return LinearAttentionCarry(
            jnp.zeros((self.heads, self.keys, self.values), dtype),
            jnp.zeros((self.heads, self.keys), dtype),
        )

    def element(self, params: LinearAttentionParams, x: Float[Array, " I"]) -> LinearAttentionCarry:
        """What one step adds."""
        k = jax.nn.elu(params.W_k @ x) + 1
        return LinearAttentionCarry(outer(k, params.W_v @ x), k)

    def combine(
        self, older: LinearAttentionCarry, newer: LinearAttentionCarry
    ) -> LinearAttentionCarry:
        """First one stretch, then the next."""
        return LinearAttentionCarry(older.S + newer.S, older.z + newer.z)

    def apply(
        self, element: LinearAttentionCarry, carry: LinearAttentionCarry
    ) -> LinearAttentionCarry:
        """The carry after a stretch of steps."""
        return self.combine(carry, element)

    def output(
        self, params: LinearAttentionParams, carry: LinearAttentionCarry, x: Float[Array, " I"]
    ) -> Float[Array, " H"]:
        """The mean of the values, weighted by how well their keys fit q."""
        q = jax.nn.elu(params.W_q @ x) + 1
        weight = (q * carry.z).sum(axis=1, keepdims=True) + self.epsilon
        return ((q[:, None, :] @ carry.S)[:, 0] / weight).ravel()
