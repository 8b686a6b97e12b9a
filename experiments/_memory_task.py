"""What `adding_problem` and `cue_recall` share: cells learn a task of memory at several lengths."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from experiments import _claims as claims
from experiments import _common as common
from experiments._learning import CELLS, Learned, Lesson, examples, learn, network
from jaxrnn import analysis, flatten_carry, plot, trajectory
from jaxrnn.tasks import Task

COLOURS = (*plot.COLOURS, "#8C6D31", "#999999")  # one for each of CELLS
PROBES = 8  # sequences over which gradients are measured
FULL: dict[str, Any] = dict(cells=tuple(CELLS), updates=20000, seeds=5)


@dataclasses.dataclass(frozen=True)
class Training:
    """What both are told about networks and training.

    Attributes:
        cells: which networks.
        hidden_size: H, units of every network.
        batch: sequences in one update.
        updates: at most so many; training ends as soon as the goal is reached.
        every: updates between two looks at the held-out loss.
        learning_rate: of Adam.
        clip: the global norm that gradients are clipped to.
        goal: the held-out loss at which a task counts as solved.
        seeds: how many networks of each kind.
        seed: the first of them.
        redraw: a result of an earlier run: prints its tables and draws its figure again.
        output: folder for JSON and figure.
        full: all networks, several lengths, five seeds: an hour or more.
        quick: short lengths, one seed: half a minute.
    """

    cells: tuple[str, ...] = ("Elman", "LSTM", "GRU")
    hidden_size: int = 32
    batch: int = 32
    updates: int = 8000
    every: int = 250
    learning_rate: float = 3e-3
    clip: float = 1.0
    goal: float = 0.01
    seeds: int = 3
    seed: int = 0
    redraw: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    output: Path = Path("results")
    full: bool = False
    quick: bool = False

    def check(self) -> None:
        """Raises if a number makes no sense."""
        claims.at_least(self, learning_rate=0, seed=0)
        claims.at_least(self, hidden_size=1, batch=1, every=1, updates=self.every, seeds=1)
        claims.one_of("--cells", self.cells, tuple(CELLS))


WHEN = ("before", "after")


def lesson(config: Training, cell: str, task: Task) -> Lesson:
    """What a config says about the training of one cell on one task."""
    return Lesson(
        network=network(cell, task, config.hidden_size),
        task=task,
        batch=config.batch,
        learning_rate=config.learning_rate,
        clip=config.clip,
        every=config.every,
        updates=config.updates,
        goal=config.goal,
    )


def measure(
    config: Training, tasks: Mapping[int, Task], lag: Callable[[int], int], goal: str
) -> dict:
    """All cells on all tasks: a row each, with one entry for each seed; an LSTM from inside.

    lag: from the length to the lag that counts. goal: what a network reaches that has learned it.
    """
    inside: dict[int, dict] = {}
    jobs = [
        (length, cell, config.seed + i)
        for length in tasks
        for cell in config.cells
        for i in range(config.seeds)
    ]
    # the longest first, so that no thread is left alone with it
    order = sorted(range(len(jobs)), key=lambda i: -jobs[i][0])
    with common.progress(config.updates * sum(length for length, _, _ in jobs)) as advance:

        def one(index: int) -> dict:
            length, cell, seed = jobs[index]
            what = lesson(config, cell, tasks[length])

            def forward(by: float, text: str) -> None:
                advance(by * length, text)

            found = learn(what, seed, forward, f"{cell}, T = {length}, seed {seed}")
            if cell == "LSTM" and seed == config.seed:
                inside[length] = _inside_of(what, found.after)
            return _record(what, found, lag(length))

        done = dict(zip(order, common.side_by_side(one, order), strict=True))
    rows: dict[tuple[int, str], dict] = {}
    for index, (length, cell, _) in enumerate(jobs):
        row = rows.setdefault((length, cell), dict(length=length, cell=cell, lag=lag(length)))
        for name, value in done[index].items():
            row.setdefault(name, []).append(value)
    found = list(rows.values())
    return dict(
        rows=found,
        inside=inside.get(min(tasks)),
        verdicts=verdicts(found, config.cells, goal, {n: t.baseline for n, t in tasks.items()}),
    )


def _record(what: Lesson, found: Learned, lag: int) -> dict:
    record: dict[str, Any] = dict(
        errors=found.errors, sequences=found.sequences, correct=found.correct
    )
    for when, params in zip(WHEN, (found.before, found.after), strict=True):
        curve = np.asarray(_gradient(what.network.network, what.task, params.network))
        record[f"log_norm_{when}"] = curve[: lag + 1]
        record[f"at_lag_{when}"] = float(curve[lag - 1])
    return record


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gradient(cell: Any, task: Task, params: Any) -> jax.Array:
    """ln of ‖∂carry_T/∂carry_(T−k)‖_F/√N over k, the median of some sequences."""
    xs = examples(task, jax.random.key(0), PROBES).xs
    size = flatten_carry(cell.initial_carry(params))[0].size
    decay = analysis.gradient_decay(cell, params, xs, spectral="none")
    return jnp.median(decay.log_frobenius_norm, axis=0) - 0.5 * math.log(size)


def _inside_of(what: Lesson, params: Any) -> dict:
    """What an LSTM holds over one sequence: c_t and its gates."""
    one = jax.tree.map(lambda a: a[0], examples(what.task, jax.random.key(1), 1))
    cell, inner = what.network.network, params.network
    carries, _ = trajectory(cell, inner, one.xs)
    start = cell.initial_carry(inner)
    before = jax.tree.map(lambda a, z: jnp.concatenate([z[None], a[:-1]]), carries, start)
    gates = jax.vmap(cell.gates, (None, 0, 0))(inner, before, one.xs)
    return dict(xs=one.xs, c=carries.c, forget=gates.forget, input=gates.input)


# what is said


def solved(row: dict) -> int:
    """How many seeds reached the goal."""
    return int(np.isfinite(np.array(row["sequences"], float)).sum())


def verdicts(
    rows: Sequence[dict], cells: Sequence[str], goal: str, baselines: dict[int, float]
) -> list[dict]:
    """Whether LSTM and GRU learn it, and Elman's network does not; of those that were trained."""
    gated = [cell for cell in ("LSTM", "GRU") if cell in cells]
    found = all_solve(rows, gated, goal), stays(rows, "Elman", baselines)
    return [verdict for verdict in found if verdict]


