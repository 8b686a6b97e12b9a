"""Which words there are, whatever their order."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.models._reader import Whole
from jaxrnn.models._shared import Layers, check_pool, pool


class BagOfWords(Whole):
    """Sum or mean of the vectors of all words, then perhaps a feed-forward network, then linear.

    logits = V φ(Σ_t x_t) + c or V φ(1/T Σ_t x_t) + c, where φ is the identity or a feed-forward
    network (Iyyer et al. 2015, the deep averaging network). It cannot tell "我爱你" from "你爱我".

    vocabulary: the number of tokens; None for inputs that are features, `(*batch, T, features)`.
    features: of the vector of a word.
    hidden: widths of the layers of φ; none by default.
    pool: "mean", "sum" or "max".
    options: `dropout`, `embedding` and `frozen`, as for `Classifier`.
    """

    def __init__(
        self,
        vocabulary: int | None,
        classes: int,
        features: int,
        *,
        hidden: Sequence[int] = (),
        pool: str = "mean",
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        **options: Any,
    ) -> None:
        super().__init__(vocabulary, features, rngs=rngs, dtype=dtype, **options)
        check_pool(self, pool)
        self.pool = pool
        self.layers = Layers(features, hidden, rngs=rngs, dtype=dtype)
        self.read_by(self.layers.output_size, classes, rngs, dtype)

    def summary(
        self, xs: Float[Array, "*batch T F"], lengths: Any, key: Array | None
    ) -> Float[Array, "*batch H"]:
        """φ of all words together."""
        return self.layers(pool(xs, lengths, self.pool))
