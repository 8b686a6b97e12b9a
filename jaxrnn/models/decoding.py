"""From logits to sequences of tokens: greedy or drawn, until an end token or a limit."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PyTree

from jaxrnn import cell as contract
from jaxrnn.sequences import step_keys


class Generated(NamedTuple):
    """Generated sequences.

    tokens: `(*batch, limit)` int32; behind a row's length the end token, or 0 if there is none.
    lengths: `(*batch,)` int32: tokens up to and *including* the end token, or `limit`. A row is
        cut off, and not ended, where `tokens[length - 1]` is not the end token.
    """

    tokens: Int[Array, "*batch limit"]
    lengths: Int[Array, "*batch"]


class _State(NamedTuple):
    """What one turn of the loop hands to the next."""

    time: Array
    carry: Any
    token: Array
    ended: Array
    tokens: Array
    lengths: Array


def decode(
    step: Callable[[PyTree, Array], tuple[PyTree, Array]],
    carry: PyTree,
    token: Int[Array, "*batch"],
    *,
    key: Array | None = None,
    temperature: float | Array = 1.0,
    limit: int = 100,
    end: int | None = None,
) -> Generated:
    """Generates: every token is drawn from the logits that the one before it leads to.

    One `lax.while_loop` over the whole batch, which stops as soon as every row has ended. Row b
    alone gives what it gives in the batch, if it is given the key `fold_in(key, b)`. Called by
    itself it is compiled each time: call it inside your own `jax.jit`.

    Args:
        step: `(carry, token) -> (carry, logits)` for one example; logits `(V,)`.
        carry: `(*batch, …)`, before `token` is read.
        token: what is read first; it is not part of the result.
        key: None takes the likeliest token at every step; one key, or one for each row. Token t
            of row b is drawn with `fold_in(fold_in(key, b), t)`.
        temperature: tokens are drawn with probability softmax(logits / temperature), 0 or more;
            0 takes the likeliest.
        limit: the most tokens a row may get, the end token included.
        end: the token that ends a row; None lets every row run to the limit.
    """
    check_decoding(temperature, limit)
    batch, keys = token.shape, step_keys(key, 0, token.shape, limit)
    choose = lambda logits, key: choose_token(logits, key, temperature)  # noqa: E731
    for _ in batch:
        step, choose = jax.vmap(step), jax.vmap(choose)
    pad = 0 if end is None else end

    def going(state: _State) -> Array:
        return (state.time < limit) & ~jnp.all(state.ended)

    def turn(state: _State) -> _State:
        time, carry, token, ended, tokens, lengths = state
        carry, logits = step(carry, token)
        token = choose(logits, None if keys is None else keys[..., time])
        token = jnp.where(ended, pad, token).astype(jnp.int32)
        tokens, lengths = tokens.at[time].set(token), lengths + jnp.where(ended, 0, 1)
        return _State(time + 1, carry, token, ended | _is(token, end), tokens, lengths)

    first = _State(
        time=jnp.zeros((), jnp.int32),
        carry=carry,
        token=token.astype(jnp.int32),
        ended=jnp.zeros(batch, bool),
        tokens=jnp.full((limit, *batch), pad, jnp.int32),
        lengths=jnp.zeros(batch, jnp.int32),
    )
    last = jax.lax.while_loop(going, turn, first)
    return Generated(jnp.moveaxis(last.tokens, 0, -1), last.lengths)


def choose_token(
    logits: Float[Array, " V"], key: Array | None = None, temperature: float | Array = 1.0
) -> Int[Array, ""]:
    """One token, drawn from softmax(logits / temperature); the likeliest without key or at 0.

    In float32 at least: noise that is drawn in 16 bits takes few values, and few tokens then win.
    """
    logits = logits.astype(contract.at_least_float32(logits.dtype))
    likeliest = jnp.argmax(logits)
    if key is None:
        return likeliest
    temperature = jnp.asarray(temperature, logits.dtype)
    warm = temperature > 0
    # at most 0, so that a small temperature leads to −∞ and never to ∞ − ∞
    below = logits - jnp.max(logits)
    drawn = jax.random.categorical(key, below / jnp.where(warm, temperature, 1))
    return jnp.where(warm, drawn, likeliest)


def check_decoding(temperature: Any, limit: Any) -> None:
    """Raises if a temperature or a limit is none."""
    contract.whole("limit", limit)
    if np.shape(temperature) != ():
        raise ValueError(
            f"temperature must be one number, got shape {np.shape(temperature)}: for one of each "
            "row, generate them apart"
        )
    if not isinstance(temperature, Tracer) and not float(temperature) >= 0:
        raise ValueError(f"temperature must be 0 or more, got {temperature}: 0 is greedy")


def as_token(what: str, token: Any, vocabulary: int) -> int:
    """A token that a model is made with, as an int; raises if it is not in its vocabulary."""
    if isinstance(token, bool) or not hasattr(token, "__index__") or not 0 <= token < vocabulary:
        raise ValueError(f"{what} must be a token in 0…{vocabulary - 1}, got {token!r}")
    return operator.index(token)


def _is(token: Array, end: int | None) -> Array:
    return jnp.zeros(token.shape, bool) if end is None else token == end
