"""Feed-forward networks on sequences: one for every step, or one on a window of fixed length."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn import cell as contract
from jaxrnn.models._reader import Whole
from jaxrnn.models._shared import Layers, check_pool, pool, real_steps


class SharedFeedForward(Whole):
    """One feed-forward network φ at every step, and the sum of what it says: V Σ_t φ(x_t) + c.

    What remains of a recurrent network that shares its weights over time once nothing is handed on:
    blind to order (Zaheer et al. 2017, Deep Sets).

    vocabulary: the number of tokens; None for inputs that are features, `(*batch, T, features)`.
    features: of the vector of a word.
    hidden: widths of the layers of φ.
    pool: "sum", "mean" or "max".
    options: `dropout`, `embedding` and `frozen`, as for `Classifier`.
    """

    def __init__(
        self,
        vocabulary: int | None,
        classes: int,
        features: int,
        *,
        hidden: Sequence[int] = (128,),
        pool: str = "sum",
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
        """φ of each word, together."""
        return pool(self.layers(xs), lengths, self.pool)


class PaddedFeedForward(Whole):
    """A feed-forward network with weights of its own for each of the first `length` steps.

    Shorter sequences are filled up with zeros, of longer ones the rest is not read. It sees order,
    but what it learns about a word at one place tells it nothing about the next place.

    vocabulary: the number of tokens; None for inputs that are features, `(*batch, T, features)`.
    features: of the vector of a word.
    length: how many steps it reads.
    hidden: widths of its layers.
    options: `dropout`, `embedding` and `frozen`, as for `Classifier`.
    """

    def __init__(
        self,
        vocabulary: int | None,
        classes: int,
        features: int,
        length: int,
        *,
        hidden: Sequence[int] = (128,),
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        **options: Any,
    ) -> None:
        super().__init__(vocabulary, features, rngs=rngs, dtype=dtype, **options)
        self.length = contract.whole("length", length)
        self.layers = Layers(length * features, hidden, rngs=rngs, dtype=dtype)
        self.read_by(self.layers.output_size, classes, rngs, dtype)

    def summary(
        self, xs: Float[Array, "*batch T F"], lengths: Any, key: Array | None
    ) -> Float[Array, "*batch H"]:
        """The network's last layer, of all that it reads at once."""
        *batch, T, _ = xs.shape
        xs = jnp.where(real_steps(xs, lengths)[..., None], xs, 0)[..., : self.length, :]
        missing = [(0, 0)] * len(batch) + [(0, max(self.length - T, 0)), (0, 0)]
        return self.layers(jnp.pad(xs, missing).reshape(*batch, -1))
