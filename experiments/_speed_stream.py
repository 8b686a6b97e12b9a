"""Streaming: one step at a time through two layers of LSTM, the carry handed on, B = 1.

In two manners: the steps follow one another, which is what a step costs; or every step waits for
its output, as whoever acts on it does, which adds what it takes to wake up.
"""

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from experiments._speed_cases import draw_params
from experiments._speed_clock import in_rounds, warm_up
from experiments._speed_peers import PEERS, cores

LAYERS = 2
EMPTY = "the same call without products"  # what it takes to hand arrays to XLA and back
# goes through all steps; given True, it waits after each, and only at the end otherwise
Walk = Callable[[bool], Any]


def measure(
    size: int,
    steps: int,
    peers: Sequence[str],
    rounds: int,
    seed: int,
    after_round: Callable[[], Any],
) -> dict:
    """Seconds per step of every contender in every round; I = H = `size`."""
    xs = np.random.default_rng(seed).standard_normal((steps, size), np.float32)
    walks = {"ours": _ours(xs)}
    for name in peers:
        for suffix, build in BUILDERS.get(name, {}).items():
            walks[PEERS[name].title + suffix] = build(xs)
    walks[EMPTY] = _empty(xs)
    calls = {(n, w): functools.partial(walk, w) for n, walk in walks.items() for w in (False, True)}
    alone = [warm_up(call) for call in calls.values()]
    rng = np.random.default_rng(seed)
    taken = in_rounds(list(calls.values()), alone, rounds, rng, after_round)
    per_step = {key: [s / steps for s in t] for key, t in zip(calls, taken, strict=True)}
    return {
        "size": size,
        "steps": steps,
        "layers": LAYERS,
        "seconds": {name: per_step[name, False] for name in walks},
        "waiting": {name: per_step[name, True] for name in walks},
    }


def _walk(
    step: Callable[[Any, Any, Any], tuple[Any, Any]], params: Any, carry: Any, xs: Sequence[Any]
) -> Walk:
    def walk(waiting: bool) -> Any:
        now, y = carry, None
        for x in xs:
            now, y = step(params, now, x)
            if waiting:
                y.block_until_ready()
        return jax.block_until_ready(y)

    return walk


def _rows(xs: np.ndarray, *lead: int) -> list[jax.Array]:
    return [jnp.asarray(x.reshape(*lead, -1)) for x in xs]


def _ours(xs: np.ndarray) -> Walk:
    size = xs.shape[-1]
    stack = jaxrnn.Stack((jaxrnn.LSTM(size, size),) * LAYERS)
    init = functools.partial(stack.init, dtype=jnp.float32)
    params = draw_params(init, jax.random.key(0), size=size)
    step = jax.jit(stack.step)
    return _walk(step, params, stack.initial_carry(params), _rows(xs))


def _empty(xs: np.ndarray) -> Walk:
    size = xs.shape[-1]
    stack = jaxrnn.Stack((jaxrnn.LSTM(size, size),) * LAYERS)
    init = functools.partial(stack.init, dtype=jnp.float32)
    params = draw_params(init, jax.random.key(0), size=size)

    @functools.partial(jax.jit, keep_unused=True)
    def step(params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        after = jax.tree.map(lambda a: a + x, carry)
        return after, after[-1].h

    return _walk(step, params, stack.initial_carry(params), _rows(xs))


def _torch_cells(xs: np.ndarray) -> Walk:
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(cores())
    size = xs.shape[-1]
    first, second = (torch.nn.LSTMCell(size, size) for _ in range(LAYERS))
    rows = [torch.from_numpy(x.reshape(1, -1)) for x in xs]
    zeros = torch.zeros(1, size)

    def walk(waiting: bool) -> Any:  # it always does
        with torch.no_grad():
            below = above = (zeros, zeros)
            for x in rows:
                below = first(x, below)
                above = second(below[0], above)
        return above

    return walk


def _torch_layers(xs: np.ndarray) -> Walk:
    torch: Any = importlib.import_module("torch")
    size = xs.shape[-1]
    layers = torch.nn.LSTM(size, size, num_layers=LAYERS)
    rows = [torch.from_numpy(x.reshape(1, 1, -1)) for x in xs]

    def walk(waiting: bool) -> Any:  # it always does
        carry = None
        with torch.no_grad():
            for x in rows:
                _, carry = layers(x, carry)
        return carry

    return walk


def _linen(xs: np.ndarray) -> Walk:
    nn: Any = importlib.import_module("flax.linen")
    size, rows = xs.shape[-1], _rows(xs, 1)
    cells = [nn.OptimizedLSTMCell(size) for _ in range(LAYERS)]
    keys = jax.random.split(jax.random.key(0), LAYERS)
    carry = [cell.initialize_carry(keys[0], rows[0].shape) for cell in cells]
    params = [
        draw_params(cell.init, key, c, rows[0], size=size)
        for cell, key, c in zip(cells, keys, carry, strict=True)
    ]

    @jax.jit
    def step(params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        after = []
        for cell, p, c in zip(cells, params, carry, strict=True):
            c, x = cell.apply(p, c, x)
            after.append(c)
        return after, x

    return _walk(step, params, carry, rows)


def _equinox(xs: np.ndarray) -> Walk:
    eqx: Any = importlib.import_module("equinox")
    size = xs.shape[-1]
    keys = jax.random.split(jax.random.key(0), LAYERS)
    cells = [eqx.nn.LSTMCell(size, size, key=key) for key in keys]
    zeros = jnp.zeros(size, jnp.float32)

    @jax.jit
    def step(cells: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        after = []
        for cell, c in zip(cells, carry, strict=True):
            after.append(cell(x, c))
            x = after[-1][0]
        return after, x

    return _walk(step, cells, [(zeros, zeros)] * LAYERS, _rows(xs))


def _haiku(xs: np.ndarray) -> Walk:
    hk: Any = importlib.import_module("haiku")
    size, rows = xs.shape[-1], _rows(xs)

    def network(x: Any, carry: Any) -> Any:
        core = hk.DeepRNN([hk.LSTM(size) for _ in range(LAYERS)])
        return core(x, core.initial_state(None) if carry is None else carry)

    transformed = hk.without_apply_rng(hk.transform(network))
    params = draw_params(lambda x: transformed.init(jax.random.key(0), x, None), rows[0], size=size)
    shapes = jax.eval_shape(lambda x: transformed.apply(params, x, None)[1], rows[0])
    carry = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    @jax.jit
    def step(params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        return transformed.apply(params, x, carry)[::-1]

    return _walk(step, params, carry, rows)


CELLS = " LSTMCell twice"
BUILDERS: dict[str, dict[str, Callable[[np.ndarray], Walk]]] = {
    "torch": {CELLS: _torch_cells, " LSTM, two layers": _torch_layers},
    "linen": {"": _linen},
    "equinox": {"": _equinox},
    "haiku": {"": _haiku},
}
