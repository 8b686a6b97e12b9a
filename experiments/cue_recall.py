"""Which networks recall a cue over a hundred distractors?

Claim
    LSTM and GRU recall one of eight cues over 103 characters; Elman's network guesses.
Source
    Hochreiter and Schmidhuber 1997, experiment 2. The distance is that of a novel, Journey to the
    West: 弼马温 is the post that Heaven gives to the Monkey King, and who no longer knows it cannot
    understand the mockery, 嘲讽, 103 characters later.
What would refute it
    A seed of LSTM or GRU that still loses more than 0.1 nats when the updates are used up; a
    network of Elman's that falls below nine tenths of ln 8 nats, the loss of a guess.
Cost
    Three minutes on two cores, half a minute with --quick, hours with --full.

A cue, then distractors, each drawn alone, then the question; all are one-hot. Every batch is drawn
anew. The gradient is ‖∂carry_T/∂carry_(T−k)‖_F/√N, what a random direction keeps of it, at the lag
from the question to the cue.
"""

import dataclasses
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import _claims as claims
from experiments import _common as common
from experiments import _memory_task as memory
from jaxrnn.tasks import DelayedRecall

NAME = "cue_recall"
MONKEY_KING = 103  # characters from 弼马温 to 嘲讽


@dataclasses.dataclass(frozen=True)
class Config(memory.Training):
    """What to train.

    Attributes:
        lags: steps from the cue to the question.
        cues: how many there are.
        distractors: how many kinds.
        goal: the held-out loss, in nats, at which the task counts as solved.
    """

    cells: tuple[str, ...] = ("Elman", "LSTM", "GRU", "LSTM, chrono", "GRU, chrono")
    lags: tuple[int, ...] = (20, MONKEY_KING)
    cues: int = 8
    distractors: int = 8
    goal: float = 0.1


QUICK: dict[str, Any] = dict(
    cells=("Elman", "LSTM", "GRU"), lags=(5, 10), hidden_size=16, updates=1500, every=100, seeds=1
)
FULL = dict(lags=(20, 50, MONKEY_KING, 200), **memory.FULL)


def run(config: Config) -> dict:
    """Trains, prints the table and the verdicts, writes JSON and figure."""
    config = common.sized(config, QUICK, FULL)
    config.check()
    claims.at_least(config, cues=2, distractors=1)
    if not config.lags or min(config.lags) < 1:
        raise common.UsageError(f"--lags takes numbers of at least 1, got {config.lags}")
    return claims.conduct(NAME, config, measure, _show, _draw)


def measure(config: Config) -> dict:
    """All networks at all lags, and the verdicts."""
    made = [
        DelayedRecall(delay=lag - 1, cues=config.cues, distractors=config.distractors)
        for lag in sorted(set(config.lags))
    ]
    tasks = {task.length: task for task in made}
    goal = f"a loss below {config.goal:g} nats"
    return memory.measure(config, tasks, lambda length: length - 1, goal)


def _show(result: dict) -> None:
    config = result["config"]
    memory.print_rows(
        f"One of {config['cues']} cues, T − 1 steps ago; H = {config['hidden_size']}, at most "
        f"{config['updates']:,} updates of {config['batch']} sequences; loss in nats, "
        f"{np.log(config['cues']):.2f} for a guess",
        result["rows"],
    )


def _draw(result: dict) -> Figure:
    guess = float(np.log(result["config"]["cues"]))
    baselines = {row["length"]: guess for row in result["rows"]}
    return memory.draw(result, "Recall of a cue", baselines, _ends, "cue and question")


def _ends(xs: np.ndarray) -> list[int]:
    return [0, len(xs) - 1]


if __name__ == "__main__":
    common.main(Config, run)
