"""What a cell is, what a network is, and the checks at the boundary.

A *cell* is any object with three methods; nothing has to be inherited:

    init(key, dtype) -> params            what is learned
    initial_carry(params) -> carry        what the first step starts from
    step(params, carry, x) -> (carry, y)  one step, one example, pure

It may declare more, by these names:

    input_rank       trailing axes of one moment of xs: a number, or a tree of them (default 1)
    random           True if `step` takes a random key as its last argument
    causal           False if it needs the future and therefore cannot `step`
    gates(params, carry, x) -> NamedTuple of the gate values of one step
    jacobian         "dense" (default), "diagonal", or the size k of its diagonal blocks
    element(params, x), combine(older, newer), apply(element, carry)
                     the step as an element of an associative operation
    stages(params) -> (map of x, (maps of the carry, …)), each a `Dense`, and
    elementwise(carry, from_x, *maps) -> (carry, y)
                     the step as matrix products and the element-wise work between them; `from_x`
                     is the map of x applied, one array for each gate, and each map of the carry
                     is called once, in order: map(v, plus=…) is W v + b + plus, gate by gate

A *network* composes cells over depth or direction and has, in addition, `unroll`.
"""

import dataclasses
import operator
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

Params = TypeVar("Params")
Carry = TypeVar("Carry")


@runtime_checkable
class Cell(Protocol[Params, Carry]):
    """One step of a recurrence for one example, as a pure function."""

    def init(self, key: Array, dtype: Any = ...) -> Params:
        """Draws fresh parameters."""
        ...

    def initial_carry(self, params: Params) -> Carry:
        """Returns what the first step starts from."""
        ...

    def step(self, params: Params, carry: Carry, x: Any) -> tuple[Carry, Any]:
        """Maps a carry and one input to the next carry and one output."""
        ...


