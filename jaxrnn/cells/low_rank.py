"""Leaky rate units whose connections have low rank, so that their dynamics have few dimensions."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_one_bias, draw_input
from jaxrnn.cells.leaky import LeakyCarry, LeakyUnits
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate, Initializer, Normal, draw_gates


class LowRankParams(NamedTuple):
    """Parameters of a `LowRank`: the columns of `M` are the m of the papers, those of `N` the n."""

    W_x: Float[Array, "H I"]
    M: Float[Array, "H R"]
    N: Float[Array, "H R"]
    b: Float[Array, " H"] | None
    initial: LeakyCarry | None
    leak: Float[Array, " H"] | None


class LowRankGates(NamedTuple):
    """What one step computes on its way: κ, the overlap of the rates with each n, and s."""

    overlap: Float[Array, " R"]
    drive: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class LowRank(LeakyUnits):
    """Mastrogiuseppe and Ostojic 2018 (1711.09672), trained as in Dubreuil et al. 2022.

        κ_t = Nᵀ r_{t-1} / H
        s_t = M κ_t + W_x x_t + b + √(2/α) σ ξ_t                    ξ_t ~ N(0, 1), α = Δt/τ
        v_t = (1 − α) v_{t-1} + α s_t,     r_t = φ(v_t)             carries="potential", the default

    This is `Leaky` with W = M Nᵀ / H, without the random bulk that the first paper adds to it.
    x_t has shape (input_size,); κ_t (rank,); the carry and the output r_t (hidden_size,).

    rank: R, the number of columns of M and N.
    biases: 0 for none, 1 for b.
    recurrent_initializer: for M and N, by default with entries from N(0, 1/R).
    """

    rank: int = 1
    _: dataclasses.KW_ONLY
    recurrent_initializer: Initializer | tuple[Initializer, ...] = Normal()

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.rank) is not int or not 1 <= self.rank <= self.hidden_size:
            raise ValueError(
                f"LowRank: rank must be an int from 1 to {self.hidden_size}, got {self.rank!r}"
            )
        check_one_bias(self)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> LowRankParams:
        """Draws fresh parameters."""
        k_x, k_h = jax.random.split(key)
        W_x, b = draw_input(self, k_x, dtype)
        gates, shape = (Gate("m"), Gate("n")), (self.hidden_size, self.rank)
        M, N = draw_gates(self.recurrent_initializer, k_h, gates, shape, dtype)
        return LowRankParams(W_x, M, N, b, self.learned(dtype), self.first_leak(dtype))

    def stages(self, params: LowRankParams) -> tuple[Dense, tuple[Dense, Dense]]:
        """The dense maps of x, of the rates (R numbers) and of those R numbers."""
        to_overlaps, back = params.N.T[None] / self.hidden_size, params.M[None]
        return self.map_of_x(params), (Dense(to_overlaps), Dense(back))

    def gate_values(
        self, carry: LeakyCarry, from_x: tuple[Array, ...], *of_carry: Map
    ) -> LowRankGates:
        """κ, and the sum s of all that drives the units."""
        of_rates, of_overlap = of_carry
        (overlap,) = of_rates(self.rates(carry))
        (drive,) = of_overlap(overlap, plus=from_x[:1])
        return LowRankGates(overlap, drive)
