"""An echo state network: a recurrent network that is drawn once and never trained."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import draw_blocks
from jaxrnn.cells.gated import CarryH, Gated, GatedParams
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate, Initializer, Normal


class ReservoirGates(NamedTuple):
    """What one step of a `Reservoir` computes on its way: where it leaks to, in (−1, 1)."""

    candidate: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Reservoir(Gated):
    """Jaeger 2001, GMD report 148: the echo state network, leaky as in Jaeger et al. 2007.

        n   = tanh(W x_t + b + U h_{t-1} + b_h)
        h_t = (1 − α) h_{t-1} + α n

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,). `params` holds W, U
    and b, one block each, and none is trained: their gradients are exactly zero. Keep weight decay
    away from them, and put a `jaxrnn.Readout` behind the reservoir. A learned carry is learned.
    α is the γ of the paper of 2007, whose other leak, a, is 1 here: (1 − a γ) h_{t-1} + γ n.

    leak: α, above 0 and at most 1.
    spectral_radius: what `init` scales U to, unless its radius is 0, as in a net without loops.
    density: the fraction of entries of U that are not 0.
    """

    _: dataclasses.KW_ONLY
    leak: float = 1.0
    spectral_radius: float = 0.9
    density: float = 0.1
    recurrent_initializer: Initializer | tuple[Initializer, ...] = Normal()

    gates_of_x = (Gate("candidate"),)

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("leak", "density"):
            if not 0 < getattr(self, field) <= 1:
                raise ValueError(
                    f"Reservoir: {field} must be above 0 and at most 1, got {getattr(self, field)}"
                )
        if self.spectral_radius < 0:
            raise ValueError(
                f"Reservoir: spectral_radius must be at least 0, got {self.spectral_radius!r}"
            )

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> GatedParams:
        """Draws the reservoir."""
        k_blocks, k_sparse = jax.random.split(key)
        W_x, W_h, b, b_h = draw_blocks(self, self.gates_of_x, k_blocks, dtype)
        kept = jax.random.bernoulli(k_sparse, self.density, W_h.shape)
        W_h = scaled(jnp.where(kept, W_h, 0), self.spectral_radius)
        return GatedParams(W_x, W_h, b, b_h, self.learned(dtype))

    def stages(self, params: GatedParams) -> tuple[Dense, tuple[Dense]]:
        """The dense maps of x and of h, through which no gradient reaches params."""
        W_x, W_h, b, b_h = jax.lax.stop_gradient(params[:4])
        return Dense(W_x, b), (Dense(W_h, b_h),)

    def gate_values(
        self, carry: CarryH, from_x: tuple[Array, ...], *of_carry: Map
    ) -> ReservoirGates:
        """The candidate."""
        (of_h,) = of_carry
        (a,) = of_h(carry.h, plus=from_x)
        return ReservoirGates(jnp.tanh(a))

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], *of_carry: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        (n,) = self.gate_values(carry, from_x, *of_carry)
        h = (1 - self.leak) * carry.h + self.leak * n
        return CarryH(h), h


def scaled(blocks: Float[Array, "gates H H"], radius: float) -> Float[Array, "gates H H"]:
    """Each block times what makes its spectral radius `radius`; one with radius 0 as it is."""
    wide = blocks.astype(jnp.float64 if blocks.dtype == jnp.float64 else jnp.float32)
    found = jnp.abs(jnp.linalg.eigvals(wide)).max(axis=-1)[:, None, None]
    factor = jnp.where(found > 0, radius / jnp.where(found > 0, found, 1), 1)
    return (factor * wide).astype(blocks.dtype)
