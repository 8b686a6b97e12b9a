"""Weights of Keras 3's SimpleRNN, LSTM and GRU as ours, and ours as theirs.

Keras puts its gates side by side in kernels (I, gates·H), in the order i, f, c, o and z, r, h; its
GRU lets z weigh the old side and, with reset_after, has both biases, (2, 3·H). Weights travel as
the list of arrays that `layer.get_weights()` returns; for a list, Keras itself is not needed.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxrnn.cells import GRU, LSTM, Elman
from jaxrnn.convert.layout import (
    KINDS,
    both_ways,
    check_forwards,
    exported,
    from_columns,
    one_bias,
    ours,
    read,
    reorder,
    rows,
    stack_of,
    to_columns,
)
from jaxrnn.network import Bidirectional, Stack

_KINDS = {1: "SimpleRNN", 3: "GRU", 4: "LSTM"}
_ACTIVATIONS = {"tanh": "tanh", "relu": "relu", "linear": "identity", "sigmoid": "logistic"}
_GRU_ORDER = (1, 0, 2)  # z, r, h is our r, z, n; its own inverse
_NAMES: tuple[str, ...] = ("kernel", "recurrent_kernel", "bias")


def from_keras(layer: Any, activation: str = "tanh", reset_after: bool = True) -> tuple[Any, Any]:
    """A recurrent layer of Keras 3 as a cell or network of ours.

    `SimpleRNN`, `LSTM`, `GRU` (with reset_after or without) and the cells of these names; a
    `Bidirectional` of two, whose outputs are side by side; `RNN` of several cells, a `Sequential`
    of such layers, or a list of them as a `Stack`. Dropout belongs to training there and is left
    aside, masks become `lengths`.

    Args:
        layer: a layer that has been built, or the list of arrays of its `get_weights()`, of one
            direction or of a Bidirectional.
        activation: "tanh", "relu", "linear" or "sigmoid": of a SimpleRNN whose weights come as a
            list, which doesn't tell.
        reset_after: of a GRU without biases whose weights come as a list, which doesn't tell.

    Raises:
        ValueError, TypeError: the layer computes something else, or an array is missing or of the
            wrong shape.
    """
    if activation not in _ACTIVATIONS:
        names = ", ".join(map(repr, _ACTIVATIONS))
        raise ValueError(f"activation must be one of {names}, got {activation!r}")
    if isinstance(layer, list | tuple):
        if layer and all(hasattr(one, "get_weights") for one in layer):
            return stack_of(layer, None, lambda one, _, __: from_keras(one))
        return _from_list(layer, activation, reset_after)
    return _from_layer(layer)


def to_keras(network: Any, params: PyTree) -> list[np.ndarray]:
    """The arrays that `layer.set_weights(…)` of a built layer takes, which then computes the same.

    The layer is `SimpleRNN(H, activation)`, `LSTM(H)`, or `GRU(H, reset_after=…)`, true for
    reset="after"; with `use_bias=False` for a cell without biases. Two biases are added up where
    Keras has one. A `Bidirectional` gives the arrays of both directions in one list, as Keras has
    them, a `Stack` those of all layers, as a `Sequential` has them.

    Raises:
        ValueError, TypeError: Keras has no such layer.
    """
    if isinstance(network, Stack):
        layers = zip(network.layers, params, strict=True)
        return [array for layer, p in layers for array in to_keras(layer, p)]
    if isinstance(network, Bidirectional):
        there = to_keras(network.forward, params.forward)
        return there + to_keras(network.backward, params.backward)
    blocks = exported(network, params, "Keras", KINDS)
    if isinstance(network, Elman) and network.activation not in _ACTIVATIONS.values():
        names = ", ".join(map(repr, _ACTIVATIONS.values()))
        raise ValueError(f"Elman has activation {network.activation!r}, expected one of {names}")
    order = _GRU_ORDER if isinstance(network, GRU) else None
    arrays = [to_columns(blocks.W_x, order), to_columns(blocks.W_h, order)]
    if network.biases:
        if isinstance(network, GRU) and network.reset == "after":
            both = [reorder(b, order).ravel() for b in (blocks.b, blocks.b_h) if b is not None]
            arrays.append(jnp.stack(both))
        else:
            arrays.append(reorder(one_bias(blocks), order).ravel())
    return [np.array(array) for array in arrays]


def _from_layer(layer: Any) -> tuple[Any, Any]:
    import keras

    kinds = keras.layers
    if isinstance(layer, keras.Sequential):
        return stack_of(layer.layers, None, lambda one, _, __: _from_layer(one))
    if isinstance(layer, kinds.Bidirectional):
        if layer.merge_mode != "concat":
            raise ValueError(
                f"Bidirectional with merge_mode={layer.merge_mode!r}: one of ours puts the outputs "
                "side by side, as 'concat' does. Convert forward_layer.cell and "
                "backward_layer.cell by themselves"
            )
        layers = (layer.forward_layer, layer.backward_layer)
        if layers[0].go_backwards:
            raise ValueError("Bidirectional: its forward_layer goes backwards, expected forwards")
        return both_ways(*(_from_layer(one.cell) for one in layers))
    if isinstance(layer, kinds.RNN):
        check_forwards(layer.go_backwards, f"{type(layer).__name__} with go_backwards=True")
        return _from_layer(layer.cell)
    if isinstance(layer, kinds.StackedRNNCells):
        return stack_of(layer.cells, None, lambda one, _, __: _from_layer(one))
    cells = {kinds.SimpleRNNCell: "SimpleRNN", kinds.LSTMCell: "LSTM", kinds.GRUCell: "GRU"}
    kind = cells.get(type(layer))
    if kind is None:
        raise TypeError(
            f"{type(layer).__name__} is none of SimpleRNN, LSTM, GRU, Bidirectional, RNN and "
            "Sequential: convert the layers of these kinds"
        )
    if not layer.built:
        raise ValueError(f"the {kind} has no weights yet: call it once, or layer.build((None, I))")
    activation = _activations(layer, kind, keras)
    weights = [keras.ops.convert_to_numpy(weight.value) for weight in layer.weights]
    arrays = dict(zip(_NAMES, weights, strict=False))
    return _read(arrays, activation, getattr(layer, "reset_after", True), kind)


def _activations(cell: Any, kind: str, keras: Any) -> str:
    names = {
        name: keras.activations.serialize(getattr(cell, name))
        for name in ("activation", "recurrent_activation")
        if hasattr(cell, name)
    }
    usual = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    if kind == "SimpleRNN":
        usual = {"activation": names["activation"]}
        if names["activation"] not in _ACTIVATIONS:
            known = ", ".join(map(repr, _ACTIVATIONS))
            raise ValueError(
                f"SimpleRNN has activation={names['activation']!r}, expected one of {known}"
            )
    for name, value in usual.items():
        if names[name] != value:
            raise ValueError(f"{kind} has {name}={names[name]!r}, ours has {value!r}")
    return names["activation"]


def _from_list(arrays: Sequence[Any], activation: str, reset_after: bool) -> tuple[Any, Any]:
    if len(arrays) not in (2, 3, 4, 6):
        raise ValueError(
            f"got {len(arrays)} arrays, expected those of one layer's get_weights(): kernel, "
            "recurrent_kernel and bias, if it has one, or all of these twice for a Bidirectional"
        )
    count = len(arrays) if len(arrays) < 4 else len(arrays) // 2
    named = [
        dict(zip(_NAMES, arrays[start : start + count], strict=False))
        for start in range(0, len(arrays), count)
    ]
    cells = [_read(one, activation, reset_after) for one in named]
    return cells[0] if len(cells) == 1 else both_ways(*cells)


def _read(
    arrays: dict[str, Any], activation: str, reset_after: bool, kind: str | None = None
) -> tuple[Any, Any]:
    """Our cell and params, from the arrays of one cell by name."""
    H = rows(arrays, "recurrent_kernel", "a recurrent layer of Keras")
    width = jnp.shape(arrays["recurrent_kernel"])[1]
    gates = width // H if H else 0
    if gates not in _KINDS or width != gates * H or kind not in (None, _KINDS[gates]):
        raise ValueError(
            f"recurrent_kernel has shape {(H, width)}, expected (H, H) of a SimpleRNN, (H, 3·H) of "
            "a GRU or (H, 4·H) of an LSTM"
        )
    kind = _KINDS[gates]
    I = rows(arrays, "kernel", kind)
    shapes: dict[str, tuple[int, ...]] = {"kernel": (I, width), "recurrent_kernel": (H, width)}
    if "bias" in arrays:
        if gates == 3:
            reset_after = len(jnp.shape(arrays["bias"])) == 2
        shapes["bias"] = (2, width) if gates == 3 and reset_after else (width,)
    a = read(arrays, shapes, f"{kind} with {H} units")
    order = _GRU_ORDER if gates == 3 else None
    W_x, W_h = (from_columns(a[name], gates, order) for name in _NAMES[:2])
    b, b_h = _biases(a.get("bias"), gates, H, order)
    biases = sum(bias is not None for bias in (b, b_h))
    if gates == 4:
        return ours(LSTM(I, H, biases=biases), W_x, W_h, b)
    if gates == 3:
        reset = "after" if reset_after else "before"
        cell = GRU(I, H, reset=reset, update_weighs="old", biases=biases)
        return ours(cell, W_x, W_h, b, b_h)
    cell = Elman(I, H, activation=_ACTIVATIONS[activation], biases=biases)
    return ours(cell, W_x, W_h, b)


def _biases(
    bias: Array | None, gates: int, H: int, order: tuple[int, ...] | None
) -> tuple[Array | None, Array | None]:
    """b and b_h, gate by gate."""
    if bias is None:
        return None, None
    if bias.ndim == 1:
        return reorder(bias.reshape(gates, H), order), None
    of_x, of_h = (reorder(row.reshape(gates, H), order) for row in bias)
    return of_x, of_h
