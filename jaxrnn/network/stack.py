"""Depth: layers one above the other."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from jaxrnn import cell as contract
from jaxrnn.network._shared import Composite, drop, fold
from jaxrnn.unroll import unroll


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Stack(Composite):
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
    def members(self) -> tuple[Any, ...]:
        """The layers."""
        return self.layers

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.layers[-1].output_size

    @property
    def random(self) -> bool:
        """Whether `step` takes a key."""
        return self.dropout > 0 or super().random

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
            new, x = run(layer, p, c, x, fold(key, 2 * i))
            after.append(new)
            if i + 1 < len(self.layers) and self.dropout:
                x = drop(x, self.dropout, fold(key, 2 * i + 1))
        return tuple(after), x
