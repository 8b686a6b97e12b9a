"""The figure of `initialization_atlas`, drawn from what its JSON holds."""

import math
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from experiments import _atlas_plan as plans
from experiments._atlas_verdicts import middle
from jaxrnn import plot

HEADS = {
    "default": "default",
    "uniform": "uniform",
    "normal": "normal",
    "orthogonal": "orthog.",
    "identity": "identity",
    "zeros": "zeros",
    "forget bias 1": "bias 1",
    "chrono": "chrono",
}
MOST, LINEAR = 1.0, 0.01  # nats per step: where colours end, and where they are linear
WIDEST = 2.0  # where the axis of rates ends
TICKS = (-1.0, -0.1, -0.01, 0.0, 0.01, 0.1, 1.0)
UNITS = "nats per step; below, steps to half, or to twice"
TITLE: dict[str, Any] = dict(loc="left", fontsize=11, y=1.0, pad=34)
NORM = SymLogNorm(LINEAR, linscale=0.6, vmin=-MOST, vmax=MOST)


def colours() -> Colormap:
    """Blue where gradients fade, red where they grow."""
    return matplotlib.colormaps["RdBu_r"]


def short(rate: float) -> str:
    """A rate in a few characters: -.46, -.012, 0, +.07, −∞."""
    if not math.isfinite(rate):
        return "−∞" if rate < 0 else "+∞"
    if abs(rate) < 0.0005:
        return "0"
    digits = 1 if abs(rate) >= 9.95 else 2 if abs(rate) >= 0.0995 else 3
    return f"{rate:+.{digits}f}".replace("0.", ".").replace("-", "−")


def half_life(rate: float) -> str:
    """Steps to half, or after × to double."""
    if rate == 0 or abs(math.log(2) / rate) >= 9999.5:
        return "∞"
    steps = math.log(2) / abs(rate) if math.isfinite(rate) else 0.0
    return ("×2: " if rate > 0 else "") + (f"{steps:.1f}" if steps < 99.5 else f"{steps:.0f}")


def draw(result: dict) -> Figure:
    """Cells × beginnings, and beside it the default at every size of inputs."""
    lines = _lines(result["rows"])
    height = 2.6 + 0.205 * len(lines)
    figure = Figure(figsize=(11, height), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.75, 1))
    _draw_map(left, lines, result["config"])
    _draw_default(right, lines, result["config"])
    _draw_scale(figure, left)
    return figure


def _lines(rows: list[dict]) -> list[dict | str]:
    """From the top: the head of each family, and its cells from what grows to what fades."""
    lines: list[dict | str] = []
    for family, head in plans.FAMILIES.items():
        of = [r for r in rows if r["family"] == family and plans.DEFAULT in r["columns"]]
        if of:
            of.sort(key=lambda row: -middle(row["columns"][plans.DEFAULT]["rate"][-1]))
            lines += [head, *of]
    unmeasured = [row for row in rows if plans.DEFAULT not in row["columns"]]
    return lines + (["not measured", *unmeasured] if unmeasured else [])


def _draw_map(axes: Axes, lines: list[dict | str], config: dict) -> None:
    names = []
    for y, row in enumerate(lines):
        if isinstance(row, str):
            names.append("")
            axes.text(-0.5, y + 0.1, row, fontsize=9.5, fontweight="bold", va="center")
            continue
        smaller = row.get("hidden_size", config["hidden_size"]) < config["hidden_size"]
        names.append(row["label"] + (f" ({row['hidden_size']})" if smaller else ""))
        for x, column in enumerate(plans.COLUMNS):
            _draw_number(axes, x, y, row["columns"].get(column))
    axes.set_yticks(range(len(lines)), names, fontsize=9)
    axes.set_xticks(range(len(plans.COLUMNS)), [HEADS[c] for c in plans.COLUMNS], fontsize=9)
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    axes.set_xlim(-0.5, len(plans.COLUMNS) - 0.5)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    # what begins otherwise: nothing, the recurrent weights, the bias of the gate that keeps
    for edge in (0.5, 0.5 + len(plans.RECURRENT)):
        axes.axvline(edge, color="white", linewidth=4)
    heads = {1 + (len(plans.RECURRENT) - 1) / 2: "recurrent weights"}
    heads[len(plans.COLUMNS) - 1 - (len(plans.BIAS) - 1) / 2] = "bias of gate"
    for x, head in heads.items():
        style: dict[str, Any] = dict(xycoords=("data", "axes fraction"), ha="center", fontsize=9)
        axes.annotate(head, (x, 1), (0, 18), textcoords="offset points", style="italic", **style)
    axes.spines[:].set_visible(False)
    scale = config["input_scales"][-1]
    axes.set_title(f"Nats per step at initialisation, inputs of sd {scale:g}", **TITLE)


