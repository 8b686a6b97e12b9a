"""One-to-many: a vector starts a sequence, as an image its caption or a mood its tune."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxrnn.models.bridge import Bridge
from jaxrnn.models.decoding import Generated, as_token
from jaxrnn.models.language_model import LanguageModel, shift

WAYS = ("carry", "input")


class Generator(nnx.Module):
    """A language model that a vector conditions.

    input_size: F, features of the vector.
    vocabulary: V, the number of tokens, `start` and `end` among them.
    network: any causal cell or network.
    into: where the vector goes. "carry": a linear map of it is the carry of all layers before the
        first token (Vinyals et al. 2015 show the image once; here it costs no step). "input": a
        linear map of it is added to the embedding of every token.
    start, end: the token that is read first, and the one that ends a sequence.
    """

    def __init__(
        self,
        input_size: int,
        vocabulary: int,
        network: Any,
        *,
        into: str = "carry",
        start: int = 0,
        end: int = 1,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
    ) -> None:
        if into not in WAYS:
            raise ValueError(f"Generator: into must be 'carry' or 'input', got {into!r}")
        self.start = as_token("Generator: start", start, vocabulary)
        self.end = as_token("Generator: end", end, vocabulary)
        self.into = into
        kind: Any = dict(rngs=rngs, dtype=dtype)
        self.decoder = LanguageModel(vocabulary, network, **kind)
        if into == "carry":
            self.bridge = Bridge(input_size, self.decoder.recurrent, **kind)
        else:
            self.map = nnx.Linear(input_size, network.input_size, param_dtype=dtype, rngs=rngs)

    def __call__(
        self,
        vectors: Float[Array, "*batch F"],
        targets: Int[Array, "*batch T"],
        lengths: Int[Array, "*batch"] | Any = None,
        *,
        key: Array | None = None,
    ) -> Float[Array, "*batch T V"]:
        """Teacher forced: `logits[t]` foretells `targets[t]` from all targets before it.

        targets: as they shall be generated, the end token last. lengths: of the targets.
        """
        inputs = shift(targets, self.start)
        return self.decoder(inputs, lengths, key=key, **self._condition(vectors))[1]

    def generate(
        self,
        vectors: Float[Array, "*batch F"],
        *,
        key: Array | None = None,
        temperature: float | Array = 1.0,
        limit: int = 100,
    ) -> Generated:
        """A sequence for each vector; options as for `decode`: greedy without a key."""
        starts = jnp.full((*vectors.shape[:-1], 1), self.start, jnp.int32)
        options: Any = dict(key=key, temperature=temperature, limit=limit, end=self.end)
        return self.decoder.generate(starts, **self._condition(vectors), **options)

    def _condition(self, vectors: Array) -> dict[str, Any]:
        if self.into == "input":
            return dict(context=self.map(vectors))
        return dict(carry=self.bridge(vectors, self.decoder.initial_carry()))
