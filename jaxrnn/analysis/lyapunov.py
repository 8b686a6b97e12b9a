"""Lyapunov exponents: at which rates small differences between carries grow or fade."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxrnn.analysis.tangents import (
    Growth,
    grow,
    off_the_sum_rule,
    real_steps_first,
    stretches,
)
from jaxrnn.analysis.walk import Walk, check_steps, over_batch
from jaxrnn.cell import flatten_carry
from jaxrnn.methods import Method

POINTS = 100  # of the running estimate
SAMPLES = 4  # stretches at which the sum rule is checked


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LyapunovSpectrum:
    """Lyapunov exponents of one trajectory for each row. All logarithms are natural.

    exponents: λ_1 ≥ λ_2 ≥ …, in nats per step, or per unit of time if `dt` was given.
    standard_error: of each exponent, from the spread of the means over `blocks` stretches of
        time; too small if a block is not much longer than the dynamics remember. inf if there
        are not two blocks, or the exponent is −inf.
    kaplan_yorke_dimension: j + (λ_1 + … + λ_j)/|λ_(j+1)| for the largest j whose sum is not
        negative; N if no sum is negative; inf if that cannot be told from K < N exponents.
    entropy_rate: sum of the positive exponents, in their unit (Pesin; in general an upper bound of
        the entropy that the dynamics make). Too small if all of K < N exponents are positive.
    convergence: the estimates of all exponents as they stood along the way.
    convergence_steps: how many steps each of these was taken over.
    sum_rule: Σ λ_i − ln|det J|, per step or unit of time, at up to four stretches spread over
        the trajectory, the largest in size: rounding, if all is well. None if K < N.
    steps: how many steps were counted.

    −inf for directions that a singular Jacobian annihilates, and everywhere if no step counts.
    """

    exponents: Float[Array, "*batch K"]
    standard_error: Float[Array, "*batch K"]
    kaplan_yorke_dimension: Float[Array, "*batch"]
    entropy_rate: Float[Array, "*batch"]
    convergence: Float[Array, "*batch P K"]
    convergence_steps: Int[Array, "*batch P"]
    sum_rule: Float[Array, "*batch"] | None
    steps: Int[Array, "*batch"]


def lyapunov_spectrum(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    *,
    exponents: int | None = None,
    burn_in: int | None = None,
    interval: int = 1,
    dt: float = 1.0,
    blocks: int = 10,
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> LyapunovSpectrum:
    """The K largest Lyapunov exponents along the trajectory that xs drive.

    With an orthonormal basis Q_0, J_t Q_(t−1) = Q_t R_t and λ_i = mean_t ln (R_t)_ii (Benettin,
    Galgani, Giorgilli and Strelcyn 1980; for driven networks Engelken, Wolf and Abbott 2023,
    2006.02427). For dynamics without input, xs = jnp.zeros((T, 0)) or whatever the step ignores.
    A step costs K Jacobian-vector products, never J itself, and, once in `interval` steps, one QR
    of (N, K), about 4 N K² operations. Memory: one carry for each step.

    Differentiable in params, through QR and the trajectory, where no Jacobian is singular:
    `jnp.mean(lyapunov_spectrum(…).exponents ** 2)` is the loss of gradient flossing (Engelken
    2023, 2312.17306). Where the dynamics are chaotic, that gradient explodes with T.

    Args:
        exponents: K, how many; all N by default, N counting real numbers of the carry.
        burn_in: steps at the start of each episode that are walked but not counted, while the
            carry settles on its attractor and, from the first step on, the basis on the leading
            directions (an error of about 1/T otherwise). None: a tenth of the episode.
        interval: steps between two QRs. Above 1 it is cheaper, and exponents more than
            ln(1/ε)/interval below the first are lost in rounding. Counts in whole intervals.
        dt: time that a step stands for; exponents are then per unit of time.
        blocks: stretches of time whose spread gives the standard error.

    Other options as for `jaxrnn.unroll`. No product crosses a reset: each episode starts from
    the initial carry and a fresh basis, its first step included, and counts by its steps, as if it
    had been walked alone. With `reverse`, time runs in the direction of travel.

    A direction is lost, with exponent −inf, if some R_ii is exactly 0 (a ReLU that is off) or if
    in most steps R_ii is no more than rounding. A trajectory that overflows gives NaN.
    """
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_steps(cell, params, xs, start=start, **options)
    count = check_exponents(cell, params, exponents)
    check_whole("interval", interval, 1)
    check_whole("blocks", blocks, 2)
    if burn_in is not None:
        check_whole("burn_in", burn_in, 0)
    if not dt > 0:
        raise ValueError(f"dt must be positive, got {dt!r}")
    plan = _Plan(count, burn_in, interval, blocks)
    return _lyapunov_spectrum(cell, plan, float(dt), bool(reverse), method, params, sequences)


class _Plan(NamedTuple):
    """What is asked for; static."""

    exponents: int
    burn_in: int | None
    interval: int
    blocks: int


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _lyapunov_spectrum(cell, plan, dt, reverse, method, params, sequences):
    one = functools.partial(_spectrum, cell, params, plan, dt)
    return over_batch(one, cell, params, sequences, reverse=reverse, method=method)


def _spectrum(cell: Any, params: PyTree, plan: _Plan, dt: float, walk: Walk) -> LyapunovSpectrum:
    walk = real_steps_first(walk)
    pieces = stretches(walk, plan.burn_in, plan.interval)
    growth = grow(cell, params, walk.initial, plan.exponents, pieces)
    logs = _logs_that_count(growth)
    steps, total = jnp.cumsum(growth.steps), jnp.sum(growth.steps, dtype=jnp.int32)
    exponents = _per_step(jnp.sum(logs, axis=0), total) / dt
    # after a finite time two that are nearly equal may stand the wrong way round
    order = jnp.argsort(-exponents)
    exponents = exponents[order]
    shown = np.unique(np.linspace(0, max(len(steps) - 1, 0), POINTS).astype(int))[: len(steps)]
    running = _per_step(jnp.cumsum(logs, axis=0)[shown], steps[shown][:, None]) / dt
    size = flatten_carry(walk.initial)[0].size
    off = None
    if plan.exponents == size:
        off = off_the_sum_rule(cell, params, walk.initial, pieces, growth, SAMPLES) / dt
    return LyapunovSpectrum(
        exponents=exponents,
        standard_error=_standard_error(logs, growth.steps, plan.blocks)[order] / dt,
        kaplan_yorke_dimension=_kaplan_yorke(exponents, size),
        entropy_rate=jnp.sum(jnp.maximum(exponents, 0)),
        convergence=running[:, order],
        convergence_steps=steps[shown],
        sum_rule=off,
        steps=total,
    )


def _logs_that_count(growth: Growth) -> Float[Array, "S K"]:
    counted = (growth.steps > 0)[:, None]
    logs = jnp.where(counted, growth.logs, 0)
    mostly = 2 * jnp.sum(growth.lost & counted, axis=0) > jnp.sum(counted)
    return jnp.where(mostly | jnp.any(logs == -jnp.inf, axis=0), -jnp.inf, logs)


def _standard_error(
    logs: Float[Array, "S K"], steps: Int[Array, " S"], blocks: int
) -> Float[Array, " K"]:
    total = jnp.maximum(jnp.sum(steps, dtype=jnp.int32), 1)
    # a stretch belongs to the block that its last step falls in
    block = jnp.clip((jnp.cumsum(steps) - 1) * blocks // total, 0, blocks - 1)
    lengths = jax.ops.segment_sum(steps, block, blocks)[:, None]
    sums = jax.ops.segment_sum(logs, block, blocks)
    known = (jnp.sum(lengths > 0) >= 2) & jnp.all(jnp.isfinite(sums), axis=0)
    means = jnp.where((lengths > 0) & known, _per_step(sums, lengths), 0)
    # blocks of unequal length count by their length
    weights = (lengths / total).astype(logs.dtype)
    off = jnp.where(lengths > 0, means - jnp.sum(weights * means, axis=0), 0)
    others = jnp.maximum(jnp.sum(lengths > 0) - 1, 1).astype(logs.dtype)
    variance = jnp.sum(weights * off * off, axis=0) / others
    positive = variance > 0
    error = jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)
    return jnp.where(known, error, jnp.inf)


def _kaplan_yorke(exponents: Float[Array, " K"], size: int) -> Float[Array, ""]:
    sums = jnp.cumsum(exponents)
    number = jnp.sum(sums >= 0)
    last = jnp.where(number > 0, sums[jnp.maximum(number - 1, 0)], 0)
    fall = -exponents[jnp.minimum(number, len(exponents) - 1)]
    part = last / jnp.where(fall > 0, fall, 1)
    at_the_end = float(size) if len(exponents) == size else jnp.inf
    return jnp.where(number == len(exponents), at_the_end, number.astype(exponents.dtype) + part)


def _per_step(sums: Float[Array, "*any"], steps: Int[Array, "*other"]) -> Float[Array, "*any"]:
    mean = sums / jnp.maximum(steps, 1).astype(sums.dtype)
    return jnp.where(steps > 0, mean, -jnp.inf)


def check_exponents(cell: Any, params: PyTree, exponents: int | None) -> int:
    """K, or an error."""
    size = jax.eval_shape(lambda p: flatten_carry(cell.initial_carry(p))[0], params).size
    if size == 0:
        raise ValueError(
            f"the carry of {type(cell).__name__} holds no real numbers, so nothing can grow in it"
        )
    if exponents is None:
        return size
    if type(exponents) is not int or not 1 <= exponents <= size:
        raise ValueError(
            f"exponents must be a whole number from 1 to {size}, the real numbers in the carry of "
            f"{type(cell).__name__}, got {exponents!r}"
        )
    return exponents


def check_whole(name: str, value: int, least: int) -> None:
    """Raises unless value is an int of at least `least`."""
    if type(value) is not int or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
