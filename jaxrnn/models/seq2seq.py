"""Sequence to sequence, of unequal lengths: an encoder hands its carry to a decoder."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree

from jaxrnn import cell as contract
from jaxrnn.cell import flatten_carry
from jaxrnn.models._shared import Inputs, check_tokens, row_keys
from jaxrnn.models.bridge import Bridge
from jaxrnn.models.decoding import Generated, as_token
from jaxrnn.models.language_model import LanguageModel, shift
from jaxrnn.models.recurrent import Recurrent
from jaxrnn.network._shared import fold
from jaxrnn.sequences import as_array, check_lengths, step_keys, zero_padding

_COINS = 2**32 - 1  # what a key is folded with for the coins: no row has this number


class Seq2Seq(nnx.Module):
    """Encoder and decoder, with the carries of all layers handed over (Sutskever et al. 2014).

    sources: the number of source tokens, or None for sources that are features, such as sound.
    targets: the number of target tokens, `start` and `end` among them.
    encoder, decoder: any cells or networks, the decoder causal. Their carries must be alike, as
        two stacks of equally many equally wide layers have them; other pairs, such as a
        bidirectional encoder and a decoder of one direction, need `bridge`.
    bridge: whether a learned linear map leads from the encoder's final carry to the decoder's.
    start, end: the token that the decoder reads first, and the one that ends a sequence.
    """

    def __init__(
        self,
        sources: int | None,
        targets: int,
        encoder: Any,
        decoder: Any,
        *,
        bridge: bool = False,
        start: int = 0,
        end: int = 1,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
    ) -> None:
        self.start = as_token("Seq2Seq: start", start, targets)
        self.end = as_token("Seq2Seq: end", end, targets)
        kind: Any = dict(rngs=rngs, dtype=dtype)
        reads = contract.size(encoder, "input_size")
        self.inputs = Inputs(sources, reads, **kind)
        self.encoder = Recurrent(encoder, **kind)
        self.decoder = LanguageModel(targets, decoder, **kind)
        final, first = self.encoder.initial_carry(), self.decoder.initial_carry()
        if not bridge:
            _check_alike(final, first)
        numbers = flatten_carry(final)[0].size
        self.bridge = Bridge(numbers, self.decoder.recurrent, **kind) if bridge else None

    def __call__(
        self,
        sources: Array,
        targets: Int[Array, "*batch T"] | Any,
        *,
        source_lengths: Int[Array, "*batch"] | Any = None,
        target_lengths: Int[Array, "*batch"] | Any = None,
        teacher_forcing: float | Array | None = None,
        per_example: bool = False,
        key: Array | None = None,
    ) -> Float[Array, "*batch T V"]:
        """`logits[t]` foretells `targets[t]`; zero at padding. For `cross_entropy`.

        Args:
            sources: tokens `(*batch, S)`, or features `(*batch, S, I)` if the model was made for
                them.
            targets: as they shall be generated, the end token last.
            source_lengths: how many sources of each row are real: what is behind changes nothing.
            target_lengths: how many targets of each row are real, the end token included.
            teacher_forcing: the probability, step by step, that the decoder reads the true target
                before, and not the token that it found likeliest itself (Williams and Zipser
                1989; Bengio et al. 2015). By default 0.5 where a key is passed; without one 1, as
                nothing is random then. 1 is one unroll, anything else a scan.
            per_example: a coin for each row; one for the whole batch otherwise.
            key: for the coins and for the noise of both networks.
        """
        sources, targets = (as_array(tokens) for tokens in (sources, targets))
        *batch, steps = targets.shape
        if self._batch(sources) != tuple(batch):
            raise ValueError(
                f"got sources of shape {sources.shape} and targets of shape {targets.shape}: both "
                "have the same leading axes, one source for each row of targets"
            )
        ends = check_lengths(target_lengths, tuple(batch), steps)
        rows = row_keys(key, batch)
        carry = self.encode(sources, source_lengths, key=fold(rows, 0))
        inputs = shift(targets, self.start)
        inputs = inputs if ends is None else zero_padding(inputs, ends, steps)
        check_tokens(inputs, self.decoder.vocabulary)
        ratio = (1 if key is None else 0.5) if teacher_forcing is None else teacher_forcing
        ratio = ratio if isinstance(ratio, Tracer) else float(ratio)
        if not isinstance(ratio, Tracer) and ratio == 1:
            return self.decoder(inputs, ends, carry=carry, key=fold(rows, 1))[1]
        coins = _coins(key, rows, ratio, per_example, targets.shape)
        keys = step_keys(fold(rows, 1), 0, tuple(batch), steps)
        logits = _on_its_own(self.decoder, self.start, carry, inputs, coins, keys)
        return logits if ends is None else zero_padding(logits, ends, steps)

    def encode(
        self,
        sources: Array,
        lengths: Int[Array, "*batch"] | Any = None,
        *,
        key: Array | None = None,
    ) -> PyTree:
        """The carry that the decoder starts from: the encoder's after the last real step."""
        xs, lengths = self.inputs(sources, lengths)
        carry, _ = self.encoder(xs, lengths=lengths, key=key)
        if self.bridge is None:
            return carry
        vectors = lambda c: flatten_carry(c)[0]  # noqa: E731
        for _ in xs.shape[:-2]:
            vectors = jax.vmap(vectors)
        return self.bridge(vectors(carry), self.decoder.initial_carry())

    def generate(
        self,
        sources: Array,
        lengths: Int[Array, "*batch"] | Any = None,
        *,
        key: Array | None = None,
        temperature: float | Array = 1.0,
        limit: int = 100,
    ) -> Generated:
        """A sequence for each source; options as for `decode`: greedy without a key."""
        sources = as_array(sources)
        starts = jnp.full((*self._batch(sources), 1), self.start, jnp.int32)
        options: Any = dict(key=key, temperature=temperature, limit=limit, end=self.end)
        return self.decoder.generate(starts, carry=self.encode(sources, lengths), **options)

    def _batch(self, sources: Any) -> tuple[int, ...]:
        return sources.shape[: -1 if self.inputs.vocabulary is not None else -2]


