"""Oscillators that do not see each other, as one layer of a deep network."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_one_bias, draw_input
from jaxrnn.cells.cornn import OscillatorCarry
from jaxrnn.cells.gated import Gated
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Between, FanIn, Gate, Initializer, Zeros, draw_gates


class UnICORNNParams(NamedTuple):
    """Parameters of a `UnICORNN`: what it reads x with, its weight on itself, its time scale."""

    W_x: Float[Array, "H I"]
    w: Float[Array, " H"]
    b: Float[Array, " H"] | None
    c: Float[Array, " H"]
    initial: OscillatorCarry | None


class UnICORNNGates(NamedTuple):
    """What one step computes on its way: the step of each unit, in (0, Δt), and the force on it."""

    step: Float[Array, " H"]
    force: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class UnICORNN(Gated):
    """Rusch and Mishra 2021 (2103.05487): undamped oscillators, each with a time scale of its own.

        s   = Δt σ(c)
        n   = tanh(w ⊙ y_{t-1} + W x_t + b)
        z_t = z_{t-1} − s ⊙ (n + α y_{t-1})
        y_t = y_{t-1} + s ⊙ z_t

    A symplectic step of y'' = −σ(c)² (tanh(w ⊙ y + W x + b) + α y). x_t has shape (input_size,);
    y_t, which is also the output, and z_t have (hidden_size,). This is one layer, without the skip
    connections that the paper has in deep networks: units meet only in the W of the next layer.

    dt: Δt.
    alpha: α, the strength of the spring; at least 0.
    biases: 0 for none, 1 for b.
    recurrent_initializer: for w, by default U(0, 1).
    scale_initializer: for c, by default U(−0.1, 0.1).
    """

    _: dataclasses.KW_ONLY
    dt: float = 0.1
    alpha: float = 1.0
    input_initializer: Initializer | tuple[Initializer, ...] = FanIn()
    recurrent_initializer: Initializer | tuple[Initializer, ...] = Between(0.0, 1.0)
    scale_initializer: Initializer | tuple[Initializer, ...] = Between(-0.1, 0.1)
    bias_initializer: Initializer | tuple[Initializer, ...] = Zeros()

    gates_of_x = (Gate("force"),)
    carry_type = OscillatorCarry

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_bias(self)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> UnICORNNParams:
        """Draws fresh parameters."""
        k_x, k_w, k_c = jax.random.split(key, 3)
        H = (self.hidden_size,)
        W_x, b = draw_input(self, k_x, dtype)
        (w,) = draw_gates(self.recurrent_initializer, k_w, (Gate("self"),), H, dtype)
        (c,) = draw_gates(self.scale_initializer, k_c, (Gate("scale"),), H, dtype)
        return UnICORNNParams(W_x, w, b, c, self.learned(dtype))

    def stages(self, params: UnICORNNParams) -> tuple[Dense, tuple[()]]:
        """The dense map of x; there is none of the carry."""
        W_x, b = jax.tree.map(lambda a: a[None], (params.W_x, params.b))
        return Dense(W_x, b, (params.w, self.dt * jax.nn.sigmoid(params.c))), ()

    def gate_values(
        self, carry: OscillatorCarry, from_x: tuple[Array, ...], *of_carry: Map
    ) -> UnICORNNGates:
        """The steps s and the force n."""
        a, w, s = from_x
        return UnICORNNGates(s, jnp.tanh(w * carry.y + a))

    def elementwise(
        self, carry: OscillatorCarry, from_x: tuple[Array, ...], *of_carry: Map
    ) -> tuple[OscillatorCarry, Float[Array, " H"]]:
        """The step after the dense map."""
        s, n = self.gate_values(carry, from_x)
        y, z = carry
        z = z - s * (n + self.alpha * y)
        y = y + s * z
        return OscillatorCarry(y, z), y
