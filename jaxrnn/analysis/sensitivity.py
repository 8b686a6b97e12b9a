"""What an output owes to the inputs before it: of cells, and of any differentiable function."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxrnn.analysis.flow import mean_of_squares, random_directions
from jaxrnn.analysis.products import Product
from jaxrnn.analysis.scaled import log_scaled, norm, rescale, top_singular_value
from jaxrnn.analysis.walk import Walk, check_steps, over_batch, real_steps_last
from jaxrnn.cell import flatten_carry
from jaxrnn.methods import Method
from jaxrnn.methods.lowered import guarded_step


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class InputSensitivity:
    """Size of ∂(carry or output at T)/∂x_{T−lag} over lag. All logarithms are natural.

    lags: in steps, the smallest first; lag 0 is the input of the same step, and a negative one, of
        a function that looks ahead, an input still to come.
    log_frobenius_norm: ln ‖·‖_F.
    log_spectral_norm: ln σ_max; None where probes stood in for the whole Jacobian.
    standard_error: of log_frobenius_norm, in nats; 0 unless probes stood in.
    log_floor: below this a norm may have been rounded off on its way, and is given as −inf; −inf
        where nothing can be.
    """

    lags: Int[Array, "*mapped K"]
    log_frobenius_norm: Float[Array, "*batch K"]
    log_spectral_norm: Float[Array, "*batch K"] | None
    standard_error: Float[Array, "*batch K"]
    log_floor: Float[Array, "*batch"]


def input_decay(
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
) -> InputSensitivity:
    """Measures ∂carry_T/∂x_{T−lag} at lags 0…T−1, however small: `gradient_decay` for inputs.

    The product of Jacobians goes back through time as in `gradient_decay`, and every step pulls its
    rows on to the input: N vector-Jacobian products per step with respect to carry and x together,
    and about 10 products of I × N and I × I matrices, or N × N if that is smaller, for σ_max.
    −inf at lags that cross a reset or begin before the first real step.

    Options as for `jaxrnn.unroll`; T is the last real step. Embed tokens before: integers have no
    derivative.
    """
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_steps(cell, params, xs, start=start, **options)
    if not any(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(xs)):
        raise TypeError(
            "xs holds no floating numbers, so there is no derivative: pass embedded tokens"
        )
    return _input_decay(cell, bool(reverse), method, params, sequences)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _input_decay(cell, reverse, method, params, sequences):
    one = functools.partial(_inputs, cell, params)
    logs, tops = over_batch(one, cell, params, sequences, reverse=reverse, method=method)
    lags = jnp.arange(logs.shape[-1], dtype=jnp.int32)
    nothing = jnp.full(logs.shape[:-1], -jnp.inf, logs.dtype)
    return InputSensitivity(lags, logs, tops, jnp.zeros_like(logs), nothing)


def _inputs(cell: Any, params: PyTree, walk: Walk) -> tuple[Array, Array]:
    walk = real_steps_last(walk)
    vector, _ = flatten_carry(walk.initial)
    product = Product.start(jnp.eye(vector.size, dtype=vector.dtype), "none")

    def one_step_older(product, inputs):
        before, moment = inputs
        (flat, put_back), (x, put_x_back) = flatten_carry(before), flatten_carry(moment.x)

        def step(flat, x):
            now = moment._replace(x=put_x_back(x))
            after, _ = guarded_step(cell, params, walk.initial, put_back(flat), now)
            return flatten_carry(after)[0]

        _, pull = jax.vjp(step, flat, x)
        rows, at_x = jax.vmap(pull)(product.matrix)
        logs = _log_norms(at_x, product.exponent)
        return product.times(lambda _: rows), logs

    _, logs = jax.lax.scan(one_step_older, product, (walk.befores, walk.moments), reverse=True)
    lags = jnp.arange(len(logs[0]), dtype=jnp.int32)
    log, top = (jnp.where(lags < walk.real_count, log[::-1], -jnp.inf) for log in logs)
    return log, top


def _log_norms(
    block: Float[Array, "M N"], exponent: Int[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    block, exponent = rescale(block, exponent)
    # σ_max is found from a square of the first side
    low = block if block.shape[0] <= block.shape[1] else block.T
    return log_scaled(norm(block), exponent), log_scaled(top_singular_value(low), exponent)


def input_sensitivity(
    function: Callable[[Any], Any],
    xs: Array,
    *,
    end: int | None = -1,
    probes: int | None = None,
    probe_key: Array | None = None,
) -> InputSensitivity:
    """Measures ∂y_T/∂x_{T−lag} of any differentiable function of a sequence, over all of xs.

    `lambda xs: jaxrnn.unroll(cell, params, xs)[1]`, a convolution, a transformer: all on one axis.

    Args:
        function: `function(xs) -> ys`, with the leading axes of xs, `(*batch, T, …)`, or
            `(*batch, …)` with end=None. It is given xs as they are; rows must not depend on each
            other. Traced anew at every call; inside a `jax.jit` of yours, only once.
        xs: `(*batch, T, I)`, floating.
        end: which step's output is differentiated, T in the text, as an index of ys, whose steps
            must then be those of xs. None: ys has no time axis, and lags count from the last input.
        probes: None differentiates every number of the output, O of them: O passes back. For large
            outputs, how many random directions of the output to take in their place.
        probe_key: from `jax.random.key`, for the probes.

    A plain `jacrev` in float32 underflows at 1e-38, 87 nats below 1. Here the cotangents are scaled
    by a power of two that puts the largest gradient near the top of the range, which takes a second
    set of passes back, a third where the first overflows: 140 nats below the largest gradient are
    then seen in float32, 1360 in float64. What is lower is −inf, and `log_floor` says where that
    begins. `input_decay` has no such limit, but needs a cell. NaN only where the function's own
    derivative is not finite.
    """
    xs = jnp.asarray(xs)
    time, size = _check_outputs(function, xs, end)
    directions = None
    if probes is not None:
        if probe_key is None or not 1 <= probes <= size:
            raise ValueError(
                f"probes must be 1…{size}, the numbers in one output, and come with a probe_key: "
                f"got probes={probes!r}, probe_key={probe_key!r}"
            )
        directions = random_directions(probe_key, probes, size, xs.dtype)
    run = functools.partial(_sensitivity, function, end, time, size)
    with jax.default_matmul_precision("highest"):
        return jax.jit(run)(xs, directions)


def _check_outputs(function: Callable, xs: Array, end: int | None) -> tuple[int, int]:
    """The index of the differentiated step, and how many numbers its output has, or an error."""
    if xs.ndim < 2 or not jnp.issubdtype(xs.dtype, jnp.floating) or xs.shape[-2] == 0:
        raise ValueError(
            f"xs is {xs.dtype}{list(xs.shape)}, expected floating numbers (*batch, T, I) with at "
            "least one step: pass embedded tokens, not tokens"
        )
    *batch, steps, _ = xs.shape
    ys = jax.eval_shape(function, xs)
    expected = (*batch,) if end is None else (*batch, steps)
    shape = getattr(ys, "shape", None)
    if shape is None or shape[: len(expected)] != expected or ys.dtype != xs.dtype:
        got = jax.tree.map(lambda y: f"{y.dtype}{list(y.shape)}", ys)
        raise ValueError(
            f"function(xs) gave {got}, expected one array of {xs.dtype} with leading axes "
            f"{expected}" + (": pass end=None if it has no time axis" if end is not None else "")
        )
    if end is not None and not -steps <= end < steps:
        raise ValueError(f"end is {end}, expected an index of ys, which has {steps} steps")
    return (steps - 1 if end is None else end % steps), math.prod(shape[len(expected) :])


def _sensitivity(
    function: Callable, end: int | None, time: int, size: int, xs: Array, directions: Array | None
) -> InputSensitivity:
    *batch, steps, _ = xs.shape

    def output(xs):
        ys = function(xs)
        return (ys if end is None else jnp.take(ys, time, len(batch))).reshape(*batch, size)

    _, pull = jax.vjp(output, xs)
    rows = jnp.eye(size, dtype=xs.dtype) if directions is None else directions
    rows = jnp.broadcast_to(
        jnp.expand_dims(rows, range(1, len(batch) + 1)), (len(rows), *batch, size)
    )
    gradient, exponents = _in_range(jax.vmap(lambda row: pull(row)[0]), rows)
    # (*batch, lags, rows, I), the smallest lag first
    blocks = jnp.moveaxis(gradient, 0, -2)[..., ::-1, :, :]
    exponents = -exponents[..., None]
    log, top, error = _block_norms(blocks, exponents, None if directions is None else size)
    info = jnp.finfo(xs.dtype)
    floor = log_scaled(jnp.asarray(info.tiny / info.eps, xs.dtype), exponents)
    finite = jnp.all(jnp.isfinite(blocks), axis=(-2, -1))

    def seen(logs):
        return jnp.where(finite, jnp.where(logs < floor, -jnp.inf, logs), jnp.nan)

    log, top = seen(log), None if top is None else seen(top)
    lags = jnp.arange(time - steps + 1, time + 1, dtype=jnp.int32)
    return InputSensitivity(lags, log, top, jnp.where(log > floor, error, 0), floor[..., 0])


def _in_range(
    pull: Callable, rows: Float[Array, "rows *batch O"]
) -> tuple[Float[Array, "rows *batch T I"], Int[Array, "*batch"]]:
    """What the rows pull back to, times 2^exponents, with the largest near the top of the range."""
    info = jnp.finfo(rows.dtype)
    least, most = int(info.minexp), int(info.maxexp) - 1
    room = 28  # between the gradient of an input and what it is made of

    def turn(state):
        exponents, *_, turns = state
        gradient = pull(rows * jnp.ldexp(jnp.ones((), rows.dtype), exponents)[..., None])
        largest = jnp.max(jnp.abs(gradient), axis=(0, -2, -1))
        _, by = jnp.frexp(largest)
        by = jnp.where(largest > 0, most - room - by, most)
        by = jnp.where(jnp.isfinite(largest), jnp.where(jnp.abs(by) < 3, 0, by), least)
        after = jnp.clip(exponents + by.astype(jnp.int32), least, most)
        return after, exponents, gradient, turns + 1

    gradient = jax.eval_shape(pull, rows)
    nothing = jnp.zeros(rows.shape[1:-1], jnp.int32)
    state = (nothing, nothing - 1, jnp.zeros(gradient.shape, gradient.dtype), 0)
    _, exponents, gradient, _ = jax.lax.while_loop(
        lambda s: jnp.any(s[0] != s[1]) & (s[3] < 5), turn, state
    )
    return gradient, exponents


def _block_norms(
    blocks: Float[Array, "*lead rows I"], exponents: Int[Array, "*some"], size: int | None
) -> tuple[Array, Array | None, Array]:
    """ln ‖·‖_F, ln σ_max and the error of the former; `size` if the rows are probes of so many."""
    lead = blocks.shape[:-2]
    exponents = jnp.broadcast_to(exponents, lead)
    if size is not None:
        rows, by_row = rescale(
            blocks, jnp.broadcast_to(exponents[..., None], blocks.shape[:-1]), (-1,)
        )
        lengths = jnp.sqrt(jnp.sum(rows * rows, axis=-1))
        log, error = mean_of_squares(log_scaled(lengths, by_row), size)
        return log + math.log(size) / 2, None, error
    flat = blocks.reshape(-1, *blocks.shape[-2:])
    log, top = (a.reshape(lead) for a in jax.vmap(_log_norms)(flat, exponents.ravel()))
    return log, top, jnp.zeros_like(log)
