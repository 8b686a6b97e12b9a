"""How soon does a recurrent network forget its first character, seen forwards and backwards?

Claim
    Two texts that differ only in their first character end in nearly the same carry; the distance
    dies out as the gradient of the carry does; and nearly all of a loss's gradient goes to the
    last few inputs: recency.
Source
    Bengio, Simard and Frasconi 1994; Khandelwal, He, Qi and Jurafsky 2018 (1805.04623), for
    language models that use what is near.
What would refute it
    Carries that still differ by a thousandth after the last step; a distance that dies out at
    another rate than the gradient; gradients that do not favour the last tenth of the inputs.
Cost
    About a minute on two cores, half a minute with --quick.

The second sequence has another character first and the same ones behind it. The distance is that of
the carries, relative to their size; its rate is taken from the tangent, which neither underflows
nor rounds, the gradient's from ln σ_max of ∂carry_T/∂carry_(T−lag). Elsewhere a distance near the
resolution of float32 says no more than that.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

import jaxrnn
from experiments import _claims as claims
from experiments import _common as common
from experiments import _decay_model as models
from experiments import _text as texts
from experiments._decay_measure import next_character_loss
from jaxrnn import analysis, plot
from jaxrnn.analysis.forgetting import forgetting_curve

NAME = "forgetting"
WHEN = ("before", "after")
SAME = 1e-3  # relative distance below which two carries are nearly the same
ALIKE = 0.05  # nats per step that two rates may be apart


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure, on what.

    Attributes:
        text: a text file to learn; by default the English help texts that every Python carries.
        encoding: how the text file is encoded.
        cells: which of elman, lstm, lstm-bias-1, gru.
        hidden_size: H, units of every cell.
        embedding_size: I, features of an embedded character.
        length: T, characters in a window.
        windows: windows of held-out text to average over.
        steps: updates of training.
        batch: windows in one update.
        learning_rate: of Adam.
        clip: gradients are clipped to this global norm.
        seeds: how many models of each kind.
        redraw: a result of an earlier run: prints its tables and draws its figure again.
        output: folder for forgetting.json and .png.
        quick: the same, smaller: under half a minute.
    """

    text: Path | None = None
    encoding: str = "utf-8"
    cells: tuple[str, ...] = tuple(models.KINDS)
    hidden_size: int = 32
    embedding_size: int = 16
    length: int = 100
    windows: int = 8
    steps: int = 200
    batch: int = 16
    learning_rate: float = 1e-2
    clip: float = 5.0
    seeds: int = 3
    redraw: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    output: Path = Path("results")
    quick: bool = False


