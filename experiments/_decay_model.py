"""The models of `gradient_decay`: which cells, how they learn, how well they predict."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

import jaxrnn
from jaxrnn.initializers import ForgetBias, Initializer, Uniform

INITIALISATION = "all parameters U(±1/√H), forget bias added"


class Kind(NamedTuple):
    """A row of the experiment: a label, how to make the cell from (I, H), how it begins.

    Cells that differ only in how they begin share all compiled functions: `bias` makes those of
    the bias, the cell keeps its default.
    """

    label: str
    make: Callable[[int, int], Any]
    bias: Initializer = Uniform()


KINDS = {
    "elman": Kind("Elman", jaxrnn.Elman),
    "lstm": Kind("LSTM, forget bias 0", jaxrnn.LSTM),
    "lstm-bias-1": Kind("LSTM, forget bias 1", jaxrnn.LSTM, ForgetBias(1.0)),
    "gru": Kind("GRU", jaxrnn.GRU),
}


class Model(NamedTuple):
    """A language model: an embedding of characters, and a network with a readout."""

    embedding: Float[Array, "V I"]
    network: jaxrnn.ReadoutParams


def init(network: jaxrnn.Readout, key: Array) -> Model:
    """Draws a model; every feature of the embedding has standard deviation 1."""
    k_embedding, k_network = jax.random.split(key)
    shape = (network.output_size, network.input_size)
    return Model(jax.random.normal(k_embedding, shape, jnp.float32), network.init(k_network))


def bits(network: jaxrnn.Readout, model: Model, ids: Int[Array, "B T+1"]) -> Float[Array, "B T"]:
    """Bits that each next character costs the model; every row starts from a fresh carry."""
    _, logits = jaxrnn.unroll(network, model.network, model.embedding[ids[:, :-1]])
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, ids[:, 1:])
    return nats / math.log(2)


class Trainer(NamedTuple):
    """Compiled functions over all seeds at once; leading axis of every array: seeds."""

    step: Callable[..., tuple[Model, PyTree, Array]]
    held_out: Callable[[Model, Array], Array]


def optimizer(learning_rate: float, clip: float) -> optax.GradientTransformation:
    """Adam with clipping by global norm."""
    return optax.chain(optax.clip_by_global_norm(clip), optax.adam(learning_rate))


def start(
    network: jaxrnn.Readout, learning_rate: float, clip: float, seeds: int
) -> tuple[Model, PyTree]:
    """Fresh models, one for each seed, and the state of their optimiser."""

    def one(key):
        model = init(network, key)
        params: Any = model
        return model, optimizer(learning_rate, clip).init(params)

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), seeds))


@functools.cache
def trainer(network: jaxrnn.Readout, learning_rate: float, clip: float, warm_up: int) -> Trainer:
    """One update, and bits per character without the first `warm_up` ones of each window."""

    def step(model, state, ids):
        loss, gradient = jax.value_and_grad(lambda m: jnp.mean(bits(network, m, ids)))(model)
        # Optax mixes dtypes: that is its own business even where strict promotion is switched on
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer(learning_rate, clip).update(gradient, state, model)
            return optax.apply_updates(model, updates), state, loss

    def held_out(model, ids):
        return jnp.mean(bits(network, model, ids)[:, warm_up:])

    return Trainer(
        jax.jit(over_seeds(step), donate_argnums=(0, 1)),
        jax.jit(jax.vmap(held_out, in_axes=(0, None))),
    )


def over_seeds(step: Callable) -> Callable:
    """The update of one model as that of all: side by side, or on a CPU one after the other.

    Five small products are slower than one there: 86 against 59 ms for an LSTM with H = 64, 44
    against 26 ms for Elman, on two cores.
    """
    if jax.default_backend() != "cpu":
        return jax.vmap(step)
    return lambda *arguments: jax.lax.map(lambda one: step(*one), arguments)


def batches(ids: np.ndarray, length: int, rows: int, seeds: int):
    """Endless random windows of the training text, `(seeds, rows, length + 1)`, all different."""
    draws = [np.random.default_rng(seed) for seed in range(seeds)]
    while True:
        starts = np.stack([draw.integers(0, len(ids) - length, rows) for draw in draws])
        yield ids[starts[..., None] + np.arange(length + 1)]
