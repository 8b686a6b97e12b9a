"""How fast do gradients fade with distance in time, in three recurrent networks on real text?

Claim
    The plain recurrent network of Elman loses the gradient within some tens of steps although
    the norms of its single steps may exceed 1; gates alone change little, an open forget gate
    changes much; training moves all of it.
Source
    Bengio, Simard and Frasconi 1994; Hochreiter and Schmidhuber 1997; Pascanu, Mikolov and
    Bengio 2013 (1211.5063); Jozefowicz, Zaremba and Sutskever 2015 for the forget bias.
What would refute it
    A rate at initialisation of the LSTM without forget bias well above Elman's; an LSTM with it
    that fades as fast; a network that trains to a longer horizon without predicting better, or
    the reverse. The sentences under Table 2 are computed, and say so if it happens.
Cost
    Under 4 minutes on two cores by default, under 30 seconds with --quick.

What is measured: ln σ_max of ∂carry_T/∂carry_(T−lag), whose units are those of the carry and so
compare within a cell; and ‖∂L_T/∂x_(T−lag)‖, which compares between cells. A small gradient says
that little is *learned* about that distance per update, not that nothing can be; the slope over
some hundred steps is a fit, not a Lyapunov exponent.
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxrnn
from experiments import _common as common
from experiments import _decay_exact as exact
from experiments import _decay_figure as figure
from experiments import _decay_model as models
from experiments import _decay_report as report
from experiments import _decay_weights as weights
from experiments import _text as texts
from experiments._common import UsageError
from experiments._decay_measure import measure, next_character_loss

NAME = "gradient_decay"
HELD_OUT = 0.1  # share of the text, its end
EVALUATED = 64  # windows of it that bits per character are taken over
MEASUREMENT = 40  # one takes about as long as this many updates


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure, on what, and where to put it.

    Attributes:
        text: a text file to learn; by default the English help texts that every Python carries.
        encoding: how the text file is encoded.
        cells: which of elman, lstm, lstm-bias-1, gru.
        hidden_size: H, units of every cell.
        embedding_size: I, features of an embedded character.
        length: T, characters in a window, and so the largest lag.
        windows: windows of held-out text that a measurement averages over.
        seeds: how many models of each kind, trained side by side.
        steps: updates of training.
        batch: windows in one update.
        learning_rate: of Adam.
        clip: gradients are clipped to this global norm.
        threshold: a norm below it counts as gone.
        weights: a safetensors file with a recurrent network of PyTorch, to be measured instead.
        nonlinearity: tanh or relu, for a plain RNN in that file, which does not tell.
        prefix: what its names begin with in that file, e.g. "lstm.".
        inputs: a .npy file with the inputs of that network, (T, I) or (windows, T, I).
        redraw: a result of an earlier run: draws its figure and prints its tables again.
        format: of the figure.
        output: folder for gradient_decay.json and the figure.
        quick: the same, smaller: under 30 seconds.
    """

    text: Path | None = None
    encoding: str = "utf-8"
    cells: tuple[str, ...] = tuple(models.KINDS)
    hidden_size: int = 64
    embedding_size: int = 32
    length: int = 200
    windows: int = 16
    seeds: int = 5
    steps: int = 300
    batch: int = 16
    learning_rate: float = 1e-2
    clip: float = 5.0
    threshold: float = 1e-6
    weights: Path | None = None
    prefix: str = ""
    nonlinearity: Literal["tanh", "relu"] = "tanh"
    inputs: Path | None = None
    redraw: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    format: Literal["png", "pdf", "svg"] = "png"
    output: Path = Path("results")
    quick: bool = False


QUICK = dict(hidden_size=24, embedding_size=16, length=100, windows=4, seeds=2, steps=40, batch=8)


class Result(NamedTuple):
    """Everything that the tables and the figure are made from, as plain Python."""

    experiment: str
    config: dict
    machine: dict
    seconds: float
    about: dict
    exact: list[dict]
    rows: list[dict]
    strip: dict
    warnings: list[str]
    verdicts: list[str]


