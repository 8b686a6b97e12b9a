"""The figure of `gradient_decay`, drawn from what its JSON holds."""

import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import _common as common
from experiments._decay_report import ends, mean
from jaxrnn import plot

CARRY = r"$\|\,\partial\,carry_T\,/\,\partial\,carry_{T-k}\,\|_2$"
INPUT = r"$\|\,\partial L_T\,/\,\partial x_{T-k}\,\|$"
GHOST: dict[str, Any] = dict(
    band=False, threshold=None, linewidth=1.1, alpha=0.55, linestyle=(0, (4, 2))
)
CURVES = {
    "joint": ("joint (h, c)", "-"),
    "hidden_block": ("block ∂h/∂h of joint", (0, (6, 2))),
    "direct_path": ("direct path Πf", (0, (1, 1.2))),
    "product_of_hidden_blocks": ("product of ∂h/∂h,\nc frozen: no derivative", (0, (5, 1, 1, 1))),
}


def draw(result: dict, path: Path) -> list[str]:
    """Draws the figure; returns what had to be replaced in it, in words."""
    strip = result["strip"]
    everything = "".join(strip["characters"]) + _caption(result)
    families, missing = plot.families_for(everything)
    with matplotlib.rc_context({"font.size": 12, "axes.titlesize": 14, "axes.titleweight": "bold"}):
        figure = Figure(figsize=(16, 9))
        grid = figure.add_gridspec(
            2, 2, left=0.065, right=0.945, top=0.915, bottom=0.335, hspace=0.45, wspace=0.27
        )
        panels = [figure.add_subplot(grid[i, j]) for i in (0, 1) for j in (0, 1)]
        _draw_panels(panels, result)
        _draw_strip(figure, result, families)
        caption = plot.drawable(_caption(result).replace("\n", " "), ["DejaVu Sans", *families[1:]])
        figure.text(
            0.02, 0.012, "\n".join(textwrap.wrap(caption, 205)), fontsize=10, va="bottom",
            family=["DejaVu Sans", *families[1:]], parse_math=False, linespacing=1.25,
        )  # fmt: skip
        figure.suptitle(
            "How gradients fade with distance in time", x=0.02, y=0.985, ha="left", fontsize=18
        )
        with common.whole_file(path) as part:
            figure.savefig(part, dpi=120)
    return common.about_fonts(missing)


def _draw_panels(panels: list[Axes], result: dict) -> None:
    rows = result["rows"]
    about = {**result["config"], "length": result["about"]["length"]}
    first, last = ends(rows[0])[0]["when"], ends(rows[0])[-1]["when"]
    a, b, c, d = panels
    _panel_carry(a, rows, 0, about)
    a.set_title(f"A   {first[0].upper()}{first[1:]}", loc="left")
    _panel_carry(b, rows, -1, about)
    bits = ", with bits/char" if "bits" in rows[0]["measurements"][-1] else ""
    b.set_title(f"B   {last[0].upper()}{last[1:]}{bits} (dashed: A)", loc="left")
    lstm = [i for i, row in enumerate(rows) if "curves" in row["measurements"][-1]]
    if lstm:
        _panel_four(c, rows[lstm[-1]], _colour(lstm[-1]), about)
    else:
        _panel_bound(c, rows, about)
    _panel_input(d, rows, about)


def _finish(
    axes: Axes,
    values: list[np.ndarray],
    curves: list[plot.Curve],
    label: str,
    config: dict,
    lowest: float = -np.inf,
    explain: bool = False,
) -> None:
    steps = config["length"]
    axes.set_ylim(*plot.limits(*values, lowest=lowest))
    plot.lag_axis(axes, steps, room=0.4)
    plot.power_axis(axes, label)
    level, zero = f"{config['threshold']:g}", "a float32 norm reads 0 here"
    plot.threshold_line(axes, config["threshold"], steps, level if explain else "")
    plot.float32_zero(axes, steps, zero if explain else "")
    plot.label_ends(axes, curves)


def _panel_carry(axes: Axes, rows: list[dict], which: int, config: dict) -> None:
    curves, found = [], []
    for i, row in enumerate(rows):
        if which == -1:
            plot.curve(axes, _lagged(row["measurements"][0]), _colour(i), **GHOST)
        m = row["measurements"][which]
        name = short(row["label"])
        if which == -1 and "bits" in m:
            name += f"  {mean(m, 'bits'):.2f}"
        curves.append(_lagged(m))
        found.append(
            plot.curve(axes, curves[-1], _colour(i), text=name, threshold=config["threshold"])
        )
    if which == 0:
        halves = np.arange(curves[0].shape[-1]) * np.log(0.5)
        dashed: dict[str, Any] = dict(linewidth=1.2, linestyle="--", threshold=None)
        found.append(plot.curve(axes, halves[None], "#444444", text="0.5ᵏ", **dashed))
    _finish(axes, curves, found, CARRY, config, explain=which == 0)


