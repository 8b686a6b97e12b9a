"""The questions of `xray` about dynamics: how long units hold on, what grows, where it rests."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from experiments import _xray_figures as figures
from experiments._decay_weights import Part
from experiments._xray_measure import (
    Finding,
    Picture,
    effort,
    signed,
    size_of,
    steps_words,
    windows_words,
)
from jaxrnn.analysis.fixed_points import fixed_points
from jaxrnn.analysis.linear import linearize
from jaxrnn.analysis.lyapunov import lyapunov_spectrum
from jaxrnn.analysis.projection import principal_components
from jaxrnn.analysis.timescales import modes, time_constants

NEWTON = 20  # steps of each search: a QR of (2N, N) each

# ---- how long units hold on


def constants(part: Part) -> Finding:
    """Time constants of keep gates over the data."""
    record = time_constants(part.cell, part.params, jnp.asarray(part.xs))
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(record.mean_log_keep)]
    log_keep = np.concatenate([np.mean(leaf, axis=0).ravel() for leaf in leaves])
    with np.errstate(divide="ignore"):
        taus = np.where(log_keep == 0, np.inf, -1 / log_keep)
    low, median, high = np.percentile(taus, (10, 50, 90), method="inverted_cdf")
    steps = part.xs.shape[1]
    picture = Picture(
        figures.image(figures.time_constants, record),
        "How many of the units have at most this time constant: the number of steps in which what "
        "a unit holds shrinks to 37 % of itself, if nothing but its own gate acts.",
        "Far to the right are the units that hold on for long. The solid line averages logarithms, "
        "which is what survives; where the dashed line lies to the right of it, gates forget in "
        "short moments rather than steadily.",
    )
    said = [
        f"Half of the {len(taus)} units hold on for {steps_words(median)} or less; "
        f"the tenth that forgets soonest for at most {steps_words(low)}, the tenth that holds "
        f"longest for {steps_words(high)} or more."
    ]
    if np.isfinite(high) and high > steps:
        said.append(f"Time constants above the {steps} steps of a window are extrapolated.")
    numbers = {"time_constant": taus, "median": median, "percentile_10": low, "percentile_90": high}
    return Finding(said, [picture], numbers, "no more than one unroll, and the gates once again")


# ---- whether small differences grow


def exponents(part: Part, quick: bool) -> Finding:
    """Lyapunov exponents along the inputs."""
    size = size_of(part)
    count = min(effort(size, quick).exponents, size)
    xs = jnp.asarray(part.xs)[:4]
    record = lyapunov_spectrum(part.cell, part.params, xs, exponents=count)
    each = np.asarray(record.exponents, np.float64)
    values = np.mean(each, axis=0)
    # over windows, which are independent of each other; of a single one over its blocks
    errors = np.asarray(record.standard_error, np.float64)[0]
    if len(each) > 1:
        with np.errstate(invalid="ignore"):
            errors = np.std(each, axis=0, ddof=1) / math.sqrt(len(each))
    counted = int(np.asarray(record.steps)[0])
    picture = Picture(
        figures.image(figures.exponents, values, errors, size),
        f"The {count} largest of {size} Lyapunov exponents: at which rate a small difference "
        f"between two runs with the same inputs grows (above 0) or fades (below), in the direction "
        f"that does so most, second most, and so on. Bars: standard errors, {windows_words(each)}.",
        "All below zero: the network forgets where it started and follows its inputs. The first "
        "one near zero: it remembers for long. Above zero: chaos; gradients explode, and no two "
        "runs stay together.",
    )
    first, error = float(values[0]), float(errors[0])
    said = [
        f"The largest exponent is {signed(first)} ± {error:.3f} nats per step, over "
        f"{counted} steps of each window: {_exponent_words(first, error)}"
    ]
    numbers = {
        "exponents": values,
        "standard_error": errors,
        "windows": each,
        "kaplan_yorke_dimension": np.asarray(record.kaplan_yorke_dimension),
        "entropy_rate": np.asarray(record.entropy_rate),
        "steps": counted,
        "of": size,
    }
    cost = f"{count} Jacobian-vector products and one QR of ({size}, {count}) per step"
    return Finding(said, [picture], numbers, cost)


def _exponent_words(first: float, error: float) -> str:
    if first == -math.inf:
        return "every difference is gone within the window."
    if first - 2 * error > 0:
        return "small differences grow, the dynamics are chaotic on these inputs."
    if first + 2 * error < 0:
        return (
            f"differences fade, to a third in about {steps_words(-1.1 / first)}; the network "
            "settles on what its inputs ask for."
        )
    return "within its error of zero, the border between forgetting and chaos."


# ---- where it comes to rest


def rest(part: Part, quick: bool) -> Finding:
    """Fixed points under the mean input, or the linear map around the mean carry."""
    size = size_of(part)
    chosen = effort(size, quick)
    xs = jnp.asarray(part.xs)
    carries, _ = jaxrnn.trajectory(part.cell, part.params, xs)
    x = jnp.mean(xs, axis=(0, 1))
    if not chosen.candidates:
        return _around_the_mean(part, carries, x)
    points = fixed_points(
        part.cell,
        part.params,
        x,
        candidates=carries,
        key=jax.random.key(0),
        count=chosen.candidates,
        scale=0.05,
        steps=100 if quick else 1000,
        newton_steps=NEWTON,
    )
    kinds = points.kinds
    speeds = np.asarray(points.speeds)
    numbers: dict[str, Any] = {"kinds": kinds, "speeds": speeds}
    numbers |= {"hits": np.asarray(points.hits), "unconverged": points.unconverged}
    cost = f"{chosen.candidates} searches of {100 if quick else 1000} steps of Adam and up to "
    cost += f"{NEWTON} of Newton"
    if not kinds:
        said = f"None of {chosen.candidates} searches from carries that the network visits found a "
        said += "point where it stands still under the mean of the inputs."
        return Finding([said], [], numbers, cost)
    numbers |= _complex(np.asarray(points.eigenvalues))
    like = part.cell.initial_carry(part.params)
    components = principal_components(carries, 2, like=like)
    numbers["explained"] = np.asarray(components.explained)
    numbers["participation_ratio"] = float(components.participation_ratio)
    pictures = [
        Picture(
            figures.image(figures.state_plane, points, components),
            "Thin lines: the carry along the windows, in the two directions in which it varies "
            "most; dots: where it ends. Large marks: where the network would stand still if the "
            "input stayed at its mean.",
            "A filled mark is a place that it falls into: a memory that lasts. An open one is "
            "left along the drawn directions: a border between memories. A diamond is passed "
            "slowly. Far from all marks, the inputs are in charge.",
        ),
        Picture(
            figures.image(figures.eigenvalues, points),
            "The eigenvalues of one step at these points, and the unit circle.",
            "How near to the circle decides how slowly a deviation fades: at 0.9, in about ten "
            "steps. Outside it grows. Off the horizontal axis, it turns as it does so.",
        ),
    ]
    return Finding(_rest_words(kinds, points), pictures, numbers, cost)


def _rest_words(kinds: Sequence[str], points: Any) -> list[str]:
    parts = [
        f"{kinds.count(k)} {k}" for k in ("stable", "saddle", "unstable", "slow") if k in kinds
    ]
    said = [f"Under the mean of the inputs, held constant: {', '.join(parts)}."]
    if "stable" in kinds:
        mu = np.asarray(points.eigenvalues)[kinds.index("stable")]
        tau = float(np.asarray(modes(mu).time_constant)[0])
        said.append(
            f"Near the first stable one, the slowest deviation fades with τ = {tau:.3g} steps."
        )
    return said


def _around_the_mean(part: Part, carries: Any, x: jax.Array) -> Finding:
    mean = jax.tree.map(lambda a: jnp.mean(a, axis=(0, 1)).astype(a.dtype), carries)
    record = linearize(part.cell, part.params, mean, x)
    mu = np.asarray(record.eigenvalues)
    picture = Picture(
        figures.image(figures.eigenvalues, record),
        "The eigenvalues of one step around the mean carry, at the mean input, and the unit "
        "circle.",
        "How near to the circle decides how slowly a deviation fades: at 0.9, in about ten steps. "
        "Outside it grows. Off the horizontal axis, it turns as it does so.",
    )
    said = f"A carry of {len(mu)} numbers is too large for a search for fixed points here. Around "
    said += f"the mean carry, the slowest eigenvalue has the modulus {abs(mu[0]):.3f}."
    return Finding([said], [picture], _complex(mu), "one eigendecomposition")


def _complex(mu: Any) -> dict[str, np.ndarray]:
    return {"eigenvalues_real": mu.real, "eigenvalues_imaginary": mu.imag}
