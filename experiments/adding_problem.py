"""Which networks can add two numbers that they saw some hundred steps ago?

Claim
    LSTM and GRU bring the mean squared error below 0.01 at T = 200 whatever the seed; Elman's
    network stays at 1/6, the error of always answering 1.
Source
    Hochreiter and Schmidhuber 1997, experiment 4; Le, Jaitly and Hinton 2015 (1504.00941).
What would refute it
    A seed of LSTM or GRU that is still above 0.01 when the updates are used up; a network of
    Elman's that falls below nine tenths of 1/6.
Cost
    Two minutes on two cores, half a minute with --quick, over an hour with --full.

Numbers are from U(0, 1) and two of them are marked, one in each half. Every batch is drawn anew, so
that there is nothing to learn by heart; the error is that of a thousand sequences apart. The
gradient is ‖∂carry_T/∂carry_(T−k)‖_F/√N, what a random direction keeps of it, at k = 3T/4: there
the first mark lies on average.
"""

import dataclasses
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import _claims as claims
from experiments import _common as common
from experiments import _memory_task as memory
from jaxrnn.tasks import Adding

NAME = "adding_problem"


@dataclasses.dataclass(frozen=True)
class Config(memory.Training):
    """What to train.

    Attributes:
        lengths: T, steps from the first number to the answer.
    """

    lengths: tuple[int, ...] = (200,)


QUICK: dict[str, Any] = dict(lengths=(20,), hidden_size=16, updates=2000, every=200, seeds=1)
FULL = dict(lengths=(50, 100, 200, 400), **memory.FULL)


def run(config: Config) -> dict:
    """Trains, prints the table and the verdicts, writes JSON and figure."""
    config = common.sized(config, QUICK, FULL)
    config.check()
    if not config.lengths or min(config.lengths) < 2:
        raise common.UsageError(f"--lengths takes numbers of at least 2, got {config.lengths}")
    return claims.conduct(NAME, config, measure, _show, _draw)


def measure(config: Config) -> dict:
    """All networks at all lengths, and the verdicts."""
    tasks = {length: Adding(length) for length in sorted(set(config.lengths))}
    goal = f"a mean squared error below {config.goal:g}"
    return memory.measure(config, tasks, lambda length: 3 * length // 4, goal)


def _show(result: dict) -> None:
    config = result["config"]
    memory.print_rows(
        f"Adding problem, H = {config['hidden_size']}, at most {config['updates']:,} updates of "
        f"{config['batch']} sequences; mean squared error, 1/6 without memory",
        result["rows"],
    )


def _draw(result: dict) -> Figure:
    baselines = {row["length"]: Adding(row["length"]).baseline for row in result["rows"]}
    return memory.draw(result, "Adding problem", baselines, _marks, "the two marked numbers")


def _marks(xs: np.ndarray) -> list[int]:
    return np.flatnonzero(xs[:, 1] > 0).tolist()


if __name__ == "__main__":
    common.main(Config, run)
