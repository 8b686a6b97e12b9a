"""Entries of the carry that stay what they were."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jaxrnn import cell as contract
from jaxrnn.network._shared import Wrapper, bernoulli, check_causal, check_rate, field_name, fold
from jaxrnn.unroll import unroll


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Zoneout(Wrapper):
    """Krueger et al. 2017 (1606.01305): entries of the carry are kept at random, anew at each step.

        carry_t = d ⊙ carry_{t-1} + (1 − d) ⊙ step(carry_{t-1}, x_t)      d = 1 with p = rate

    Without a key, d is its mean, the rate, as in the paper at test time. h is made of the c that
    the step computes, not of the one that is kept, which is the paper's form too.

    rates: one number for all floating fields of the carry, or pairs (("h", 0.05), ("c", 0.5)) by
        the fields' names; those not named change freely.
    output: the field of the carry that is the output as well, and so follows what is kept; None
        where the layer's y is no such field, and stays as the layer gives it.
    """

    layer: Any
    rates: float | tuple[tuple[str, float], ...]
    output: str | None = "h"

    def __post_init__(self) -> None:
        pairs = self.rates if isinstance(self.rates, tuple) else ((None, self.rates),)
        for pair in pairs:
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise ValueError(
                    "Zoneout: rates must be a number or pairs of a field's name and a number, "
                    f'such as (("h", 0.05), ("c", 0.5)), got {self.rates!r}'
                )
            name, rate = pair
            check_rate(self, "rates" if name is None else f"the rate of {name!r}", rate)
        check_causal(self, self.layer, "and its carry cannot be kept between steps")

    @property
    def random(self) -> bool:
        """Always: what is kept is drawn."""
        return True

    def step(
        self, params: Any, carry: PyTree, x: Any, key: Array | None = None
    ) -> tuple[PyTree, Any]:
        """One step for one example."""
        after, y = contract.step(self.layer, params, carry, x, fold(key, 0))
        after = self._keep(carry, after, fold(key, 1))
        return after, (y if self.output is None else _fields(after)[self.output])

    def unroll(
        self, params: Any, xs: PyTree, *, verb: Callable = unroll, **options: Any
    ) -> tuple[PyTree, PyTree]:
        """Step by step through the whole sequence; options as for `jaxrnn.unroll`."""
        known = _fields(jax.eval_shape(self.initial_carry, params))
        named = [name for name, _ in self.rates] if isinstance(self.rates, tuple) else []
        for name in [*named, *([] if self.output is None else [self.output])]:
            if name not in known:
                raise ValueError(
                    f"Zoneout: the carry of {type(self.layer).__name__} has no field {name!r}, "
                    f"but {', '.join(map(repr, known))}: name those in rates and output"
                )
        return super().unroll(params, xs, verb=verb, **options)

    def _keep(self, before: PyTree, after: PyTree, key: Array | None) -> PyTree:
        leaves, structure = jax.tree_util.tree_flatten_with_path(before)
        news = jax.tree.leaves(after)
        return structure.unflatten(
            _mix(old, new, self._rate(field_name(path)), fold(key, i))
            for i, ((path, old), new) in enumerate(zip(leaves, news, strict=True))
        )

    def _rate(self, name: str) -> float:
        return dict(self.rates).get(name, 0.0) if isinstance(self.rates, tuple) else self.rates


def _mix(old: Array, new: Array, rate: float, key: Array | None) -> Array:
    if rate == 0 or not jnp.issubdtype(new.dtype, jnp.inexact):
        return new
    if key is None:
        return rate * old + (1 - rate) * new
    return jnp.where(bernoulli(key, rate, new.shape), old, new)


def _fields(carry: PyTree) -> dict[str, Any]:
    return {field_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(carry)}
