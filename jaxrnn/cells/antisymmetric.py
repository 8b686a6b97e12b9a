"""Residual recurrent networks with an antisymmetric matrix, plain and gated."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrnn.cells.gated import CarryH, Gated, GatedParams
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate, Initializer, Normal


class AntisymmetricGates(NamedTuple):
    """What one step of an `Antisymmetric` computes on its way: the candidate, in (−1, 1)."""

    candidate: Float[Array, " H"]


class GatedAntisymmetricGates(NamedTuple):
    """Gate values of one step: z in (0, 1), which says how far to go, and where, in (−1, 1)."""

    input: Float[Array, " H"]
    candidate: Float[Array, " H"]


@dataclasses.dataclass(frozen=True)
class Stable(Gated):
    """The common part: W_h − W_hᵀ − γ I in the place of W_h, and a step of size ε.

    epsilon: ε, the step size of the forward Euler method.
    gamma: γ, the diffusion that makes up for the instability of that method.
    """

    _: dataclasses.KW_ONLY
    epsilon: float = 0.01
    gamma: float = 0.01
    recurrent_initializer: Initializer | tuple[Initializer, ...] = Normal()

    gates_of_carry = (Gate("antisymmetric"),)

    def stages(self, params: GatedParams) -> tuple[Dense, tuple[Dense]]:
        """The dense maps of x and of h, the latter antisymmetric but for its diagonal."""
        (W,) = params.W_h
        W = W - W.T - self.gamma * jnp.eye(len(W), dtype=W.dtype)
        return Dense(params.W_x, params.b), (Dense(W[None], params.b_h),)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Antisymmetric(Stable):
    """Chang, Chen, Haber and Chi 2019 (1902.09689): the AntisymmetricRNN.

        n   = tanh((U − Uᵀ − γ I) h_{t-1} + b_h + W x_t + b)
        h_t = h_{t-1} + ε n

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,). `params.W_x` holds W
    and `params.W_h` U, one block each. The eigenvalues of U − Uᵀ are imaginary, so that the
    Jacobian of h' = tanh((U − Uᵀ) h + …) has none with a real part.

    epsilon: ε, the step size of the forward Euler method.
    gamma: γ, the diffusion that makes up for the instability of that method.
    """

    gates_of_x = (Gate("candidate"),)

    def gate_values(
        self, carry: CarryH, from_x: tuple[Array, ...], *of_carry: Map
    ) -> AntisymmetricGates:
        """The candidate."""
        (of_h,) = of_carry
        (a,) = of_h(carry.h, plus=from_x)
        return AntisymmetricGates(jnp.tanh(a))

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], *of_carry: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        (n,) = self.gate_values(carry, from_x, *of_carry)
        h = carry.h + self.epsilon * n
        return CarryH(h), h


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class GatedAntisymmetric(Stable):
    """Chang, Chen, Haber and Chi 2019 (1902.09689): the AntisymmetricRNN with an input gate.

        m   = (U − Uᵀ − γ I) h_{t-1} + b_h            one U and b_h for both
        z   = σ(m + W x_t + b)                        one W, b for each gate
        n   = tanh(m + W x_t + b)
        h_t = h_{t-1} + ε z ⊙ n

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W in the order z, n; `params.W_h` holds U, one block.

    epsilon, gamma: as for `Antisymmetric`.
    """

    gates_of_x = (Gate("input", writes=+1), Gate("candidate"))

    def gate_values(
        self, carry: CarryH, from_x: tuple[Array, ...], *of_carry: Map
    ) -> GatedAntisymmetricGates:
        """The value of the gate and the candidate."""
        (of_h,) = of_carry
        x_z, x_n = from_x
        (m,) = of_h(carry.h)
        return GatedAntisymmetricGates(jax.nn.sigmoid(m + x_z), jnp.tanh(m + x_n))

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], *of_carry: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        z, n = self.gate_values(carry, from_x, *of_carry)
        h = carry.h + self.epsilon * z * n
        return CarryH(h), h