QUICK = dict(
    cells=("elman", "lstm-bias-1"), hidden_size=16, embedding_size=8, length=60, windows=4,
    steps=30, batch=8, seeds=2,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Data:
    """A text cut up: what is learned, and held-out windows with another first character."""

    name: str
    size: int
    train: np.ndarray
    windows: np.ndarray
    others: np.ndarray


def read(config: Config) -> Data:
    """The text as numbers; its last tenth is held out."""
    name, text = texts.read_text(config.text, config.encoding)
    length = config.length + 1
    cut = len(text) - max(len(text) // 10, length)
    if cut < length:
        raise common.UsageError(f"the text {name} is too short for windows of {config.length}")
    alphabet = texts.most_frequent(text[:cut])
    ids = alphabet.encode(text)
    held_out = ids[cut:]
    starts = texts.evenly_spaced(len(held_out), config.windows, length)
    windows = texts.cut(held_out, starts, length)
    others = windows.copy()
    # any other character of the alphabet, each as likely
    shift = np.random.default_rng(0).integers(1, alphabet.size, len(windows))
    others[:, 0] = (windows[:, 0] + shift) % alphabet.size
    return Data(name, alphabet.size, ids[:cut], windows, others)


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, 0, None, None))
def look(cell: Any, model: models.Model, ids: jax.Array, others: jax.Array) -> dict:
    """Forgetting and gradients of one model: means over windows of logarithms."""
    params, targets = model.network.network, ids[:, -1]
    xs, other_xs = (model.embedding[i[:, :-1]] for i in (ids, others))
    seen = forgetting_curve(cell, params, xs, other_xs)
    decay = analysis.gradient_decay(cell, params, xs)
    W, b = model.network.W, model.network.b
    assert b is not None
    data = (*(jnp.broadcast_to(a, (len(ids), *a.shape)) for a in (W, b)), targets)
    back = analysis.loss_gradient_decay(cell, params, xs, next_character_loss, loss_data=data)
    assert back.log_norm_x is not None
    # the resolution is ½ε of the carry's size
    size = seen.log_resolution - jnp.log(0.5 * jnp.finfo(jnp.float32).eps)
    # lag T − 1 is the last: lag 0 is the carry after the first character
    relative = (seen.log_distance - size)[:, :-1]
    norms = jnp.exp(back.log_norm_x - jnp.max(back.log_norm_x, axis=1, keepdims=True))
    last = max(norms.shape[1] // 10, 1)
    return dict(
        log_distance=jnp.median(relative, axis=0),
        log_tangent=jnp.mean(seen.log_tangent[:, :-1] - size[:, :1], axis=0),
        rate=jnp.mean(seen.rate),
        gradient_rate=jnp.mean(decay.rate),
        log_norm_input=jnp.mean(back.log_norm_x, axis=0)[::-1],
        recent_share=jnp.mean(jnp.sum(norms[:, -last:], 1) / jnp.sum(norms, 1)),
    )


def measure(kind: models.Kind, config: Config, data: Data, advance: Callable) -> dict:
    """All seeds of one kind, before and after training."""
    cell = kind.make(config.embedding_size, config.hidden_size)
    begins = dataclasses.replace(cell, bias_initializer=kind.bias)
    rates = (config.learning_rate, config.clip)
    model, state = models.start(jaxrnn.Readout(begins, data.size), *rates, config.seeds)
    trainer = models.trainer(jaxrnn.Readout(cell, data.size), *rates, config.length // 10)
    batches = models.batches(data.train, config.length, config.batch, config.seeds)
    found = {}
    for when, updates in zip(WHEN, (0, config.steps), strict=True):
        for _ in range(updates):
            model, state, _ = trainer.step(model, state, next(batches))
            jax.block_until_ready(state)
            advance(1, f"{kind.label}: training")
        seen = look(cell, model, jnp.asarray(data.windows), jnp.asarray(data.others))
        bits = trainer.held_out(model, jnp.asarray(data.windows))
        found[when] = jax.tree.map(np.asarray, seen | dict(bits=bits))
        advance(config.steps / 4, f"{kind.label}: measured {when} training")
    return dict(label=kind.label) | found


# verdicts


def verdicts(rows: list[dict]) -> list[dict]:
    """All claims, each with the numbers that decide it."""
    of = [(f"{row['label']} {when} training", row[when]) for row in rows for when in WHEN]
    return [_same_end(of), _rates(of), _recency(of)]


def _same_end(of: list[tuple[str, dict]]) -> dict:
    # the median over windows, and of seeds the one that remembers best
    ends = [(float(np.max(np.asarray(f["log_distance"])[:, -1])), name) for name, f in of]
    far = [name for end, name in ends if not end < np.log(SAME)]
    worst, where = max(ends)
    return claims.claim(
        f"two texts that differ in their first character end within {SAME:g} of each other",
        not far,
        f"{len(far)} of {len(of)} do not{': ' + '; '.join(far) if far else ''}. Largest relative "
        f"distance {_power(worst)}, {where}",
    )


def _rates(of: list[tuple[str, dict]]) -> dict:
    apart = [(float(np.mean(f["rate"] - f["gradient_rate"])), name, f) for name, f in of]
    worst, where, found = max(apart, key=lambda a: abs(a[0]))
    return claims.claim(
        f"the distance dies out at the rate of the gradient, within {ALIKE:g} nats per step",
        abs(worst) < ALIKE,
        f"Furthest apart: {claims.spread(found['rate'])} forwards, "
        f"{claims.spread(found['gradient_rate'])} backwards, {where}",
    )


def _recency(of: list[tuple[str, dict]]) -> dict:
    least, where = min((float(np.mean(f["recent_share"])), name) for name, f in of)
    return claims.claim(
        "the last tenth of the inputs gets more than half of the gradient's norms",
        least > 0.5,
        f"Least share {100 * least:.1f} %, {where}",
    )


def _power(log_value: float) -> str:
    return f"10^{log_value / plot.LN10:.1f}" if np.isfinite(log_value) else "0"


# the run


def run(config: Config) -> dict:
    """Measures, prints the table and the verdicts, writes JSON and figure."""
    config = common.sized(config, QUICK)
    claims.at_least(config, hidden_size=1, embedding_size=1, length=20, windows=1, steps=0)
    claims.at_least(config, batch=1, seeds=1)
    claims.one_of("--cells", config.cells, tuple(models.KINDS))
    return claims.conduct(NAME, config, measure_all, _show, _draw)


def measure_all(config: Config) -> dict:
    """All kinds, and the verdicts."""
    data = read(config)
    with common.progress(1.5 * config.steps * len(config.cells)) as advance:

        def one(name: str) -> dict:
            return measure(models.KINDS[name], config, data, advance)

        rows = common.side_by_side(one, config.cells)
    return dict(text=data.name, rows=rows, verdicts=verdicts(rows))


def _show(result: dict) -> None:
    rows, config = [], result["config"]
    for row in result["rows"]:
        for when in WHEN:
            of = row[when]
            # six digits have gone into the file: what is −∞ has come back as that
            end = float(np.median(np.array(of["log_distance"])[:, -1]))
            rows.append(
                [
                    f"{row['label']}, {when}" if when == "before" else "    after",
                    f"{np.mean(of['bits']):.2f}",
                    _power(end),
                    claims.spread(of["rate"]),
                    claims.spread(of["gradient_rate"]),
                    f"{100 * np.mean(of['recent_share']):.1f} %",
                ]
            )
    heads = ("", "bits/char", "distance at T", "its rate", "gradient's rate", "last tenth")
    common.print_table(
        f"Another first character, {config['length']} steps later: relative distance of carries; "
        f"rates in nats per step, {config['seeds']} models; {config['steps']} updates on "
        f"{result['text']}",
        heads,
        rows,
    )


def _draw(result: dict) -> Figure:
    figure = Figure(figsize=(13, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    keys = {"log_distance": left, "log_norm_input": right}
    for key, axes in keys.items():
        drawn, curves = [], []
        for row, colour in zip(result["rows"], plot.COLOURS, strict=False):
            for when in WHEN:
                values = np.array(row[when][key], float)
                style: dict[str, Any] = dict(band=False, linewidth=1.2, linestyle="--")
                text = "" if when == "before" else row["label"]
                style = style if when == "before" else {}
                found = plot.curve(axes, values, colour, text=text, threshold=None, **style)
                drawn.append(values)
                if text:
                    curves.append(found)
        steps = drawn[0].shape[-1] - 1
        axes.set_ylim(*plot.limits(*drawn, lowest=-16))
        plot.lag_axis(axes, steps, room=0.4)
        plot.power_axis(axes, LABELS[key])
        plot.label_ends(axes, curves, size=10)
    resolution = np.log10(0.5 * float(np.finfo(np.float32).eps))
    ends = [0, result["config"]["length"] - 1]
    left.plot(ends, [resolution] * 2, color="#555555", linewidth=1, linestyle=":")
    left.text(1, resolution, "one rounding", fontsize=9, va="bottom")
    left.set_xlabel("steps since the first character")
    left.set_title("Forwards: another first character", loc="left")
    right.set_title("Backwards: what reaches each input", loc="left")
    return figure


LABELS = {
    "log_distance": "distance of carries, relative (dashed: untrained)",
    "log_norm_input": "‖∂L_T/∂x_(T−k)‖",
}


if __name__ == "__main__":
    common.main(Config, run)