def run(config: Config) -> Result:
    """Measures, prints the two tables, writes the JSON and draws the figure from it."""
    began = time.perf_counter()
    config = common.sized(config, QUICK)
    check(config)
    if config.redraw is not None:
        result = Result(**common.read_json(config.redraw, NAME))
        folder = common.results_folder(config.output)
        report.print_exact(result.exact)
        report.print_about(result.about)
    else:
        measured = prepare(config)
        folder = common.results_folder(config.output)
        facts = [fact._asdict() for fact in exact.facts()]
        report.print_exact(facts)
        report.print_about(measured.about)
        rows, strip = measured.go()
        result = Result(
            experiment=NAME,
            config=dataclasses.asdict(config),
            machine=common.machine(),
            seconds=time.perf_counter() - began,
            about=measured.about,
            exact=facts,
            rows=rows,
            strip=strip,
            warnings=report.warnings(rows, measured.about),
            verdicts=report.verdicts(rows),
        )
        path = folder / f"{NAME}.json"
        common.write_json(path, result._asdict())
        result = Result(**common.read_json(path, NAME))
    report.print_result(result.rows, result.warnings, result.verdicts)
    path = folder / f"{NAME}.{config.format}"
    notes = figure.draw(result._asdict(), path)
    for line in (*notes, f"Wrote {path}, {time.perf_counter() - began:.0f} s."):
        common.console().print(line)
    return result


def check(config: Config) -> None:
    """Raises before anything long begins if a number makes no sense."""
    least = dict(hidden_size=1, embedding_size=1, windows=1, seeds=1, steps=0, batch=1, length=10)
    wrong = [f"at least {k}" for f, k in least.items() if getattr(config, f) < k]
    fields = [f for f, k in least.items() if getattr(config, f) < k]
    positive = ("learning_rate", "clip", "threshold")
    fields += [f for f in positive if not getattr(config, f) > 0]
    if fields:
        wanted = wrong[0] if wrong else "positive"
        flag = "--" + fields[0].replace("_", "-")
        raise UsageError(f"{flag} must be {wanted}, got {getattr(config, fields[0])}")
    for name in config.cells:
        if name not in models.KINDS:
            raise UsageError(f"unknown cell {name!r}: --cells takes {', '.join(models.KINDS)}")
    if not config.cells or len(set(config.cells)) < len(config.cells):
        raise UsageError(f"--cells takes one or more of {', '.join(models.KINDS)}, each once")
    if config.inputs is not None and config.weights is None:
        raise UsageError("--inputs belongs to --weights: name the network it is for")


class Prepared(NamedTuple):
    """Inputs read and checked: what they are, and the long run that is to come."""

    about: dict
    go: Callable[[], tuple[list[dict], dict]]


def prepare(config: Config) -> Prepared:
    """Reads all that the user passed in."""
    if config.weights is None:
        plan = plan_text(config)
        return Prepared(plan.about, functools.partial(train_all, config, plan))
    loaded = weights.load(
        config.weights,
        config.prefix,
        config.nonlinearity,
        config.inputs,
        config.windows,
        config.length,
    )
    return Prepared(loaded.about, functools.partial(measure_loaded, config, loaded))


def measure_loaded(config: Config, loaded: weights.Loaded) -> tuple[list[dict], dict]:
    """Rows and strip for a network that came in a file."""
    with common.progress(weights.count_parts(loaded)) as advance:
        rows = weights.rows(loaded, config.seeds, config.threshold, advance)
    return rows, take_strip(rows, "", "")


def take_strip(rows: list[dict], characters: str, following: str) -> dict:
    """One real window, seen by the first seed of every row: ln-norms over lag from 0."""
    firsts = {row["label"]: [m.pop("first_window") for m in row["measurements"]] for row in rows}
    log_norm = {label: found[-1][0] for label, found in firsts.items()}
    return {"characters": characters, "next": following, "log_norm": log_norm}


class Plan(NamedTuple):
    """A text, cut up: what is learned, what is measured, what is known about it."""

    train: np.ndarray
    windows: np.ndarray
    evaluated: np.ndarray
    alphabet: texts.Alphabet
    first_window: str
    about: dict


def plan_text(config: Config) -> Plan:
    """Reads the text and cuts it: the last tenth is held out."""
    name, text = texts.read_text(config.text, config.encoding)
    length = config.length + 1
    cut = len(text) - max(int(HELD_OUT * len(text)), length)
    if cut < length:
        raise UsageError(
            f"the text {name} has {len(text)} characters, too few for windows of {config.length}: "
            f"at least {2 * length} are needed, or a smaller --length"
        )
    alphabet = texts.most_frequent(text[:cut])
    ids = alphabet.encode(text)
    train, held_out = ids[:cut], ids[cut:]
    starts = texts.evenly_spaced(len(held_out), config.windows, length)
    places = texts.evenly_spaced(len(held_out), EVALUATED, length)
    evaluated = texts.cut(held_out, places, length)
    warm_up = config.length // 10
    about = {
        "text": name,
        "characters": len(text),
        "held_out": len(held_out),
        "alphabet": alphabet.size - 1,
        "coverage": float(np.mean(ids != alphabet.rest)),
        **baselines(train, evaluated, alphabet.size, warm_up),
        "warm_up": warm_up,
        "length": config.length,
        "hidden_size": config.hidden_size,
        "inputs": f"{config.embedding_size} learned features, standard deviation 1 at first",
        "carry": "zero at the start of each window",
        "initialisation": models.INITIALISATION,
    }
    first = text[cut + starts[0] : cut + starts[0] + length]
    windows = texts.cut(held_out, starts, length)
    return Plan(train, windows, evaluated, alphabet, first, about)


