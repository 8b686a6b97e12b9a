"""A gated recurrent unit that also hears what it was some steps ago."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.gated import Gated, GatedParams, two_maps
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate


class TauGRUCarry(NamedTuple):
    """What the next step of a `TauGRU` needs: its output h and earlier ones, oldest first."""

    h: Float[Array, " H"]
    past: Float[Array, "delay H"]


class TauGRUGates(NamedTuple):
    """Gate values of one step: both candidates in (−1, 1), g and a in (0, 1)."""

    candidate: Float[Array, " H"]
    update: Float[Array, " H"]
    feedback: Float[Array, " H"]
    delayed: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class TauGRU(Gated):
    """Erichson, Lim and Mahoney 2022 (2212.00228): a GRU with weighted time-delay feedback.

        n    = tanh(W x_t + b + U h_{t-1} + b_h)      one W, U, b, b_h for each of the four
        g, a = σ(W x_t + b + U h_{t-1} + b_h)
        m    = tanh(W x_t + b + U h_{t-1-d} + b_h)
        h_t  = (1 − g) ⊙ h_{t-1} + g ⊙ (n + a ⊙ m)

    A step of the delay equation h' = n + a ⊙ m − h, of size g. x_t has shape (input_size,); h_t,
    which is also the output, (hidden_size,). `params.W_x` stacks the W, `params.W_h` the U, in the
    order n, g, a, m. In code of the authors a and m also read x_{t-d}; this is their paper.

    delay: d, at least 1; h is zero before the first step unless the carry is learned.
    """

    delay: int = 1

    gates_of_x = (
        Gate("candidate"),
        Gate("update", keeps=-1),
        Gate("feedback"),
        Gate("delayed"),
    )
    carry_type = TauGRUCarry

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.delay) is not int or self.delay < 1:
            raise ValueError(f"TauGRU: delay must be an int of at least 1, got {self.delay!r}")

    def zero_carry(self, dtype: DTypeLike) -> TauGRUCarry:
        """A carry of zeros."""
        h = jnp.zeros(self.hidden_size, dtype)
        return TauGRUCarry(h, jnp.zeros((self.delay, self.hidden_size), dtype))

    def stages(self, params: GatedParams) -> tuple[Dense, tuple[Dense, Dense]]:
        """The dense maps of x, of h and of h long ago."""
        return Dense(params.W_x, params.b), two_maps(params.W_h, params.b_h, first=3)

    def gate_values(
        self, carry: TauGRUCarry, from_x: tuple[Array, ...], *of_carry: Map
    ) -> TauGRUGates:
        """The values of the two gates and the two candidates."""
        of_h, of_past = of_carry
        n, g, a = of_h(carry.h, plus=from_x[:3])
        (m,) = of_past(carry.past[0], plus=from_x[3:])
        return TauGRUGates(jnp.tanh(n), jax.nn.sigmoid(g), jax.nn.sigmoid(a), jnp.tanh(m))

    def elementwise(
        self, carry: TauGRUCarry, from_x: tuple[Array, ...], *of_carry: Map
    ) -> tuple[TauGRUCarry, Float[Array, " H"]]:
        """The step between the dense maps."""
        n, g, a, m = self.gate_values(carry, from_x, *of_carry)
        h = (1 - g) * carry.h + g * (n + a * m)
        past = jnp.concatenate([carry.past[1:], carry.h[None]])
        return TauGRUCarry(h, past), h
