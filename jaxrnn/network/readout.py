"""What a network's outputs are read by."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from jaxrnn import cell as contract
from jaxrnn.initializers import FanIn, Initializer
from jaxrnn.network._shared import Composite, draw, width
from jaxrnn.unroll import unroll


class ReadoutParams(NamedTuple):
    """Parameters of the network and of the linear map of its outputs."""

    network: Any
    W: Float[Array, "O H"]
    b: Float[Array, " O"] | None


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Readout(Composite):
    """A network followed by y = W h + b at every step.

    output_size: O, features of one output.
    bias: whether there is a b.
    initializer: for W; b starts at zero.
    """

    network: Any
    output_size: int
    bias: bool = True
    initializer: Initializer = FanIn()

    def __post_init__(self) -> None:
        O = self.output_size
        if isinstance(O, bool) or not isinstance(O, int) or O < 1:
            raise ValueError(f"Readout: output_size must be an int of at least 1, got {O!r}")

    @property
    def members(self) -> tuple[Any, ...]:
        """The network."""
        return (self.network,)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> ReadoutParams:
        """Draws fresh parameters."""
        k_network, k_W = jax.random.split(key)
        features = width(self, self.network, "output_size")
        W = draw(self.initializer, k_W, (self.output_size, features), dtype)
        b = jnp.zeros(self.output_size, dtype) if self.bias else None
        return ReadoutParams(self.network.init(k_network, dtype=dtype), W, b)

    def initial_carry(self, params: ReadoutParams) -> PyTree:
        """The network's initial carry."""
        return self.network.initial_carry(params.network)

    def step(
        self, params: ReadoutParams, carry: PyTree, x: Any, key: Array | None = None
    ) -> tuple[PyTree, Array]:
        """One step for one example."""
        carry, h = contract.step(self.network, params.network, carry, x, key)
        return carry, _read(params, h)

    def unroll(
        self, params: ReadoutParams, xs: PyTree, *, verb: Callable = unroll, **options: Any
    ) -> tuple[PyTree, Array]:
        """Through the whole sequence; options as for `jaxrnn.unroll`."""
        carry, hs = verb(self.network, params.network, xs, **options)
        return carry, _read(params, hs)


def _read(params: ReadoutParams, h: Float[Array, "*any H"]) -> Float[Array, "*any O"]:
    y = h @ params.W.T
    return y if params.b is None else y + params.b
