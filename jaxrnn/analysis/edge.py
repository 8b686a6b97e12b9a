"""Params at the edge of chaos, or at any other rate, for given inputs."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxrnn.analysis.scaled import log_scaled, norm
from jaxrnn.analysis.tangents import starting_columns
from jaxrnn.analysis.walk import Walk, check_steps, flat_step, over_batch
from jaxrnn.cell import flatten_carry
from jaxrnn.methods import Method


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EdgeOfChaos:
    """Params whose recurrent matrices were scaled until the exponent was the wanted one.

    params: the scaled params.
    gain: what the recurrent matrices were multiplied by.
    exponent: λ₁ measured with these params on these inputs, in nats per step.
    wanted: what was asked for.
    found: whether λ₁ crosses what was asked for anywhere between the gains tried. If not, gain is
        that of the nearest one tried.
    gains, exponents: all that were tried on the way, in ascending order, before halving.
    """

    params: PyTree
    gain: Float[Array, "*mapped"]
    exponent: Float[Array, "*mapped"]
    wanted: Float[Array, "*mapped"]
    found: Bool[Array, "*mapped"]
    gains: Float[Array, "*mapped tried"]
    exponents: Float[Array, "*mapped tried"]


def scale_recurrent(params: PyTree, gain: Float[Array, ""]) -> PyTree:
    """Every leaf of the name `W_h`, however deep, multiplied by the gain."""
    found = [False]

    def scaled(path, leaf):
        names = [getattr(entry, "name", getattr(entry, "key", None)) for entry in path]
        if "W_h" not in names:
            return leaf
        found[0] = True
        return leaf * gain.astype(leaf.dtype)

    params = jax.tree_util.tree_map_with_path(scaled, params)
    if not found[0]:
        raise ValueError(
            "params have no recurrent matrix of the name W_h: pass scale=function, "
            "scale(params, gain) -> params with the recurrent matrices multiplied by the gain"
        )
    return params


def edge_of_chaos(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    *,
    exponent: float | Float[Array, ""] = 0.0,
    lowest: float = 0.05,
    highest: float = 20.0,
    tried: int = 17,
    halvings: int = 30,
    burn_in: int = 0,
    scale: Callable[[PyTree, Array], PyTree] = scale_recurrent,
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> EdgeOfChaos:
    """Scales the recurrent matrices until the largest Lyapunov exponent on xs is the wanted one.

    λ₁ is the mean growth of one tangent vector over all real steps of all rows after the burn-in;
    over T steps it is off its limit by about 1/T nats. It is measured at `tried` gains from
    `lowest` to `highest`, evenly in their logarithm, and where it first crosses what is wanted the
    interval is halved again and again. λ₁ need not rise with the gain, and is rough in chaos:
    `exponents` show what there was to choose from.

    Args:
        exponent: wanted λ₁ in nats per step; 0 is the edge of chaos, −0.01 a memory of about
            100 steps.
        burn_in: steps at the start of each row that do not count.
        scale: `scale(params, gain)`, a function defined in a module; by default every W_h.

    Other options as for `jaxrnn.unroll`. tried + halvings + 1 times T jvps for each row.
    """
    if not 0 < lowest < highest:
        raise ValueError(f"expected 0 < lowest < highest, got {lowest!r} and {highest!r}")
    if tried < 2:
        raise ValueError(f"tried must be at least 2, got {tried}")
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_steps(cell, params, xs, start=start, **options)
    static = (scale, bool(reverse), method, tried, halvings, burn_in)
    logs = (math.log(lowest), math.log(highest))
    return _edge_of_chaos(cell, static, logs, params, exponent, sequences)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _edge_of_chaos(cell, static, logs, params, wanted, sequences):
    scale, reverse, method, tried, halvings, burn_in = static
    dtype = jax.eval_shape(lambda p: flatten_carry(cell.initial_carry(p))[0], params).dtype
    wanted = jnp.asarray(wanted).astype(dtype)

    def measure(log_gain):
        scaled = scale(params, jnp.exp(log_gain))
        one = functools.partial(_growth, cell, scaled, burn_in)
        growth, count = over_batch(one, cell, scaled, sequences, reverse=reverse, method=method)
        count = jnp.sum(count, dtype=jnp.int32)
        mean = jnp.sum(growth) / jnp.maximum(count, 1).astype(dtype)
        return jnp.where(count > 0, mean, -jnp.inf)

    low, high = logs
    log_gains = jnp.linspace(low, high, tried, dtype=dtype)
    exponents = jax.lax.map(measure, log_gains)
    low, high, rising, found = _bracket(log_gains, exponents, wanted)

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        beyond = (measure(middle) >= wanted) == rising
        return jnp.where(beyond, low, middle), jnp.where(beyond, middle, high)

    low, high = jax.lax.fori_loop(0, halvings, halve, (low, high))
    log_gain = (low + high) / 2
    gain, gains = jnp.exp(log_gain), jnp.exp(log_gains)
    solved = scale(params, gain)
    return EdgeOfChaos(solved, gain, measure(log_gain), wanted, found, gains, exponents)


def _bracket(
    log_gains: Float[Array, " n"], exponents: Float[Array, " n"], wanted: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""], Bool[Array, ""], Bool[Array, ""]]:
    # the first two neighbours on either side; if there are none, twice the nearest one
    above = exponents >= wanted
    crosses = above[1:] != above[:-1]
    found, place = jnp.any(crosses), jnp.argmax(crosses)
    nearest = log_gains[jnp.argmin(jnp.abs(exponents - wanted))]
    low = jnp.where(found, log_gains[place], nearest)
    high = jnp.where(found, log_gains[place + 1], nearest)
    return low, high, above[place + 1], found


def _growth(
    cell: Any, params: PyTree, burn_in: int, walk: Walk
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    # sum of ln ‖J_t v‖ over the steps that count, v of length 1, and their number
    first = starting_columns(walk.initial, 1)[:, 0]

    def one_step(state, inputs):
        tangent, seen = state
        before, moment = inputs
        step, point = flat_step(cell, params, walk.initial, before, moment)
        _, tangent = jax.jvp(step, (point,), (tangent,))
        size = norm(tangent)
        alive = (size > 0) & jnp.isfinite(size)
        tangent = jnp.where(alive, tangent / jnp.where(alive, size, 1), first)
        real = jnp.ones((), bool) if moment.real is None else moment.real
        # an episode that begins has no past to grow from
        counted = real & (seen >= burn_in)
        counted = counted if moment.fresh is None else counted & ~moment.fresh
        growth = log_scaled(size, jnp.zeros((), jnp.int32))
        return (tangent, seen + real.astype(seen.dtype)), (jnp.where(counted, growth, 0), counted)

    state = (first, jnp.zeros((), jnp.int32))
    _, (growth, counted) = jax.lax.scan(one_step, state, (walk.befores, walk.moments))
    return jnp.sum(growth), jnp.sum(counted, dtype=jnp.int32)
