"""Sequences as the user hands them in, checked, and lowered to what a method is given."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PyTree

from jaxrnn import cell as contract
from jaxrnn.methods import Moment


class Sequences(NamedTuple):
    """Checked arguments of an unroll, each with its batch axes, or None.

    keys: one for each step, `(*batch, T)`.
    """

    xs: PyTree
    carry: PyTree | None
    lengths: Array | None
    resets: Array | None
    keys: Array | None


def check_sequences(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    *,
    carry: PyTree | None = None,
    lengths: Any = None,
    resets: Any = None,
    reverse: Any = False,
    key: Array | None = None,
    start: int | Array = 0,
) -> Sequences:
    """The arguments of an unroll, or an error: what was got, what was expected, what to do."""
    contract.check_cell(cell)
    check_reverse(reverse)
    *batch, steps = sequence_shape(cell, params, xs)
    batch = tuple(batch)
    return Sequences(
        xs,
        check_carry(cell, params, carry, batch),
        check_lengths(lengths, batch, steps),
        check_resets(resets, batch, steps),
        step_keys(key, start, batch, steps),
    )


def lower(
    xs: PyTree, length: Array | None, resets: Array | None, keys: Array | None, reverse: bool
) -> Moment:
    """One sequence as moments: padding replaced, `real` and `fresh` in the direction of travel."""
    if length is None:
        real = None
    else:
        steps = jax.tree.leaves(xs)[0].shape[0]
        real = jnp.arange(steps, dtype=jnp.int32) < length
        xs = jax.tree.map(lambda leaf: _replace_padding(leaf, real, length), xs)
        resets = None if resets is None else resets & real
    fresh = resets
    if reverse and resets is not None:
        # walking backwards, the episode that begins at t is left before step t − 1
        fresh = jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])])
    return Moment(xs, real, fresh, keys)


def without_padding(xs: PyTree, lengths: Array) -> PyTree:
    """xs with every row's padding replaced, as `lower` does it."""

    def one_sequence(xs: PyTree, length: Array) -> PyTree:
        return lower(xs, length, None, None, False).x

    for _ in range(lengths.ndim):
        one_sequence = jax.vmap(one_sequence)
    return one_sequence(xs, lengths)


def _replace_padding(leaf: Array, real: Array, length: Array) -> Array:
    # by the row's last real input, which the step is known to bear; by zeros if there is none
    if leaf.shape[0] == 0:
        return leaf
    last = leaf[jnp.maximum(length - 1, 0)]
    last = jnp.where(length > 0, last, jnp.zeros_like(last))
    return jnp.where(_trailing(real, leaf), leaf, jax.lax.stop_gradient(last))


def zero_padding(ys: PyTree, lengths: Array, steps: int) -> PyTree:
    """ys with exact zeros behind each row's length."""
    real = jnp.arange(steps, dtype=jnp.int32) < lengths[..., None]
    return jax.tree.map(lambda y: jnp.where(_trailing(real, y), y, jnp.zeros_like(y)), ys)


def _trailing(flags: Array, like: Array) -> Array:
    return flags.reshape(*flags.shape, *(1,) * (like.ndim - flags.ndim))


def check_reverse(reverse: Any) -> None:
    """Raises if the direction is not known when the program is traced."""
    if isinstance(reverse, Tracer):
        raise TypeError(
            "reverse must be True or False, got a traced array: set it inside the function that "
            "is jitted, or name it in static_argnames"
        )


def sequence_shape(cell: Any, params: PyTree, xs: PyTree) -> tuple[int, ...]:
    """`(*batch, T)` of xs, or an error that says which array does not fit."""
    leaves = jax.tree_util.tree_leaves_with_path(xs)
    if not leaves:
        raise ValueError(
            "xs holds no array, so T is unknown: for a cell without input, pass jnp.zeros((T, 0))"
        )
    ranks = jax.tree.leaves(jax.tree.broadcast(getattr(cell, "input_rank", 1), xs))
    dtype = contract.params_dtype(params)
    shapes = []
    for (path, leaf), rank in zip(leaves, ranks, strict=True):
        name = "xs" + jax.tree_util.keystr(path)
        shape, got = np.shape(leaf), jnp.result_type(leaf)
        if len(shape) <= rank:
            moment = ["…"] * (rank - 1) + ["features"] * (rank > 0)
            axes = ", ".join(["*batch", "T", *moment])
            raise ValueError(f"{name} has shape {shape}, expected ({axes})")
        if jnp.issubdtype(got, jnp.inexact) and dtype and jnp.finfo(got).dtype != dtype:
            raise ValueError(
                f"{name} has dtype {got}, expected {dtype}, the dtype of params: "
                f"convert one of them, e.g. xs.astype({dtype.name!r})"
            )
        shapes.append((name, shape[: len(shape) - rank]))
    for name, shape in shapes[1:]:
        if shape != shapes[0][1]:
            raise ValueError(
                f"{name} has leading axes (*batch, T) = {shape}, "
                f"but {shapes[0][0]} has {shapes[0][1]}"
            )
    _check_features(cell, leaves, ranks)
    return shapes[0][1]