def baselines(train: np.ndarray, evaluated: np.ndarray, size: int, warm_up: int) -> dict:
    """Bits per character of counting, on the very characters that the models are scored on."""
    unigram = texts.unigram_bits(train, evaluated[:, 1 + warm_up :], size)
    trigram = texts.trigram_bits(train, evaluated[:, warm_up - 1 :], size)
    return {"unigram_bits": float(unigram.mean()), "trigram_bits": float(trigram.mean())}


def train_all(config: Config, plan: Plan) -> tuple[list[dict], dict]:
    """Rows and strip for all cells, each trained on the text."""
    stops = measured_at(config.steps)
    work = len(config.cells) * (config.steps + MEASUREMENT * len(stops))
    with common.progress(work) as advance:
        rows = common.side_by_side(
            lambda name: train_and_measure(config, plan, models.KINDS[name], stops, advance),
            config.cells,
        )
    return rows, take_strip(rows, plan.first_window[:-1], plan.first_window[-1])


def measured_at(steps: int) -> list[int]:
    """0, 10, 30, 100, 300 … and the last step."""
    series = (s * 10**e for e in range(1, 9) for s in (1, 3))
    return [0, *itertools.takewhile(lambda s: s < steps, series), *([steps] if steps else [])]


def train_and_measure(
    config: Config, plan: Plan, kind: models.Kind, stops: list[int], advance: Callable
) -> dict:
    """All seeds of one kind of cell, measured at each stop on their way."""
    cell = kind.make(config.embedding_size, config.hidden_size)
    begins = dataclasses.replace(cell, bias_initializer=kind.bias)
    size, rates = plan.alphabet.size, (config.learning_rate, config.clip)
    model, state = models.start(jaxrnn.Readout(begins, size), *rates, config.seeds)
    trainer = models.trainer(jaxrnn.Readout(cell, size), *rates, plan.about["warm_up"])
    batches = models.batches(plan.train, config.length, config.batch, config.seeds)
    measurements, step = [], 0
    for stop in stops:
        while step < stop:
            model, state, _ = trainer.step(model, state, next(batches))
            jax.block_until_ready(state)
            step += 1
            advance(1, f"{kind.label}: update {step} of {stops[-1]}")
        # the ends of the road get all windows, what lies between them a quarter
        ends = (stops[0], stops[-1])
        windows = plan.windows if step in ends else plan.windows[: at_once(config)]
        found = measure_model(config, cell, model, windows)
        found["bits"] = np.asarray(trainer.held_out(model, jnp.asarray(plan.evaluated)))
        when = f"after {step} updates" if step else "at initialisation"
        measurements.append({"when": when, "step": step, "windows": len(windows), **found})
        advance(MEASUREMENT, f"{kind.label}: update {step} measured")
    return {
        "label": kind.label,
        "cell": type(cell).__name__,
        "carry_size": jaxrnn.carry_size(cell),
        "parameters": jaxrnn.count_parameters(cell),
        "measurements": measurements,
    }


def at_once(config: Config) -> int:
    """Windows that are measured together."""
    return max(1, config.windows // 4)


def measure_model(config: Config, cell: Any, model: models.Model, windows: np.ndarray) -> dict:
    """`measure` with the loss on the character after the last one of each window."""
    xs = model.embedding[:, windows[:, :-1]]
    shape = (config.seeds, len(windows))

    def for_each_window(a):
        return jnp.broadcast_to(a[:, None], (*shape, *a.shape[1:]))

    readout = (for_each_window(model.network.W), for_each_window(model.network.b))
    data = (*readout, jnp.broadcast_to(windows[:, -1], shape))
    params = model.network.network
    loss = next_character_loss
    return measure(cell, loss, config.threshold, params, xs, data, at_once(config))


if __name__ == "__main__":
    common.main(Config, run)
