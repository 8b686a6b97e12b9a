"""Weights of PyTorch's `nn.RNN`, `nn.LSTM` and `nn.GRU` as a `Stack`, and back.

PyTorch stacks its gates in the order our params do (i, f, g, o and r, z, n), as rows of one matrix
of shape (gates·H, I); it computes with rows, y = x Wᵀ, and so keeps W as we do. Its GRU resets
after the matrix and lets z weigh the old state. PyTorch itself is not needed here.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxrnn.cells import GRU, LSTM, Elman, ElmanParams, GRUParams, LSTMParams
from jaxrnn.cells.blocks import check_dtype
from jaxrnn.cells.projection_lstm import ProjectionLSTM, ProjectionLSTMParams
from jaxrnn.network import Bidirectional, BidirectionalParams, Stack
from jaxrnn.save import read_tensors

_KEY = re.compile(
    r"(?P<name>(weight|bias)_(ih|hh)|weight_hr)_l(?P<layer>\d+)(?P<reverse>_reverse)?"
)
_KINDS = {1: "RNN", 3: "GRU", 4: "LSTM"}
_ACTIVATIONS = {"tanh": ("tanh", jnp.tanh), "relu": ("relu", jax.nn.relu)}

Arrays = dict[str, np.ndarray]


class _Layout(NamedTuple):
    """What the names and shapes say: `gates` is 1 for an RNN, 3 for a GRU, 4 for an LSTM.

    `projection_size` is 0 for none, as in PyTorch.
    """

    gates: int
    input_size: int
    hidden_size: int
    layers: int
    directions: tuple[str, ...]
    bias: bool
    projection_size: int

    @property
    def output_size(self) -> int:
        """Features of one output in one direction."""
        return self.projection_size or self.hidden_size

    def width(self, layer: int) -> int:
        """Features that a layer reads."""
        return self.output_size * len(self.directions) if layer else self.input_size

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every key that such a module has, and its shape."""
        rows, H = self.gates * self.hidden_size, self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.layers):
            for direction in self.directions:
                end = f"l{layer}{direction}"
                shapes |= {f"weight_ih_{end}": (rows, self.width(layer))}
                shapes |= {f"weight_hh_{end}": (rows, self.output_size)}
                if self.projection_size:
                    shapes |= {f"weight_hr_{end}": (self.projection_size, H)}
                if self.bias:
                    shapes |= {f"bias_ih_{end}": (rows,), f"bias_hh_{end}": (rows,)}
        return shapes