def all_solve(rows: Sequence[dict], cells: Sequence[str], goal: str) -> dict | None:
    """Whether every seed of some cells reached the goal at every length; None without them."""
    some = [row for row in rows if row["cell"] in cells]
    if not some:
        return None
    failed = [
        f"{r['cell']} at T = {r['length']}: {solved(r)} of {len(r['sequences'])}"
        for r in some
        if solved(r) < len(r["sequences"])
    ]
    slowest = max((max(r["sequences"]), r["cell"], r["length"]) for r in some)
    text = "; ".join(failed)
    if not failed:
        text = f"The slowest took {slowest[0]:,.0f} sequences: {slowest[1]} at T = {slowest[2]}"
    names = [f"{cell}, chrono" for cell in cells]
    begun = [row for row in rows if row["cell"] in names]
    known = {row["cell"] for row in begun} == set(names)
    only_if = "their biases begin at chrono's for 100 steps"
    return claims.claim(
        f"{' and '.join(cells)} reach {goal} with every seed",
        not failed,
        text,
        only_if if known and all(solved(r) == len(r["sequences"]) for r in begun) else "",
    )


def stays(rows: Sequence[dict], cell: str, baselines: dict[int, float]) -> dict | None:
    """Whether a cell never gets a tenth below the baseline at the greatest length."""
    longest = max(baselines)
    some = [r for r in rows if r["cell"] == cell and r["length"] == longest]
    if not some:
        return None
    least = np.array([min(errors) for errors in some[0]["errors"]])
    of_baseline = least / baselines[longest]
    return claims.claim(
        f"{cell}'s network stays at the baseline at T = {longest}",
        of_baseline.min() > 0.9,
        f"Least held-out loss of each seed: {', '.join(f'{v:.0%}' for v in of_baseline)} of it",
    )


