"""The real-gated linear recurrent unit of Griffin."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.affine import AffineElement, Diagonal, at_least_float32, check_range
from jaxrnn.cells.blocks import check_at_least, check_divides, check_dtype
from jaxrnn.cells.gated import CarryH
from jaxrnn.initializers import FanIn, Gate, Initializer, draw_gates


class RGLRUParams(NamedTuple):
    """Parameters of an `RGLRU`, gates in the order recurrence, input."""

    W_x: Float[Array, "2 blocks D D"]
    b: Float[Array, "2 H"]
    Lambda: Float[Array, " H"]


class RGLRUGates(NamedTuple):
    """Values of one step: r and i in (0, 1), and a = σ(Λ)^(c r), what is kept."""

    recurrence: Float[Array, " H"]
    input: Float[Array, " H"]
    kept: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class RGLRU(Diagonal):
    """De et al. 2024 (2402.19427), Griffin: a diagonal linear recurrence with gates that read x.

        r, i = σ(W x_t + b)                            one W, b for each gate
        a    = σ(Λ)^(c r)
        h_t  = a ⊙ h_{t-1} + √(1 − a²) ⊙ (i ⊙ x_t)

    x_t and h_t, which is also the output, have shape (input_size,).
    The published code writes Λ with the other sign, begins with σ(Λ) itself, not σ(Λ)^c, between
    `least` and `most`, and leaves √(1 − a²) out at the first step of a sequence; this cell follows
    the paper.

    blocks: W is block-diagonal with so many blocks; 1, the default, for a dense one.
    c: how much faster r can make it forget.
    least, most: σ(Λ)^c begins uniform between them.
    input_initializer: for the blocks of W; b begins at zero.
    """

    input_size: int
    _: dataclasses.KW_ONLY
    blocks: int = 1
    c: float = 8.0
    least: float = 0.9
    most: float = 0.999
    input_initializer: Initializer = FanIn()

    jacobian = "diagonal"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "input_size")
        check_divides(self, "blocks", "input_size")
        check_range(self, "least", "most", highest=1)
        if not self.c > 0:
            raise ValueError(f"RGLRU: c must be positive, got {self.c!r}")

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.input_size

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> RGLRUParams:
        """Draws fresh parameters."""
        check_dtype(dtype)
        H, size = self.input_size, self.input_size // self.blocks
        k_W, k_Lambda = jax.random.split(key)
        # blocks are drawn as gates are, each as if it were alone
        gates = (Gate("recurrence", keeps=-1),) * self.blocks
        gates += (Gate("input", writes=+1),) * self.blocks
        W = draw_gates(self.input_initializer, k_W, gates, (size, size), dtype)
        wide = at_least_float32(dtype)
        a = jax.random.uniform(k_Lambda, (H,), wide, self.least, self.most) ** (1 / self.c)
        Lambda = (jnp.log(a) - jnp.log1p(-a)).astype(dtype)
        return RGLRUParams(W.reshape(2, self.blocks, size, size), jnp.zeros((2, H), dtype), Lambda)

    def initial_carry(self, params: RGLRUParams) -> CarryH:
        """Zeros."""
        return CarryH(jnp.zeros_like(params.Lambda))

    def _log_kept(
        self, params: RGLRUParams, x: Float[Array, " H"]
    ) -> tuple[Float[Array, " H"], Float[Array, " H"], Float[Array, " H"]]:
        parts = x.reshape(self.blocks, -1, 1)
        r, i = jax.nn.sigmoid((params.W_x @ parts).reshape(2, -1) + params.b)
        return r, i, self.c * r * jax.nn.log_sigmoid(params.Lambda)

    def gates(self, params: RGLRUParams, carry: CarryH | None, x: Float[Array, " H"]) -> RGLRUGates:
        """The values of the gates in one step."""
        r, i, log_a = self._log_kept(params, x)
        return RGLRUGates(r, i, jnp.exp(log_a))

    def element(self, params: RGLRUParams, x: Float[Array, " H"]) -> AffineElement:
        """What is kept, and what enters."""
        _, i, log_a = self._log_kept(params, x)
        # 1 − a² without cancellation, and kept off 0, where the root has no derivative
        rest = jnp.maximum(-jnp.expm1(2 * log_a), jnp.finfo(log_a.dtype).tiny)
        return AffineElement(jnp.exp(log_a), jnp.sqrt(rest) * (i * x))
