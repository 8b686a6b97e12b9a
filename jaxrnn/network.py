"""Networks from cells: over depth, over direction, with a readout.

A network has the three methods of a cell, if it is causal, and `unroll`; so networks nest, and
whatever takes a cell takes a network. Each of them is written with the public verb alone.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from jaxrnn import cell as contract
from jaxrnn.initializers import FanIn, Gate, Initializer
from jaxrnn.unroll import unroll


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Stack:
    """Layers one above the other: each reads the outputs of the one below.

    layers: cells or networks, bottom first. Params and carry are tuples in the same order.
    dropout: rate at which single outputs are set to zero *between* layers (never after the last),
        anew at every step, the rest scaled by 1/(1 − rate). Only where a key is passed.
    """

    layers: tuple[Any, ...]
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.layers, tuple) or not self.layers:
            raise ValueError(f"Stack: layers must be a tuple of cells, got {self.layers!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"Stack: dropout must be in [0, 1), got {self.dropout!r}")
        for below, above in zip(self.layers, self.layers[1:], strict=False):
            out, into = (getattr(below, "output_size", None), getattr(above, "input_size", None))
            if isinstance(out, int) and isinstance(into, int) and out != into:
                raise ValueError(
                    f"Stack: {type(below).__name__} gives {out} features, but the "
                    f"{type(above).__name__} above it was made for input_size={into}"
                )

    @property
    def input_size(self) -> int:
        """Features of one input."""
        return self.layers[0].input_size

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.layers[-1].output_size

    @property
    def input_rank(self) -> Any:
        """Trailing axes of one moment, those of the lowest layer."""
        return getattr(self.layers[0], "input_rank", 1)

    @property
    def causal(self) -> bool:
        """Whether every layer can go step by step."""
        return all(contract.is_causal(layer) for layer in self.layers)

    @property
    def random(self) -> bool:
        """Whether `step` takes a key."""
        return self.dropout > 0 or any(contract.is_random(layer) for layer in self.layers)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> tuple[PyTree, ...]:
        """Draws fresh parameters, one entry per layer."""
        keys = jax.random.split(key, len(self.layers))
        return tuple(layer.init(k, dtype=dtype) for layer, k in zip(self.layers, keys, strict=True))

    def initial_carry(self, params: tuple[PyTree, ...]) -> tuple[PyTree, ...]:
        """The initial carries of all layers."""
        return tuple(layer.initial_carry(p) for layer, p in zip(self.layers, params, strict=True))

    def step(
        self,
        params: tuple[PyTree, ...],
        carry: tuple[PyTree, ...],
        x: Any,
        key: Array | None = None,
    ) -> tuple[tuple[PyTree, ...], Any]:
        """One step through all layers, for one example."""

        def one(layer, p, c, x, k):
            return contract.step(layer, p, c, x, k)

        return self._through(one, params, carry, x, key)

    def unroll(
        self,
        params: tuple[PyTree, ...],
        xs: PyTree,
        *,
        verb: Callable = unroll,
        carry: tuple[PyTree, ...] | None = None,
        key: Array | None = None,
        **options: Any,
    ) -> tuple[tuple[PyTree, ...], PyTree]:
        """Layer by layer through the whole sequence; options as for `jaxrnn.unroll`."""

        def whole(layer, p, c, xs, k):
            return verb(layer, p, xs, carry=c, key=k, **options)

        carry = (None,) * len(self.layers) if carry is None else carry
        return self._through(whole, params, carry, xs, key)

    def _through(
        self, run: Callable, params: tuple, carry: tuple, x: Any, key: Array | None
    ) -> tuple[tuple, Any]:
        # the same walk serves one step with one key and a sequence with one key per step, and so
        # draws the same noise: layer i has key 2i, what is dropped above it key 2i + 1
        after = []
        for i, (layer, p, c) in enumerate(zip(self.layers, params, carry, strict=True)):
            new, x = run(layer, p, c, x, _fold(key, 2 * i))
            after.append(new)
            if self.dropout > 0 and key is not None and i + 1 < len(self.layers):
                x = _drop(x, self.dropout, _fold(key, 2 * i + 1))
        return tuple(after), x


class BidirectionalParams(NamedTuple):
    """Parameters of the two directions."""

    forward: Any
    backward: Any


class BidirectionalCarry(NamedTuple):
    """Carries of the two directions; the final backward one is that after step 0."""

    forward: Any
    backward: Any


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Bidirectional:
    """Two independent cells, one in each direction, their outputs side by side (2H features).

    Schuster and Paliwal 1997. The backward direction starts at the last *real* step, so its final
    carry is that of its output at the *first* step. Cannot stream: it needs the future.

    backward: the cell of the other direction; the same kind as `forward` by default, with
        parameters of its own.
    """

    forward: Any
    backward: Any = None

    causal = False

    def __post_init__(self) -> None:
        if self.backward is None:
            object.__setattr__(self, "backward", self.forward)
        reads = [getattr(cell, "input_size", None) for cell in (self.forward, self.backward)]
        if all(isinstance(size, int) for size in reads) and reads[0] != reads[1]:
            raise ValueError(
                f"Bidirectional: the forward {type(self.forward).__name__} reads {reads[0]} "
                f"features, the backward {type(self.backward).__name__} {reads[1]}: "
                "both read the same xs, make them equal"
            )

    @property
    def input_size(self) -> int:
        """Features of one input."""
        return self.forward.input_size

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.forward.output_size + self.backward.output_size

    @property
    def input_rank(self) -> Any:
        """Trailing axes of one moment."""
        return getattr(self.forward, "input_rank", 1)

    @property
    def random(self) -> bool:
        """Whether either direction draws noise."""
        return contract.is_random(self.forward) or contract.is_random(self.backward)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> BidirectionalParams:
        """Draws fresh parameters for both directions."""
        k_forward, k_backward = jax.random.split(key)
        return BidirectionalParams(
            self.forward.init(k_forward, dtype=dtype), self.backward.init(k_backward, dtype=dtype)
        )

    def initial_carry(self, params: BidirectionalParams) -> BidirectionalCarry:
        """The initial carries of both directions."""
        return BidirectionalCarry(
            self.forward.initial_carry(params.forward),
            self.backward.initial_carry(params.backward),
        )

    def step(self, params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        """Always an error: the backward direction cannot know the future."""
        raise TypeError(
            "Bidirectional cannot go step by step: its backward direction needs the future. "
            "Use jaxrnn.unroll on the whole sequence, or a causal network"
        )

    def unroll(
        self,
        params: BidirectionalParams,
        xs: PyTree,
        *,
        verb: Callable = unroll,
        carry: BidirectionalCarry | None = None,
        reverse: bool = False,
        key: Array | None = None,
        **options: Any,
    ) -> tuple[BidirectionalCarry, PyTree]:
        """Both directions through the whole sequence; options as for `jaxrnn.unroll`."""
        if reverse:
            raise ValueError(
                "Bidirectional goes both ways already: reverse=True has no meaning here; "
                "flip xs if the sequence itself runs backwards"
            )
        there, back = (None, None) if carry is None else carry
        k_there, k_back = _fold(key, 0), _fold(key, 1)
        there, ys = verb(self.forward, params.forward, xs, carry=there, key=k_there, **options)
        back, zs = verb(
            self.backward, params.backward, xs, carry=back, reverse=True, key=k_back, **options
        )
        ys = jax.tree.map(lambda y, z: jnp.concatenate([y, z], axis=-1), ys, zs)
        return BidirectionalCarry(there, back), ys


class ResidualParams(NamedTuple):
    """Parameters of the layer and of the projection of its input, if there is one."""

    layer: Any
    W: Float[Array, "O I"] | None


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Residual:
    """A layer whose output is the layer's output plus its input; its carry stays the layer's own.

    projection: adds W x instead of x, for unequal widths.
    feed_back: hands the *sum* to the layer's next step as `carry.h`. That changes the recurrence,
        and needs a cell whose carry has an `h`.
    """

    layer: Any
    projection: bool = False
    feed_back: bool = False

    def __post_init__(self) -> None:
        if self.feed_back and isinstance(self.layer, contract.Network):
            raise ValueError("Residual: feed_back=True needs a cell, got a network")
        sizes = contract.size(self.layer, "input_size"), contract.size(self.layer, "output_size")
        if not self.projection and sizes[0] != sizes[1]:
            raise ValueError(
                f"Residual: {type(self.layer).__name__} maps {sizes[0]} features to {sizes[1]}, "
                "which cannot be added: make them equal, or pass projection=True"
            )

    @property
    def input_size(self) -> int:
        """Features of one input."""
        return self.layer.input_size

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.layer.output_size

    @property
    def input_rank(self) -> Any:
        """Trailing axes of one moment."""
        return getattr(self.layer, "input_rank", 1)

    @property
    def causal(self) -> bool:
        """Whether the layer can go step by step."""
        return contract.is_causal(self.layer)

    @property
    def random(self) -> bool:
        """Whether the layer draws noise."""
        return contract.is_random(self.layer)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> ResidualParams:
        """Draws fresh parameters."""
        k_layer, k_W = jax.random.split(key)
        W = None
        if self.projection:
            W = _draw(FanIn(), k_W, (self.output_size, self.input_size), dtype)
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
            return verb(_Steps(self), params, xs, **options)
        carry, ys = verb(self.layer, params.layer, xs, **options)
        return carry, ys + _project(params.W, xs)


class ReadoutParams(NamedTuple):
    """Parameters of the network and of the linear map of its outputs."""

    network: Any
    W: Float[Array, "O H"]
    b: Float[Array, " O"] | None


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Readout:
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
    def input_size(self) -> int:
        """Features of one input."""
        return self.network.input_size

    @property
    def input_rank(self) -> Any:
        """Trailing axes of one moment."""
        return getattr(self.network, "input_rank", 1)

    @property
    def causal(self) -> bool:
        """Whether the network can go step by step."""
        return contract.is_causal(self.network)

    @property
    def random(self) -> bool:
        """Whether the network draws noise."""
        return contract.is_random(self.network)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> ReadoutParams:
        """Draws fresh parameters."""
        k_network, k_W = jax.random.split(key)
        features = contract.size(self.network, "output_size")
        W = _draw(self.initializer, k_W, (self.output_size, features), dtype)
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


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Steps:
    """The cell inside a network: its three methods without its `unroll`."""

    network: Any

    @property
    def random(self) -> bool:
        return self.network.random

    def initial_carry(self, params: PyTree) -> PyTree:
        return self.network.initial_carry(params)

    def step(self, params: PyTree, carry: PyTree, x: Any, *key: Array) -> tuple[PyTree, Any]:
        return self.network.step(params, carry, x, *key)


def _read(params: ReadoutParams, h: Float[Array, "*any H"]) -> Float[Array, "*any O"]:
    y = h @ params.W.T
    return y if params.b is None else y + params.b


def _project(W: Array | None, x: Float[Array, "*any I"]) -> Float[Array, "*any O"]:
    return x if W is None else x @ W.T


def _draw(initializer: Initializer, key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    return initializer(key, (Gate("readout"),), shape, dtype)[0]


def _fold(key: Array | None, data: int) -> Array | None:
    if key is None:
        return None
    fold = jax.random.fold_in
    for _ in range(key.ndim):
        fold = jax.vmap(fold, (0, None))
    return fold(key, data)


def _drop(x: Array, rate: float, key: Array | None) -> Array:
    def keep(k, shape):
        return jax.random.bernoulli(k, 1 - rate, shape)

    assert key is not None
    draw = keep
    for _ in range(key.ndim):
        draw = jax.vmap(draw, (0, None))
    kept = draw(key, x.shape[key.ndim :])
    return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))
