"""What the converters share: arrays checked by name, gates put in order, biases added up."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxrnn.cells import GRU, LSTM, Elman, ElmanParams, GRUParams, LSTMParams
from jaxrnn.cells.blocks import Blocks, check_dtype
from jaxrnn.cells.elman import ACTIVATIONS
from jaxrnn.cells.mgu import MGU, MGUParams
from jaxrnn.network import Bidirectional, BidirectionalParams, Stack

Shapes = dict[str, tuple[int, ...]]
KINDS = (Elman, GRU, LSTM)
PARAMS = {Elman: ElmanParams, GRU: GRUParams, LSTM: LSTMParams, MGU: MGUParams}


def flatten(arrays: Mapping[str, Any], separator: str = "/") -> dict[str, Any]:
    """Nested dictionaries as one: {"ii": {"kernel": …}} is {"ii/kernel": …}."""
    flat: dict[str, Any] = {}
    for key, value in arrays.items():
        if isinstance(value, Mapping):
            inner = flatten(value, separator)
            flat |= {f"{key}{separator}{name}": leaf for name, leaf in inner.items()}
        else:
            flat[str(key)] = value
    return flat


def nest(flat: Mapping[str, Any], separator: str = "/") -> dict[str, Any]:
    """The inverse of `flatten`."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *outer, name = key.split(separator)
        inner = nested
        for part in outer:
            inner = inner.setdefault(part, {})
        inner[name] = value
    return nested


def read(found: Mapping[str, Any], expected: Shapes, owner: str, at: str = "") -> dict[str, Array]:
    """The arrays by name, as JAX's, of one dtype; or an error that names the one that is amiss.

    owner: what they should be the arrays of, in words. at: what stands before the names.
    """
    for key, shape in expected.items():
        if key not in found:
            raise ValueError(f"{at}{key} is missing: {_contents(found, expected, owner)}")
        if jnp.shape(found[key]) != shape:
            raise ValueError(
                f"{at}{key} has shape {jnp.shape(found[key])}, expected {shape} in {owner}"
            )
    if extra := [key for key in found if key not in expected]:
        raise ValueError(f"{at}{extra[0]} is not expected: {_contents({}, expected, owner)}")
    dtypes = {key: jnp.result_type(found[key]) for key in expected}
    for key, dtype in dtypes.items():
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(f"{at}{key} has dtype {dtype}, expected floating-point numbers")
        check_dtype(dtype)
    if len(set(dtypes.values())) > 1:
        several = ", ".join(sorted({str(dtype) for dtype in dtypes.values()}))
        raise ValueError(
            f"the arrays of {owner} have several dtypes, {several}: convert them first"
        )
    return {key: jnp.asarray(found[key]) for key in expected}


def rows(found: Mapping[str, Any], key: str, owner: str, at: str = "") -> int:
    """The first axis of the matrix of that name: of a map of x, how many features it reads."""
    if key not in found:
        raise ValueError(f"{at}{key} is missing in {owner}: found {_names(found)}")
    if len(jnp.shape(found[key])) != 2:
        raise ValueError(
            f"{at}{key} has shape {jnp.shape(found[key])}, expected a matrix in {owner}"
        )
    return jnp.shape(found[key])[0]


def _contents(found: Mapping[str, Any], expected: Shapes, owner: str) -> str:
    contents = f"{owner} has {', '.join(expected)}"
    return f"{contents}; found {_names(found)}" if found else contents


def _names(found: Mapping[str, Any]) -> str:
    return ", ".join(found) or "nothing"


def from_columns(kernel: Array, gates: int, order: tuple[int, ...] | None = None) -> Array:
    """(I, gates·H), which x multiplies from the left, as (gates, H, I), in another order."""
    return reorder(jnp.stack([block.T for block in jnp.split(kernel, gates, axis=1)]), order)


def to_columns(W: Array, order: tuple[int, ...] | None = None) -> Array:
    """The inverse: (gates, H, I) as (I, gates·H)."""
    return jnp.concatenate([block.T for block in reorder(W, order)], axis=1)


def reorder(blocks: Array, order: tuple[int, ...] | None) -> Array:
    """Block order[0] first, then block order[1] …"""
    return blocks if order is None else blocks[np.array(order)]


def activation_name(function: Any) -> Any:
    """Our name for an activation, or the function itself."""
    return next((name for name, own in ACTIVATIONS.items() if function is own), function)


def activation_of(cell: Elman) -> Any:
    """The activation of an Elman network as a function."""
    return cell.activation if callable(cell.activation) else ACTIVATIONS[cell.activation]


