"""What `initialization_atlas` makes of its numbers."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import _atlas_plan as plans
from experiments import _claims as claims

HALF = math.log(0.5)
BURST = 1.0  # nats: what grows by more than e on the way does grow
FORGET, CHRONO = plans.BIAS
STATE_SPACES = ("S4D", "S5", "SelectiveSSM", "RGLRU", "LRU-ring")


def middle(values: Any) -> float:
    """The mean over seeds, the median where one is infinite."""
    values = np.asarray(values, float)
    return float(values.mean() if np.isfinite(values).all() else np.median(values))


def verdicts(rows: list[dict], config: Any) -> list[dict]:
    """All claims that the rows can decide, each with its numbers."""
    rows = [row for row in rows if plans.DEFAULT in row["columns"]]
    of = {row["name"]: row for row in rows}
    found = [_keep(rows, config), _bursts(rows, config)]
    if {"LSTM", "GRU", "Elman"} <= set(of):
        found.append(_gates(of, config))
    if any("orthogonal" in row["columns"] for row in rows):
        found.append(_orthogonal(rows, of, config))
    if "Elman-relu" in of and "Elman" in of:
        found.append(_identity(of, config))
    if any(CHRONO in row["columns"] for row in rows):
        found.append(_biases(rows, config))
    if any(row["family"] == "linear" for row in rows):
        found.append(_linear(rows, config))
    return found


def keeps(row: dict, column: str = plans.DEFAULT) -> bool:
    """Whether half of the gradient, or more, is left at lag T, at all sizes of inputs."""
    return all(middle(kept) >= HALF for kept in row["columns"][column]["log_kept"])


def _keep(rows: list[dict], config: Any) -> dict:
    those = [row["label"] for row in rows if keeps(row)]
    return claims.claim(
        f"by default most cells keep half of a gradient over {config.length} steps",
        2 * len(those) > len(rows),
        f"{len(those)} of {len(rows)} do: {_names(those)}",
    )


def _bursts(rows: list[dict], config: Any) -> dict:
    grown = {
        row["label"]: max(map(middle, row["columns"][plans.DEFAULT]["log_growth"])) for row in rows
    }
    those = [
        f"{name} by {math.exp(g):.2g}"
        for name, g in sorted(grown.items(), key=lambda item: -item[1])
        if g > BURST
    ]
    name, most = max(grown.items(), key=lambda item: item[1])
    return claims.claim(
        "by default no gradient grows on its way, by more than a factor e",
        not those,
        f"σ_max grows in {len(those)} of {len(rows)}: {_names(those)}"
        if those
        else f"Most in {name}, by {math.exp(most):.2f}",
    )


def _gates(of: dict[str, dict], config: Any) -> dict:
    rates = {k: _rates(of[k]) for k in ("LSTM", "GRU", "Elman")}
    better = [
        all(claims.above(rates[k][s] - rates["Elman"][s]) for k in ("LSTM", "GRU"))
        for s in range(len(config.input_scales))
    ]
    where = [f"{scale:g}" for scale, yes in zip(config.input_scales, better, strict=True) if yes]
    figures = [
        f"input {scale:g}: " + ", ".join(f"{k} {claims.spread(rates[k][s], 2)}" for k in rates)
        for s, scale in enumerate(config.input_scales)
    ]
    slowest = max(middle(rates[k][s]) for k in ("LSTM", "GRU") for s in range(len(better)))
    life = f"a half-life of {-math.log(2) / slowest:.1f} steps" if slowest < 0 else "no half-life"
    return claims.claim(
        "gates alone help: by default LSTM and GRU lose less per step than Elman's network, by "
        "more than seeds differ",
        all(better),
        f"{'; '.join(figures)}; at best {life}",
        only_if=f"inputs have standard deviation {' or '.join(where)}" if where else "",
    )


def _orthogonal(rows: list[dict], of: dict[str, dict], config: Any) -> dict:
    takers = [row for row in rows if "orthogonal" in row["columns"]]
    those = [row["label"] for row in takers if keeps(row, "orthogonal")]
    better = sum(_last(row, "orthogonal") > _last(row) + 1e-3 for row in takers)
    linear = of.get("LinearRNN")
    exact = linear is not None and np.max(np.abs(_rates(linear, "orthogonal"))) < 1e-4
    shown = _some(of, ("LinearRNN", "Elman", "GRU", "LSTM"), "orthogonal")
    return claims.claim(
        "orthogonal initialisation keeps the gradient",
        len(those) == len(takers),
        f"Half is left at lag {config.length} in {len(those)} of {len(takers)} cells "
        f"({_names(those)}); it loses less than the default in {better}; {shown}",
        only_if="the network is linear" if exact else "",
    )


def _identity(of: dict[str, dict], config: Any) -> dict:
    row = of["Elman-relu"]
    growth = max(map(middle, row["columns"]["identity"]["log_growth"]))
    random = middle(row["columns"]["identity"]["frobenius_rate"][-1])
    return claims.claim(
        "the identity with relu keeps the gradient",
        keeps(row, "identity") and growth < BURST,
        f"Rate {claims.spread(_rates(row, 'identity')[-1])}, that of a random direction "
        f"{random:+.3f}; relu by default {_last(row):+.2f}, the identity with tanh "
        f"{_last(of['Elman'], 'identity'):+.2f}",
    )


def _biases(rows: list[dict], config: Any) -> dict:
    takers = [row for row in rows if CHRONO in row["columns"]]
    columns = (plans.DEFAULT, FORGET, CHRONO)
    # of the middles over seeds, at every size of inputs
    paths = {
        row["label"]: [[middle(_rates(row, c)[s]) for c in columns] for s in _scales(config)]
        for row in takers
    }
    against = [name for name, path in paths.items() if not all(d < f < c for d, f, c in path)]
    medians = np.median([path[-1] for path in paths.values()], axis=0)
    kept = sum(keeps(row, CHRONO) for row in takers)
    steps = ", ".join(f"{math.log(2) / -m:.1f}" if m < 0 else "∞" for m in medians)
    return claims.claim(
        f"a forget bias of 1 lengthens the reach of a gradient, and Chrono({config.length}) more",
        not against,
        f"So it is in {len(takers) - len(against)} of {len(takers)} cells with such a gate, not in "
        f"{_names(against)}; median half-life {steps} steps; with chrono {kept} keep half over "
        f"{config.length} steps",
    )


def _linear(rows: list[dict], config: Any) -> dict:
    linear = [row for row in rows if row["family"] == "linear"]
    those = [row["label"] for row in linear if keeps(row)]
    fastest = min(linear, key=_last)
    spaces = [row for row in linear if row["name"] in STATE_SPACES]
    slow = spaces and all(map(keeps, spaces))
    return claims.claim(
        "cells that are linear in time do not vanish by default",
        len(those) == len(linear),
        f"Half is left at lag {config.length} in {len(those)} of {len(linear)} ({_names(those)}); "
        f"{fastest['label']} loses {claims.spread(_rates(fastest)[-1])}",
        only_if=f"they are state spaces that begin slow ({_names([r['label'] for r in spaces])})"
        if slow
        else "",
    )


def _scales(config: Any) -> range:
    return range(len(config.input_scales))


def _rates(row: dict, column: str = plans.DEFAULT) -> np.ndarray:
    return np.asarray(row["columns"][column]["rate"], float)


def _last(row: dict, column: str = plans.DEFAULT) -> float:
    """The rate with the largest inputs."""
    return middle(_rates(row, column)[-1])


def _some(of: dict[str, dict], names: Sequence[str], column: str) -> str:
    return ", ".join(f"{of[k]['label']} {_last(of[k], column):+.3f}" for k in names if k in of)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"
