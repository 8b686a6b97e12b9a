"""The linear recurrent unit."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float

from jaxrnn.cells.affine import AffineElement, Diagonal, as_complex, at_least_float32, complex_zeros
from jaxrnn.cells.blocks import check_at_least, check_dtype
from jaxrnn.initializers import Gate, Normal


class LRUParams(NamedTuple):
    """Parameters of an `LRU`: real arrays, of which pairs stand for complex ones."""

    log_nu: Float[Array, " N"]
    log_theta: Float[Array, " N"]
    log_gamma: Float[Array, " N"]
    B_real: Float[Array, "N I"]
    B_imag: Float[Array, "N I"]
    C_real: Float[Array, "O N"]
    C_imag: Float[Array, "O N"]
    D: Float[Array, "O I"]


class LRUCarry(NamedTuple):
    """What the next step of an `LRU` needs."""

    h: Complex[Array, " N"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Ring:
    """Eigenvalues spread evenly over the ring r_min ≤ |λ| ≤ r_max, 0 ≤ arg λ ≤ max_phase."""

    r_min: float = 0.0
    r_max: float = 1.0
    max_phase: float = 2 * math.pi

    def __post_init__(self) -> None:
        if not 0 <= self.r_min < self.r_max <= 1 or not self.max_phase > 0:
            raise ValueError(
                "Ring: expected 0 <= r_min < r_max <= 1 and max_phase > 0, got "
                f"r_min={self.r_min!r}, r_max={self.r_max!r}, max_phase={self.max_phase!r}"
            )

    def __call__(self, key: Array, size: int, dtype: DTypeLike) -> tuple[Array, Array]:
        """Draws log ν and log θ, where λ = exp(−ν + i θ)."""
        # not from 0: its logarithm is −∞
        u_1, u_2 = jax.random.uniform(key, (2, size), dtype, minval=1e-6)
        square = u_1 * (self.r_max**2 - self.r_min**2) + self.r_min**2
        return jnp.log(-0.5 * jnp.log(square)), jnp.log(self.max_phase * u_2)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class LRU(Diagonal):
    """Orvieto et al. 2023 (2303.06349): a diagonal linear recurrence, complex and stable.

        λ   = exp(−exp(log ν) + i exp(log θ))
        h_t = λ ⊙ h_{t-1} + exp(log γ) ⊙ (B x_t)
        y_t = Re(C h_t) + D x_t

    x_t has shape (input_size,); h_t, complex, (hidden_size,); y_t (output_size,).
    D is a matrix, as in the equations of the paper; the code of its appendix takes a vector, for
    outputs as many as inputs. The block around it (norm, GLU, skip) is not part of it.

    ring: where λ begins; γ begins as √(1 − |λ|²), and is learned from there.
    """

    input_size: int
    hidden_size: int
    output_size: int
    _: dataclasses.KW_ONLY
    ring: Ring = Ring()

    def __post_init__(self) -> None:
        check_at_least(self, 1, "hidden_size", "output_size")
        check_at_least(self, 0, "input_size")

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> LRUParams:
        """Draws fresh parameters: B ~ N(0, 1/2I) and C ~ N(0, 1/N) in each part, D ~ N(0, 1/I)."""
        check_dtype(dtype)
        I, N, O = self.input_size, self.hidden_size, self.output_size
        k_ring, k_B, k_C, k_D = jax.random.split(key, 4)
        log_nu, log_theta = self.ring(k_ring, N, at_least_float32(dtype))
        # ½ ln(1 − |λ|²)
        log_gamma = 0.5 * jnp.log(-jnp.expm1(-2 * jnp.exp(log_nu)))
        diagonal = (a.astype(dtype) for a in (log_nu, log_theta, log_gamma))
        parts = (Gate("real"), Gate("imaginary"))
        B = Normal(0.5**0.5)(k_B, parts, (N, I), dtype)
        C = Normal()(k_C, parts, (O, N), dtype)
        D = Normal()(k_D, parts[:1], (O, I), dtype)
        return LRUParams(*diagonal, *B, *C, *D)

    def initial_carry(self, params: LRUParams) -> LRUCarry:
        """Zeros."""
        return LRUCarry(complex_zeros((self.hidden_size,), params.log_nu.dtype))

    def element(self, params: LRUParams, x: Float[Array, " I"]) -> AffineElement:
        """λ, and what enters."""
        gamma = jnp.exp(params.log_gamma)
        a = jnp.exp(as_complex(-jnp.exp(params.log_nu), jnp.exp(params.log_theta)))
        return AffineElement(
            a, as_complex(gamma * (params.B_real @ x), gamma * (params.B_imag @ x))
        )

    def output(
        self, params: LRUParams, carry: LRUCarry, x: Float[Array, " I"]
    ) -> Float[Array, " O"]:
        """Re(C h_t) + D x_t."""
        y = (as_complex(params.C_real, params.C_imag) @ carry.h).real
        return y.astype(x.dtype) + params.D @ x
