"""How fast are recurrent networks here, next to other libraries and to their matrix products?

Claim
    `jaxrnn.unroll` is as fast as the fastest of PyTorch, Flax, Equinox, Haiku and Keras at every
    point of a grid, and in the mean clearly faster; a training step of a wide network costs little
    more than the matrix products in it; it takes no more memory; and a step that is streamed
    costs a fraction of PyTorch's.
Source
    None: the numbers of the claim, printed with each verdict, are what the project set itself.
What would refute it
    Any of the verdicts, computed from medians of ratios within rounds of the same run. A quiet
    machine is asked for: other work adds to everyone's time, but not to everyone's alike.
Cost
    About 12 minutes on two cores with all peers, under 30 seconds with --quick. --full adds
    sequences of more than 2¹⁴ steps.

Forward: all outputs. Training: mean(ys²) and its gradient of params, no optimiser. float32, on the
CPU. Data lie time first, (T, B, I), for ours too; batch first for Keras, which knows nothing else,
and for a second row of ours, which shows what that layout costs. Everything is compiled first;
then, round by round in an order drawn anew, each contender warms up for 20 ms and is timed. Cells
differ as their libraries do; see the notes below the tables. Peers that are not installed are left
out: pip install 'jaxrnn[peers]'.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import tyro

from experiments import _common as common
from experiments import _speed_curves as curves
from experiments import _speed_figure as figure
from experiments import _speed_grid as grid
from experiments import _speed_header as head
from experiments import _speed_report as report
from experiments import _speed_stream as stream
from experiments import _speed_tables as tables
from experiments import _speed_ways as ways
from experiments._common import UsageError
from experiments._speed_cases import GRID, TITLES, Case, parse_shape
from experiments._speed_peers import PEERS, missing

NAME = "speed"
PARTS = ("grid", "streaming", "curves", "ways")
SIZE = 64  # I = H of streaming and curves
LONGEST = 14  # powers of two: the longest sequence without --full


@dataclasses.dataclass(frozen=True)
class Config:
    """What to time, and how often.

    Attributes:
        rounds: how often each contender is timed at each point.
        cells: which of lstm, gru, elman.
        only: shapes BxTxIxH in place of the whole grid.
        peers: which of torch, linen, nnx, equinox, haiku, keras, as far as they are installed.
        parts: which of grid, streaming, curves, ways: parallel in time against the scan.
        limit: who is this many times slower than the fastest at a point is left out there.
        seed: of inputs and of the order within rounds.
        full: sequences up to 2¹⁷ steps, not 2¹⁴.
        redraw: a result of an earlier run: prints its tables and draws its figure again.
        output: folder for speed.json and speed.png.
        quick: tiny shapes, three rounds and two peers, to see that it runs.
    """

    rounds: int = 20
    cells: tuple[str, ...] = tuple(TITLES)
    only: tuple[str, ...] = GRID
    peers: tuple[str, ...] = tuple(PEERS)
    parts: tuple[str, ...] = PARTS
    limit: float = 8.0
    seed: int = 0
    full: bool = False
    redraw: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    output: Path = Path("results")
    quick: bool = False


QUICK = dict(rounds=3, only=("4x32x8x16",), peers=("torch", "linen"))


class Result(NamedTuple):
    """Everything that the tables and the figure are made from, as plain Python."""

    experiment: str
    config: dict
    machine: dict
    seconds: float
    peers: list[str]
    missing: dict[str, str]
    agreement: dict[str, dict]
    points: list[dict]
    summaries: list[dict]
    means: dict
    streaming: dict | None
    curves: list[dict]
    ways: list[dict]
    warnings: list[str]
    verdicts: list[dict]


def run(config: Config) -> Result:
    """Times everything, prints tables and verdicts, writes the JSON and draws the figure."""
    began = time.perf_counter()
    config = common.sized(config, QUICK)
    check(config)
    folder = common.results_folder(config.output)
    if config.redraw is None:
        common.write_json(folder / f"{NAME}.json", measure(config, began)._asdict())
    path = config.redraw or folder / f"{NAME}.json"
    result = Result(**common.read_json(path, NAME))
    tables.print_all(result._asdict())
    path = folder / f"{NAME}.png"
    figure.draw(result._asdict(), path)
    common.console().print(f"Wrote {path}, {time.perf_counter() - began:.0f} s.")
    return result


def check(config: Config) -> None:
    """Raises before anything long begins if a choice makes no sense."""
    for field, known in (("cells", TITLES), ("peers", PEERS), ("parts", PARTS)):
        chosen = getattr(config, field)
        for name in chosen:
            if name not in known:
                raise UsageError(f"unknown {name!r}: --{field} takes {', '.join(known)}")
        if len(set(chosen)) < len(chosen):
            raise UsageError(f"--{field} takes each of {', '.join(known)} once")
    for shape in config.only:
        parse_shape(shape)
    if config.rounds < 1 or not config.limit > 1:
        raise UsageError("--rounds must be at least 1, and --limit above 1")
    if jax.devices()[0].platform != "cpu":
        raise UsageError("this experiment compares on the CPU: set JAX_PLATFORMS=cpu")


def measure(config: Config, began: float) -> Result:
    """All parts of the run, with progress."""
    lacking = {name: why for name in config.peers if (why := missing(PEERS[name]))}
    peers = [name for name in config.peers if name not in lacking]
    about = head.machine(peers)
    warnings = head.print_header(about, lacking)
    agreement = {c: grid.agreement(c) for c in config.cells} if "torch" in peers else {}
    warnings += head.print_agreement(agreement)
    cases = [Case(cell, *parse_shape(shape)) for shape in config.only for cell in config.cells]
    plan, parallel = curve_plan(config), ways_plan(config)
    work = 2 * len(cases) * ("grid" in config.parts) + 2 * ("streaming" in config.parts)
    with common.progress(work + sum(map(len, plan.values())) + len(parallel)) as advance:
        points, streaming = [], None
        if "grid" in config.parts:
            points = grid.measure(cases, peers, config.rounds, config.limit, config.seed, advance)
        if "streaming" in config.parts:
            streaming = measure_streaming(config, peers, advance)
        rounds = max(3, config.rounds // 4)
        found = [curves.measure(a, c, peers, rounds, config.seed, advance) for a, c in plan.items()]
        beside = ways.measure(parallel, rounds, config.seed, advance)
    about["load_after"] = head.load()
    summaries = [report.summary(point) for point in points]
    return Result(
        experiment=NAME,
        config=dataclasses.asdict(config),
        machine=about,
        seconds=time.perf_counter() - began,
        peers=peers,
        missing=lacking,
        agreement=agreement,
        points=points,
        summaries=summaries,
        means=report.means(summaries),
        streaming=streaming,
        curves=found,
        ways=beside,
        warnings=warnings,
        verdicts=report.verdicts(points, streaming),
    )


def measure_streaming(config: Config, peers: list[str], advance: Callable) -> dict:
    """One step at a time; `advance` goes up by two."""
    advance(0, "streaming: compiling")
    steps = 20 if config.quick else 500

    def after_round() -> None:
        advance(2 / config.rounds, "streaming")

    return stream.measure(SIZE, steps, peers, config.rounds, config.seed, after_round)


def curve_plan(config: Config) -> dict[str, list[Case]]:
    """The cases of each curve, by the field that changes."""
    if "curves" not in config.parts:
        return {}
    longest = 17 if config.full else LONGEST
    steps = [2**k for k in (range(5, 7) if config.quick else range(7, longest + 1))]
    batches = [4**k for k in range(2 if config.quick else 6)]
    return {
        "steps": [Case("lstm", 1, T, SIZE, SIZE) for T in steps],
        "batch": [Case("lstm", B, 64, SIZE, SIZE) for B in batches],
    }


def ways_plan(config: Config) -> list[tuple[str, int, int]]:
    """Ways through time, sequence lengths and sizes to compare."""
    if "ways" not in config.parts:
        return []
    if config.quick:
        return [way for way in ways.plan([64], [4]) if way[0] in ("lru", "elman")]
    return ways.plan([2**6, 2**10, 2**14], [4, 16, 64, 256] if config.full else [16, 256])


if __name__ == "__main__":
    common.main(Config, run)
