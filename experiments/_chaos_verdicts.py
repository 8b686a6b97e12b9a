"""What `chaos_transition` makes of its numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments import _claims as claims
from experiments._chaos_measure import LEVEL, distances, onsets

WITHIN = 0.02  # nats per step between λ₁ and its mean field
ALIKE = 0.02  # nats per step between λ₁ and the rate of a gradient
SHARE = 0.05  # of q
EDGE = 0.03  # of the critical gain
POWER = 0.2  # what an exponent of N may be off by
CORNER = (0.9, 1.6)  # gains without input at which a finite network is another thing


def _chaos(variance: float, gain: float, exponent: float) -> bool:
    return exponent > 0.05


def _driven_order(variance: float, gain: float, exponent: float) -> bool:
    return exponent < -0.05 and variance > 0


def _corner(variance: float, gain: float, exponent: float) -> bool:
    return variance == 0 and CORNER[0] < gain < CORNER[1]


REGIONS: dict[str, Callable[[float, float, float], bool]] = {
    "chaos": _chaos,
    "order, with input": _driven_order,
    "no input, gain near 1": _corner,
}


def verdicts(found: dict, size: int) -> list[dict]:
    """All claims, each with the numbers that decide it."""
    rows = found["elman"]
    row = of_size(rows, size)
    weighed = [_exponent(row), _variance(row), _shrinks(rows), _suppressed(row), _critical(row)]
    weighed += [_onset(rows), _eigenvalue(row), _gradient(found["back"])]
    if found["gated"]:
        weighed.append(_gated(found["gated"]))
    weighed.append(_everywhere([row, *found["gated"]]))
    return [verdict for verdict in weighed if verdict]


def of_size(rows: list[dict], size: int) -> dict:
    """The row of a size."""
    return next(row for row in rows if row["size"] == size)


def plain(values: Any, digits: int = 3) -> str:
    """Mean ± sd of positive numbers; those that are there, if some are not."""
    values = np.asarray(values, float).ravel()
    sound = values[np.isfinite(values)]
    if not len(sound):
        return "none"
    text = claims.spread(sound, digits).removeprefix("+")
    return text if len(sound) == len(values) else f"{text} ({len(sound)} of {len(values)})"


def q_errors(row: dict) -> np.ndarray:
    """q relative to its mean field, minus 1; NaN where that is 0."""
    q = np.asarray(row["theory"]["q"], float)[..., None]
    there = q > 1e-3
    return np.where(there, np.asarray(row["q"], float) / np.where(there, q, 1) - 1, np.nan)


def mean_distance(row: dict, inside: Callable[[float, float, float], bool]) -> np.ndarray:
    """|λ₁ − mean field| averaged over a region, for every seed; NaN if nothing lies in it."""
    theory = np.asarray(row["theory"]["exponent"], float)
    chosen = np.array(
        [
            [inside(v, g, theory[i, j]) for j, g in enumerate(row["gains"])]
            for i, v in enumerate(row["variances"])
        ]
    )
    apart = np.abs(distances(row))[chosen]
    return apart.mean(0) if len(apart) else np.full(distances(row).shape[-1], np.nan)


def _only_if(row: dict, sound: np.ndarray) -> str:
    # the smallest variance from which on everything holds
    from_here = np.logical_and.accumulate(sound[::-1])[::-1]
    if not from_here.any():
        return ""
    return f"s² is at least {row['variances'][int(np.argmax(from_here))]:g}"


def _exponent(row: dict) -> dict:
    apart = distances(row)
    means = np.abs(apart.mean(-1))
    sound = np.all(means < WITHIN, axis=1)
    i, j = np.unravel_index(np.argmax(means), means.shape)
    low = float(np.mean(apart[np.asarray(row["theory"]["exponent"]) > 0.05]))
    return claims.claim(
        f"λ₁ of {row['size']} units is ½ ln(g² E sech⁴(√q z)) within {WITHIN:g}",
        sound.all(),
        f"{np.sum(means < WITHIN)} of {means.size} points are; furthest off by "
        f"{claims.spread(apart[i, j])} at gain {row['gains'][j]:g}, s² = {row['variances'][i]:g}; "
        f"in chaos by {low:+.3f} on average",
        only_if=_only_if(row, sound),
    )


def _variance(row: dict) -> dict:
    errors = q_errors(row)
    means = np.abs(np.where(np.isnan(errors), 0, errors).mean(-1))
    sound = np.all(means < SHARE, axis=1)
    i, j = np.unravel_index(np.argmax(means), means.shape)
    driven = max(float(m) for m, v in zip(means.max(1), row["variances"], strict=True) if v > 0)
    return claims.claim(
        f"the variance q of pre-activations is that of the mean field within {100 * SHARE:g} %",
        sound.all(),
        f"Furthest off by {100 * errors[i, j].mean():+.1f} % at gain {row['gains'][j]:g}, "
        f"s² = {row['variances'][i]:g}; with input by at most {100 * driven:.1f} %",
        only_if=_only_if(row, sound),
    )


def _shrinks(rows: list[dict]) -> dict | None:
    variances = min((row["variances"] for row in rows), key=len)
    rows = [_restricted(row, variances) for row in rows]
    powers = {}
    for name, inside in REGIONS.items():
        of = np.array([float(np.mean(mean_distance(row, inside))) for row in rows])
        if len(rows) > 2 and np.isfinite(of).all():
            powers[name] = float(np.polyfit(np.log([r["size"] for r in rows]), np.log(of), 1)[0])
    if "chaos" not in powers:
        return None
    sound = {name: abs(power + 1) < POWER for name, power in powers.items()}
    largest = rows[-1]
    left = float(np.mean(mean_distance(largest, REGIONS["chaos"])))
    return claims.claim(
        "the distance of λ₁ from its mean field shrinks as 1/N",
        all(sound.values()),
        "Powers of N: "
        + "; ".join(f"{name} {power:+.2f}" for name, power in powers.items())
        + f". In chaos {left:.4f} is left at N = {largest['size']}, {left * largest['size']:.1f}/N",
        only_if="there is chaos" if sound["chaos"] else "",
    )


def _restricted(row: dict, variances: list[float]) -> dict:
    index = [list(row["variances"]).index(variance) for variance in variances]
    theory = {key: np.asarray(value, float)[index] for key, value in row["theory"].items()}
    exponent = np.asarray(row["exponent"], float)[index]
    return row | dict(variances=variances, theory=theory, exponent=exponent)


def _suppressed(row: dict) -> dict:
    found = onsets(row)
    rises = np.all(np.diff(found, axis=0) > 0, axis=1)
    texts = [f"{plain(o, 2)} at s² = {v:g}" for o, v in zip(found, row["variances"], strict=True)]
    return claims.claim(
        "the more input, the larger the gain at which chaos sets in, in every network",
        rises.all(),
        "From gain " + ", ".join(texts),
        only_if="there is input" if len(rises) > 1 and rises[1:].all() else "",
    )


def _critical(row: dict) -> dict:
    off = onsets(row).mean(1) / np.asarray(row["theory"]["edge"], float) - 1
    beyond = np.asarray(row["theory"]["edge"], float) >= row["gains"][-1]
    # an edge that should have been met and was not is as far off as can be
    off = np.where(np.isnan(off), np.where(beyond, 0, np.inf), off)
    driven = off[1:]
    worst = int(np.argmax(np.abs(driven))) + 1
    return claims.claim(
        f"with input chaos sets in at the gain of the mean field, within {100 * EDGE:g} %",
        np.all(np.abs(driven) < EDGE),
        f"Furthest off by {100 * off[worst]:+.1f} %, at s² = {row['variances'][worst]:g}",
        only_if=_only_if(row, np.abs(off) < EDGE),
    )


def _onset(rows: list[dict]) -> dict:
    # h = 0 is lost where the largest eigenvalue of gain times W_h leaves the unit circle
    lost = [np.exp(-np.asarray(row["log_radius"], float)) for row in rows]
    begins = [onsets(row)[0] for row in rows]
    texts = [
        f"N = {row['size']}: {plain(b, 2)}, after h = 0 is lost at {plain(a, 2)}"
        for row, a, b in zip(rows, lost, begins, strict=True)
    ]
    return claims.claim(
        f"without input chaos sets in at gain 1, within {100 * EDGE:g} %",
        abs(np.mean(begins[-1]) - 1) < EDGE,
        "; ".join(texts),
    )


def _eigenvalue(row: dict) -> dict | None:
    gains = np.asarray(row["gains"], float)
    below = gains < 1
    if not below.any():
        return None
    exponents = np.asarray(row["exponent"], float)[0, below]
    from_gain = np.abs(exponents - np.log(gains[below])[:, None])
    from_radius = np.abs(exponents - np.log(gains[below])[:, None] - np.asarray(row["log_radius"]))
    return claims.claim(
        f"without input and below gain 1, λ₁ of {row['size']} units is ln g within {LEVEL:g}",
        from_gain.max() < LEVEL,
        f"Off by up to {from_gain.max():.3f}; from ln ρ(W_h) by up to {from_radius.max():.4f}",
        only_if="g is the spectral radius of W_h" if from_radius.max() < LEVEL else "",
    )


def _gradient(row: dict) -> dict:
    forward, backward = (np.asarray(row[key], float) for key in ("exponent", "rate"))
    apart = backward - forward
    means = np.abs(apart.mean(-1))
    i, j = np.unravel_index(np.argmax(means), means.shape)
    return claims.claim(
        f"gradients travel back at λ₁, within {ALIKE:g}",
        means.max() < ALIKE,
        f"{means.size} points, λ₁ from {forward.min():+.2f} to {forward.max():+.2f}; furthest "
        f"apart {claims.spread(backward[i, j])} backwards, {claims.spread(forward[i, j])} forwards",
    )


def _gated(rows: list[dict]) -> dict:
    found = [onsets(row) for row in rows]
    # an edge beyond the largest gain was moved up, too
    moved = [np.where(np.isnan(of), r["gains"][-1], of) for of, r in zip(found, rows, strict=True)]
    from_none, from_some = ([claims.above(of[-1] - of[i]) for of in moved] for i in (0, 1))
    texts = [_edges_of(row, of) for row, of in zip(rows, found, strict=True)]
    return claims.claim(
        "input moves the edge of chaos of gated networks up, too",
        all(from_none),
        "; ".join(texts),
        only_if="there is input" if all(from_some) else "",
    )


def _edges_of(row: dict, found: np.ndarray) -> str:
    gains = [f"{plain(of, 2)} (s² = {v:g})" for of, v in zip(found, row["variances"], strict=True)]
    lost = f"h = 0 is lost at {row['critical_gain']:g}"
    return f"{row['label']}: {lost} for N → ∞, chaos from gain {', '.join(gains)}"


def _everywhere(rows: list[dict]) -> dict:
    # input against none, at every gain
    texts, sound = [], []
    for row in rows:
        exponents = np.asarray(row["exponent"], float)
        raised = [claims.above(change) for change in exponents[-1] - exponents[0]]
        sound.append(not any(raised))
        gains = [f"{g:g}" for g, up in zip(row["gains"], raised, strict=True) if up]
        texts.append(f"{row['label']}: " + (f"raised at {', '.join(gains)}" if gains else "never"))
    holding = [row["label"] for row, holds in zip(rows, sound, strict=True) if holds]
    return claims.claim(
        f"input of variance {rows[0]['variances'][-1]:g} raises λ₁ at no gain",
        all(sound),
        "; ".join(texts),
        only_if=f"the network is {' or '.join(holding)}" if holding else "",
    )
