"""A recurrent network that is a linear part and a Lipschitz one, each with controlled spectrum."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_one_bias
from jaxrnn.cells.gated import CarryH, Gated, GatedParams
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate, Initializer, Normal


class LipschitzGates(NamedTuple):
    """What one step of a `Lipschitz` computes on its way: both parts of the change of h."""

    linear: Float[Array, " H"]
    candidate: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Lipschitz(Gated):
    """Erichson, Azencot, Queiruga, Hodgkinson and Mahoney 2021 (2006.12070): the Lipschitz RNN.

        S(M) = (1 − β) (M + Mᵀ) + β (M − Mᵀ) − γ I
        n    = tanh(S(U) h_{t-1} + W x_t + b)
        h_t  = h_{t-1} + ε (S(M) h_{t-1} + n)

    A forward Euler step of h' = S(M) h + tanh(S(U) h + W x + b). x_t has shape (input_size,); h_t,
    which is also the output, (hidden_size,). `params.W_h` stacks M and U.

    epsilon: ε, the step size.
    beta: β from 0 to 1: from symmetric matrices to antisymmetric ones. One number, or one for M and
        one for U.
    gamma: γ, what is taken off the real part of all eigenvalues; one number or two.
    biases: 0 for none, 1 for b.
    """

    _: dataclasses.KW_ONLY
    epsilon: float = 0.03
    beta: float | tuple[float, float] = 0.75
    gamma: float | tuple[float, float] = 0.001
    recurrent_initializer: Initializer | tuple[Initializer, ...] = Normal(0.1)

    gates_of_x = (Gate("candidate"),)
    gates_of_carry = (Gate("linear"), Gate("candidate"))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_bias(self)
        for beta in pair(self.beta):
            if not 0 <= beta <= 1:
                raise ValueError(f"Lipschitz: beta must be from 0 to 1, got {self.beta!r}")

    def stages(self, params: GatedParams) -> tuple[Dense, tuple[Dense]]:
        """The dense maps of x and of h, the latter for both parts at once."""
        both = zip(params.W_h, pair(self.beta), pair(self.gamma), strict=True)
        W_h = jnp.stack([spectrum(*one) for one in both])
        return Dense(params.W_x, params.b), (Dense(W_h),)

    def gate_values(
        self, carry: CarryH, from_x: tuple[Array, ...], *of_carry: Map
    ) -> LipschitzGates:
        """The linear part and the candidate."""
        (of_h,) = of_carry
        linear, a = of_h(carry.h, plus=(None, *from_x))
        return LipschitzGates(linear, jnp.tanh(a))

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], *of_carry: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        linear, n = self.gate_values(carry, from_x, *of_carry)
        h = carry.h + self.epsilon * (linear + n)
        return CarryH(h), h


def spectrum(M: Float[Array, "H H"], beta: float, gamma: float) -> Float[Array, "H H"]:
    """S(M): between symmetric and antisymmetric, and moved to the left by γ."""
    eye = jnp.eye(len(M), dtype=M.dtype)
    return (1 - beta) * (M + M.T) + beta * (M - M.T) - gamma * eye


def pair(number: float | tuple[float, float]) -> tuple[float, float]:
    """One number for both matrices, or one for each."""
    return number if isinstance(number, tuple) else (number, number)
