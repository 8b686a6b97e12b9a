"""What every analysis starts from: one sequence as it was walked, step by step.

An analysis is written for one sequence: `check_steps` does the checks of `jaxrnn.unroll`,
`over_batch` the batch axes and the precision of matrix products.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jaxrnn import cell as contract
from jaxrnn.cell import flatten_carry
from jaxrnn.methods import Method, Moment, choose
from jaxrnn.methods.lowered import guarded_step
from jaxrnn.methods.segments import carry_out
from jaxrnn.sequences import Sequences, check_sequences, lower, sequence_shape
from jaxrnn.unroll import check_method


class Walk(NamedTuple):
    """One sequence in the order of travel.

    befores: the carry before each step, `(T, …)`.
    moments: what each step is given, `(T, …)`.
    ys: the outputs, in the same order.
    initial: the carry that a reset returns to.
    real_count: number of real steps.
    """

    befores: PyTree
    moments: Moment
    ys: PyTree
    initial: PyTree
    real_count: Int[Array, ""]


def check_steps(cell: Any, params: PyTree, xs: PyTree, **options: Any) -> Sequences:
    """Raises what `jaxrnn.unroll` would raise, and for a network that cannot go step by step."""
    if not contract.is_causal(cell):
        raise TypeError(
            f"{type(cell).__name__} has no single direction of time to follow: analyse its "
            "causal parts one by one, the backward one with reverse=True"
        )
    return check_sequences(cell, params, xs, **options)


def over_batch(
    function: Callable[..., Any],
    cell: Any,
    params: PyTree,
    sequences: Sequences,
    *extra: PyTree,
    reverse: bool,
    method: Method | None,
) -> Any:
    """Calls `function(walk, *extra)` for every row; `extra` has the batch axes of xs."""
    check_method(method)

    def one_sequence(sequence, extra):
        return function(_walk(cell, params, method, reverse, *sequence), *extra)

    for _ in sequence_shape(cell, params, sequences.xs)[:-1]:
        one_sequence = jax.vmap(one_sequence)
    with jax.default_matmul_precision("highest"):
        return one_sequence(sequences, extra)


def _walk(
    cell: Any,
    params: PyTree,
    method: Method | None,
    reverse: bool,
    xs: PyTree,
    carry: PyTree | None,
    length: Array | None,
    resets: Array | None,
    keys: Array | None,
) -> Walk:
    moments = lower(xs, length, resets, keys, reverse)
    if reverse:
        moments = jax.tree.map(lambda leaf: leaf[::-1], moments)
    initial = jax.tree.map(jnp.asarray, cell.initial_carry(params))
    carry = initial if carry is None else carry
    steps = jax.tree.leaves(xs)[0].shape[0]
    way = choose(cell, params, (), steps) if method is None else method
    carries, ys = carry_out(way, cell, params, carry, moments, reverse=False, every=True)
    befores = jax.tree.map(lambda c, cs: jnp.concatenate([c[None], cs])[:-1], carry, carries)
    count = jnp.asarray(steps if length is None else length, jnp.int32)
    return Walk(befores, moments, ys, initial, count)


def real_steps_last(walk: Walk) -> Walk:
    """The walk with padding, if there is any, in front of all real steps."""
    if walk.moments.real is None:
        return walk
    steps = walk.moments.real.shape[0]
    shift = jnp.where(walk.moments.real[0], steps - walk.real_count, 0) if steps else 0
    befores, moments, ys = jax.tree.map(
        lambda leaf: jnp.roll(leaf, shift, axis=0), (walk.befores, walk.moments, walk.ys)
    )
    return walk._replace(befores=befores, moments=moments, ys=ys)


def flat_step(
    cell: Any, params: PyTree, initial: PyTree, before: PyTree, moment: Moment
) -> tuple[Callable[[Float[Array, " N"]], Float[Array, " N"]], Float[Array, " N"]]:
    """One step as a function from R^N to R^N, and the point at which it was taken."""
    vector, unflatten = flatten_carry(before)

    def step(flat: Float[Array, " N"]) -> Float[Array, " N"]:
        after, _ = guarded_step(cell, params, initial, unflatten(flat), moment)
        return flatten_carry(after)[0]

    return step, vector
