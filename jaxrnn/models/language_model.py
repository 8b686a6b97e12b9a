"""The next token of a sequence: a model that carries its state and generates."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree

from jaxrnn import cell as contract
from jaxrnn.models._shared import Inputs, check_tokens, real_steps
from jaxrnn.models.decoding import Generated, as_token, check_decoding, decode
from jaxrnn.models.recurrent import Recurrent
from jaxrnn.sequences import as_array, check_lengths, zero_padding


class LanguageModel(nnx.Module):
    """Embedding, network, linear readout: the logits of the token after each token.

    vocabulary: V, the number of tokens.
    network: any causal cell or network; the embedding gets its `input_size`.
    """

    def __init__(
        self, vocabulary: int, network: Any, *, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32
    ) -> None:
        if not contract.is_causal(network):
            raise ValueError(
                f"LanguageModel: {type(network).__name__} reads the future that is to be "
                "predicted: use a causal network"
            )
        reads, gives = (contract.size(network, f) for f in ("input_size", "output_size"))
        self.vocabulary = vocabulary
        self.inputs = Inputs(vocabulary, reads, rngs=rngs, dtype=dtype)
        self.recurrent = Recurrent(network, rngs=rngs, dtype=dtype)
        self.linear = nnx.Linear(gives, vocabulary, param_dtype=dtype, rngs=rngs)

    def __call__(
        self,
        tokens: Int[Array, "*batch T"],
        lengths: Int[Array, "*batch"] | Any = None,
        *,
        carry: PyTree | None = None,
        resets: Any = None,
        context: Float[Array, "*batch I"] | None = None,
        key: Array | None = None,
        start: int | Array = 0,
    ) -> tuple[PyTree, Float[Array, "*batch T V"]]:
        """The final carry, and logits: `logits[t]` foretells `tokens[t + 1]`; zero at padding.

        Args:
            tokens: in 0…V−1; what stands at padding does not matter.
            lengths, carry, resets, key, start: as for `jaxrnn.unroll`. A long text goes through
                in windows, each with the carry of the one before.
            context: added to the embedding of every token.
        """
        xs, lengths = self.inputs(tokens, lengths)
        xs = xs if context is None else xs + context[..., None, :]
        options: Any = dict(carry=carry, lengths=lengths, resets=resets, key=key, start=start)
        carry, hs = self.recurrent(xs, **options)
        logits = self.linear(hs)
        return carry, logits if lengths is None else zero_padding(logits, lengths, hs.shape[-2])

    def step(
        self,
        carry: PyTree,
        token: Int[Array, ""] | Any,
        *,
        context: Float[Array, " I"] | None = None,
        key: Array | None = None,
    ) -> tuple[PyTree, Float[Array, " V"]]:
        """One token of one example: the next carry, and the logits of the token after it."""
        x = self.inputs(jnp.asarray(token)[None], None)[0][0]
        carry, h = self.recurrent.step(carry, x if context is None else x + context, key)
        return carry, self.linear(h)

    def initial_carry(self) -> PyTree:
        """What the first token of one example starts from."""
        return self.recurrent.initial_carry()

    def generate(
        self,
        prompt: Int[Array, "*batch P"] | int,
        lengths: Int[Array, "*batch"] | Any = None,
        *,
        carry: PyTree | None = None,
        context: Float[Array, "*batch I"] | None = None,
        key: Array | None = None,
        temperature: float | Array = 1.0,
        limit: int = 100,
        end: int | None = None,
    ) -> Generated:
        """Goes on where the prompt ends; the prompt itself is not part of the result.

        Args:
            prompt: at least one token, such as the one that starts every sequence.
            lengths: 1…P: how many tokens of each prompt are real.
            carry: before the prompt is read.
            key, temperature, limit, end: as for `decode`: greedy without a key.
        """
        prompt = jnp.atleast_1d(jnp.asarray(prompt))
        lengths = _prompt_lengths(lengths, prompt)
        check_tokens(zero_padding(prompt, lengths, prompt.shape[-1]), self.vocabulary)
        check_decoding(temperature, limit)
        end = None if end is None else as_token("end", end, self.vocabulary)
        # as an array, so that 1 and 0.5 are one program
        temperature = jnp.asarray(temperature, jnp.float32)
        options: Any = dict(key=key, temperature=temperature, limit=int(limit), end=end)
        return _generate(self, prompt, lengths, carry, context, **options)


def cross_entropy(
    logits: Float[Array, "*batch T V"],
    targets: Int[Array, "*batch T"] | Any,
    lengths: Int[Array, "*batch"] | Any = None,
) -> Float[Array, ""]:
    """−ln p of the targets in nats, the mean over all real steps; what is padded counts nothing.

    The perplexity is its exponential; bits are nats divided by ln 2. Of a classifier's logits,
    `(batch, classes)`, the mean over rows. Summed in float32 at least; a target that does not exist
    is an error, or NaN where it is traced.
    """
    targets = as_array(targets)
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"got logits of shape {logits.shape} for targets of shape {targets.shape}, expected "
            "one more axis, the classes, and all others equal"
        )
    *batch, steps = targets.shape
    lengths = check_lengths(lengths, tuple(batch), steps)
    real = real_steps(logits, lengths)
    # padding is replaced and not multiplied by zero: it may be any number, and its logits NaN
    targets, logits = jnp.where(real, targets, 0), jnp.where(real[..., None], logits, 0)
    check_tokens(targets, logits.shape[-1], "target")
    logits = logits.astype(contract.at_least_float32(logits.dtype))
    known = (targets >= 0) & (targets < logits.shape[-1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(known, targets, 0))
    losses = jnp.where(known, losses, jnp.nan)
    count = jnp.maximum(jnp.sum(real), 1).astype(losses.dtype)
    return jnp.sum(jnp.where(real, losses, 0)) / count


def shift(targets: Int[Array, "*batch T"], start: int) -> Int[Array, "*batch T"]:
    """What a model reads that is to foretell the targets: the start token and all but the last."""
    first = jnp.full_like(targets[..., :1], start)
    return jnp.concatenate([first, targets[..., :-1]], axis=-1)


def _prompt_lengths(lengths: Any, prompt: Array) -> Array:
    *batch, steps = prompt.shape
    if steps == 0:
        raise ValueError(
            "the prompt is empty: begin with at least one token, such as a start token"
        )
    if lengths is None:
        return jnp.full(batch, steps, jnp.int32)
    lengths = check_lengths(lengths, tuple(batch), steps)
    if not isinstance(lengths, Tracer) and (lengths < 1).any():
        raise ValueError("a prompt has length 0: begin with at least one token")
    return jnp.maximum(lengths, 1)


@functools.partial(jax.jit, static_argnames=("limit", "end"))
def _generate(
    model: LanguageModel,
    prompt: Array,
    lengths: Array,
    carry: PyTree | None,
    context: Array | None,
    *,
    key: Array | None,
    temperature: float | Array,
    limit: int,
    end: int | None,
) -> Generated:
    before, _ = model(prompt[..., :-1], lengths - 1, carry=carry, context=context)
    last = jnp.take_along_axis(prompt, (lengths - 1)[..., None], axis=-1)[..., 0]

    def step(state: PyTree, token: Array) -> tuple[PyTree, Array]:
        carry, context = state
        carry, logits = model.step(carry, token, context=context)
        return (carry, context), logits

    options: Any = dict(key=key, temperature=temperature, limit=limit, end=end)
    return decode(step, (before, context), last, **options)