@runtime_checkable
class Network(Protocol):
    """Cells composed over depth or direction: a whole sequence in, a whole sequence out.

    `verb` is `jaxrnn.unroll` or `jaxrnn.trajectory`: a network applies it to each of its
    members, and so need not know which of the two it serves.
    """

    def init(self, key: Array, dtype: Any = ...) -> Any:
        """Draws fresh parameters."""
        ...

    def initial_carry(self, params: Any) -> Any:
        """Returns what the first step of each member starts from."""
        ...

    def unroll(self, params: Any, xs: Any, *, verb: Callable, **options: Any) -> tuple[Any, Any]:
        """Takes the keyword options of `jaxrnn.unroll`; returns carry and ys."""
        ...


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class FunctionCell:
    """A plain step function with the three methods of a cell; see `as_cell`."""

    step_function: Callable[[Any, Any, Any], tuple[Any, Any]]
    initial_carry_function: Callable[[Any], Any]
    init_function: Callable[..., Any] | None = None
    input_rank: int = 1

    def init(self, key: Array, dtype: Any = jnp.float32) -> Any:
        """Draws fresh parameters with the function given to `as_cell`."""
        if self.init_function is None:
            raise ValueError(
                "this cell was made by as_cell without init: make params yourself, "
                "or pass as_cell(..., init=function of (key, dtype))"
            )
        return self.init_function(key, dtype)

    def initial_carry(self, params: Any) -> Any:
        """Returns what the first step starts from."""
        return self.initial_carry_function(params)

    def step(self, params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        """Calls the step function."""
        return self.step_function(params, carry, x)


def as_cell(
    step: Callable[[Any, Any, Any], tuple[Any, Any]],
    initial_carry: Callable[[Any], Any],
    init: Callable[..., Any] | None = None,
    input_rank: int = 1,
) -> FunctionCell:
    """Makes a cell of a plain function `step(params, carry, x) -> (carry, y)`.

    `initial_carry` is a function of params. Pass functions defined once, at the top of a module:
    a fresh lambda at every call is a new cell, and is compiled anew.
    """
    return FunctionCell(step, initial_carry, init, input_rank)


def is_random(cell: Any) -> bool:
    """Whether `cell.step` takes a key as its last argument."""
    return bool(getattr(cell, "random", False))


def is_causal(cell: Any) -> bool:
    """Whether the cell or network can go one step at a time."""
    return bool(getattr(cell, "causal", True))


def step(cell: Any, params: Any, carry: Any, x: Any, key: Array | None = None) -> tuple[Any, Any]:
    """One step of any cell: hands `key` only to a cell that declares `random`."""
    if is_random(cell):
        return cell.step(params, carry, x, key)
    return cell.step(params, carry, x)


def staged_step(cell: Any, params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
    """The step of a cell that declares `stages` and `elementwise`, for its `step` to call."""
    of_x, of_carry = cell.stages(params)
    return cell.elementwise(carry, of_x(x), *of_carry)


def flatten_carry(carry: PyTree) -> tuple[Float[Array, " N"], Callable[[Array], PyTree]]:
    """The real numbers of a carry as one vector, and the function that puts them back.

    Complex leaves count as (real parts, imaginary parts). Integer, bool and key leaves do not
    count: the returned function puts back those of `carry`.
    """
    leaves, treedef = jax.tree.flatten(carry)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    parts: list[Array] = []
    for leaf in leaves:
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            parts += [leaf.real.ravel(), leaf.imag.ravel()]
        elif jnp.issubdtype(leaf.dtype, jnp.floating):
            parts.append(leaf.ravel())
    # one vector has one dtype: the widest, also where promotion is strict
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*{part.dtype for part in parts}) if parts else jnp.float32
    vector = jnp.concatenate([jnp.zeros(0, dtype), *(part.astype(dtype) for part in parts)])

    def unflatten(flat: Array) -> PyTree:
        rest, position = [], 0
        for leaf in leaves:
            if not jnp.issubdtype(leaf.dtype, jnp.inexact):
                rest.append(leaf)
                continue
            count = 2 if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else 1
            chunk = flat[position : position + count * leaf.size]
            position += count * leaf.size
            halves = chunk.astype(jnp.finfo(leaf.dtype).dtype).reshape(count, *leaf.shape)
            rest.append(jax.lax.complex(halves[0], halves[1]) if count == 2 else halves[0])
        return jax.tree.unflatten(treedef, rest)

    return vector, unflatten


def size(cell: Any, field: str) -> int:
    """`input_size` or `output_size` of a cell that a network is made of, or an error that asks."""
    try:
        return getattr(cell, field)
    except AttributeError:
        check_cell(cell)
        raise AttributeError(
            f"{type(cell).__name__} has no {field}, which the network around it needs: "
            "give the cell an attribute of that name"
        ) from None


def whole(name: str, value: Any, least: int = 1) -> int:
    """The value as an int; raises if it is none, or too small."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return operator.index(value)


def describe(tree: Any) -> str:
    """Shapes and dtypes of a tree, as short as JAX writes them: `float32[3,4]`."""
    leaves, treedef = jax.tree.flatten(tree)
    text = [
        f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" if hasattr(leaf, "dtype") else repr(leaf)
        for leaf in leaves
    ]
    return str(jax.tree.unflatten(treedef, [_Bare(t) for t in text]))


class _Bare(str):
    """A string whose repr has no quotes."""

    def __repr__(self) -> str:
        return str(self)


def check_cell(cell: Any) -> None:
    """Raises if `cell` lacks a method or cannot be a static argument of `jax.jit`."""
    name = type(cell).__name__
    if isinstance(cell, type):
        raise TypeError(f"got the class {cell.__name__}, expected an instance: {cell.__name__}(…)")
    missing = [m for m in ("initial_carry", "step") if not callable(getattr(cell, m, None))]
    if missing and not isinstance(cell, Network):
        raise TypeError(
            f"{name} has no method {' and no method '.join(missing)}: a cell has init(key, dtype), "
            "initial_carry(params) and step(params, carry, x) -> (carry, y)"
        )
    check_hash(cell)


def check_hash(value: Any) -> None:
    """Raises if a cell or method cannot be a static argument of `jax.jit`."""
    try:
        hash(value)
    except TypeError as error:
        raise TypeError(
            f"{type(value).__name__} cannot be hashed ({error}), which jit needs to recognise it: "
            "keep arrays in params and make the class a frozen dataclass, "
            "@dataclasses.dataclass(frozen=True)"
        ) from None


def check_step_keeps_carry(
    cell: Any, params: Any, carry: Any, x: Any, key: Array | jax.ShapeDtypeStruct | None
) -> None:
    """Raises if one step changes the structure, a shape or a dtype of the carry."""
    name = type(cell).__name__
    out = jax.eval_shape(lambda *a: step(cell, *a), params, carry, x, key)
    if not isinstance(out, tuple) or len(out) != 2:
        raise TypeError(f"{name}.step must return (carry, y), got {describe(out)}")
    after, _ = out
    before = jax.eval_shape(lambda c: c, carry)
    same = jax.tree.structure(before) == jax.tree.structure(after) and all(
        a.shape == b.shape and a.dtype == b.dtype
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    )
    if not same:
        raise ValueError(
            f"{name}.step must return a carry like the one it got: "
            f"got {describe(after)}, expected {describe(before)}"
        )


def params_dtype(params: PyTree) -> Any | None:
    """The one real dtype of the floating and complex leaves, or None if there is not one."""
    dtypes = {
        jnp.finfo(leaf.dtype).dtype
        for leaf in jax.tree.leaves(params)
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    }
    return dtypes.pop() if len(dtypes) == 1 else None


def at_least_float32(dtype: DTypeLike) -> DTypeLike:
    """The dtype to compute in for results of that dtype."""
    return jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32