def _draw_number(axes: Axes, x: int, y: int, of: dict | None) -> None:
    style: dict[str, Any] = dict(ha="center", va="center", fontsize=8)
    if of is None:
        axes.text(x, y, "·", color="#999999", **style)
        return
    rate = middle(of["rate"][-1])
    shade = np.clip(NORM(np.clip(rate, -MOST, MOST)), 0, 1)
    face = colours()(float(shade)) if rate > -math.inf else (0.1, 0.1, 0.1, 1.0)
    axes.fill_between([x - 0.5, x + 0.5], y - 0.5, y + 0.5, color=face, linewidth=0)
    dark = float(np.dot(face[:3], (0.3, 0.6, 0.1))) < 0.5
    axes.text(x, y, short(rate), color="white" if dark else "black", **style)


def _draw_default(axes: Axes, lines: list[dict | str], config: dict) -> None:
    scales = config["input_scales"]
    for y, row in enumerate(lines):
        if isinstance(row, str) or plans.DEFAULT not in row["columns"]:
            continue
        axes.plot([-WIDEST, WIDEST], [y, y], color="#eeeeee", linewidth=0.8, zorder=0)
        rates = np.asarray(row["columns"][plans.DEFAULT]["rate"], float)
        for s, of_scale in enumerate(rates):
            colour, last = plot.COLOURS[s % len(plot.COLOURS)], s == len(rates) - 1
            place = y + 0.28 * (s - (len(rates) - 1) / 2) / max(len(rates) - 1, 1)
            ends = np.clip([of_scale.min(), of_scale.max()], -WIDEST, WIDEST)
            axes.plot(ends, [place, place], color=colour, linewidth=2)
            text = f"sd {scales[s]:g}" if y == _first(lines) else None
            style: dict[str, Any] = dict(markersize=5, markeredgewidth=1.2, label=text)
            style |= dict(color=colour, markerfacecolor=colour if last else "white")
            style |= dict(clip_on=False)  # what is off the axis stands at its end
            axes.plot(
                [np.clip(middle(of_scale), -WIDEST, WIDEST)], [place], "o", linestyle="", **style
            )
    axes.set_xscale("symlog", linthresh=LINEAR, linscale=0.6)
    axes.set_xlim(-WIDEST, WIDEST)
    axes.axvline(0, color="#555555", linewidth=1, zorder=0)
    axes.set_xticks(TICKS, list(map(_tick, TICKS)), fontsize=8.5)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", top=True, labeltop=True)
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.set_xlabel(UNITS, fontsize=9)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["right", "left"]].set_visible(False)
    axes.set_title("By default, from least to most of all seeds", **TITLE)
    handles, texts = axes.get_legend_handles_labels()
    axes.legend(handles, texts, title="inputs", fontsize=9, loc="lower right", framealpha=1)


def _first(lines: list[dict | str]) -> int:
    return next(y for y, row in enumerate(lines) if not isinstance(row, str))


def _tick(rate: float) -> str:
    steps = f"{math.log(2) / abs(rate):.2g}" if rate else "∞"
    return f"{rate:g}".replace("-", "−") + "\n" + steps


def _draw_scale(figure: Figure, axes: Axes) -> None:
    mappable = ScalarMappable(NORM, colours())
    bar = figure.colorbar(
        mappable, ax=axes, location="bottom", aspect=36, pad=0.01, extend="both", shrink=0.9
    )
    bar.set_ticks(list(TICKS), labels=list(map(_tick, TICKS)))
    bar.ax.xaxis.set_minor_locator(NullLocator())
    bar.ax.tick_params(labelsize=8.5)
    notes = "· not taken by this cell; −∞ nothing is left; in brackets, a smaller H"
    bar.set_label(f"{UNITS}\n{notes}", fontsize=9)
