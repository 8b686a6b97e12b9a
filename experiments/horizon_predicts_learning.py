"""Does the reach of a gradient before training tell how far a network will learn to remember?

Claim
    Of two networks, the one whose gradients reach further back at initialisation learns to recall
    a cue over more steps within the same budget of updates.
Source
    Schoenholz, Gilmer, Ganguli and Sohl-Dickstein 2017 (1611.01232) for depth; Chen, Pennington
    and Schoenholz 2018 (1806.05394) for recurrent networks.
What would refute it
    A rank correlation between the two whose 95 % bootstrap interval reaches down to 0.
Cost
    Two to three minutes on two cores, half a minute with --quick.

Each dot is a cell and how it begins. Across: the gradient horizon, the first lag at which
‖∂carry_T/∂carry_(T−k)‖ has fallen below a threshold, before training, on inputs of the task; a
horizon beyond the steps looked at counts as the largest. Up: the longest of a ladder of lags over
which one of eight cues was recalled, climbed until one is not learned within the budget, each time
from the same params. Both are medians over seeds.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from scipy.stats import spearmanr

import jaxrnn
from experiments import _claims as claims
from experiments import _common as common
from experiments._learning import Lesson, examples, learn
from jaxrnn import analysis, plot
from jaxrnn.initializers import Chrono, ForgetBias, Identity, Normal, Orthogonal
from jaxrnn.tasks import DelayedRecall

NAME = "horizon_predicts_learning"
PROBES = 4  # sequences over which a horizon is measured
RESAMPLES = 2000


class Kind(NamedTuple):
    """A dot: the cell, and the options with which it begins."""

    make: Callable[..., Any]
    options: dict[str, Any]


KINDS = {
    "Elman": Kind(jaxrnn.Elman, {}),
    "Elman, gain 0.5": Kind(jaxrnn.Elman, dict(recurrent_initializer=Normal(0.5))),
    "Elman, gain 1": Kind(jaxrnn.Elman, dict(recurrent_initializer=Normal(1.0))),
    "Elman, gain 1.5": Kind(jaxrnn.Elman, dict(recurrent_initializer=Normal(1.5))),
    "Elman, orthogonal": Kind(jaxrnn.Elman, dict(recurrent_initializer=Orthogonal())),
    "Elman, identity": Kind(jaxrnn.Elman, dict(recurrent_initializer=Identity())),
    "LSTM": Kind(jaxrnn.LSTM, {}),
    "LSTM, forget bias 1": Kind(jaxrnn.LSTM, dict(bias_initializer=ForgetBias(1.0))),
    "LSTM, chrono 100": Kind(jaxrnn.LSTM, dict(bias_initializer=Chrono(100.0))),
    "GRU": Kind(jaxrnn.GRU, {}),
    "GRU, keep bias 1": Kind(jaxrnn.GRU, dict(bias_initializer=ForgetBias(1.0))),
    "GRU, chrono 100": Kind(jaxrnn.GRU, dict(bias_initializer=Chrono(100.0))),
    "minGRU": Kind(jaxrnn.MinGRU, {}),
    "minGRU, chrono 100": Kind(jaxrnn.MinGRU, dict(bias_initializer=Chrono(100.0))),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What to train.

    Attributes:
        kinds: cells, and how they begin.
        lags: the ladder, ascending.
        threshold: below which a gradient counts as gone.
        steps: lags over which the gradient is looked at.
        hidden_size: H, units of every network.
        batch: sequences in one update.
        updates: the budget for each rung of the ladder.
        every: updates between two looks at the held-out loss.
        learning_rate: of Adam.
        clip: the global norm that gradients are clipped to.
        goal: the held-out loss, in nats, at which a lag counts as learned.
        seeds: how many networks of each kind.
        seed: the first of them.
        redraw: a result of an earlier run: prints its tables and draws its figure again.
        output: folder for horizon_predicts_learning.json and .png.
        quick: fewer kinds, short lags, one seed: half a minute.
    """

    kinds: tuple[str, ...] = tuple(KINDS)
    lags: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    threshold: float = 1e-3
    steps: int = 500
    hidden_size: int = 32
    batch: int = 32
    updates: int = 1500
    every: int = 250
    learning_rate: float = 3e-3
    clip: float = 1.0
    goal: float = 0.5
    seeds: int = 3
    seed: int = 0
    redraw: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    output: Path = Path("results")
    quick: bool = False


