"""An unroll written down in plain Python, row by row and step by step, and how to compare.

It knows nothing of `where`, `scan` or `vmap`: padding is not walked, and an episode that begins
starts from the initial carry because an `if` says so.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import Bidirectional, BidirectionalCarry, Readout, Residual, Stack
from jaxrnn import cell as contract


class Seen(NamedTuple):
    """What an unroll gave, and the gradients of one number made of all of it."""

    carry: Any
    ys: Any
    gradients: Any


class Situation(NamedTuple):
    """What may befall an unroll of B rows; `keys` holds one for each step of each row."""

    lengths: Any
    resets: Any
    keys: Any


def situation(lengths, resets, seed=0) -> Situation:
    """A situation from nested lists or arrays."""
    resets = jnp.asarray(resets, bool)
    keys = jax.random.split(jax.random.key(seed), resets.shape)
    return Situation(jnp.asarray(lengths, jnp.int32), resets, keys)


def by_hand(cell, params, xs, carry, situation, reverse=False):
    """`jaxrnn.unroll` on a batch of rows, in plain Python."""
    rows = [
        _row(
            cell,
            params,
            jax.tree.map(lambda a, b=b: a[b], xs),
            jax.tree.map(lambda a, b=b: a[b], carry),
            int(situation.lengths[b]),
            np.asarray(situation.resets[b]),
            situation.keys[b],
            reverse,
        )
        for b in range(len(situation.lengths))
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def _row(cell, params, xs, carry, length, resets, keys, reverse):
    step, initial = _jitted(cell)
    T = len(resets)
    ys = [None] * T
    for t in reversed(range(length)) if reverse else range(length):
        # an episode begins at t: forwards on coming to t, backwards on leaving it for t - 1
        begins = (t + 1 < length and resets[t + 1]) if reverse else resets[t]
        carry = initial(params) if begins else carry
        x = jax.tree.map(lambda a, t=t: a[t], xs)
        carry, ys[t] = step(params, carry, x, keys[t])
    like = jax.eval_shape(step, params, carry, jax.tree.map(lambda a: a[0], xs), keys[0])[1]
    nothing = jax.tree.map(lambda y: jnp.zeros(y.shape, y.dtype), like)
    ys = [nothing if y is None else y for y in ys]
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *ys)


@functools.cache
def _jitted(cell):
    return jax.jit(functools.partial(contract.step, cell)), jax.jit(cell.initial_carry)


def network_by_hand(network, params, xs, carry, situation, reverse=False):
    """The same for a network, layer by layer, whatever it is made of."""
    again = functools.partial(network_by_hand, reverse=reverse)
    if isinstance(network, Stack):
        return _stack_by_hand(network, params, xs, carry, situation, again)
    if isinstance(network, Bidirectional):
        fold = [situation._replace(keys=_fold(situation.keys, i)) for i in range(2)]
        there, ys = again(network.forward, params.forward, xs, carry.forward, fold[0])
        back, zs = network_by_hand(
            network.backward, params.backward, xs, carry.backward, fold[1], reverse=True
        )
        out, carry = jnp.concatenate([ys, zs], axis=-1), BidirectionalCarry(there, back)
    elif isinstance(network, Residual) and not network.feed_back:
        carry, ys = again(network.layer, params.layer, xs, carry, situation)
        out = ys + (xs if params.W is None else xs @ params.W.T)
    elif isinstance(network, Readout):
        carry, ys = again(network.network, params.network, xs, carry, situation)
        out = ys @ params.W.T + params.b
    else:
        return by_hand(network, params, xs, carry, situation, reverse)
    padding = jnp.arange(out.shape[1], dtype=jnp.int32) >= situation.lengths[:, None]
    return carry, jnp.where(padding[..., None], 0.0, out)


def _stack_by_hand(stack, params, xs, carry, situation, again):
    after, top = [], len(stack.layers) - 1
    for i, layer in enumerate(stack.layers):
        own = situation._replace(keys=_fold(situation.keys, 2 * i))
        new, xs = again(layer, params[i], xs, carry[i], own)
        after.append(new)
        if i < top and stack.dropout:
            draw = functools.partial(jax.random.bernoulli, p=1 - stack.dropout, shape=xs.shape[2:])
            kept = jax.vmap(jax.vmap(draw))(_fold(situation.keys, 2 * i + 1))
            xs = jnp.where(kept, xs / (1 - stack.dropout), 0.0)
    return tuple(after), xs


def _fold(keys, number):
    return jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (0, None))(keys, number)


class Gradients(NamedTuple):
    """With respect to what an unroll is given; None where there is none."""

    params: Any
    xs: Any
    carry: Any


def see(run, params, xs, carry) -> Seen:
    """What `run` gives, and the gradients of a fixed weighted sum of all of it.

    The gradients are those of the floating leaves of params, xs and carry.
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
    gradients = iter(gradients)
    gradients = treedef.unflatten([next(gradients) if r else None for r in real])
    return Seen(carry, ys, Gradients(*gradients))


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
