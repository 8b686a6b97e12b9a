"""Coupled oscillators as a recurrent network."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_choice
from jaxrnn.cells.gated import Gated, GatedParams, two_maps
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate


class OscillatorCarry(NamedTuple):
    """What the next step of oscillators needs: where they are, y, and how fast they move, z."""

    y: Float[Array, " H"]
    z: Float[Array, " H"]


class CoRNNGates(NamedTuple):
    """What one step of a `CoRNN` computes on its way: the force on each oscillator, in (−1, 1)."""

    force: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class CoRNN(Gated):
    """Rusch and Mishra 2021 (2010.00951): coupled, damped and driven oscillators.

        n   = tanh(W x_t + b + U y_{t-1} + 𝒰 z_{t-1} + b_h)       b_h: one for U, one for 𝒰
        z_t = z_{t-1} + Δt (n − γ y_{t-1} − ε z_{t-1})            damping="explicit", the default
        z_t = z_{t-1} + Δt (n − γ y_{t-1} − ε z_t)                damping="implicit"
        y_t = y_{t-1} + Δt z_t

    A step of y'' = tanh(W x + b + U y + 𝒰 y') − γ y − ε y'. x_t has shape (input_size,); y_t, which
    is also the output, and z_t have (hidden_size,). `params.W_h` stacks U and 𝒰. The paper has both
    forms of damping; the explicit one is that of its authors' code.

    dt: Δt, above 0 and at most 1.
    gamma, epsilon: γ, which sets the frequency, and ε, the damping; both above 0.
    """

    damping: str = "explicit"
    _: dataclasses.KW_ONLY
    dt: float = 0.05
    gamma: float = 1.0
    epsilon: float = 1.0

    gates_of_x = (Gate("force"),)
    gates_of_carry = (Gate("position"), Gate("velocity"))
    carry_type = OscillatorCarry

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "damping", ("explicit", "implicit"))
        if not 0 < self.dt <= 1:
            raise ValueError(f"CoRNN: dt must be above 0 and at most 1, got {self.dt!r}")

    def stages(self, params: GatedParams) -> tuple[Dense, tuple[Dense, Dense]]:
        """The dense maps of x, of y and of z."""
        return Dense(params.W_x, params.b), two_maps(params.W_h, params.b_h, first=1)

    def gate_values(
        self, carry: OscillatorCarry, from_x: tuple[Array, ...], *of_carry: Map
    ) -> CoRNNGates:
        """The force n."""
        of_y, of_z = of_carry
        (from_y,) = of_y(carry.y)
        (from_z,) = of_z(carry.z, plus=from_x)
        return CoRNNGates(jnp.tanh(from_y + from_z))

    def elementwise(
        self, carry: OscillatorCarry, from_x: tuple[Array, ...], *of_carry: Map
    ) -> tuple[OscillatorCarry, Float[Array, " H"]]:
        """The step between the dense maps."""
        (n,) = self.gate_values(carry, from_x, *of_carry)
        y, z = carry
        damped = self.dt * self.epsilon
        z_free = z + self.dt * (n - self.gamma * y)
        z = z_free - damped * z if self.damping == "explicit" else z_free / (1 + damped)
        y = y + self.dt * z
        return OscillatorCarry(y, z), y