def from_torch(
    arrays: Mapping[str, Any] | str | os.PathLike[str],
    prefix: str = "",
    nonlinearity: str = "tanh",
) -> tuple[Stack, tuple[PyTree, ...]]:
    """Reads a PyTorch `nn.RNN`, `nn.LSTM` or `nn.GRU`, of any depth, one direction or both.

    Kind, sizes, layers, directions and biases are read off the names and shapes. A GRU becomes
    `GRU(reset="after", update_weighs="old")`, an LSTM with `proj_size` a `ProjectionLSTM`; with
    biases, every cell has `biases=2`.

    Args:
        arrays: a state dict (of NumPy, JAX or PyTorch arrays), or the path of a safetensors file.
        prefix: what stands before the names, such as "encoder.lstm."; others are left aside.
        nonlinearity: "tanh" or "relu", of an `nn.RNN`: the weights don't tell.

    Returns:
        stack: a `Stack` with one entry per layer, `Bidirectional` ones if there are two directions.
        params: its params, in the dtype of the arrays.

    Raises:
        ValueError: a key is missing, not known here or of the wrong shape; no key has the prefix.
    """
    if nonlinearity not in _ACTIVATIONS:
        raise ValueError(f"nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
    found = _matching(_as_mapping(arrays), prefix)
    layout = _layout(found, prefix)
    _check_complete(found, layout, prefix)
    layers, params = [], []
    for layer in range(layout.layers):
        cell = _cell(layout, layout.width(layer), nonlinearity)
        ours = [_params_of(found, layout, f"l{layer}{d}") for d in layout.directions]
        two = len(ours) == 2
        layers.append(Bidirectional(cell) if two else cell)
        params.append(BidirectionalParams(*ours) if two else ours[0])
    return Stack(tuple(layers)), tuple(params)


def to_torch(stack: Any, params: PyTree) -> Arrays:
    """The state dict of the PyTorch module that computes what `stack` computes.

    Load it by `module.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()})`.
    PyTorch has two biases or none: a single one becomes `bias_ih`, beside zeros. A GRU whose
    update gate weighs the new side is turned around by negating that gate. Dropout is not among
    the weights: pass it to the module, `dropout=stack.dropout`.

    Args:
        stack: a `Stack` (or one layer) of cells of one kind and size, all in one direction or all
            `Bidirectional`.
        params: its params.

    Raises:
        ValueError, TypeError: PyTorch has no such module.
    """
    layers = stack.layers if isinstance(stack, Stack) else (stack,)
    params = params if isinstance(stack, Stack) else (params,)
    first, arrays = _directions(layers[0])[0], {}
    for index, (layer, p) in enumerate(zip(layers, params, strict=True)):
        cells, ours = _directions(layer), tuple(p) if isinstance(layer, Bidirectional) else (p,)
        if len(cells) != len(_directions(layers[0])):
            raise ValueError(f"layer {index}: PyTorch wants one direction, or both, in all layers")
        for cell, one, direction in zip(cells, ours, ("", "_reverse"), strict=False):
            _check_exportable(cell, first, index)
            arrays |= _arrays_of(cell, one, f"l{index}{direction}")
    return arrays


def _as_mapping(arrays: Mapping[str, Any] | str | os.PathLike[str]) -> Mapping[str, Any]:
    if isinstance(arrays, Mapping):
        return arrays
    path = os.fspath(arrays)
    if path.endswith((".pt", ".pth", ".bin", ".ckpt")):
        raise ValueError(
            f"{path} is a pickle, which can execute code: in PyTorch, write it anew by "
            "safetensors.torch.save_file(module.state_dict(), 'weights.safetensors')"
        )
    return read_tensors(path)[0]


def _matching(arrays: Mapping[str, Any], prefix: str) -> Arrays:
    # what follows the prefix without a further dot belongs to the module itself
    names = [key[len(prefix) :] for key in arrays if key.startswith(prefix)]
    own = [name for name in names if "." not in name]
    if not any(_KEY.fullmatch(name) for name in own):
        raise ValueError(_no_keys(arrays, prefix))
    for name in own:
        if not _KEY.fullmatch(name):
            raise ValueError(
                f"{prefix}{name} is not expected: an nn.RNN, nn.LSTM or nn.GRU has weight_ih, "
                "weight_hh, bias_ih, bias_hh and, with proj_size, weight_hr, each with _l0, _l1 …"
            )
    return {name: _as_numpy(f"{prefix}{name}", arrays[f"{prefix}{name}"]) for name in own}


def _no_keys(arrays: Mapping[str, Any], prefix: str) -> str:
    matches = [re.fullmatch(rf"(.*?){_KEY.pattern}", key) for key in arrays]
    candidates = sorted({match[1] for match in matches if match})
    message = f"no key is named {prefix}weight_ih_l0 or the like"
    if candidates:
        return f"{message}: did you mean prefix={' or '.join(map(repr, candidates))}?"
    some = ", ".join(list(arrays)[:5]) or "nothing"
    return f"{message}, under any prefix: found {some}{' …' if len(arrays) > 5 else ''}"


def _as_numpy(key: str, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a PyTorch tensor, which may be on an accelerator
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # unknown to NumPy; exact by way of float32
            return np.asarray(value.float()).astype(jnp.bfloat16)
    array = np.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{key} has dtype {array.dtype}, expected floating-point numbers")
    check_dtype(array.dtype)
    return array


def _layout(found: Arrays, prefix: str) -> _Layout:
    for key in ("weight_ih_l0", "weight_hh_l0"):
        if key not in found:
            raise ValueError(f"{prefix}{key} is missing: found {', '.join(sorted(found))}")
    gates, H, P = _sizes(found, prefix)
    inner = found["weight_ih_l0"].shape
    if len(inner) != 2:
        raise ValueError(f"{prefix}weight_ih_l0 has shape {inner}, expected (gates·H, I)")
    keys = [match for match in map(_KEY.fullmatch, found) if match]
    return _Layout(
        gates=gates,
        input_size=inner[1],
        hidden_size=H,
        layers=1 + max(int(key["layer"]) for key in keys),
        directions=("", "_reverse") if any(key["reverse"] for key in keys) else ("",),
        bias=any(key["name"].startswith("bias") for key in keys),
        projection_size=P,
    )


def _sizes(found: Arrays, prefix: str) -> tuple[int, int, int]:
    """The number of gates, H, and P, which is 0 without a projection."""
    if "weight_hr_l0" in found:
        projection = found["weight_hr_l0"].shape
        if len(projection) != 2 or 0 in projection:
            raise ValueError(f"{prefix}weight_hr_l0 has shape {projection}, expected (P, H)")
        return 4, projection[1], projection[0]
    recurrent = found["weight_hh_l0"].shape
    gates = recurrent[0] // recurrent[1] if len(recurrent) == 2 and recurrent[1] else 0
    if gates not in _KINDS or recurrent[0] != gates * recurrent[1]:
        raise ValueError(
            f"{prefix}weight_hh_l0 has shape {recurrent}, expected (H, H) of an nn.RNN, "
            "(3·H, H) of an nn.GRU or (4·H, H) of an nn.LSTM"
        )
    return gates, recurrent[1], 0


def _check_complete(found: Arrays, layout: _Layout, prefix: str) -> None:
    kind = f"nn.{_KINDS[layout.gates]} with input_size={layout.input_size}, "
    kind += f"hidden_size={layout.hidden_size}, num_layers={layout.layers}"
    kind += f", proj_size={layout.projection_size}" if layout.projection_size else ""
    kind += ", bidirectional" if len(layout.directions) == 2 else ""
    expected = layout.shapes()
    for key, shape in expected.items():
        if key not in found:
            raise ValueError(f"{prefix}{key} is missing: the others are those of an {kind}")
        if found[key].shape != shape:
            raise ValueError(
                f"{prefix}{key} has shape {found[key].shape}, expected {shape} in an {kind}"
            )
    if extra := sorted(found.keys() - expected):
        raise ValueError(f"{prefix}{extra[0]} is not expected in an {kind}")
    dtypes = sorted({str(array.dtype) for array in found.values()})
    if len(dtypes) > 1:
        raise ValueError(f"the arrays have several dtypes, {', '.join(dtypes)}: convert them first")


def _cell(layout: _Layout, width: int, nonlinearity: str) -> Any:
    sizes, biases = (width, layout.hidden_size), 2 if layout.bias else 0
    if layout.gates == 3:
        return GRU(*sizes, reset="after", update_weighs="old", biases=biases)
    if layout.projection_size:
        return ProjectionLSTM(*sizes, layout.projection_size, biases=biases)
    if layout.gates == 4:
        return LSTM(*sizes, biases=biases)
    return Elman(*sizes, activation=nonlinearity, biases=biases)


def _params_of(found: Arrays, layout: _Layout, end: str) -> Any:
    def block(name: str) -> Any:
        array = found.get(f"{name}_{end}")
        if array is None or layout.gates == 1:
            return None if array is None else jnp.array(array)
        return jnp.array(array.reshape(layout.gates, layout.hidden_size, *array.shape[1:]))

    blocks = [block(name) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    if layout.projection_size:
        W_r = jnp.array(found[f"weight_hr_{end}"])
        return ProjectionLSTMParams(*blocks, initial=None, W_r=W_r)
    kind = {1: ElmanParams, 3: GRUParams, 4: LSTMParams}[layout.gates]
    return kind(*blocks, initial=None)


def _directions(layer: Any) -> tuple[Any, ...]:
    if not isinstance(layer, Bidirectional):
        return (layer,)
    if layer.merge != "concatenate":
        raise ValueError(f"PyTorch puts both directions side by side, got merge={layer.merge!r}")
    return layer.forward, layer.backward


def _check_exportable(cell: Any, first: Any, index: int) -> None:
    if type(cell) not in (Elman, GRU, LSTM, ProjectionLSTM):
        raise TypeError(
            f"layer {index} is a {type(cell).__name__}: PyTorch's modules hold only Elman, GRU and "
            "LSTM layers (ProjectionLSTM too), or Bidirectional ones of them. Export the part that "
            "does"
        )
    if cell.learned_carry:
        raise ValueError(
            f"layer {index} has learned_carry=True, which PyTorch's modules lack: hand "
            "params.initial to the module as h_0, and export with learned_carry=False and "
            "initial=None"
        )
    if isinstance(cell, GRU) and cell.reset == "before":
        raise ValueError(f"layer {index} is a GRU with reset='before': PyTorch has only 'after'")
    if isinstance(cell, Elman):
        _nonlinearity(cell, index)
    for what, of in _TRAITS.items():
        if of(cell) != of(first):
            raise ValueError(
                f"layer {index} has {what} {of(cell)!r}, another layer {of(first)!r}: "
                "in a module of PyTorch all layers and directions agree"
            )


def _nonlinearity(cell: Elman, index: int) -> str:
    for name, same in _ACTIVATIONS.items():
        if cell.activation in same:
            return name
    raise ValueError(
        f"layer {index} has activation {cell.activation!r}: PyTorch's nn.RNN has 'tanh' and 'relu'"
    )


_TRAITS = {
    "kind": lambda cell: type(cell).__name__,
    "hidden_size": lambda cell: cell.hidden_size,
    "projection_size": lambda cell: getattr(cell, "projection_size", 0),
    "bias": lambda cell: cell.biases > 0,
    "activation": lambda cell: _nonlinearity(cell, 0) if isinstance(cell, Elman) else None,
}


def _arrays_of(cell: Any, params: Any, end: str) -> Arrays:
    W_x, W_h, b, b_h = params[:4]
    blocks = {"weight_ih": np.array(W_x), "weight_hh": np.array(W_h)}
    if b is not None:
        # of one bias, or the candidate's own: zeros stand in for the rest
        blocks |= {"bias_ih": np.array(b), "bias_hh": np.zeros_like(b)}
        if b_h is not None:
            blocks["bias_hh"][len(b) - len(b_h) :] = b_h
    if isinstance(cell, GRU) and cell.update_weighs == "new":
        for block in blocks.values():
            block[1] *= -1  # the update gate turned around: 1 − σ(a) = σ(−a)
    if not isinstance(cell, Elman):
        blocks = {name: block.reshape(-1, *block.shape[2:]) for name, block in blocks.items()}
    if isinstance(cell, ProjectionLSTM):
        blocks["weight_hr"] = np.array(params.W_r)
    return {f"{name}_{end}": block for name, block in blocks.items()}
