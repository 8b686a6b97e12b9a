"""Long products of Jacobians, grown one older step at a time."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxrnn.analysis.scaled import (
    log_scaled,
    rescale,
    starting_basis,
    subspace_iteration,
    top_singular_value,
)
from jaxrnn.cells import LSTM

Rows = Callable[[Float[Array, "M N"]], Float[Array, "M N"]]


class Product(NamedTuple):
    """A product of Jacobians, `matrix · 2^exponent`, and the basis of its last spectral norm."""

    matrix: Float[Array, "M N"]
    exponent: Int[Array, ""]
    basis: Float[Array, "M r"] | None

    @classmethod
    def start(cls, matrix: Float[Array, "M N"], spectral: str) -> "Product":
        """The product of no Jacobian yet."""
        basis = starting_basis(len(matrix), matrix.dtype) if spectral == "iterative" else None
        return cls(matrix, jnp.zeros((), jnp.int32), basis)

    def times(self, pull_rows: Rows) -> "Product":
        """One older Jacobian on the right: every row pulled back one step, J never formed."""
        matrix, exponent = rescale(pull_rows(self.matrix), self.exponent)
        return self._replace(matrix=matrix, exponent=exponent)

    def log_top(self, spectral: str) -> tuple["Product", Float[Array, ""], Float[Array, ""]]:
        """The product with the basis for the next call, ln σ_max, and how far it may be off."""
        if spectral == "exact":
            value = top_singular_value(self.matrix)
            return self, log_scaled(value, self.exponent), jnp.zeros_like(value)
        assert self.basis is not None
        value, residual, basis = subspace_iteration(
            lambda u: self.matrix @ (self.matrix.T @ u), self.basis
        )
        return self._replace(basis=basis), log_scaled(value, self.exponent), residual / 2


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LSTMCurves:
    """Four curves that all go by the name of "the LSTM's gradient": ln σ_max over lag.

    joint: ∂(h, c)_T/∂(h, c)_{T−k}, the Jacobian of the whole carry.
    hidden_block: its block ∂h_T/∂h_{T−k}, a true derivative.
    product_of_hidden_blocks: Π ∂h_t/∂h_{t−1} with c held fixed at every step. *Not* a derivative
        of anything, since c moves; shown because it is often taken for one.
    direct_path: Π f_t, the part of ∂c_T/∂c_{T−k} that never leaves c. Not the gradient either.
    """

    joint: Float[Array, "*batch T"]
    hidden_block: Float[Array, "*batch T"]
    product_of_hidden_blocks: Float[Array, "*batch T"]
    direct_path: Float[Array, "*batch T"]


class LSTMProducts(NamedTuple):
    """What grows with lag for the three curves beside the joint one."""

    block_basis: Float[Array, "H r"] | None
    frozen: Product
    direct: Float[Array, " H"]
    direct_exponent: Int[Array, " H"]

    @classmethod
    def start(cls, cell: Any, dtype: DTypeLike, spectral: str) -> "LSTMProducts | None":
        """No step yet; None for a cell that is not an LSTM."""
        if not isinstance(cell, LSTM):
            return None
        frozen = Product.start(jnp.eye(cell.hidden_size, dtype=dtype), spectral)
        ones = jnp.ones(cell.hidden_size, dtype)
        return cls(frozen.basis, frozen, ones, jnp.zeros(cell.hidden_size, jnp.int32))

    def older(
        self, joint: Product, pull_rows: Rows, forget: Float[Array, " H"], spectral: str
    ) -> tuple["LSTMProducts", tuple[Float[Array, ""], ...]]:
        """One step further back; returns ln-norms in the order of `LSTMCurves` after joint."""
        H = len(forget)
        matrix, exponent = rescale(joint.matrix[:H, :H], joint.exponent)
        block, log_block, _ = Product(matrix, exponent, self.block_basis).log_top(spectral)
        # the carry is (h, c): rows with no c, of which only the h is kept, hold c fixed
        frozen = self.frozen.times(lambda q: pull_rows(jnp.pad(q, ((0, 0), (0, H))))[:, :H])
        frozen, log_frozen, _ = frozen.log_top(spectral)
        direct, direct_exponent = rescale(self.direct * forget, self.direct_exponent, axis=())
        log_direct = jnp.max(log_scaled(direct, direct_exponent))
        after = LSTMProducts(block.basis, frozen, direct, direct_exponent)
        return after, (log_block, log_frozen, log_direct)
