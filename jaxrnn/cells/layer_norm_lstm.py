"""The LSTM with layer normalisation."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import draw_blocks
from jaxrnn.cells.gated import Gated
from jaxrnn.cells.lstm import LSTMCarry, LSTMGates
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate


class LayerNormLSTMParams(NamedTuple):
    """Parameters of a `LayerNormLSTM`, gates in the order input, forget, candidate, output."""

    W_x: Float[Array, "4 H I"]
    W_h: Float[Array, "4 H H"]
    b: Float[Array, "4 H"] | None
    b_h: Float[Array, "4 H"] | None
    initial: LSTMCarry | None
    gain_x: Float[Array, "4 H"]
    gain_h: Float[Array, "4 H"]
    gain_c: Float[Array, " H"]
    b_c: Float[Array, " H"] | None


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class LayerNormLSTM(Gated):
    """Ba, Kiros and Hinton 2016 (1607.06450): the LSTM with layer normalisation.

        LN(a)        = (a − mean a) / √(mean (a − mean a)² + ε)
        (i, f, g, o) = α_x ⊙ LN(W x_t) + b + α_h ⊙ LN(U h_{t-1}) + b_h      all gates in one LN
        c_t          = σ(f) ⊙ c_{t-1} + σ(i) ⊙ tanh(g)
        h_t          = σ(o) ⊙ tanh(α_c ⊙ LN(c_t) + b_c)

    x_t has shape (input_size,); h_t, which is also the output, and c_t have (hidden_size,).
    `params.W_x` stacks the W, `params.W_h` the U, in the order i, f, g, o. The gains α are
    `params.gain_x`, `gain_h` and `gain_c`, which start at one; b_c starts at zero.

    As in the paper, mean and variance are those of the 4 H numbers of all gates together; some
    libraries take them gate by gate, or of the sum W x_t + U h_{t-1}. What the paper writes as
    three biases of the gates, b and one of each LN, is b, and b_h with biases=2: only their sum
    matters. The c that is handed on is not normalised.

    epsilon: ε, which the paper does not have, above 0.
    biases: 0 for none, 1 for b and b_c, 2 for b, b_h and b_c.
    """

    epsilon: float = 1e-5

    gates_of_x = (
        Gate("input", writes=+1),
        Gate("forget", keeps=+1),
        Gate("candidate"),
        Gate("output"),
    )
    params_type = LayerNormLSTMParams
    carry_type = LSTMCarry

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.epsilon > 0:
            # a carry of zeros has no variance
            raise ValueError(f"LayerNormLSTM: epsilon must be above 0, got {self.epsilon!r}")

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> LayerNormLSTMParams:
        """Draws fresh parameters."""
        blocks = draw_blocks(self, self.gates_of_x, key, dtype)
        H = self.hidden_size
        gains = jnp.ones((4, H), dtype), jnp.ones((4, H), dtype), jnp.ones(H, dtype)
        b_c = jnp.zeros(H, dtype) if self.biases > 0 else None
        return LayerNormLSTMParams(*blocks, self.learned(dtype), *gains, b_c)

    def stages(self, params: LayerNormLSTMParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x, with gains and biases, which come after the norms, and of h."""
        biases = tuple(b for b in (params.b, params.b_h) if b is not None)
        of_gates = (row for rows in (params.gain_x, params.gain_h, *biases) for row in rows)
        of_c = (params.gain_c,) if params.b_c is None else (params.gain_c, params.b_c)
        return Dense(params.W_x, None, (*of_gates, *of_c)), (Dense(params.W_h),)

    def gate_values(self, carry: LSTMCarry, from_x: tuple[Array, ...], of_h: Map) -> LSTMGates:
        """The values of the three gates and the candidate."""
        x, gain_x, gain_h, *biases = (
            jnp.stack(from_x[4 * k : 4 * k + 4]) for k in range(3 + self.biases)
        )
        a = gain_x * self.norm(x) + gain_h * self.norm(jnp.stack(of_h(carry.h)))
        i, f, g, o = sum(biases, a)
        return LSTMGates(jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o))

    def elementwise(
        self, carry: LSTMCarry, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[LSTMCarry, Float[Array, " H"]]:
        """The step between the dense maps."""
        i, f, g, o = self.gate_values(carry, from_x, of_h)
        gain_c, *b_c = from_x[4 * (3 + self.biases) :]
        c = f * carry.c + i * g
        h = o * jnp.tanh(sum(b_c, gain_c * self.norm(c)))
        return LSTMCarry(h, c), h

    def norm(self, a: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """LN: mean 0 and variance 1 over all numbers of a."""
        a = a - jnp.mean(a)
        return a * jax.lax.rsqrt(jnp.mean(a * a) + self.epsilon)
