"""An unroll written down in plain Python, row by row and step by step, and how to compare.

It knows nothing of `where`, `scan` or `vmap`: padding is not walked, and an episode that begins
starts from the initial carry because an `if` says so.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import cell as contract


class Seen(NamedTuple):
    """What an unroll gave, and the gradients of one number made of all of it."""

    carry: Any
    ys: Any
    gradients: Any


class Situation(NamedTuple):
    """What may befall an unroll; `key` holds one key for each row."""

    lengths: Any
    resets: Any
    key: Any


def by_hand(cell, params, xs, carry, situation, reverse=False, start=0):
    """`jaxrnn.unroll` on a batch of rows, in plain Python."""
    rows = [
        _row(
            cell,
            params,
            jax.tree.map(lambda a, b=b: a[b], xs),
            jax.tree.map(lambda a, b=b: a[b], carry),
            int(situation.lengths[b]),
            np.asarray(situation.resets[b]),
            situation.key[b],
            reverse,
            start,
        )
        for b in range(len(situation.lengths))
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def _row(cell, params, xs, carry, length, resets, key, reverse, start):
    step, initial = _jitted(cell)
    T = len(resets)
    ys = [None] * T
    for t in reversed(range(length)) if reverse else range(length):
        # an episode begins at t: forwards on coming to t, backwards on leaving it for t - 1
        begins = (t + 1 < length and resets[t + 1]) if reverse else resets[t]
        carry = initial(params) if begins else carry
        x = jax.tree.map(lambda a, t=t: a[t], xs)
        carry, ys[t] = step(params, carry, x, jax.random.fold_in(key, start + t))
    like = jax.eval_shape(step, params, carry, jax.tree.map(lambda a: a[0], xs), key)[1]
    nothing = jax.tree.map(lambda y: jnp.zeros(y.shape, y.dtype), like)
    ys = [nothing if y is None else y for y in ys]
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *ys)


@functools.cache
def _jitted(cell):
    return jax.jit(functools.partial(contract.step, cell)), jax.jit(cell.initial_carry)


def see(run, params, xs, carry) -> Seen:
    """What `run` gives, and the gradients of a fixed weighted sum of all of it.

    The gradients are those of the floating leaves of (params, xs, carry), in that order.
    """
    leaves, treedef = jax.tree.flatten((params, xs, carry))
    real = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def number(floating):
        floating = iter(floating)
        merged = [next(floating) if r else leaf for r, leaf in zip(real, leaves, strict=True)]
        out = run(*treedef.unflatten(merged))
        return weighted_sum(out), out

    floating = [leaf for r, leaf in zip(real, leaves, strict=True) if r]
    gradients, (carry, ys) = jax.grad(number, has_aux=True)(floating)
    # back in their places, so that a law can ask for the gradient of xs
    gradients = iter(gradients)
    gradients = treedef.unflatten([next(gradients) if r else None for r in real])
    return Seen(carry, ys, Gradients(*gradients))


class Gradients(NamedTuple):
    """With respect to what an unroll is given; None where there is none."""

    params: Any
    xs: Any
    carry: Any


def weighted_sum(tree):
    """A number to which every floating entry of the tree contributes with a weight of its own."""
    total = jnp.zeros((), jnp.float64)
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            weights = np.cos(1 + 3 * np.arange(leaf.size)).reshape(leaf.shape)
            total = total + jnp.sum(leaf.astype(jnp.float64) * weights)
    return total


def assert_close(got, want, rounding=1e-12):
    """Every array within `rounding` of the largest entry of what is wanted."""
    _compare(got, want, lambda size: rounding * size)


def assert_same(got, want):
    """Every array the same bit for bit."""
    _compare(got, want, lambda size: 0)


def _compare(got, want, allowed):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    leaves = jax.tree.leaves(want)
    for (path, g), w in zip(jax.tree_util.tree_leaves_with_path(got), leaves, strict=True):
        name = jax.tree_util.keystr(path)
        assert (g.shape, g.dtype) == (w.shape, w.dtype), name
        g, w = np.asarray(g, np.float64), np.asarray(w, np.float64)
        assert np.isfinite(w).all(), f"{name}: the reference itself is not finite"
        bound = allowed(np.abs(w).max(initial=0.0))
        np.testing.assert_allclose(g, w, rtol=0, atol=bound, err_msg=name)
