"""The simple recurrent network of Elman 1990, "Finding structure in time"."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import draw_blocks
from jaxrnn.cells.gated import Gated
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate


def identity(a: Array) -> Array:
    """φ(a) = a: the linear recurrent network."""
    return a


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "identity": identity,
    "logistic": jax.nn.sigmoid,
}


class ElmanParams(NamedTuple):
    """Parameters of an `Elman`; a field the cell does without is None."""

    W_x: Float[Array, "H I"]
    W_h: Float[Array, "H H"]
    b: Float[Array, " H"] | None
    b_h: Float[Array, " H"] | None
    initial: "ElmanCarry | None"


class ElmanCarry(NamedTuple):
    """What the next step of an `Elman` needs: its output h."""

    h: Float[Array, " H"]


class ElmanGates(NamedTuple):
    """What one step of an `Elman` computes on its way: a, before φ."""

    pre_activation: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Elman(Gated):
    """Elman 1990, Cognitive Science 14: the plain recurrent network.

        a_t = W_x x_t + b + W_h h_{t-1} + b_h
        h_t = φ(a_t)

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).

    activation: φ, "tanh", "relu", "identity", "logistic", or a function defined in a module.
    biases: 0 for none, 1 for b, 2 for b and b_h (PyTorch's `nn.RNN`).
    learned_carry: whether h_0 is a parameter, `params.initial`, which starts at zero.

    Equal to: PyTorch `nn.RNN` with biases=2; Keras `SimpleRNN`, Flax `SimpleCell`; Haiku
    `VanillaRNN` with "relu".
    """

    activation: str | Callable[[Array], Array] = "tanh"

    gates_of_x = (Gate("candidate"),)
    carry_type = ElmanCarry

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.activation) and self.activation not in ACTIVATIONS:
            names = ", ".join(map(repr, ACTIVATIONS))
            raise ValueError(
                f"Elman: activation must be one of {names} or a function, got {self.activation!r}"
            )

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> ElmanParams:
        """Draws fresh parameters."""
        blocks = draw_blocks(self, self.gates_of_x, key, dtype)
        W_x, W_h, b, b_h = jax.tree.map(lambda a: a[0], tuple(blocks))
        return ElmanParams(W_x, W_h, b, b_h, self.learned(dtype))

    def stages(self, params: ElmanParams) -> tuple[Dense, tuple[Dense]]:
        """The dense maps of x and of h: one gate each."""
        W_x, W_h, b, b_h = jax.tree.map(lambda a: a[None], params[:4])
        return Dense(W_x, b), (Dense(W_h, b_h),)

    def gate_values(self, carry: ElmanCarry, from_x: tuple[Array, ...], of_h: Map) -> ElmanGates:
        """The pre-activation a_t."""
        return ElmanGates(*of_h(carry.h, plus=from_x))

    def elementwise(
        self, carry: ElmanCarry, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[ElmanCarry, Float[Array, " H"]]:
        """The step between the dense maps."""
        phi = self.activation if callable(self.activation) else ACTIVATIONS[self.activation]
        h = phi(self.gate_values(carry, from_x, of_h).pre_activation)
        return ElmanCarry(h), h
