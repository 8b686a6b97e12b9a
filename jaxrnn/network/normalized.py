"""A layer whose outputs are brought to one scale."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from jaxrnn import cell as contract
from jaxrnn.network._shared import Wrapper, width
from jaxrnn.unroll import unroll


class NormalizedParams(NamedTuple):
    """Parameters of the layer, and the gain and bias of its normalised outputs."""

    layer: Any
    gain: Float[Array, " O"]
    bias: Float[Array, " O"] | None


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Normalized(Wrapper):
    """A layer whose outputs are normalised over their features, at each step alone.

        y ← gain ⊙ (y − mean y) / √(var y + ε) + bias      layer normalisation, Ba, Kiros and
                                                           Hinton 2016 (1607.06450)
        y ← gain ⊙ y / √(mean y² + ε)                      centre=False: Zhang and Sennrich 2019
                                                           (1910.07467)

    Outputs alone: the recurrence inside of the layer is untouched. The variance divides by the
    number of features. gain starts at one, bias at zero; means are taken in at least float32.

    centre: whether the mean is taken off and a bias added.
    epsilon: ε.
    """

    layer: Any
    centre: bool = True
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError(f"Normalized: epsilon must be positive, got {self.epsilon!r}")

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> NormalizedParams:
        """Draws the layer's parameters."""
        features = width(self, self.layer, "output_size")
        bias = jnp.zeros(features, dtype) if self.centre else None
        return NormalizedParams(self.layer.init(key, dtype=dtype), jnp.ones(features, dtype), bias)

    def initial_carry(self, params: NormalizedParams) -> PyTree:
        """The layer's initial carry."""
        return self.layer.initial_carry(params.layer)

    def step(
        self, params: NormalizedParams, carry: PyTree, x: Any, key: Array | None = None
    ) -> tuple[PyTree, Array]:
        """One step for one example."""
        carry, y = contract.step(self.layer, params.layer, carry, x, key)
        return carry, self._normalize(params, y)

    def unroll(
        self, params: NormalizedParams, xs: PyTree, *, verb: Callable = unroll, **options: Any
    ) -> tuple[PyTree, Array]:
        """Through the whole sequence; options as for `jaxrnn.unroll`."""
        carry, ys = verb(self.layer, params.layer, xs, **options)
        return carry, self._normalize(params, ys)

    def _normalize(
        self, params: NormalizedParams, y: Float[Array, "*any O"]
    ) -> Float[Array, "*any O"]:
        wide = y.astype(jnp.float64 if y.dtype == jnp.float64 else jnp.float32)
        if self.centre:
            wide = wide - wide.mean(axis=-1, keepdims=True)
        square = (wide**2).mean(axis=-1, keepdims=True)
        y = params.gain * (wide / jnp.sqrt(square + self.epsilon)).astype(y.dtype)
        return y if params.bias is None else y + params.bias