QUICK: dict[str, Any] = dict(
    kinds=("Elman", "LSTM", "GRU"), lags=(3, 9), steps=100, hidden_size=16,
    updates=400, every=100, seeds=1,
)  # fmt: skip


def run(config: Config) -> dict:
    """Trains, prints the table and the verdict, writes JSON and figure."""
    config = common.sized(config, QUICK)
    claims.at_least(config, learning_rate=0, seed=0)
    claims.at_least(config, steps=2, hidden_size=1, batch=1, every=1, updates=config.every, seeds=1)
    claims.one_of("--kinds", config.kinds, tuple(KINDS))
    if len(config.kinds) < 3:
        raise common.UsageError("--kinds takes three or more: fewer dots have no correlation")
    if not config.lags or config.lags[0] < 1 or np.any(np.diff(config.lags) <= 0):
        raise common.UsageError(f"--lags takes ascending numbers from 1 on, got {config.lags}")
    return claims.conduct(NAME, config, measure, _show, _draw)


def measure(config: Config) -> dict:
    """All dots, and the verdict."""
    jobs = [(kind, config.seed + i) for kind in config.kinds for i in range(config.seeds)]
    with common.progress(len(jobs) * sum(config.lags)) as advance:

        def one(job: tuple[str, int]) -> dict:
            return _dot(config, *job, advance)

        done = common.side_by_side(one, jobs)
    dots: dict[str, dict] = {kind: dict(kind=kind, horizon=[], longest=[]) for kind in config.kinds}
    for (kind, _), found in zip(jobs, done, strict=True):
        for name, value in found.items():
            dots[kind][name].append(value)
    rows = list(dots.values())
    correlation = rank_correlation(rows, config.steps)
    return dict(dots=rows, correlation=correlation, verdicts=[verdict(correlation)])


def _dot(config: Config, kind: str, seed: int, advance: Callable[[float, str], None]) -> dict:
    make, options = KINDS[kind]
    longest, failed, horizon = 0, False, math.nan
    for lag in config.lags:
        task = DelayedRecall(delay=lag - 1)
        cell = make(task.input_size, config.hidden_size)
        network = jaxrnn.Readout(cell, task.output_size)
        begins = dataclasses.replace(network, network=dataclasses.replace(cell, **options))
        if math.isnan(horizon):
            horizon = _horizon(config, cell, begins, seed)
        if not failed:
            lesson = Lesson(
                network, task, config.batch, config.learning_rate, config.clip, config.every,
                config.updates, config.goal,
            )  # fmt: skip
            name = f"{kind}, lag {lag}, seed {seed}"
            found = learn(lesson, seed, lambda by, text: None, name, begins)
            failed = not math.isfinite(found.sequences)
            longest = longest if failed else lag
        advance(lag, f"{kind}, seed {seed}, lag {lag}")
    return dict(horizon=horizon, longest=longest)


def _horizon(config: Config, cell: Any, begins: Any, seed: int) -> float:
    """The first lag under the threshold, the median over sequences; inf if there is none."""
    task = DelayedRecall(delay=config.steps - 2)
    params = begins.init(jax.random.split(jax.random.key(seed), 3)[0]).network
    return float(_decay(cell, task, config.threshold, params))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _decay(cell: Any, task: DelayedRecall, threshold: float, params: Any) -> jax.Array:
    xs = examples(task, jax.random.key(0), PROBES).xs
    size = math.log(jaxrnn.carry_size(cell)) / 2
    logs = analysis.gradient_decay(cell, params, xs, spectral="none").log_frobenius_norm - size
    under = jnp.median(logs, axis=0) < math.log(threshold)
    return jnp.where(jnp.any(under), jnp.argmax(under) + 1.0, jnp.inf)


