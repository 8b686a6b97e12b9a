"""A cell to copy: rename it, write its equations, and every method and analysis works on it.

    h_t = (1 − z) ⊙ h_{t-1} + z ⊙ tanh(W_n x_t + U_n h_{t-1} + b_n)
    z   = σ(W_z x_t + U_z h_{t-1} + b_z)

x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

import jaxrnn
from jaxrnn.dense import Dense


class SkeletonParams(NamedTuple):
    """What is learned; gates in the order z, n."""

    W: jax.Array  # (2, H, I)
    U: jax.Array  # (2, H, H)
    b: jax.Array  # (2, H)


class SkeletonCarry(NamedTuple):
    """What the next step needs."""

    h: jax.Array  # (H,)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Skeleton:
    """Static choices only: numbers, strings, functions. Arrays belong into params."""

    input_size: int
    hidden_size: int

    @property
    def output_size(self) -> int:
        """For the networks around it."""
        return self.hidden_size

    def init(self, key, dtype=jnp.float32):
        """Draws fresh parameters."""
        k_x, k_h = jax.random.split(key)
        I, H = self.input_size, self.hidden_size
        bound = H**-0.5
        return SkeletonParams(
            W=jax.random.uniform(k_x, (2, H, I), dtype, -bound, bound),
            U=jax.random.uniform(k_h, (2, H, H), dtype, -bound, bound),
            b=jnp.zeros((2, H), dtype),
        )

    def initial_carry(self, params):
        """What the first step starts from, and each new episode."""
        return SkeletonCarry(jnp.zeros(self.hidden_size, params.b.dtype))

    # Optional, for speed: the dense maps of x and of the carry, and the work between them. A cell
    # that is not made like that writes `step` itself and leaves these two away.

    def stages(self, params):
        """One map of x and one of h, both gates at once."""
        return Dense(params.W, params.b), (Dense(params.U),)

    def elementwise(self, carry, from_x, of_h):
        """The step between them; of_h is called once."""
        a_z, a_n = of_h(carry.h, plus=from_x)
        z, n = jax.nn.sigmoid(a_z), jnp.tanh(a_n)
        h = (1 - z) * carry.h + z * n
        return SkeletonCarry(h), h

    def step(self, params, carry, x):
        """One step for one example: (carry, y)."""
        return jaxrnn.cell.staged_step(self, params, carry, x)
