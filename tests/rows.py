"""The tables that the laws run over: a new cell or a new method is one new row."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import papers.convolutional
import papers.dynamical
import papers.gated
import papers.gated_more
import papers.linear
import papers.matrix
from papers import H, I

import jaxrnn
from jaxrnn import (
    GRU,
    LSTM,
    Associative,
    Bidirectional,
    DropConnect,
    Elman,
    FastSlow,
    Loop,
    Newton,
    Readout,
    Residual,
    Scan,
    Stack,
    Staged,
    VariationalDropout,
    Zoneout,
)


class Plain:
    """A user's own cell: three methods, nothing inherited, nothing declared."""

    def init(self, key, dtype=jnp.float32):
        return {"W": jax.random.normal(key, (H, H), dtype), "V": jnp.ones((H, I), dtype)}

    def initial_carry(self, params):
        return [jnp.ones(H, params["W"].dtype)]

    def step(self, params, carry, x):
        (h,) = carry
        h = jnp.sin(params["W"] @ h + params["V"] @ x)
        return [h], h[:2] * h[2:]


@dataclasses.dataclass(frozen=True)
class Tokens:
    """A cell over a tree of inputs, one of them an integer, with an integer in its carry."""

    input_rank = {"token": 0, "x": 1}  # noqa: RUF012

    def init(self, key, dtype=jnp.float32):
        return {"table": jax.random.normal(key, (5, H), dtype), "V": jnp.ones((H, I), dtype)}

    def initial_carry(self, params):
        return {"h": jnp.zeros(H, params["V"].dtype), "seen": jnp.zeros((), jnp.int32)}

    def step(self, params, carry, x):
        h = jnp.tanh(0.5 * carry["h"] + params["table"][x["token"]] + params["V"] @ x["x"])
        carry = {"h": h, "seen": carry["seen"] + 1}
        return carry, {"h": h, "even": carry["seen"] % 2 == 0}


@dataclasses.dataclass(frozen=True)
class Noisy:
    """A cell that draws noise if it is given a key."""

    input_size: int = I
    output_size: int = H
    random = True

    def init(self, key, dtype=jnp.float32):
        return jax.random.normal(key, (H, self.input_size + H), dtype)

    def initial_carry(self, params):
        return jnp.zeros(H, params.dtype)

    def step(self, params, carry, x, key):
        noise = 0.0 if key is None else jax.random.normal(key, (H,), params.dtype)
        carry = jnp.tanh(params @ jnp.concatenate([x, carry]) + noise)
        return carry, carry


@dataclasses.dataclass(frozen=True)
class Stepping:
    """A causal network as a cell: its step without its unroll, so that a method must walk it."""

    network: Any
    random = True

    def init(self, key, dtype=jnp.float32):
        return self.network.init(key, dtype=dtype)

    def initial_carry(self, params):
        return self.network.initial_carry(params)

    def step(self, params, carry, x, key):
        return jaxrnn.cell.step(self.network, params, carry, x, key)


def decay(params, carry, x):
    carry = params["keep"] * carry + x
    return carry, carry**2


def decay_carry(params):
    return jnp.zeros_like(params["keep"])


def decay_init(key, dtype=jnp.float32):
    return {"keep": jax.random.uniform(key, (I,), dtype)}


STACK = Stack((LSTM(I, H, learned_carry=True), Noisy(H)), dropout=0.4)
RESIDUAL = Residual(Elman(I, H), projection=True)
FEED_BACK = Residual(Elman(H, H), feed_back=True)
READOUT = Readout(Stack((Elman(I, H), Residual(GRU(H, H)))), output_size=2)

