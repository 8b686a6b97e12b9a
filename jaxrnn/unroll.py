"""`unroll` and `trajectory`: any cell or network through time.

Batch axes, lengths, resets and direction are lowered here, once, to the form of
`methods/lowered.py`; a method sees one sequence and nothing of them.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int, PyTree

from jaxrnn import cell as contract
from jaxrnn.methods import Method, Moment, Scan


def unroll(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    *,
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> tuple[PyTree, PyTree]:
    """Runs a cell or network over sequences.

    Args:
        cell: a cell or network, ours or anything with `init`, `initial_carry` and `step`.
        params: what `cell.init` returned, or the same with other numbers.
        xs: `(*batch, T, *moment)`, an array or a tree of arrays, in the dtype of params.
        carry: what the first step starts from, `(*batch, …)`; `initial_carry(params)` by default.
        lengths: `(*batch,)`, 0…T: how many steps of each row are real. Padding changes nothing,
            not even if it is NaN; its outputs and gradients are exactly zero.
        resets: bool `(*batch, T)`: an episode begins at t. Forwards, the carry before step t is
            `initial_carry(params)`; with `reverse`, the carry before step t − 1 is.
        reverse: from the last real step to the first. `ys[t]` still belongs to `xs[t]`.
        method: how: `Loop()`, `Scan(…)`; None chooses.
        key: None for no noise; one key, or one for each row, `(*batch,)`, or one for each step,
            `(*batch, T)`. Step t of row b uses `fold_in(fold_in(key, b), start + t)`.
        start: the index of `xs[0]` in a longer sequence that is fed in pieces.

    Returns:
        carry: after the last real step in the direction of travel, `(*batch, …)`.
        ys: `(*batch, T, …)`, zero at padding.

    Raises:
        ValueError, TypeError: a shape, dtype or structure does not fit; nothing has run yet.
    """
    return _checked(cell, params, xs, carry, lengths, resets, reverse, method, key, start, False)


def trajectory(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    *,
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> tuple[PyTree, PyTree]:
    """Like `unroll`, but returns the carry after *every* step, `(*batch, T, …)`, and ys.

    `carries[t]` is the carry after the step at `xs[t]`; at padding it is the one held there.
    """
    return _checked(cell, params, xs, carry, lengths, resets, reverse, method, key, start, True)


def _checked(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    carry: PyTree | None,
    lengths: Any,
    resets: Any,
    reverse: bool,
    method: Method | None,
    key: Array | None,
    start: int | Array,
    every: bool,
) -> tuple[PyTree, PyTree]:
    contract.check_cell(cell)
    check_reverse(reverse)
    *batch, steps = sequence_shape(cell, params, xs)
    batch = tuple(batch)
    carry = check_carry(cell, params, carry, batch)
    lengths = check_lengths(lengths, batch, steps)
    resets = check_resets(resets, batch, steps)
    keys = step_keys(key, start, batch, steps)
    method = choose_method(method)
    return _run(cell, method, bool(reverse), every, params, carry, xs, lengths, resets, keys)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(
    cell: Any,
    method: Method,
    reverse: bool,
    every: bool,
    params: PyTree,
    carry: PyTree | None,
    xs: PyTree,
    lengths: Array | None,
    resets: Array | None,
    keys: Array | None,
) -> tuple[PyTree, PyTree]:
    *batch, steps = sequence_shape(cell, params, xs)
    if carry is None:
        carry = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (*batch, *jnp.shape(leaf))),
            cell.initial_carry(params),
        )
    if isinstance(cell, contract.Network):
        # here too, for what a network does to xs outside its layers: W x of a residual connection
        xs = xs if lengths is None else _without_padding(xs, lengths)
        out, ys = cell.unroll(
            params,
            xs,
            verb=trajectory if every else unroll,
            carry=carry,
            lengths=lengths,
            resets=resets,
            reverse=reverse,
            method=method,
            key=keys,
        )
    else:

        def one_sequence(carry, xs, length, resets, keys):
            moments = lower(xs, length, resets, keys, reverse)
            first = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), moments)
            contract.check_step_keeps_carry(cell, params, carry, first.x, first.key)
            return method(cell, params, carry, moments, reverse=reverse, every=every)

        for _ in batch:
            one_sequence = jax.vmap(one_sequence)
        out, ys = one_sequence(carry, xs, lengths, resets, keys)
    if lengths is not None:
        ys = zero_padding(ys, lengths, steps)
    return out, ys


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


def _without_padding(xs: PyTree, lengths: Array) -> PyTree:
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


def choose_method(method: Method | None) -> Method:
    """The method itself, or the one that is best when none is named."""
    if method is None:
        return Scan()
    if isinstance(method, type) or not callable(method):
        got = f"the class {method.__name__}" if isinstance(method, type) else repr(method)
        raise TypeError(f"method must be an object such as Scan() or Loop(), got {got}")
    contract.check_hash(method)
    return method


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
    lengths = _array(lengths)
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
    resets = _array(resets)
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


def _array(value: Any) -> Any:
    # lists too; what is an array already stays what it is, traced or not
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
