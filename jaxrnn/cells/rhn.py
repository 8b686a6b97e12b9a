"""The recurrent highway network: several layers between one step and the next."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_at_least, check_dtype, check_one_bias
from jaxrnn.cells.gated import CarryH, Gated
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate, Gates, draw_gates


class RHNParams(NamedTuple):
    """Parameters of an `RHN`, gates in the order candidate, transform, carry; layers from below."""

    W_x: Float[Array, "gates H I"]
    W_h: Float[Array, "depth gates H H"]
    b: Float[Array, "depth gates H"] | None
    initial: CarryH | None


class RHNGates(NamedTuple):
    """Gate values of one step, layer by layer: t and c in (0, 1), the candidate in (−1, 1)."""

    candidate: Float[Array, "*depth H"]
    transform: Float[Array, "*depth H"]
    carry: Float[Array, "*depth H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class RHN(Gated):
    """Zilly et al. 2016 (1607.03474): the recurrent highway network.

        s_0  = h_{t-1}
        n    = tanh([W x_t if l = 1] + U s_{l-1} + b)     for each layer l = 1 … depth
        t, c = σ([W x_t if l = 1] + U s_{l-1} + b)        one U, b for each gate and layer
        s_l  = n ⊙ t + s_{l-1} ⊙ c                        c = 1 − t if coupled
        h_t  = s_depth

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W in the order n, t, c; `params.W_h` and `params.b` do so within each
    layer.

    depth: layers in one step; the paper's best language models have 10.
    coupled: whether c is 1 − t, as in the paper's experiments, and so has no params of its own.
    biases: 0 for none, 1 for b. The paper starts the b of t at −2 to −4: ForgetBias(2.0).
    recurrent_initializer, bias_initializer: for one layer after the other.
    """

    depth: int = 2
    coupled: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_bias(self)
        check_at_least(self, 1, "depth")

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> RHNParams:
        """Draws fresh parameters."""
        check_dtype(dtype)
        k_x, k_h, k_b = jax.random.split(key, 3)
        H, gates = self.hidden_size, self._gates()
        W_x = draw_gates(self.input_initializer, k_x, gates, (H, self.input_size), dtype)
        W_h = [
            draw_gates(self.recurrent_initializer, k, gates, (H, H), dtype)
            for k in jax.random.split(k_h, self.depth)
        ]
        b = [
            draw_gates(self.bias_initializer, k, gates, (H,), dtype)
            for k in jax.random.split(k_b, self.depth)
        ]
        b = jnp.stack(b) if self.biases else None
        return RHNParams(W_x, jnp.stack(W_h), b, self.learned(dtype))

    def stages(self, params: RHNParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x and of what enters each layer."""
        b = (None,) * self.depth if params.b is None else params.b
        return Dense(params.W_x), tuple(map(Dense, params.W_h, b))

    def gates(self, params: RHNParams, carry: CarryH, x: Float[Array, " I"]) -> RHNGates:
        """The values of candidate and gates, layer by layer."""
        of_x, of_carry = self.stages(params)
        layers, _ = self._climb(carry, of_x(x), of_carry)
        return RHNGates(*(jnp.stack(gate) for gate in zip(*layers, strict=True)))

    def gate_values(
        self, carry: CarryH, from_x: tuple[Array, ...] | None, of_carry: Map
    ) -> RHNGates:
        """The values of candidate and gates in one layer, whose s_{l-1} is `carry.h`."""
        n, t, *c = of_carry(carry.h, plus=from_x)
        t = jax.nn.sigmoid(t)
        return RHNGates(jnp.tanh(n), t, jax.nn.sigmoid(c[0]) if c else 1 - t)

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], *of_carry: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        _, h = self._climb(carry, from_x, of_carry)
        return CarryH(h), h

    def _climb(
        self, carry: CarryH, from_x: tuple[Array, ...], of_carry: tuple[Map, ...]
    ) -> tuple[list[RHNGates], Array]:
        """The gates of every layer, and what leaves the last."""
        layers, s = [], carry.h
        for of_s in of_carry:
            n, t, c = self.gate_values(CarryH(s), None if layers else from_x, of_s)
            layers.append(RHNGates(n, t, c))
            s = n * t + s * c
        return layers, s

    def _gates(self) -> Gates:
        if self.coupled:
            return Gate("candidate"), Gate("transform", keeps=-1)
        return Gate("candidate"), Gate("transform", writes=+1), Gate("carry", keeps=+1)
