"""Watching a network while it trains: rates, exponents, time constants, clipping."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jaxrnn.analysis.gradients import gradient_decay
from jaxrnn.analysis.lyapunov import check_exponents, check_whole, lyapunov_spectrum
from jaxrnn.analysis.timescales import time_constants
from jaxrnn.cell import params_dtype


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Monitored:
    """What a `monitor` knows after an update. All logarithms are natural.

    updates: how many there have been.
    gradient_norm: global norm of this update's gradient, before clipping.
    clipped: how many updates so far had a norm above `clip`.
    measured_at: the update before which what follows was measured, counted from 1; 0 for never.
    rate: slope of ln ‖∂carry_T/∂carry_(T−k)‖ over lag k, in nats per step, mean over rows.
    exponents: the leading Lyapunov exponents, in nats per step, mean over rows.
    time_constant: median over all units and rows of the τ of the keep gates, in steps.

    NaN until it is measured, and the time constant of a cell without a keep gate always.
    """

    updates: Int[Array, "*updates"]
    gradient_norm: Float[Array, "*updates"]
    clipped: Int[Array, "*updates"]
    measured_at: Int[Array, "*updates"]
    rate: Float[Array, "*updates"]
    exponents: Float[Array, "*updates K"]
    time_constant: Float[Array, "*updates"]


def monitor(
    cell: Any,
    *,
    every: int = 100,
    clip: float | None = None,
    exponents: int = 1,
    rows: int = 2,
    steps: int | None = None,
    select: Callable[[PyTree], PyTree] | None = None,
    log: Callable[[Monitored], None] | None = None,
) -> Any:
    """A link for `optax.chain` that measures before every n-th update and changes nothing.

        optimizer = optax.chain(
            analysis.monitor(cell, every=100, clip=5.0),
            optax.clip_by_global_norm(5.0),
            optax.adam(1e-3),
        )
        updates, state = optimizer.update(gradients, state, params, xs=xs)
        state[0].rate

    Its state is a `Monitored`, and works wherever the optimiser does, under `jax.jit` and
    `jax.lax.scan`. Under `vmap` over models it measures at every update: what is chosen by a
    condition there is computed on both sides.

    A measurement costs, for each of `rows` sequences and each step, N pulls through the step for
    the rate and K pushes and a QR of (N, K) for the exponents, N numbers in the carry; an update
    costs about three steps for each row of the batch. A share of (N + K) · rows / (3 · batch ·
    every): with 2 rows, N = 64 and a batch of 32, every 100 updates, 1.4 per cent of the products;
    small products in sequence are slower than large ones, and `python -m experiments.analysis_cost`
    measures what it comes to. The gradient's norm, at every update, is free beside clipping.

    Args:
        cell: the cell or causal network that is trained.
        every: updates between two measurements; the first is before the first.
        clip: the threshold of the clipping that follows, to count how often it acts.
        exponents: K, how many Lyapunov exponents.
        rows: sequences of the batch that are measured, the first ones.
        steps: how much of each, from its start; None for all.
        select: params of the whole model -> params of the cell; None if they are the same.
        log: called with a `Monitored` after each measurement, from compiled code as well.

    `update` takes xs, `(batch, T, …)`, and if there are any lengths, resets and carry, by name,
    as `jaxrnn.unroll` does.
    """
    import optax

    check_whole("every", every, 1)
    check_whole("rows", rows, 1)
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be positive or None, got {clip!r}")

    def measure(params: PyTree, options: dict[str, Any]) -> tuple[Any, Any, Any]:
        options = jax.tree.map(lambda a: jax.lax.stop_gradient(a[:rows]), options)
        xs = jax.tree.map(lambda a: a[:, :steps], options.pop("xs"))
        if options.get("resets") is not None:
            options["resets"] = options["resets"][:, :steps]
        if options.get("lengths") is not None and steps is not None:
            options["lengths"] = jnp.minimum(options["lengths"], steps)
        rate = gradient_decay(cell, params, xs, spectral="none", **options).rate
        spectrum = lyapunov_spectrum(cell, params, xs, exponents=exponents, **options)
        tau = _median_time_constant(cell, params, xs, options)
        return jnp.mean(rate), jnp.mean(spectrum.exponents, axis=0), tau

    def init(params: PyTree) -> Any:
        params = params if select is None else select(params)
        dtype = params_dtype(params) or jnp.float32
        check_exponents(cell, params, exponents)
        zero, unknown = jnp.zeros((), jnp.int32), jnp.full((), jnp.nan, dtype)
        return Monitored(
            updates=zero,
            gradient_norm=unknown,
            clipped=zero,
            measured_at=zero,
            rate=unknown,
            exponents=jnp.full(exponents, jnp.nan, dtype),
            time_constant=unknown,
        )

    def update(
        updates: PyTree, state: Any, params: PyTree = None, *, xs: Any = None, **extra: Any
    ) -> tuple[Any, Any]:
        if params is None or xs is None:
            raise ValueError(
                "monitor measures a network on data: call optimizer.update(gradients, state, "
                "params, xs=xs) with the params and xs of this update"
            )
        inner = params if select is None else select(params)
        options = {k: extra[k] for k in ("lengths", "resets", "carry") if extra.get(k) is not None}
        options |= {k: jnp.asarray(options[k]) for k in ("lengths", "resets") if k in options}
        norm = optax.tree.norm(updates).astype(state.gradient_norm.dtype)  # NaN stays to be seen
        measured = jax.lax.cond(
            state.updates % every == 0,
            lambda: (state.updates + 1, *measure(inner, {"xs": xs, **options})),
            lambda: (state.measured_at, state.rate, state.exponents, state.time_constant),
        )
        clipped = state.clipped if clip is None else state.clipped + (norm > clip).astype(jnp.int32)
        after = Monitored(state.updates + 1, norm, clipped, *measured)
        if log is not None:
            tell = functools.partial(jax.debug.callback, log)
            jax.lax.cond(after.measured_at == after.updates, tell, lambda _: None, after)
        return updates, after

    return optax.GradientTransformationExtraArgs(init, update)


def _median_time_constant(cell: Any, params: PyTree, xs: Any, options: dict) -> Array:
    try:
        found = time_constants(cell, params, xs, **options).time_constant
    except TypeError:  # it has no keep gate
        return jnp.full((), jnp.nan, params_dtype(params) or jnp.float32)
    return jnp.median(jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(found)]))
