"""How big a cell is, and its carry as one vector."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree


def count_parameters(cell: Any) -> int:
    """Number of learned numbers of a cell or network: d(m+d+1) for each block of a gated cell."""
    return sum(leaf.size for leaf in jax.tree.leaves(_params(cell, jnp.float32)))


def carry_size(cell: Any) -> int:
    """N, the length of the flattened carry in real numbers: 2H for an LSTM, H for a GRU."""
    carry = _carry(cell, jnp.float32)
    return jax.eval_shape(lambda c: flatten_carry(c)[0], carry).size


def carry_bytes(cell: Any, dtype: DTypeLike = jnp.float32) -> int:
    """Bytes that one example's carry takes between two steps."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(_carry(cell, dtype)))


def step_flops(cell: Any, params: PyTree, x: Any) -> float:
    """Floating-point operations of one step for one example, as XLA counts them.

    Additions and multiplications; tanh and the logistic function are not in it.
    """
    lowered = jax.jit(cell.step).lower(params, cell.initial_carry(params), x)
    analysis: Any = lowered.cost_analysis()
    return float(analysis["flops"])


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


def _params(cell: Any, dtype: DTypeLike) -> PyTree:
    return jax.eval_shape(lambda key: cell.init(key, dtype=dtype), jax.random.key(0))


def _carry(cell: Any, dtype: DTypeLike) -> PyTree:
    return jax.eval_shape(cell.initial_carry, _params(cell, dtype))
