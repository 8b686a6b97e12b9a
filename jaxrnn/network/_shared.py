"""What networks share: what they take over from their members, and how noise is drawn."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from jaxrnn import cell as contract
from jaxrnn.initializers import Gate, Initializer
from jaxrnn.unroll import unroll


class Composite:
    """A network as the sum of its members, the first of which reads xs."""

    @property
    def members(self) -> tuple[Any, ...]:
        """The cells and networks it is made of."""
        raise NotImplementedError(f"{type(self).__name__} must name its members")

    @property
    def input_size(self) -> int:
        """Features of one input."""
        return self.members[0].input_size

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, if the first member names it."""
        return self.members[0].input_shape

    @property
    def input_rank(self) -> Any:
        """Trailing axes of one moment."""
        return getattr(self.members[0], "input_rank", 1)

    @property
    def causal(self) -> bool:
        """Whether every member can go step by step."""
        return all(contract.is_causal(member) for member in self.members)

    @property
    def random(self) -> bool:
        """Whether `step` takes a key."""
        return any(contract.is_random(member) for member in self.members)

    def unroll(
        self, params: PyTree, xs: PyTree, *, verb: Callable = unroll, **options: Any
    ) -> tuple[PyTree, PyTree]:
        """Step by step through the whole sequence; options as for `jaxrnn.unroll`."""
        return verb(Steps(self), params, xs, **options)


class Wrapper(Composite):
    """One layer with something around it; params and carry are the layer's unless it says so."""

    layer: Any

    @property
    def members(self) -> tuple[Any, ...]:
        """The layer."""
        return (self.layer,)

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.layer.output_size

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> Any:
        """Draws fresh parameters."""
        return self.layer.init(key, dtype=dtype)

    def initial_carry(self, params: Any) -> Any:
        """The layer's initial carry."""
        return self.layer.initial_carry(params)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Steps:
    """The cell inside a causal network: its step without its `unroll`."""

    network: Any

    @property
    def input_rank(self) -> Any:
        """Trailing axes of one moment."""
        return getattr(self.network, "input_rank", 1)

    @property
    def random(self) -> bool:
        """Whether `step` takes a key."""
        return contract.is_random(self.network)

    def initial_carry(self, params: PyTree) -> PyTree:
        """The network's initial carry."""
        return self.network.initial_carry(params)

    def step(self, params: PyTree, carry: PyTree, x: Any, *key: Array | None) -> tuple[PyTree, Any]:
        """The network's step."""
        return self.network.step(params, carry, x, *key)


def width(network: Any, member: Any, field: str) -> int:
    """`input_size` or `output_size` of a member, which the network needs to be one number."""
    size = contract.size(member, field)
    if isinstance(size, int):
        return size
    raise ValueError(
        f"{type(network).__name__} needs one number, but the {field} of {type(member).__name__} "
        f"is {size!r}: choose another merge"
    )


def check_rate(network: Any, field: str, rate: Any) -> None:
    """Raises if a rate of dropout is none."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise ValueError(f"{type(network).__name__}: {field} must be in [0, 1), got {rate!r}")


def check_cell(network: Any, cell: Any, what: str) -> None:
    """Raises if a network stands where only a single cell will do."""
    if isinstance(cell, contract.Network):
        raise ValueError(f"{type(network).__name__}: {what} needs a cell, got a network")


def check_causal(network: Any, member: Any, why: str) -> None:
    """Raises if a member cannot go step by step."""
    if not contract.is_causal(member):
        raise ValueError(
            f"{type(network).__name__}: {type(member).__name__} cannot go step by step, {why}"
        )


def draw(initializer: Initializer, key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """One matrix of a readout or projection."""
    return initializer(key, (Gate("readout"),), shape, dtype)[0]


def fold(key: Array | None, data: int) -> Array | None:
    """`fold_in` for a key or an array of keys."""
    if key is None:
        return None
    one = jax.random.fold_in
    for _ in range(key.ndim):
        one = jax.vmap(one, (0, None))
    return one(key, data)


def drop(x: PyTree, rate: float, key: Array | None) -> PyTree:
    """Sets floating entries to zero at this rate and scales the rest by 1/(1 − rate).

    `key` has leading axes of x: one draw for each of its keys. None drops nothing.
    """
    if key is None or rate == 0:
        return x
    leaves, structure = jax.tree.flatten(x)
    # one array, which is the rule, is drawn with the key itself
    keys = [key if i == 0 else fold(key, i) for i in range(len(leaves))]
    return structure.unflatten([_drop(leaf, rate, k) for leaf, k in zip(leaves, keys, strict=True)])


def _drop(x: Array, rate: float, key: Any) -> Array:
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return x
    kept = bernoulli(key, 1 - rate, x.shape[key.ndim :])
    return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))


def bernoulli(key: Array, probability: float, shape: tuple[int, ...]) -> Array:
    """True with this probability, `shape` for each of the keys."""

    def one(k: Array) -> Array:
        return jax.random.bernoulli(k, probability, shape)

    for _ in range(key.ndim):
        one = jax.vmap(one)
    return one(key)


def field_name(path: tuple[Any, ...]) -> str:
    """The name of the innermost field that a path of a tree leads to."""
    return jax.tree_util.keystr(path[-1:], simple=True)