def _check_features(cell: Any, leaves: list, ranks: list) -> None:
    size = getattr(cell, "input_size", None)
    if isinstance(size, int) and len(leaves) == 1 and ranks == [1]:
        got = np.shape(leaves[0][1])
        if got[-1] != size:
            raise ValueError(
                f"xs has shape {got}: {got[-1]} features, but {type(cell).__name__} was made for "
                f"input_size={size}; the axes are (*batch, T, features)"
            )


def check_carry(
    cell: Any, params: PyTree, carry: PyTree | None, batch: tuple[int, ...]
) -> PyTree | None:
    """The carry to start from, if one is passed in, or an error that says which field is off."""
    if carry is None:
        return None
    one = jax.eval_shape(lambda p: jax.tree.map(jnp.asarray, cell.initial_carry(p)), params)
    expected = jax.tree.map(lambda s: jax.ShapeDtypeStruct((*batch, *s.shape), s.dtype), one)
    carry = jax.tree.map(jnp.asarray, carry)
    if jax.tree.structure(carry) != jax.tree.structure(expected):
        raise ValueError(
            f"carry has another structure than {type(cell).__name__}.initial_carry: "
            f"got {contract.describe(carry)}, expected {contract.describe(expected)}"
        )
    for (path, got), want in zip(
        jax.tree_util.tree_leaves_with_path(carry), jax.tree.leaves(expected), strict=True
    ):
        if got.shape != want.shape or got.dtype != want.dtype:
            raise ValueError(
                f"carry{jax.tree_util.keystr(path)} is {contract.describe(got)}, "
                f"expected {contract.describe(want)}, one for each row of the batch"
            )
    return carry


def check_lengths(lengths: Any, batch: tuple[int, ...], steps: int) -> Array | None:
    """lengths as an int32 array within 0…T, or an error."""
    if lengths is None:
        return None
    lengths = as_array(lengths)
    if not jnp.issubdtype(jnp.result_type(lengths), jnp.integer):
        raise TypeError(f"lengths must be integers, got {jnp.result_type(lengths)}")
    if np.shape(lengths) != batch:
        raise ValueError(
            f"lengths has shape {np.shape(lengths)}, expected {batch}: one for each row of xs"
        )
    if isinstance(lengths, Tracer):
        return jnp.clip(lengths.astype(jnp.int32), 0, steps)
    concrete = np.asarray(lengths)
    if concrete.size and (concrete.min() < 0 or concrete.max() > steps):
        wrong = concrete.min() if concrete.min() < 0 else concrete.max()
        raise ValueError(f"lengths holds {wrong}, expected 0…{steps}, the number of steps in xs")
    return jnp.asarray(lengths, jnp.int32)


def check_resets(resets: Any, batch: tuple[int, ...], steps: int) -> Array | None:
    """resets as a bool array, or an error."""
    if resets is None:
        return None
    resets = as_array(resets)
    if jnp.result_type(resets) != jnp.bool_:
        raise TypeError(
            f"resets must be bool, got {jnp.result_type(resets)}: use resets.astype(bool)"
        )
    if np.shape(resets) != (*batch, steps):
        raise ValueError(
            f"resets has shape {np.shape(resets)}, expected {(*batch, steps)}: "
            "one for each step of xs"
        )
    return jnp.asarray(resets)


def check_start(start: Any) -> Array:
    """The index of the first step as the unsigned number that keys are folded with."""
    whole = np.shape(start) == () and jnp.issubdtype(jnp.result_type(start), jnp.integer)
    if not whole or (not isinstance(start, Tracer) and start < 0):
        raise ValueError(f"start must be an integer of at least 0, got {start}")
    return jnp.asarray(start).astype(jnp.uint32)


def as_array(value: Any) -> Any:
    """Lists as arrays; what is an array already stays what it is, traced or not."""
    return value if hasattr(value, "dtype") else np.asarray(value)


def step_keys(
    key: Array | None, start: int | Array, batch: tuple[int, ...], steps: int
) -> Array | None:
    """One key for each step of each row, `(*batch, T)`."""
    if key is None:
        return None
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"key must come from jax.random.key(seed), got {contract.describe(key)}: "
            "wrap an old one by jax.random.wrap_key_data"
        )
    if key.shape == (*batch, steps):
        return key
    if key.shape == () and batch:
        rows = jnp.arange(int(np.prod(batch)))
        key = jax.vmap(jax.random.fold_in, (None, 0))(key, rows).reshape(batch)
    if key.shape != batch:
        raise ValueError(
            f"key has shape {key.shape}, expected (), {batch} or {(*batch, steps)}: "
            "one, one for each row, or one for each step"
        )
    times = jnp.arange(steps, dtype=jnp.uint32) + check_start(start)
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    for _ in batch:
        fold = jax.vmap(fold, (0, None))
    return fold(key, times)
