"""Figures of gradient flow: singular values, ends, probes, layers, inputs, paths."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxrnn.plot.axes import (
    COLOURS,
    LN10,
    Curve,
    curve,
    label_ends,
    lag_axis,
    new_axes,
    power_axis,
    power_of_ten,
    with_lag_zero,
)

BLACK = COLOURS[-1]


def singular_values(record: Any, axes: Axes | None = None) -> Axes:
    """Draws the singular values of a `jaxrnn.analysis.GradientDecay` that was asked for them.

    Median over its batch axes, and band; the largest in the strongest colour.
    """
    values = np.asarray(record.log_singular_values)
    values = np.moveaxis(values.reshape(-1, *values.shape[-2:]), -1, 0)
    axes = new_axes() if axes is None else axes
    number = len(values)
    drawn = []
    for i, rows in enumerate(values):
        name = f"σ{_lowered(i + 1)}" if i in (0, number - 1) else ""
        line: dict[str, Any] = dict(threshold=None, alpha=1 - 0.65 * i / number)
        drawn.append(curve(axes, _from_lag_one(rows), COLOURS[0], text=name, **line))
    _finish(axes, drawn, [values], "σ of ∂carry_T/∂carry_(T−k)")
    return axes


def gradient_map(record: Any, axes: Axes | None = None) -> Axes:
    """Draws a `jaxrnn.analysis.GradientMap` as an image, the mean over its batch axes.

    Blank where the lag reaches beyond the beginning, or a reset.
    """
    axes = new_axes() if axes is None else axes
    logs = np.asarray(record.log_norm) / LN10
    ends = np.ravel(np.asarray(record.ends)[..., :])[: logs.shape[-2]]
    logs = logs.reshape(-1, *logs.shape[-2:])
    finite = np.isfinite(logs)
    number = finite.sum(0)
    mean = np.where(finite, logs, 0).sum(0) / np.maximum(number, 1)
    order = np.argsort(ends)
    image = axes.pcolormesh(
        np.arange(0.5, logs.shape[-1] + 1),
        np.arange(len(ends) + 1),
        np.ma.masked_array(mean, number == 0)[order],
        cmap="cividis",
        rasterized=True,
    )
    axes.set_yticks(np.arange(len(ends)) + 0.5, [str(e) for e in ends[order]])
    axes.set_xlabel("lag k: steps back in time")
    axes.set_ylabel("end e: index of the step")
    figure = axes.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(image, ax=axes, format=lambda y, _: power_of_ten(y) if y % 1 == 0 else "")
    bar.set_label("norm of ∂carry_e/∂carry_(e−k)")
    return axes


def gradient_probes(record: Any, axes: Axes | None = None) -> Axes:
    """Draws a `jaxrnn.analysis.GradientProbes`: the estimate and two standard errors around it.

    Batch axes: the median row, and its error.
    """
    axes = new_axes() if axes is None else axes
    logs = with_lag_zero(_rows(record.log_norm))
    errors = np.nan_to_num(_rows(record.standard_error), posinf=0)
    errors = np.median(np.pad(errors, ((0, 0), (1, 0))), axis=0) / LN10
    line: dict[str, Any] = dict(band=False, threshold=None)
    drawn = curve(axes, logs, COLOURS[0], text="estimate,\n± 2 errors", **line)
    low, high = drawn.values - 2 * errors, drawn.values + 2 * errors
    lags = np.arange(len(errors))
    axes.fill_between(lags, low, high, color=COLOURS[0], alpha=0.25, linewidth=0)
    _finish(axes, [drawn], [logs], "‖∂carry_T/∂carry_(T−k)‖_F / √N")
    return axes


def layer_decay(record: Any, axes: Axes | None = None) -> Axes:
    """Draws a `jaxrnn.analysis.LayerDecay`: each layer's own memory, and what the output keeps.

    Solid: ∂carry_T/∂carry_(T−k) within a layer; dashed: ∂y_T/∂carry_(T−k) of the same layer.
    """
    axes = new_axes() if axes is None else axes
    blocks = np.asarray(record.log_norm)
    outputs = np.asarray(record.log_output_norm)
    blocks = blocks.reshape(-1, *blocks.shape[-3:])
    outputs = outputs.reshape(-1, *outputs.shape[-2:])
    drawn = []
    for m in range(outputs.shape[1]):
        colour = COLOURS[m % (len(COLOURS) - 1)]
        own, out = _from_lag_one(blocks[:, m, m]), _from_lag_one(outputs[:, m])
        drawn.append(curve(axes, own, colour, text=f"layer {m}", threshold=None))
        line: dict[str, Any] = dict(
            linestyle=(0, (4, 2)), linewidth=1.6, threshold=None, band=False
        )
        drawn.append(curve(axes, out, colour, text=f"output from {m}", **line))
    _finish(axes, drawn, [blocks, outputs], "‖·‖_F of a block of the gradient")
    return axes


def input_sensitivity(
    record: Any, axes: Axes | None = None, label: str = "", colour: str = ""
) -> Axes:
    """Draws a `jaxrnn.analysis.InputSensitivity`: median over its batch axes, and band.

    Call it again with the same axes, and a label and colour, to compare one model with another.
    """
    first = axes is None
    axes = new_axes() if axes is None else axes
    spectral = record.log_spectral_norm
    logs = _rows(record.log_frobenius_norm if spectral is None else spectral) / LN10
    lags = np.asarray(record.lags)
    lags = lags.reshape(-1, lags.shape[-1])[0]
    logs = np.where(np.isfinite(logs), logs, np.nan)
    seen = np.flatnonzero(~np.all(np.isnan(logs), axis=0))
    middle, low, high = (np.full(len(lags), np.nan) for _ in range(3))
    if len(seen):
        for found, of in ((middle, np.nanmedian), (low, np.nanmin), (high, np.nanmax)):
            found[seen] = of(logs[:, seen], axis=0)
    colour = colour or COLOURS[0]
    (line,) = axes.plot(lags, middle, color=colour, linewidth=2.2, label=label or None)
    axes.fill_between(lags, low, high, color=line.get_color(), alpha=0.18, linewidth=0)
    if first:
        axes.set_xlabel("lag k: steps back in time")
        name = "‖∂y_T/∂x_(T−k)‖_F" if spectral is None else "σ_max of ∂y_T/∂x_(T−k)"
        power_axis(axes, name)
    if label:
        axes.legend(frameon=False, loc="best")
    return axes


def gradient_paths(record: Any, axes: Axes | None = None) -> Axes:
    """Draws a `jaxrnn.analysis.GradientPaths`: the whole, and the parts that add up to it.

    Medians over its batch axes, and bands.
    """
    axes = new_axes() if axes is None else axes
    parts = np.asarray(record.log_part_norm)
    parts = np.moveaxis(parts.reshape(-1, *parts.shape[-2:]), 1, 0)
    whole = _rows(record.log_norm)
    # the whole, wide and pale, under the part that it mostly is
    wide: dict[str, Any] = dict(linewidth=7, alpha=0.25, band=False, threshold=None)
    drawn = [curve(axes, _from_lag_one(whole), BLACK, text="whole", **wide)]
    for i, (rows, name) in enumerate(zip(parts, record.names, strict=True)):
        colour = COLOURS[i % (len(COLOURS) - 1)]
        drawn.append(curve(axes, _from_lag_one(rows), colour, text=name, threshold=None))
    _finish(axes, drawn, [whole, parts], "‖·‖_F of ∂carry_T/∂carry_(T−k)")
    axes.set_title("gradient by what touched it last", loc="left", fontsize=11)
    return axes


def _finish(axes: Axes, drawn: list[Curve], logs: list[np.ndarray], label: str) -> None:
    """Axes, labels and the names of the curves, which begin at lag 0, blank or not."""
    lag_axis(axes, len(drawn[0].values) - 1)
    power_axis(axes, label)
    finite = np.concatenate([a[np.isfinite(a)] for a in logs] + [np.zeros(1)]) / LN10
    room = 0.05 * (np.ptp(finite) or 1)
    axes.set_ylim(finite.min() - room, finite.max() + room)
    label_ends(axes, [one for one in drawn if one.text and np.isfinite(one.values).any()])


def _from_lag_one(log_norms: np.ndarray) -> np.ndarray:
    # a gap at lag 0, where the Frobenius norm of the identity is not 1
    return np.pad(log_norms, ((0, 0), (1, 0)), constant_values=np.nan)


def _rows(values: Any) -> np.ndarray:
    values = np.asarray(values)
    return values.reshape(-1, values.shape[-1])


def _lowered(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
