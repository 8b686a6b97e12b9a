"""The scalar memory of xLSTM."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import (
    check_choice,
    check_divides,
    check_dtype,
    check_one_bias,
    check_sizes,
)
from jaxrnn.dense import Dense
from jaxrnn.initializers import ForgetBias, Gate, Initializer, Uniform, Zeros, draw_gates


class SLSTMParams(NamedTuple):
    """Parameters of an `SLSTM`, gates in the order input, forget, candidate, output."""

    W_x: Float[Array, "4 H I"]
    W_h: Float[Array, "4 heads D D"]
    b: Float[Array, "4 H"] | None


class SLSTMCarry(NamedTuple):
    """What the next step of an `SLSTM` needs: output h, cell c, normaliser n, stabiliser m.

    c and n are those of the equations divided by exp(m).
    """

    h: Float[Array, " H"]
    c: Float[Array, " H"]
    n: Float[Array, " H"]
    m: Float[Array, " H"]


class SLSTMGates(NamedTuple):
    """Values of one step: i and f as applied, at most 1; the candidate in (−1, 1), o in (0, 1)."""

    input: Float[Array, " H"]
    forget: Float[Array, " H"]
    candidate: Float[Array, " H"]
    output: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class SLSTM:
    """Beck et al. 2024 (2405.04517), sLSTM: an LSTM with exponential gates and a normaliser.

        i   = exp(W x_t + U h_{t-1} + b)               one W, U, b for each gate
        f   = σ(W x_t + U h_{t-1} + b)                 forget="logistic", the default
        f   = exp(W x_t + U h_{t-1} + b)               forget="exponential"
        z   = tanh(W x_t + U h_{t-1} + b)
        o   = σ(W x_t + U h_{t-1} + b)
        c_t = f ⊙ c_{t-1} + i ⊙ z
        n_t = f ⊙ n_{t-1} + i
        h_t = o ⊙ c_t / n_t

    computed without overflow as c / exp(m) and n / exp(m), where m_t = max(ln f + m_{t-1}, ln i).
    x_t has shape (input_size,); h_t, which is also the output, c_t, n_t and m_t (hidden_size,).
    `params.W_x` stacks the W, `params.W_h` the U, in the order i, f, z, o. The block around it
    (convolution, norm, projections) is not part of it. The paper does not say where m begins: here
    close to −∞, so that the first step is n = 1 whatever i is.

    heads: U is block-diagonal with so many blocks: no head reads the h of another.
    biases: 0 for none, 1 for b.
    input_initializer, recurrent_initializer, bias_initializer: for W, for each block of U, for b;
        one for all gates, or a tuple.
    """

    input_size: int
    hidden_size: int
    heads: int = 1
    forget: str = "logistic"
    _: dataclasses.KW_ONLY
    biases: int = 1
    input_initializer: Initializer | tuple[Initializer, ...] = Uniform()
    recurrent_initializer: Initializer | tuple[Initializer, ...] = Uniform()
    bias_initializer: Initializer | tuple[Initializer, ...] = ForgetBias(3.0, Zeros())

    def __post_init__(self) -> None:
        check_sizes(self)
        check_one_bias(self)
        check_divides(self, "heads", "hidden_size")
        check_choice(self, "forget", ("logistic", "exponential"))

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.hidden_size

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> SLSTMParams:
        """Draws fresh parameters."""
        check_dtype(dtype)
        H, D = self.hidden_size, self.hidden_size // self.heads
        k_x, k_h, k_b = jax.random.split(key, 3)
        gates = (
            Gate("input", writes=+1),
            Gate("forget", keeps=+1),
            Gate("candidate"),
            Gate("output"),
        )
        W_x = draw_gates(self.input_initializer, k_x, gates, (H, self.input_size), dtype)
        blocks = [
            draw_gates(self.recurrent_initializer, k, gates, (D, D), dtype)
            for k in jax.random.split(k_h, self.heads)
        ]
        b = draw_gates(self.bias_initializer, k_b, gates, (H,), dtype) if self.biases else None
        return SLSTMParams(W_x, jnp.stack(blocks, axis=1), b)

    def initial_carry(self, params: SLSTMParams) -> SLSTMCarry:
        """Zeros, and for m what is as good as −∞ without its NaN."""
        zeros = jnp.zeros(self.hidden_size, params.W_x.dtype)
        return SLSTMCarry(zeros, zeros, zeros, jnp.full_like(zeros, jnp.finfo(zeros.dtype).min / 2))

    def gate_values(
        self, params: SLSTMParams, carry: SLSTMCarry, x: Float[Array, " I"]
    ) -> SLSTMGates:
        """The values of the gates as the equations have them, of i and f their logarithms."""
        of_h = (params.W_h @ carry.h.reshape(self.heads, -1, 1)).reshape(4, -1)
        log_i, f, z, o = Dense(params.W_x, params.b)(x, plus=tuple(of_h))
        log_f = jax.nn.log_sigmoid(f) if self.forget == "logistic" else f
        return SLSTMGates(log_i, log_f, jnp.tanh(z), jax.nn.sigmoid(o))

    def gates(self, params: SLSTMParams, carry: SLSTMCarry, x: Float[Array, " I"]) -> SLSTMGates:
        """The values of the gates in one step, those of i and f as they are applied."""
        return _stabilized(self.gate_values(params, carry, x), carry)[0]

    def step(
        self, params: SLSTMParams, carry: SLSTMCarry, x: Float[Array, " I"]
    ) -> tuple[SLSTMCarry, Float[Array, " H"]]:
        """One step for one example."""
        (i, f, z, o), m = _stabilized(self.gate_values(params, carry, x), carry)
        c = f * carry.c + i * z
        n = f * carry.n + i
        h = o * c / n
        return SLSTMCarry(h, c, n, m), h


def _stabilized(gates: SLSTMGates, carry: SLSTMCarry) -> tuple[SLSTMGates, Float[Array, " H"]]:
    """i and f as they are applied in place of their logarithms, and the new m."""
    log_i, log_f = gates.input, gates.forget
    m = jnp.maximum(log_f + carry.m, log_i)
    i, f = jnp.exp(log_i - m), jnp.exp(log_f + carry.m - m)
    return gates._replace(input=i, forget=f), m
