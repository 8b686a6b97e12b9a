"""A recurrent layer whose units do not see each other."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_choice, check_one_bias, draw_input
from jaxrnn.cells.elman import ACTIVATIONS
from jaxrnn.cells.gated import CarryH, Gated
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Between, Gate, Initializer, draw_gates


class IndRNNParams(NamedTuple):
    """Parameters of an `IndRNN`; `u` holds the weight of each unit on itself."""

    W_x: Float[Array, "H I"]
    u: Float[Array, " H"]
    b: Float[Array, " H"] | None
    initial: CarryH | None


class IndRNNGates(NamedTuple):
    """What one step of an `IndRNN` computes on its way: a, before φ."""

    pre_activation: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class IndRNN(Gated):
    """Li, Li, Cook, Zhu and Gao 2018 (1803.04831): independently recurrent units.

        h_t = φ(W x_t + u ⊙ h_{t-1} + b)

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,). Units meet only in
    the W of the next layer, so stack several. The paper keeps |u| below 2^(1/T) for sequences of T
    steps by clipping it after each update, which is left to the training.

    activation: φ, "relu", "tanh", "identity", "logistic", or a function defined in a module.
    biases: 0 for none, 1 for b.
    recurrent_initializer: for u, by default U(0, 1).
    """

    activation: str | Callable[[Array], Array] = "relu"
    _: dataclasses.KW_ONLY
    recurrent_initializer: Initializer | tuple[Initializer, ...] = Between(0.0, 1.0)

    gates_of_x = (Gate("candidate"),)
    jacobian = "diagonal"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.activation):
            check_choice(self, "activation", tuple(ACTIVATIONS))
        check_one_bias(self)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> IndRNNParams:
        """Draws fresh parameters."""
        k_x, k_u = jax.random.split(key)
        W_x, b = draw_input(self, k_x, dtype)
        shape = (self.hidden_size,)
        (u,) = draw_gates(self.recurrent_initializer, k_u, self.gates_of_x, shape, dtype)
        return IndRNNParams(W_x, u, b, self.learned(dtype))

    def stages(self, params: IndRNNParams) -> tuple[Dense, tuple[()]]:
        """The dense map of x; there is none of the carry."""
        W_x, b = jax.tree.map(lambda a: a[None], (params.W_x, params.b))
        return Dense(W_x, b, (params.u,)), ()

    def gate_values(self, carry: CarryH, from_x: tuple[Array, ...], *of_carry: Map) -> IndRNNGates:
        """The pre-activation."""
        a, u = from_x
        return IndRNNGates(a + u * carry.h)

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], *of_carry: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step after the dense map."""
        phi = self.activation if callable(self.activation) else ACTIVATIONS[self.activation]
        h = phi(self.gate_values(carry, from_x).pre_activation)
        return CarryH(h), h
