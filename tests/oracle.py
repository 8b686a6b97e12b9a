"""An unroll written down in plain Python, row by row and step by step, and how to compare.

It knows nothing of `where`, `scan` or `vmap`: padding is not walked, and an episode that begins
starts from the initial carry because an `if` says so.
"""

import contextlib
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

    The gradients are those of the floating and complex leaves of params, xs and carry.
    """
    whole = (params, xs, carry)

    def number(some):
        out = run(*merge(some, whole))
        return weighted_sum(out), out

    gradients, (carry, ys) = jax.grad(number, has_aux=True)(floating(whole))
    return Seen(carry, ys, Gradients(*gradients))


def weighted_sum(tree):
    """A number to which every floating entry of the tree contributes with a weight of its own."""

    def part(w, a):
        return jnp.sum((w * a.astype(w.dtype)).real)

    parts = jax.tree.map(part, weights(tree), floating(tree))
    return sum(jax.tree.leaves(parts), start=jnp.zeros((), jnp.float64))


def weights(tree):
    """The weights of `weighted_sum`, its gradient; None in the place of what is not floating."""

    def weight(leaf):
        w = np.cos(1 + 3 * np.arange(leaf.size)).reshape(leaf.shape)
        return w - 1j * np.sin(2 + 5 * w) if np.iscomplexobj(leaf) else w

    return jax.tree.map(weight, floating(tree))


def floating(tree):
    """The tree with None in the place of what is neither floating nor complex."""
    return jax.tree.map(
        lambda leaf: leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) else None, tree
    )


def merge(tree, rest):
    """The tree with what it lacks taken from the rest."""
    return jax.tree.map(lambda a, b: b if a is None else a, tree, rest, is_leaf=lambda a: a is None)


def seen_by_hand(cell, params, xs, carry, situation, reverse=False) -> Seen:
    """What `see` gives of `by_hand`, with backpropagation through time written out.

    The only derivative that JAX takes is that of one single step.
    """
    xs, carry, keys = _to_numpy((xs, carry, jax.random.key_data(situation.keys)))
    lengths, resets = np.asarray(situation.lengths), np.asarray(situation.resets)
    B, T = resets.shape
    step, initial, step_back, initial_back = _both_ways(cell)
    last, ys, tapes = [None] * B, {}, [[] for _ in range(B)]
    for b in range(B):
        last[b] = _at(carry, b)
        for t in reversed(range(lengths[b])) if reverse else range(lengths[b]):
            begins = (t + 1 < lengths[b] and resets[b, t + 1]) if reverse else resets[b, t]
            before = initial(params) if begins else last[b]
            tapes[b].append((t, begins, before))
            last[b], ys[b, t] = step(params, before, _at(xs, (b, t)), keys[b, t])
    nothing = jax.eval_shape(step, params, _at(carry, 0), _at(xs, (0, 0)), keys[0, 0])[1]
    nothing = jax.tree.map(lambda y: np.zeros(y.shape, y.dtype), nothing)
    last = _stack(last)
    ys = _stack([_stack([ys.get((b, t), nothing) for t in range(T)]) for b in range(B)])

    d_last, d_ys = weights((last, ys))
    d_params, d_xs, d_carry = jax.tree.map(np.zeros_like, _to_numpy(floating((params, xs, carry))))
    for b in range(B):
        back = _at(d_last, b)
        for t, begins, before in reversed(tapes[b]):
            of_params, back, of_x = step_back(
                params, before, _at(xs, (b, t)), keys[b, t], back, _at(d_ys, (b, t))
            )
            d_params = jax.tree.map(np.add, d_params, of_params)
            _put(d_xs, (b, t), of_x)
            if begins:  # what flows further back flows into the initial carry, and no earlier
                d_params = jax.tree.map(np.add, d_params, initial_back(params, back))
                back = jax.tree.map(np.zeros_like, back)
        _put(d_carry, b, back)
    return Seen(last, ys, Gradients(d_params, d_xs, d_carry))


@functools.cache
def _both_ways(cell):
    def step(params, carry, x, key):
        return contract.step(cell, params, carry, x, jax.random.wrap_key_data(key))

    def step_back(params, carry, x, key, d_carry, d_y):
        def of_floating(*some):
            return floating(step(*map(merge, some, (params, carry, x)), key))

        _, pull = jax.vjp(of_floating, *map(floating, (params, carry, x)))
        return pull((d_carry, d_y))

    def initial_back(params, d_carry):
        _, pull = jax.vjp(
            lambda p: floating(cell.initial_carry(merge(p, params))), floating(params)
        )
        return pull(d_carry)[0]

    return tuple(map(jax.jit, (step, cell.initial_carry, step_back, initial_back)))


def _to_numpy(tree):
    return jax.tree.map(np.asarray, tree)


def _at(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _stack(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _put(tree, index, values):
    for leaf, value in zip(jax.tree.leaves(tree), jax.tree.leaves(values), strict=True):
        leaf[index] = value


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
        wide = np.complex128 if np.iscomplexobj(w) else np.float64
        g, w = np.asarray(g, wide), np.asarray(w, wide)
        assert np.isfinite(w).all(), f"{name}: the reference itself is not finite"
        bound = allowed(np.abs(w).max(initial=0.0))
        np.testing.assert_allclose(g, w, rtol=0, atol=bound, err_msg=name)


@contextlib.contextmanager
def compilations():
    """The programs that XLA compiles within, by how long each took."""
    found = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
