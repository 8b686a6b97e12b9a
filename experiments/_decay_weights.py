"""`gradient_decay --weights`: the same measurements on a network that someone else has trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from experiments._common import UsageError, user_errors
from experiments._decay_measure import measure, probe_loss
from jaxrnn.convert import from_torch


class Loaded(NamedTuple):
    """A network with its parameters, the inputs to measure it on, and words about both."""

    network: jaxrnn.Stack
    params: tuple
    xs: np.ndarray
    about: dict


class Part(NamedTuple):
    """A causal part of a network, measured alone; axes of xs: seeds, windows, T, features."""

    label: str
    cell: Any
    params: Any
    xs: jax.Array


def load(
    path: Path, prefix: str, nonlinearity: str, inputs: Path | None, windows: int, length: int
) -> Loaded:
    """Reads the weights and the inputs, or says in one line what does not fit."""
    try:
        with user_errors():
            network, params = from_torch(path, prefix=prefix, nonlinearity=nonlinearity)
    except OSError as error:
        raise UsageError(f"cannot read the weights {path}: {error.strerror or error}") from None
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    features = network.input_size
    if inputs is None:
        xs = np.random.default_rng(0).normal(size=(windows, length, features))
        said = f"{features} random features, standard deviation 1"
    else:
        xs = read_inputs(inputs, features)
        said = f"{features} features from {inputs.name}, rms {np.sqrt(np.mean(xs**2)):.3g}"
    parts = _parts(network)
    kind = type(parts[0]).__name__
    about = {
        "network": f"{kind} from {path.name}, {len(network.layers)} layers"
        + (", both directions" if len(parts) > len(network.layers) else ""),
        "inputs": said,
        "length": xs.shape[1],
        "hidden_size": parts[0].hidden_size,
        "initialisation": "before: fresh cells of the same kind and size, all matrices U(±1/√H)",
        "carry": "zero at the start of each window",
        "loss": "L_T = u·y_T for a fixed random unit vector u",
    }
    return Loaded(network, params, xs.astype(np.float32), about)


def read_inputs(path: Path, features: int) -> np.ndarray:
    """Inputs `(windows, T, I)` from a .npy file."""
    try:
        xs = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UsageError(f"cannot read the inputs {path}: {error.strerror or error}") from None
    except (ValueError, EOFError):
        raise UsageError(f"{path} is not a .npy file of numbers: write it by numpy.save") from None
    fits = isinstance(xs, np.ndarray) and xs.ndim in (2, 3) and xs.shape[-1] == features
    if not fits:
        raise UsageError(
            f"the inputs {path} have shape {np.shape(xs)}, expected (T, {features}) or "
            f"(windows, T, {features}), since the network reads {features} features"
        )
    if xs.dtype.kind not in "fiu" or not np.all(np.isfinite(xs)):
        raise UsageError(f"the inputs {path} must be finite real numbers, got {xs.dtype}")
    xs = xs.reshape(-1, *xs.shape[-2:])
    if xs.shape[0] < 1 or xs.shape[1] < 10:
        raise UsageError(f"the inputs {path} have {xs.shape[1]} steps, at least 10 are needed")
    return xs


def rows(loaded: Loaded, seeds: int, threshold: float, advance: Callable) -> list[dict]:
    """One row for each part: fresh parameters, one draw a seed, before; the loaded ones after."""
    keys = jax.random.split(jax.random.key(0), seeds)
    fresh = jax.jit(jax.vmap(loaded.network.init))(keys)
    after = jax.tree.map(lambda a: a[None], loaded.params)
    found = []
    for old, new in zip(split(loaded, fresh, seeds), split(loaded, after, 1), strict=True):
        found.append(
            {
                "label": new.label,
                "cell": type(new.cell).__name__,
                "carry_size": jaxrnn.carry_size(new.cell),
                "parameters": jaxrnn.count_parameters(new.cell),
                "measurements": [
                    {"when": "freshly initialised", **_measured(old, threshold)},
                    {"when": "as loaded", **_measured(new, threshold)},
                ],
            }
        )
        advance(1, f"{new.label} measured")
    return found


def _measured(part: Part, threshold: float) -> dict:
    size = part.cell.output_size
    u = np.random.default_rng(1).normal(size=size)
    u = jnp.asarray(u / np.linalg.norm(u), jnp.float32)
    data = jnp.broadcast_to(u, (*part.xs.shape[:2], size))
    at_once = min(4, part.xs.shape[1])
    found = measure(part.cell, probe_loss, threshold, part.params, part.xs, data, at_once)
    return {"windows": part.xs.shape[1], **found}


def count_parts(loaded: Loaded) -> int:
    """How many rows there will be."""
    layers = len(loaded.network.layers)
    return len(_parts(loaded.network)) + (1 if loaded.network.causal and layers > 1 else 0)


def split(loaded: Loaded, params: Any, seeds: int) -> list[Part]:
    """The whole network, if it is causal and deep, and each layer and direction on its own.

    A layer reads what the layers below it give; a backward direction reads it backwards, so that
    lag counts in its direction of travel.
    """
    xs = jnp.broadcast_to(loaded.xs, (seeds, *loaded.xs.shape))
    stack, found = loaded.network, []
    if stack.causal and len(stack.layers) > 1:
        found.append(Part("all layers", stack, params, xs))
    for i, (layer, p) in enumerate(zip(stack.layers, params, strict=True)):
        name = type(_parts(layer)[0]).__name__
        name += f", layer {i + 1}" if len(stack.layers) > 1 else ""
        if isinstance(layer, jaxrnn.Bidirectional):
            found.append(Part(f"{name}, forward", layer.forward, p.forward, xs))
            found.append(Part(f"{name}, backward", layer.backward, p.backward, xs[:, :, ::-1]))
        else:
            found.append(Part(name, layer, p, xs))
        xs = jax.vmap(lambda p, xs, layer=layer: jaxrnn.unroll(layer, p, xs)[1])(p, xs)
    return found


def _parts(network: Any) -> list[Any]:
    if isinstance(network, jaxrnn.Stack):
        return [cell for layer in network.layers for cell in _parts(layer)]
    if isinstance(network, jaxrnn.Bidirectional):
        return [network.forward, network.backward]
    return [network]
