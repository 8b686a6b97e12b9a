"""Any cell or network as a module of Flax linen."""

from typing import Any

import jax.numpy as jnp
from flax import linen
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from jaxrnn import cell as contract
from jaxrnn.unroll import unroll


class LinenRecurrent(linen.Module):
    """A cell or network inside a model of Flax linen: its params tree is the parameter `network`.

    carry, ys = LinenRecurrent(network)(xs, lengths=lengths)

    network: the cell or network.
    dtype: of the params.
    """

    network: Any
    dtype: DTypeLike = jnp.float32

    @linen.compact
    def __call__(self, xs: PyTree, **options: Any) -> tuple[PyTree, PyTree]:
        """`jaxrnn.unroll` over `xs`, `(*batch, T, features)`, with its options."""
        contract.check_cell(self.network)
        return unroll(self.network, self.param("network", self._init), xs, **options)

    def _init(self, key: Array) -> PyTree:
        return self.network.init(key, dtype=self.dtype)
