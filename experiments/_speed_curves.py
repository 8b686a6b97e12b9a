"""How time per step changes with the length of a sequence and with the batch: LSTM, forward."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments._speed_cases import Case
from experiments._speed_clock import Runner, in_rounds, warm_up
from experiments._speed_grid import OURS, ours
from experiments._speed_peers import PEERS

Advance = Callable[[float, str], Any]


def measure(
    axis: str,
    cases: Sequence[Case],
    peers: Sequence[str],
    rounds: int,
    seed: int,
    advance: Advance,
) -> dict:
    """Seconds per step of ours, PyTorch and the best JAX library, in every round.

    axis: the field of the cases that changes, "steps" or "batch". Best is the library that is
    fastest in the middle of the curve, a few calls each. `advance` goes up by one for each case.
    """
    rng = np.random.default_rng(seed)
    chosen = [name for name in peers if PEERS[name].kind != "jax"]
    best = _best_jax(cases[len(cases) // 2], peers, seed)
    chosen += [best] if best else []
    seconds: dict[str, list[list[float]]] = {}
    for case in cases:
        advance(0, f"{axis} = {getattr(case, axis)}: compiling")
        runners = [r for name in [OURS, *chosen] if (r := _runner(name, case, seed))]
        alone = [warm_up(runner.call) for runner in runners]
        calls = [runner.call for runner in runners]
        after_round = functools.partial(advance, 1 / rounds, f"{axis} = {getattr(case, axis)}")
        taken = in_rounds(calls, alone, rounds, rng, after_round)
        for runner, times in zip(runners, taken, strict=True):
            seconds.setdefault(runner.name, []).append([t / case.steps for t in times])
    about = {**cases[0]._asdict(), axis: [getattr(case, axis) for case in cases]}
    return {"axis": axis, **about, "seconds": seconds}


def _runner(name: str, case: Case, seed: int) -> Runner | None:
    xs = case.inputs(seed)
    if name == OURS:
        return ours(case, xs).runner(OURS, "ours", "forward")
    model = PEERS[name].build(case, xs)
    return model and model.runner(PEERS[name].title, PEERS[name].kind, "forward")


def _best_jax(case: Case, peers: Sequence[str], seed: int) -> str | None:
    found = {n: _runner(n, case, seed) for n in peers if PEERS[n].kind == "jax"}
    alone = {name: warm_up(runner.call) for name, runner in found.items() if runner}
    return min(alone, key=alone.__getitem__, default=None)
