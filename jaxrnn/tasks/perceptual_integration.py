"""Perceptual integration: which way does noisy evidence point?"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cell import at_least_float32
from jaxrnn.tasks.task import (
    Example,
    Signs,
    answer_once,
    check_dtype,
    check_positive,
    check_whole,
    draw_int,
    draw_normal,
)


def _is_positive(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value < float("inf")


class NoisyEvidence(Signs):
    """Weak signals under noise: what both kinds of integration have in common."""

    length: int
    coherences: tuple[float, ...]
    noise: float

    def __post_init__(self) -> None:
        check_whole(self, "length", 1)
        check_positive(self, "noise", zero=True)
        given = self.coherences
        if not isinstance(given, tuple) or not given or not all(map(_is_positive, given)):
            raise ValueError(
                f"{type(self).__name__}: coherences must be a tuple of numbers above 0, "
                f"got {given!r}"
            )

    @property
    def output_size(self) -> int:
        """The decision."""
        return 1

    @property
    def baseline(self) -> float:
        """1."""
        return 1.0

    def _draw(
        self, key: Array, channels: int, dtype: DTypeLike
    ) -> tuple[Float[Array, "T channels"], Float[Array, " channels"]]:
        # the evidence, and the sign of each channel
        check_dtype(self, dtype)
        k_sign, k_coherence, k_noise = jax.random.split(key, 3)
        signs = (2 * draw_int(k_sign, (channels,), 0, 2) - 1).astype(dtype)
        which = draw_int(k_coherence, (channels,), 0, len(self.coherences))
        # cast once, at the end: of a drift below the steps of bfloat16 a part would be lost
        wide = at_least_float32(dtype)
        drift = signs.astype(wide) * jnp.asarray(self.coherences, wide)[which]
        evidence = drift + self.noise * draw_normal(k_noise, (self.length, channels), wide)
        return evidence.astype(dtype), signs


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class PerceptualIntegration(NoisyEvidence):
    """The sign of a weak constant signal under noise, which only the sum over time brings out.

    xs (T, 1): s c + noise · N(0, 1) at each step, with one sign s = ±1 and one coherence c for the
    whole example. Only the last step counts; its target is s.

    baseline: 1, the variance of a fair sign: the mean squared error of the constant answer 0.
        The best anyone can do is the sign of the sum over time, which is wrong with probability
        Φ(−c √T / noise): even a perfect network solves 85.2 % of the examples as by default.
    correct: the output has the right sign.

    length: T.
    coherences: one of these is drawn for each example.
    noise: standard deviation at one step.

    The moving dots of Roitman and Shadlen 2002, whose coherences these are, but for 0, which has no
    right answer, as one noisy channel, the way Mante et al. 2013 give evidence to a network. Noise
    and length are ours.
    """

    length: int = 100
    coherences: tuple[float, ...] = (0.032, 0.064, 0.128, 0.256, 0.512)
    noise: float = 1.0

    @property
    def input_size(self) -> int:
        """The evidence."""
        return 1

    def sample(self, key: Array, dtype: DTypeLike = jnp.float32) -> Example:
        """Draws one example."""
        return answer_once(*self._draw(key, 1, dtype))
