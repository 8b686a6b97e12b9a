"""What figures of log-norms are made of: axes in powers of ten, bands, names at the ends."""

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Okabe and Ito 2008: told apart with every kind of colour vision
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LN10 = math.log(10)
# a norm squares first: what is below this has a square that float32 flushes to zero
FLOAT32_ZERO = 0.5 * math.log(float(np.finfo(np.float32).tiny))


def new_axes(width: float = 8, height: float = 4.5) -> Axes:
    """Axes of a figure of their own, in inches, for a caller that brought none."""
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


class Curve(NamedTuple):
    """A curve as drawn, for its name: values are powers of ten over lags from 0."""

    values: np.ndarray
    text: str
    colour: str

    def end(self, bottom: float) -> tuple[float, float, bool]:
        """Where it ends, or goes below `bottom`, and whether it does."""
        shown = np.flatnonzero(np.isfinite(self.values))
        last = int(shown[-1]) if len(shown) else 0
        under = np.flatnonzero(self.values < bottom)
        if len(under):
            return float(under[0]), bottom, True
        return float(last), float(np.nan_to_num(self.values[last])), False


def with_lag_zero(log_norms: np.ndarray) -> np.ndarray:
    """Curves over lags 1…T with the identity, ln 1, in front."""
    return np.concatenate([np.zeros((*log_norms.shape[:-1], 1)), log_norms], axis=-1)


def curve(
    axes: Axes,
    log_norms: np.ndarray,
    colour: str,
    *,
    text: str = "",
    band: bool = True,
    threshold: float | None = 1e-6,
    **line: Any,
) -> Curve:
    """Draws ln-norms `(several, lags from 0)`: median, band from least to largest, a dot.

    The dot stands where the median crosses the threshold. `text` is for `label_ends`.
    """
    values = np.where(np.isfinite(log_norms), log_norms, np.nan) / LN10
    lags = np.arange(values.shape[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a lag that no row reaches is a gap
        middle, low, high = (f(values, axis=0) for f in (np.nanmedian, np.nanmin, np.nanmax))
    axes.plot(lags, middle, color=colour, **{"linewidth": 2.2, **line})
    if band and len(values) > 1:
        axes.fill_between(lags, low, high, color=colour, alpha=0.18, linewidth=0)
    if threshold is not None:
        _mark_crossing(axes, lags, middle, math.log10(threshold), colour)
    return Curve(middle, text, colour)


def _mark_crossing(axes: Axes, lags: np.ndarray, y: np.ndarray, level: float, colour: str) -> None:
    under = np.flatnonzero(y < level)
    if not len(under) or under[0] == 0:
        return
    i = under[0]
    x = lags[i - 1] + (level - y[i - 1]) / (y[i] - y[i - 1])
    axes.plot([x], [level], "o", color=colour, markersize=8, markeredgecolor="white", zorder=5)


def limits(*log_norms: np.ndarray, lowest: float = -math.inf) -> tuple[float, float]:
    """Bottom and top of an axis, in powers of ten, with room for what is drawn."""
    finite = [a[np.isfinite(a)] for a in map(np.asarray, log_norms)]
    together = np.concatenate([[0.0, math.log(1e-7)], *finite]) / LN10
    bottom, top = max(float(together.min()), lowest), float(together.max())
    room = 0.05 * (top - bottom)
    return bottom - room, top + room


def lag_axis(axes: Axes, steps: int, room: float = 0.3) -> None:
    """x: steps back in time, with room at the right for the names of the curves."""
    axes.set_xlim(0, steps * (1 + room))
    ticks = [t for t in MaxNLocator(5, integer=True).tick_values(0, steps) if t <= steps]
    axes.set_xticks(ticks)
    axes.set_xlabel("lag k: steps back in time")


def power_axis(axes: Axes, label: str) -> None:
    """y: powers of ten at the left, natural logarithms at the right."""
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: power_of_ten(y)))
    axes.set_ylabel(label)
    axes.yaxis.set_label_coords(-0.105, 0.5)
    right = axes.secondary_yaxis("right", functions=(_to_natural, _from_natural))
    right.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    # above the numbers, whose width varies, so that it meets no neighbour
    axes.text(1.08, 1.03, "natural log", transform=axes.transAxes, ha="right", fontsize=10)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines["top"].set_visible(False)


