"""The models that tell intents, and how they are taught."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import jaxrnn
from jaxrnn import models

BAGS = ("bag of words", "bag of words, two layers")
TWO_WAYS = "bidirectional LSTM"
RECURRENT = ("Elman", "GRU", f"{TWO_WAYS}, maximum", TWO_WAYS)
OUT_OF_ORDER = f"{TWO_WAYS}, taught out of order (control)"


def loss(model: Any, batch: dict[str, Any], key: Any) -> jax.Array:
    """Cross-entropy of the intents."""
    logits = model(batch["tokens"], batch["lengths"], key=key)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()


def out_of_order(model: Any, batch: dict[str, Any], key: Any) -> jax.Array:
    """The same of sentences whose tokens come in an order that is drawn anew each time."""
    k_order, k_noise = jax.random.split(key)
    tokens = batch["tokens"]
    padding = jnp.arange(tokens.shape[1]) >= batch["lengths"][:, None]
    places = jax.random.uniform(k_order, tokens.shape) + padding  # what is padding stays behind
    mixed = jnp.take_along_axis(tokens, jnp.argsort(places, axis=1), axis=1)
    return loss(model, batch | {"tokens": mixed}, k_noise)


class Kind(NamedTuple):
    """A model from (tokens, classes, features, hidden size) and keywords; what it is taught by."""

    make: Callable[..., Any]
    loss: Callable[..., jax.Array] = loss


def _recurrent(network: Callable[[int, int], Any], **fixed: Any) -> Callable[..., Any]:
    return lambda n, classes, f, h, **o: models.Classifier(n, classes, network(f, h), **fixed, **o)


def _two_ways(features: int, hidden_size: int) -> Any:
    return jaxrnn.Bidirectional(jaxrnn.LSTM(features, hidden_size))


KINDS = {
    BAGS[0]: Kind(lambda n, k, f, h, **o: models.BagOfWords(n, k, f, **o)),
    BAGS[1]: Kind(lambda n, k, f, h, **o: models.BagOfWords(n, k, f, hidden=(2 * h,), **o)),
    "shared feed-forward": Kind(
        lambda n, k, f, h, **o: models.SharedFeedForward(n, k, f, hidden=(2 * h,), **o)
    ),
    "convolution": Kind(
        lambda n, k, f, h, **o: models.Convolution(n, k, f, channels=(2 * h,), **o)
    ),
    "Elman": Kind(_recurrent(jaxrnn.Elman)),
    "GRU": Kind(_recurrent(jaxrnn.GRU)),
    TWO_WAYS: Kind(_recurrent(_two_ways)),
    f"{TWO_WAYS}, maximum": Kind(_recurrent(_two_ways, pool="max")),
    OUT_OF_ORDER: Kind(_recurrent(_two_ways), out_of_order),
    "Transformer": Kind(lambda n, k, f, h, **o: models.Transformer(n, k, f, **o)),
}


@functools.cache
def optimizer_of(learning_rate: float) -> optax.GradientTransformation:
    """Adam on clipped gradients; one object, so that seeds share what is compiled."""
    return optax.chain(optax.clip_by_global_norm(5.0), optax.adam(learning_rate))


@nnx.jit
def answers(model: Any, tokens: Any, lengths: Any) -> jax.Array:
    """The most probable intents."""
    return jnp.argmax(model(tokens, lengths), -1)
