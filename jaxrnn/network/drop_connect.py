"""Dropout of recurrent weights."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, PyTree

from jaxrnn import cell as contract
from jaxrnn.network._masked import Masked
from jaxrnn.network._shared import check_causal, check_rate, drop, field_name, fold
from jaxrnn.unroll import unroll


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class DropConnect(Masked):
    """Wan et al. 2013 on the recurrent weights, as in Merity, Keskar and Socher 2018 (1708.02182).

        W_h ← M ⊙ W_h        an entry of M is 0 with probability `rate`, else 1/(1 − rate)

    Every row has an M of its own (Wan et al.'s), constant in time: drawn at the first step of an
    episode, from that step's key, and kept until a reset, as in `VariationalDropout`. Without a key
    all weights stay. The carry is `MaskedCarry(layer, seed)`; the params are the layer's.

    M is drawn again from its seed at every step, and once more for the gradient, because one M for
    each row and step would fill the memory: that costs a random number for each weight. Merity et
    al. draw one M for a whole batch, which costs nothing, and which is plain arithmetic on params:

        unroll(network.layer, network.drop(params, key), xs)

    rate: at which weights are dropped.
    weights: names of the fields of params that are dropped from, at any depth.
    """

    layer: Any
    rate: float
    weights: tuple[str, ...] = ("W_h",)

    def __post_init__(self) -> None:
        check_rate(self, "rate", self.rate)
        names = self.weights
        if not isinstance(names, tuple) or not names or not all(isinstance(n, str) for n in names):
            raise ValueError(f"DropConnect: weights must be a tuple of names, got {names!r}")
        check_causal(self, self.layer, "and cannot be given weights by the step")

    @property
    def masks_recurrence(self) -> bool:
        """Always."""
        return True

    def drop(self, params: PyTree, key: Array | None) -> PyTree:
        """The layer's params with weights dropped; as they are without a key."""
        leaves, structure = jax.tree_util.tree_flatten_with_path(params)
        named = [field_name(path) in self.weights for path, _ in leaves]
        return structure.unflatten(
            drop(leaf, self.rate, fold(key, i)) if chosen else leaf
            for i, (chosen, (_, leaf)) in enumerate(zip(named, leaves, strict=True))
        )

    def masked_step(
        self, params: Any, carry: Any, x: Any, mask_key: Array, key: Array | None
    ) -> tuple[Any, Any]:
        """The layer's step with the weights that are left."""

        def step(params: Any, carry: Any, x: Any, mask_key: Array, key: Any) -> tuple[Any, Any]:
            return contract.step(self.layer, self.drop(params, mask_key), carry, x, key)

        # else the gradient keeps a mask and the weights under it for every step of every row
        again = jax.checkpoint(step, prevent_cse=False)
        return again(params, carry, x, mask_key, key)

    def unroll(
        self, params: Any, xs: PyTree, *, verb: Callable = unroll, **options: Any
    ) -> tuple[Any, PyTree]:
        """Through the whole sequence; options as for `jaxrnn.unroll`."""
        found = {field_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
        if missing := sorted(set(self.weights) - found):
            raise ValueError(
                f"DropConnect: params of {type(self.layer).__name__} have no field {missing[0]!r}, "
                f"but {', '.join(map(repr, sorted(found)))}"
            )
        return super().unroll(params, xs, verb=verb, **options)
