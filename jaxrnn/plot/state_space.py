"""Figures of state space: trajectories, fixed points, eigenvalues, time constants."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from jaxrnn.plot.axes import COLOURS, new_axes

_INK = "#222222"
_PALE = "#555555"
# colour and filling of each kind of point
_KINDS = {
    "stable": ("stable", COLOURS[0], True),
    "saddle": ("saddle", COLOURS[1], False),
    "marginal": ("marginal", COLOURS[2], True),
    "unstable": ("unstable in all directions", COLOURS[3], False),
    "slow": ("slow, not fixed", COLOURS[4], False),
}


def principal_components(record: Any, axes: Axes | None = None) -> Axes:
    """Draws the trajectories of a `PrincipalComponents` along its first two components.

    Every row of the batch is a thin line with a dot where it ends; `plot.fixed_points` puts fixed
    points on top.
    """
    axes = _square() if axes is None else axes
    rows = np.asarray(record.projections)
    if rows.shape[-1] < 2:
        raise ValueError(
            "the record has one component: the figure needs principal_components(…, 2)"
        )
    T = rows.shape[-2] if rows.ndim > 1 else 1
    for row in rows.reshape(-1, T, rows.shape[-1]):
        axes.plot(row[:, 0], row[:, 1], color=_PALE, linewidth=0.6, alpha=0.25, zorder=1)
        axes.plot(row[-1:, 0], row[-1:, 1], ".", color=_INK, markersize=4, zorder=2)
    explained = np.asarray(record.explained)
    for k, name in enumerate(("x", "y")):
        axes.set(**{f"{name}label": f"component {k + 1} ({explained[k]:.0%} of the variance)"})
    axes.set_aspect("equal", adjustable="datalim")
    _bare(axes)
    return axes


def fixed_points(record: Any, components: Any, axes: Axes | None = None) -> Axes:
    """Draws a `FixedPoints` in the first two of a `PrincipalComponents`, trajectories below.

    Stable points are filled, saddles open; lines show the directions in which a point is unstable,
    longer the nearer they lie to the plane of the figure. Slow points are diamonds.
    """
    if axes is None:
        axes = principal_components(components)
    places = np.asarray(components.project(record.vectors))
    plane = np.asarray(components.components)[:2]
    size = 0.06 * max(np.ptp(np.asarray(components.projections)[..., :2].reshape(-1, 2), axis=0))
    kinds = np.array(record.kinds)
    for i in np.flatnonzero(kinds != "slow"):
        for direction in _unstable_directions(record, int(i)):
            end = size * (plane @ direction)
            line = np.stack([places[i, :2] - end, places[i, :2] + end])
            axes.plot(*line.T, color=_INK, linewidth=1.3, zorder=3)
    for kind, (name, colour, filled) in _KINDS.items():
        here = places[kinds == kind]
        if len(here):
            axes.plot(
                here[:, 0],
                here[:, 1],
                "D" if kind == "slow" else "o",
                color=colour,
                markerfacecolor=colour if filled else "white",
                markeredgewidth=1.6,
                markersize=7 if kind == "slow" else 8,
                zorder=4,
                label=f"{name} ({len(here)})",
            )
    _legend(axes, any(np.asarray(record.unstable_directions)[kinds != "slow"] > 0))
    return axes


def _unstable_directions(record: Any, i: int) -> Iterator[np.ndarray]:
    values = np.asarray(record.eigenvalues)[i]
    vectors = np.asarray(record.right_vectors)[i]
    for k in np.flatnonzero(np.abs(values) > 1):
        # a pair of complex vectors spans the plane of its first one's two parts
        value, vector = complex(values[k]), vectors[:, k]
        parts = [np.real(vector)] if value.imag == 0 else []
        if value.imag > 0:
            parts = [np.real(vector), np.imag(vector)]
        for part in parts:
            yield part / np.linalg.norm(part)


def _legend(axes: Axes, lines: bool) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if lines:
        handles.append(Line2D([], [], color=_INK, linewidth=1.3))
        labels.append("unstable direction")
    if handles:
        axes.legend(
            handles,
            labels,
            frameon=False,
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=len(handles),
            fontsize=10,
            handletextpad=0.4,
            columnspacing=1.4,
        )


def eigenvalues(record: Any, axes: Axes | None = None) -> Axes:
    """Draws the eigenvalues of a `Linearization` or a `FixedPoints` over the unit circle.

    Filled inside the circle, where deviations decay, open outside, where they grow. Of fixed
    points, each kind has its colour.
    """
    axes = _square() if axes is None else axes
    values = np.asarray(record.eigenvalues)
    values = values.reshape(-1, values.shape[-1])
    kinds = np.array(getattr(record, "kinds", ("",) * len(values)), dtype=object)
    circle = np.exp(2j * np.pi * np.linspace(0, 1, 361))
    axes.plot(np.real(circle), np.imag(circle), color=_PALE, linewidth=1, zorder=1)
    axes.axhline(0, color="#dddddd", linewidth=0.6, zorder=0)
    axes.axvline(0, color="#dddddd", linewidth=0.6, zorder=0)
    names = {"": ("", COLOURS[0], True), **_KINDS}
    for kind, (name, colour, _) in names.items():
        here = values[kinds == kind].ravel()
        if not len(here):
            continue
        style: dict[str, Any] = dict(
            color=colour, markersize=4.5, markeredgewidth=1.2, linestyle="none", zorder=3
        )
        grows = np.abs(here) > 1
        x, y = np.real(here), np.imag(here)
        axes.plot(x[~grows], y[~grows], "o", alpha=0.5, **style)
        axes.plot(x[grows], y[grows], "o", markerfacecolor="white", **style)
        if name:
            axes.plot(
                [], [], "o", color=colour, markersize=6, label=f"{name} ({sum(kinds == kind)})"
            )
    axes.set(xlabel="Re μ, per step", ylabel="Im μ, per step")
    axes.set_aspect("equal", adjustable="datalim")
    _bare(axes)
    _legend(axes, False)
    return axes


def time_constants(record: Any, axes: Axes | None = None, unit: str = "steps") -> Axes:
    """Draws how the time constants of a `TimeConstants` are distributed over units.

    A line for each average: how many of the units have at most this τ, all rows of the batch
    together. Where the lines part, gates forget in short moments. Infinite ones are off the figure:
    their line ends below 100 %.
    """
    axes = new_axes(7, 4.5) if axes is None else axes
    averages = (
        ("mean of ln keep", record.time_constant, COLOURS[0], "-"),
        ("ln of mean keep", record.time_constant_of_mean, COLOURS[1], "--"),
    )
    for name, tree, colour, style in averages:
        taus = np.sort(np.concatenate([np.ravel(leaf) for leaf in _leaves(tree)]))
        shown = taus[np.isfinite(taus) & (taus > 0)]
        share = (np.searchsorted(taus, shown, side="right")) / len(taus)
        axes.step(shown, share, style, where="post", color=colour, linewidth=2.2, label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tau, _: f"{tau:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set(xlabel=f"time constant τ ({unit})", ylabel="units with at most this τ")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False, loc="lower right")
    _bare(axes)
    return axes


def _leaves(tree: Any) -> list[np.ndarray]:
    import jax

    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _square() -> Axes:
    return Figure(figsize=(6.5, 6.5), layout="constrained").add_subplot()


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
