"""Every cell of the library in one table, read off the cells themselves.

`python -m jaxrnn` prints it, `python -m jaxrnn LSTM` one cell: equations, params, carry.
"""

import dataclasses
import inspect
import re
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import cells
from jaxrnn.sizes import count_parameters

_M, _D = 10, 24  # an input and a hidden size that no other number is taken for


@dataclasses.dataclass(frozen=True)
class Entry:
    """One cell, as the catalogue shows it.

    year: of the first paper that its docstring names.
    parameters: how many learned numbers, with m = input_size and d = hidden_size, by default.
    carry: the fields of the carry and their shapes.
    linear: whether it is linear in time, so that `Associative` can take it there.
    declares: what else it declares: stages, gates, the structure of its Jacobian, noise.
    equal_to: what of other libraries computes the same.
    """

    name: str
    year: int
    parameters: str
    carry: str
    linear: bool
    declares: str
    equal_to: str


def entries() -> list[Entry]:
    """All cells, the oldest first."""
    return sorted(map(_entry, classes().values()), key=lambda e: (e.year, e.name))


def classes() -> dict[str, type]:
    """The classes of all cells by name."""
    found = {
        name: value
        for name, value in vars(cells).items()
        if isinstance(value, type) and dataclasses.is_dataclass(value) and hasattr(value, "step")
    }
    return dict(sorted(found.items()))


def example(kind: type, m: int, d: int) -> Any:
    """A cell of a kind with input size m and hidden size d, everything else by default.

    Where a kind asks for more: as many outputs as units, 16 of other units, 8 pixels in a row.
    """
    sizes = dict(input_size=m, hidden_size=d, output_size=d, projection_size=d)
    sizes |= dict(input_shape=(8, m), features=d, kernel_shape=(3,), state_size=16, context_size=16)
    asked = [
        field.name
        for field in dataclasses.fields(kind)  # pyright: ignore[reportArgumentType]
        if field.default is dataclasses.MISSING
    ]
    return kind(**{name: sizes[name] for name in asked})


def table() -> str:
    """The catalogue as a Markdown table."""
    head = ("cell", "year", "parameters", "carry", "linear in time", "declares", "equal to")
    rows = [
        (
            f"`{e.name}`",
            str(e.year),
            e.parameters,
            e.carry,
            "yes" if e.linear else "",
            e.declares,
            e.equal_to,
        )
        for e in entries()
    ]
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def text() -> str:
    """The catalogue for a terminal: what other libraries call a cell follows the table."""
    head = ("cell", "year", "parameters", "carry", "linear", "declares")
    found = entries()
    rows = [
        (e.name, str(e.year), e.parameters, e.carry, "yes" if e.linear else "–", e.declares)
        for e in found
    ]
    lines = [head, *rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    padded = [
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    padded.insert(1, "─" * max(map(len, padded)))
    elsewhere = [f"{e.name} = {e.equal_to}" for e in found if e.equal_to]
    notes = [
        "m input_size, d hidden_size, options as by default; python -m jaxrnn NAME for one cell",
        "linear: in time, so that Associative() can take it there",
    ]
    return "\n".join([*padded, "", *elsewhere, "", *notes])


def card(name: str) -> str:
    """One cell: how it is made, its equations, its params and its carry.

    Raises:
        ValueError: there is no cell of that name.
    """
    found = {key.lower(): value for key, value in classes().items()}.get(name.lower())
    if found is None:
        raise ValueError(f"no cell is called {name!r}: there are {', '.join(classes())}")
    entry, cell = _entry(found), example(found, _M, _D)
    params = jax.eval_shape(lambda key: cell.init(key, dtype=jnp.float32), jax.random.key(0))
    lines = [f"jaxrnn.{found.__name__}{_signature(found)}", "", inspect.getdoc(found) or "", ""]
    lines += [f"params, with m = input_size and d = hidden_size: {entry.parameters} numbers"]
    lines += [f"  {line}" for line in _shapes(params)]
    lines += ["carry", *(f"  {line}" for line in _shapes(_carry(cell)))]
    if entry.declares:
        lines += [f"declares {entry.declares}"]
    return "\n".join(lines)


def _entry(kind: type) -> Entry:
    cell = example(kind, _M, _D)
    document = inspect.getdoc(kind) or ""
    year = re.search(r"\b(19|20)\d\d\b", document)
    if year is None:
        raise ValueError(f"the docstring of {kind.__name__} names no year")
    equal = re.search(r"^Equal to:\s*(.*?)(?:\n\s*\n|\Z)", document, re.MULTILINE | re.DOTALL)
    declared = [name for name in ("stages", "gates") if hasattr(cell, name)]
    structure = getattr(cell, "jacobian", "dense")
    if structure != "dense":
        declared.append(f"jacobian {structure}")
    return Entry(
        name=kind.__name__,
        year=int(year.group()),
        parameters=formula(kind),
        carry=", ".join(_shapes(_carry(cell))),
        linear=hasattr(cell, "element"),
        declares=", ".join(declared),
        equal_to="" if equal is None else " ".join(equal.group(1).split()).rstrip("."),
    )


def _signature(kind: type) -> str:
    fields = dataclasses.fields(kind)  # pyright: ignore[reportArgumentType]
    return "(" + ", ".join(field.name for field in fields) + ")"


def _carry(cell: Any) -> Any:
    params = jax.eval_shape(lambda key: cell.init(key, dtype=jnp.float32), jax.random.key(0))
    return jax.eval_shape(cell.initial_carry, params)


def _shapes(tree: Any) -> list[str]:
    """Each array of a tree by name, with its shape in m and d: "h (d)"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [
        f"{jax.tree_util.keystr(path, simple=True, separator='.')} ({_axes(leaf.shape)})"
        for path, leaf in leaves
    ]


def _axes(shape: Iterable[int]) -> str:
    return ", ".join(_symbol(size) for size in shape)


def _symbol(size: int) -> str:
    if size == _M:
        return "m"
    for times in (1, 2, 3, 4):
        if size == times * _D:
            return "d" if times == 1 else f"{times}d"
    return str(size)


# ---- a count of parameters as a polynomial

_TERMS = {
    "d²": lambda m, d: d * d,
    "dm": lambda m, d: d * m,
    "m²": lambda m, d: m * m,
    "d": lambda m, d: d,
    "m": lambda m, d: m,
    "": lambda m, d: 1,
}


def formula(kind: type) -> str:
    """The number of parameters in m and d, by fitting a polynomial and checking it elsewhere."""
    points = [(8, 8), (8, 16), (16, 8), (16, 16), (24, 8), (8, 24), (32, 48), (48, 32)]
    counts = [count_parameters(example(kind, m, d)) for m, d in points]
    rows = np.array([[term(m, d) for term in _TERMS.values()] for m, d in points], float)
    solution = np.linalg.lstsq(rows[:6], np.array(counts[:6], float), rcond=None)[0]
    rounded = np.round(solution * 16) / 16
    if not np.array_equal(rows @ rounded, counts):
        return "–"
    parts = [_part(c, name) for c, name in zip(rounded, _TERMS, strict=True) if c]
    return " + ".join(parts).replace("+ -", "− ") or "0"


def _part(coefficient: float, name: str) -> str:
    number = f"{coefficient:g}"
    return number if not name else name if number == "1" else f"{number}{name}"
