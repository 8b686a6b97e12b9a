"""The matrix memory of xLSTM."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_choice, check_dtype
from jaxrnn.cells.heads import Heads, outer, times


class MLSTMParams(NamedTuple):
    """Parameters of an `MLSTM`."""

    W_q: Float[Array, "heads K I"]
    W_k: Float[Array, "heads K I"]
    W_v: Float[Array, "heads V I"]
    W_i: Float[Array, "heads I"]
    W_f: Float[Array, "heads I"]
    W_o: Float[Array, "heads V I"]
    b_q: Float[Array, "heads K"]
    b_k: Float[Array, "heads K"]
    b_v: Float[Array, "heads V"]
    b_i: Float[Array, " heads"]
    b_f: Float[Array, " heads"]
    b_o: Float[Array, "heads V"]


class MLSTMCarry(NamedTuple):
    """What the next step of an `MLSTM` needs: the memory C, normaliser n and stabiliser m.

    C and n are those of the equations divided by exp(m).
    """

    C: Float[Array, "heads V K"]
    n: Float[Array, "heads K"]
    m: Float[Array, " heads"]


class MLSTMElement(NamedTuple):
    """What a stretch of steps does: (C, n) ← exp(log_f) (C, n) + exp(m) (own C, own n)."""

    log_f: Float[Array, " heads"]
    C: Float[Array, "heads V K"]
    n: Float[Array, "heads K"]
    m: Float[Array, " heads"]


class MLSTMGates(NamedTuple):
    """Values of one step: i and f as applied, at most 1, one for each head; o in (0, 1)."""

    input: Float[Array, " heads"]
    forget: Float[Array, " heads"]
    output: Float[Array, "heads V"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class MLSTM(Heads):
    """Beck et al. 2024 (2405.04517), mLSTM: a matrix that stores values under keys.

        q   = W_q x_t + b_q
        k   = W_k x_t / √K + b_k
        v   = W_v x_t + b_v
        i   = exp(w_i x_t + b_i)                       one number for each head
        f   = σ(w_f x_t + b_f)                         forget="logistic", the default
        f   = exp(w_f x_t + b_f)                       forget="exponential"
        o   = σ(W_o x_t + b_o)
        C_t = f C_{t-1} + i v kᵀ
        n_t = f n_{t-1} + i k
        y_t = o ⊙ C_t q / max(|n_t · q|, 1)

    for each head alone, computed without overflow as C / exp(m) and n / exp(m), where
    m_t = max(ln f + m_{t-1}, ln i); the 1 then reads exp(−m), as in the published code.
    x_t has shape (input_size,), y_t (hidden_size,), C_t (heads, hidden_size / heads, K), n_t
    (heads, K), m_t (heads,). The block around it (convolution, norm, projections) is not built.
    In the published code i and f read q, k and v, not x_t, and the block's silu stands for o.

    forget: see above.
    forget_bias: where b_f begins; all other biases begin at zero.
    """

    forget: str = "logistic"
    forget_bias: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "forget", ("logistic", "exponential"))

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> MLSTMParams:
        """Draws fresh parameters."""
        check_dtype(dtype)
        sizes = (self.keys, self.keys, self.values, 1, 1, self.values)
        maps = [
            self.draw(k, size, dtype)
            for k, size in zip(jax.random.split(key, len(sizes)), sizes, strict=True)
        ]
        # one row for each head
        maps[3:5] = (W[:, 0] for W in maps[3:5])
        biases = [jnp.zeros(W.shape[:-1], dtype) for W in maps]
        biases[4] = biases[4] + self.forget_bias
        return MLSTMParams(*maps, *biases)

    def initial_carry(self, params: MLSTMParams) -> MLSTMCarry:
        """Zeros."""
        dtype, V, K = params.W_q.dtype, self.values, self.keys
        return MLSTMCarry(
            jnp.zeros((self.heads, V, K), dtype),
            jnp.zeros((self.heads, K), dtype),
            jnp.zeros(self.heads, dtype),
        )

    def _log_gates(
        self, params: MLSTMParams, x: Float[Array, " I"]
    ) -> tuple[Float[Array, " heads"], Float[Array, " heads"]]:
        f = params.W_f @ x + params.b_f
        log_f = jax.nn.log_sigmoid(f) if self.forget == "logistic" else f
        return params.W_i @ x + params.b_i, log_f

    def gates(self, params: MLSTMParams, carry: MLSTMCarry, x: Float[Array, " I"]) -> MLSTMGates:
        """The values of the gates in one step, those of i and f as they are applied."""
        log_i, log_f = self._log_gates(params, x)
        m = jnp.maximum(log_f + carry.m, log_i)
        o = jax.nn.sigmoid(params.W_o @ x + params.b_o)
        return MLSTMGates(jnp.exp(log_i - m), jnp.exp(log_f + carry.m - m), o)

    def element(self, params: MLSTMParams, x: Float[Array, " I"]) -> MLSTMElement:
        """How much one step keeps, and what it stores."""
        log_i, log_f = self._log_gates(params, x)
        k = params.W_k @ x / self.keys**0.5 + params.b_k
        v = params.W_v @ x + params.b_v
        return MLSTMElement(log_f, outer(v, k), k, log_i)

    def combine(self, older: MLSTMElement, newer: MLSTMElement) -> MLSTMElement:
        """First one stretch, then the next."""
        stored = self.apply(newer, MLSTMCarry(older.C, older.n, older.m))
        return MLSTMElement(older.log_f + newer.log_f, *stored)

    def apply(self, element: MLSTMElement, carry: MLSTMCarry) -> MLSTMCarry:
        """The carry after a stretch of steps."""
        m = jnp.maximum(element.log_f + carry.m, element.m)
        old, new = jnp.exp(element.log_f + carry.m - m), jnp.exp(element.m - m)
        n = old[:, None] * carry.n + new[:, None] * element.n
        return MLSTMCarry(old[:, None, None] * carry.C + new[:, None, None] * element.C, n, m)

    def output(
        self, params: MLSTMParams, carry: MLSTMCarry, x: Float[Array, " I"]
    ) -> Float[Array, " H"]:
        """What is stored under q, past the output gate."""
        C, n, m = carry
        q = params.W_q @ x + params.b_q
        # both sides of the fraction times exp(min(m, 0)): exp(−m) itself may overflow
        scale = jnp.exp(jnp.minimum(m, 0))
        floor = jnp.exp(-jnp.maximum(m, 0))
        weight = jnp.maximum(jnp.abs((n * q).sum(axis=1)) * scale, floor)
        o = jax.nn.sigmoid(params.W_o @ x + params.b_o)
        return (o * times(C, q) * (scale / weight)[:, None]).ravel()
