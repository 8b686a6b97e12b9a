"""The tables of `speed`."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from experiments import _common as common
from experiments import _speed_ways as ways
from experiments._speed_floor import NAME as FLOOR
from experiments._speed_grid import BATCH_FIRST, CHECKPOINT, DEFAULT_GRU, OURS
from experiments._speed_peers import PEERS
from experiments._speed_report import label, quantiles, summary, times, where

SHORT = {
    BATCH_FIRST: "(B, T, I)",
    DEFAULT_GRU: "default",
    CHECKPOINT: "checkpt",
    "Flax linen": "linen",
    "Flax nnx": "nnx",
    FLOOR: "products",
}


def print_all(result: dict) -> None:
    """Everything that was measured, and the verdicts."""
    points, say = result["points"], common.console().print
    if points:
        _print_grid(result)
    if result["streaming"]:
        _print_streaming(result["streaming"])
    for curve in result["curves"]:
        _print_curve(curve)
    if result["ways"]:
        columns, lines = ways.rows(result["ways"])
        common.print_table(
            "Table 9. Parallel in time, B = 1: times as fast as Scan, forward / training "
            "(turns of Newton, ! if it fell back)", columns, lines,
        )  # fmt: skip
    for line in (*result["warnings"], *left_out(points, result["config"]["limit"])):
        say(f"Note: {line}")
    words = {True: "Holds", False: "Does not hold", None: "Not measured"}
    for number, v in enumerate(result["verdicts"], 1):
        measured = f" Measured: {v['measured']}." if v["measured"] else ""
        say(f"{number}. {words[v['holds']]}: {v['claim']}.{measured}")


def _print_grid(result: dict) -> None:
    points, say = result["points"], common.console().print
    columns = ("cell, BxTxIxH", "ours", "best peer", "[10–90 %]", "best in JAX", "[10–90 %]",
               "/ products")  # fmt: skip
    common.print_table(
        "Table 1. Ours, median ms; theirs / ours: above 1, ours is faster; ours / its products",
        columns, list(main_rows(points)),
    )  # fmt: skip
    means = result["means"]
    found = [f"{n}: {means[key]:.2f}" for key, n in MEANS.items() if means[key] is not None]
    if found:
        say(f"Geometric mean over {len(points)} points of theirs / ours, {', '.join(found)}.")
    _print_times(points, result["config"]["rounds"])
    training = [point for point in points if point["task"] == "training"]
    title = "Table 6. Training: temporary buffers and outputs, as XLA counts them"
    common.print_table(title, ("MiB", *_heads(training)), list(byte_rows(training)))
    title = "Table 7. Tracing and compiling, median over points"
    common.print_table(title, ("seconds", *_heads(points)), list(compile_rows(points)))
    say(
        "ours: on data with time first, the GRU in PyTorch's form; (B, T, I): the same on data "
        "with the batch first; default: GRU() as it stands; checkpt: Staged(checkpoint=True); "
        "products: the same matrix products, step by step and alone."
    )
    for name in result["peers"]:
        say(f"{PEERS[name].title}: {PEERS[name].note}.")


def _print_times(points: list[dict], rounds: int) -> None:
    number = 2
    for task in dict.fromkeys(point["task"] for point in points):
        some = [point for point in points if point["task"] == task]
        for word, statistic in (("median", np.median), ("least", np.min)):
            title = f"Table {number}. {task.capitalize()}, {word} of {rounds} rounds"
            common.print_table(title, ("ms", *_heads(some)), list(time_rows(some, statistic)))
            number += 1


def _heads(points: list[dict]) -> list[str]:
    return [SHORT.get(name, name) for name in names(points)]


MEANS = {"peer_over_ours": "the best peer", "jax_peer_over_ours": "the best JAX peer"}


def _print_streaming(streaming: dict) -> None:
    seconds = {name: np.array(found) for name, found in streaming["seconds"].items()}
    waiting = {name: 1e6 * np.median(found) for name, found in streaming["waiting"].items()}
    rows = [
        [
            name,
            f"{1e6 * t.min():.1f}",
            f"{1e6 * np.median(t):.1f}",
            spread(seconds[OURS] / t),
            f"{waiting[name]:.1f}",
        ]
        for name, t in seconds.items()
    ]
    size, steps = streaming["size"], streaming["steps"]
    title = f"Table 8. Two LSTMs streamed, I = H = {size}, {steps} steps"
    heads = ("µs per step", "least", "median", "ours / theirs", "waiting for every step")
    common.print_table(title, heads, rows)


def _print_curve(curve: dict) -> None:
    values = curve[curve["axis"]]
    rows = [
        [name, *(f"{1e6 * np.median(t):.1f}" for t in found)]
        for name, found in curve["seconds"].items()
    ]
    fixed = ", ".join(
        f"{letter} = {curve[field]}"
        for letter, field in (("B", "batch"), ("T", "steps"), ("I = H", "hidden_size"))
        if field != curve["axis"]
    )
    letter = {"steps": "T", "batch": "B"}[curve["axis"]]
    common.print_table(
        f"LSTM forward, {fixed}", ("µs per step", *(f"{letter} = {v}" for v in values)), rows
    )


# ---- rows


def milliseconds(seconds: float) -> str:
    """Three digits, or so."""
    ms = 1e3 * seconds
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}"


def spread(ratios: np.ndarray) -> str:
    """Median and, in brackets, 10 and 90 %."""
    return _bracket(quantiles(ratios))


def _bracket(ratio: list[float] | None) -> str:
    return "–" if ratio is None else f"{ratio[1]:.2f} [{ratio[0]:.2f}–{ratio[2]:.2f}]"


def names(points: list[dict]) -> list[str]:
    """All contenders in the order of the tables, the floor last."""
    found = dict.fromkeys(c["name"] for p in points for c in p["contenders"])
    return [name for name in found if name != FLOOR] + [FLOOR]


def main_rows(points: list[dict]) -> Iterable[list[str]]:
    """Table 1: ours against the best."""
    for point in points:
        s, ours = summary(point), times(point)[OURS]
        yield [
            label(point),
            milliseconds(float(np.median(ours))),
            s["best_peer"] or "–",
            _bracket(s["peer_over_ours"]),
            s["best_jax_peer"] or "–",
            _bracket(s["jax_peer_over_ours"]),
            f"{s['ours_over_floor'][1]:.2f}",
        ]


def time_rows(points: list[dict], statistic: Callable[[Any], Any]) -> Iterable[list[str]]:
    """Tables 2 to 5: `statistic` over rounds of every contender's time."""
    for point in points:
        by_name = {c["name"]: c for c in point["contenders"]}

        def cell(name: str, by_name: dict = by_name) -> str:
            c = by_name.get(name)
            if c is None:
                return "–"
            return milliseconds(float(statistic(c["seconds"]))) if c["seconds"] else "slow"

        yield [where(point), *map(cell, names(points))]


def byte_rows(points: list[dict]) -> Iterable[list[str]]:
    """Table 6: every contender's memory for a training step."""
    for point in points:
        size = {c["name"]: c["bytes"] for c in point["contenders"]}
        cells = [f"{size[n] / 2**20:.1f}" if size.get(n) else "–" for n in names(points)]
        yield [where(point), *cells]


def compile_rows(points: list[dict]) -> Iterable[list[str]]:
    """Table 7: seconds of tracing and compiling."""
    for task in dict.fromkeys(p["task"] for p in points):
        found: dict[str, list[float]] = {}
        for c in (c for p in points if p["task"] == task for c in p["contenders"]):
            if c["compile_seconds"] is not None:
                found.setdefault(c["name"], []).append(c["compile_seconds"])
        cells = [f"{np.median(found[n]):.2f}" if n in found else "–" for n in names(points)]
        yield [task, *cells]


def left_out(points: list[dict], limit: float) -> list[str]:
    """Who was not timed at a point, and why."""
    return [
        f"{label(p)}: {c['name']} left out after warm-up (“slow” in the tables), "
        f"{c['left_out']:.0f} times slower than the fastest; the limit is {limit:g}"
        for p in points
        for c in p["contenders"]
        if c["left_out"] is not None
    ]
