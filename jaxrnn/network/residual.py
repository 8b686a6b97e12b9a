"""A way around a layer."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from jaxrnn import cell as contract
from jaxrnn.initializers import FanIn
from jaxrnn.network._shared import Wrapper, check_cell, draw, width
from jaxrnn.unroll import unroll


class ResidualParams(NamedTuple):
    """Parameters of the layer and of the projection of its input, if there is one."""

    layer: Any
    W: Float[Array, "O I"] | None


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Residual(Wrapper):
    """A layer whose output is the layer's output plus its input; its carry stays the layer's own.

    projection: adds W x instead of x, for unequal widths.
    feed_back: hands the *sum* to the layer's next step as `carry.h`. That changes the recurrence,
        and needs a cell whose carry has an `h`.
    """

    layer: Any
    projection: bool = False
    feed_back: bool = False

    def __post_init__(self) -> None:
        if self.feed_back:
            check_cell(self, self.layer, "feed_back=True")
        sizes = [width(self, self.layer, field) for field in ("input_size", "output_size")]
        if not self.projection and sizes[0] != sizes[1]:
            raise ValueError(
                f"Residual: {type(self.layer).__name__} maps {sizes[0]} features to {sizes[1]}, "
                "which cannot be added: make them equal, or pass projection=True"
            )

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> ResidualParams:
        """Draws fresh parameters."""
        k_layer, k_W = jax.random.split(key)
        W = None
        if self.projection:
            W = draw(FanIn(), k_W, (self.output_size, self.input_size), dtype)
        return ResidualParams(self.layer.init(k_layer, dtype=dtype), W)

    def initial_carry(self, params: ResidualParams) -> PyTree:
        """The layer's initial carry."""
        return self.layer.initial_carry(params.layer)

    def step(
        self, params: ResidualParams, carry: PyTree, x: Any, key: Array | None = None
    ) -> tuple[PyTree, Array]:
        """One step for one example."""
        carry, y = contract.step(self.layer, params.layer, carry, x, key)
        y = y + _project(params.W, x)
        return (carry._replace(h=y) if self.feed_back else carry), y

    def unroll(
        self, params: ResidualParams, xs: PyTree, *, verb: Callable = unroll, **options: Any
    ) -> tuple[PyTree, Array]:
        """Through the whole sequence; options as for `jaxrnn.unroll`."""
        if self.feed_back:
            carry = jax.eval_shape(self.initial_carry, params)
            if "h" not in getattr(carry, "_fields", ()):
                raise ValueError(
                    "Residual: feed_back=True needs a carry with a field h, the output that is "
                    f"handed on; {type(self.layer).__name__} has {contract.describe(carry)}"
                )
            return super().unroll(params, xs, verb=verb, **options)
        carry, ys = verb(self.layer, params.layer, xs, **options)
        return carry, ys + _project(params.W, xs)


def _project(W: Array | None, x: Float[Array, "*any I"]) -> Float[Array, "*any O"]:
    return x if W is None else x @ W.T
