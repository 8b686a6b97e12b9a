"""A network and its params in one safetensors file, and back.

The tensors are named by their field paths (`0.W_x`, `network.1.forward.b`); the dataclasses stand
as JSON in the metadata. They are rebuilt from a fixed table of this library's own classes and
functions: nothing in a file is executed. A digest tells a damaged file from a sound one.
"""

import dataclasses
import hashlib
import json
import os
import uuid
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxrnn import cell as contract
from jaxrnn import cells, initializers, network
from jaxrnn.cells.blocks import check_dtype
from jaxrnn.cells.elman import identity

_FORMAT = 1

_CLASSES: dict[str, type] = {
    name: value
    for module in (cells, network, initializers)
    for name, value in vars(module).items()
    if isinstance(value, type) and dataclasses.is_dataclass(value) and not name.startswith("_")
}

_FUNCTIONS: dict[str, Callable] = {
    "jax.numpy.tanh": jnp.tanh,
    "jax.numpy.sin": jnp.sin,
    "jax.numpy.arctan": jnp.arctan,
    "jax.nn.relu": jax.nn.relu,
    "jax.nn.sigmoid": jax.nn.sigmoid,
    "jax.nn.softplus": jax.nn.softplus,
    "jax.nn.soft_sign": jax.nn.soft_sign,
    "jax.nn.silu": jax.nn.silu,
    "jax.nn.gelu": jax.nn.gelu,
    "jax.nn.elu": jax.nn.elu,
    "jax.nn.leaky_relu": jax.nn.leaky_relu,
    "jax.nn.hard_tanh": jax.nn.hard_tanh,
    "jaxrnn.cells.elman.identity": identity,
}


def save(path: str | os.PathLike[str], network: Any, params: PyTree) -> None:
    """Writes a cell or network of this library and its params to one safetensors file.

    The file appears whole or not at all: it is written beside `path` and then renamed.

    Raises:
        TypeError: the network holds a class or function of yours, which no file may name.
        ValueError: params are not of the shape that `network.init` gives.
        ImportError: safetensors is not installed.
    """
    contract.check_cell(network)
    encoded = _encode(network)
    tensors = _checked_leaves(network, params)
    record = {"format": _FORMAT, "network": encoded, "sha256": _digest(encoded, tensors)}
    _write(os.fspath(path), _safetensors().numpy.save(tensors, {"jaxrnn": json.dumps(record)}))


def load(path: str | os.PathLike[str]) -> tuple[Any, PyTree]:
    """Reads what `save` wrote: `(network, params)`, the network equal to the one saved.

    Raises:
        ValueError: not a file of `save`, of a newer format, damaged, or with tensors that do not
            fit the network.
        ImportError: safetensors is not installed.
    """
    tensors, metadata = read_tensors(path)
    record = _record(path, metadata)
    try:
        network = _decode(record["network"])
        template = _template(network)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: cannot rebuild the network: {error}") from error
    params = _fill(path, template, tensors)
    if _digest(record["network"], tensors) != record.get("sha256"):
        raise ValueError(f"{path}: damaged or edited: its digest is not the one it was saved with")
    return network, params


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All arrays and the metadata of any safetensors file."""
    library = _safetensors()
    try:
        with library.safe_open(os.fspath(path), framework="np") as file:
            # copied: the library's arrays lie in the mapped file, which may be replaced
            tensors = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except library.SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or damaged: {error}") from error


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise ImportError("files need safetensors: pip install 'jaxrnn[files]'") from None
    return safetensors


def _write(path: str, content: bytes) -> None:
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [_encode(member) for member in value]
    kind = type(value)
    if _CLASSES.get(kind.__name__) is kind:
        fields = {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": kind.__name__, **fields}
    for name, function in _FUNCTIONS.items():
        if value is function:
            return {"function": name}
    if callable(value) and hasattr(value, "__qualname__"):
        raise TypeError(
            f"cannot save the function {value.__module__}.{value.__qualname__}: loading executes "
            f"nothing, so a file names only these: {', '.join(_FUNCTIONS)}. Use one of them, or "
            "save the params alone (safetensors.flax.save_file) and build the network in code"
        )
    raise TypeError(
        f"cannot save {kind.__module__}.{kind.__qualname__}: loading executes nothing, so a file "
        "names only classes of jaxrnn. Save the params alone (safetensors.flax.save_file) and "
        "build the network in code"
    )


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(member) for member in value)
    if not isinstance(value, dict):
        return value
    if "function" in value:
        return _entry(_FUNCTIONS, "function", value["function"])
    fields = dict(value)
    kind = _entry(_CLASSES, "class", fields.pop("class", None))
    known = {f.name for f in dataclasses.fields(kind)}
    if unknown := sorted(fields.keys() - known):
        raise ValueError(f"{kind.__name__} has no field {unknown[0]!r}: update jaxrnn")
    return kind(**{name: _decode(field) for name, field in fields.items()})


def _entry(table: dict[str, Any], what: str, name: Any) -> Any:
    if name not in table:
        raise ValueError(
            f"unknown {what} {name!r}: this version of jaxrnn has {', '.join(sorted(table))}"
        )
    return table[name]


def _record(path: str | os.PathLike[str], metadata: dict[str, str]) -> dict[str, Any]:
    try:
        record = json.loads(metadata["jaxrnn"])
        version, _ = record["format"], record["network"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{path}: holds no jaxrnn network: it was not written by jaxrnn.save "
            "(weights of PyTorch come in by jaxrnn.convert.from_torch)"
        ) from None
    if version != _FORMAT:
        raise ValueError(f"{path}: has format {version!r}, expected {_FORMAT}: update jaxrnn")
    return record


def _template(network: Any) -> PyTree:
    contract.check_cell(network)
    return jax.eval_shape(lambda key: network.init(key, dtype=jnp.float32), jax.random.key(0))


def _named(tree: PyTree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _checked_leaves(network: Any, params: PyTree) -> dict[str, np.ndarray]:
    template = _template(network)
    if jax.tree.structure(params) != jax.tree.structure(template):
        raise ValueError(
            f"params have another structure than {type(network).__name__}.init: "
            f"got {contract.describe(params)}, expected {contract.describe(template)}"
        )
    tensors = {name: np.asarray(leaf, order="C") for name, leaf in _named(params).items()}
    for name, want in _named(template).items():
        _check_leaf(f"params {name}", tensors[name], want)
    return tensors


def _check_leaf(name: str, got: np.ndarray, want: jax.ShapeDtypeStruct) -> None:
    floats = jnp.issubdtype(got.dtype, jnp.floating) and jnp.issubdtype(want.dtype, jnp.floating)
    if got.shape != want.shape or (got.dtype != want.dtype and not floats):
        kind = "any float" if jnp.issubdtype(want.dtype, jnp.floating) else want.dtype
        raise ValueError(
            f"{name}: got {got.dtype}{list(got.shape)}, expected {kind}{list(want.shape)}"
        )


def _fill(path: str | os.PathLike[str], template: PyTree, tensors: dict[str, np.ndarray]) -> PyTree:
    wanted = _named(template)
    if wanted.keys() != tensors.keys():
        missing, extra = sorted(wanted.keys() - tensors), sorted(tensors.keys() - wanted)
        raise ValueError(f"{path}: tensors missing: {missing}, not expected: {extra}")
    leaves = []
    for name, want in wanted.items():
        _check_leaf(f"{path}: tensor {name}", tensors[name], want)
        if jnp.issubdtype(want.dtype, jnp.floating):
            check_dtype(tensors[name].dtype)
        leaves.append(jnp.array(tensors[name]))
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _digest(encoded: Any, tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(encoded, sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
