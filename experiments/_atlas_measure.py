"""One row of `initialization_atlas`: all beginnings of a cell, seeds and inputs in one program."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _atlas_plan as plans
from jaxrnn import analysis
from jaxrnn import cell as contract
from jaxrnn.analysis.slopes import decay_rate


@functools.partial(jax.jit, static_argnums=0)
def look(cell: Any, params: Any, xs: jax.Array) -> dict[str, jax.Array]:
    """Numbers `(beginnings, seeds, scales)`; params `(beginnings, seeds)`, xs `(seeds, scales)`.

    The beginnings of a cell differ in params alone, so that one compilation serves them all.
    """

    # a bare step: what else is known of a cell, such as the four curves of an LSTM, costs compiling
    step = functools.partial(contract.step, cell)
    bare = contract.as_cell(step, cell.initial_carry, input_rank=getattr(cell, "input_rank", 1))

    def one(params: Any, xs: jax.Array) -> dict[str, jax.Array]:
        decay = analysis.gradient_decay(bare, params, xs, spectral="exact")
        assert decay.log_spectral_norm is not None
        # the last lag reaches the carry before the first input, which an SLSTM drops by design
        curve, flat = decay.log_spectral_norm[..., :-1], decay.log_frobenius_norm[..., :-1]
        lags, gone = decay.lags[:-1], curve[..., -1] == -jnp.inf
        # where all is gone, a line through the lags before would not tell
        return dict(
            rate=jnp.where(gone, -jnp.inf, decay_rate(curve, lags)[0]),
            frobenius_rate=jnp.where(gone, -jnp.inf, decay_rate(flat, lags)[0]),
            log_kept=curve[..., -1],
            log_growth=jnp.maximum(jnp.max(curve, axis=-1), 0.0),
        )

    return jax.vmap(jax.vmap(one), (0, None))(params, xs)


def measure(plan: plans.Plan, config: Any) -> dict[str, dict[str, np.ndarray]]:
    """By column, what `look` finds, `(scales, seeds)` each."""
    # what begins alike is measured once
    cells = tuple(dict.fromkeys(plan.begins.values()))
    keys, noise_keys = jax.random.split(jax.random.key(config.seed), (2, config.seeds))
    moment = getattr(plan.cell, "input_shape", (plan.input_size,))
    xs = noise((config.length + 1, *moment), config.input_scales, noise_keys)
    found = jax.tree.map(np.asarray, look(plan.cell, draw(cells, keys), xs))
    return {
        column: {name: values[cells.index(cell)].T for name, values in found.items()}
        for column, cell in plan.begins.items()
    }


def draw(cells: tuple[Any, ...], keys: jax.Array) -> Any:
    """Params `(beginnings, seeds, …)`, float32: a seed has the same key, whatever begins."""
    # not compiled as a whole: cells share what draws blocks of one shape
    drawn = [jax.vmap(functools.partial(cell.init, dtype=jnp.float32))(keys) for cell in cells]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)


@functools.partial(jax.jit, static_argnums=(0, 1))
def noise(shape: tuple[int, ...], scales: tuple[float, ...], keys: jax.Array) -> jax.Array:
    """White noise `(seeds, scales, *shape)`, float32: a seed has the same noise at all scales."""
    drawn = jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)
    return jnp.stack([jnp.asarray(scale, jnp.float32) * drawn for scale in scales], axis=1)
