"""The structurally constrained network: fast units beside a slow context that only leaks."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_at_least, check_dtype, check_one_bias
from jaxrnn.cells.gated import Gated
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate, Initializer, draw_gates


class SCRNParams(NamedTuple):
    """Parameters of an `SCRN` by the paper's names; `beta` is None if α is fixed."""

    A: Float[Array, "H I"]
    B: Float[Array, "C I"]
    R: Float[Array, "H H"]
    P: Float[Array, "H C"]
    b: Float[Array, " H"] | None
    beta: Float[Array, " C"] | None
    initial: "SCRNCarry | None"


class SCRNCarry(NamedTuple):
    """What the next step of an `SCRN` needs: the fast units h and the context s."""

    h: Float[Array, " H"]
    s: Float[Array, " C"]


class SCRNGates(NamedTuple):
    """What one step of an `SCRN` computes on its way: the new context, and h before σ."""

    context: Float[Array, " C"]
    pre_activation: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class SCRN(Gated):
    """Mikolov et al. 2014 (1412.7753): the structurally constrained recurrent network.

        s_t = (1 − α) B x_t + α s_{t-1}
        h_t = σ(P s_t + A x_t + R h_{t-1} + b)
        y_t = (h_t, s_t)                              one behind the other

    x_t has shape (input_size,); h_t (hidden_size,), s_t (context_size,), y_t both together, so
    that a `Readout` is the paper's U h_t + V s_t. In the published code h_t reads s_{t-1}; this
    cell follows the equations.

    alpha: α, how slow the context is.
    learned_alpha: whether each unit of the context has its own α = σ(β), which starts at `alpha`.
    biases: 0 for none, as in the paper, 1 for b.
    """

    context_size: int
    alpha: float = 0.95
    learned_alpha: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_bias(self)
        check_at_least(self, 1, "context_size")
        if not 0 < self.alpha < 1:
            raise ValueError(f"SCRN: alpha must lie between 0 and 1, got {self.alpha!r}")

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.hidden_size + self.context_size

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> SCRNParams:
        """Draws fresh parameters."""
        check_dtype(dtype)
        I, H, C = self.input_size, self.hidden_size, self.context_size
        keys = jax.random.split(key, 5)

        def draw(k: int, initializer: Initializer | tuple[Initializer, ...], *shape: int) -> Array:
            return draw_gates(initializer, keys[k], (Gate("candidate"),), shape, dtype)[0]

        beta = math.log(self.alpha / (1 - self.alpha))
        return SCRNParams(
            A=draw(0, self.input_initializer, H, I),
            B=draw(1, self.input_initializer, C, I),
            R=draw(2, self.recurrent_initializer, H, H),
            P=draw(3, self.recurrent_initializer, H, C),
            b=draw(4, self.bias_initializer, H) if self.biases else None,
            beta=jnp.full(C, beta, dtype) if self.learned_alpha else None,
            initial=self.learned(dtype),
        )

    def zero_carry(self, dtype: DTypeLike) -> SCRNCarry:
        """A carry of zeros."""
        return SCRNCarry(jnp.zeros(self.hidden_size, dtype), jnp.zeros(self.context_size, dtype))

    def initial_carry(self, params: SCRNParams) -> SCRNCarry:
        """Zeros, or `params.initial` if the carry is learned."""
        return self.zero_carry(params.R.dtype) if params.initial is None else params.initial

    def stages(self, params: SCRNParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x, to (A x, B x), and of (h, s), as one gate each."""
        of_x = jnp.concatenate([params.A, params.B])[None]
        of_both = jnp.concatenate([params.R, params.P], axis=1)[None]
        b = None if params.b is None else params.b[None]
        beta = () if params.beta is None else (params.beta,)
        return Dense(of_x, None, beta), (Dense(of_both, b),)

    def gate_values(self, carry: SCRNCarry, from_x: tuple[Array, ...], of_both: Map) -> SCRNGates:
        """The new context and the pre-activation of h."""
        x, *beta = from_x
        H = self.hidden_size
        x_h, x_s = x[:H], x[H:]
        alpha = jax.nn.sigmoid(beta[0]) if beta else self.alpha
        s = (1 - alpha) * x_s + alpha * carry.s
        (a,) = of_both(jnp.concatenate([carry.h, s]), plus=(x_h,))
        return SCRNGates(s, a)

    def elementwise(
        self, carry: SCRNCarry, from_x: tuple[Array, ...], of_both: Map
    ) -> tuple[SCRNCarry, Float[Array, " both"]]:
        """The step between the dense maps."""
        s, a = self.gate_values(carry, from_x, of_both)
        h = jax.nn.sigmoid(a)
        return SCRNCarry(h, s), jnp.concatenate([h, s])
