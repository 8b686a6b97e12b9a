"""Long short-term memory, in the form with a forget gate that everyone uses."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrnn.cells.gated import Gated
from jaxrnn.dense import Map
from jaxrnn.initializers import Gate


class LSTMParams(NamedTuple):
    """Parameters of an `LSTM`, gates in the order input, forget, candidate, output."""

    W_x: Float[Array, "4 H I"]
    W_h: Float[Array, "4 H H"]
    b: Float[Array, "4 H"] | None
    b_h: Float[Array, "4 H"] | None
    initial: "LSTMCarry | None"


class LSTMCarry(NamedTuple):
    """What the next step of an `LSTM` needs: its output h and its cell state c."""

    h: Float[Array, " H"]
    c: Float[Array, " H"]


class LSTMGates(NamedTuple):
    """Gate values of one step: i, f and o in (0, 1), the candidate in (−1, 1)."""

    input: Float[Array, " H"]
    forget: Float[Array, " H"]
    candidate: Float[Array, " H"]
    output: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class LSTM(Gated):
    """Hochreiter and Schmidhuber 1997, with the forget gate of Gers, Schmidhuber and Cummins 2000.

        i, f, o = σ(W x_t + b + U h_{t-1} + b_h)      one W, U, b, b_h for each gate
        g       = tanh(W x_t + b + U h_{t-1} + b_h)
        c_t     = f ⊙ c_{t-1} + i ⊙ g
        h_t     = o ⊙ tanh(c_t)

    x_t has shape (input_size,); h_t, which is also the output, and c_t have (hidden_size,).
    `params.W_x` stacks the W, `params.W_h` the U, in the order i, f, g, o, which is PyTorch's.

    biases: 0 for none, 1 for b, 2 for b and b_h (PyTorch's `nn.LSTM`).
    learned_carry: whether h_0 and c_0 are parameters, `params.initial`, which start at zero.

    Equal to: PyTorch `nn.LSTM` with biases=2; Keras `LSTM`, Flax `LSTMCell`, Equinox `LSTMCell`;
    Haiku `LSTM`, which adds 1 to b of f at each step.
    """

    gates_of_x = (
        Gate("input", writes=+1),
        Gate("forget", keeps=+1),
        Gate("candidate"),
        Gate("output"),
    )
    params_type = LSTMParams
    carry_type = LSTMCarry

    def gate_values(self, carry: LSTMCarry, from_x: tuple[Array, ...], of_h: Map) -> LSTMGates:
        """The values of the three gates and the candidate."""
        i, f, g, o = of_h(carry.h, plus=from_x)
        return LSTMGates(jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o))

    def elementwise(
        self, carry: LSTMCarry, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[LSTMCarry, Float[Array, " H"]]:
        """The step between the dense maps."""
        i, f, g, o = self.gate_values(carry, from_x, of_h)
        c = f * carry.c + i * g
        h = o * jnp.tanh(c)
        return LSTMCarry(h, c), h
