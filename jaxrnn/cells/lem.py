"""Long expressive memory: two coupled equations whose time scales are gates."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrnn.cells.gated import Gated, GatedParams, two_maps
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate


class LEMCarry(NamedTuple):
    """What the next step of a `LEM` needs: its output y and what drives it, z."""

    y: Float[Array, " H"]
    z: Float[Array, " H"]


class LEMGates(NamedTuple):
    """Gate values of one step: how far y and z go, in (0, Δt), and where to, in (−1, 1)."""

    step_y: Float[Array, " H"]
    step_z: Float[Array, " H"]
    candidate_z: Float[Array, " H"]
    candidate_y: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class LEM(Gated):
    """Rusch, Mishra, Erichson and Mahoney 2022 (2110.04744): long expressive memory.

        s_y = Δt σ(W x_t + b + U y_{t-1} + b_h)       one W, U, b, b_h for each of the four
        s_z = Δt σ(W x_t + b + U y_{t-1} + b_h)
        z_t = (1 − s_z) ⊙ z_{t-1} + s_z ⊙ tanh(W x_t + b + U y_{t-1} + b_h)
        y_t = (1 − s_y) ⊙ y_{t-1} + s_y ⊙ tanh(W x_t + b + U z_t + b_h)

    x_t has shape (input_size,); y_t, which is also the output, and z_t have (hidden_size,).
    `params.W_x` stacks the W, `params.W_h` the U, in the order s_y, s_z, z, y; the last U is the
    one that reads z_t.

    dt: Δt, at most 1.
    """

    _: dataclasses.KW_ONLY
    dt: float = 1.0

    gates_of_x = (
        Gate("step_y", keeps=-1),
        Gate("step_z", keeps=-1),
        Gate("candidate_z"),
        Gate("candidate_y"),
    )
    carry_type = LEMCarry

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.dt <= 1:
            raise ValueError(f"LEM: dt must be above 0 and at most 1, got {self.dt!r}")

    def stages(self, params: GatedParams) -> tuple[Dense, tuple[Dense, Dense]]:
        """The dense maps of x, of y_{t-1} and of z_t."""
        return Dense(params.W_x, params.b), two_maps(params.W_h, params.b_h, first=3)

    def gate_values(self, carry: LEMCarry, from_x: tuple[Array, ...], *of_carry: Map) -> LEMGates:
        """The values of both time steps and both candidates."""
        of_y, of_z = of_carry
        *of_three, x_y = from_x
        a_y, a_z, n_z = of_y(carry.y, plus=tuple(of_three))
        s_y, s_z = self.dt * jax.nn.sigmoid(a_y), self.dt * jax.nn.sigmoid(a_z)
        n_z = jnp.tanh(n_z)
        (n_y,) = of_z(towards(carry.z, s_z, n_z), plus=(x_y,))
        return LEMGates(s_y, s_z, n_z, jnp.tanh(n_y))

    def elementwise(
        self, carry: LEMCarry, from_x: tuple[Array, ...], *of_carry: Map
    ) -> tuple[LEMCarry, Float[Array, " H"]]:
        """The step between the dense maps."""
        s_y, s_z, n_z, n_y = self.gate_values(carry, from_x, *of_carry)
        y = towards(carry.y, s_y, n_y)
        return LEMCarry(y, towards(carry.z, s_z, n_z)), y


def towards(old: Array, step: Array, new: Array) -> Array:
    """The part `step` of the way from `old` to `new`."""
    return (1 - step) * old + step * new
