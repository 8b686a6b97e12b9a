"""Figures of Lyapunov exponents and covariant vectors."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxrnn.plot.axes import COLOURS, new_axes, spread


def lyapunov_spectrum(
    record: Any, axes: Axes | None = None, label: str = "", colour: str = ""
) -> Axes:
    """Draws the exponents of a `jaxrnn.analysis.LyapunovSpectrum` over their index.

    Bars are two standard errors; of a batch, the median of its rows and a band from least to
    largest. Exponents of −inf are not drawn but counted in a note.
    """
    axes = new_axes() if axes is None else axes
    colour = colour or COLOURS[0]
    exponents = np.asarray(record.exponents, float)
    rows = np.where(np.isfinite(exponents), exponents, np.nan).reshape(-1, exponents.shape[-1])
    index = np.arange(1, rows.shape[1] + 1)
    shown = np.any(np.isfinite(rows), axis=0, keepdims=True)[0]
    index, rows = index[shown], rows[:, shown]
    middle = np.nanmedian(rows, axis=0)
    if len(rows) == 1:
        error = np.asarray(record.standard_error, float).reshape(-1)[shown]
        bars = 2 * np.where(np.isfinite(error), error, 0)
        axes.errorbar(index, middle, bars, color=colour, fmt="none", elinewidth=1.2, capsize=2)
    else:
        low, high = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)
        axes.fill_between(index, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(index, middle, "o-", color=colour, markersize=4, linewidth=1, label=label or None)
    axes.axhline(0, color="#555555", linewidth=1, zorder=1)
    axes.set_xlabel("index i of the exponent")
    axes.set_ylabel("Lyapunov exponent λᵢ, nats per unit of time")
    _tidy(axes)
    axes.set_title(_summary(record, shown), loc="left", fontsize=10)
    if label:
        axes.legend(frameon=False)
    return axes


def _summary(record: Any, shown: np.ndarray) -> str:
    dimension = np.median(np.asarray(record.kaplan_yorke_dimension, float))
    entropy = np.median(np.asarray(record.entropy_rate, float))
    size = f"{dimension:.3g}" if np.isfinite(dimension) else "not reached"
    text = f"Kaplan-Yorke dimension {size}   entropy rate {entropy:.3g}"
    gone = int(np.sum(~shown))
    return text + (f"   {gone} at −∞" if gone else "")


def lyapunov_convergence(record: Any, axes: Axes | None = None, most: int = 8) -> Axes:
    """Draws how the estimates of a `LyapunovSpectrum` without batch axes stood along the way."""
    axes = new_axes() if axes is None else axes
    running = np.asarray(record.convergence, float)
    steps = np.asarray(record.convergence_steps)
    if running.ndim != 2:
        raise ValueError(
            f"convergence has shape {running.shape}, expected (points, exponents): draw one row, "
            "jax.tree.map(lambda a: a[0], record)"
        )
    count = running.shape[1]
    used = steps > 0
    running, steps = np.where(np.isfinite(running), running, np.nan)[used], steps[used]
    chosen = np.unique(np.linspace(0, count - 1, min(most, count)).astype(int))
    for place, i in enumerate(chosen):
        axes.plot(steps, running[:, i], color=COLOURS[place % len(COLOURS)], linewidth=1.6)
    if len(steps):
        _name_ends(axes, float(steps[-1]), running[-1], chosen)
    axes.axhline(0, color="#555555", linewidth=1, zorder=1)
    axes.set_xlabel("steps counted")
    axes.set_ylabel("estimate of λᵢ so far, nats per unit of time")
    _tidy(axes)
    return axes


def _name_ends(axes: Axes, x: float, ends: np.ndarray, chosen: np.ndarray) -> None:
    # at the right of each curve, moved apart so that no two names touch
    bottom, top = axes.get_ylim()
    named = [(place, i) for place, i in enumerate(chosen) if np.isfinite(ends[i])]
    height = 0.05 * (top - bottom)
    places = spread([float(ends[i]) for _, i in named], [height] * len(named), bottom, top)
    for (place, i), y in zip(named, places, strict=True):
        axes.annotate(
            f"λ{i + 1} = {ends[i]:.3g}".replace("-", "−"),
            (x, y),
            xytext=(6, 0),
            textcoords="offset points",
            color=COLOURS[place % len(COLOURS)],
            va="center",
            annotation_clip=False,
        )


def covariant_vectors(record: Any, axes: Axes | None = None) -> Axes:
    """Draws how often each angle between neighbouring vectors of `CovariantVectors` occurs."""
    axes = new_axes() if axes is None else axes
    angles = np.asarray(record.angles, float)
    settled = np.asarray(record.settled)
    angles = angles[settled]  # (moments, K, K)
    edges = np.linspace(0, 90, 46).tolist()
    for i in range(min(angles.shape[-1] - 1, len(COLOURS))):
        degrees = np.degrees(angles[:, i, i + 1])
        label = f"v{i + 1} and v{i + 2}, least {degrees.min():.2g}°" if len(degrees) else ""
        share = np.full(len(degrees), 100 / max(len(degrees), 1))
        axes.hist(
            degrees,
            edges,
            weights=share,
            histtype="step",
            color=COLOURS[i],
            linewidth=1.8,
            label=label,
        )
    axes.set_xlim(0, 90)
    axes.set_xticks(range(0, 91, 15))
    axes.set_xlabel("angle between covariant vectors, degrees")
    axes.set_ylabel("share of moments, % per 2°")
    _tidy(axes)
    axes.legend(frameon=False)
    return axes


def parallel_outlook(
    record: Any, turns: Any, steps: int, axes: Axes | None = None, label: str = ""
) -> Axes:
    """Draws the turns that Newton took, and those a `ParallelOutlook` expected, over its exponent.

    turns: as counted by `jaxrnn.unroll_report`, one for each row of the record. steps: T.
    """
    axes = new_axes() if axes is None else axes
    exponent = np.ravel(np.asarray(record.exponent, float))
    expected = np.ravel(np.asarray(record.expected_turns))
    measured = np.ravel(np.asarray(turns))
    axes.vlines(exponent, expected, measured, color="#bbbbbb", linewidth=1, zorder=1)
    axes.plot(exponent, expected, "_", color=COLOURS[1], markersize=9, label="expected")
    axes.plot(exponent, measured, "o", color=COLOURS[0], markersize=5, label=label or "taken")
    axes.axhline(steps, color="#555555", linewidth=1)
    axes.text(0.01, steps, f"T = {steps}", transform=axes.get_yaxis_transform(), va="bottom")
    axes.axvline(0, color="#555555", linewidth=0.6, linestyle=":")
    axes.set_yscale("log")
    axes.set_ylim(bottom=1, top=1.5 * steps)
    axes.set_xlabel("largest Lyapunov exponent, nats per step")
    axes.set_ylabel("turns of Newton's method")
    _tidy(axes)
    axes.legend(frameon=False, loc="center left")
    return axes


def _tidy(axes: Axes) -> None:
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
