"""The LSTM that hands on a projection of its output."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import draw_blocks
from jaxrnn.cells.gated import Gated
from jaxrnn.cells.lstm import LSTMGates
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import FanIn, Gate, Initializer, draw_gates


class ProjectionLSTMCarry(NamedTuple):
    """What the next step of a `ProjectionLSTM` needs: its output h, of size P, and c."""

    h: Float[Array, " P"]
    c: Float[Array, " H"]


class ProjectionLSTMParams(NamedTuple):
    """Parameters of a `ProjectionLSTM`, gates in the order input, forget, candidate, output."""

    W_x: Float[Array, "4 H I"]
    W_h: Float[Array, "4 H P"]
    b: Float[Array, "4 H"] | None
    b_h: Float[Array, "4 H"] | None
    initial: ProjectionLSTMCarry | None
    W_r: Float[Array, "P H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ProjectionLSTM(Gated):
    """Sak, Senior and Beaufays 2014 (1402.1128): an LSTM with a recurrent projection.

        i, f, o = σ(W x_t + b + U h_{t-1} + b_h)      one W, U, b, b_h for each gate
        g       = tanh(W x_t + b + U h_{t-1} + b_h)
        c_t     = f ⊙ c_{t-1} + i ⊙ g
        h_t     = W_r (o ⊙ tanh(c_t))

    x_t has shape (input_size,), c_t (hidden_size,), and h_t, which is also the output,
    (projection_size,). `params.W_x` stacks the W, `params.W_h` the U, in the order i, f, g, o.
    The paper's peepholes and its second projection, which is not fed back, are left out.

    projection_size: features of h and of the output; any number of at least 1.
    projection_initializer: for W_r.

    Equal to: PyTorch `nn.LSTM` with `proj_size`, with biases=2.
    """

    projection_size: int
    _: dataclasses.KW_ONLY
    projection_initializer: Initializer = FanIn()

    gates_of_x = (
        Gate("input", writes=+1),
        Gate("forget", keeps=+1),
        Gate("candidate"),
        Gate("output"),
    )
    params_type = ProjectionLSTMParams
    carry_type = ProjectionLSTMCarry

    def __post_init__(self) -> None:
        super().__post_init__()
        size = self.projection_size
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(
                f"ProjectionLSTM: projection_size must be an int of at least 1, got {size!r}"
            )

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.projection_size

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> ProjectionLSTMParams:
        """Draws fresh parameters."""
        k_blocks, k_h, k_r = jax.random.split(key, 3)
        H, P, gates = self.hidden_size, self.projection_size, self.gates_of_x
        blocks = draw_blocks(self, gates, k_blocks, dtype)
        W_h = draw_gates(self.recurrent_initializer, k_h, gates, (H, P), dtype)
        (W_r,) = self.projection_initializer(k_r, (Gate("projection"),), (P, H), dtype)
        return ProjectionLSTMParams(*blocks._replace(W_h=W_h), self.learned(dtype), W_r)

    def zero_carry(self, dtype: DTypeLike) -> ProjectionLSTMCarry:
        """A carry of zeros, P in h and H in c."""
        zeros = jnp.zeros(self.projection_size, dtype), jnp.zeros(self.hidden_size, dtype)
        return ProjectionLSTMCarry(*zeros)

    def stages(self, params: ProjectionLSTMParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x, of h and of o ⊙ tanh(c_t)."""
        of_carry = Dense(params.W_h, params.b_h), Dense(params.W_r[None])
        return Dense(params.W_x, params.b), of_carry

    def gate_values(
        self, carry: ProjectionLSTMCarry, from_x: tuple[Array, ...], of_h: Map, *_: Map
    ) -> LSTMGates:
        """The values of the three gates and the candidate."""
        i, f, g, o = of_h(carry.h, plus=from_x)
        return LSTMGates(jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o))

    def elementwise(
        self, carry: ProjectionLSTMCarry, from_x: tuple[Array, ...], of_h: Map, project: Map
    ) -> tuple[ProjectionLSTMCarry, Float[Array, " P"]]:
        """The step between the dense maps."""
        i, f, g, o = self.gate_values(carry, from_x, of_h)
        c = f * carry.c + i * g
        (h,) = project(o * jnp.tanh(c))
        return ProjectionLSTMCarry(h, c), h
