"""What `speed` concludes: ratios within rounds, and verdicts that can come out against us."""

import itertools
import math

import numpy as np

from experiments._speed_cases import MEMORY_SHAPE, TITLES, WIDE
from experiments._speed_floor import NAME as FLOOR
from experiments._speed_grid import CHECKPOINT, OURS
from experiments._speed_stream import CELLS, EMPTY

AT_EVERY_POINT, MEAN, MEAN_JAX, ABOVE_FLOOR = 0.95, 1.3, 1.6, 1.5
CHECKPOINT_BYTES, CHECKPOINT_TIME, STREAMING = 0.5, 1.35, 0.4


def label(point: dict) -> str:
    """A point in a few words."""
    return f"{where(point)} {point['task']}"


def where(point: dict) -> str:
    """The same without the task."""
    return f"{TITLES[point['cell']]} {point['shape']}"


def times(point: dict) -> dict[str, np.ndarray]:
    """Name to seconds in every round, of all that were timed."""
    return {c["name"]: np.array(c["seconds"]) for c in point["contenders"] if c["seconds"]}


def quantiles(ratios: np.ndarray) -> list[float]:
    """10 %, 50 % and 90 % of ratios, one for each round."""
    return [float(q) for q in np.quantile(ratios, (0.1, 0.5, 0.9))]


def summary(point: dict) -> dict:
    """Ours against the best peer, the best JAX peer and the floor.

    The best is the one with the smallest median of seconds. A ratio is taken within each round:
    theirs / ours, so that above 1 ours is faster; ours / floor, which is 1 at best.
    """
    seconds = times(point)
    ours = seconds[OURS]
    kinds = {c["name"]: c["kind"] for c in point["contenders"]}
    found = {key: point[key] for key in ("cell", "shape", "hidden_size", "task")}
    for key, wanted in (("peer", ("jax", "other")), ("jax_peer", ("jax",))):
        names = [name for name in seconds if kinds[name] in wanted]
        best = min(names, key=lambda name: np.median(seconds[name]), default=None)
        ratio = None if best is None else quantiles(seconds[best] / ours)
        bound = None if best is None else quantiles(seconds[best] / seconds[FLOOR])
        found |= {f"best_{key}": best, f"{key}_over_ours": ratio, f"{key}_over_floor": bound}
    found["ours_over_floor"] = quantiles(ours / seconds[FLOOR])
    found["floor_gflops"] = point["operations"] / float(np.min(seconds[FLOOR])) / 1e9
    return found


def geometric_mean(summaries: list[dict], key: str) -> float | None:
    """Over all points, of the medians of ratios; None if a point has none."""
    medians = [s[key] and s[key][1] for s in summaries]
    if not medians or None in medians:
        return None
    return math.exp(float(np.mean(np.log(medians))))


def means(summaries: list[dict]) -> dict[str, float | None]:
    """Geometric means of the best peer and the best JAX peer, over ours and over the floor."""
    wanted = itertools.product(("peer", "jax_peer"), ("ours", "floor"))
    keys = [f"{theirs}_over_{mine}" for theirs, mine in wanted]
    return {key: geometric_mean(summaries, key) for key in keys}


# ---- verdicts


def verdicts(points: list[dict], streaming: dict | None) -> list[dict]:
    """Claim, whether it holds (None: this run did not measure it), and what was measured."""
    found = [summary(point) for point in points]
    judged = [
        _every_point(found),
        _means(found),
        _above_floor(found),
        _memory(points),
        _checkpoint(points),
        _streaming(streaming),
    ]
    return [
        {"claim": claim, "holds": holds, "measured": measured} for claim, holds, measured in judged
    ]


Judgement = tuple[str, bool | None, str]
NOTHING: tuple[None, str] = (None, "")


def _every_point(found: list[dict]) -> Judgement:
    claim = f"at every point at least {AT_EVERY_POINT:g} times as fast as the best peer"
    known = [s for s in found if s["peer_over_ours"]]
    if not known:
        return claim, *NOTHING
    low = [s for s in known if s["peer_over_ours"][1] < AT_EVERY_POINT]
    worst = min(known, key=lambda s: s["peer_over_ours"][1])
    middle, name = worst["peer_over_ours"][1], worst["best_peer"]
    measured = f"least {middle:.2f}, at {label(worst)} against {name}"
    return claim, not low, f"{measured}; {len(known) - len(low)} of {len(known)} points hold"


