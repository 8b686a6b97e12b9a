"""The figure of `chaos_transition`, drawn from what its JSON holds."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments._chaos_measure import LEVEL, onsets
from experiments._chaos_verdicts import CORNER, REGIONS, mean_distance, of_size
from jaxrnn import plot

LAYOUT: list[Any] = [["exponent"] * 3 + ["phase"] * 3, ["size"] * 2 + ["back"] * 2 + ["gated"] * 2]
NATS = "λ₁, nats per step"


def draw(result: dict) -> Figure:
    """Exponents and phases beside theory; below, finite size, gradients and gated cells."""
    figure = Figure(figsize=(14, 9.5), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.08)  # type: ignore[union-attr]
    axes = figure.subplot_mosaic(LAYOUT, height_ratios=(1.25, 1))
    row = of_size(result["elman"], result["config"]["hidden_size"])
    _draw_exponents(axes["exponent"], row, result["lines"])
    _draw_phases(figure, axes["phase"], row, result["lines"])
    _draw_sizes(axes["size"], result["elman"])
    _draw_back(axes["back"], result["back"], row["variances"])
    _draw_gated(axes["gated"], result["gated"])
    for name, panel in axes.items():
        if name != "phase":
            panel.spines[["top", "right"]].set_visible(False)
    return figure


def colours(variances: list[float]) -> dict[float, Any]:
    """A colour for each input variance, from dark to bright as it grows."""
    shades = matplotlib.colormaps["plasma"](np.linspace(0, 0.85, len(variances)))
    return {variance: shades[i] for i, variance in enumerate(variances)}


def _mean_and_spread(values: Any) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(values, float)
    several = values.shape[-1] > 1
    return values.mean(-1), values.std(-1, ddof=1) if several else 0 * values[..., 0]


def _draw_exponents(axes: Any, row: dict, lines: dict) -> None:
    shades = colours(row["variances"])
    found = onsets(row)
    for i, (variance, shade) in enumerate(shades.items()):
        axes.plot(lines["gains"], lines["curves"][i], color=shade, linewidth=1.6, zorder=2)
        mean, sd = _mean_and_spread(row["exponent"][i])
        style: dict[str, Any] = dict(fmt="o", color=shade, markersize=5.5, elinewidth=1.4)
        axes.errorbar(row["gains"], mean, sd, label=f"{variance:g}", zorder=3, **style)
        if np.isfinite(found[i]).all():
            style = dict(markersize=9, markerfacecolor=shade, markeredgecolor="black", zorder=4)
            axes.plot([found[i].mean()], [0], "D", **style)
    axes.axhline(0, color="#555555", linewidth=1, zorder=1)
    handles, labels = axes.get_legend_handles_labels()
    style = dict(color="#888888", markeredgecolor="black", markersize=8, linestyle="")
    handles += [Line2D([], [], color="black"), Line2D([], [], marker="D", **style)]
    axes.legend(
        handles,
        [*labels, "mean field", "chaos sets in"],
        title="input variance s²",
        frameon=False,
        loc="upper left",
        ncols=2,
    )
    lowest = float(np.min(lines["curves"]))
    axes.set_ylim(lowest - 0.08, 0.95)
    axes.set_yticks(np.arange(np.ceil(2 * lowest) / 2, 0.6, 0.5))
    axes.set_xlabel("gain g")
    axes.set_ylabel(NATS)
    axes.set_title(f"Input suppresses chaos: tanh network, N = {row['size']}", loc="left")
    _draw_corner(axes.inset_axes((0.55, 0.09, 0.43, 0.33)), row, lines, shades)


def _draw_corner(axes: Any, row: dict, lines: dict, shades: dict) -> None:
    # every network on its own: what theory has as chaos is a cycle, on which λ₁ = 0
    gains, exponents = np.asarray(row["gains"], float), np.asarray(row["exponent"][0], float)
    shade = shades[row["variances"][0]]
    axes.plot(lines["gains"], lines["curves"][0], color=shade, linewidth=1.6)
    axes.plot(gains, exponents, "o-", color=shade, markersize=3, linewidth=0.7, alpha=0.5)
    axes.axhline(0, color="#555555", linewidth=1)
    axes.set_xlim(CORNER[0], CORNER[1] + 0.05)
    axes.set_ylim(-0.06, 0.09)
    axes.tick_params(labelsize=8)
    axes.set_title("no input, each network", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_phases(figure: Figure, axes: Any, row: dict, lines: dict) -> None:
    # over s, on which the variances lie apart, with s² written at the ticks
    heights = np.sqrt(row["variances"])
    norm = TwoSlopeNorm(0, vmin=-0.8, vmax=0.35)
    style: dict[str, Any] = dict(cmap="RdBu_r", norm=norm)
    ground = axes.pcolormesh(
        lines["gains"], np.sqrt(lines["variances"]), lines["exponent"], shading="gouraud", **style
    )
    axes.plot(lines["edge"], np.sqrt(lines["variances"]), color="black", linewidth=2)
    for y, of in zip(heights, np.asarray(row["exponent"], float), strict=True):
        style |= dict(s=85, edgecolors="black", linewidths=0.8, clip_on=False, zorder=4)
        axes.scatter(row["gains"], np.full(len(of), y), c=of.mean(-1), **style)
        for gain, values in zip(row["gains"], of, strict=True):
            where = dict(ha="center", va="center_baseline", fontsize=8, zorder=5)
            axes.text(gain, y, _sign(values), **where)
    mean, sd = _mean_and_spread(onsets(row))
    style = dict(fmt="D", color="#ffd400", markeredgecolor="black", ecolor="black", capsize=3)
    axes.errorbar(mean, heights, xerr=sd, zorder=6, markersize=7, clip_on=False, **style)
    axes.set_yticks(heights, [f"{variance:g}" for variance in row["variances"]])
    axes.set_xlim(row["gains"][0], row["gains"][-1])
    axes.set_ylim(0, heights[-1])
    # circles reach over the edges
    axes.tick_params(pad=11, length=0)
    axes.set_xlabel("gain g")
    axes.set_ylabel("input variance s²")
    title = "Ground and line: mean field; circles and diamonds: measured"
    axes.set_title(title, loc="left", pad=14)
    figure.colorbar(ground, ax=axes, label=NATS, pad=0.03, ticks=[-0.8, -0.4, 0, 0.2, 0.35])


def _sign(values: np.ndarray) -> str:
    if np.all(values > LEVEL):
        return "+"
    return "−" if np.all(values < -LEVEL) else "0"


def _draw_sizes(axes: Any, rows: list[dict]) -> None:
    sizes = np.array([row["size"] for row in rows], float)
    for (name, inside), shade in zip(REGIONS.items(), plot.COLOURS, strict=False):
        of = np.stack([mean_distance(row, inside) for row in rows])
        mean, sd = _mean_and_spread(of)
        style: dict[str, Any] = dict(marker="o", color=shade, capsize=3, label=name)
        axes.errorbar(sizes, mean, np.minimum(sd, 0.9 * mean), **style)
    first = np.mean(mean_distance(rows[0], REGIONS["chaos"])) * sizes[0]
    axes.plot(sizes, first / sizes, color="#555555", linestyle="--", linewidth=1, label="1/N")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [f"{int(size)}" for size in sizes])
    axes.set_xlabel("units N")
    axes.set_ylabel("mean |λ₁ − mean field|, nats per step")
    axes.set_title("Finite size", loc="left")
    axes.legend(frameon=False, fontsize=9)


def _draw_back(axes: Any, row: dict, variances: list[float]) -> None:
    forward, backward = (np.asarray(row[key], float) for key in ("exponent", "rate"))
    shades = colours(variances)
    ends = [forward.min() - 0.1, forward.max() + 0.1]
    axes.plot(ends, ends, color="#555555", linewidth=1)
    for variance, x, y in zip(row["variances"], forward, backward, strict=True):
        shade = dict(markerfacecolor="none", color=shades[variance], label=f"s² = {variance:g}")
        axes.plot(x.ravel(), y.ravel(), "o", markersize=7, **shade)
    axes.set_xlabel("forwards: " + NATS)
    axes.set_ylabel("backwards: rate of the gradient")
    axes.set_title("Gradients travel back at λ₁", loc="left")
    axes.legend(frameon=False, fontsize=9)


def _draw_gated(axes: Any, rows: list[dict]) -> None:
    if not rows:
        axes.set_visible(False)
        return
    for row, shade in zip(rows, plot.COLOURS[2:], strict=False):
        for variance, of, dashes in zip(
            row["variances"], row["exponent"], ("-", "--", ":"), strict=False
        ):
            mean, sd = _mean_and_spread(of)
            style: dict[str, Any] = dict(color=shade, linestyle=dashes, marker="o", markersize=4)
            label = f"{row['label']}, s² = {variance:g}"
            axes.errorbar(row["gains"], mean, sd, label=label, **style)
    gains = np.linspace(0, rows[0]["critical_gain"], 50)
    gains = gains[gains >= rows[0]["gains"][0]]
    words = "ln(½ + g/4): h = 0, no input"
    axes.plot(gains, np.log(0.5 + gains / 4), color="black", linewidth=1, label=words)
    axes.axhline(0, color="#555555", linewidth=1)
    axes.set_xlabel("gain g")
    axes.set_ylabel(NATS)
    axes.set_title(f"The same for gated cells, N = {rows[0]['size']}", loc="left")
    axes.legend(frameon=False, fontsize=8.5)
