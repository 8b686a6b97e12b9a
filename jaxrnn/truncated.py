"""Long sequences in windows: the carry is handed on, gradients are cut (Williams and Peng 1990)."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from jaxrnn import cell as contract
from jaxrnn.methods import Method
from jaxrnn.sequences import Sequences, check_sequences, sequence_shape
from jaxrnn.unroll import check_method, unroll


def truncated(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    *,
    window: int,
    reach: int | None = None,
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> tuple[PyTree, PyTree]:
    """The values of `jaxrnn.unroll` with the gradients of truncated backpropagation through time.

    A pure function, so that `jax.grad` of any loss of its outputs *is* truncated BPTT. Time is cut
    into windows of k1 = `window` steps. Gradients of the outputs of a window reach back to
    `reach` = k2 steps before its end, and no further. With k2 = k1, the default, each window hands
    on its carry through `stop_gradient` and costs nothing extra; with k2 > k1 the k2 − k1 steps
    before each window are walked once more. With k2 ≥ T nothing is cut.

    Args:
        cell: a cell or a causal network.
        window: k1, the steps in a window; the last may be shorter.
        reach: k2 ≥ k1, how many steps back from the end of its window a gradient goes.
        All others: as for `jaxrnn.unroll`.

    Returns:
        carry: after the last real step, with the gradient of the last window.
        ys: `(*batch, T, …)`.

    Raises:
        ValueError: window or reach makes no sense; and whatever `jaxrnn.unroll` raises.
        TypeError: the network needs the future.
    """
    check_method(method)
    _check_windows(cell, window, window if reach is None else reach)
    given = check_sequences(
        cell, params, xs, carry=carry, lengths=lengths, resets=resets, key=key, start=start
    )
    *batch, steps = sequence_shape(cell, params, given.xs)
    context = (window if reach is None else reach) - window
    walk = _Walk(cell, params, given, len(batch), method)
    # the windows whose context begins at step 0; then as many as are alike; then what is left over
    whole, left = divmod(steps, window)
    early = min(context // window + 1, whole)
    begin = whole * window - context  # of the context of what is left over
    behind, last, pieces = given.carry, given.carry, []
    for w in range(early):
        last, ys = walk.piece(given.carry, 0, (w + 1) * window)
        pieces.append(walk.tail(ys, window))
    if begin > 0:
        behind = last if context == 0 else walk.advance(early * window - context)
    if whole > early:
        first = early * window - context
        behind, last, ys = walk.many(behind, first, window, context, whole - early)
        pieces.append(ys)
    if left or not pieces:
        last, ys = walk.piece(behind, max(0, begin), steps)
        pieces.append(walk.tail(ys, left))
    return last, jax.tree.map(lambda *a: jnp.concatenate(a, axis=len(batch)), *pieces)


def _check_windows(cell: Any, window: Any, reach: Any) -> None:
    for name, number, least in (("window", window, 1), ("reach", reach, window)):
        if type(number) is not int or number < least:
            raise ValueError(
                f"truncated: {name} must be an int of at least {least}, got {number!r}"
            )
    if not contract.is_causal(cell):
        raise TypeError(
            f"{type(cell).__name__} needs the future and cannot go window by window: "
            "use jaxrnn.unroll, or a causal network"
        )


class _Walk:
    """Stretches of one long sequence, each from a carry that gradients do not go behind."""

    def __init__(
        self, cell: Any, params: PyTree, given: Sequences, time: int, method: Method | None
    ) -> None:
        self.cell, self.params, self.given = cell, params, given
        self.time, self.method = time, method

    def piece(self, carry: PyTree | None, first: int, end: int) -> tuple[PyTree, PyTree]:
        """Steps first … end − 1; a carry from within is held constant, the first one is not."""
        xs, _, lengths, resets, keys = self.given
        lengths = None if lengths is None else jnp.clip(lengths - first, 0, end - first)
        carry = carry if first == 0 else jax.lax.stop_gradient(carry)
        xs, resets, keys = self._cut((xs, resets, keys), first, end)
        return self._unroll(carry, xs, lengths, resets, keys)

    def advance(self, end: int) -> PyTree:
        """The carry before step `end`, without a gradient."""
        return jax.lax.stop_gradient(self.piece(self.given.carry, 0, end)[0])

    def tail(self, ys: PyTree, steps: int) -> PyTree:
        """The last steps of ys."""
        end = jax.tree.leaves(ys)[0].shape[self.time]
        return self._cut(ys, end - steps, end)

    def many(
        self, behind: PyTree, first: int, window: int, context: int, count: int
    ) -> tuple[PyTree, PyTree, PyTree]:
        """`count` windows, each with its context before it, in one loop.

        behind: the carry before step `first`, where the context of the first window begins.
        Returns the carry where the context of the window after them begins, the one after the last
        of them, and ys.
        """
        xs, _, lengths, resets, keys = self.given
        starts = first + window * jnp.arange(count, dtype=jnp.int32)
        times = starts[:, None] + jnp.arange(window + context, dtype=jnp.int32)

        def cut(tree: PyTree) -> PyTree:
            return jax.tree.map(
                lambda a: jnp.moveaxis(jnp.take(a, times, axis=self.time), self.time, 0), tree
            )

        def body(state: tuple, piece: tuple) -> tuple[tuple, PyTree]:
            behind, _ = state
            begin, xs, resets, keys = piece
            behind = jax.lax.stop_gradient(behind)
            own = None if lengths is None else jnp.clip(lengths - begin, 0, window + context)
            last, ys = self._unroll(behind, xs, own, resets, keys)
            if context == 0:
                return (last, last), ys
            some = self._cut((xs, resets, keys), 0, window)
            own = None if lengths is None else jnp.clip(lengths - begin, 0, window)
            behind, _ = self._unroll(behind, some[0], own, *some[1:])
            return (jax.lax.stop_gradient(behind), last), self.tail(ys, window)

        pieces = (starts, cut(xs), cut(resets), cut(keys))
        (behind, last), ys = jax.lax.scan(body, (behind, behind), pieces)

        def joined(a: Array) -> Array:
            a = jnp.moveaxis(a, 0, self.time)
            shape = a.shape[: self.time], a.shape[self.time + 2 :]
            return a.reshape(*shape[0], count * window, *shape[1])

        return behind, last, jax.tree.map(joined, ys)

    def _cut(self, tree: PyTree, first: int, end: int) -> PyTree:
        return jax.tree.map(lambda a: jax.lax.slice_in_dim(a, first, end, axis=self.time), tree)

    def _unroll(
        self, carry: PyTree | None, xs: PyTree, lengths: Any, resets: Any, keys: Any
    ) -> tuple[PyTree, PyTree]:
        options = dict(lengths=lengths, resets=resets, key=keys, method=self.method)
        return unroll(self.cell, self.params, xs, carry=carry, **options)
