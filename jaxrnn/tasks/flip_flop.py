"""Flip-flops: a few bits of memory, set by rare pulses."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jaxrnn.tasks.task import (
    Example,
    Signs,
    check_dtype,
    check_positive,
    check_whole,
    draw_int,
    draw_uniform,
    step_numbers,
)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class FlipFlop(Signs):
    """For each of `bits` channels, the sign of the last pulse on it.

    xs (T, bits): pulses of +1 or −1, each with probability `pulse` at each step and channel, and 0
    between them; at step 0 there is one on every channel, so that there is always a last one.
    Every step counts; the targets (T, bits) are the sign of the last pulse, that of this step
    included.

    baseline: 1, the variance of a fair sign: the mean squared error of the constant answer 0.
        A network that sees the pulses but remembers nothing gets (1 − pulse)(T − 1)/T.
    correct: every output has the right sign at every step.

    length: T.
    bits: channels.
    pulse: the probability of a pulse.

    Sussillo and Barak 2013, "Opening the black box", Neural Computation 25, with three bits: a
    network that solves it has 2^bits stable fixed points, the corners of a cube, and saddles
    between them (`jaxrnn.analysis.fixed_points`). How rare pulses are, and T, are ours; fixed-point
    finders often take 0.5 and 64.
    """

    length: int = 100
    bits: int = 3
    pulse: float = 0.1

    def __post_init__(self) -> None:
        check_whole(self, "length", 1)
        check_whole(self, "bits", 1)
        check_positive(self, "pulse")
        if self.pulse > 1:
            raise ValueError(f"FlipFlop: pulse is a probability, at most 1, got {self.pulse!r}")

    @property
    def input_size(self) -> int:
        """The channels."""
        return self.bits

    @property
    def output_size(self) -> int:
        """The channels."""
        return self.bits

    @property
    def baseline(self) -> float:
        """1."""
        return 1.0

    def sample(self, key: Array, dtype: DTypeLike = jnp.float32) -> Example:
        """Draws one example."""
        check_dtype(self, dtype)
        k_when, k_sign = jax.random.split(key)
        shape = (self.length, self.bits)
        there = (draw_uniform(k_when, shape, jnp.float32) < self.pulse).at[0].set(True)
        signs = (2 * draw_int(k_sign, shape, 0, 2) - 1).astype(dtype)
        # the step of the last pulse: the largest so far among the steps that have one
        steps = step_numbers(self.length)[:, None]
        last = jax.lax.cummax(jnp.where(there, steps, 0), axis=0)
        targets = jnp.take_along_axis(signs, last, axis=0)
        xs = jnp.where(there, signs, 0)
        length = jnp.asarray(self.length, jnp.int32)
        return Example(xs, targets, jnp.ones(self.length, dtype), length)