CELLS = {
    "elman-tanh": Elman(I, H),
    "elman-relu-two-biases": Elman(I, H, "relu", biases=2),
    "elman-identity-no-bias": Elman(I, H, "identity", biases=0),
    "elman-logistic": Elman(I, H, "logistic"),
    "elman-function": Elman(I, H, jnp.sin),
    "elman-learned": Elman(I, H, learned_carry=True),
    "lstm": LSTM(I, H),
    "lstm-no-bias": LSTM(I, H, biases=0),
    "lstm-two-biases-learned": LSTM(I, H, biases=2, learned_carry=True),
    "gru-before-new": GRU(I, H),
    "gru-before-old-two-biases": GRU(I, H, update_weighs="old", biases=2),
    "gru-after-new-learned": GRU(I, H, reset="after", learned_carry=True),
    "gru-after-old-two-biases": GRU(I, H, reset="after", update_weighs="old", biases=2),
    "gru-after-old-no-bias": GRU(I, H, reset="after", update_weighs="old", biases=0),
    "as-cell": jaxrnn.as_cell(decay, decay_carry, decay_init),
    "user-plain": Plain(),
    "user-tokens": Tokens(),
    "user-noisy": Noisy(),
    "stack": STACK,
    "stack-stepping": Stepping(STACK),
    "residual": RESIDUAL,
    "residual-feed-back": FEED_BACK,
    "readout": READOUT,
    "variational-dropout": VariationalDropout(GRU(I, H, learned_carry=True), 0.3, 0.4, 0.2),
    "drop-connect": DropConnect(LSTM(I, H), 0.5),
    "zoneout": Zoneout(LSTM(I, H), (("h", 0.2), ("c", 0.5))),
    "fast-slow": FastSlow(
        (LSTM(I, H), LSTM(5, H), LSTM(0, H)), Elman(H, 5, learned_carry=True), dropout=0.3
    ),
}

# every other cell of the library, with its paper in NumPy
PAPERS = {
    name: row
    for family in (
        papers.gated,
        papers.gated_more,
        papers.dynamical,
        papers.linear,
        papers.matrix,
        papers.convolutional,
    )
    for name, row in family.ROWS.items()
}
CELLS |= {name: row.cell for name, row in PAPERS.items()}

METHODS = {
    "loop": Loop(),
    "staged": Staged(),
    "staged-checkpoint": Staged(checkpoint=True),
    "staged-blocks": Staged(ahead=True, unroll=2, block=2),
    "scan": Scan(),
    "scan-unroll-3": Scan(unroll=3),
    "scan-checkpoint": Scan(checkpoint=True),
    "scan-checkpoint-3": Scan(checkpoint=3),
    "associative": Associative(),
    "newton": Newton(),
}

# networks that need the future have no step; they meet the oracle of test_laws.py layer by layer
BIDIRECTIONAL = {
    "two-kinds": Bidirectional(LSTM(I, H, learned_carry=True), Noisy()),
    "deep": Readout(
        Stack(
            (
                Bidirectional(LSTM(I, H), Elman(I, 2)),
                Residual(Bidirectional(Elman(H + 2, 2), Noisy(H + 2)), projection=True),
                Residual(Elman(H + 2, H + 2, learned_carry=True), feed_back=True),
            ),
            dropout=0.3,
        ),
        output_size=2,
    ),
}


class Problem(NamedTuple):
    """What an unroll is given."""

    params: Any
    xs: Any
    carry: Any


def problem(cell, shape, seed=0, scale=0.4, dtype=jnp.float64) -> Problem:
    """Random params (biases and learned carries too), inputs and a carry to start from.

    `shape` is `(*batch, T)`. Drawn by NumPy: eager JAX would compile every single draw.
    """
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: cell.init(key, dtype=dtype), jax.random.key(0))
    carry = jax.eval_shape(cell.initial_carry, shapes)
    return Problem(
        _draw(random, shapes, (), scale),
        _draw(random, moment(cell, dtype), shape, 1.0),
        _draw(random, carry, shape[:-1], 0.5),
    )


def moment(cell, dtype):
    """Shapes of one moment of xs."""
    cell = getattr(cell, "network", cell)
    shape = getattr(cell, "input_shape", (getattr(cell, "input_size", I),))
    x = jax.ShapeDtypeStruct(shape, dtype)
    token = jax.ShapeDtypeStruct((), jnp.int32)
    return {"token": token, "x": x} if isinstance(cell, Tokens) else x


def _draw(random, shapes, batch, scale):
    def draw(leaf):
        shape = (*batch, *leaf.shape)
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            return jnp.asarray(random.integers(0, 5, shape), leaf.dtype)
        values = scale * random.standard_normal(shape)
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            values = values + 1j * scale * random.standard_normal(shape)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree.map(draw, shapes)