def ours(cell: Any, W_x: Array, W_h: Array, b: Array | None, b_h: Array | None = None) -> Any:
    """The cell and its params, from blocks gate by gate."""
    blocks = (W_x, W_h, b, b_h)
    if isinstance(cell, Elman):
        blocks = jax.tree.map(lambda block: block[0], blocks)
    return cell, PARAMS[type(cell)](*blocks, initial=None)


def exported(cell: Any, params: Any, library: str, kinds: tuple[type, ...]) -> Blocks:
    """W_x, W_h, b and b_h of a cell, gate by gate; what z weighs is the old side.

    b and b_h have a row for every gate, zeros where the cell has none, or are both None.
    """
    if type(cell) not in kinds:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(f"{library} has no cell like {type(cell).__name__}: it holds {names}")
    if cell.learned_carry:
        raise ValueError(
            f"{type(cell).__name__} has learned_carry=True, which {library} lacks: hand "
            "params.initial to it as its first carry, and export with learned_carry=False and "
            "initial=None"
        )
    W_x, W_h, b, b_h = params[:4]
    if isinstance(cell, Elman):
        W_x, W_h, b, b_h = jax.tree.map(lambda a: a[None], (W_x, W_h, b, b_h))
    if b is not None:
        b_h = jnp.zeros((0, *b.shape[1:]), b.dtype) if b_h is None else b_h
        b_h = jnp.pad(b_h, ((len(b) - len(b_h), 0), (0, 0)))
    turned = _turned(cell, library)
    blocks = Blocks(W_x, W_h, b, b_h)
    if turned is None:
        return blocks
    return jax.tree.map(lambda a: a.at[turned].multiply(-1), blocks)


def _turned(cell: Any, library: str) -> int | None:
    """The gate whose sign is turned, 1 − σ(a) = σ(−a), so that it weighs the old side."""
    if isinstance(cell, GRU) and cell.update_weighs == "new":
        return 1
    if isinstance(cell, MGU):
        if cell.variant != "MGU" or cell.reset == "before":
            raise ValueError(
                f"an MGU with variant={cell.variant!r} and reset={cell.reset!r}: {library} has "
                "only variant 'MGU' with reset 'after' or 'none'"
            )
        if cell.forget_weighs == "new" and cell.reset == "after":
            raise ValueError(
                f"an MGU with forget_weighs='new' and reset='after': {library} has only 'old', and "
                "a gate that resets as well cannot be turned around"
            )
        return 0 if cell.forget_weighs == "new" else None
    return None


def one_bias(blocks: Blocks) -> Array:
    """b + b_h, or zeros for a cell without."""
    if blocks.b is None or blocks.b_h is None:
        return jnp.zeros(blocks.W_x.shape[:2], blocks.W_x.dtype)
    return blocks.b + blocks.b_h


def candidate_apart(blocks: Blocks) -> tuple[Array, Array]:
    """With reset after the matrix: one bias for each gate, and the candidate's own inside of it."""
    both = one_bias(blocks)
    if blocks.b is None or blocks.b_h is None:
        return both, both[-1]
    return both.at[-1].set(blocks.b[-1]), blocks.b_h[-1]


def check_reset(cell: GRU, library: str, reset: str) -> None:
    """Raises if the library resets on the other side of the matrix."""
    if cell.reset != reset:
        raise ValueError(f"a GRU with reset={cell.reset!r}: {library} has only {reset!r}")


def stack_of(
    modules: Iterable[Any], params: Iterable[Any] | None, one: Callable[..., tuple[Any, Any]]
) -> tuple[Stack, tuple[PyTree, ...]]:
    """A stack of what `one(module, params, input_size)` makes of each, bottom first.

    input_size is None for the lowest.
    """
    modules = tuple(modules)
    params = (None,) * len(modules) if params is None else tuple(params)
    if len(modules) != len(params):
        raise ValueError(f"got {len(modules)} modules, but params of {len(params)}")
    cells, all_params, width = [], [], None
    for module, p in zip(modules, params, strict=True):
        cell, p = one(module, p, width)
        cells.append(cell)
        all_params.append(p)
        width = cell.output_size
    return Stack(tuple(cells)), tuple(all_params)


def both_ways(forward: tuple[Any, Any], backward: tuple[Any, Any]) -> tuple[Any, Any]:
    """Two directions, each a cell and its params, as one network and its params."""
    cells, params = zip(forward, backward, strict=True)
    return Bidirectional(*cells), BidirectionalParams(*params)


def check_forwards(reverse: Any, what: str) -> None:
    """Raises for a layer that runs backwards by itself."""
    if reverse:
        raise ValueError(
            f"{what}: a direction is no part of a cell here. Convert layer.cell, and unroll with "
            "reverse=True, whose ys[t] belongs to xs[t]"
        )
