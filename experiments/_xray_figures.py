"""The figures of `xray`: one for each question, as an image that stands in the page itself."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import matplotlib.colors
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxrnn import plot
from jaxrnn.plot import state_space

# narrow, so that the words are still readable where a telephone shrinks it
WIDTH, HEIGHT = 6.4, 4.4
STYLE: Any = {
    "font.size": 12,
    "svg.fonttype": "path",
    "svg.hashsalt": "xray",
    "axes.linewidth": 0.8,
}


def image(draw: Callable[..., Figure], *arguments: Any, **options: Any) -> str:
    """What `draw` draws, as the address of an SVG image that needs no network."""
    with matplotlib.rc_context(STYLE):
        figure = draw(*arguments, **options)
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(content.getvalue()).decode()


def over_lag(
    curves: dict[str, np.ndarray],
    lags: np.ndarray,
    label: str,
    *,
    threshold: float | None = None,
    colours: Sequence[str] = plot.COLOURS,
) -> Figure:
    """Curves of ln-norms `(windows, lags)`: mean over windows, and a band from least to largest."""
    axes = plot.new_axes(WIDTH, HEIGHT)
    for (name, logs), colour in zip(curves.items(), _cycle(colours), strict=False):
        _curve(axes, lags, logs, colour, name)
    _log_axes(axes, lags, list(curves.values()), label)
    if threshold is not None:
        axes.axhline(np.log10(threshold), color="#555555", linewidth=1, linestyle=":")
    if len(curves) > 1:
        axes.legend(frameon=False, loc="upper right", fontsize=11)
    return _figure(axes)


def _curve(axes: Axes, lags: np.ndarray, logs: np.ndarray, colour: str, name: str) -> None:
    tens = np.where(np.isfinite(logs), logs, np.nan) / plot.LN10
    mean = np.mean(tens, axis=0)
    axes.plot(lags, mean, color=colour, linewidth=2.2, label=name)
    if len(tens) > 1:
        axes.fill_between(
            lags, np.min(tens, axis=0), np.max(tens, axis=0), color=colour, alpha=0.18, linewidth=0
        )


def _log_axes(axes: Axes, lags: np.ndarray, curves: list[np.ndarray], label: str) -> None:
    axes.set_ylim(*plot.limits(*curves, lowest=_lowest(curves)))
    axes.set_xlim(min(0, lags.min()), lags.max())
    axes.set_xlabel("lag: steps back in time")
    axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(lambda y, _: plot.power_of_ten(y))
    axes.set_ylabel(label)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _lowest(curves: list[np.ndarray]) -> float:
    # of the curve that stays highest, with some room: one that dives must not flatten the others
    ends = [np.min(c[np.isfinite(c)], initial=0.0) for c in curves]
    return min(2.5 * max(ends), np.log(1e-12)) / plot.LN10 if len(ends) > 1 else -np.inf


def time_constants(record: Any) -> Figure:
    """How the time constants are distributed over units."""
    return _figure(state_space.time_constants(record, plot.new_axes(WIDTH, HEIGHT)))


def exponents(values: np.ndarray, errors: np.ndarray, size: int) -> Figure:
    """Exponents by their index, with error bars; those that are −∞ are not in it."""
    axes = plot.new_axes(WIDTH, HEIGHT)
    index = np.arange(1, len(values) + 1)
    shown = np.isfinite(values)
    bars = np.where(np.isfinite(errors), errors, 0)[shown]
    axes.errorbar(
        index[shown], values[shown], bars, color=plot.COLOURS[0], fmt="o-", markersize=4, capsize=2
    )
    axes.axhline(0, color="#555555", linewidth=1, linestyle=":")
    axes.set(xlabel=f"index, out of {size}", ylabel="exponent, nats per step")
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    return _figure(axes)


def state_plane(points: Any, components: Any) -> Figure:
    """Trajectories and fixed points in the plane of the first two principal components."""
    axes = plot.new_axes(WIDTH, WIDTH * 0.85)
    state_space.fixed_points(points, components, state_space.principal_components(components, axes))
    return _figure(axes)


def eigenvalues(record: Any) -> Figure:
    """Eigenvalues over the unit circle."""
    return _figure(state_space.eigenvalues(record, plot.new_axes(WIDTH, WIDTH * 0.85)))


def _figure(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def _cycle(colours: Sequence[str]) -> list[str]:
    return list(colours) * 10


def shades(values: Sequence[float], decades: float) -> list[tuple[str, str]]:
    """Ground and ink of each value, powers of ten under the largest: dark is nothing, bright much.

    Values that many decades under 0, or −∞, are all as dark as can be.
    """
    colours = matplotlib.colormaps["cividis"]
    found = []
    for value in values:
        part = float(np.clip(1 + value / decades, 0, 1)) if np.isfinite(value) else 0.0
        ink = "#000000" if part > 0.5 else "#ffffff"
        found.append((matplotlib.colors.to_hex(colours(part)), ink))
    return found
