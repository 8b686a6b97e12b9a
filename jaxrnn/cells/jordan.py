"""Jordan's network: what comes back at the next step is the output."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cell import staged_step
from jaxrnn.cells.blocks import (
    check_at_least,
    check_choice,
    check_dtype,
    check_one_bias,
    check_sizes,
)
from jaxrnn.cells.elman import ACTIVATIONS
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate, Initializer, Uniform, draw_gates


class JordanParams(NamedTuple):
    """Parameters of a `Jordan`; a field the cell does without is None."""

    W_x: Float[Array, "H I"]
    U: Float[Array, "H O"]
    W_y: Float[Array, "O H"]
    b: Float[Array, " H"] | None
    b_y: Float[Array, " O"] | None
    initial: "JordanCarry | None"


class JordanCarry(NamedTuple):
    """What the next step of a `Jordan` needs: its output y."""

    y: Float[Array, " O"]


class JordanGates(NamedTuple):
    """What one step of a `Jordan` computes on its way: its hidden units h."""

    hidden: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Jordan:
    """Jordan 1986 (ICS report 8604; reprinted 1997): the network whose output is fed back.

        h_t = φ(W_x x_t + U y_{t-1} + b)
        y_t = φ_o(W_y h_t + b_y)

    x_t has shape (input_size,), h_t (hidden_size,), the output y_t (output_size,). Jordan's state
    units also kept a decaying trace of themselves; as in most of what bears his name since, they
    do not here.

    activation, output_activation: φ and φ_o, "tanh", "relu", "identity", "logistic", or a
        function defined in a module.
    biases: 0 for none, 1 for b and b_y.
    learned_carry: whether y_0 is a parameter, `params.initial`, which starts at zero.
    input_initializer: for W_x. recurrent_initializer: for U and W_y. bias_initializer: for b, b_y.
    """

    input_size: int
    hidden_size: int
    output_size: int
    activation: str | Callable[[Array], Array] = "tanh"
    output_activation: str | Callable[[Array], Array] = "identity"
    _: dataclasses.KW_ONLY
    biases: int = 1
    learned_carry: bool = False
    input_initializer: Initializer = Uniform()
    recurrent_initializer: Initializer = Uniform()
    bias_initializer: Initializer = Uniform()

    def __post_init__(self) -> None:
        check_sizes(self)
        check_one_bias(self)
        check_at_least(self, 1, "output_size")
        for field in ("activation", "output_activation"):
            if not callable(getattr(self, field)):
                check_choice(self, field, tuple(ACTIVATIONS))

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> JordanParams:
        """Draws fresh parameters."""
        check_dtype(dtype)
        I, H, O = self.input_size, self.hidden_size, self.output_size
        keys = jax.random.split(key, 5)

        def draw(k: int, initializer: Initializer, *shape: int) -> Array:
            return draw_gates(initializer, keys[k], (Gate("candidate"),), shape, dtype)[0]

        return JordanParams(
            W_x=draw(0, self.input_initializer, H, I),
            U=draw(1, self.recurrent_initializer, H, O),
            W_y=draw(2, self.recurrent_initializer, O, H),
            b=draw(3, self.bias_initializer, H) if self.biases else None,
            b_y=draw(4, self.bias_initializer, O) if self.biases else None,
            initial=JordanCarry(jnp.zeros(O, dtype)) if self.learned_carry else None,
        )

    def initial_carry(self, params: JordanParams) -> JordanCarry:
        """Zeros, or `params.initial` if the carry is learned."""
        if params.initial is not None:
            return params.initial
        return JordanCarry(jnp.zeros(self.output_size, params.U.dtype))

    def stages(self, params: JordanParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x, of y_{t-1}, and of h_t: one gate each."""
        W_x, U, W_y, b, b_y = jax.tree.map(lambda a: a[None], params[:5])
        return Dense(W_x, b), (Dense(U), Dense(W_y, b_y))

    def gate_values(self, carry: JordanCarry, from_x: tuple[Array, ...], of_y: Map) -> JordanGates:
        """The hidden units h_t."""
        (a,) = of_y(carry.y, plus=from_x)
        return JordanGates(_function(self.activation)(a))

    def elementwise(
        self, carry: JordanCarry, from_x: tuple[Array, ...], of_y: Map, of_h: Map
    ) -> tuple[JordanCarry, Float[Array, " O"]]:
        """The step between the dense maps."""
        (y,) = of_h(self.gate_values(carry, from_x, of_y).hidden)
        y = _function(self.output_activation)(y)
        return JordanCarry(y), y

    def step(
        self, params: JordanParams, carry: JordanCarry, x: Float[Array, " I"]
    ) -> tuple[JordanCarry, Float[Array, " O"]]:
        """One step for one example."""
        return staged_step(self, params, carry, x)

    def gates(self, params: JordanParams, carry: JordanCarry, x: Float[Array, " I"]) -> JordanGates:
        """The hidden units of one step."""
        of_x, (of_y, _) = self.stages(params)
        return self.gate_values(carry, of_x(x), of_y)


def _function(activation: str | Callable[[Array], Array]) -> Callable[[Array], Array]:
    return activation if callable(activation) else ACTIVATIONS[activation]
