"""Figures of single examples of tasks: what is read, what is asked, what counts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxrnn.plot.axes import COLOURS

_GREY = "#e6e6e6"
_LETTERS = {"Reber": "BTPSXVE", "TemporalOrder": "abcdXYEB"}
_CHANNELS = {
    "Adding": ("number", "marker"),
    "Multiplication": ("number", "marker"),
    "ContextIntegration": ("motion", "colour", "motion counts", "colour counts"),
}
# the symbols behind those that are to be kept
_SIGNS = {"Copying": ("blank", "begin"), "SelectiveCopying": ("noise", "answer")}


def task_example(
    task: Any, example: Any, outputs: Any = None, axes: Sequence[Axes] | None = None
) -> tuple[Axes, Axes]:
    """Draws one example of a task of `jaxrnn.tasks`: xs above, targets below.

    Grey steps do not count below, and are padding above. Symbols and classes are filled cells,
    numbers are lines, several of them one above the other on one scale. With outputs
    `(T, output_size)` of a network: the softmax of logits as cells, with dots at the targets, or
    numbers as a second line.

    axes: two, the upper and the lower; without them it makes a figure of its own, which is
        `plot.task_example(task, example)[0].figure`.
    """
    xs, targets = np.asarray(example.xs), np.asarray(example.targets)
    if xs.ndim != 2:
        raise ValueError(
            f"the example has xs of shape {xs.shape}, expected (T, I), one example: "
            "take a row of a batch by jax.tree.map(lambda a: a[0], batch)"
        )
    counts = np.asarray(example.weights) > 0
    upper, lower = _two(task, targets) if axes is None else axes
    _shade(upper, np.arange(len(xs)) >= int(example.length))
    _shade(lower, ~counts)
    if _are_symbols(xs):
        _cells(upper, xs, _input_names(task))
    else:
        _lanes(upper, xs, _input_names(task), COLOURS[0], len(xs))
    if targets.ndim == 1:
        targets = np.eye(task.output_size)[targets]
    names = _output_names(task)
    shown = None if outputs is None else np.where(counts[:, None], np.asarray(outputs), np.nan)
    targets = np.where(counts[:, None], targets, np.nan)
    if _are_classes(task, example):
        _classes(lower, targets, shown, names)
    else:
        _numbers(lower, targets, shown, names)
    upper.set_ylabel("xs")
    lower.set_ylabel("targets")
    lower.set_xlabel("step" if counts.all() else "step (grey: does not count)")
    for panel in (upper, lower):
        panel.set_xlim(-0.5, len(xs) - 0.5)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
    return upper, lower


def _two(task: Any, targets: np.ndarray) -> tuple[Axes, Axes]:
    above = min(max(task.input_size, 4), 12)
    below = min(max(task.output_size, 4), 12)
    figure = Figure(figsize=(8, 1.6 + 0.24 * (above + below)), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(above, below))
    name = type(task).__name__
    upper.set_title(f"{name}, {task.length} steps", loc="left", fontsize=11)
    figure.align_ylabels()
    return upper, lower


def _input_names(task: Any) -> tuple[str, ...]:
    kind, size = type(task).__name__, task.input_size
    if kind in _SIGNS:
        return (*map(str, range(size - 2)), *_SIGNS[kind])
    if kind == "DelayedRecall":
        others = [f"distractor {i}" for i in range(task.distractors)]
        return (*[f"cue {i}" for i in range(task.cues)], *others, "question")
    return _CHANNELS.get(kind, tuple(_LETTERS.get(kind, map(str, range(size)))))


def _output_names(task: Any) -> tuple[str, ...]:
    kind, size = type(task).__name__, task.output_size
    if kind == "Copying":
        return (*map(str, range(size - 1)), "blank")
    if kind == "TemporalOrder":
        digits = size.bit_length() - 1
        return tuple(f"{i:0{digits}b}".translate({48: "X", 49: "Y"}) for i in range(size))
    if kind == "DelayedRecall":
        return tuple(f"cue {i}" for i in range(size))
    if kind == "Parity":
        return ("even", "odd")
    return tuple(_LETTERS.get(kind, map(str, range(size))))


def _are_symbols(xs: np.ndarray) -> bool:
    return xs.shape[1] > 2 and bool(np.isin(xs, (0, 1)).all() and (xs.sum(1) <= 1).all())


def _are_classes(task: Any, example: Any) -> bool:
    return np.asarray(example.targets).ndim == 1 or type(task).__name__ == "Reber"


def _shade(axes: Axes, where: np.ndarray) -> None:
    # each run of such steps as one rectangle
    edges = np.flatnonzero(np.diff(np.concatenate([[0], where.astype(int), [0]])))
    for first, behind in edges.reshape(-1, 2):
        axes.axvspan(first - 0.5, behind - 0.5, color=_GREY, linewidth=0, zorder=0)


def _cells(axes: Axes, values: np.ndarray, names: Sequence[str], colours: str = "Blues") -> None:
    # targets in full colour, 1/2 in half of it; a probability of 0 is white
    steps, rows = values.shape
    low, high = (-0.3, 1.2) if colours == "Blues" else (0, 1.2)
    axes.pcolormesh(
        np.arange(steps + 1) - 0.5,
        np.arange(rows + 1) - 0.5,
        np.ma.masked_where(~(values > 0), values).T,
        cmap=colours,
        vmin=low,
        vmax=high,
    )
    for row in range(1, rows):
        axes.axhline(row - 0.5, color="white", linewidth=1)
    axes.set_ylim(rows - 0.5, -0.5)
    _rows(axes, names)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    # of many rows only some are named, the last ones, which often are special, always
    every = -(-len(names) // 20)
    chosen = sorted({*range(0, len(names), every), len(names) - 1, len(names) - 2} - {-1})
    axes.set_yticks(chosen, [names[i] for i in chosen], fontsize=8)
    axes.tick_params(axis="y", length=0)


def _classes(
    axes: Axes, targets: np.ndarray, outputs: np.ndarray | None, names: Sequence[str]
) -> None:
    if outputs is None:
        _cells(axes, targets, names)
        return
    p = np.exp(outputs - outputs.max(-1, keepdims=True))
    _cells(axes, p / p.sum(-1, keepdims=True), names, "Oranges")
    steps, rows = np.nonzero(np.nan_to_num(targets))
    size = np.clip(400 / len(targets), 2, 6)
    axes.plot(steps, rows, "o", color=COLOURS[0], markersize=size, label="target")
    axes.plot([], [], "s", color=COLOURS[1], label="probability")
    _legend(axes)


def _numbers(
    axes: Axes, targets: np.ndarray, outputs: np.ndarray | None, names: Sequence[str]
) -> None:
    few = int(np.isfinite(targets[:, 0]).sum())
    both = targets if outputs is None else np.concatenate([targets, outputs])
    scale = float(np.nanmax(np.abs(both)))
    _lanes(axes, targets, names, COLOURS[0], few, scale, label="target")
    if outputs is not None:
        _lanes(axes, outputs, names, COLOURS[1], few, scale, label="output")
        _legend(axes)


def _lanes(
    axes: Axes,
    values: np.ndarray,
    names: Sequence[str],
    colour: str,
    few: int,
    scale: float = 0.0,
    label: str = "",
) -> None:
    # one channel is drawn as it is, several one above the other, each around a line for zero
    style: dict[str, Any] = dict(color=colour, linewidth=1.5, drawstyle="steps-mid")
    if few < 3:
        style = dict(color=colour, marker="o", linestyle="", markersize=8, clip_on=False)
    if values.shape[1] == 1:
        axes.axhline(0, color="#999999", linewidth=0.8, zorder=1)
        axes.plot(values[:, 0], label=label, **style)
        axes.margins(y=0.15)
        return
    scale = 2.4 * (scale or float(np.abs(values).max()))
    for row, channel in enumerate(values.T):
        axes.axhline(row, color="#999999", linewidth=0.8, zorder=1)
        axes.plot(row - channel / scale, label="" if row else label, **style)
    axes.set_ylim(len(names) - 0.4, -0.6)
    _rows(axes, names)


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9)
