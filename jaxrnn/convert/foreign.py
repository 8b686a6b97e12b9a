"""What foreign cells share: params and carry are their own, dtypes and checks ours."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from jaxrnn import cell as contract


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForeignCell:
    """A cell of another library, as ours: it does all that a cell does, at the speed of `Scan`.

    moment: shape and dtype of one x; a floating dtype follows that of the params.
    step_function: how the module is called, (module, carry, x) -> (carry, y); None for the way of
        its library.
    initial_carry_function: module -> carry; None for the way of its library.
    output_size: features of one output, or None if it is not one array.
    """

    moment: Any
    step_function: Callable[[Any, Any, Any], tuple[Any, Any]] | None = None
    initial_carry_function: Callable[[Any], Any] | None = None
    output_size: int | None = None

    @property
    def input_rank(self) -> Any:
        """Trailing axes of one moment."""
        return jax.tree.map(lambda leaf: len(leaf.shape), self.moment)

    @property
    def input_size(self) -> int:
        """Features of one input."""
        if not isinstance(self.moment, jax.ShapeDtypeStruct) or not self.moment.shape:
            raise AttributeError(f"{type(self).__name__} reads {self.moment}, which has no size")
        return self.moment.shape[-1]

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> PyTree:
        """Draws fresh parameters as the library does, and rounds them to `dtype`."""
        return cast(_at_ease(self.draw, key, dtype), dtype)

    def initial_carry(self, params: PyTree) -> PyTree:
        """What the library starts from, in the dtype of params."""
        return cast(_at_ease(self.first_carry, params), contract.params_dtype(params))

    def zeros(self, dtype: DTypeLike | None) -> Any:
        """One x of zeros, for the library to read shapes from."""
        return cast(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), self.moment), dtype)

    def draw(self, key: Array, dtype: DTypeLike) -> PyTree:
        """Params as the library draws them."""
        raise NotImplementedError

    def first_carry(self, params: PyTree) -> PyTree:
        """The first carry as the library makes it."""
        raise NotImplementedError

    def step(self, params: PyTree, carry: PyTree, x: Any) -> tuple[PyTree, Any]:
        """One step for one example."""
        raise NotImplementedError


def _at_ease(make: Callable[..., PyTree], *arguments: Any) -> PyTree:
    # what is made here is cast afterwards: let the library mix dtypes on its way
    with jax.numpy_dtype_promotion("standard"):
        return make(*arguments)


def _drawn(cell: Any, key: Array) -> PyTree:
    # in the dtype of the module, on which it may insist; of several, in one
    params = _at_ease(cell.draw, key, jnp.float32)
    return cast(params, None if contract.params_dtype(params) else jnp.float32)


def cast(tree: PyTree, dtype: DTypeLike | None) -> PyTree:
    """Floating leaves in `dtype`, complex ones of its precision; None leaves all as they are."""
    if dtype is None:
        return tree

    def one(leaf: Any) -> Any:
        kind = jnp.result_type(leaf)
        if jnp.issubdtype(kind, jnp.complexfloating):
            return leaf.astype(jnp.complex128 if jnp.dtype(dtype).itemsize == 8 else jnp.complex64)
        return leaf.astype(dtype) if jnp.issubdtype(kind, jnp.floating) else leaf

    return jax.tree.map(one, tree)


def moment_of(input_size: Any, what: str) -> Any:
    """A number of features, the shape of one x, or one x itself, as shapes and dtypes."""
    if input_size is None:
        raise ValueError(f"{what} doesn't say what it reads: pass input_size=, or one x")
    if isinstance(input_size, int):
        input_size = (input_size,)
    if isinstance(input_size, tuple) and all(isinstance(n, int) for n in input_size):
        return jax.ShapeDtypeStruct(input_size, jnp.float32)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), a.dtype), input_size)


def shape_of(cell: ForeignCell) -> tuple[int, ...]:
    """The shape of one x, which must be one array."""
    if not isinstance(cell.moment, jax.ShapeDtypeStruct):
        raise ValueError(
            f"{type(cell).__name__} reads {cell.moment}, but its library makes a first carry from "
            "the shape of one array: pass initial_carry=, a function of the module"
        )
    return cell.moment.shape


def checked(cell: Any, params: PyTree | None) -> Any:
    """The cell with its output_size, after one abstract step: it must return the carry it got."""
    contract.check_hash(cell)
    if params is None:
        params = jax.eval_shape(functools.partial(_drawn, cell), jax.random.key(0))
    carry = jax.eval_shape(cell.initial_carry, params)
    x = jax.eval_shape(lambda: cell.zeros(contract.params_dtype(params)))
    contract.check_step_keeps_carry(cell, params, carry, x, None)
    _, y = jax.eval_shape(cell.step, params, carry, x)
    one = isinstance(y, jax.ShapeDtypeStruct) and len(y.shape) > 0
    return dataclasses.replace(cell, output_size=y.shape[-1] if one else None)
