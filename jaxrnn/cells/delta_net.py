"""A matrix that is corrected rather than added to: the delta rule."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_at_least, check_choice, check_dtype
from jaxrnn.cells.heads import Heads, outer, times, unit


class DeltaNetParams(NamedTuple):
    """Parameters of a `DeltaNet`."""

    W_q: Float[Array, "heads K I"]
    W_k: Float[Array, "heads K I"]
    W_v: Float[Array, "heads V I"]
    W_beta: Float[Array, "heads I"]


class DeltaCarry(NamedTuple):
    """What the next step of a `DeltaNet` needs: the matrix S."""

    S: Float[Array, "heads V F"]


class DeltaElement(NamedTuple):
    """What a stretch of steps does: S ← S A + B."""

    A: Float[Array, "heads F F"]
    B: Float[Array, "heads V F"]


class DeltaGates(NamedTuple):
    """Values of one step, one for each head.

    write: β in (0, 1), how much of the error is corrected.
    keep: α in (0, 1), how much of S is kept before, or None for all of it.
    """

    write: Float[Array, " heads"]
    keep: Float[Array, " heads"] | None


@dataclasses.dataclass(frozen=True)
class DeltaRule(Heads):
    """The common part of cells that keep a matrix by the delta rule.

        S_t = α S_{t-1} + β (v − α S_{t-1} k) kᵀ = S_{t-1} α (I − β k kᵀ) + β v kᵀ
        y_t = S_t q

    They write `keys_of` and `values_of` x, and `gates`.
    """

    @property
    def features(self) -> int:
        """Size of a key as it is stored."""
        return self.keys

    def keys_of(
        self, W: Float[Array, "heads K I"], x: Float[Array, " I"]
    ) -> Float[Array, "heads F"]:
        """A key, or a query, from its map of x."""
        return unit(jax.nn.silu(W @ x))

    def values_of(
        self, W: Float[Array, "heads V I"], x: Float[Array, " I"]
    ) -> Float[Array, "heads V"]:
        """A value from its map of x."""
        return W @ x

    def gates(self, params: Any, carry: DeltaCarry | None, x: Float[Array, " I"]) -> DeltaGates:
        """The values of the gates in one step."""
        raise NotImplementedError(f"{type(self).__name__} must say what its gates are")

    def initial_carry(self, params: Any) -> DeltaCarry:
        """Zeros."""
        return DeltaCarry(jnp.zeros((self.heads, self.values, self.features), params.W_q.dtype))

    def element(self, params: Any, x: Float[Array, " I"]) -> DeltaElement:
        """One step, as what it does to S."""
        k, v = self.keys_of(params.W_k, x), self.values_of(params.W_v, x)
        write, keep = self.gates(params, None, x)
        # all along β is with the key: β v kᵀ = v (β k)ᵀ
        written = write[:, None] * k
        A = jnp.eye(k.shape[1], dtype=k.dtype) - outer(k, written)
        A = A if keep is None else keep[:, None, None] * A
        return DeltaElement(A, outer(v, written))

    def combine(self, older: DeltaElement, newer: DeltaElement) -> DeltaElement:
        """First one stretch, then the next."""
        return DeltaElement(older.A @ newer.A, older.B @ newer.A + newer.B)

    def apply(self, element: DeltaElement, carry: DeltaCarry) -> DeltaCarry:
        """The carry after a stretch of steps."""
        return DeltaCarry(carry.S @ element.A + element.B)

    def step(
        self, params: Any, carry: DeltaCarry, x: Float[Array, " I"]
    ) -> tuple[DeltaCarry, Float[Array, " H"]]:
        """One step for one example, by vectors alone: cheaper than by its element."""
        k, v = self.keys_of(params.W_k, x), self.values_of(params.W_v, x)
        write, keep = self.gates(params, carry, x)
        S = carry.S if keep is None else keep[:, None, None] * carry.S
        S = S + outer(write[:, None] * (v - times(S, k)), k)
        return DeltaCarry(S), times(S, self.keys_of(params.W_q, x)).ravel()


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class DeltaNet(DeltaRule):
    """Schlag et al. 2021 (2102.11174), by default with the keys of Yang et al. 2024 (2406.06484).

        k   = φ(W_k x_t),  q = φ(W_q x_t)
        v   = W_v x_t
        β   = σ(w_β x_t)                               one number for each head
        S_t = S_{t-1} + β (v − S_{t-1} k) kᵀ
        y_t = S_t q

    for each head alone. x_t has shape (input_size,), y_t (hidden_size,), S_t
    (heads, hidden_size / heads, size of φ). Short convolutions and norms are not part of it.

    feature_map: "silu", φ(a) = silu(a) / |silu(a)|, of Yang et al.; or "dpfp", that of Schlag et
        al., all products of two entries of r = relu([a, −a]) that are 1 … nu apart, divided by
        their sum, which makes keys of size 2 nu K.
    """

    feature_map: str = "silu"
    nu: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "feature_map", ("silu", "dpfp"))
        check_at_least(self, 1, "nu")

    @property
    def features(self) -> int:
        """Size of a key as it is stored."""
        return self.keys if self.feature_map == "silu" else 2 * self.nu * self.keys

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> DeltaNetParams:
        """Draws fresh parameters."""
        check_dtype(dtype)
        k_q, k_k, k_v, k_beta = jax.random.split(key, 4)
        return DeltaNetParams(
            self.draw(k_q, self.keys, dtype),
            self.draw(k_k, self.keys, dtype),
            self.draw(k_v, self.values, dtype),
            self.draw(k_beta, 1, dtype)[:, 0],
        )

    def keys_of(
        self, W: Float[Array, "heads K I"], x: Float[Array, " I"]
    ) -> Float[Array, "heads F"]:
        """A key, or a query, from its map of x."""
        if self.feature_map == "silu":
            return super().keys_of(W, x)
        a = W @ x
        r = jax.nn.relu(jnp.concatenate([a, -a], axis=1))
        products = [r * jnp.roll(r, j, axis=1) for j in range(1, self.nu + 1)]
        k = jnp.concatenate(products, axis=1)
        # all are zero where all but one entry of a is
        return k / (k.sum(axis=1, keepdims=True) + 1e-6)

    def gates(
        self, params: DeltaNetParams, carry: DeltaCarry | None, x: Float[Array, " I"]
    ) -> DeltaGates:
        """β of one step."""
        return DeltaGates(jax.nn.sigmoid(params.W_beta @ x), None)