def print_rows(title: str, rows: Sequence[dict]) -> None:
    """The table: what each needed, where it ended, and the gradient at the lag that matters."""
    table, length = [], rows[0]["length"]
    for row in rows:
        if row["length"] != length:
            table.append([])
            length = row["length"]
        seen = np.array(row["sequences"], float)
        final = np.array([errors[-1] for errors in row["errors"]], float)
        ended = np.isfinite(final)  # the others diverged: they have no loss and no gradient
        table.append(
            [
                f"T = {row['length']}, {row['cell']}",
                f"{solved(row)} of {len(seen)}",
                _range(seen),
                _loss(final),
                f"{np.mean(row['correct']):.0%}",
                _power(np.array(row["at_lag_before"], float)),
                _power(np.array(row["at_lag_after"], float)[ended]),
            ]
        )
    heads = ("", "solved", "sequences", "loss in the end", "correct", "gradient before", "after")
    common.print_table(title, heads, table)


def _loss(final: np.ndarray) -> str:
    ended = final[np.isfinite(final)]
    parts = [f"{ended.mean():.4f} ± {claims.deviation(ended):.4f}"] if len(ended) else []
    diverged = len(final) - len(ended)
    return ", ".join(parts + ([f"{diverged} diverged"] if diverged else []))


def _power(logs: np.ndarray) -> str:
    return f"10^{np.median(logs) / plot.LN10:.1f}" if len(logs) else "–"


def _range(values: np.ndarray) -> str:
    values = values[np.isfinite(values)]
    if not len(values):
        return "–"
    low, high = (f"{v / 1000:,.0f}k" for v in (values.min(), values.max()))
    return low if low == high else f"{low} … {high}"


# what is drawn


def draw(
    result: dict, name: str, baselines: dict[int, float], marks: Callable, what: str
) -> Figure:
    """Held-out loss over sequences seen, gradients over lag, sequences over T, an LSTM inside.

    marks: from the inputs of a sequence to the steps that count; what: what these are.
    """
    goal = result["config"]["goal"]
    rows, lengths = result["rows"], sorted(baselines)
    several = len(lengths) > 1
    figure = Figure(figsize=(13, 9 if several or result.get("inside") else 5), layout="constrained")
    inside = result.get("inside")
    grid = figure.add_gridspec(2 if several or inside else 1, 2)
    longest = [row for row in rows if row["length"] == lengths[-1]]
    colours = dict(zip([row["cell"] for row in longest], COLOURS, strict=False))
    _errors(figure.add_subplot(grid[0, 0]), result, longest, colours, baselines[lengths[-1]], goal)
    _gradients(figure.add_subplot(grid[0, 1]), longest, colours)
    if several:
        _over_length(figure.add_subplot(grid[1, 0]), rows, colours)
    if inside:
        place = grid[1, 1] if several else grid[1, :]
        _inside(figure, place, {k: np.array(v) for k, v in inside.items()}, marks, what)
    figure.suptitle(name, x=0.01, ha="left", fontweight="bold")
    return figure