def rank_correlation(rows: list[dict], steps: int) -> dict:
    """Spearman's ρ between horizon and longest lag, with a bootstrap interval over dots."""
    across = np.minimum([np.median(row["horizon"]) for row in rows], steps)
    up = np.array([np.median(row["longest"]) for row in rows])
    draws = np.random.default_rng(0).integers(0, len(rows), (RESAMPLES, len(rows)))
    varied = [d for d in draws if len({*across[d]}) > 1 and len({*up[d]}) > 1]
    if not varied or len({*across}) == 1 or len({*up}) == 1:
        return dict(rho=math.nan, low=math.nan, high=math.nan, dots=len(rows))
    resampled = [_rho(across[d], up[d]) for d in varied]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return dict(rho=_rho(across, up), low=float(low), high=float(high), dots=len(rows))


def _rho(across: np.ndarray, up: np.ndarray) -> float:
    return float(spearmanr(across, up)[0])  # pyright: ignore[reportArgumentType]


def verdict(correlation: dict) -> dict:
    """Whether the interval keeps clear of zero."""
    return claims.claim(
        "gradients that reach further back before training go with longer lags learned",
        correlation["low"] > 0,
        f"Rank correlation {correlation['rho']:.2f} over {correlation['dots']} dots"
        f"{', too few for what follows to mean much' if correlation['dots'] < 6 else ''}, 95 % "
        f"interval {correlation['low']:.2f} … {correlation['high']:.2f}",
    )


def _show(result: dict) -> None:
    config, rows = result["config"], []
    for dot in sorted(result["dots"], key=lambda d: np.median(d["horizon"])):
        rows.append([dot["kind"], _numbers(dot["horizon"]), _numbers(dot["longest"])])
    common.print_table(
        f"Horizon before training (gradient under {config['threshold']:g}, {config['steps']} steps "
        f"looked at), longest lag learned within {config['updates']:,} updates; each seed",
        ("", "horizon", "longest lag"),
        rows,
    )


def _numbers(values: list[float]) -> str:
    return ", ".join("beyond" if math.isinf(v) else f"{v:.0f}" for v in values)


def _draw(result: dict) -> Figure:
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    steps, least = result["config"]["steps"], min(result["config"]["lags"])
    families = list(dict.fromkeys(dot["kind"].split(",")[0] for dot in result["dots"]))
    places: dict[tuple[float, float], list[str]] = {}
    for dot in result["dots"]:
        colour = plot.COLOURS[families.index(dot["kind"].split(",")[0])]
        across = np.minimum(np.array(dot["horizon"], float), steps)
        up = np.maximum(np.array(dot["longest"], float), least / 2)
        axes.plot(across, up, "o", color=colour, markersize=4, alpha=0.4)
        place = float(np.median(across)), float(np.median(up))
        axes.plot(*place, "o", color=colour, markersize=10)
        places.setdefault(place, []).append(dot["kind"])
    _name(axes, places, steps)
    axes.set_xscale("log")
    axes.set_yscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    lags = [least / 2, *result["config"]["lags"]]
    axes.set_yticks(lags, ["none", *map(str, result["config"]["lags"])])
    axes.axvline(steps, color="#555555", linewidth=1, linestyle=":")
    axes.text(steps, 0.75 * least, "beyond ", ha="right", fontsize=9, color="#555555")
    axes.set_xlabel(f"gradient horizon before training (under {result['config']['threshold']:g})")
    axes.set_ylabel("longest lag learned")
    found = result["correlation"]
    axes.set_title(
        "How far gradients reach before training, and how far is learned\n"
        f"rank correlation {found['rho']:.2f} [{found['low']:.2f} … {found['high']:.2f}]; "
        "large: median over seeds",
        loc="left",
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _name(axes: Axes, places: dict[tuple[float, float], list[str]], steps: int) -> None:
    """Kinds beside their dots: those of one dot under each other, of one height up and down."""
    heights: dict[float, int] = {}
    for (across, up), kinds in sorted(places.items()):
        turn = heights[up] = heights.get(up, -1) + 1
        above = turn % 2 == 0 and len(kinds) == 1
        style: dict[str, Any] = dict(ha="left", va="bottom" if above else "top")
        aside = 7
        if across >= steps:  # the right edge is near
            style["ha"], aside = "right", -7
        axes.annotate(
            "\n".join(kinds), (across, up), (aside, 5 if above else -5),
            textcoords="offset points", fontsize=9, **style,
        )  # fmt: skip


if __name__ == "__main__":
    common.main(Config, run)
