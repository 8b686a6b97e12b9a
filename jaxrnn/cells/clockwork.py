"""The clockwork network: modules of one plain network that tick at periods of their own."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxrnn.cells.blocks import check_one_bias, check_sizes, draw_blocks
from jaxrnn.initializers import Gate, Initializer, Uniform


class ClockworkParams(NamedTuple):
    """Parameters of a `Clockwork`; below the diagonal, blocks of W_h are zero and stay unused."""

    W_x: Float[Array, "H I"]
    W_h: Float[Array, "H H"]
    b: Float[Array, " H"] | None
    initial: Float[Array, " H"] | None


class ClockworkCarry(NamedTuple):
    """What the next step of a `Clockwork` needs: its output h, and how many steps were taken."""

    h: Float[Array, " H"]
    steps: Int[Array, ""]


class ClockworkGates(NamedTuple):
    """Which units tick in one step, 1 or 0, and what they would then become, in (−1, 1)."""

    ticks: Float[Array, " H"]
    candidate: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Clockwork:
    """Koutník et al. 2014 (1402.3511): the clockwork recurrent network.

        h_t[i] = tanh(W_x[i] x_t + Σ_{j ≥ i} W_h[i, j] h_{t-1}[j] + b[i])     if t mod T_i = 0
        h_t[i] = h_{t-1}[i]                                                    else

    for each module i, whose period is T_i = periods[i]: a module reads those that are as slow as
    itself or slower. Steps count from t = 0, at which every module ticks. x_t has shape
    (input_size,); h_t, which is also the output, (hidden_size,), its modules of equal size one
    behind the other. Units that do not tick are computed all the same, and not used.

    periods: T, ascending.
    biases: 0 for none, 1 for b.
    learned_carry: whether h_0 is a parameter, `params.initial`, which starts at zero.
    input_initializer, recurrent_initializer, bias_initializer: for W_x, W_h and b.
    """

    input_size: int
    hidden_size: int
    periods: tuple[int, ...] = (1, 2, 4, 8)
    _: dataclasses.KW_ONLY
    biases: int = 1
    learned_carry: bool = False
    input_initializer: Initializer = Uniform()
    recurrent_initializer: Initializer = Uniform()
    bias_initializer: Initializer = Uniform()

    def __post_init__(self) -> None:
        check_sizes(self)
        check_one_bias(self)
        T, H = self.periods, self.hidden_size
        if not isinstance(T, tuple) or not T or any(type(p) is not int or p < 1 for p in T):
            raise ValueError(f"Clockwork: periods must be a tuple of ints of at least 1, got {T!r}")
        if list(T) != sorted(set(T)):
            raise ValueError(f"Clockwork: periods must ascend, got {T!r}")
        if H % len(T):
            raise ValueError(
                f"Clockwork: hidden_size must be a multiple of the number of periods, {len(T)}, "
                f"got {H}"
            )

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.hidden_size

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> ClockworkParams:
        """Draws fresh parameters."""
        blocks = draw_blocks(self, (Gate("candidate"),), key, dtype)
        W_x, W_h, b, _ = jax.tree.map(lambda a: a[0], blocks)
        initial = jnp.zeros(self.hidden_size, dtype) if self.learned_carry else None
        return ClockworkParams(W_x, self._connected(W_h), b, initial)

    def initial_carry(self, params: ClockworkParams) -> ClockworkCarry:
        """Zeros, or `params.initial` if the carry is learned, before step 0."""
        zeros = jnp.zeros(self.hidden_size, params.W_h.dtype)
        h = zeros if params.initial is None else params.initial
        return ClockworkCarry(h, jnp.zeros((), jnp.int32))

    def step(
        self, params: ClockworkParams, carry: ClockworkCarry, x: Float[Array, " I"]
    ) -> tuple[ClockworkCarry, Float[Array, " H"]]:
        """One step for one example."""
        ticks, candidate = self.gates(params, carry, x)
        h = jnp.where(ticks > 0, candidate, carry.h)
        return ClockworkCarry(h, carry.steps + 1), h

    def gates(
        self, params: ClockworkParams, carry: ClockworkCarry, x: Float[Array, " I"]
    ) -> ClockworkGates:
        """Which units tick in one step, and what they would become."""
        a = params.W_x @ x + self._connected(params.W_h) @ carry.h
        a = a if params.b is None else a + params.b
        ticks = carry.steps % jnp.asarray(self._of_units(), carry.steps.dtype) == 0
        return ClockworkGates(ticks.astype(carry.h.dtype), jnp.tanh(a))

    def _connected(self, W_h: Array) -> Array:
        """W_h without what would lead from faster modules to slower ones."""
        periods = self._of_units()
        return jnp.where(periods[:, None] <= periods, W_h, 0)

    def _of_units(self) -> np.ndarray:
        """The period of every unit."""
        return np.repeat(self.periods, self.hidden_size // len(self.periods))
