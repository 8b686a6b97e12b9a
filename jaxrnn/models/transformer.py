"""A small encoder Transformer."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from jaxrnn import cell as contract
from jaxrnn.models._reader import Whole
from jaxrnn.models._shared import drop_steps, pool, real_steps
from jaxrnn.network._shared import fold


class Transformer(Whole):
    """An encoder Transformer, normalised before each part, and the mean over time; then linear.

        x ← x + attention(norm(x))        every real step sees every real step
        x ← x + W_2 relu(W_1 norm(x))
        summary = mean over time of norm(x)

    Vaswani et al. 2017, with the norms where Xiong et al. 2020 put them, and with the former's
    sines for positions, so that no length is too long.

    vocabulary: the number of tokens; None for inputs that are features, `(*batch, T, features)`.
    features: of the vector of a word, and of every layer's output; a multiple of `heads`.
    layers, heads: how many.
    hidden: width between W_1 and W_2; four times `features` by default.
    options: `dropout`, here also of what each part adds, `embedding` and `frozen`, as for
        `Classifier`.
    """

    def __init__(
        self,
        vocabulary: int | None,
        classes: int,
        features: int,
        *,
        layers: int = 2,
        heads: int = 4,
        hidden: int | None = None,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        **options: Any,
    ) -> None:
        super().__init__(vocabulary, features, rngs=rngs, dtype=dtype, **options)
        if features % contract.whole("heads", heads):
            raise ValueError(
                f"Transformer: features must be a multiple of heads, got {features} and {heads}"
            )
        hidden = 4 * features if hidden is None else hidden
        self.layers = nnx.List(
            EncoderLayer(features, heads, hidden, rngs=rngs, dtype=dtype) for _ in range(layers)
        )
        self.norm = layer_norm(features, rngs, dtype)
        self.read_by(features, classes, rngs, dtype)

    def summary(
        self, xs: Float[Array, "*batch T F"], lengths: Any, key: Array | None
    ) -> Float[Array, "*batch H"]:
        """The mean of the last layer's outputs."""
        real = real_steps(xs, lengths)
        xs = xs + positions(xs.shape[-2], xs.shape[-1]).astype(xs.dtype)
        # norms look for the wider of two dtypes, which strict promotion forbids
        with jax.numpy_dtype_promotion("standard"):
            for i, layer in enumerate(self.layers):
                xs = layer(xs, real, self.dropout, fold(key, i))
            return pool(self.norm(xs), lengths, "mean")


class EncoderLayer(nnx.Module):
    """Attention, then a feed-forward network, each added to what it was given."""

    def __init__(
        self, features: int, heads: int, hidden: int, *, rngs: nnx.Rngs, dtype: DTypeLike
    ) -> None:
        self.norms = nnx.List(layer_norm(features, rngs, dtype) for _ in range(2))
        self.attention = nnx.MultiHeadAttention(
            heads,
            features,
            decode=False,
            param_dtype=dtype,
            attention_fn=attention,
            rngs=rngs,
            keep_rngs=False,
        )
        self.up = nnx.Linear(features, hidden, param_dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(hidden, features, param_dtype=dtype, rngs=rngs)

    def __call__(
        self,
        xs: Float[Array, "*batch T F"],
        real: Bool[Array, "*batch T"],
        dropout: float,
        key: Array | None,
    ) -> Float[Array, "*batch T F"]:
        """The layer's outputs; those of padding are of no use and reach no others."""
        attended = self.attention(self.norms[0](xs), mask=real[..., None, None, :])
        xs = xs + drop_steps(attended, dropout, fold(key, 0))
        worked = self.down(jax.nn.relu(self.up(self.norms[1](xs))))
        return xs + drop_steps(worked, dropout, fold(key, 1))


def attention(
    query: Float[Array, "*batch T heads D"],
    key: Float[Array, "*batch T heads D"],
    value: Float[Array, "*batch T heads D"],
    *,
    mask: Bool[Array, "*batch 1 1 T"],
    **options: Any,
) -> Float[Array, "*batch T heads D"]:
    """softmax(q·k/√D) over the real steps, times v; JAX's own rounds float64 to float32 here."""
    scores = jnp.einsum("...qhd,...khd->...hqk", query, key) / math.sqrt(query.shape[-1])
    weights = jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(scores.dtype).min))
    return jnp.einsum("...hqk,...khd->...qhd", weights, value)


def layer_norm(features: int, rngs: nnx.Rngs, dtype: DTypeLike) -> nnx.LayerNorm:
    """(x − mean) / √(variance + 10⁻⁶), scaled and moved."""
    return nnx.LayerNorm(features, use_fast_variance=False, param_dtype=dtype, rngs=rngs)


def positions(T: int, features: int) -> Float[Array, "T features"]:
    """sin(t ω_i) and cos(t ω_i) in turn, ω_i = 10000^(−2 i / features)."""
    pairs = (features + 1) // 2
    speeds = jnp.exp(-math.log(10_000) * 2 / features * jnp.arange(pairs, dtype=float))
    angles = jnp.arange(T, dtype=float)[:, None] * speeds
    both = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return both.reshape(T, 2 * pairs)[:, :features]
