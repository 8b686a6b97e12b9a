"""Sine generator: a constant input sets the frequency of a sine that the network makes itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from jaxrnn.cell import at_least_float32
from jaxrnn.tasks.task import (
    Example,
    Regression,
    check_dtype,
    check_positive,
    check_whole,
    draw_int,
)

LOWEST, HIGHEST = 0.1, 0.6


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class SineGenerator(Regression):
    """A sine whose frequency a constant input sets; nothing in the input moves.

    xs (T, 1): j / frequencies + 1/4 at every step, with j drawn from 0 … frequencies − 1. Every
    step counts; the targets (T, 1) are sin(ω_j t dt), t = 0 … T − 1, with ω_j evenly from 0.1 to
    0.6 radians per second.

    baseline: the mean over t of the variance over j of sin(ω_j t dt), an exact sum: the mean
        squared error of the average of all sines. At step 0 they all are 0; once they have drifted
        apart the variance of n frequencies is (1 − 1/n)/2 in the mean, until they meet again: 51
        of them after 628 seconds.
    correct: the mean squared error of the example is below a tenth of the baseline; the paper has
        no such number.

    length: T. The slowest sine has a period of 63 seconds.
    frequencies: how many there are, 51 in the paper.
    dt: seconds per step.

    Sussillo and Barak 2013, "Opening the black box", Neural Computation 25; the network that
    solves it circles around one fixed point, a saddle that moves with the input.
    """

    length: int = 100
    frequencies: int = 51
    dt: float = 1.0

    def __post_init__(self) -> None:
        check_whole(self, "length", 2)
        check_whole(self, "frequencies", 2)
        check_positive(self, "dt")

    @property
    def input_size(self) -> int:
        """The input that sets the frequency."""
        return 1

    @property
    def output_size(self) -> int:
        """The sine."""
        return 1

    @property
    def baseline(self) -> float:
        """The variance over the frequencies, averaged over the steps."""
        omegas = np.linspace(LOWEST, HIGHEST, self.frequencies)[:, None]
        return float(np.var(np.sin(omegas * np.arange(self.length) * self.dt), 0).mean())

    def sample(self, key: Array, dtype: DTypeLike = jnp.float32) -> Example:
        """Draws one example."""
        check_dtype(self, dtype)
        wide = at_least_float32(dtype)
        j = draw_int(key, (), 0, self.frequencies).astype(wide)
        omega = LOWEST + (HIGHEST - LOWEST) / (self.frequencies - 1) * j
        seconds = jnp.arange(self.length, dtype=wide)[:, None] * self.dt
        xs = jnp.full((self.length, 1), (j / self.frequencies + 0.25).astype(dtype))
        targets = jnp.sin(omega * seconds).astype(dtype)
        length = jnp.asarray(self.length, jnp.int32)
        return Example(xs, targets, jnp.ones(self.length, dtype), length)

    def correct(
        self, outputs: Float[Array, "*batch T O"], example: Example
    ) -> Bool[Array, "*batch"]:
        """Whether the mean squared error of the example is below a tenth of the baseline."""
        return self._losses(outputs, example) < 0.1 * self.baseline
