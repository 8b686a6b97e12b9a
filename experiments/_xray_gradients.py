"""The questions of `xray` about gradients: how far back, how fast, which way."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _xray_figures as figures
from experiments._decay_weights import Part
from experiments._xray_load import Subject
from experiments._xray_measure import (
    PROBES,
    Finding,
    Picture,
    change_words,
    effort,
    signed,
    size_of,
    small,
    windows_words,
)
from jaxrnn import plot
from jaxrnn.analysis.flow import gradient_probes
from jaxrnn.analysis.gradients import gradient_decay
from jaxrnn.analysis.paths import gradient_paths
from jaxrnn.analysis.sensitivity import input_decay, input_sensitivity
from jaxrnn.analysis.slopes import decay_rate, half_life, horizon

# ---- how far back the input matters


def sensitivity(subject: Subject, threshold: float) -> Finding:
    """∂(output or carry at T)/∂x_(T−lag)."""
    xs = jnp.asarray(subject.inputs.xs)
    # at a given cell no lag is too far; anything else is one function of the whole sequence
    followed = bool(subject.parts) and subject.end == -1 and size_of(subject.parts[0]) <= 512
    if followed:
        part = subject.parts[0]
        record = input_decay(part.cell, part.params, jnp.asarray(part.xs))
        what, cost = "carry", "N vector-Jacobian products per step, and a norm"
    else:
        record, cost = _of_function(subject, xs)
        what = "output"
    log_norm = record.log_spectral_norm
    norm = "largest gain in any direction" if log_norm is not None else "Frobenius norm, estimated"
    logs = np.asarray(record.log_frobenius_norm if log_norm is None else log_norm, np.float64)
    lags = np.asarray(record.lags)
    facts = _facts(logs, lags, threshold)
    ahead = bool(np.any(np.isfinite(logs[:, lags < 0])))
    symbol = f"size of ∂{what}/∂x at that lag"
    picture = Picture(
        figures.image(figures.over_lag, {"": logs}, lags, symbol),
        f"The {norm} of the derivative of one {what} with respect to the input so many steps "
        f"before it: mean over {windows_words(logs)} (of logarithms), band from least to largest. "
        "The vertical axis is in powers of ten.",
        "Where the line is high, a small change of the input at that distance still moves the "
        f"{what}; three powers of ten lower it moves it a thousand times less. A flat line "
        "remembers, a steep one forgets."
        + (" Left of zero lies the future, which this network reads as well." if ahead else ""),
    )
    said = [_sensitivity_words(facts, what, threshold)]
    floor = np.asarray(record.log_floor)
    if np.any(np.isfinite(floor)) and np.any(logs == -np.inf):
        lowest = plot.power_of_ten(float(np.max(floor)) / math.log(10))
        said.append(f"What is below about {lowest} cannot be seen.")
    numbers = {"of": what, "lags": lags, "log_norm": logs, **facts}
    return Finding(said, [picture], numbers, cost)


def _of_function(subject: Subject, xs: jax.Array) -> tuple[Any, str]:
    shape = jax.eval_shape(subject.function, xs).shape
    size = math.prod(shape[1 if subject.end is None else 2 :])
    end = None if subject.end is None else subject.end % xs.shape[1]
    if size <= 64:
        record = input_sensitivity(subject.function, xs, end=end)
        return record, f"{size} passes back through the whole function, twice"
    record = input_sensitivity(
        subject.function, xs, end=end, probes=PROBES, probe_key=jax.random.key(0)
    )
    error = float(np.max(np.asarray(record.standard_error)))
    said = f"{PROBES} random directions of an output of {size} numbers, twice"
    return record, f"{said}; standard error up to {error:.2g} nats"


def _sensitivity_words(facts: dict, what: str, threshold: float) -> str:
    if facts["peak_lag"] is None:
        return f"The {what} does not depend on the input at all: the derivative is exactly zero."
    at = f"at lag {facts['peak_lag']}"
    first = f"The {what} depends most on the input {at}"
    if facts["horizon"] == math.inf:
        return f"{first}; at no lag of the window does that fall below {small(threshold)} of it."
    return (
        f"{first}; from lag {facts['horizon']:.0f} on, it is less than {small(threshold)} of that."
    )


def _facts(logs: np.ndarray, lags: np.ndarray, threshold: float) -> dict:
    """Rate, horizon relative to the largest, and where that stands, of the mean over windows."""
    mean = np.mean(logs, axis=0)
    if not np.any(np.isfinite(mean)):
        return dict(mean=mean, rate=-math.inf, r_squared=0.0, horizon=0.0, peak_lag=None)
    behind, peak = lags >= 0, int(np.argmax(mean))
    rate, r_squared = _rate(mean[behind & (lags > 0)], lags[behind & (lags > 0)])
    # what is not recurrent may fade and come back: the horizon lies behind the last lag that counts
    last = lags[mean >= mean[peak] + math.log(threshold)].max()
    gone = float(last + 1) if last < lags.max() else math.inf
    return dict(mean=mean, rate=rate, r_squared=r_squared, horizon=gone, peak_lag=int(lags[peak]))


def _rate(mean: np.ndarray, lags: np.ndarray) -> tuple[float, float]:
    if not len(lags):
        return -math.inf, 0.0
    rate, r_squared = decay_rate(jnp.asarray(mean, jnp.float32), jnp.asarray(lags))
    return float(rate), float(r_squared)


def letters(
    finding: Finding, tokens: list[list[str]], decades: float, most: int = 3
) -> list[list[dict]]:
    """Each token of a few windows with ground and ink, and how much of the largest reaches it."""
    lags, logs = finding.numbers["lags"], finding.numbers["log_norm"]
    found = []
    for window, names in list(zip(logs, tokens, strict=True))[:most]:
        # stored by lag: the newest stands last in the text
        tens = window[::-1] / math.log(10)
        top = np.max(tens)
        tens = tens - top if np.isfinite(top) else tens
        colours = figures.shades(tens.tolist(), decades)
        rows = zip(names, colours, tens.tolist(), lags[::-1].tolist(), strict=True)
        found.append([dict(token=t, ground=g, ink=k, tens=v, lag=n) for t, (g, k), v, n in rows])
    return found


# ---- how fast gradients fade


def rates(parts: Sequence[Part], threshold: float, quick: bool) -> Finding:
    """ln σ_max of ∂carry_T/∂carry_(T−lag), of every part."""
    found = {part.label: _decay(part, threshold, quick) for part in parts}
    lags = np.arange(1, parts[0].xs.shape[1] + 1)
    curves = {label: row["log_norm"] for label, row in found.items()}
    probed = any(row["norm"] != "spectral" for row in found.values())
    kind = "what a random direction keeps" if probed else "largest gain in any direction"
    picture = Picture(
        figures.image(
            figures.over_lag, curves, lags, "size of ∂carry(T)/∂carry(T−lag)", threshold=threshold
        ),
        f"The size ({kind}) of the derivative of the last carry with respect to the carry so many "
        f"steps before: mean over {windows_words(next(iter(curves.values())))}, with a band from "
        f"least to largest. Dotted: {small(threshold)}, under which a gradient counts as gone.",
        "This is what a gradient is multiplied with on its way back through time. A straight line "
        "falls by the same factor in every step: its slope is the rate. Compare slopes, not "
        "heights: they are in units of each carry.",
    )
    numbers = {"lags": lags, "parts": found}
    return Finding(
        [rate_words(label, row, threshold) for label, row in found.items()],
        [picture],
        numbers,
        "N vector-Jacobian products per step and, for exact norms, some ten N × N products"
        if not probed
        else f"{PROBES} vector-Jacobian products per step",
    )


def _decay(part: Part, threshold: float, quick: bool) -> dict:
    chosen = effort(size_of(part), quick)
    xs = jnp.asarray(part.xs)[: chosen.windows]
    if chosen.spectral == "probes":
        record: Any = gradient_probes(part.cell, part.params, xs, jax.random.key(0), probes=PROBES)
        logs, norm = record.log_norm, "Frobenius / √N, estimated"
        more = {"standard_error": float(np.max(np.asarray(record.standard_error)))}
    else:
        record = gradient_decay(
            part.cell, part.params, xs, spectral=chosen.spectral, threshold=threshold
        )
        logs, norm = record.log_spectral_norm, "spectral"
        more = {
            "mean_log_step_norm": float(np.mean(np.asarray(record.mean_log_step_norm))),
            "spectral_residual": float(np.max(np.asarray(record.spectral_residual))),
        }
    logs = np.asarray(logs, np.float64)
    mean, lags = np.mean(logs, axis=0), np.arange(1, logs.shape[1] + 1)
    rate, r_squared = _rate(mean, lags)
    each = np.asarray(record.rate, np.float64)
    return {
        "carry_size": size_of(part),
        "norm": norm,
        "log_norm": logs,
        "rate": rate,
        "r_squared": r_squared,
        "rate_spread": float(np.std(each, ddof=1))
        if len(each) > 1 and np.all(np.isfinite(each))
        else 0.0,
        "half_life": float(half_life(jnp.asarray(rate))),
        "horizon": float(horizon(jnp.asarray(mean), jnp.asarray(lags), threshold)),
        **more,
    }


def rate_words(label: str, row: dict, threshold: float) -> str:
    """Rate and horizon of one part as sentences."""
    rate, steps = row["rate"], row["log_norm"].shape[1]
    if rate == -math.inf:
        first = f"{label}: the gradient is exactly zero from lag {row['horizon']:.0f} on"
        return first + ", as where every unit is switched off."
    said = f"{label}: per step back, the gradient {change_words(rate)} (rate {signed(rate)} nats "
    said += f"per step, spread over windows {row['rate_spread']:.3f})"
    if row["r_squared"] < 0.8:
        said += (
            f"; but the curve is not straight (R² {row['r_squared']:.2f}): read it, not the rate"
        )
    if row["horizon"] == math.inf:
        return f"{said}. It stays above {small(threshold)} for all {steps} steps of a window."
    return f"{said}. It falls below {small(threshold)} at lag {row['horizon']:.0f}."


# ---- which way gradients take


def paths(part: Part, quick: bool) -> Finding:
    """∂carry_T/∂carry_(T−lag) split into direct, gates and candidate."""
    chosen = effort(size_of(part), quick)
    if not chosen.path_windows:
        raise ValueError(
            f"a carry of {size_of(part)} numbers: six matrices of that size would have to be "
            "followed; look at a smaller part with --part"
        )
    xs = jnp.asarray(part.xs)[: chosen.path_windows]
    record = gradient_paths(part.cell, part.params, xs)
    whole = np.asarray(record.log_norm, np.float64)
    parts = np.asarray(record.log_part_norm, np.float64)
    curves = {"all together": whole}
    curves |= {name: parts[:, i] for i, name in enumerate(record.names)}
    colours = (plot.COLOURS[6], *plot.COLOURS[:3])
    picture = Picture(
        figures.image(
            figures.over_lag,
            curves,
            np.asarray(record.lags),
            "Frobenius norm of each part",
            colours=colours,
        ),
        "The gradient over lag, split exactly into parts that add up to it. Direct: handed on by "
        "what units keep of themselves, at every step of the lag. Gates, candidate: what was last "
        f"touched, on its way from the past, by a gate or by the candidate. Mean over "
        f"{windows_words(whole)}.",
        "The uppermost part carries the gradient. Where “direct” is on top, memory is held by open "
        "gates; where it is not, distant gradients go through the recurrent weights. Parts may lie "
        "above the whole: then they cancel.",
    )
    middle = max(whole.shape[1] // 10, 1) - 1
    means = parts.mean(axis=0)
    leading = [record.names[int(i)] for i in np.argmax(means, axis=0)]
    said = [
        f"At lag {middle + 1} most of the gradient goes by way of: {leading[middle]}; "
        f"at lag {whole.shape[1]}: {leading[-1]}."
        if np.any(np.isfinite(means[:, -1]))
        else f"At lag {middle + 1} most of the gradient goes by way of: {leading[middle]}; "
        f"at lag {whole.shape[1]} there is none left."
    ]
    numbers = {
        "names": record.names,
        "lags": np.asarray(record.lags),
        "log_norm": whole,
        "log_part_norm": parts,
        "share": np.asarray(record.share),
    }
    return Finding(said, [picture], numbers, "eight times N vector-Jacobian products per step")
