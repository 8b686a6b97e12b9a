"""Cells of Equinox as ours, and our params as their modules.

Equinox stacks its gates as rows, like PyTorch and us, in the order i, f, g, o and r, z, n, with one
bias; its GRU resets after the matrix and keeps a bias of the candidate's own.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from jaxrnn.cells import GRU, LSTM
from jaxrnn.convert.foreign import ForeignCell, checked, moment_of
from jaxrnn.convert.layout import (
    candidate_apart,
    check_reset,
    exported,
    one_bias,
    ours,
    read,
    stack_of,
)
from jaxrnn.network import Stack


def from_equinox(
    module: Any,
    input_size: Any = None,
    native: bool = True,
    step: Callable[[Any, Any, Any], tuple[Any, Any]] | None = None,
    initial_carry: Callable[[Any], Any] | None = None,
    init: Callable[[Array], Any] | None = None,
) -> tuple[Any, Any]:
    """A cell of Equinox, or any module of that kind, as a cell of ours.

    `eqx.nn.LSTMCell` and `eqx.nn.GRUCell` become *our* cell, with the weights laid out as ours:
    the fast ways through time, `gates`, `save`. Everything else stays what it is, as an
    `EquinoxCell`, whose params are the module with its arrays alone: `cell.module(params)` makes it
    whole again. A list of modules gives a `Stack`.

    Args:
        module: called in the way of Equinox, `module(x, carry) -> carry`, where y is the carry, or
            its first array if it has several; or a dictionary with the arrays of an LSTMCell or a
            GRUCell by name, for which Equinox is not needed.
        input_size: features of one x, its shape, or one x; by default `module.input_size`.
        native: False for the module itself, even where it is one of ours.
        step: (module, carry, x) -> (carry, y), a function defined once, if the module is called
            in another way.
        initial_carry: module -> carry; Equinox's own cells start from zeros.
        init: key -> a fresh module, for `cell.init`; without it, an `EquinoxCell` cannot draw
            params.

    Raises:
        ValueError: an array is missing, not known here or of the wrong shape.
    """
    if isinstance(module, list | tuple):

        def inner(module: Any, params: None, width: Any) -> tuple[Any, Any]:
            reads = input_size if width is None else width
            return from_equinox(module, reads, native, step, initial_carry, init)

        return stack_of(module, None, inner)
    if isinstance(module, Mapping):
        return _read(dict(module), "eqx.nn.LSTMCell or eqx.nn.GRUCell")
    import equinox as eqx

    name, own = type(module).__name__, type(module) in (eqx.nn.LSTMCell, eqx.nn.GRUCell)
    if own and native and step is None and not initial_carry:
        names = ("weight_ih", "weight_hh", "bias", "bias_n")
        found = {key: getattr(module, key, None) for key in names}
        return _read({k: a for k, a in found.items() if a is not None}, f"eqx.nn.{name}")
    params, rest = eqx.partition(module, _is_array)
    if initial_carry is None:
        if not own:
            raise ValueError(
                f"{name} doesn't say what it starts from: pass initial_carry=, a function of the "
                "module, such as one that returns jnp.zeros(module.hidden_size)"
            )
        initial_carry = _zeros
    input_size = getattr(module, "input_size", None) if input_size is None else input_size
    cell = EquinoxCell(
        rest=rest,
        moment=moment_of(input_size, f"the Equinox module {name}"),
        step_function=step,
        initial_carry_function=initial_carry,
        init_function=init,
    )
    return checked(cell, params), params


def to_equinox(network: Any, params: PyTree) -> Any:
    """The Equinox module that computes what `network` computes: `carry = module(x, carry)`.

    An LSTM gives an `eqx.nn.LSTMCell`, whose carry is (h, c), a GRU an `eqx.nn.GRUCell`, an
    `EquinoxCell` its own module, a `Stack` a tuple with one entry per layer. There is nothing to
    load: to put it into a model, say `eqx.tree_at(lambda model: model.cell, model, module)`.

    Raises:
        ValueError, TypeError: Equinox has no such cell.
    """
    import equinox as eqx

    if isinstance(network, EquinoxCell):
        return network.module(params)
    if isinstance(network, Stack):
        return tuple(to_equinox(*pair) for pair in zip(network.layers, params, strict=True))
    blocks = exported(network, params, "Equinox", (GRU, LSTM))
    matrices = zip(_MATRICES, (blocks.W_x, blocks.W_h), strict=True)
    arrays = {key: W.reshape(-1, W.shape[-1]) for key, W in matrices}
    if isinstance(network, GRU):
        check_reset(network, "Equinox", "after")
        biases = dict(zip(("bias", "bias_n"), candidate_apart(blocks), strict=True))
    else:
        biases = {"bias": one_bias(blocks)}
    if network.biases:
        arrays |= {key: b.ravel() for key, b in biases.items()}
    kind = eqx.nn.GRUCell if isinstance(network, GRU) else eqx.nn.LSTMCell
    sizes, options = (network.input_size, network.hidden_size), {"dtype": blocks.W_x.dtype}
    module = eqx.filter_eval_shape(
        lambda: kind(*sizes, use_bias=network.biases > 0, key=jax.random.key(0), **options)
    )
    return eqx.tree_at(lambda m: [getattr(m, key) for key in arrays], module, list(arrays.values()))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class EquinoxCell(ForeignCell):
    """A module of Equinox as a cell: params are its arrays, in a module without the rest."""

    rest: Any
    init_function: Callable[[Array], Any] | None = None

    def module(self, params: PyTree) -> Any:
        """The module with these params."""
        import equinox as eqx

        return eqx.combine(params, self.rest)

    def draw(self, key: Array, dtype: DTypeLike) -> PyTree:
        """The params of a fresh module."""
        import equinox as eqx

        if self.init_function is None:
            raise ValueError(
                "an Equinox module draws its params when it is made: pass from_equinox(…, "
                "init=function of a key that returns a fresh module)"
            )
        return eqx.partition(self.init_function(key), _is_array)[0]

    def first_carry(self, params: PyTree) -> PyTree:
        """The first carry of the module."""
        return self.initial_carry_function(self.module(params))  # pyright: ignore[reportOptionalCall]

    def step(self, params: PyTree, carry: PyTree, x: Any) -> tuple[PyTree, Any]:
        """One step for one example."""
        module = self.module(params)
        if self.step_function is not None:
            return self.step_function(module, carry, x)
        carry = module(x, carry)
        return carry, jax.tree.leaves(carry)[0]


_MATRICES = ("weight_ih", "weight_hh")


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)


def _zeros(module: Any) -> PyTree:
    # of Equinox's own cells, the one with the bias_n is the GRU
    zeros = jnp.zeros(module.hidden_size)
    return zeros if hasattr(module, "bias_n") else (zeros, zeros)


def _read(found: dict[str, Any], owner: str) -> tuple[GRU | LSTM, Any]:
    """Our cell and params, from the arrays by name."""
    for key in _MATRICES:
        if key not in found:
            raise ValueError(f"{key} is missing in {owner}: found {', '.join(found) or 'nothing'}")
        if len(jnp.shape(found[key])) != 2:
            raise ValueError(f"{key} has shape {jnp.shape(found[key])}, expected a matrix")
    (_, I), (many, H) = (jnp.shape(found[key]) for key in _MATRICES)
    gates = many // H if H else 0
    if gates not in (3, 4) or many != gates * H:
        raise ValueError(
            f"weight_hh has shape {(many, H)}, expected (3·H, H) of a GRUCell or (4·H, H) of an "
            "LSTMCell"
        )
    owner = f"eqx.nn.{'GRUCell' if gates == 3 else 'LSTMCell'}({I}, {H})"
    shapes: dict[str, tuple[int, ...]] = {"weight_ih": (many, I), "weight_hh": (many, H)}
    if biased := "bias" in found or "bias_n" in found:
        shapes |= {"bias": (many,)} | ({"bias_n": (H,)} if gates == 3 else {})
    a = read(found, shapes, owner)
    W_x, W_h = (a[key].reshape(gates, H, -1) for key in _MATRICES)
    b = a["bias"].reshape(gates, H) if biased else None
    if gates == 4:
        return ours(LSTM(I, H, biases=int(biased)), W_x, W_h, b)
    cell = GRU(I, H, reset="after", update_weighs="old", biases=int(biased))
    return ours(cell, W_x, W_h, b, a["bias_n"][None] if biased else None)
