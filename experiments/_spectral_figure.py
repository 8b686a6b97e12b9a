"""The figure of `spectral_bounds`, drawn from what its JSON holds."""

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxrnn import plot

MARKS = {
    "log_sigma": ("|", "mean ln σ_max(J_t)", 13),
    "log_rho": ("x", "mean ln ρ(J_t)", 6),
    "W_sigma": ("D", "ln σ_max(W_h)", 6),
    "W_rho": ("s", "ln ρ(W_h)", 6),
}


def draw(result: dict) -> Figure:
    """Rates beside the norms and radii of steps, and the curves of small networks."""
    figure = Figure(figsize=(13, 6.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    _draw_rows(left, sorted(result["rows"], key=lambda row: np.mean(row["rate"])))
    _draw_small(right, result["small"])
    return figure


def _draw_rows(axes: Any, rows: list[dict]) -> None:
    blue, red = plot.COLOURS[0], plot.COLOURS[1]
    for y, row in enumerate(rows):
        rate, bound = np.mean(row["rate"]), np.mean(row["log_sigma"])
        axes.plot([rate, bound], [y, y], color="#bbbbbb", linewidth=2, zorder=1)
        axes.plot(row["rate"], np.full(len(row["rate"]), y), "o", color=blue, alpha=0.35)
        axes.plot([rate], [y], "o", color=blue, markersize=9)
        own = row.get("elman", {})
        points = dict(log_sigma=row["log_sigma"], log_rho=row["log_rho"])
        points |= dict(W_sigma=own.get("log_sigma"), W_rho=own.get("log_rho"))
        for name, values in points.items():
            if values is not None:
                mark, _, size = MARKS[name]
                colour = red if name.startswith("W") else "black"
                style = dict(color=colour, markersize=size, markerfacecolor="none")
                axes.plot([np.mean(values)], [y], mark, markeredgewidth=1.6, **style)
    axes.axvline(0, color="#555555", linewidth=1)
    axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
    axes.set_xlabel("nats per step")
    axes.set_title("What single steps allow, and what their product does", loc="left")
    handles = [Line2D([], [], marker="o", color=blue, linestyle="", label="measured rate")]
    for name, (mark, text, size) in MARKS.items():
        colour = red if name.startswith("W") else "black"
        style: dict[str, Any] = dict(color=colour, linestyle="")
        style |= dict(markerfacecolor="none", markeredgewidth=1.6)
        handles.append(Line2D([], [], marker=mark, markersize=size, label=text, **style))
    axes.legend(handles=handles, frameon=False, loc="lower right")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_small(axes: Any, small: list[dict], steps: int = 40) -> None:
    drawn, found = [], []
    for number, (toy, colour) in enumerate(zip(small, plot.COLOURS, strict=False)):
        values = plot.with_lag_zero(np.array(toy["log_norm"])[None, :steps])
        radius = math.exp(toy["log_rho"]) if math.isfinite(toy["log_rho"]) else 0
        text = f"{toy['label']}\nρ = {radius:.3g}, σ = {math.exp(toy['log_sigma']):.3g}"
        if not np.isfinite(values).all():
            # it lies on another curve for as long as it has a logarithm
            last = np.flatnonzero(np.isfinite(values[0]))[-1]
            axes.plot([last], [values[0, last] / plot.LN10], "X", color=colour, markersize=11)
            text += "; then 0"
        drawn.append(values)
        style: dict[str, Any] = dict(linewidth=2.2 + 3 * (number == 3), alpha=0.8)
        found.append(plot.curve(axes, values, colour, text=text, threshold=None, **style))
    axes.set_ylim(*plot.limits(*drawn, lowest=-8))
    plot.lag_axis(axes, steps, room=0.55)
    plot.power_axis(axes, "σ_max of ∂carry_T/∂carry_(T−k)")
    plot.label_ends(axes, found, size=9)
    axes.set_title("Linear networks whose rates are known", loc="left")
