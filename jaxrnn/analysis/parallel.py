"""Whether a sequence can be walked in parallel by Newton's method, told from how it expands."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxrnn.analysis.lyapunov import check_exponents
from jaxrnn.analysis.tangents import episode_length, grow, real_steps_first, stretches
from jaxrnn.analysis.walk import Walk, check_steps, over_batch
from jaxrnn.methods import Method

FEWEST = 6  # turns that Newton takes where nothing expands: 5 to 7, measured
SHORT = 5  # steps of expansion that leave it at 5 to 9


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ParallelOutlook:
    """What to expect of `jaxrnn.Newton` on a sequence, for each row.

    exponent: the largest Lyapunov exponent of the trajectory, in nats per step.
    longest_expansion: L, the longest stretch, in steps, over which the leading direction does not
        shrink. T if the exponent is positive; else, how far the dynamics expand in passing.
    longest_at_guess: the same for Jacobians at the first carry, where Newton starts from.
    expected_turns: about how many turns Newton takes, min(6 + L, T), T that of the longest
        episode. Good where `few` or `hopeless`; in between no more than a guess.
    few: neither expansion is longer than 5 steps. The turns do not depend on T: Newton pays
        wherever work in parallel is cheap.
    hopeless: the exponent is positive. About T turns, each dearer than a step of the scan.
    """

    exponent: Float[Array, "*batch"]
    longest_expansion: Int[Array, "*batch"]
    longest_at_guess: Int[Array, "*batch"]
    expected_turns: Int[Array, "*batch"]
    few: Bool[Array, "*batch"]
    hopeless: Bool[Array, "*batch"]


def parallel_outlook(
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
) -> ParallelOutlook:
    """How many turns `Newton` will take, without taking them.

    Newton's corrections are carried along by products of Jacobians: where these shrink, all steps
    are corrected at once, and where they grow, one after the other. So the sign of the largest
    Lyapunov exponent decides in the long run (Gonzalez et al. 2025, 2508.16817), and for a given
    sequence the longest stretch that expands, on the trajectory and at the guess. Costs two walks
    with a Jacobian-vector product a step.

    Measured on Elman, GRU and LSTM with 6 to 12 units, weights scaled from ½ to 12 times, input of
    standard deviation 0.3 to 3, T = 64 and 512, in float64: where `few`, 5 to 9 turns at either T;
    where `hopeless`, a half of T to T, or an overflow in the first turn and the scan (a fifth of
    T where the whole sequence expands by less than e²); in between from a tenth of the estimate to
    fifteen times. `jaxrnn.unroll_report` counts.

    Options as for `jaxrnn.unroll`; `method` is how the trajectory itself is walked.
    """
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_steps(cell, params, xs, start=start, **options)
    check_exponents(cell, params, 1)
    return _parallel_outlook(cell, bool(reverse), method, params, sequences)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _parallel_outlook(cell, reverse, method, params, sequences):
    one = functools.partial(_outlook, cell, params)
    return over_batch(one, cell, params, sequences, reverse=reverse, method=method)


def _outlook(cell: Any, params: PyTree, walk: Walk) -> ParallelOutlook:
    walk = real_steps_first(walk)
    logs, counted = _leading_growth(cell, params, walk)
    number = jnp.sum(counted, dtype=jnp.int32)
    total = jnp.sum(jnp.where(counted, logs, 0)) / jnp.maximum(number, 1).astype(logs.dtype)
    fresh = walk.moments.fresh
    longest = longest_expansion(jnp.where(counted, logs, -jnp.inf), fresh)
    # Newton starts from the first carry, everywhere
    still = jax.tree.map(lambda c: jnp.broadcast_to(c[:1], c.shape), walk.befores)
    logs, _ = _leading_growth(cell, params, walk._replace(befores=still))
    at_guess = longest_expansion(jnp.where(counted, logs, -jnp.inf), fresh)
    length = jnp.max(jnp.where(counted, episode_length(walk), 0), initial=0)
    return ParallelOutlook(
        exponent=jnp.where(number > 0, total, -jnp.inf),
        longest_expansion=longest,
        longest_at_guess=at_guess,
        expected_turns=jnp.minimum(longest + FEWEST, length),
        few=jnp.maximum(longest, at_guess) <= SHORT,
        hopeless=(number > 0) & (total > 0),
    )


def _leading_growth(
    cell: Any, params: PyTree, walk: Walk
) -> tuple[Float[Array, " T"], Bool[Array, " T"]]:
    growth = grow(cell, params, walk.initial, 1, stretches(walk, 0, 1))
    return growth.logs[:, 0], growth.steps > 0


def longest_expansion(
    logs: Float[Array, " T"], fresh: Bool[Array, " T"] | None = None
) -> Int[Array, ""]:
    """The largest number of steps in a row, within an episode, whose logs add up to 0 or more."""
    steps = len(logs)
    if steps == 0:
        return jnp.zeros((), jnp.int32)
    finite = jnp.where(jnp.isfinite(logs), logs, 0)
    # deeper than any sum can rise
    wall = 1 + 2 * jnp.sum(jnp.abs(finite))
    falls = jnp.where(jnp.isfinite(logs), finite, -wall)
    before = jnp.concatenate([jnp.zeros(1, logs.dtype), jnp.cumsum(falls)])
    after = before[1:]
    if fresh is not None:
        depth = wall * jnp.cumsum(fresh.astype(jnp.int32)).astype(logs.dtype)
        before, after = before[:-1] - depth, after - depth
    else:
        before = before[:-1]
    # the highest point still to come falls over time: search it for the last one not below
    to_come = jax.lax.cummax(after, reverse=True)
    last = jnp.searchsorted(-to_come, -before, side="right").astype(jnp.int32)
    return jnp.max(jnp.maximum(last - jnp.arange(steps, dtype=jnp.int32), 0))
