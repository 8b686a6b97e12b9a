"""Gradient flow beyond one curve: over end times, for large carries, layer by layer."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxrnn.analysis.scaled import log_scaled, norm, orthonormal, rescale, top_singular_value
from jaxrnn.analysis.slopes import decay_rate
from jaxrnn.analysis.walk import Walk, check_steps, flat_step, over_batch, real_steps_last
from jaxrnn.cell import flatten_carry
from jaxrnn.methods import Method
from jaxrnn.methods.lowered import guarded_step
from jaxrnn.network import Stack
from jaxrnn.sequences import sequence_shape


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GradientMap:
    """Size of ∂carry_e/∂carry_{e−lag} over end times e and lags. All logarithms are natural.

    ends: e, indices of xs: the carry after the step at xs[e] is what is differentiated.
    lags: 1…T, in steps.
    log_norm: ln ‖·‖ for every end and lag; −inf where the lag crosses a reset or begins before the
        first real step, and for ends at padding.
    mean: mean over ends of the finite log-norms at each lag: the typical norm, whose logarithm lies
        below that of the mean norm. −inf where there is none.
    spread: their sample standard deviation, in nats; 0 where there are fewer than two.
    count: how many ends there are at each lag. They are not independent: near ends share steps.
    """

    ends: Int[Array, "*mapped E"]
    lags: Int[Array, "*mapped T"]
    log_norm: Float[Array, "*batch E T"]
    mean: Float[Array, "*batch T"]
    spread: Float[Array, "*batch T"]
    count: Int[Array, "*batch T"]


def gradient_map(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    *,
    ends: int | Sequence[int] = 16,
    norm: str = "frobenius",
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> GradientMap:
    """Measures ∂carry_e/∂carry_{e−lag} for several ends e and all lags.

    One pass back through time that follows E products at once: E times the cost of
    `gradient_decay(…, spectral="none")`, an N × N product per step and end, and memory for E
    matrices per row.

    Args:
        ends: indices of xs, negative ones counted from the end; or how many to spread evenly.
        norm: "frobenius", or "spectral" for σ_max to rounding, at about 10 more products.

    Other options as for `jaxrnn.unroll`. With `reverse`, lags count in the direction of travel,
    towards larger indices.
    """
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_steps(cell, params, xs, start=start, **options)
    if norm not in ("frobenius", "spectral"):
        raise ValueError(f"norm must be 'frobenius' or 'spectral', got {norm!r}")
    places = _end_indices(ends, sequence_shape(cell, params, xs)[-1], bool(reverse))
    return _gradient_map(cell, places, norm, bool(reverse), method, params, sequences)


def _end_indices(ends: int | Sequence[int], steps: int, reverse: bool) -> tuple[int, ...]:
    if isinstance(ends, int):
        if ends < 1:
            raise ValueError(f"ends must be at least 1 or a sequence of indices, got {ends}")
        number = min(int(ends), steps)
        places = [round((i + 1) * steps / number) - 1 for i in range(number)]
        return tuple(steps - 1 - p for p in places) if reverse else tuple(places)
    wrong = [e for e in ends if not -steps <= e < steps]
    if wrong:
        raise ValueError(f"ends holds {wrong[0]}, expected an index of xs, which has {steps} steps")
    return tuple(int(e) % steps for e in ends)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _gradient_map(cell, ends, norm_name, reverse, method, params, sequences):
    one = functools.partial(_map, cell, params, ends, norm_name, reverse)
    log_norm = over_batch(one, cell, params, sequences, reverse=reverse, method=method)
    finite = jnp.isfinite(log_norm)
    count = jnp.sum(finite, axis=-2)
    mean, spread = _mean_and_spread(log_norm, finite)
    lags = jnp.arange(1, log_norm.shape[-1] + 1, dtype=jnp.int32)
    return GradientMap(jnp.asarray(ends, jnp.int32), lags, log_norm, mean, spread, count)


def _mean_and_spread(
    logs: Float[Array, "*batch E T"], finite: Bool[Array, "*batch E T"]
) -> tuple[Float[Array, "*batch T"], Float[Array, "*batch T"]]:
    number = jnp.sum(finite, axis=-2).astype(logs.dtype)
    mean = jnp.sum(jnp.where(finite, logs, 0), axis=-2) / jnp.maximum(number, 1)
    off = jnp.where(finite, logs - mean[..., None, :], 0)
    variance = jnp.sum(off * off, axis=-2) / jnp.maximum(number - 1, 1)
    return jnp.where(number > 0, mean, -jnp.inf), jnp.sqrt(variance)


def _map(
    cell: Any, params: PyTree, ends: tuple[int, ...], norm_name: str, reverse: bool, walk: Walk
) -> Float[Array, "E T"]:
    steps = jax.tree.leaves(walk.moments)[0].shape[0]
    vector, _ = flatten_carry(walk.initial)
    # in the order of travel, in which the walk lies
    places = jnp.asarray([steps - 1 - e if reverse else e for e in ends], jnp.int32)
    at_real_step = True if walk.moments.real is None else walk.moments.real[places]
    size = norm if norm_name == "frobenius" else top_singular_value

    def one_step_older(state, inputs):
        matrices, exponents = state
        t, before, moment = inputs
        follow = (t <= places) & at_real_step
        if moment.real is not None:
            follow = follow & moment.real
        step, point = flat_step(cell, params, walk.initial, before, moment)
        _, pull = jax.vjp(step, point)
        pulled = jax.vmap(jax.vmap(lambda row: pull(row)[0]))(matrices)
        pulled, exponents = rescale(
            jnp.where(follow[:, None, None], pulled, matrices), exponents, axis=(1, 2)
        )
        log = log_scaled(jax.vmap(size)(pulled), exponents)
        return (pulled, exponents), jnp.where(follow, log, -jnp.inf)

    identities = jnp.tile(jnp.eye(vector.size, dtype=vector.dtype), (len(ends), 1, 1))
    state = (identities, jnp.zeros(len(ends), jnp.int32))
    inputs = (jnp.arange(steps, dtype=jnp.int32), walk.befores, walk.moments)
    _, logs = jax.lax.scan(one_step_older, state, inputs, reverse=True)
    # from the step where a product begins to its lag
    first = places[:, None] - jnp.arange(steps, dtype=jnp.int32)[None, :]
    at_lag = jnp.take_along_axis(logs.T, jnp.maximum(first, 0), axis=1)
    return jnp.where(first >= 0, at_lag, -jnp.inf)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GradientProbes:
    """Estimated size of ∂carry_T/∂carry_{T−lag} over lag. All logarithms are natural.

    lags: 1…T, in steps, counted back from the last real step.
    log_norm: estimate of ln(‖·‖_F / √N), what a random direction keeps.
    standard_error: of that estimate, in nats, from the spread over the probes; 0 with as many
        probes as N, inf with one. Rough where few directions are left: near ½ √(2/probes).
    rate, r_squared: slope of the curve in nats per step over lags from T/10 to T, and its R².

    −inf at lags that cross a reset or begin before the first real step.
    """

    lags: Int[Array, "*mapped T"]
    log_norm: Float[Array, "*batch T"]
    standard_error: Float[Array, "*batch T"]
    rate: Float[Array, "*batch"]
    r_squared: Float[Array, "*batch"]


def gradient_probes(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    probe_key: Array,
    *,
    probes: int = 8,
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> GradientProbes:
    """Estimates ‖∂carry_T/∂carry_{T−lag}‖_F/√N from a few random directions, for large N.

    Random orthonormal cotangents are pulled back through time, each with a power of two of its
    own; the mean of their squared lengths is, on average over draws, ‖·‖_F²/N, and exact with N
    probes. Costs `probes` vector-Jacobian products per step in place of N, and memory for as many
    vectors. Every row of a batch draws its own, so that errors average out over rows.

    Args:
        probe_key: from `jax.random.key`; `key` is that of a cell that draws noise.
        probes: how many directions, 1…N; a few, as they are made orthogonal one by one.

    Other options as for `jaxrnn.unroll`. The logarithm of a mean of few lies low on average, by
    about the square of the standard error.
    """
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_steps(cell, params, xs, start=start, **options)
    size = jax.eval_shape(lambda p: flatten_carry(cell.initial_carry(p))[0], params).size
    if not 1 <= probes <= size:
        raise ValueError(f"probes must be 1…{size}, the size of the carry, got {probes!r}")
    batch = sequence_shape(cell, params, xs)[:-1]
    keys = jax.random.split(probe_key, batch)
    return _gradient_probes(cell, int(probes), bool(reverse), method, params, sequences, keys)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _gradient_probes(cell, probes, reverse, method, params, sequences, keys):
    one = functools.partial(_probes, cell, params, probes)
    fields = over_batch(one, cell, params, sequences, keys, reverse=reverse, method=method)
    lags = jnp.arange(1, fields["log_norm"].shape[-1] + 1, dtype=jnp.int32)
    return GradientProbes(lags=lags, **fields)


def _probes(cell: Any, params: PyTree, probes: int, walk: Walk, key: Array) -> dict[str, Array]:
    walk = real_steps_last(walk)
    vector, _ = flatten_carry(walk.initial)
    steps = jax.tree.leaves(walk.moments)[0].shape[0]

    def one_step_older(state, inputs):
        rows, exponents = state
        step, point = flat_step(cell, params, walk.initial, *inputs)
        _, pull = jax.vjp(step, point)
        pulled = jax.vmap(lambda row: pull(row)[0])(rows)
        rows, exponents = rescale(pulled, exponents, axis=(1,))
        return (rows, exponents), log_scaled(jax.vmap(norm)(rows), exponents)

    directions = random_directions(key, probes, vector.size, vector.dtype)
    state = (directions, jnp.zeros(probes, jnp.int32))
    inputs = (walk.befores, walk.moments)
    _, logs = jax.lax.scan(one_step_older, state, inputs, reverse=True)
    log_norm, error = mean_of_squares(logs[::-1], vector.size)
    lags = jnp.arange(1, steps + 1, dtype=jnp.int32)
    inside = lags <= walk.real_count
    log_norm = jnp.where(inside, log_norm, -jnp.inf)
    rate, r_squared = decay_rate(log_norm, lags, walk.real_count)
    error = jnp.where(inside, error, 0)
    return dict(log_norm=log_norm, standard_error=error, rate=rate, r_squared=r_squared)


def random_directions(key: Array, count: int, size: int, dtype: Any) -> Float[Array, "count size"]:
    """Orthonormal rows, uniformly distributed over all such."""
    return orthonormal(jax.random.normal(key, (size, count), dtype)).T


def mean_of_squares(
    logs: Float[Array, "*any count"], size: int
) -> tuple[Float[Array, "*any"], Float[Array, "*any"]]:
    """ln of the root of the mean over `count` orthonormal probes of `size` directions; its error.

    The error is that of drawing without replacement: none where count = size.
    """
    count = logs.shape[-1]
    top = jnp.max(logs, axis=-1, keepdims=True)
    some = jnp.isfinite(top)
    squares = jnp.where(some, jnp.exp(2 * (logs - jnp.where(some, top, 0))), 0)
    mean = jnp.mean(squares, axis=-1)
    positive = mean > 0
    safe = jnp.where(positive, mean, 1)
    log = jnp.where(positive, top[..., 0] + jnp.log(safe) / 2, -jnp.inf)
    if count == 1:
        return log, jnp.where(positive, jnp.full_like(mean, 0 if size == 1 else jnp.inf), 0)
    deviation = jnp.sqrt(jnp.var(squares, axis=-1, ddof=1) * ((1 - count / size) / count))
    return log, jnp.where(positive, deviation / (2 * safe), 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerDecay:
    """Gradients between the layers of a `Stack` over lag, as natural logarithms.

    lags: 1…T, in steps, counted back from the last real step.
    log_norm: [l, m] is ln ‖∂carry^l_T/∂carry^m_{T−lag}‖_F, layers counted from the bottom. On the
        diagonal stands each layer's own memory; above it −inf, as nothing goes down.
    log_output_norm: [m] is ln ‖∂y_T/∂carry^m_{T−lag}‖_F, y_T being the output of the whole.
    rate, r_squared: slope of each diagonal curve in nats per step, lags from T/10 to T, and its R².

    −inf at lags that cross a reset or begin before the first real step.
    """

    lags: Int[Array, "*mapped T"]
    log_norm: Float[Array, "*batch L L T"]
    log_output_norm: Float[Array, "*batch L T"]
    rate: Float[Array, "*batch L"]
    r_squared: Float[Array, "*batch L"]


def layer_decay(
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
) -> LayerDecay:
    """Measures which layer of a `Stack` keeps what: every block of ∂carry_T/∂carry_{T−lag}.

    The Jacobian of a stack is block triangular. Blocks may lie further apart than a float reaches,
    so L products are followed, the m-th with the layers under m left out, and every row under a
    power of two of its own: L (N + O) vector-Jacobian products per step, O numbers in an output.

    Options as for `jaxrnn.unroll`.
    """
    if not isinstance(cell, Stack):
        raise TypeError(
            f"layer_decay looks at the layers of a Stack, got {type(cell).__name__}: "
            "use gradient_decay"
        )
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_steps(cell, params, xs, start=start, **options)
    return _layer_decay(cell, bool(reverse), method, params, sequences)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _layer_decay(cell, reverse, method, params, sequences):
    one = functools.partial(_layers, cell, params)
    fields = over_batch(one, cell, params, sequences, reverse=reverse, method=method)
    lags = jnp.arange(1, fields["log_norm"].shape[-1] + 1, dtype=jnp.int32)
    return LayerDecay(lags=lags, **fields)


def _layers(cell: Stack, params: PyTree, walk: Walk) -> dict[str, Array]:
    walk = real_steps_last(walk)
    vector, _ = flatten_carry(walk.initial)
    outputs = flatten_carry(jax.tree.map(lambda y: jnp.zeros(y.shape[1:], y.dtype), walk.ys))[0]
    sizes = [flatten_carry(layer)[0].size for layer in walk.initial]
    edges = np.cumsum([0, *sizes])
    kept = jnp.asarray(np.arange(vector.size) >= edges[:-1, None], vector.dtype)

    def one_step_older(state, inputs):
        rows, exponents, at_output = state
        step, point = _step_with_output(cell, params, walk.initial, *inputs)
        _, pull = jax.vjp(step, point)
        pulled = jax.vmap(lambda row, y: pull((row, y))[0])
        rows = jax.vmap(pulled, (0, None))(rows, at_output) * kept[:, None, :]
        rows, exponents = rescale(rows, exponents, axis=(2,))
        logs = [_log_blocks(rows[m], exponents[m], edges, m) for m in range(len(sizes))]
        return (rows, exponents, jnp.zeros_like(at_output)), jnp.stack(logs, axis=1)

    # below the rows of the carry those of the output, which enter at the newest step alone
    N, O = vector.size, outputs.size
    rows = jnp.eye(N + O, N, dtype=vector.dtype) * kept[:, None, :]
    at_output = jnp.eye(N + O, O, k=-N, dtype=vector.dtype)
    state = (rows, jnp.zeros((len(sizes), N + O), jnp.int32), at_output)
    _, logs = jax.lax.scan(one_step_older, state, (walk.befores, walk.moments), reverse=True)
    lags = jnp.arange(1, len(logs) + 1, dtype=jnp.int32)
    logs = jnp.moveaxis(logs[::-1], 0, -1)
    logs = jnp.where(lags <= walk.real_count, logs, -jnp.inf)
    own = jnp.stack([logs[m, m] for m in range(len(sizes))])
    count = jnp.broadcast_to(walk.real_count, len(sizes))
    rate, r_squared = decay_rate(own, lags, count)
    return dict(log_norm=logs[:-1], log_output_norm=logs[-1], rate=rate, r_squared=r_squared)


def _step_with_output(cell: Any, params: PyTree, initial: PyTree, before: PyTree, moment: Any):
    vector, unflatten = flatten_carry(before)

    def step(flat):
        after, y = guarded_step(cell, params, initial, unflatten(flat), moment)
        return flatten_carry(after)[0], flatten_carry(y)[0]

    return step, vector


def _log_blocks(
    rows: Float[Array, "M N"], exponents: Int[Array, " M"], edges: np.ndarray, m: int
) -> Float[Array, " blocks"]:
    # ln-norm of the columns of layer m: for the rows of each layer, and for those of the output
    columns, exponents = rescale(rows[:, edges[m] : edges[m + 1]], exponents, axis=(1,))
    logs = log_scaled(jax.vmap(norm)(columns), exponents)
    blocks = jnp.split(logs, edges[1:])
    return jnp.stack([jax.nn.logsumexp(2 * block) / 2 for block in blocks])
