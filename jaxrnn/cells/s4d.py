"""The diagonal state space of S4D: one for every channel."""

import dataclasses
import math
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
    check_range,
    complex_zeros,
    discretize,
    log_uniform,
)
from jaxrnn.cells.blocks import check_at_least, check_choice, check_dtype
from jaxrnn.initializers import Gate, Normal


class S4DParams(NamedTuple):
    """Parameters of an `S4D`: real arrays, of which pairs stand for complex ones."""

    log_A_real: Float[Array, "I half"]
    A_imag: Float[Array, "I half"]
    log_delta: Float[Array, " I"]
    C_real: Float[Array, "I half"]
    C_imag: Float[Array, "I half"]
    D: Float[Array, " I"]


class S4DCarry(NamedTuple):
    """What the next step of an `S4D` needs: one row for every channel."""

    h: Complex[Array, "I half"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class S4D(Diagonal):
    """Gu, Gupta, Goel and Ré 2022 (2206.11893): a diagonal state space for every channel of x.

        A   = −exp(log_A_real) + i A_imag
        h_t = Ā ⊙ h_{t-1} + B̄ ⊙ x_t                  Ā, B̄ from A, B = 1 and Δ = exp(log_delta)
        y_t = 2 Re(C h_t) + D ⊙ x_t                    row by row

    x_t and y_t have shape (input_size,); h_t, complex, (input_size, state_size / 2): each entry
    stands for itself and its conjugate. B and C enter y only as their product, so B stays 1.

    state_size: N of the paper, even.
    spectrum: how A begins, n = 0 … N/2 − 1: "linear", S4D-Lin, −1/2 + iπn; or "inverse", S4D-Inv,
        −1/2 + i N/π (N / (2n + 1) − 1).
    discretization: "zero-order hold" or "bilinear".
    delta_min, delta_max: Δ begins log-uniform between them, one for every channel.
    """

    input_size: int
    state_size: int
    _: dataclasses.KW_ONLY
    spectrum: str = "linear"
    discretization: str = "zero-order hold"
    delta_min: float = 1e-3
    delta_max: float = 1e-1

    def __post_init__(self) -> None:
        check_at_least(self, 1, "input_size")
        check_at_least(self, 2, "state_size")
        if self.state_size % 2:
            raise ValueError(f"S4D: state_size must be even, got {self.state_size}")
        check_choice(self, "spectrum", ("linear", "inverse"))
        check_choice(self, "discretization", ("zero-order hold", "bilinear"))
        check_range(self, "delta_min", "delta_max")

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.input_size

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> S4DParams:
        """Draws fresh parameters: A as `spectrum` says, C, complex, and D of variance 1."""
        check_dtype(dtype)
        I, N = self.input_size, self.state_size
        k_delta, k_C, k_D = jax.random.split(key, 3)
        n = np.arange(N // 2)
        imag = math.pi * n if self.spectrum == "linear" else N / math.pi * (N / (2 * n + 1) - 1)
        # Normal divides by the square root of the last size
        C = Normal((N / 4) ** 0.5)(k_C, (Gate("real"), Gate("imaginary")), (I, N // 2), dtype)
        return S4DParams(
            log_A_real=jnp.full((I, N // 2), math.log(0.5), dtype),
            A_imag=jnp.broadcast_to(jnp.asarray(imag, dtype), (I, N // 2)),
            log_delta=log_uniform(k_delta, (I,), self.delta_min, self.delta_max, dtype),
            C_real=C[0],
            C_imag=C[1],
            D=jax.random.normal(k_D, (I,), dtype),
        )

    def initial_carry(self, params: S4DParams) -> S4DCarry:
        """Zeros."""
        return S4DCarry(complex_zeros(params.A_imag.shape, params.A_imag.dtype))

    def element(self, params: S4DParams, x: Float[Array, " I"]) -> AffineElement:
        """Ā, and what enters."""
        A = as_complex(-jnp.exp(params.log_A_real), params.A_imag)
        a, b = discretize(A, jnp.exp(params.log_delta)[:, None], self.discretization)
        return AffineElement(a, b * x[:, None].astype(b.dtype))

    def output(
        self, params: S4DParams, carry: S4DCarry, x: Float[Array, " I"]
    ) -> Float[Array, " I"]:
        """2 Re(C h_t) + D ⊙ x_t."""
        y = 2 * (as_complex(params.C_real, params.C_imag) * carry.h).sum(axis=1).real
        return y.astype(x.dtype) + params.D * x