def _means(found: list[dict]) -> Judgement:
    claim = (
        f"in the geometric mean over all points at least {MEAN:g} times as fast as the best peer "
        f"and {MEAN_JAX:g} times as fast as the best JAX peer"
    )
    best, best_bound, jax, jax_bound = means(found).values()
    if best is None or jax is None:
        return claim, *NOTHING
    measured = f"{best:.2f} and {jax:.2f}; the matrix products alone: {best_bound:.2f} and "
    return claim, best >= MEAN and jax >= MEAN_JAX, measured + f"{jax_bound:.2f}"


def _above_floor(found: list[dict]) -> Judgement:
    claim = f"a training step with H ≥ {WIDE} within {ABOVE_FLOOR:g} times its matrix products"
    known = [s for s in found if s["task"] == "training" and s["hidden_size"] >= WIDE]
    if not known:
        return claim, *NOTHING
    worst = max(known, key=lambda s: s["ours_over_floor"][1])
    middle = worst["ours_over_floor"][1]
    return claim, middle <= ABOVE_FLOOR, f"at most {middle:.2f}, at {label(worst)}"


def _training_there(points: list[dict]) -> list[dict]:
    return [p for p in points if p["task"] == "training" and p["shape"] == MEMORY_SHAPE]


def _memory(points: list[dict]) -> Judgement:
    claim = f"peak memory of training at {MEMORY_SHAPE} at most the best JAX peer's"
    shares = []
    for point in _training_there(points):
        size = {c["name"]: c["bytes"] for c in point["contenders"] if c["bytes"]}
        kinds = {c["name"]: c["kind"] for c in point["contenders"]}
        theirs = {name: b for name, b in size.items() if kinds[name] == "jax"}
        if OURS in size and theirs:
            best = min(theirs, key=theirs.__getitem__)
            shares.append((size[OURS] / theirs[best], point, best))
    if not shares:
        return claim, *NOTHING
    share, point, best = max(shares, key=lambda found: found[0])
    return claim, share <= 1, f"at most {share:.2f} times, at {label(point)} against {best}"


def _checkpoint(points: list[dict]) -> Judgement:
    claim = (
        f"with checkpoints there at most {CHECKPOINT_BYTES:g} times our own memory and "
        f"{CHECKPOINT_TIME:g} times our own time"
    )
    memory, time = [], []
    for point in _training_there(points):
        size = {c["name"]: c["bytes"] for c in point["contenders"]}
        if size.get(CHECKPOINT) and size.get(OURS):
            seconds = times(point)
            memory.append(size[CHECKPOINT] / size[OURS])
            ratio = seconds[CHECKPOINT] / seconds[OURS] if CHECKPOINT in seconds else np.inf
            time.append(float(np.median(ratio)))
    if not memory:
        return claim, *NOTHING
    holds = max(memory) <= CHECKPOINT_BYTES and max(time) <= CHECKPOINT_TIME
    return claim, holds, f"at most {max(memory):.2f} times and {max(time):.2f} times"


def _streaming(streaming: dict | None) -> Judgement:
    claim = (
        f"a step through two layers of LSTM, streamed, at most {STREAMING:g} times PyTorch's two "
        "LSTMCell calls"
    )
    if streaming is None:
        return claim, *NOTHING
    seconds = streaming["seconds"]
    theirs = next((t for name, t in seconds.items() if name.endswith(CELLS)), None)
    if theirs is None:
        return claim, *NOTHING
    low, middle, high = quantiles(np.array(seconds[OURS]) / np.array(theirs))
    waiting = np.median(np.array(streaming["waiting"][OURS]) / np.array(theirs))
    measured = f"{middle:.2f} [{low:.2f}–{high:.2f}]; {waiting:.2f} where every step is waited for"
    if EMPTY in seconds:
        empty = np.median(np.array(seconds[EMPTY]) / np.array(theirs))
        measured += f"; {empty:.2f} for the same call without products"
    return claim, middle <= STREAMING, measured
