"""How gradients travel back through time, in logarithms."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxrnn.analysis.products import LSTMCurves, LSTMProducts, Product
from jaxrnn.analysis.scaled import log_scaled, norm, rescale, subspace_iteration, top_singular_value
from jaxrnn.analysis.singular import SingularValues
from jaxrnn.analysis.slopes import decay_rate, half_life, horizon
from jaxrnn.analysis.walk import Walk, check_steps, flat_step, over_batch, real_steps_last
from jaxrnn.methods import Method
from jaxrnn.sizes import flatten_carry


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GradientDecay:
    """Size of ∂carry_T/∂carry_{T−lag} over lag. All logarithms are natural.

    lags: 1…T, in steps, counted back from the last real step.
    log_spectral_norm: ln σ_max: what the luckiest direction keeps. None with spectral="none".
    log_frobenius_norm: ln ‖·‖_F; minus ½ ln N it is what a random direction keeps.
    mean_log_step_norm: mean over steps of ln σ_max(J_t), the norm bound per step.
    rate: slope of the curve in nats per step, over lags from T/10 to T; r_squared: its R².
    half_life: ln 2/−rate in steps; inf if the curve does not fall.
    horizon: first lag at which the norm is under the threshold; inf if there is none.
    spectral_residual: how far the iterative spectral norms may be off, in nats (0 if exact).
    curves: for an LSTM its four curves, else None.
    log_singular_values: ln of the leading singular values, the largest first, if asked for.

    −inf at lags that cross a reset or begin before the first real step.
    """

    lags: Int[Array, "*mapped T"]
    log_spectral_norm: Float[Array, "*batch T"] | None
    log_frobenius_norm: Float[Array, "*batch T"]
    mean_log_step_norm: Float[Array, "*batch"] | None
    rate: Float[Array, "*batch"]
    r_squared: Float[Array, "*batch"]
    half_life: Float[Array, "*batch"]
    horizon: Float[Array, "*batch"]
    spectral_residual: Float[Array, "*batch T"] | None
    curves: LSTMCurves | None
    log_singular_values: Float[Array, "*batch T leading"] | None = None


def gradient_decay(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    *,
    spectral: str | None = None,
    singular_values: int = 0,
    threshold: float = 1e-6,
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> GradientDecay:
    """Measures how ∂carry_T/∂carry_{T−lag} grows or decays with lag, for all lags at once.

    One pass back through time: the product of Jacobians, newest on the left, takes in one older
    step after the other, with its power of two kept aside as an integer, so that neither 1e-5000
    nor 1e+5000 is out of reach, in float32 as well. Memory for one N × N matrix per row.

    Args:
        spectral: "exact" computes every spectral norm to rounding; "iterative" by subspace
            iteration, each lag starting from the one before, which is far cheaper for large N and
            reports its residual; "none" leaves them out, and rate and horizon are then those of
            the Frobenius norm. None: exact up to N = 128, iterative above.
        singular_values: how many of the leading ones to return, at most N. Each is true relative to
            itself, also where the largest is more than 1/ε times the smallest and those of the
            product itself would be rounding noise. All N are followed, however many are returned:
            a step is N vector-Jacobian products, one QR by Gram-Schmidt and 4 to 7 turns of
            rotations, some 40 N × N products' worth of operations, and element-wise ones. What a
            single step shrinks to within rounding of nothing, 4 ε √N of its row, is −inf from
            there on.
        threshold: norm under which a gradient counts as gone, for `horizon`.

    Other options as for `jaxrnn.unroll`. With `reverse`, lags count in the direction of travel.
    """
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_steps(cell, params, xs, start=start, **options)
    if spectral is None:
        spectral = "exact" if _carry_size(cell, params) <= 128 else "iterative"
    if spectral not in ("exact", "iterative", "none"):
        raise ValueError(f"spectral must be 'exact', 'iterative' or 'none', got {spectral!r}")
    if not 0 <= singular_values <= _carry_size(cell, params):
        raise ValueError(
            f"singular_values must be 0…{_carry_size(cell, params)}, the size of the carry, "
            f"got {singular_values!r}"
        )
    if not threshold > 0:
        raise ValueError(f"threshold must be positive, got {threshold!r}")
    norms = Norms(spectral, int(singular_values), float(threshold))
    return _gradient_decay(cell, norms, bool(reverse), method, params, sequences)


class Norms(NamedTuple):
    """Which norms to take of the product, as the options of `gradient_decay` name them."""

    spectral: str
    singular_values: int
    threshold: float


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _gradient_decay(cell, norms, reverse, method, params, sequences):
    one = functools.partial(_decay, cell, params, norms)
    fields = over_batch(one, cell, params, sequences, reverse=reverse, method=method)
    return GradientDecay(lags=_lags(fields["log_frobenius_norm"].shape[-1]), **fields)


def _decay(cell: Any, params: PyTree, norms: Norms, walk: Walk) -> dict[str, Any]:
    spectral, wanted, threshold = norms
    walk = real_steps_last(walk)
    vector, _ = flatten_carry(walk.initial)
    steps = jax.tree.leaves(walk.moments)[0].shape[0]
    identity = jnp.eye(vector.size, dtype=vector.dtype)
    product = Product.start(identity, spectral)
    curves = LSTMProducts.start(cell, vector.dtype, spectral) if spectral != "none" else None
    singular = SingularValues.start(vector.size, vector.dtype) if wanted else None

    def one_step_older(state, inputs):
        product, basis, curves, singular = state
        before, moment = inputs
        step, point = flat_step(cell, params, walk.initial, before, moment)
        _, push = jax.linearize(step, point)
        pull = jax.linear_transpose(push, point)
        pull_rows = jax.vmap(lambda row: pull(row)[0])
        product = product.times(pull_rows)
        out = {"frobenius": log_scaled(norm(product.matrix), product.exponent)}
        if spectral != "none":
            product, out["spectral"], out["residual"] = product.log_top(spectral)
            basis, out["step"] = _log_step_norm(push, pull_rows, identity, basis)
        if curves is not None:
            forget = cell.gates(params, before, moment.x).forget
            if moment.fresh is not None:
                forget = jnp.where(moment.fresh, 0, forget)
            curves, out["curves"] = curves.older(product, pull_rows, forget, spectral)
        if singular is not None:
            singular, all_of_them = singular.older(pull_rows)
            out["singular"] = all_of_them[:wanted]
        return (product, basis, curves, singular), out

    state = (product, product.basis, curves, singular)
    _, out = jax.lax.scan(one_step_older, state, (walk.befores, walk.moments), reverse=True)
    # the scan ran from the newest step to the oldest: lag 1 stands last
    out = jax.tree.map(lambda a: a[::-1], out)
    lags = _lags(steps)
    inside = lags <= walk.real_count
    reached = {
        name: jax.tree.map(lambda a: jnp.where(inside, a, -jnp.inf), out.get(name))
        for name in ("frobenius", "spectral", "curves")
    }
    counted = inside
    if walk.moments.fresh is not None:
        counted = inside & ~walk.moments.fresh[::-1]
    log_norm = reached["frobenius"] if spectral == "none" else reached["spectral"]
    rate, r_squared = decay_rate(log_norm, lags, walk.real_count)
    return dict(
        log_spectral_norm=reached["spectral"],
        log_frobenius_norm=reached["frobenius"],
        mean_log_step_norm=None if spectral == "none" else _mean(out["step"], counted),
        rate=rate,
        r_squared=r_squared,
        half_life=half_life(rate),
        horizon=horizon(log_norm, lags, threshold, walk.real_count),
        spectral_residual=None if spectral == "none" else jnp.where(inside, out["residual"], 0),
        curves=None if curves is None else LSTMCurves(reached["spectral"], *reached["curves"]),
        log_singular_values=jnp.where(inside[:, None], out["singular"], -jnp.inf)
        if wanted
        else None,
    )


def _log_step_norm(
    push: Callable, pull_rows: Callable, identity: Float[Array, "N N"], basis: Array | None
) -> tuple[Array | None, Float[Array, ""]]:
    # ln σ_max of a single Jacobian, and the basis to start the next one from
    nothing = jnp.zeros((), jnp.int32)
    if basis is None:
        jacobian, exponent = rescale(pull_rows(identity), nothing)
        return None, log_scaled(top_singular_value(jacobian), exponent)
    push_columns = jax.vmap(push, in_axes=1, out_axes=1)
    _, exponent = rescale(push_columns(basis), nothing)

    def gram(columns):
        # each factor under a power of two: their product squares the size of J
        columns = jnp.ldexp(push_columns(columns), -exponent)
        return jnp.ldexp(pull_rows(columns.T).T, -exponent)

    value, _, basis = subspace_iteration(gram, basis)
    return basis, log_scaled(value, exponent)


def _mean(values: Float[Array, " T"], counted: Bool[Array, " T"]) -> Float[Array, ""]:
    number = jnp.sum(counted).astype(values.dtype)
    mean = jnp.sum(jnp.where(counted, values, 0)) / jnp.maximum(number, 1)
    return jnp.where(number > 0, mean, -jnp.inf)


def _lags(steps: int) -> Int[Array, " T"]:
    return jnp.arange(1, steps + 1, dtype=jnp.int32)


def _carry_size(cell: Any, params: PyTree) -> int:
    return jax.eval_shape(lambda p: flatten_carry(cell.initial_carry(p))[0], params).size
