"""Context-dependent integration: two kinds of evidence, and a context that says which counts."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from jaxrnn.tasks.perceptual_integration import NoisyEvidence
from jaxrnn.tasks.task import Example, answer_once, draw_int


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ContextIntegration(NoisyEvidence):
    """The sign of one of two weak signals under noise: the one that the context asks for.

    xs (T, 4): evidence of motion and of colour, each s c + noise · N(0, 1) with a sign s = ±1 and
    a coherence c of its own for the whole example; then (1, 0) if motion counts, (0, 1) if colour
    does, at every step. Only the last step counts; its target is the s that counts.

    baseline: 1, the variance of a fair sign: the mean squared error of the constant answer 0.
        Whoever knows both signs but not the context answers their mean and gets 1/2; the best
        anyone can do is wrong with probability Φ(−c √T / noise), right in 87.5 % as by default.
    correct: the output has the right sign.

    length: T.
    coherences: one of these is drawn for each signal.
    noise: standard deviation at one step.

    Mante, Sussillo, Shenoy and Newsome 2013, "Context-dependent computation by recurrent dynamics
    in prefrontal cortex", Nature 503; their network too is trained to end at ±1. The coherences
    are those of motion that their animals saw. Their network, of 750 steps under noise of 1, is
    asked with weaker ones: `ContextIntegration(750, coherences=(0.009, 0.036, 0.15))`.
    """

    length: int = 100
    coherences: tuple[float, ...] = (0.05, 0.15, 0.5)
    noise: float = 1.0

    @property
    def input_size(self) -> int:
        """Two kinds of evidence and two contexts."""
        return 4

    def sample(self, key: Array, dtype: DTypeLike = jnp.float32) -> Example:
        """Draws one example."""
        k_evidence, k_context = jax.random.split(key)
        evidence, signs = self._draw(k_evidence, 2, dtype)
        context = draw_int(k_context, (), 0, 2)
        rules = jnp.broadcast_to(jax.nn.one_hot(context, 2, dtype=dtype), evidence.shape)
        return answer_once(jnp.concatenate([evidence, rules], -1), signs[context][None])
