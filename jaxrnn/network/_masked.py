"""Masks that are constant in time: drawn at the first step of an episode, kept until a reset.

A step is given no more than its own key, `fold_in(row_key, t)`. So the mask is not drawn from the
row key itself but from a seed in the carry, which the first step of the episode takes from its
key: the mask is a function of the row key and of where in the row its episode begins. That
streams; and since a reset puts back the initial carry, which holds no seed, it draws a new mask.
Only the seed is carried; the mask is drawn from it again at every step.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, UInt32

from jaxrnn import cell as contract
from jaxrnn.network._shared import Wrapper, fold
from jaxrnn.sequences import sequence_shape
from jaxrnn.unroll import unroll


class SeedCarry(NamedTuple):
    """The seed of an episode's masks, and whether it has been drawn yet.

    Two plain numbers and no key: so the carry has the same shape for keys of every kind.
    """

    value: UInt32[Array, "2"]
    drawn: Bool[Array, ""]


class MaskedCarry(NamedTuple):
    """The carry of a layer under a mask that is constant in time."""

    layer: Any
    seed: SeedCarry


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Seed:
    """A cell without features whose output is the seed of the episode that the step belongs to."""

    input_rank = 0
    random = True

    def initial_carry(self, params: None = None) -> SeedCarry:
        """No seed yet."""
        return SeedCarry(jnp.zeros(2, jnp.uint32), jnp.zeros((), bool))

    def step(
        self, params: None, carry: SeedCarry, x: Any, key: Array | None
    ) -> tuple[SeedCarry, UInt32[Array, "2"]]:
        """Keeps the seed if there is one."""
        if key is None:
            return carry, carry.value
        new = jax.random.bits(key, (2,), jnp.uint32)
        value = jnp.where(carry.drawn, carry.value, new)
        return SeedCarry(value, jnp.ones((), bool)), value


SEED = Seed()


class Masked(Wrapper):
    """A layer with masks that are constant in time; subclasses say which.

    `mask_inputs` and `mask_outputs` serve one step and a whole sequence; `masked_step` is the
    layer's own step, under a mask of what recurs if `masks_recurrence`. `key` is that of the masks.
    """

    @property
    def random(self) -> bool:
        """Always: masks are drawn."""
        return True

    @property
    def masks_recurrence(self) -> bool:
        """Whether the layer itself must be walked under the mask, step by step."""
        raise NotImplementedError

    def mask_inputs(self, x: PyTree, key: Array) -> PyTree:
        """x as the layer is given it."""
        return x

    def mask_outputs(self, y: PyTree, key: Array) -> PyTree:
        """y as the network gives it."""
        return y

    def masked_step(
        self, params: Any, carry: Any, x: Any, mask_key: Array, key: Array | None
    ) -> tuple[Any, Any]:
        """The layer's step under its mask."""
        raise NotImplementedError

    def initial_carry(self, params: Any) -> MaskedCarry:
        """The layer's initial carry, and no seed yet."""
        return MaskedCarry(self.layer.initial_carry(params), SEED.initial_carry())

    def step(
        self, params: Any, carry: MaskedCarry, x: Any, key: Array | None = None
    ) -> tuple[MaskedCarry, Any]:
        """One step for one example; without a key, the layer's own."""
        seed, value = SEED.step(None, carry.seed, x, fold(key, 1))
        if key is None:
            inner, y = contract.step(self.layer, params, carry.layer, x)
            return MaskedCarry(inner, seed), y
        masks = mask_key(value)
        x = self.mask_inputs(x, masks)
        if self.masks_recurrence:
            inner, y = self.masked_step(params, carry.layer, x, masks, fold(key, 0))
        else:
            inner, y = contract.step(self.layer, params, carry.layer, x, fold(key, 0))
        return MaskedCarry(inner, seed), self.mask_outputs(y, masks)

    def unroll(
        self,
        params: Any,
        xs: PyTree,
        *,
        verb: Callable = unroll,
        carry: MaskedCarry | None = None,
        key: Array | None = None,
        method: Any = None,
        **options: Any,
    ) -> tuple[MaskedCarry, PyTree]:
        """The seeds first, then the layer; options as for `jaxrnn.unroll`."""
        inner, seed = (None, None) if carry is None else carry
        moments = jnp.zeros(sequence_shape(self, params, xs))
        seed, seeds = verb(SEED, None, moments, carry=seed, key=fold(key, 1), **options)
        if key is None:
            inner, ys = verb(self.layer, params, xs, carry=inner, method=method, **options)
            return MaskedCarry(inner, seed), ys
        masks = mask_key(seeds)
        xs = self.mask_inputs(xs, masks)
        cell, xs = (UnderMask(self), (xs, seeds)) if self.masks_recurrence else (self.layer, xs)
        options = dict(carry=inner, key=fold(key, 0), method=method, **options)
        inner, ys = verb(cell, params, xs, **options)
        return MaskedCarry(inner, seed), self.mask_outputs(ys, masks)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class UnderMask:
    """The layer of a `Masked` network as a cell that reads (x, seed)."""

    network: Any

    random = True

    @property
    def input_rank(self) -> Any:
        """Trailing axes of x and of the seed."""
        return self.network.input_rank, 1

    def initial_carry(self, params: Any) -> Any:
        """The layer's initial carry."""
        return self.network.layer.initial_carry(params)

    def step(self, params: Any, carry: Any, x: Any, key: Array | None) -> tuple[Any, Any]:
        """The layer's step under its mask."""
        x, seed = x
        return self.network.masked_step(params, carry, x, mask_key(seed), key)


def mask_key(seeds: UInt32[Array, "*lead 2"]) -> Array:
    """The key that an episode's masks are drawn from, one for each seed."""
    return jax.random.wrap_key_data(seeds, impl="threefry2x32")