def _errors(
    axes: Axes, result: dict, rows: Sequence[dict], colours: dict, baseline: float, goal: float
) -> None:
    per_look = result["config"]["batch"] * result["config"]["every"] / 1000
    for row in rows:
        for i, errors in enumerate(row["errors"]):
            label = row["cell"] if i == 0 else None
            seen = per_look * np.arange(len(errors))
            axes.plot(seen, errors, color=colours[row["cell"]], linewidth=1.5, label=label)
    axes.set_yscale("log")
    for level, text in ((baseline, "without memory"), (goal, "goal")):
        axes.axhline(level, color="#555555", linewidth=1, linestyle=":")
        place = dict(ha="right", va="bottom", fontsize=9, color="#555555")
        axes.annotate(text, (1, level), xycoords=("axes fraction", "data"), **place)  # pyright: ignore
    axes.set_xlabel("sequences seen, thousands")
    axes.set_ylabel("held-out loss")
    axes.set_title(f"Learning, T = {rows[0]['length']}: a line for each seed", loc="left")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _gradients(axes: Axes, rows: Sequence[dict], colours: dict) -> None:
    drawn, curves = [], []
    for row in rows:
        for when in WHEN:
            values = plot.with_lag_zero(np.array(row[f"log_norm_{when}"], float))
            style: dict[str, Any] = dict(band=False, linewidth=1.2, linestyle="--")
            style = {} if when == "after" else style
            text = row["cell"] if when == "after" else ""
            found = plot.curve(
                axes, values, colours[row["cell"]], text=text, threshold=None, **style
            )
            drawn.append(values)
            curves += [found] if text else []
    axes.set_ylim(*plot.limits(*drawn, lowest=-16))
    plot.lag_axis(axes, drawn[0].shape[-1] - 1, room=0.35)
    plot.power_axis(axes, r"$\|\,\partial\,carry_T\,/\,\partial\,carry_{T-k}\,\|_F\,/\,\sqrt{N}$")
    plot.label_ends(axes, curves, size=10)
    axes.set_title("What reaches back (dashed: before training)", loc="left")


def _over_length(axes: Axes, rows: Sequence[dict], colours: dict) -> None:
    lengths = sorted({row["length"] for row in rows})
    for i, (cell, colour) in enumerate(colours.items()):
        some = [row for row in rows if row["cell"] == cell]
        needed = [np.array(row["sequences"], float) / 1000 for row in some]
        medians = [float(np.median(n)) for n in needed]
        axes.plot(lengths, medians, color=colour, label=cell)
        # side by side, as seeds of several cells take the same
        aside = 1.012 ** (i - (len(colours) - 1) / 2)
        for length, each in zip(lengths, needed, strict=True):
            axes.scatter([aside * length] * len(each), each, color=colour, s=18)
    axes.set_xscale("log")
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(0.9 * lengths[0], 1.1 * lengths[-1])
    axes.set_xlabel("T, steps")
    axes.set_ylabel("thousands of sequences until solved")
    if any(map(solved, rows)):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}" if np.divide(*axes.get_ylim()) > 0.1 else "")
    else:  # what is nowhere has no logarithm
        axes.set_yticks([])
        axes.text(0.5, 0.5, "none has learned it", transform=axes.transAxes, ha="center")
    axes.set_title("What it takes (no dot: not solved)", loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _inside(figure: Figure, place: Any, inside: dict, marks: Callable, what: str) -> None:
    steps = marks(inside["xs"])
    c = inside["c"]
    before = np.concatenate([np.zeros((1, c.shape[1])), c[:-1]])
    # units that move most where it counts come first
    order = np.argsort(-np.abs(c - before)[steps].max(0))
    column = place.subgridspec(3, 1, hspace=0.08)
    top = figure.add_subplot(column[0])
    for unit, grey in zip(order, np.linspace(0, 0.7, 5), strict=False):
        top.plot(c[:, unit], color=str(grey), linewidth=1.2)
    top.set_ylabel("$c_t$\nfive units", fontsize=9)
    top.set_title(f"Inside a trained LSTM, T = {len(c)} (dotted: {what})", loc="left")
    top.spines[["top", "right"]].set_visible(False)
    panels = [top]
    for name in ("input", "forget"):
        axes = figure.add_subplot(column[len(panels)], sharex=top)
        look: dict[str, Any] = dict(aspect="auto", interpolation="nearest", vmin=0, vmax=1)
        image = axes.imshow(inside[name][:, order].T, cmap="viridis", **look)
        figure.colorbar(image, ax=axes, pad=0.01)
        axes.set_ylabel(f"{name} gate\nunits", fontsize=9)
        panels.append(axes)
    for axes in panels:
        axes.tick_params(labelbottom=axes is panels[-1])
        for step in steps:
            axes.axvline(step, color="#000000", linewidth=1, linestyle=":")
    top.set_xlim(-0.5, len(c) - 0.5)
    top.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[-1].set_xlabel("step")
