"""Figures of gradients over lag."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxrnn.plot.axes import (
    COLOURS,
    curve,
    label_ends,
    lag_axis,
    limits,
    new_axes,
    power_axis,
    with_lag_zero,
)


def gradient_decay(
    record: Any, axes: Axes | None = None, label: str = "", colour: str = ""
) -> Axes:
    """Draws the curve of a `jaxrnn.analysis.GradientDecay`: median over its batch axes, and band.

    Without axes it makes a figure of its own: `plot.gradient_decay(record).figure.savefig(…)`.
    """
    if axes is None:
        axes = new_axes()
    log_norm = np.asarray(record.log_spectral_norm)
    log_norms = log_norm.reshape(-1, log_norm.shape[-1])
    steps = log_norms.shape[-1]
    drawn = curve(axes, with_lag_zero(log_norms), colour or COLOURS[0], text=label)
    lag_axis(axes, steps)
    power_axis(axes, "σ_max of ∂carry_T/∂carry_(T−k)")
    axes.set_ylim(*limits(with_lag_zero(log_norms)))
    label_ends(axes, [drawn])
    return axes
