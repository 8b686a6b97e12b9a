"""The figure of `speed`, drawn from what its JSON holds."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from experiments import _common as common
from experiments._speed_cases import TASKS, TITLES
from experiments._speed_floor import NAME as FLOOR
from experiments._speed_grid import OURS
from experiments._speed_report import quantiles, times
from experiments._speed_tables import milliseconds
from jaxrnn.plot import COLOURS

# told apart by shape as well as by colour
LOOKS = {
    "PyTorch": (COLOURS[1], "s"),
    "Flax linen": (COLOURS[0], "o"),
    "Flax nnx": (COLOURS[5], "v"),
    "Equinox": (COLOURS[2], "^"),
    "Haiku": (COLOURS[3], "D"),
    "Keras": (COLOURS[4], "P"),
}
INK = "#222222"
PALE = "#777777"


def draw(result: dict, path: Path) -> None:
    """Draws the figure."""
    with matplotlib.rc_context({"font.size": 12, "axes.titlesize": 13, "axes.titleweight": "bold"}):
        figure = Figure(figsize=(16, 11))
        figure.suptitle(
            "How fast, next to other libraries", x=0.02, y=0.985, ha="left", fontsize=18
        )
        panels = [figure.add_axes((left, 0.42, 0.355, 0.465)) for left in (0.155, 0.585)]
        for axes, task in zip(panels, TASKS, strict=True):
            _draw_grid(axes, [p for p in result["points"] if p["task"] == task], task)
        panels[1].set_yticklabels([])
        _share_width(panels)
        _legend(figure, result)
        curves = {curve["axis"]: curve for curve in result["curves"]}
        low = [figure.add_axes((x, 0.115, w, 0.195)) for x, w in ((0.05, 0.275), (0.375, 0.275))]
        _draw_curve(low[0], curves.get("steps"), "Long sequences", "T, steps")
        _draw_curve(low[1], curves.get("batch"), "Batches", "B, sequences at once")
        _draw_streaming(figure.add_axes((0.825, 0.115, 0.155, 0.195)), result["streaming"])
        figure.text(0.02, 0.015, _caption(result), fontsize=10, color=PALE, parse_math=False)
        with common.whole_file(path) as part:
            figure.savefig(part, dpi=120)


def _empty(axes: Axes) -> None:
    axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=PALE)
    axes.set_axis_off()


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


# ---- the grid


def _draw_grid(axes: Axes, points: list[dict], task: str) -> None:
    if not points:
        return _empty(axes)
    # cells together, from the top; a gap between them
    cells = list(dict.fromkeys(p["cell"] for p in points))
    points = sorted(points, key=lambda p: cells.index(p["cell"]))
    heights = [-i - 0.5 * cells.index(p["cell"]) for i, p in enumerate(points)]
    for y, point in zip(heights, points, strict=True):
        axes.axhline(y, color="#dddddd", linewidth=0.8, zorder=0)
        _draw_point(axes, y, point)
    axes.axvline(1, color=INK, linewidth=2, zorder=1)
    axes.set_yticks(heights, [_row_label(p) for p in points])
    axes.set_ylim(heights[-1] - 0.7, 1.1)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title("Forward, all outputs" if task == "forward" else "Training step", loc="left")
    axes.set_xscale("log")
    axes.set_xlabel("time / ours; right of 1, ours is faster")


def _row_label(point: dict) -> str:
    B, T, I, H = (point[field] for field in ("batch", "steps", "input_size", "hidden_size"))
    return f"{TITLES[point['cell']]}  {B}×{T}, {I}→{H}"


def _draw_point(axes: Axes, y: float, point: dict) -> None:
    seconds = times(point)
    for name, t in seconds.items():
        low, middle, high = quantiles(t / seconds[OURS])
        if name == FLOOR:
            axes.plot([middle] * 2, [y - 0.32, y + 0.32], color=INK, linewidth=2.5, zorder=3)
        elif name in LOOKS:
            colour, marker = LOOKS[name]
            axes.plot([low, high], [y, y], color=colour, linewidth=1.6, alpha=0.7, zorder=2)
            axes.plot(middle, y, marker, color=colour, markersize=9, markeredgecolor="white",
                      markeredgewidth=0.8, zorder=4)  # fmt: skip
    text = f"{milliseconds(float(np.median(seconds[OURS])))} ms"
    axes.text(1.01, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=11,
              color=PALE)  # fmt: skip


def _share_width(panels: list[Axes]) -> None:
    drawn = [axes for axes in panels if axes.axison]
    if not drawn:
        return
    low = min(axes.get_xlim()[0] for axes in drawn)
    high = max(axes.get_xlim()[1] for axes in drawn)
    for axes in drawn:
        axes.set_xlim(min(low, 0.5), max(high, 2))
        ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= t <= high]
        _ticks(axes.xaxis, ticks)
        axes.text(1.01, 0.75, "ours", transform=axes.get_yaxis_transform(), va="center",
                  fontsize=11, color=PALE, fontweight="bold")  # fmt: skip


def _ticks(axis: Any, ticks: list[float]) -> None:
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(figure: Figure, result: dict) -> None:
    present = {c["name"] for p in result["points"] for c in p["contenders"]}
    present |= {name for curve in result["curves"] for name in curve["seconds"]}
    entries = [Line2D([], [], color=INK, linewidth=2, label="jaxrnn (ours) = 1")]
    entries += [
        Line2D([], [], color=colour, marker=marker, markersize=9, linewidth=0, label=name)
        for name, (colour, marker) in LOOKS.items()
        if name in present
    ]
    entries.append(
        Line2D([], [], color=INK, marker="|", markersize=14, markeredgewidth=2.5, linewidth=0,
               label="matrix products alone")
    )  # fmt: skip
    figure.legend(handles=entries, loc="upper left", bbox_to_anchor=(0.015, 0.963), ncols=8,
                  frameon=False, handletextpad=0.4, columnspacing=1.6)  # fmt: skip


# ---- below


def _look(name: str) -> tuple[str, str]:
    return LOOKS.get(name, (INK, "o"))


def _draw_curve(axes: Axes, curve: dict | None, title: str, label: str) -> None:
    if curve is None:
        return _empty(axes)
    values = curve[curve["axis"]]
    for name, found in curve["seconds"].items():
        colour, marker = _look(name)
        middle, low, high = (
            [1e6 * float(np.quantile(t, q)) for t in found] for q in (0.5, 0.1, 0.9)
        )
        axes.plot(values, middle, marker=marker, color=colour, markersize=7, linewidth=2,
                  label="jaxrnn" if name == OURS else name)  # fmt: skip
        axes.fill_between(values, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    # the names above; steps from zero, because their time is about constant
    if curve["axis"] == "steps":
        axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    else:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * (high / low) ** 0.25)
        _ticks(axes.yaxis, _decades(*axes.get_ylim()))
    axes.legend(frameon=False, fontsize=11, loc="upper left", ncols=3, columnspacing=1.2)
    fixed = f"B = {curve['batch']}" if curve["axis"] == "steps" else f"T = {curve['steps']}"
    axes.set_title(f"{title}: µs per step, {fixed}", loc="left")
    axes.set_xlabel(label)
    axes.grid(axis="y", color="#eeeeee")
    _plain(axes)


def _decades(low: float, high: float) -> list[float]:
    every = [f * 10.0**e for e in range(-2, 7) for f in (1, 2, 5)]
    return [t for t in every if low <= t <= high]


def _draw_streaming(axes: Axes, streaming: dict | None) -> None:
    if streaming is None:
        return _empty(axes)
    found = {name: 1e6 * float(np.median(t)) for name, t in streaming["seconds"].items()}
    places = np.arange(len(found))[::-1]
    colours = [
        next((c for n, (c, _) in LOOKS.items() if name.startswith(n)), INK) for name in found
    ]
    waiting = [1e6 * float(np.median(streaming["waiting"][name])) for name in found]
    axes.barh(places, waiting, color=colours, height=0.62, alpha=0.3)
    axes.barh(places, list(found.values()), color=colours, height=0.62)
    for y, value, longer in zip(places, found.values(), waiting, strict=True):
        axes.text(max(value, longer), y, f" {value:.1f}", va="center", fontsize=11)
    axes.set_yticks(places, ["jaxrnn" if name == OURS else name for name in found], fontsize=11)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1.15 * max(*found.values(), *waiting))
    axes.set_title("Streaming: µs per step, B = 1", loc="left", x=-0.95)
    _plain(axes)


def _caption(result: dict) -> str:
    about, config = result["machine"], result["config"]
    versions = {"PyTorch": "torch", "Flax": "flax", "Equinox": "equinox", "Haiku": "dm-haiku",
                "Keras": "keras"}  # fmt: skip
    named = ", ".join(f"{n} {about[p]}" for n, p in versions.items() if p in about)
    return (
        f"Rows: cell, B×T, I→H. Dots: median of {config['rounds']} rounds of time / ours within a "
        "round; bars: 10–90 %; at the right: ours, median. Below: LSTM, forward, I = H = 64; "
        "streaming: two layers, pale where every step is waited for.\n"
        f"float32, {about['processor']}, {about['cores']} cores, jax {about['jax']}, "
        f"{named}; load average before {about['load_before']:.2f}, after {about['load_after']:.2f}."
    )
