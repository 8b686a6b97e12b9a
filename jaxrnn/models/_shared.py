"""What models share: words as vectors, padding, dropout, pooling."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from jaxrnn import cell as contract
from jaxrnn.network._shared import drop
from jaxrnn.sequences import as_array, check_lengths, step_keys, zero_padding


class Inputs(nnx.Module):
    """Tokens as vectors, or features as they are; padding becomes zero.

    vocabulary: the number of tokens, 0 … vocabulary − 1, none of which is special; or None for
        inputs that are features already, `(*batch, T, features)`.
    embedding: vectors to start from, `(vocabulary, features)`; by default drawn from N(0, 1).
    frozen: whether they stay as they are: an `nnx.Variable` and no `nnx.Param`.
    """

    def __init__(
        self,
        vocabulary: int | None,
        features: int,
        *,
        embedding: Any = None,
        frozen: bool = False,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
    ) -> None:
        vocabulary = None if vocabulary is None else contract.whole("vocabulary", vocabulary)
        self.vocabulary, self.features, self.frozen = vocabulary, features, frozen
        if vocabulary is None:
            if embedding is not None or frozen:
                raise ValueError("an embedding is for tokens: say how many there are, vocabulary=…")
            self.embedding = None
            return
        expected = vocabulary, features
        if embedding is None:
            embedding = jax.random.normal(rngs.params(), expected, dtype)
        elif np.shape(embedding) != expected:
            raise ValueError(
                f"embedding has shape {np.shape(embedding)}, expected (vocabulary, features) = "
                f"{expected}"
            )
        self.embedding = (nnx.Variable if frozen else nnx.Param)(jnp.asarray(embedding, dtype))

    def __call__(self, inputs: Any, lengths: Any) -> tuple[Float[Array, "*batch T F"], Any]:
        """The vectors, and the lengths checked."""
        inputs = as_array(inputs)
        rank = 1 if self.vocabulary is None else 0
        self._check(inputs, rank)
        *batch, T = inputs.shape[: inputs.ndim - rank]
        lengths = check_lengths(lengths, tuple(batch), T)
        if lengths is not None:
            inputs = zero_padding(jnp.asarray(inputs), lengths, T)
        if self.embedding is None:
            return jnp.asarray(inputs), lengths
        check_tokens(inputs, self.vocabulary)
        table = self.embedding[...]
        table = jax.lax.stop_gradient(table) if self.frozen else table
        # a traced token that does not exist is NaN, which is seen, and not another word
        xs = table.at[inputs].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        return xs if lengths is None else zero_padding(xs, lengths, T), lengths

    def _check(self, inputs: Any, rank: int) -> None:
        shape, dtype = inputs.shape, inputs.dtype
        if rank == 0:
            if not jnp.issubdtype(dtype, jnp.integer) or len(shape) < 1:
                raise ValueError(
                    f"got inputs {dtype}{list(shape)}, expected integer tokens (*batch, T); for "
                    "features (*batch, T, features) make the model with vocabulary=None"
                )
        elif not jnp.issubdtype(dtype, jnp.floating) or shape[-1:] != (self.features,):
            raise ValueError(
                f"got inputs {dtype}{list(shape)}, expected floating features (*batch, T, "
                f"{self.features}); for tokens make the model with vocabulary=their number"
            )


def check_tokens(tokens: Any, vocabulary: Any, what: str = "token") -> None:
    """Raises if a token does not exist and this can be known."""
    if isinstance(tokens, Tracer) or not np.size(tokens):
        return
    low, high = np.min(tokens), np.max(tokens)
    if low < 0 or high >= vocabulary:
        raise ValueError(f"got {what} {low if low < 0 else high}, expected 0…{vocabulary - 1}")


def row_keys(key: Array | None, batch: Sequence[int]) -> Array | None:
    """One key for each row, from one key or from one for each row already."""
    keys = step_keys(key, 0, tuple(batch), 1)
    return None if keys is None else keys[..., 0]


def drop_steps(
    xs: Float[Array, "*batch T F"], rate: float, rows: Array | None
) -> Float[Array, "*batch T F"]:
    """Dropout that draws from each row's key and the step, whatever the padding behind it."""
    *batch, T, _ = xs.shape
    return drop(xs, rate, step_keys(rows, 0, tuple(batch), T)) if rate else xs


def real_steps(xs: Float[Array, "*batch T F"], lengths: Any) -> Bool[Array, "*batch T"]:
    """Which steps are no padding."""
    steps = jnp.arange(xs.shape[-2], dtype=jnp.int32)
    if lengths is None:
        return jnp.ones(xs.shape[:-1], bool)
    return steps < lengths[..., None]


POOLS = "sum", "mean", "max"


def check_pool(model: Any, how: Any, ways: Sequence[str] = POOLS) -> None:
    """Raises if there is no such way to pool."""
    if how not in ways:
        names = ", ".join(map(repr, ways))
        raise ValueError(f"{type(model).__name__}: pool must be one of {names}, got {how!r}")


def pool(xs: Float[Array, "*batch T F"], lengths: Any, how: str) -> Float[Array, "*batch F"]:
    """Sum, mean or maximum over the real steps; zero where there is none."""
    real = real_steps(xs, lengths)[..., None]
    if how == "max":
        highest = jnp.max(jnp.where(real, xs, -jnp.inf), -2, initial=-jnp.inf)
        return jnp.where(real.any(-2), highest, 0)
    total = jnp.where(real, xs, 0).sum(-2)
    if how == "sum":
        return total
    return total / jnp.maximum(real.sum(-2), 1).astype(xs.dtype)


class Layers(nnx.Module):
    """A feed-forward network: relu(W x + b) for each of `hidden`, the widths of its layers."""

    def __init__(
        self, features: int, hidden: Sequence[int], *, rngs: nnx.Rngs, dtype: DTypeLike
    ) -> None:
        widths = (features, *hidden)
        self.output_size = widths[-1]
        self.layers = nnx.List(
            nnx.Linear(below, above, param_dtype=dtype, rngs=rngs)
            for below, above in itertools.pairwise(widths)
        )

    def __call__(self, x: Float[Array, "*any I"]) -> Float[Array, "*any O"]:
        """The last layer's output; x itself if there is no layer."""
        for layer in self.layers:
            x = jax.nn.relu(layer(x))
        return x
