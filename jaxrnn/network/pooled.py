"""Two directions that were trained apart, as one opinion."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxrnn.network.bidirectional import BidirectionalCarry, BidirectionalParams, BothWays
from jaxrnn.unroll import unroll


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Pooled(BothWays):
    """Two classifiers, one in each direction, trained apart and then pooled.

    Schuster and Paliwal 1997, who merge them by a linear or a logarithmic opinion pool:

        p, q = softmax of the forward and of the backward network's outputs at step t
        y_t  = ln((p + q) / 2)                        pool="linear", the arithmetic mean
        y_t  = ln(√(p ⊙ q)), normalised to Σ eʸ = 1   pool="logarithmic", the geometric mean

    The outputs of both, one for each class along the last axis, may be logits or log-probabilities:
    softmax tells no difference. y_t is a vector of natural log-probabilities. Outputs of a
    regression are pooled by `Bidirectional(…, merge="average")` instead.

    backward: the network of the other direction; the same kind as `forward` by default. Put what
        each of them learned alone into `BidirectionalParams(forward, backward)`.
    """

    forward: Any
    backward: Any = None
    pool: str = "linear"

    def __post_init__(self) -> None:
        if self.backward is None:
            object.__setattr__(self, "backward", self.forward)
        if self.pool not in ("linear", "logarithmic"):
            raise ValueError(f"Pooled: pool must be 'linear' or 'logarithmic', got {self.pool!r}")
        self.check_inputs()
        self.check_outputs("pooling")

    @property
    def output_size(self) -> int:
        """Number of classes."""
        return self.forward.output_size

    def unroll(
        self,
        params: BidirectionalParams,
        xs: PyTree,
        *,
        verb: Callable = unroll,
        **options: Any,
    ) -> tuple[BidirectionalCarry, Float[Array, "*batch T O"]]:
        """Both directions through the whole sequence; options as for `jaxrnn.unroll`."""
        carry, ys = self.both(params, xs, verb=verb, **options)
        return carry, self.opinion(*ys)

    def opinion(
        self, forward: Float[Array, "*batch O"], backward: Float[Array, "*batch O"]
    ) -> Float[Array, "*batch O"]:
        """One opinion out of two: ln of the pooled probabilities."""
        p, q = jax.nn.log_softmax(forward), jax.nn.log_softmax(backward)
        if self.pool == "linear":
            return jnp.logaddexp(p, q) - math.log(2)
        return jax.nn.log_softmax((p + q) / 2)
