"""Some of the future for a network that goes one way."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from jaxrnn.network._shared import Wrapper, check_causal, fold
from jaxrnn.sequences import sequence_shape, step_keys
from jaxrnn.unroll import trajectory, unroll


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Delay(Wrapper):
    """A layer that answers M steps late, and so knows M inputs of the future.

    Robinson 1994; Schuster and Paliwal 1997, who compare it with both directions: the target of x_t
    is learned at step t + M. Here `ys[t]` still belongs to `xs[t]`: it is the layer's output at
    t + M, when it has read x_0 … x_{t+M}. Behind its last real step a row, or an episode before the
    next reset, is followed by M steps of zero input, from which its last M outputs come. With
    `reverse` the M inputs are those of the past.

    The final carry is the layer's after the last *real* input, so that pieces of a sequence can be
    handed on; but the last M outputs of a piece are not those of the whole, which sees more.
    Cannot go step by step. To stream with a latency of M steps, step the layer itself: what it
    gives at t + M belongs to t. Resets cost M further steps for every step.

    steps: M, at least 1.
    """

    layer: Any
    steps: int

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"Delay: steps must be an int of at least 1, got {self.steps!r}")
        check_causal(self, self.layer, "and needs no delay to know the future")

    @property
    def causal(self) -> bool:
        """Never: the output at t is not known before t + M."""
        return False

    def step(self, params: Any, carry: Any, x: Any, key: Array | None = None) -> tuple[Any, Any]:
        """Always an error: the output at t is not known before t + M."""
        raise TypeError(
            f"Delay cannot go step by step: its output belongs to an input {self.steps} steps ago. "
            f"Step its layer, and take what that gives at t + {self.steps} for the output at t; or "
            "use jaxrnn.unroll on the whole sequence"
        )

    def unroll(
        self,
        params: Any,
        xs: PyTree,
        *,
        verb: Callable = unroll,
        lengths: Array | None = None,
        resets: Array | None = None,
        reverse: bool = False,
        key: Array | None = None,
        method: Any = None,
        **options: Any,
    ) -> tuple[PyTree, PyTree]:
        """The layer through the whole sequence and on; options as for `jaxrnn.unroll`."""
        *lead, T = sequence_shape(self, params, xs)
        key = step_keys(key, 0, tuple(lead), T)
        last = jnp.full(lead, T, jnp.int32) if lengths is None else jnp.asarray(lengths, jnp.int32)
        last = jnp.zeros_like(last) if reverse else jnp.maximum(last - 1, 0)
        # every episode ends somewhere, and goes on from the carry there
        walk = verb if resets is None or T == 0 else trajectory
        options = dict(lengths=lengths, resets=resets, reverse=reverse, method=method, **options)
        carry, ys = walk(self.layer, params, xs, key=fold(key, 0), **options)
        if T == 0:
            return carry, ys
        final = _at(carry, last) if walk is trajectory else carry
        ends, at_ends = (final, _at(key, last)) if resets is None else (carry, key)
        _, rest = unroll(
            self.layer,
            params,
            self._nothing(xs, len(lead), jnp.shape(last) if resets is None else (*lead, T)),
            carry=ends,
            key=fold(at_ends, 1),
            method=method,
        )
        left = _steps_left(lengths, resets, reverse, (*lead, T))
        ys = self._later(ys, rest, left, reverse, resets is not None)
        return (carry if verb is trajectory else final), ys

    def _nothing(self, xs: PyTree, axes: int, lead: tuple[int, ...]) -> PyTree:
        """M steps of zero input."""
        return jax.tree.map(
            lambda x: jnp.zeros((*lead, self.steps, *x.shape[axes + 1 :]), x.dtype), xs
        )

    def _later(self, ys: PyTree, rest: PyTree, left: Array, reverse: bool, every: bool) -> PyTree:
        """The layer's output M steps after each step, in `ys` or in what follows the episode.

        left: how many steps of the episode come after. every: whether `rest` follows every step,
        or the last one alone.
        """
        M, sign = self.steps, -1 if reverse else 1

        def of_row(left: Int[Array, " T"], y: Array, rest: Array) -> Array:
            T = left.shape[0]
            t = jnp.arange(T, dtype=left.dtype)
            beyond = jnp.clip(M - left - 1, 0, M - 1)
            end = jnp.clip(t + sign * left, 0, T - 1)
            later = y[jnp.clip(t + sign * M, 0, T - 1)]
            behind = rest[end, beyond] if every else rest[beyond]
            inside = (left >= M).reshape(T, *(1,) * (y.ndim - 1))
            return jnp.where(inside, later, behind)

        for _ in range(left.ndim - 1):
            of_row = jax.vmap(of_row)
        return jax.tree.map(lambda y, r: of_row(left, y, r), ys, rest)


def _at(tree: PyTree, index: Int[Array, "*lead"]) -> PyTree:
    """The entry of each row, along the time axis, at that row's index."""

    def take(row: Array, i: Array) -> Array:
        return row[i]

    for _ in range(index.ndim):
        take = jax.vmap(take)
    return jax.tree.map(lambda a: take(a, index), tree)


def _steps_left(
    lengths: Array | None,
    resets: Bool[Array, "*lead T"] | None,
    reverse: bool,
    shape: tuple[int, ...],
) -> Int[Array, "*lead T"]:
    """How many steps of the same episode come after each step, in the direction of travel."""
    T, axis = shape[-1], len(shape) - 1
    t = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), shape)
    if reverse:
        return t if resets is None else t - jax.lax.cummax(jnp.where(resets, t, 0), axis=axis)
    n = jnp.full(shape[:-1], T, jnp.int32) if lengths is None else jnp.asarray(lengths, jnp.int32)
    ends = jnp.broadcast_to(n[..., None], shape)
    if resets is not None:
        # the first reset after t
        ahead = jnp.where(resets, t, T)[..., 1:]
        ahead = jnp.concatenate([ahead, jnp.full((*shape[:-1], 1), T, jnp.int32)], axis=-1)
        ends = jnp.minimum(ends, jax.lax.cummin(ahead, axis=axis, reverse=True))
    return ends - 1 - t
