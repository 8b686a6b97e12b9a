"""The selective state space of Mamba."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.affine import (
    AffineElement,
    Diagonal,
    at_least_float32,
    check_range,
    inverse_softplus,
    log_uniform,
)
from jaxrnn.cells.blocks import check_at_least, check_dtype
from jaxrnn.initializers import FanIn, Gate


class SelectiveSSMParams(NamedTuple):
    """Parameters of a `SelectiveSSM`."""

    W_down: Float[Array, "R I"]
    W_up: Float[Array, "I R"]
    b_delta: Float[Array, " I"]
    W_B: Float[Array, "N I"]
    W_C: Float[Array, "N I"]
    log_A: Float[Array, "I N"]
    D: Float[Array, " I"]


class SelectiveSSMCarry(NamedTuple):
    """What the next step of a `SelectiveSSM` needs: one row for every channel."""

    h: Float[Array, "I N"]


class SelectiveSSMGates(NamedTuple):
    """What one step of a `SelectiveSSM` selects by: Δ > 0 for every channel, B and C for all."""

    delta: Float[Array, " I"]
    B: Float[Array, " N"]
    C: Float[Array, " N"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class SelectiveSSM(Diagonal):
    """Gu and Dao 2023 (2312.00752), Mamba's S6: a state space whose Δ, B and C depend on x.

        Δ   = softplus(W_up W_down x_t + b_delta)
        B   = W_B x_t
        C   = W_C x_t
        A   = −exp(log_A)
        h_t = exp(Δ A) ⊙ h_{t-1} + (Δ ⊙ x_t) Bᵀ        Δ for each row
        y_t = h_t C + D ⊙ x_t

    x_t and y_t have shape (input_size,); h_t has (input_size, state_size). The block around it
    (projections, convolution, gate) is not part of it. The paper's equation holds x for the time
    Δ, which would give (exp(Δ A) − 1) / A in the place of Δ before B; its code takes Δ, as here.

    state_size: N of the paper.
    rank: of the map of x to Δ; the published models take a sixteenth of their width, rounded up,
        which is input_size / 32, as their blocks are twice as wide inside.
    delta_min, delta_max: softplus(b_delta) begins log-uniform between them.
    """

    input_size: int
    state_size: int = 16
    rank: int = 1
    _: dataclasses.KW_ONLY
    delta_min: float = 1e-3
    delta_max: float = 1e-1

    jacobian = "diagonal"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "input_size", "state_size", "rank")
        check_range(self, "delta_min", "delta_max")

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.input_size

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> SelectiveSSMParams:
        """Draws fresh parameters; A begins as −1 … −N in every channel, D as one."""
        check_dtype(dtype)
        I, N, R = self.input_size, self.state_size, self.rank
        k_down, k_up, k_delta, k_B, k_C = jax.random.split(key, 5)

        def uniform(key: Array, rows: int, columns: int) -> Array:
            return FanIn()(key, (Gate("map"),), (rows, columns), dtype)[0]

        log_delta = log_uniform(
            k_delta, (I,), self.delta_min, self.delta_max, at_least_float32(dtype)
        )
        b_delta = inverse_softplus(jnp.exp(log_delta)).astype(dtype)
        log_A = jnp.broadcast_to(jnp.log(jnp.arange(1, N + 1, dtype=dtype)), (I, N))
        return SelectiveSSMParams(
            W_down=uniform(k_down, R, I),
            W_up=uniform(k_up, I, R),
            b_delta=b_delta,
            W_B=uniform(k_B, N, I),
            W_C=uniform(k_C, N, I),
            log_A=log_A,
            D=jnp.ones(I, dtype),
        )

    def initial_carry(self, params: SelectiveSSMParams) -> SelectiveSSMCarry:
        """Zeros."""
        return SelectiveSSMCarry(jnp.zeros_like(params.log_A))

    def gates(
        self, params: SelectiveSSMParams, carry: SelectiveSSMCarry | None, x: Float[Array, " I"]
    ) -> SelectiveSSMGates:
        """Δ, B and C of one step."""
        delta = jax.nn.softplus(params.W_up @ (params.W_down @ x) + params.b_delta)
        return SelectiveSSMGates(delta, params.W_B @ x, params.W_C @ x)

    def element(self, params: SelectiveSSMParams, x: Float[Array, " I"]) -> AffineElement:
        """What is kept, and what enters."""
        delta, B, _ = self.gates(params, None, x)
        kept = jnp.exp(-delta[:, None] * jnp.exp(params.log_A))
        return AffineElement(kept, jnp.outer(delta * x, B))

    def output(
        self, params: SelectiveSSMParams, carry: SelectiveSSMCarry, x: Float[Array, " I"]
    ) -> Float[Array, " I"]:
        """h_t C + D ⊙ x_t."""
        return carry.h @ (params.W_C @ x) + params.D * x
