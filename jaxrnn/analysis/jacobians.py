"""Jacobians of single steps."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxrnn.analysis.walk import Walk, check_steps, flat_step, over_batch
from jaxrnn.methods import Method


def step_jacobians(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    *,
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> Float[Array, "*batch T N N"]:
    """J_t = ∂carry_t/∂carry_{t−1} at every step, `(*batch, T, N, N)`, by `jax.jacrev`.

    Row i, column j holds ∂(carry after)_i/∂(carry before)_j of the carry flattened as by
    `jaxrnn.flatten_carry`: for an LSTM the h come first, then the c. `J[t]` belongs to `xs[t]`,
    also with `reverse`, where "before" means before in the direction of travel. Their ordered
    product, newest on the left, is the Jacobian of the whole unroll. At a reset J_t is zero, at
    padding it is the identity. Takes T·N² numbers of memory: `gradient_decay` does without.

    Options as for `jaxrnn.unroll`.
    """
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_steps(cell, params, xs, start=start, **options)
    return _step_jacobians(cell, bool(reverse), method, params, sequences)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _step_jacobians(cell, reverse, method, params, sequences):
    one = functools.partial(_jacobians, cell, params, reverse)
    return over_batch(one, cell, params, sequences, reverse=reverse, method=method)


def _jacobians(cell: Any, params: PyTree, reverse: bool, walk: Walk) -> Float[Array, "T N N"]:
    def at(before: PyTree, moment: Any) -> Float[Array, "N N"]:
        step, vector = flat_step(cell, params, walk.initial, before, moment)
        return jax.jacrev(step)(vector)

    jacobians = jax.vmap(at)(walk.befores, walk.moments)
    return jnp.flip(jacobians, axis=0) if reverse else jacobians
