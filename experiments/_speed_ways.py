"""Where do methods that are parallel in time beat the scan? Over T and the size of the carry."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from experiments._speed_clock import compiled, in_rounds, warm_up
from jaxrnn import Associative, Newton, Scan
from jaxrnn.initializers import Normal

Advance = Callable[[float, str], Any]


class Way(NamedTuple):
    """A cell of one size, and what goes against the scan on it."""

    build: Callable[[int], Any]
    method: Any
    title: str
    most: int


# Elman with a gain of one half forgets fast, which is what Newton needs
WAYS = {
    "min-gru": Way(lambda n: jaxrnn.MinGRU(n, n), Associative(), "minGRU", 256),
    "lru": Way(lambda n: jaxrnn.LRU(n, n, n), Associative(), "LRU", 256),
    "ind-rnn": Way(lambda n: jaxrnn.IndRNN(n, n), Newton(), "IndRNN", 256),
    "elman": Way(
        lambda n: jaxrnn.Elman(n, n, recurrent_initializer=Normal(0.5)),
        Newton(),
        "Elman",
        16,
    ),
}


def plan(steps: Sequence[int], sizes: Sequence[int]) -> list[tuple[str, int, int]]:
    """Which way at which T and N."""
    fitting = [(name, N) for name, way in WAYS.items() for N in sizes if way.most >= N]
    return [(name, T, N) for name, N in fitting for T in steps]


def measure(
    cases: Sequence[tuple[str, int, int]], rounds: int, seed: int, advance: Advance
) -> list[dict]:
    """Seconds of the scan and of the parallel method, forward and training, one sequence at a time.

    `advance` goes up by one for each case.
    """
    rng, found = np.random.default_rng(seed), []
    for name, steps, size in cases:
        way = WAYS[name]
        cell = way.build(size)
        params = cell.init(jax.random.key(seed))
        xs = jax.random.normal(jax.random.key(seed + 1), (steps, size))
        advance(0, f"{way.title}, T = {steps}, N = {size}")
        report = jaxrnn.unroll_report(cell, params, xs, method=way.method)
        for what in ("forward", "training"):
            runners = [
                compiled(kind, "ours", _program(cell, method, what), params, xs)
                for kind, method in (("scan", Scan()), ("parallel", way.method))
            ]
            calls = [runner.call for runner in runners]
            taken = in_rounds(calls, [warm_up(call) for call in calls], rounds, rng, lambda: None)
            found.append(
                dict(
                    way=name,
                    steps=steps,
                    size=size,
                    what=what,
                    turns=None if report.turns is None else int(report.turns),
                    fell_back=bool(report.fell_back),
                    seconds=dict(zip(("scan", "parallel"), taken, strict=True)),
                )
            )
        advance(1, "")
    return found


def _program(cell: Any, method: Any, what: str) -> Callable:
    def forward(params: Any, xs: jax.Array) -> jax.Array:
        return jaxrnn.unroll(cell, params, xs, method=method)[1]

    def value(params: Any, xs: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(forward(params, xs)))

    return forward if what == "forward" else jax.value_and_grad(value)


def rows(found: Sequence[dict]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a table: how many times faster than the scan, forward / training."""
    steps = sorted({point["steps"] for point in found})
    table: dict[tuple[str, int], dict[int, dict[str, str]]] = {}
    for point in found:
        scan, parallel = (np.array(point["seconds"][k]) for k in ("scan", "parallel"))
        cell = table.setdefault((point["way"], point["size"]), {}).setdefault(point["steps"], {})
        cell[point["what"]] = f"{np.median(scan / parallel):.2g}"
        if point["turns"] is not None:
            cell["turns"] = f" ({point['turns']}{'!' if point['fell_back'] else ''})"
    lines = [
        [f"{WAYS[way].title}, N = {size}"]
        + [
            f"{c['forward']} / {c['training']}{c.get('turns', '')}" if c else "–"
            for c in (cells.get(T) for T in steps)
        ]
        for (way, size), cells in table.items()
    ]
    return ["", *(f"T = {T}" for T in steps)], lines
