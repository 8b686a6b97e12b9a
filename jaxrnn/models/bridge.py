"""From a vector to the carry that a network starts from."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from jaxrnn.cell import flatten_carry
from jaxrnn.models.recurrent import Recurrent


class Bridge(nnx.Module):
    """carry = initial carry + W v + b, over every real number in the leaves of all layers.

    Leaves of integers, bools and keys stay what they are in the initial carry.

    input_size: features of v.
    recurrent: whose carry it makes.
    """

    def __init__(
        self,
        input_size: int,
        recurrent: Recurrent,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
    ) -> None:
        numbers = flatten_carry(recurrent.initial_carry())[0].size
        self.map = nnx.Linear(input_size, numbers, param_dtype=dtype, rngs=rngs)

    def __call__(self, vectors: Float[Array, "*batch F"], initial_carry: PyTree) -> PyTree:
        """The carries `(*batch, …)` for vectors, beside the initial carry of one example."""
        initial, unflatten = flatten_carry(initial_carry)
        for _ in vectors.shape[:-1]:
            unflatten = jax.vmap(unflatten)
        return unflatten(initial + self.map(vectors))
