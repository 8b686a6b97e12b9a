"""How big a cell is."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import PyTree

from jaxrnn.cell import flatten_carry


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


def _params(cell: Any, dtype: DTypeLike) -> PyTree:
    return jax.eval_shape(lambda key: cell.init(key, dtype=dtype), jax.random.key(0))


def _carry(cell: Any, dtype: DTypeLike) -> PyTree:
    return jax.eval_shape(cell.initial_carry, _params(cell, dtype))
