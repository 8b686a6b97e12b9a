"""How a basis of small differences grows along a trajectory, episode by episode."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxrnn.analysis.householder import is_lost, qr
from jaxrnn.analysis.scaled import log_scaled, rescale
from jaxrnn.analysis.walk import Walk, flat_step
from jaxrnn.cell import flatten_carry
from jaxrnn.methods import Moment
from jaxrnn.methods.lowered import select


class Stretches(NamedTuple):
    """The steps between two QRs, with leading axes (S, m).

    befores: the carries that steps start from, the initial one where an episode begins.
    steps: 1 where a step counts, else 0.
    """

    befores: PyTree
    moments: Moment
    steps: Int[Array, "S m"]


class Growth(NamedTuple):
    """How the basis grew in each stretch.

    logs: ln R_ii.
    lost: whether R_ii is no more than rounding.
    steps: how many steps of the stretch count; 0 if it does not.
    """

    logs: Float[Array, "S K"]
    lost: Bool[Array, "S K"]
    steps: Int[Array, " S"]


def stretches(walk: Walk, burn_in: int | None, interval: int) -> Stretches:
    """A walk, real steps first, cut into stretches of `interval` steps."""
    befores, moments = from_episode_starts(walk), walk.moments
    steps = jax.tree.leaves(moments)[0].shape[0]
    number = -(-steps // interval)
    index = np.arange(number * interval).reshape(number, interval)
    inside = jnp.asarray(index < steps)
    index = np.minimum(index, max(steps - 1, 0))
    befores, moments = jax.tree.map(lambda leaf: leaf[index], (befores, moments))
    real = inside if moments.real is None else inside & moments.real
    if number * interval > steps:
        moments = moments._replace(real=real)
    # what an episode that ends within a stretch has grown since the last QR is not kept
    kept = real
    if moments.fresh is not None:
        begins = moments.fresh.astype(jnp.int32)
        later = jnp.cumsum(begins[:, ::-1], axis=1)[:, ::-1] - begins
        kept = kept & (later == 0)
    settled = (age(walk) >= leave_out(walk, burn_in))[index]
    whole = jnp.all(settled | ~kept, axis=1, keepdims=True)
    return Stretches(befores, moments, (kept & whole).astype(jnp.int32))


def grow(cell: Any, params: PyTree, initial: PyTree, count: int, pieces: Stretches) -> Growth:
    """The growth of `count` directions; a product for each step, a QR for each stretch."""
    start = starting_columns(initial, count)
    nothing = jnp.zeros(count, jnp.int32)

    def one_step(state, inputs):
        columns, exponent = state
        before, moment = inputs
        if moment.fresh is not None:
            columns = jnp.where(moment.fresh, start, columns)
            exponent = jnp.where(moment.fresh, 0, exponent)
        columns = push_columns(cell, params, initial, before, moment, columns)
        return rescale(columns, exponent, axis=(0,)), None

    def stretch(basis, piece):
        (columns, exponent), _ = jax.lax.scan(one_step, (basis, nothing), piece)
        basis, r = qr(columns)
        diagonal = jnp.diagonal(r)
        return basis, (log_scaled(diagonal, exponent), is_lost(columns, diagonal))

    _, (logs, lost) = jax.lax.scan(stretch, start, (pieces.befores, pieces.moments))
    return Growth(logs, lost, jnp.sum(pieces.steps, axis=1, dtype=jnp.int32))


def off_the_sum_rule(
    cell: Any, params: PyTree, initial: PyTree, pieces: Stretches, growth: Growth, samples: int
) -> Float[Array, ""]:
    """Σ ln R_ii − ln|det J| per step of the stretch, of a few, where it is largest in size."""
    number, size = growth.logs.shape
    dtype = growth.logs.dtype
    if number == 0:
        return jnp.zeros((), dtype)
    some = np.unique(np.linspace(0, number - 1, samples).astype(int))
    sampled = jax.tree.map(lambda leaf: leaf[some], pieces)
    identity, nothing = jnp.eye(size, dtype=dtype), jnp.zeros(size, jnp.int32)

    def log_determinant(before, moment):
        jacobian = push_columns(cell, params, initial, before, moment, identity)
        columns, exponent = rescale(jacobian, nothing, axis=(0,))
        return jnp.sum(log_scaled(jnp.diagonal(qr(columns)[1]), exponent))

    logs = jax.vmap(jax.vmap(log_determinant))(sampled.befores, sampled.moments)
    logs = jnp.sum(jnp.where(sampled.steps > 0, logs, 0), axis=1)
    off = jnp.sum(growth.logs[some], axis=1) - logs
    steps = growth.steps[some]
    # of a singular matrix neither side is a number
    off = jnp.where((steps > 0) & jnp.isfinite(off), off, 0)
    off = off / jnp.maximum(steps, 1).astype(dtype)
    return off[jnp.argmax(jnp.abs(off))]


def push_columns(
    cell: Any,
    params: PyTree,
    initial: PyTree,
    before: PyTree,
    moment: Moment,
    columns: Float[Array, "N K"],
) -> Float[Array, "N K"]:
    """J times columns, with J at `before`, whether or not an episode begins there."""
    step, point = flat_step(cell, params, initial, before, moment._replace(fresh=None))
    _, push = jax.linearize(step, point)
    return jax.vmap(push, in_axes=1, out_axes=1)(columns)


def starting_columns(initial: PyTree, count: int) -> Float[Array, "N K"]:
    """An orthonormal basis without any preferred direction, the same at every call."""
    vector, _ = flatten_carry(initial)
    draw = np.random.default_rng(0).normal(size=(vector.size, count))
    return jnp.asarray(np.linalg.qr(draw)[0], vector.dtype)


def real_steps_first(walk: Walk) -> Walk:
    """The walk with padding, if there is any, behind all real steps."""
    if walk.moments.real is None or walk.moments.real.shape[0] == 0:
        return walk
    shift = jnp.where(walk.moments.real[0], 0, walk.real_count)
    befores, moments, ys = jax.tree.map(
        lambda leaf: jnp.roll(leaf, shift, axis=0), (walk.befores, walk.moments, walk.ys)
    )
    return walk._replace(befores=befores, moments=moments, ys=ys)


def from_episode_starts(walk: Walk) -> PyTree:
    """The carries that steps start from: the initial one where an episode begins."""
    if walk.moments.fresh is None:
        return walk.befores
    one = jax.vmap(lambda fresh, before: select(fresh, walk.initial, before))
    return one(walk.moments.fresh, walk.befores)


def age(walk: Walk) -> Int[Array, " T"]:
    """Steps since the episode began; before the first real step it means nothing."""
    fresh, real = walk.moments.fresh, walk.moments.real
    time = jnp.arange(jax.tree.leaves(walk.moments)[0].shape[0], dtype=jnp.int32)
    begins = time == 0 if real is None else real & ~jnp.roll(real, 1)
    begins = begins if fresh is None else begins | fresh
    return time - jax.lax.cummax(jnp.where(begins, time, 0))


def episode_length(walk: Walk) -> Int[Array, "*T"]:
    """Real steps of the episode that each step belongs to; one number if there is only one."""
    fresh, real = walk.moments.fresh, walk.moments.real
    if fresh is None:
        return walk.real_count
    episode = jnp.cumsum(fresh.astype(jnp.int32))
    ones = jnp.ones_like(episode) if real is None else real.astype(jnp.int32)
    return jax.ops.segment_sum(ones, episode, len(fresh) + 1)[episode]


def leave_out(walk: Walk, steps: int | None) -> Int[Array, "*T"]:
    """Steps at one end of each episode that do not count; None is a tenth of it."""
    return episode_length(walk) // 10 if steps is None else jnp.asarray(steps, jnp.int32)