@functools.partial(jax.jit, static_argnums=1)  # called by itself, a scan is else compiled each time
def _on_its_own(
    decoder: LanguageModel,
    start: int,
    carry: PyTree,
    inputs: Array,
    coins: Array,
    keys: Array | None,
) -> Array:
    """Logits where the decoder reads its own tokens wherever a coin is False."""
    step = lambda carry, token, key: decoder.step(carry, token, key=key)  # noqa: E731
    for _ in inputs.shape[:-1]:
        step = jax.vmap(step)

    def turn(state: tuple, moment: tuple) -> tuple[tuple, Array]:
        (carry, own), (true, coin, key) = state, moment
        carry, logits = step(carry, jnp.where(coin, true, own), key)
        return (carry, jnp.argmax(logits, axis=-1).astype(own.dtype)), logits

    time = inputs.ndim - 1
    moments = jax.tree.map(lambda a: jnp.moveaxis(a, time, 0), (inputs, coins, keys))
    own = jnp.full(inputs.shape[:-1], start, inputs.dtype)
    _, logits = jax.lax.scan(turn, (carry, own), moments)
    return jnp.moveaxis(logits, 0, time)


def _check_alike(final: PyTree, first: PyTree) -> None:
    got, expected = (contract.describe(jax.tree.map(jnp.asarray, c)) for c in (final, first))
    if got != expected:
        raise ValueError(
            f"Seq2Seq: the encoder hands over {got}, but the decoder starts from {expected}: make "
            "the two alike, or pass bridge=True for a learned linear map between them"
        )


def _coins(
    key: Array | None, rows: Array | None, ratio: Any, per_example: bool, shape: tuple[int, ...]
) -> Array:
    """Whether the true token is read, `(*batch, T)`."""
    known = not isinstance(ratio, Tracer)
    if known and not 0 <= ratio <= 1:
        raise ValueError(f"teacher_forcing is a probability in [0, 1], got {ratio}")
    if key is None:
        if not known or ratio != 0:
            raise ValueError(f"teacher_forcing={ratio} draws coins: pass a key, or 0 or 1")
        return jnp.zeros(shape, bool)
    if not per_example and key.shape != ():
        raise ValueError(
            f"got keys of shape {key.shape}, but one coin for the whole batch needs one key: "
            "pass one, or per_example=True"
        )
    *batch, steps = shape
    source, axes = (rows, tuple(batch)) if per_example else (key, ())
    keys: Any = step_keys(fold(source, _COINS), 0, axes, steps)
    toss: Any = jax.random.bernoulli
    for _ in keys.shape:
        toss = jax.vmap(toss, (0, None))
    return jnp.broadcast_to(toss(keys, ratio), shape)