def _panel_four(axes: Axes, row: dict, colour: str, config: dict) -> None:
    m = row["measurements"][-1]
    curves, found = [], []
    for name, (text, style) in CURVES.items():
        values = plot.with_lag_zero(np.array(m["curves"][name], float)[:1])
        end = plot.curve(
            axes, values, colour, text=text, linestyle=style, threshold=config["threshold"]
        )
        curves.append(values)
        found.append(end)
    # the product that is no derivative may fall so fast that it would flatten the others
    lowest = 1.6 * min(float(c[np.isfinite(c)].min()) for c in curves[:-1]) / plot.LN10
    _finish(axes, curves, found, "σ_max", config, min(lowest, -25.0))
    axes.set_title(f"C   Four curves, one network: {short(row['label'])}", loc="left")


def _panel_bound(axes: Axes, rows: list[dict], config: dict) -> None:
    curves, found = [], []
    for i, row in enumerate(rows):
        m = row["measurements"][-1]
        curves.append(_lagged(m))
        found.append(
            plot.curve(
                axes,
                curves[-1],
                _colour(i),
                text=short(row["label"]),
                threshold=config["threshold"],
            )
        )
        bound = np.arange(curves[-1].shape[-1]) * mean(m, "log_step_norm")
        curves.append(bound[None])
        plot.curve(axes, bound[None], _colour(i), linestyle=":", threshold=None)
    _finish(axes, curves, found, CARRY, config)
    axes.set_title("C   Measured, and (dotted) what step norms alone would allow", loc="left")


def _panel_input(axes: Axes, rows: list[dict], config: dict) -> None:
    curves, found = [], []
    for i, row in enumerate(rows):
        values = np.array(row["measurements"][-1]["log_norm_input"], float)
        curves.append(values)
        found.append(
            plot.curve(
                axes,
                values,
                _colour(i),
                text=short(row["label"]),
                threshold=config["threshold"],
            )
        )
    _finish(axes, curves, found, INPUT, config)
    of_text = "bits" in rows[0]["measurements"][-1]
    what = "each input: same units for all" if of_text else "the inputs of each part"
    axes.set_title(f"D   What reaches {what}", loc="left")


def short(label: str) -> str:
    """A label as it stands in the figure."""
    return label.replace(", forget bias", " bias")


def _colour(row: int) -> str:
    return plot.COLOURS[row % len(plot.COLOURS)]


def _lagged(m: dict) -> np.ndarray:
    return plot.with_lag_zero(np.array(m["log_norm"], float))


def _draw_strip(figure: Figure, result: dict, families: list[str], most: int = 80) -> None:
    strip = result["strip"]
    names = list(strip["log_norm"])[:6]
    values = np.array([strip["log_norm"][name] for name in names], float)
    # stored by lag; the newest stands at the right
    values = values[:, :most][:, ::-1] / plot.LN10
    # a network that came in a file reads numbers, not characters
    characters = strip["characters"][-most:] or " " * values.shape[1]
    high = float(np.max(values))
    axes = figure.add_axes((0.135, 0.125, 0.80, 0.125))
    image = plot.coloured_text(
        axes,
        [short(name) for name in names],
        plot.drawable(characters, families),
        values,
        families,
        low=high - 6,
        high=high,
    )
    for label, colour in zip(axes.get_yticklabels(), plot.COLOURS, strict=False):
        label.set_color(colour)
    where = "a held-out window" if strip["characters"] else "a window"
    follows = (
        f", which continues {plot.drawable(strip['next'], families)!r}" if strip["next"] else ""
    )
    axes.set_title(
        f"The last {len(characters)} inputs of {where}{follows}; "
        "brighter: reached by more of the gradient of L_T (as in D, first seed)",
        loc="left", fontsize=11, fontweight="normal", parse_math=False,
        family=["DejaVu Sans", *families[1:]],
    )  # fmt: skip
    bar = figure.colorbar(image, cax=figure.add_axes((0.945, 0.125, 0.008, 0.125)))
    ticks = np.arange(np.ceil(high - 6), np.floor(high) + 1, 2)
    bar.set_ticks(ticks, labels=[plot.power_of_ten(t) for t in ticks])


def _caption(result: dict) -> str:
    config, about = result["config"], result["about"]
    scale = result["rows"][0]["measurements"]
    what = f"Text: {about['text']}." if "text" in about else f"{about['network']}."
    return (
        f"{what} T = {about['length']}, H = {about['hidden_size']}, inputs of {about['inputs']}; "
        f"{about['initialisation']}; carry {about['carry']}. Each curve: mean ln-norm over "
        f"{scale[-1]['windows']} windows, median over {config['seeds']} seeds (band: least to "
        f"largest); dots: below {config['threshold']:g}. Shaded: a float32 norm squares first and "
        "reads exactly 0 there, since squares below 1.2e−38 are flushed to zero; these curves are "
        "computed with exponents kept apart. C, D and strip: as in B. A–C are in units of each "
        "cell's own carry: compare slopes, not heights. A slope over these lags is a fit, not a "
        "Lyapunov exponent; a small gradient slows learning, it does not forbid it."
        + (f" {about['loss']}." if "loss" in about else "")
    )
