"""What goes on in your own recurrent network: gradients, memory and dynamics, on one HTML page.

Claim
    None of its own: it measures a network that you have trained, on data of yours, and says how to
    read each figure. What it says in words is computed from the numbers that stand beside it.
Source
    The analyses of `jaxrnn.analysis`, whose docstrings name the papers.
What would refute it
    Numbers in xray.json that another program does not find for the same weights and inputs.
Cost
    Three quarters of a minute to two minutes, on two cores that had other work as well, for an LSTM
    of 64 units over eight windows of 200 steps. Carries of more than 48 numbers get cheaper
    settings, and the page says which. --quick: two windows of 24 steps, about 20 seconds.

Networks come as --weights, a safetensors file of `jaxrnn.save` or with the names of a PyTorch RNN,
LSTM or GRU (nothing in it is executed), or as --function module:name, your own code, which is
imported: f(xs) -> ys for xs (windows, T, I), of which the input sensitivity is measured, or a
function without arguments that returns (cell, params), of which everything is.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments import _common as common
from experiments import _xray_dynamics as dynamics
from experiments import _xray_figures as figures
from experiments import _xray_gradients as gradients
from experiments import _xray_load as loading
from experiments import _xray_measure as measuring
from experiments import _xray_page as pages
from experiments._common import UsageError
from experiments._xray_load import Subject
from experiments._xray_measure import Finding
from experiments._xray_page import Answer, Card, Strip

NAME = "xray"
DECADES = 6  # of the colours of text


@dataclasses.dataclass(frozen=True)
class Config:
    """Which network, on what, and where to put the page.

    Attributes:
        weights: a safetensors file of jaxrnn.save, or of a recurrent network of PyTorch.
        function: module:name of your own, f(xs) -> ys or one that returns (cell, params).
        prefix: what its names begin with in a file of PyTorch, e.g. "lstm.".
        nonlinearity: tanh or relu, for a plain RNN of PyTorch, whose file does not tell.
        inputs: a .npy file with inputs, (T, I) or (windows, T, I); random ones without.
        features: I, for random inputs to a function that does not tell.
        text: a text file: one character, line or word for each step of the inputs; or the
            characters themselves are the inputs, if there is an embedding for them.
        encoding: how the text file is encoded.
        embedding: name of a matrix in the weights file, a row for each character of --alphabet.
        alphabet: a JSON list of the characters that the rows of the embedding stand for.
        part: which part to look at, from 1: all layers, then each layer and direction.
        windows: how many windows of the inputs, spread evenly over them.
        length: T, steps in a window, and so the largest lag.
        threshold: a gradient below it counts as gone.
        seed: of random inputs.
        output: folder for xray.html and xray.json.
        quick: the same on few and short windows.
    """

    weights: Path | None = None
    function: str | None = None
    prefix: str = ""
    nonlinearity: Literal["tanh", "relu"] = "tanh"
    inputs: Path | None = None
    features: int | None = None
    text: Path | None = None
    encoding: str = "utf-8"
    embedding: str | None = None
    alphabet: Path | None = None
    part: int = 1
    windows: int = 8
    length: int = 200
    threshold: float = 1e-6
    seed: int = 0
    output: Path = Path("results")
    quick: bool = False


QUICK = dict(windows=2, length=24)
INPUT, RATES, PATHS, CONSTANTS, EXPONENTS, REST = (
    "How far back does the input matter?",
    "How fast do gradients fade?",
    "Which way do gradients take?",
    "How long do units hold on?",
    "Do small differences grow?",
    "Where does it come to rest?",
)


def run(config: Config) -> dict:
    """Measures what can be measured, writes xray.html and xray.json."""
    began = time.perf_counter()
    config = common.sized(config, QUICK)
    check(config)
    subject = loading.load(config)
    parts = chosen_first(subject.parts, config.part)
    subject = subject._replace(parts=parts)
    folder = common.results_folder(config.output)
    answers = ask(questions(subject, config))
    result = {
        "experiment": NAME,
        "config": dataclasses.asdict(config),
        "machine": common.machine(),
        "about": {"name": subject.name, **facts(subject), "parts": [p.label for p in parts]},
        "summary": summary(answers),
        "answers": {
            a.title: a.finding.numbers if a.finding else {"failure": a.failure} for a in answers
        },
        "seconds": time.perf_counter() - began,
    }
    common.write_json(folder / f"{NAME}.json", result)
    document = write(subject, config, answers, result)
    path = folder / f"{NAME}.html"
    with common.whole_file(path) as part:
        part.write_text(document, encoding="utf-8")
    say(answers, result, path)
    return result


def check(config: Config) -> None:
    """Raises before anything long begins if a number makes no sense."""
    for field, least in dict(windows=1, length=10, part=1, features=1).items():
        value = getattr(config, field)
        if value is not None and value < least:
            raise UsageError(f"--{field} must be at least {least}, got {value}")
    if not 0 < config.threshold < 1:
        raise UsageError(f"--threshold must lie between 0 and 1, got {config.threshold}")
    if config.embedding is not None and config.weights is None:
        raise UsageError("--embedding names a matrix in a file: it belongs to --weights")


def chosen_first(parts: list, number: int) -> list:
    """The parts, with the one asked for in front."""
    if number > max(len(parts), 1):
        names = ", ".join(f"{i} {part.label}" for i, part in enumerate(parts, 1))
        raise UsageError(
            f"--part {number}: the network has the parts {names or 'of a function: 1'}"
        )
    return [*parts[number - 1 : number], *parts[: number - 1], *parts[number:]]


def questions(subject: Subject, config: Config) -> dict[str, Callable[[], Finding]]:
    """What can be asked of it, in the order of the page."""
    asked: dict[str, Callable[[], Finding]] = {
        INPUT: lambda: gradients.sensitivity(subject, config.threshold)
    }
    if subject.parts:
        first, quick = subject.parts[0], config.quick
        asked[RATES] = lambda: gradients.rates(subject.parts, config.threshold, quick)
        asked[PATHS] = lambda: gradients.paths(first, quick)
        asked[CONSTANTS] = lambda: dynamics.constants(first)
        asked[EXPONENTS] = lambda: dynamics.exponents(first, quick)
        asked[REST] = lambda: dynamics.rest(first, quick)
    return asked


def ask(asked: dict[str, Callable[[], Finding]]) -> list[Answer]:
    """Every answer; what goes wrong in one is told in its place, and stops no other."""
    answers = []
    with common.progress(len(asked)) as advance:
        for title, question in asked.items():
            advance(0, title)
            began = time.perf_counter()
            found, failure = None, ""
            try:
                found = question()
            except Exception as error:
                failure = reason(error)
            answers.append(Answer(title, found, failure, time.perf_counter() - began))
            advance(1, title)
    return answers


def reason(error: Exception) -> str:
    """Why there is no answer, in one line."""
    lines = str(error).splitlines() or [""]
    if isinstance(error, (ValueError, TypeError, UsageError)) and lines[0]:
        return lines[0] + ("" if lines[0].endswith(".") else ".")
    return f"{type(error).__name__}: {lines[0]}".rstrip(": ") + "."


# ---- the page


def facts(subject: Subject) -> dict[str, str]:
    """What was measured on what, in words."""
    windows, steps, _ = subject.inputs.xs.shape
    found = dict(subject.facts)
    found["inputs"] = subject.inputs.said
    found["windows"] = f"{windows} of {steps} steps, each on its own"
    if subject.parts:
        found["looked at"] = f"{subject.parts[0].label}: N = {measuring.size_of(subject.parts[0])}"
        found["looked at"] += " real numbers in the carry"
    return found


def summary(answers: list[Answer]) -> dict[str, Any]:
    """The three numbers that matter: rate, horizon, median time constant."""
    found = {a.title: a.finding.numbers for a in answers if a.finding}
    rate = horizon = None
    if RATES in found:
        first = next(iter(found[RATES]["parts"].values()))
        rate, horizon = first["rate"], first["horizon"]
    elif INPUT in found:
        rate, horizon = found[INPUT]["rate"], found[INPUT]["horizon"]
    median = found[CONSTANTS]["median"] if CONSTANTS in found else None
    return {"rate": rate, "horizon": horizon, "median_time_constant": median}


def cards(numbers: dict[str, Any], config: Config, steps: int, cell: bool) -> list[Card]:
    """The same as cards."""
    rate, horizon, median = numbers.values()
    what = "gradient through the carry" if cell else "derivative by the input"
    found = []
    if rate is not None:
        gone = "is exactly zero" if rate == -math.inf else measuring.change_words(rate)
        found.append(
            Card("Rate, nats per step", measuring.signed(rate), f"per step back, the {what} {gone}")
        )
        far = f"> {steps}" if horizon == math.inf else f"{horizon:.0f}"
        under = measuring.small(config.threshold) + ("" if cell else " of its largest value")
        gone = "nowhere in a window" if horizon == math.inf else "at this lag"
        found.append(Card("Horizon, steps", far, f"{gone} it falls below {under}"))
    if median is not None:
        number = "∞" if median == math.inf else f"{median:.3g}"
        found.append(Card("Median time constant, steps", number, "half of the units forget sooner"))
    elif cell:
        found.append(Card("Median time constant", "none", "its units have no keep gate"))
    return found


def plain_words(numbers: dict[str, Any], steps: int, threshold: float) -> list[str]:
    """The summary in a sentence or two."""
    rate, horizon, median = numbers.values()
    if rate is None:
        return ["Neither a rate nor a horizon could be measured; below it is told why."]
    if rate == -math.inf:
        first = "Nothing of the past reaches the end of a window: the derivative is exactly zero."
    elif horizon == math.inf:
        first = f"The beginning of a window of {steps} steps still reaches its end"
        first += ", and is amplified on the way." if rate > 5e-4 else "."
        if rate < -1e-3:
            first += f" If it went on so, {measuring.small(threshold)} would be reached at about "
            first += f"lag {math.log(threshold) / rate:,.0f}."
    else:
        first = (
            f"This network looks back about {horizon:.0f} steps: what lies further behind hardly "
        )
        first += "moves it, and little is learned about it per update."
    if median is None or not math.isfinite(median) or median <= 0:
        return [first]
    return [first, f"By its gates alone, a typical unit would keep things for {median:.2g} steps."]


def write(subject: Subject, config: Config, answers: list[Answer], result: dict) -> str:
    """The document."""
    steps, cell = subject.inputs.xs.shape[1], bool(subject.parts)
    numbers = result["summary"]
    versions = result["machine"]
    foot = (
        f"Made by python -m experiments.xray in {result['seconds']:.0f} s on {versions['device']}, "
        f"{versions['cores']} cores; jaxrnn {versions['jaxrnn']}, jax {versions['jax']}. All "
        f"numbers are in {NAME}.json beside this page. Natural logarithms throughout: e^−1 = 0.37."
    )
    return pages.page(
        subject.name,
        plain_words(numbers, steps, config.threshold),
        cards(numbers, config, steps, cell),
        facts(subject),
        notes(subject, config),
        answers,
        strip(subject, answers[0].finding),
        foot,
    )


def notes(subject: Subject, config: Config) -> list[str]:
    """What a reader must know before believing a number."""
    found = []
    if config.inputs is None and config.text is None:
        found.append(
            "No inputs were given: these are random ones, standard normal. Gates and gradients "
            "depend on what a network reads; run again with --inputs to see it on your data."
        )
    if subject.parts:
        size = measuring.size_of(subject.parts[0])
        cheaper = measuring.effort(size, config.quick).said
        if cheaper:
            found.append(f"N = {size} is large, so the settings are cheaper: {cheaper}.")
        ys = subject.function(subject.inputs.xs)
        if not np.all(np.isfinite(np.asarray(ys))):
            found.append("The outputs on these inputs are not all finite: expect holes below.")
    elif cell_like(subject):
        found.append("It cannot be followed step by step, so only its inputs are looked at.")
    if len(subject.parts) > 1:
        # the numbers by which --part knows them, of which the first here has been taken out
        others = [
            f"--part {i if i < config.part else i + 1} is {part.label}"
            for i, part in enumerate(subject.parts[1:], 1)
        ]
        found.append(
            f"Rates are measured for every part, the rest for “{subject.parts[0].label}”; "
            f"{', '.join(others)}."
        )
    if config.quick:
        found.append("Made with --quick: windows are few and short, numbers rough.")
    return found


def cell_like(subject: Subject) -> bool:
    """Whether it is a network of which no part can be followed."""
    return not subject.parts and "network" in subject.facts


def strip(subject: Subject, finding: Finding | None) -> Strip | None:
    """The coloured text, if there is text and the sensitivity was measured."""
    tokens = subject.inputs.tokens
    if tokens is None or finding is None:
        return None
    windows = gradients.letters(finding, tokens, DECADES)
    single = all(len(token) == 1 for window in tokens for token in window)
    scale = [ground for ground, _ in figures.shades(np.linspace(-DECADES, 0, 9).tolist(), DECADES)]
    ahead = bool(np.any(finding.numbers["lags"] < 0))
    what = f"{finding.numbers['of']} at the window's {'middle' if ahead else 'end'}"
    return Strip(windows, "" if single else " ", scale, DECADES, what)


def say(answers: list[Answer], result: dict, path: Path) -> None:
    """The summary on the terminal, and where the page is."""
    rows = [
        [a.title, " ".join(a.finding.said) if a.finding else f"not measured: {a.failure}"]
        for a in answers
    ]
    out = common.console()
    for title, words in rows:
        out.print(f"{title}\n  {words}")
    out.print(f"Wrote {path} and {path.with_suffix('.json')}, {result['seconds']:.0f} s.")


if __name__ == "__main__":
    common.main(Config, run)
