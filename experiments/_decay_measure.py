"""What `gradient_decay` measures on one set of parameters, for all seeds at once."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

import jaxrnn
from jaxrnn import analysis
from jaxrnn.cells.elman import ACTIVATIONS

EXACT_UP_TO = 48  # size of the carry; exact spectral norms of larger ones take too long here


def next_character_loss(ys: Float[Array, "T H"], data: tuple) -> Float[Array, ""]:
    """L_T: the cost, in nats, of the character that follows the last one."""
    W, b, target = data
    return optax.softmax_cross_entropy_with_integer_labels(W @ ys[-1] + b, target)


def probe_loss(ys: Float[Array, "T H"], direction: Float[Array, " H"]) -> Float[Array, ""]:
    """L_T = u·y_T for a fixed unit vector u: for networks that come without a readout."""
    return direction @ ys[-1]


def measure(
    cell: Any,
    loss: Callable,
    threshold: float,
    params: PyTree,
    xs: Float[Array, "S W T I"],
    data: PyTree,
    at_once: int,
) -> dict[str, Any]:
    """Curves, rates and horizons of every seed, as NumPy arrays with seeds as the first axis.

    Each seed's curve is the mean over windows of ln-norms; its rate, half-life and horizon are
    those of that mean curve. `at_once` windows go through one compiled function, so that few and
    many windows share it.
    """
    found = _in_blocks(cell, loss, params, xs, data, at_once)
    first = found["log_norm_input"][:, 0]
    spread = np.std(found["window_rate"], axis=1)
    out = {name: jax.tree.map(lambda a: a.mean(axis=1), value) for name, value in found.items()}
    out |= jax.tree.map(np.asarray, _summary(threshold, out["log_norm"], out["log_norm_input"]))
    out |= {"sd_over_windows": spread, "residual": found["residual"].max(axis=1)}
    del out["window_rate"]
    if isinstance(cell, jaxrnn.Elman):
        out["elman"] = _elman(params) | {"log_slope": out.pop("log_slope")}
    return out | {"first_window": first}


def _in_blocks(cell, loss, params, xs, data, at_once: int) -> dict[str, Any]:
    windows = xs.shape[1]
    blocks = []
    for begin in range(0, windows, at_once):
        # the last block is filled up with windows from the start, which are cut off again
        rows = np.arange(begin, begin + at_once) % windows
        block = jax.tree.map(lambda a: a[:, rows], (xs, data))  # noqa: B023
        blocks.append(jax.tree.map(np.asarray, _curves(cell, loss, params, *block)))
    return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1)[:, :windows], *blocks)


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, 0, 0, 0))
def _curves(cell: Any, loss: Any, params: PyTree, xs: Float[Array, "W T I"], data: PyTree):
    spectral = "exact" if jaxrnn.carry_size(cell) <= EXACT_UP_TO else "iterative"
    decay = analysis.gradient_decay(cell, params, xs, spectral=spectral)
    back = analysis.loss_gradient_decay(cell, params, xs, loss, loss_data=data)
    assert decay.spectral_residual is not None and back.log_norm_x is not None
    out = {
        "log_norm": decay.log_spectral_norm,
        # the last input has lag 0
        "log_norm_input": back.log_norm_x[:, ::-1],
        "log_step_norm": decay.mean_log_step_norm,
        "window_rate": decay.rate,
        "residual": jnp.max(decay.spectral_residual, axis=-1),
        "input_scale": jnp.sqrt(jnp.mean(xs**2, axis=(1, 2))),
    }
    if decay.curves is not None:
        names = ("joint", "hidden_block", "product_of_hidden_blocks", "direct_path")
        out["curves"] = {name: getattr(decay.curves, name) for name in names}
    if isinstance(cell, jaxrnn.Elman):
        out["log_slope"] = _log_slope(cell, params, xs)
    return out


def _log_slope(cell: jaxrnn.Elman, params: Any, xs: Float[Array, "W T I"]) -> Float[Array, " W"]:
    # mean ln |φ'(a)|: how much of the decay is due to the slopes of φ
    hs = jaxrnn.trajectory(cell, params, xs)[0].h
    start = jnp.broadcast_to(cell.initial_carry(params).h, hs[:, :1].shape)
    before = jaxrnn.ElmanCarry(jnp.concatenate([start, hs[:, :-1]], axis=1))
    gates = jax.vmap(jax.vmap(lambda c, x: cell.gates(params, c, x)))
    a = gates(before, xs).pre_activation
    if cell.activation == "tanh":
        # tanh' = 4 / (eᵃ + e⁻ᵃ)², which would read 0 where tanh has saturated
        log = 2 * (math.log(2) - jnp.abs(a) - jnp.log1p(jnp.exp(-2 * jnp.abs(a))))
    else:
        phi = cell.activation if callable(cell.activation) else ACTIVATIONS[cell.activation]
        log = jnp.log(jnp.abs(jax.vmap(jax.grad(phi))(a.ravel()).reshape(a.shape)))
    return jnp.mean(log, axis=(1, 2))


def _elman(params: Any) -> dict[str, np.ndarray]:
    W_h = np.asarray(params.W_h, np.float64)
    return {
        "log_sigma": np.log(np.linalg.norm(W_h, 2, axis=(-2, -1))),
        "log_rho": np.log(np.max(np.abs(np.linalg.eigvals(W_h)), axis=-1)),
    }


@functools.partial(jax.jit, static_argnums=0)
def _summary(threshold: float, log_norm: Float[Array, "S T"], log_norm_input: Array) -> dict:
    lags = jnp.arange(1, log_norm.shape[-1] + 1)
    rate, r_squared = analysis.decay_rate(log_norm, lags)
    return {
        "rate": rate,
        "r_squared": r_squared,
        "half_life": analysis.half_life(rate),
        "horizon": analysis.horizon(log_norm, lags, threshold),
        "input_rate": analysis.decay_rate(log_norm_input, lags - 1)[0],
    }
