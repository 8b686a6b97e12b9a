"""The state space of S5: one for all channels."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float

from jaxrnn.cells.affine import (
    AffineElement,
    Diagonal,
    as_complex,
    at_least_float32,
    check_range,
    complex_zeros,
    discretize,
    log_uniform,
)
from jaxrnn.cells.blocks import check_at_least, check_choice, check_divides, check_dtype


class S5Params(NamedTuple):
    """Parameters of an `S5`: real arrays, of which pairs stand for complex ones."""

    lambda_real: Float[Array, " half"]
    lambda_imag: Float[Array, " half"]
    log_delta: Float[Array, " half"]
    B_real: Float[Array, "half I"]
    B_imag: Float[Array, "half I"]
    C_real: Float[Array, "I half"]
    C_imag: Float[Array, "I half"]
    D: Float[Array, " I"]


class S5Carry(NamedTuple):
    """What the next step of an `S5` needs."""

    h: Complex[Array, " half"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class S5(Diagonal):
    """Smith, Warrington and Linderman 2023 (2208.04933): one diagonal state space for all channels.

        Λ   = lambda_real + i lambda_imag              nothing keeps its real part negative
        h_t = Λ̄ ⊙ h_{t-1} + B̄ x_t                     Λ̄, B̄ from Λ, B and Δ = exp(log_delta)
        y_t = 2 Re(C h_t) + D ⊙ x_t

    x_t and y_t have shape (input_size,); h_t, complex, (state_size / 2,): each entry stands for
    itself and its conjugate.

    state_size: P of the paper, even.
    blocks: J of the paper: Λ begins as that of J copies of HiPPO-N, the normal part of
        HiPPO-LegS, each of size P / J.
    discretization: "zero-order hold" or "bilinear".
    delta_min, delta_max: Δ begins log-uniform between them, one for every entry of h.
    """

    input_size: int
    state_size: int
    _: dataclasses.KW_ONLY
    blocks: int = 1
    discretization: str = "zero-order hold"
    delta_min: float = 1e-3
    delta_max: float = 1e-1

    def __post_init__(self) -> None:
        check_at_least(self, 1, "input_size", "state_size")
        check_divides(self, "blocks", "state_size")
        if self.state_size // self.blocks % 2:
            raise ValueError(
                f"S5: state_size / blocks must be even, got {self.state_size} / {self.blocks}"
            )
        check_choice(self, "discretization", ("zero-order hold", "bilinear"))
        check_range(self, "delta_min", "delta_max")

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.input_size

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> S5Params:
        """Λ = eig(HiPPO-N) = V⁻¹ A V; B = V⁻¹ B', C = C' V with real B' and C' of LeCun's scale.

        The published code draws B' of variance 1 / P, not 1 / I, and C' complex.
        """
        check_dtype(dtype)
        I, P, J = self.input_size, self.state_size, self.blocks
        k_delta, k_B, k_C, k_D = jax.random.split(key, 4)
        wide = at_least_float32(dtype)
        frequencies, V = hippo_normal(P // J)
        frequencies, V = jnp.tile(jnp.asarray(frequencies), J), np.kron(np.eye(J), V)
        real, imag = jnp.asarray(V.real, wide), jnp.asarray(V.imag, wide)
        B = jax.random.normal(k_B, (P, I), wide) / I**0.5
        C = jax.random.normal(k_C, (I, P), wide) / P**0.5
        return S5Params(
            lambda_real=jnp.full(P // 2, -0.5, dtype),
            lambda_imag=frequencies.astype(dtype),
            log_delta=log_uniform(k_delta, (P // 2,), self.delta_min, self.delta_max, dtype),
            # V is unitary: its inverse is its conjugate transpose
            B_real=(real.T @ B).astype(dtype),
            B_imag=(-imag.T @ B).astype(dtype),
            C_real=(C @ real).astype(dtype),
            C_imag=(C @ imag).astype(dtype),
            D=jax.random.normal(k_D, (I,), wide).astype(dtype),
        )

    def initial_carry(self, params: S5Params) -> S5Carry:
        """Zeros."""
        return S5Carry(complex_zeros((self.state_size // 2,), params.lambda_imag.dtype))

    def element(self, params: S5Params, x: Float[Array, " I"]) -> AffineElement:
        """Λ̄, and what enters."""
        A = as_complex(params.lambda_real, params.lambda_imag)
        a, b = discretize(A, jnp.exp(params.log_delta), self.discretization)
        return AffineElement(a, b * as_complex(params.B_real @ x, params.B_imag @ x))

    def output(self, params: S5Params, carry: S5Carry, x: Float[Array, " I"]) -> Float[Array, " I"]:
        """2 Re(C h_t) + D ⊙ x_t."""
        y = 2 * (as_complex(params.C_real, params.C_imag) @ carry.h).real
        return y.astype(x.dtype) + params.D * x


def hippo_normal(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The eigenvalues −1/2 + i ω of HiPPO-N with ω > 0: their ω, and their eigenvectors V."""
    root = np.sqrt(2 * np.arange(size) + 1)
    # HiPPO-N is −1/2 plus what is antisymmetric: −½ √(2n+1) √(2k+1) below the diagonal
    below = np.tril(-0.5 * np.outer(root, root), -1)
    frequencies, V = np.linalg.eigh(-1j * (below - below.T))
    return frequencies[size // 2 :], V[:, size // 2 :]