def _to_natural(y: Any) -> Any:
    return y * LN10


def _from_natural(y: Any) -> Any:
    return y / LN10


def power_of_ten(y: float) -> str:
    """1, 10 or 10 with superscript digits, as plain text."""
    superscript = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return "1" if round(y) == 0 else "10" + str(round(y)).translate(superscript)


def threshold_line(axes: Axes, threshold: float, steps: int, text: str = "") -> None:
    """The line under which a gradient counts as gone, up to the last lag."""
    level = math.log10(threshold)
    axes.plot([0, steps], [level, level], color="#555555", linewidth=1, zorder=1)
    axes.text(steps, level, text, color="#555555", fontsize=10, ha="right", va="bottom")


def float32_zero(axes: Axes, steps: int, text: str = "") -> None:
    """Shades where a float32 norm computed by squaring reads exactly 0, up to the last lag."""
    bottom, _ = axes.get_ylim()
    zero = FLOAT32_ZERO / LN10
    if bottom < zero:
        axes.fill_between([0, steps], bottom, zero, color="#000000", alpha=0.07, linewidth=0)
        axes.text(0.015 * steps, bottom, text, color="#555555", fontsize=10, va="bottom")


def label_ends(axes: Axes, curves: Sequence[Curve], size: float = 12) -> None:
    """Writes each curve's name at its end, moved apart so that no two names touch.

    A curve that leaves through the floor is named where it does, with an arrow.
    """
    bottom, top = axes.get_ylim()
    left, right = axes.get_xlim()
    ends = [(curve, *curve.end(bottom)) for curve in curves]
    line = _line_height(axes, size)
    staying = sorted((e for e in ends if not e[3]), key=lambda e: -e[2])
    heights = [line * (e[0].text.count("\n") + 1) for e in staying]
    places = spread([e[2] for e in staying], heights, bottom, top)
    x_text = max((e[1] for e in staying), default=0) + 0.02 * (right - left)
    for (curve, x, y, _), place in zip(staying, places, strict=True):
        _name(axes, curve.text, (x, y), (x_text, place), curve.colour, size, va="center")
    leaving = sorted((e for e in ends if e[3]), key=lambda e: -e[1])
    for i, (curve, x, y, _) in enumerate(leaving):
        # a line above those that stand to the right and would else be written over
        near = sum(other[1] - x < 0.2 * (right - left) for other in leaving[:i])
        place = (x + 0.02 * (right - left), bottom + (0.2 + near) * line)
        _name(axes, curve.text + " ↓", (x, y), place, curve.colour, size, va="bottom")


def _line_height(axes: Axes, size: float) -> float:
    # of one line of text, in the units of the y axis
    bottom, top = axes.get_ylim()
    figure = axes.get_figure(root=True)
    assert figure is not None
    points = axes.get_position().height * figure.get_size_inches()[1] * 72
    return (top - bottom) / points * size * 1.3


def _name(
    axes: Axes,
    text: str,
    end: tuple[float, float],
    place: tuple[float, float],
    colour: str,
    size: float,
    va: str,
) -> None:
    axes.annotate(
        text,
        end,
        place,
        color=colour,
        fontsize=size,
        va=va,
        parse_math=False,
        annotation_clip=False,
        bbox=dict(facecolor="white", edgecolor="none", pad=0.5),
        arrowprops=dict(
            arrowstyle="-", color=colour, linewidth=0.8, shrinkA=0, shrinkB=0, relpos=(0, 0.5)
        ),
    )


def spread(
    wanted: Sequence[float], heights: Sequence[float], bottom: float, top: float
) -> list[float]:
    """Centres near the wanted ones, from the top down, such that boxes do not overlap."""
    places: list[float] = []
    ceiling = top
    for y, height in zip(wanted, heights, strict=True):
        places.append(min(y, ceiling - height / 2))
        ceiling = places[-1] - height / 2
    floor = bottom
    for i in range(len(places) - 1, -1, -1):
        places[i] = max(places[i], floor + heights[i] / 2)
        floor = places[i] + heights[i] / 2
    return places
