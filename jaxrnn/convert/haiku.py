"""Cores of Haiku as ours, and our params as theirs.

Haiku's LSTM has one matrix for x and h together, its gates side by side in the order i, g, f, o,
and adds 1 to that of f; its GRU has the order z, r, n, resets before the matrix and lets z weigh
the new side; its VanillaRNN is a ReLU network. A core exists only inside of a transformed function:
what is converted is a function that makes one.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from jaxrnn.cells import GRU, LSTM, Elman
from jaxrnn.convert.foreign import ForeignCell, cast, checked, moment_of
from jaxrnn.convert.layout import (
    KINDS,
    check_reset,
    exported,
    flatten,
    from_columns,
    one_bias,
    ours,
    read,
    rows,
    to_columns,
)
from jaxrnn.network import Stack


def from_haiku(
    make_core: Callable[[], Any] | None = None,
    params: Any = None,
    input_size: Any = None,
    prefix: str = "",
    native: bool = True,
) -> tuple[Any, Any]:
    """A core of Haiku, or any module that is called like one, as a cell of ours.

    `hk.LSTM`, `hk.GRU` and `hk.VanillaRNN` become *our* cell, with the weights laid out as ours:
    the fast ways through time, `gates`, `save`; an `hk.DeepRNN` of them becomes a `Stack`.
    Everything else stays what it is, as a `HaikuCell`, with its own params and carry. Traced params
    are fine: gradients reach the params of Haiku.

        cell, params = from_haiku(lambda: hk.LSTM(64), params)

    For a pair that `hk.transform` has returned there is `jaxrnn.as_cell`, in one line:
    `as_cell(lambda p, carry, x: pair.apply(p, None, x, carry)[::-1], lambda p: first carry)`.

    Args:
        make_core: a function of nothing, defined once, that returns the core; it is called inside
            of `hk.transform`. None to tell an LSTM, a GRU or a VanillaRNN by the names of its
            params, for which Haiku is not needed.
        params: what `init` of the transformed function returned; None to draw them by `cell.init`,
            which for a cell of ours uses our initialisers.
        input_size: features of one x, its shape, or one x. Read off the params of a cell of ours;
            others need it.
        prefix: what stands before the names of the core's modules, such as "my_net/~/"; others are
            left aside.
        native: False for the core itself, even where it is one of ours.

    Raises:
        ValueError: an array is missing, not known here or of the wrong shape.
    """
    params = None if params is None else _within(params, prefix)
    if make_core is None:
        if params is None:
            raise ValueError("from_haiku needs make_core or params: neither says what the core is")
        return _read_named(params, prefix)
    core = _made(make_core)
    layers = _own_layers(core) if native else ()
    if not layers:
        moment = moment_of(input_size, f"the Haiku core {type(core).__name__}")
        return checked(HaikuCell(make_core=make_core, moment=moment), params), params
    cells, all_params = [], []
    for layer in layers:
        cell, p = _of_core(layer, params, input_size, prefix)
        cells.append(cell)
        all_params.append(p)
        input_size = cell.output_size
    if params is not None:
        _check_all_read(layers, params, prefix)
    if layers == (core,):
        return cells[0], all_params[0]
    return Stack(tuple(cells)), None if params is None else tuple(all_params)


def to_haiku(network: Any, params: PyTree, prefix: str = "") -> dict[str, Any]:
    """The params of the Haiku core that computes what `network` computes.

    Use them as the params of a transformed function that makes the core under its usual name:
    `hk.without_apply_rng(hk.transform(lambda x, s: hk.LSTM(64)(x, s))).apply(params, x, s)`.
    Haiku's LSTM and GRU have one bias for each gate: two are added up, none are zeros. A `Stack`
    gives the params of an `hk.DeepRNN` of the cores, made in its order.

    Args:
        network: an Elman with "relu" (`hk.VanillaRNN`), an LSTM, a GRU with reset="before", a
            `HaikuCell`, or a `Stack` of such.
        params: its params.
        prefix: what stands before the names, such as "my_net/~/".

    Raises:
        ValueError, TypeError: Haiku has no such core.
    """
    if isinstance(network, HaikuCell):
        return {f"{prefix}{name}": arrays for name, arrays in params.items()}
    layers = network.layers if isinstance(network, Stack) else (network,)
    params = params if isinstance(network, Stack) else (params,)
    arrays, seen = {}, dict.fromkeys(_NAMES.values(), 0)
    for cell, p in zip(layers, params, strict=True):
        named = _arrays_of(cell, p)
        name = _NAMES[type(cell)]
        number = f"_{seen[name]}" if seen[name] else ""
        seen[name] += 1
        for inner, one in named.items():
            arrays[f"{prefix}{name}{number}{inner}"] = one
    return arrays


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class HaikuCell(ForeignCell):
    """A core of Haiku as a cell: params are those of its transformed step, the carry its state."""

    make_core: Callable[[], Any]

    def draw(self, key: Array, dtype: DTypeLike) -> PyTree:
        """Params as Haiku draws them."""
        import haiku as hk

        def first_step(x: Any) -> Any:
            core = self.make_core()
            return core(x, cast(core.initial_state(None), dtype))

        return hk.transform(first_step).init(key, self.zeros(dtype))

    def first_carry(self, params: PyTree) -> PyTree:
        """The first state of the core."""
        import haiku as hk

        first = hk.transform(lambda: self.make_core().initial_state(None))
        return first.apply(params, None)

    def step(self, params: PyTree, carry: PyTree, x: Any) -> tuple[PyTree, Any]:
        """One step for one example."""
        import haiku as hk

        core = hk.transform(lambda x, state: self.make_core()(x, state))
        y, carry = core.apply(params, None, x, carry)
        return carry, y


_NAMES = {LSTM: "lstm", GRU: "gru", Elman: "vanilla_rnn"}
# ours are i, f, g, o and r, z, n; both orders are their own inverses
_LSTM_ORDER, _GRU_ORDER = (0, 2, 1, 3), (1, 0, 2)


def _made(make_core: Callable[[], Any]) -> Any:
    """The core itself, for what can be read off it outside of a transformed function."""
    import haiku as hk

    made: list[Any] = []
    hk.transform(lambda: made.append(make_core())).apply({}, None)
    return made[0]


def _own_layers(core: Any) -> tuple[Any, ...]:
    """The cores that are cells of ours, bottom first; none if something else is among them."""
    import haiku as hk

    deep = type(core) is hk.DeepRNN and not core.skip_connections
    layers = tuple(core.layers) if deep else (core,)
    known = (hk.LSTM, hk.GRU, hk.VanillaRNN)
    return layers if all(type(layer) in known for layer in layers) else ()


def _within(params: Any, prefix: str) -> dict[str, Any]:
    found = {name[len(prefix) :]: own for name, own in params.items() if name.startswith(prefix)}
    if not found:
        raise ValueError(f"no module is named {prefix}…: found {', '.join(params) or 'no params'}")
    return found


def _of_core(core: Any, params: Any, input_size: Any, prefix: str) -> tuple[Any, Any]:
    """Our cell and params, for one core and the params of all."""
    import haiku as hk

    name, H = core.module_name, core.hidden_size
    if params is None:
        I = moment_of(input_size, f"hk.{type(core).__name__} without params").shape[-1]
        if type(core) is hk.LSTM:
            return LSTM(I, H), None
        if type(core) is hk.GRU:
            return GRU(I, H), None
        return Elman(I, H, activation="relu", biases=1 + core.double_bias), None
    found = {key: own for key, own in params.items() if f"{key}/".startswith(f"{name}/")}
    readers = {hk.LSTM: _read_lstm, hk.GRU: _read_gru, hk.VanillaRNN: _read_vanilla}
    arrays = {key[len(name) + 1 :]: leaf for key, leaf in flatten(found).items()}
    double = {"double": core.double_bias} if type(core) is hk.VanillaRNN else {}
    return readers[type(core)](arrays, H, f"{prefix}{name}/", **double)


def _check_all_read(layers: tuple[Any, ...], params: Mapping[str, Any], prefix: str) -> None:
    names = tuple(f"{core.module_name}/" for core in layers)
    if extra := [key for key in params if not f"{key}/".startswith(names)]:
        raise ValueError(
            f"{prefix}{extra[0]} is not expected: the core has {', '.join(n[:-1] for n in names)}"
        )


def _read_named(params: dict[str, Any], prefix: str) -> tuple[Any, Any]:
    """Our cell and params, told by the names alone."""
    name = min(params).split("/linear")[0]
    found = {key[len(name) + 1 :]: leaf for key, leaf in flatten(params).items()}
    if any(not key.startswith(name) for key in params):
        raise ValueError(
            f"the params are of several modules, {', '.join(params)}: pass a longer prefix, or "
            "make_core"
        )
    at = f"{prefix}{name}/"
    if "w_h" in found or "w_i" in found:
        return _read_gru(found, rows(found, "w_h", "hk.GRU", at), at)
    if any(key.startswith("linear_1/") for key in found):
        H = rows(found, "linear_1/w", "hk.VanillaRNN", at)
        return _read_vanilla(found, H, at, double="linear_1/b" in found)
    rows(found, "linear/w", "hk.LSTM", at)
    return _read_lstm(found, jnp.shape(found["linear/w"])[1] // 4, at)


def _read_lstm(found: dict[str, Any], H: int, at: str) -> tuple[Any, Any]:
    owner = f"hk.LSTM({H})"
    I = rows(found, "linear/w", owner, at) - H
    a = read(found, {"linear/w": (max(I, 0) + H, 4 * H), "linear/b": (4 * H,)}, owner, at)
    both = from_columns(a["linear/w"], 4, _LSTM_ORDER)
    b = a["linear/b"].reshape(4, H)[jnp.array(_LSTM_ORDER)].at[1].add(1)
    return ours(LSTM(I, H), both[..., :I], both[..., I:], b)


def _read_gru(found: dict[str, Any], H: int, at: str) -> tuple[Any, Any]:
    owner = f"hk.GRU({H})"
    I = rows(found, "w_i", owner, at)
    a = read(found, {"w_i": (I, 3 * H), "w_h": (H, 3 * H), "b": (3 * H,)}, owner, at)
    W_x, W_h = from_columns(a["w_i"], 3, _GRU_ORDER), from_columns(a["w_h"], 3, _GRU_ORDER)
    b = a["b"].reshape(3, H)[jnp.array(_GRU_ORDER)]
    return ours(GRU(I, H), W_x, W_h, b)


def _read_vanilla(found: dict[str, Any], H: int, at: str, double: bool) -> tuple[Any, Any]:
    owner = f"hk.VanillaRNN({H}, double_bias={double})"
    I = rows(found, "linear/w", owner, at)
    shapes = {"linear/w": (I, H), "linear/b": (H,), "linear_1/w": (H, H)}
    a = read(found, shapes | ({"linear_1/b": (H,)} if double else {}), owner, at)
    cell = Elman(I, H, activation="relu", biases=2 if double else 1)
    b_h = a["linear_1/b"][None] if double else None
    return ours(cell, a["linear/w"].T[None], a["linear_1/w"].T[None], a["linear/b"][None], b_h)


def _arrays_of(cell: Any, params: Any) -> dict[str, Any]:
    """Params of a core by the names of its modules, without the core's own."""
    blocks = exported(cell, params, "Haiku", KINDS)
    if isinstance(cell, LSTM):
        both = jnp.concatenate([blocks.W_x, blocks.W_h], axis=-1)
        b = one_bias(blocks).at[1].add(-1)
        b = b[jnp.array(_LSTM_ORDER)].ravel()
        return {"/linear": {"w": to_columns(both, _LSTM_ORDER), "b": b}}
    if isinstance(cell, GRU):
        check_reset(cell, "Haiku", "before")
        # `exported` has turned z to weigh the old side, Haiku's weighs the new
        W_x, W_h, b = (
            a.at[1].multiply(-1)[jnp.array(_GRU_ORDER)]
            for a in (blocks.W_x, blocks.W_h, one_bias(blocks))
        )
        return {"": {"w_i": to_columns(W_x), "w_h": to_columns(W_h), "b": b.ravel()}}
    if cell.activation not in ("relu", jax.nn.relu):
        raise ValueError(f"Elman has activation {cell.activation!r}: hk.VanillaRNN has 'relu'")
    of_x, of_h = {"w": blocks.W_x[0].T}, {"w": blocks.W_h[0].T}
    if cell.biases == 2:  # double_bias
        return {"/linear": of_x | {"b": params.b}, "/linear_1": of_h | {"b": params.b_h}}
    return {"/linear": of_x | {"b": one_bias(blocks)[0]}, "/linear_1": of_h}
