"""A convolution over time."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.models._reader import Whole
from jaxrnn.models._shared import check_pool, pool, real_steps


class Convolution(Whole):
    """Layers of relu(W ∗ x + b) along time, then the maximum over time, then linear (Kim 2014).

    A layer of kernel 3 sees a word and its two neighbours, L layers see L on either side. Beyond
    both ends, of a sequence and of its padding, are zeros, at every layer: so padding never leaks.

    vocabulary: the number of tokens; None for inputs that are features, `(*batch, T, features)`.
    features: of the vector of a word.
    channels: features of each layer's outputs, one entry for each layer.
    kernel: how many steps a layer sees, odd, so that as many are on either side.
    pool: "max", "mean" or "sum".
    options: `dropout`, `embedding` and `frozen`, as for `Classifier`.
    """

    def __init__(
        self,
        vocabulary: int | None,
        classes: int,
        features: int,
        *,
        channels: Sequence[int] = (128,),
        kernel: int = 3,
        pool: str = "max",
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        **options: Any,
    ) -> None:
        super().__init__(vocabulary, features, rngs=rngs, dtype=dtype, **options)
        check_pool(self, pool)
        if not channels or kernel < 1 or kernel % 2 == 0:
            raise ValueError(
                "Convolution: expected at least one entry in channels and an odd kernel, got "
                f"channels={channels!r}, kernel={kernel!r}"
            )
        self.pool = pool
        self.layers = nnx.List(
            nnx.Conv(below, above, kernel_size=(kernel,), param_dtype=dtype, rngs=rngs)
            for below, above in itertools.pairwise((features, *channels))
        )
        self.read_by(channels[-1], classes, rngs, dtype)

    def summary(
        self, xs: Float[Array, "*batch T F"], lengths: Any, key: Array | None
    ) -> Float[Array, "*batch H"]:
        """The strongest answer of each channel anywhere."""
        real = real_steps(xs, lengths)[..., None]
        for layer in self.layers:
            xs = jax.nn.relu(layer(jnp.where(real, xs, 0)))
        return pool(xs, lengths, self.pool)
