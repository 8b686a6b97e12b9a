"""Where does a random network turn chaotic, and what does its input do about that?

Claim
    The largest Lyapunov exponent of a random tanh network of gain g, driven by white noise of
    variance s², is λ₁ = ½ ln(g² E sech⁴(√q z)) with q = g² E tanh²(√q z) + s². Chaos sets in at
    gain 1 without input, and input suppresses it. Gradients travel back at the same λ₁.
Source
    Sompolinsky, Crisanti and Sommers 1988; Molgedey, Schuchhardt and Schuster 1992 for input in
    discrete time; Can, Krishnamurthy and Schwab 2020 (2002.00025) for gated cells.
What would refute it
    Exponents or variances that do not come nearer to the theory's as networks grow; an edge of
    chaos that input does not move up; a gradient that grows or fades at another rate.
Cost
    One to two minutes on two cores, under half a minute with --quick.

Theory is for h ← J tanh(h) + input and infinitely many units. Elman's cell is the same loop read
at another point, after tanh: with W_h = J its pre-activations W_h h + x are that h, their variance
is q, and the product of its Jacobians begins and ends with another factor of the same product, so
that the exponents are equal. Every unit has noise of its own. Gates get theirs through random maps.
Networks are started away from h = 0; seeds are the same at every gain and variance. Rates are in
nats per step, float32.

The hard corner is s² = 0 with g a little above 1. A finite network has left its fixed point there,
but goes round a cycle, on which λ₁ is 0 or below, and is chaotic only at a larger gain. Without
input chaos is therefore what has λ₁ > 0.005, and its edge is also given for each size. Edges are
where λ₁ last crosses the line, between gains that were measured: there are windows of order.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from experiments import _chaos_figure as figure
from experiments import _chaos_measure as measure
from experiments import _chaos_verdicts as weigh
from experiments import _claims as claims
from experiments import _common as common

NAME = "chaos_transition"
GATED = ("gru", "lstm")


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure.

    Attributes:
        hidden_size: N, units of the networks that are laid beside theory at every gain.
        sizes: other N, at three of the variances, to see how the distance to theory shrinks.
        gains: g, ascending; those of gated cells count in units of their critical gain.
        variances: s², ascending from 0.
        length: steps that are counted.
        burn_in: steps before them.
        cells: which of gru, lstm to sweep as well.
        small_size: N of gated cells, and of the networks whose gradients are followed back.
        lag: steps that gradients are followed back.
        seeds: how many networks of each kind.
        seed: the first of them.
        redraw: a result of an earlier run: prints its tables and draws its figure again.
        output: folder for chaos_transition.json and .png.
        quick: the same, smaller: under half a minute.
    """

    hidden_size: int = 256
    sizes: tuple[int, ...] = (32, 64, 128, 512)
    gains: tuple[float, ...] = (
        0.5, 0.75, 1.0, 1.125, 1.25, 1.375, 1.5, 1.625, 1.75, 1.875, 2.0, 2.25, 2.5, 3.0,
    )  # fmt: skip
    variances: tuple[float, ...] = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)
    length: int = 1000
    burn_in: int = 200
    cells: tuple[str, ...] = GATED
    small_size: int = 128
    lag: int = 400
    seeds: int = 5
    seed: int = 0
    redraw: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    output: Path = Path("results")
    quick: bool = False


QUICK = dict(
    hidden_size=128, sizes=(32, 64), gains=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0),
    variances=(0.0, 0.05, 0.2, 1.0), length=300, burn_in=100, cells=("gru",), small_size=64,
    lag=150, seeds=3,
)  # fmt: skip


def run(config: Config) -> dict:
    """Measures, prints the tables and the verdicts, writes JSON and figure."""
    config = common.sized(config, QUICK)
    claims.at_least(config, hidden_size=8, small_size=8, length=50, burn_in=10, lag=50, seeds=1)
    if config.cells:
        claims.one_of("--cells", config.cells, GATED)
    for flag, values, count in (("gains", config.gains, 4), ("variances", config.variances, 2)):
        if len(values) < count or np.any(np.diff(values) <= 0):
            raise common.UsageError(f"--{flag} takes {count} or more numbers in ascending order")
    if config.variances[0] != 0 or config.gains[0] <= 0:
        raise common.UsageError("--variances must begin with 0, and --gains above it")
    if len(set(config.sizes)) < len(config.sizes) or any(size < 8 for size in config.sizes):
        raise common.UsageError("--sizes takes numbers of at least 8, each once")
    return claims.conduct(NAME, config, measure_all, _show, figure.draw)


