"""What the questions of `xray` share: the form of an answer, what is affordable, words."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments._decay_weights import Part
from jaxrnn import plot
from jaxrnn.cell import flatten_carry

PROBES = 16  # random directions, where a whole Jacobian is too large


class Picture(NamedTuple):
    """An image with what a reader needs: what it shows, and how to read it."""

    image: str
    see: str
    read: str


class Finding(NamedTuple):
    """An answer: sentences, pictures, numbers for the JSON, and what it cost, in words."""

    said: list[str]
    pictures: list[Picture]
    numbers: dict[str, Any]
    cost: str


class Effort(NamedTuple):
    """What is affordable at a carry of N numbers; `said` if it is less than usual.

    spectral: as for `gradient_decay`, or "probes". windows, for the whole chain of Jacobians and,
    last, for that of every path. candidates: for fixed points, 0 to leave them out.
    """

    spectral: str
    windows: int
    exponents: int
    candidates: int
    path_windows: int
    said: str


def effort(size: int, quick: bool) -> Effort:
    """The settings for a carry of N numbers."""
    if size <= 48:
        return Effort("exact", 99, min(size, 8) if quick else size, 8 if quick else 64, 4, "")
    if size <= 128:
        said = "spectral norms by iteration, 16 exponents, 12 searches for fixed points"
        return Effort("iterative", 99, 16, 12, 2, said)
    if size <= 512:
        said = "spectral norms by iteration, two windows for the chain of Jacobians and one for "
        said += "paths, 8 exponents, no search for fixed points"
        return Effort("iterative", 2, 8, 0, 1, said)
    said = f"{PROBES} random directions in place of all {size}, 8 exponents, no paths, no search "
    return Effort("probes", 4, 8, 0, 0, said + "for fixed points")


def size_of(part: Part) -> int:
    """N of a part, also of one that cannot draw parameters."""
    return jax.eval_shape(lambda p: flatten_carry(part.cell.initial_carry(p))[0], part.params).size


# ---- words


def change_words(rate: float) -> str:
    """A rate in nats per step as a part that is lost or gained."""
    if abs(rate) < 5e-4:
        return "keeps its size"
    if rate < 0:
        return f"loses {_percent(-math.expm1(rate))} of its size"
    return f"grows by {_percent(math.expm1(rate)) if rate < 5 else f'e^{rate:.1f}'}"


def signed(value: float) -> str:
    """A number with its sign, as it is set in print."""
    return f"{value:+.3f}".replace("-", "−").replace("inf", "∞")


def small(value: float) -> str:
    """A threshold: a power of ten as such."""
    exponent = math.log10(value)
    whole = abs(exponent - round(exponent)) < 1e-9 and exponent < -2
    return plot.power_of_ten(exponent) if whole else f"{value:g}"


def _percent(part: float) -> str:
    return f"{100 * part:.2g} %" if part < 0.995 else f"{100 * part:.4g} %"


def steps_words(steps: float) -> str:
    """A number of steps, as one would say it."""
    if steps == math.inf:
        return "ever"
    if steps < 0:
        return "ever, growing"
    return f"{steps:.2g} steps" if steps < 100 else f"{steps:,.0f} steps"


def windows_words(rows: np.ndarray) -> str:
    """How many windows there are, an entry of `rows` for each."""
    return "one window" if len(rows) == 1 else f"{len(rows)} windows"
