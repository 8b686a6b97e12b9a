"""A recurrent network whose matrix is orthogonal, whatever its parameters are."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_choice, check_one_bias, draw_input
from jaxrnn.cells.elman import ACTIVATIONS
from jaxrnn.cells.gated import CarryH, Gated
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import FanIn, Gate, Initializer, Rotations, Zeros, draw_gates


class OrthogonalParams(NamedTuple):
    """Parameters of an `OrthogonalRNN`; `skew` holds A above its diagonal, row by row."""

    W_x: Float[Array, "H I"]
    skew: Float[Array, " entries"]
    b: Float[Array, " H"] | None
    initial: CarryH | None


class OrthogonalGates(NamedTuple):
    """What one step computes on its way: a, before φ."""

    pre_activation: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class OrthogonalRNN(Gated):
    """Lezcano-Casado and Martínez-Rubio 2019 (1901.08428): expRNN, with an orthogonal matrix.

        h_t = φ(exp(A − Aᵀ) h_{t-1} + W x_t)           A: zero on and below its diagonal

        φ(a) = sign(a) relu(|a| + b)                   activation="modrelu", the default
        φ(a) = tanh(a + b), …                          the other activations

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,). The exponential is
    taken once for a whole unroll.

    activation: φ, "modrelu", "tanh", "relu", "identity" or "logistic".
    biases: 0 for none, 1 for b.
    recurrent_initializer: draws A, of which what is above the diagonal is kept.
    """

    activation: str = "modrelu"
    _: dataclasses.KW_ONLY
    input_initializer: Initializer | tuple[Initializer, ...] = FanIn()
    recurrent_initializer: Initializer | tuple[Initializer, ...] = Rotations()
    bias_initializer: Initializer | tuple[Initializer, ...] = Zeros()

    gates_of_x = (Gate("candidate"),)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "activation", ("modrelu", *ACTIVATIONS))
        check_one_bias(self)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> OrthogonalParams:
        """Draws fresh parameters."""
        k_x, k_A = jax.random.split(key)
        W_x, b = draw_input(self, k_x, dtype)
        shape = (self.hidden_size, self.hidden_size)
        (A,) = draw_gates(self.recurrent_initializer, k_A, self.gates_of_x, shape, dtype)
        skew = A[np.triu_indices(self.hidden_size, 1)]
        return OrthogonalParams(W_x, skew, b, self.learned(dtype))

    def matrix(self, params: OrthogonalParams) -> Float[Array, "H H"]:
        """The orthogonal matrix exp(A − Aᵀ)."""
        wide = jnp.float64 if params.skew.dtype == jnp.float64 else jnp.float32
        above = np.triu_indices(self.hidden_size, 1)
        A = jnp.zeros((self.hidden_size,) * 2, wide).at[above].set(params.skew.astype(wide))
        return jax.scipy.linalg.expm(A - A.T).astype(params.skew.dtype)

    def stages(self, params: OrthogonalParams) -> tuple[Dense, tuple[Dense]]:
        """The dense maps of x and of h; b belongs to neither."""
        vectors = () if params.b is None else (params.b,)
        return Dense(params.W_x[None], None, vectors), (Dense(self.matrix(params)[None]),)

    def gate_values(
        self, carry: CarryH, from_x: tuple[Array, ...], *of_carry: Map
    ) -> OrthogonalGates:
        """The pre-activation."""
        (of_h,) = of_carry
        return OrthogonalGates(*of_h(carry.h, plus=from_x[:1]))

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], *of_carry: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        (a,) = self.gate_values(carry, from_x, *of_carry)
        b = from_x[1] if self.biases else jnp.zeros_like(a)
        h = modrelu(a, b) if self.activation == "modrelu" else ACTIVATIONS[self.activation](a + b)
        return CarryH(h), h


def modrelu(a: Float[Array, " H"], b: Float[Array, " H"]) -> Float[Array, " H"]:
    """sign(a) relu(|a| + b), but with slope 1 at a = 0, unless b shuts it there."""
    return jnp.where(jnp.abs(a) + b >= 0, a + b * jnp.sign(a), 0)
