"""Gradients seen forwards: how soon two sequences that differed once end in the same carry."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxrnn import cell as contract
from jaxrnn.analysis.scaled import log_scaled, norm, rescale
from jaxrnn.analysis.slopes import decay_rate, half_life, horizon
from jaxrnn.analysis.walk import Walk, check_steps, flat_step, over_batch
from jaxrnn.cell import flatten_carry
from jaxrnn.methods import Method, Moment
from jaxrnn.methods.lowered import guarded_step
from jaxrnn.sequences import check_carry, lower, sequence_shape


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ForgettingCurve:
    """Distance of two carries over lag. All logarithms are natural, of Euclidean norms.

    lags: 0…T, in steps since the carry after the last input that differed (since the first carry,
        if only that differed): the axis of `GradientDecay`, walked the other way.
    log_distance: ln ‖carry′ − carry‖, the real distance; −inf once all numbers are the same.
    log_tangent: the distance at lag 0, handed on by the Jacobians along xs: what log_distance
        would be, were the difference infinitely small. Does not underflow.
    log_resolution: ln(½ε ‖carry‖), one rounding of the carry: a log_distance near it or below is
        rounding, and tells nothing of forgetting.
    rate: slope of log_tangent in nats per step, over lags from a tenth to the last.
    half_life: ln 2/−rate in steps; inf if the curve does not fall.
    horizon: first lag at which log_tangent has fallen by the threshold; inf if there is none.

    −inf at lags behind the last real step, and behind a reset.
    """

    lags: Int[Array, "*mapped L"]
    log_distance: Float[Array, "*batch L"]
    log_tangent: Float[Array, "*batch L"]
    log_resolution: Float[Array, "*batch L"]
    rate: Float[Array, "*batch"]
    half_life: Float[Array, "*batch"]
    horizon: Float[Array, "*batch"]


def forgetting_curve(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    other_xs: PyTree | None = None,
    *,
    other_carry: PyTree | None = None,
    threshold: float = 1e-6,
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> ForgettingCurve:
    """Measures how the difference between two runs dies out once their inputs are the same again.

    The two may differ in one token, in a whole prefix, or in the carry they start from; lags
    count from the last difference. log_tangent − its value at lag 0 is never above the
    spectral norm of ∂carry_{s+k}/∂carry_s, whose lag is the same k.

    Args:
        other_xs: a second input of the shape and dtype of xs; None: xs.
        other_carry: a second carry to start from; None: the same.
        threshold: how far the distance has to fall, relative to lag 0, to count as gone.

    Other options as for `jaxrnn.unroll`; both runs have the same noise. With `reverse`, lags count
    in the direction of travel. Costs three steps and a jvp for each step; no N × N matrix.
    """
    if other_xs is None and other_carry is None:
        raise ValueError("two runs that are the same: pass other_xs, other_carry, or both")
    if not threshold > 0:
        raise ValueError(f"threshold must be positive, got {threshold!r}")
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_steps(cell, params, xs, start=start, **options)
    other_xs = sequences.xs if other_xs is None else jax.tree.map(jnp.asarray, other_xs)
    *batch, _ = sequence_shape(cell, params, xs)
    other_carry = check_carry(cell, params, other_carry, tuple(batch))
    got, expected = contract.describe(other_xs), contract.describe(jax.tree.map(jnp.asarray, xs))
    if got != expected:
        raise ValueError(f"other_xs is {got}, expected {expected}, like xs")
    others = (other_xs, sequences.carry, other_carry)
    return _forgetting(cell, float(threshold), bool(reverse), method, params, sequences, others)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _forgetting(cell, threshold, reverse, method, params, sequences, others):
    one = functools.partial(_curve, cell, params, threshold, reverse)
    fields = over_batch(one, cell, params, sequences, others, reverse=reverse, method=method)
    return ForgettingCurve(lags=_lags(fields["log_tangent"].shape[-1]), **fields)


def _curve(
    cell: Any, params: PyTree, threshold: float, reverse: bool, walk: Walk, others: tuple
) -> dict[str, Any]:
    other_xs, carry, other_carry = others
    carry = walk.initial if carry is None else carry
    other_carry = carry if other_carry is None else other_carry
    moments, differ = _moments(walk, other_xs, reverse)
    times = jnp.arange(differ.shape[0], dtype=jnp.int32)
    last = jnp.max(jnp.where(differ, times, -1), initial=-1)

    def one_step(state, inputs):
        pair, tangent, exponent = state
        time, moment = inputs
        first = moment._replace(x=_of(moment.x, 0))
        step, point = flat_step(cell, params, walk.initial, _of(pair, 0), first)
        _, pushed = jax.jvp(step, (point,), (tangent,))
        pair = _both(cell, params, walk.initial, pair, moment)
        gap = _gap(pair)
        differs = time <= last
        tangent = jnp.where(differs, gap, pushed)
        tangent, exponent = rescale(tangent, jnp.where(differs, 0, exponent))
        return (pair, tangent, exponent), _logs(pair, gap, tangent, exponent)

    pair = jax.tree.map(lambda a, b: jnp.stack([a, b]), carry, other_carry)
    tangent, exponent = rescale(_gap(pair), jnp.zeros((), jnp.int32))
    at_start = _logs(pair, _gap(pair), tangent, exponent)
    _, after = jax.lax.scan(one_step, (pair, tangent, exponent), (times, moments))
    logs = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), at_start, after)
    return _from_lag_zero(logs, last, walk.real_count, threshold)


def _moments(walk: Walk, other_xs: PyTree, reverse: bool) -> tuple[Moment, Bool[Array, " T"]]:
    # x of both runs side by side, real steps in front, and where the two differ
    moments, real = walk.moments, walk.moments.real
    other = lower(other_xs, None if real is None else walk.real_count, None, None, reverse).x
    if reverse:
        other = jax.tree.map(lambda leaf: leaf[::-1], other)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b], axis=1), moments.x, other)
    moments = moments._replace(x=both)
    steps = jax.tree.leaves(both)[0].shape[0]
    if real is not None and steps:
        shift = jnp.where(real[0], 0, walk.real_count - steps)
        moments = jax.tree.map(lambda leaf: jnp.roll(leaf, shift, axis=0), moments)
    differ = jnp.zeros(steps, bool)
    for leaf in jax.tree.leaves(moments.x):
        differ |= jnp.any(leaf[:, 0] != leaf[:, 1], axis=tuple(range(1, leaf.ndim - 1)))
    return moments, differ if moments.real is None else differ & moments.real


def _both(cell: Any, params: PyTree, initial: PyTree, pair: PyTree, moment: Moment) -> PyTree:
    # side by side in one program, so that what is equal stays equal to the last bit
    def one(carry, x):
        return guarded_step(cell, params, initial, carry, moment._replace(x=x))[0]

    return jax.vmap(one)(pair, moment.x)


def _of(pair: PyTree, index: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[index], pair)


def _gap(pair: PyTree) -> Float[Array, " N"]:
    return flatten_carry(_of(pair, 1))[0] - flatten_carry(_of(pair, 0))[0]


def _logs(
    pair: PyTree, gap: Float[Array, " N"], tangent: Float[Array, " N"], exponent: Int[Array, ""]
) -> dict[str, Float[Array, ""]]:
    def log_norm(vector, exponent):
        vector, exponent = rescale(vector, exponent)
        return log_scaled(norm(vector), exponent)

    nothing = jnp.zeros((), jnp.int32)
    rounding = 0.5 * jnp.finfo(gap.dtype).eps * flatten_carry(_of(pair, 0))[0]
    return dict(
        log_distance=log_norm(gap, nothing),
        log_tangent=log_norm(tangent, exponent),
        log_resolution=log_norm(rounding, nothing),
    )


def _from_lag_zero(
    logs: dict[str, Array], last: Int[Array, ""], count: Int[Array, ""], threshold: float
) -> dict[str, Any]:
    lags = _lags(logs["log_tangent"].shape[0])
    place = lags + last + 1
    logs = {
        name: jnp.where(place <= count, curve[jnp.minimum(place, len(curve) - 1)], -jnp.inf)
        for name, curve in logs.items()
    }
    tangent, first, reached = logs["log_tangent"][1:], logs["log_tangent"][0], count - 1 - last
    rate, _ = decay_rate(tangent, lags[1:], reached)
    there = jnp.isfinite(first)
    fallen = jnp.where(there, tangent - jnp.where(there, first, 0), -jnp.inf)
    gone = horizon(fallen, lags[1:], threshold, reached)
    return dict(logs, rate=rate, half_life=half_life(rate), horizon=gone)


def _lags(count: int) -> Int[Array, " L"]:
    return jnp.arange(count, dtype=jnp.int32)