def few(variances: tuple[float, ...]) -> tuple[float, ...]:
    """The first, the middle and the last."""
    return tuple(variances[i] for i in sorted({0, len(variances) // 2, len(variances) - 1}))


class Job(dict):
    """Arguments of `measure.sweep`, by name."""

    @property
    def work(self) -> int:
        """How much there is to do."""
        back = self.get("back", False)
        return measure.work(self["size"], self["gains"], self["variances"], back)


def jobs(config: Config) -> list[Job]:
    """What is measured: sizes of Elman's network, gated cells, gradients."""
    some, sizes = few(config.variances), sorted({*config.sizes, config.hidden_size})
    found = []
    for size in sizes:
        variances = config.variances if size == config.hidden_size else some
        found.append(Job(kind="elman", size=size, gains=config.gains, variances=variances))
    for kind in config.cells:
        gains = tuple(measure.zero_gain(kind) * gain for gain in config.gains)
        found.append(Job(kind=kind, size=config.small_size, gains=gains, variances=some))
    back = Job(kind="elman", size=config.small_size, gains=config.gains[::3], variances=some)
    return [*found, Job(back, back=True)]


def measure_all(config: Config) -> dict:
    """All networks, and the verdicts on them."""
    # the longest first, so that both threads end together
    planned = sorted(jobs(config), key=lambda job: -job.work)
    with common.progress(config.seeds * sum(job.work for job in planned)) as advance:

        def one(job: Job) -> dict:
            return measure.sweep(**job, config=config, advance=advance)

        rows = common.side_by_side(one, planned)
    found = dict(
        elman=sorted((r for r in rows if _forward(r, "elman")), key=lambda row: row["size"]),
        gated=[r for kind in config.cells for r in rows if _forward(r, kind)],
        back=next(r for r in rows if "rate" in r),
        lines=lines(config),
    )
    return found | dict(verdicts=weigh.verdicts(found, config.hidden_size))


def _forward(row: dict, kind: str) -> bool:
    return row["kind"] == kind and "rate" not in row


def lines(config: Config) -> dict:
    """What theory says between the gains and variances that were measured."""
    gains = np.linspace(config.gains[0], config.gains[-1], 81)
    between = np.linspace(0, np.sqrt(config.variances[-1]), 25) ** 2
    found = measure.theory(gains, [*config.variances, *between])
    measured = len(config.variances)
    exponents = found["exponent"]
    of_map = dict(exponent=exponents[measured:], edge=found["edge"][measured:])
    return dict(gains=gains, curves=exponents[:measured], variances=between) | of_map


def _show(result: dict) -> None:
    config = result["config"]
    row = weigh.of_size(result["elman"], config["hidden_size"])
    apart, off = measure.distances(row), weigh.q_errors(row)
    table = []
    for i, (variance, onset) in enumerate(zip(row["variances"], measure.onsets(row), strict=True)):
        worst = int(np.argmax(np.abs(apart[i].mean(-1))))
        table.append(
            [
                f"s² = {variance:g}",
                weigh.plain(onset),
                f"{row['theory']['edge'][i]:.3f}",
                claims.spread(apart[i, worst]),
                f"{row['gains'][worst]:g}",
                f"{100 * np.nanmax(np.abs(off[i].mean(-1))):.1f} %",
            ]
        )
    about = f"{config['seeds']} networks, {config['length']} steps"
    common.print_table(
        f"Elman's network of {row['size']} units, {about}; mean ± sd",
        ("", "chaos from gain", "in theory", "λ₁ off by at most", "at gain", "q off by at most"),
        table,
    )
    _show_sizes(result["elman"])


def _show_sizes(rows: list[dict]) -> None:
    of: dict[str, Callable] = weigh.REGIONS
    table = []
    for row in rows:
        cells = [weigh.plain(weigh.mean_distance(row, inside), 4) for inside in of.values()]
        table.append([f"N = {row['size']}", *cells, weigh.plain(measure.onsets(row)[0], 2)])
    heads = ("", *of, "chaos from gain, s² = 0")
    common.print_table("Mean distance of λ₁ from its mean field, nats per step", heads, table)


if __name__ == "__main__":
    common.main(Config, run)
