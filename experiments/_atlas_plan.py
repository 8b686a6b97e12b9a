"""What `initialization_atlas` measures: every cell at a size that can be, and how it may begin."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxrnn
from jaxrnn import catalogue
from jaxrnn.cells.lru import Ring
from jaxrnn.initializers import (
    Chrono,
    ForgetBias,
    Identity,
    Initializer,
    Normal,
    Orthogonal,
    Uniform,
    Zeros,
)

DEFAULT = "default"
RECURRENT: dict[str, Initializer] = {
    "uniform": Uniform(),
    "normal": Normal(),
    "orthogonal": Orthogonal(),
    "identity": Identity(),
    "zeros": Zeros(),
}
BIAS = ("forget bias 1", "chrono")
COLUMNS = (DEFAULT, *RECURRENT, *BIAS)
FAMILIES = {
    "linear": "linear in time",
    "keeps": "with a gate that keeps",
    "other": "without such a gate",
}
MOST = 3  # numbers in a carry, in units of hidden_size


class Kind(NamedTuple):
    """A row: a label, and how to make the cell from (input size, hidden size)."""

    label: str
    make: Callable[[int, int], Any]


class Plan(NamedTuple):
    """A row as it is measured: the cell, its sizes, and by column the cell that begins so."""

    cell: Any
    input_size: int
    hidden_size: int
    carry_size: int
    family: str
    begins: Mapping[str, Any]


def kinds() -> dict[str, Kind]:
    """Every cell of the catalogue as it is by default, and two that are known for other options."""
    found = {
        name: Kind(name, lambda m, d, kind=kind: catalogue.example(kind, m, d))
        for name, kind in catalogue.classes().items()
    }
    found["Elman-relu"] = Kind("Elman (relu)", lambda m, d: jaxrnn.Elman(m, d, "relu"))
    found["LRU-ring"] = Kind(
        "LRU (ring 0.9–1)", lambda m, d: jaxrnn.LRU(m, d, d, ring=Ring(0.9, 0.999))
    )
    return found


KINDS = kinds()


def plan(kind: Kind, input_size: int, hidden_size: int, longest: float) -> Plan:
    """The row of a kind: both sizes halved until the carry has at most `MOST` H numbers.

    A matrix memory has H² of them, a convolution H for every pixel.

    Raises:
        ValueError: the carry is larger at any size, or the kind cannot be made from two sizes.
    """
    m, d = input_size, hidden_size
    while True:
        cell = _made(kind, m, d)
        numbers = carry_size(cell)
        if numbers <= MOST * hidden_size:
            return Plan(cell, m, d, numbers, family(cell), begins(cell, longest))
        if d == 1:
            raise ValueError(f"a carry of {numbers} numbers or more")
        m, d = max(m // 2, 1), d // 2


def _made(kind: Kind, m: int, d: int) -> Any:
    try:
        return kind.make(m, d)
    except KeyError as error:
        raise ValueError(f"the catalogue has no example of its {error.args[0]}") from None


def carry_size(cell: Any) -> int:
    """N, how many real numbers the carry has."""

    def flat(key: jax.Array) -> jax.Array:
        return jaxrnn.flatten_carry(cell.initial_carry(cell.init(key, dtype=jnp.float32)))[0]

    return jax.eval_shape(flat, jax.random.key(0)).size


def begins(cell: Any, longest: float) -> dict[str, Any]:
    """By column, the cell with another initialiser; without those that it does not take."""
    found: dict[str, Any] = {DEFAULT: cell}
    for name, initializer in RECURRENT.items():
        found[name] = _with(cell, "recurrent_initializer", initializer)
    field = keeping_bias(cell)
    if field is not None:
        rest = getattr(cell, field)
        # one that has a forget bias by default gets this one in its place
        rest = rest.rest if isinstance(rest, ForgetBias) else rest
        found[BIAS[0]] = _with(cell, field, ForgetBias(1.0, rest))
        found[BIAS[1]] = _with(cell, field, Chrono(longest))
    return {name: other for name, other in found.items() if other is not None}


def _with(cell: Any, field: str, initializer: Initializer) -> Any | None:
    if field not in {f.name for f in dataclasses.fields(cell)}:
        return None
    changed = dataclasses.replace(cell, **{field: initializer})
    try:
        jax.eval_shape(changed.init, jax.random.key(0))
    except ValueError:
        # weights that are no square matrix
        return None
    return changed


def keeping_bias(cell: Any) -> str | None:
    """The field that draws the bias of a gate which keeps the past, or None if there is none."""
    for field in ("bias_initializer", "recurrent_bias_initializer"):
        gates: list[Any] = []

        def seen(key: Any, of: Any, shape: Any, dtype: Any, gates: list = gates) -> jax.Array:
            gates.extend(of)
            return jnp.zeros((len(of), *shape), dtype)

        _with(cell, field, seen)
        if any(gate.keeps for gate in gates):
            return field
    return None


def family(cell: Any) -> str:
    """Linear in time, with the bias of a gate that keeps, or neither."""
    if hasattr(cell, "element"):
        return "linear"
    return "keeps" if keeping_bias(cell) else "other"
