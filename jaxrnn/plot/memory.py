"""Figures of memory and of what theory says about it."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxrnn.plot.axes import (
    COLOURS,
    LN10,
    curve,
    label_ends,
    lag_axis,
    limits,
    new_axes,
    power_axis,
)

GREY = "#555555"


def memory_capacity(record: Any, axes: Axes | None = None) -> Axes:
    """Draws a `jaxrnn.analysis.MemoryCapacity`: MC_k over lag, a curve for each input scale."""
    axes = new_axes() if axes is None else axes
    capacity = np.asarray(record.capacity)
    capacity = capacity.reshape(-1, capacity.shape[-1])
    scales, totals = np.ravel(record.input_scale), np.ravel(record.total)
    solved = record.reachable is not None
    for i in range(1 if solved else len(capacity)):
        text = "any input" if solved else f"input σ = {scales[i]:g}"
        text = f"{text}: Σ = {totals[i]:.1f}"
        axes.plot(capacity[i], color=COLOURS[i % len(COLOURS)], linewidth=2.2, label=text)
    axes.set_xlim(0, max(capacity.shape[-1] - 1, 1))
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("lag k: steps back in time")
    axes.set_ylabel("MC$_k$: share of u$_{t−k}$ still in the carry")
    axes.legend(frameon=False)
    return _plain(axes)


def fisher_memory(record: Any, axes: Axes | None = None, label: str = "", colour: str = "") -> Axes:
    """Draws a `jaxrnn.analysis.FisherMemory`: J(k) over lag, median over its batch and band."""
    axes = new_axes() if axes is None else axes
    logs = np.asarray(record.log_information)
    logs = logs.reshape(-1, logs.shape[-1])
    drawn = curve(axes, logs, colour or COLOURS[0], text=label, threshold=None)
    lag_axis(axes, max(logs.shape[-1] - 1, 1))
    power_axis(axes, "Fisher information J(k) about the input")
    axes.set_ylim(*_limits(logs))
    label_ends(axes, [drawn])
    return axes


def forgetting_curve(record: Any, axes: Axes | None = None) -> Axes:
    """Draws a `jaxrnn.analysis.ForgettingCurve`: medians over its batch, and what is rounding."""
    axes = new_axes() if axes is None else axes
    names = ("log_distance", "log_tangent", "log_resolution")
    distance, tangent, resolution = (
        a.reshape(-1, a.shape[-1]) for a in (np.asarray(getattr(record, name)) for name in names)
    )
    reached = np.flatnonzero(np.any(np.isfinite(tangent), axis=0))
    last = int(reached[-1]) + 1 if len(reached) else 2
    parts = (
        (tangent, COLOURS[1], "infinitely\nsmall", "--"),
        (distance, COLOURS[0], "as it is", "-"),
        (resolution, GREY, "one rounding", ":"),
    )
    drawn = [
        curve(axes, logs[:, :last], colour, text=text, threshold=None, linestyle=style)
        for logs, colour, text, style in parts
    ]
    lag_axis(axes, last - 1)
    power_axis(axes, "distance of the two carries")
    axes.set_xlabel("lag k: steps since the last difference")
    axes.set_ylim(*_limits(distance, tangent, resolution))
    label_ends(axes, drawn)
    return axes


def mean_field(record: Any, axes: Axes | None = None) -> Axes:
    """Draws a `jaxrnn.analysis.theory.MeanField`: λ₁ over gain, a curve for each input variance.

    For a record over gains, or over gains along its last axis and input variances along others.
    """
    axes = new_axes() if axes is None else axes
    fields = (record.gain, record.input_variance, record.exponent)
    gain, variance, exponent = (np.atleast_2d(np.asarray(a)) for a in fields)
    rows = (a.reshape(-1, a.shape[-1]) for a in (gain, variance, exponent))
    for i, (g, s, y) in enumerate(zip(*rows, strict=True)):
        colour, text = COLOURS[i % len(COLOURS)], f"input variance {s[0]:g}"
        axes.plot(g, y, color=colour, linewidth=2.2, label=text)
    _edge(axes)
    axes.set_xlabel("gain g of the recurrent matrix")
    axes.set_ylabel("λ₁ in nats per step")
    axes.legend(frameon=False)
    return _plain(axes)


def edge_of_chaos(record: Any, axes: Axes | None = None) -> Axes:
    """Draws a `jaxrnn.analysis.EdgeOfChaos`: λ₁ at the gains tried, and the one settled for."""
    axes = new_axes() if axes is None else axes
    gain, exponent, wanted = (float(a) for a in (record.gain, record.exponent, record.wanted))
    axes.plot(record.gains, record.exponents, ".-", color=COLOURS[0], linewidth=1.5)
    axes.axhline(wanted, color=GREY, linewidth=1)
    axes.plot([gain], [exponent], "o", color=COLOURS[1], markersize=9, zorder=5)
    note = (
        f"gain {gain:.3g}" if bool(record.found) else f"gain {gain:.3g}: the nearest, no crossing"
    )
    place, colour = (8, -6), COLOURS[1]
    axes.annotate(
        note,
        (gain, exponent),
        place,
        textcoords="offset points",
        color=colour,
        fontsize=12,
        va="top",
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("gain of the recurrent matrices")
    axes.set_ylabel("λ₁ on these inputs, in nats per step")
    return _plain(axes)


def determinant_split(record: Any, axes: Axes | None = None) -> Axes:
    """Draws a `jaxrnn.analysis.theory.DeterminantSplit` over time: medians over its batch."""
    axes = new_axes() if axes is None else axes
    slopes = np.asarray(record.log_slopes)
    slopes = slopes.reshape(-1, slopes.shape[-1])
    whole = np.asarray(record.log_det).reshape(slopes.shape)
    of_W = float(np.median(record.log_det_recurrent))
    times = np.arange(slopes.shape[-1])
    parts = (
        (np.full(len(times), of_W), COLOURS[2], "recurrent matrix, ln |det W$_h$|"),
        (np.median(slopes, axis=0), COLOURS[1], "slopes, Σ ln φ′(a)"),
        (np.median(whole, axis=0), COLOURS[0], "together, ln |det J$_t$|"),
    )
    for values, colour, text in parts:
        values = np.where(np.isfinite(values), values, np.nan)
        axes.plot(times, values, color=colour, linewidth=2.2, label=text)
    axes.set_xlim(0, max(len(times) - 1, 1))
    axes.set_xlabel("time t in steps")
    axes.set_ylabel("nats per step")
    axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return _plain(axes)


def spectral_bounds(record: Any, axes: Axes | None = None, steps: int = 100) -> Axes:
    """Draws a `jaxrnn.analysis.theory.SpectralBounds` as lines over lag, into a figure of decay."""
    if axes is None:
        axes = new_axes()
        lag_axis(axes, steps, room=0.02)
        power_axis(axes, "size of ∂h_T/∂h_(T−k)")
        axes.set_ylim(-0.5, 0.5)
    lags = np.arange(steps + 1)
    parts = ((record.log_norm, "norm bound", "--"), (record.log_radius, "radius, no bound", ":"))
    for rate, text, style in parts:
        rate = float(np.median(rate))
        if not np.isfinite(rate):
            continue
        line = rate * lags / LN10
        bottom, top = axes.get_ylim()
        axes.plot(lags, line, color=GREY, linewidth=1.5, linestyle=style, label=text)
        axes.set_ylim(min(bottom, 1.05 * line[-1]), max(top, 1.05 * line[-1]))
    axes.legend(frameon=False)
    return axes


def _limits(*logs: np.ndarray) -> tuple[float, float]:
    bottom, top = limits(*logs)
    # a level curve needs room as well
    return (bottom, top) if top - bottom > 1 else (bottom - 1, top + 1)


def _edge(axes: Axes) -> None:
    axes.axhline(0, color=GREY, linewidth=1)
    axes.text(
        0.01, 0, "edge of chaos", transform=axes.get_yaxis_transform(), color=GREY, va="bottom"
    )


def _plain(axes: Axes) -> Axes:
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes
