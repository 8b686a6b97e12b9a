"""Figures of what a monitor saw during training."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxrnn.plot.axes import COLOURS, new_axes


def monitored(record: Any, axes: Axes | None = None) -> Axes:
    """Draws a `jaxrnn.analysis.Monitored` whose fields have a leading axis of updates.

    Such as what `jax.lax.scan` stacks, or `jax.tree.map(lambda *a: np.stack(a), *records)`: the
    rate and the exponents over updates at the left, time constants, in steps, at the right.
    """
    axes = new_axes() if axes is None else axes
    at = np.asarray(record.measured_at)
    chosen = [i for when, i in zip(*np.unique(at, return_index=True), strict=True) if when > 0]
    x = at[chosen]
    exponents = np.asarray(record.exponents)[chosen]
    axes.axhline(0, color="#999999", linewidth=0.8)
    (rate,) = axes.plot(x, np.asarray(record.rate)[chosen], color=COLOURS[0], linewidth=2.2)
    rate.set_label("rate over lag")
    for k, exponent in enumerate(exponents.T):
        axes.plot(
            x, exponent, "--", color=COLOURS[1], linewidth=1.5, label="" if k else "exponents"
        )
    axes.set_xlabel("update")
    axes.set_ylabel("nats per step")
    axes.spines["top"].set_visible(False)
    taus = np.asarray(record.time_constant)[chosen]
    if np.isfinite(taus).any():
        right = axes.twinx()
        (line,) = right.plot(x, taus, color=COLOURS[2], linewidth=2.2)
        axes.plot([], [], color=line.get_color(), linewidth=2.2, label="time constant (right)")
        right.set_ylabel("median time constant, steps")
        right.set_ylim(0, None)
        right.spines["top"].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    return axes
