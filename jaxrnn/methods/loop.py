"""The reference: a plain Python loop, which every other method must agree with."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxrnn.methods.lowered import Moment, guarded_step


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Loop:
    """Step after step in Python. Compile time grows with T: for tests and short sequences."""

    def __call__(
        self,
        cell: Any,
        params: PyTree,
        carry: PyTree,
        moments: Moment,
        *,
        reverse: bool,
        every: bool,
    ) -> tuple[PyTree, PyTree]:
        """Carries the unroll out; see `Method`."""
        initial = carry if moments.fresh is None else cell.initial_carry(params)
        steps = jax.tree.leaves(moments)[0].shape[0]
        carries, ys = [carry] * steps, [None] * steps
        for t in reversed(range(steps)) if reverse else range(steps):
            moment = jax.tree.map(lambda leaf, t=t: leaf[t], moments)
            carry, ys[t] = guarded_step(cell, params, initial, carry, moment)
            carries[t] = carry
        if steps == 0:
            carries, ys = _none_at_all(cell, params, initial, carry, moments)
        else:
            carries, ys = _stack(carries), _stack(ys)
        return (carries if every else carry), ys


def _stack(trees: list[Any]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _none_at_all(
    cell: Any, params: PyTree, initial: PyTree, carry: PyTree, moments: Moment
) -> tuple[PyTree, PyTree]:
    moment = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), moments)
    shapes = jax.eval_shape(
        lambda *arrays: guarded_step(cell, *arrays), params, initial, carry, moment
    )
    return jax.tree.map(lambda s: jnp.zeros((0, *s.shape), s.dtype), shapes)
