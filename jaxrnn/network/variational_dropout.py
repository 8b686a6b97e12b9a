"""Dropout of the same units at every step of an episode."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, PyTree

from jaxrnn import cell as contract
from jaxrnn.dense import Map
from jaxrnn.network._masked import Masked
from jaxrnn.network._shared import check_cell, check_rate, drop, fold
from jaxrnn.unroll import unroll


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class VariationalDropout(Masked):
    """Gal and Ghahramani 2016 (1512.05287): one mask on x, one on h, each constant in time.

        x_t ← m_x ⊙ x_t,   W_h h_{t-1} ← W_h (m_h ⊙ h_{t-1}),   y_t ← m_y ⊙ y_t

    An entry of a mask is 0 with probability `rate`, else 1/(1 − rate); all gates share it, the
    paper's tied weights. A row draws its masks at the first step of an episode, from that step's
    key `fold_in(row_key, t)`, and keeps them until a reset: so streaming equals the whole, and the
    same key with the same resets gives the same masks. With `reverse`, the first step is the last
    in time. Without a key nothing is dropped.

    input_rate: of m_x. recurrent_rate: of m_h. output_rate: of m_y.

    m_h is applied to whatever a matrix of the carry multiplies, in a GRU with reset="before" to
    r ⊙ h too, and not where h leaks past it, (1 − z) ⊙ h. That needs a cell with `stages`. For
    others `carry.h` itself is masked before each step: the same where h is read through weights
    alone (`ConvLSTM`), and not otherwise. With `recurrent_rate=0` the layer may be any network.

    The carry is `MaskedCarry(layer, seed)`; the params are the layer's.
    """

    layer: Any
    input_rate: float = 0.0
    recurrent_rate: float = 0.0
    output_rate: float = 0.0

    def __post_init__(self) -> None:
        for field in ("input_rate", "recurrent_rate", "output_rate"):
            check_rate(self, field, getattr(self, field))
        if self.recurrent_rate > 0:
            check_cell(self, self.layer, "recurrent_rate")

    @property
    def masks_recurrence(self) -> bool:
        """Whether anything is dropped within the layer."""
        return self.recurrent_rate > 0

    def mask_inputs(self, x: PyTree, key: Array) -> PyTree:
        """m_x ⊙ x."""
        return drop(x, self.input_rate, fold(key, 0))

    def mask_outputs(self, y: PyTree, key: Array) -> PyTree:
        """m_y ⊙ y."""
        return drop(y, self.output_rate, fold(key, 1))

    def masked_step(
        self, params: Any, carry: Any, x: Any, mask_key: Array, key: Array | None
    ) -> tuple[Any, Any]:
        """The layer's step with m_h ⊙ h in the place of h."""
        mask_key = jax.random.fold_in(mask_key, 2)

        def masked(of: Map) -> Map:
            def apply(v: Array, plus: Any = None) -> tuple[Array, ...]:
                return of(drop(v, self.recurrent_rate, mask_key), plus)

            return apply

        if hasattr(self.layer, "stages"):
            of_x, of_carry = self.layer.stages(params)
            return self.layer.elementwise(carry, of_x(x), *map(masked, of_carry))
        carry = carry._replace(h=drop(carry.h, self.recurrent_rate, mask_key))
        return contract.step(self.layer, params, carry, x, key)

    def unroll(
        self, params: Any, xs: PyTree, *, verb: Callable = unroll, **options: Any
    ) -> tuple[Any, PyTree]:
        """Through the whole sequence; options as for `jaxrnn.unroll`."""
        if self.recurrent_rate > 0 and not hasattr(self.layer, "stages"):
            carry = jax.eval_shape(self.layer.initial_carry, params)
            if "h" not in getattr(carry, "_fields", ()):
                raise ValueError(
                    "VariationalDropout: recurrent_rate needs a cell with stages, or a carry with "
                    f"a field h; {type(self.layer).__name__} has {contract.describe(carry)}"
                )
        return super().unroll(params, xs, verb=verb, **options)
