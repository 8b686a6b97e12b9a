"""How `speed` takes time: everything is compiled and warm, then round by round each call once."""

import gc
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

SHORTEST = 5e-3  # seconds: a call that takes less is repeated within one measurement
# how long a call runs untimed before each measurement: until the threads of the one before have
# stopped spinning and its own have found their cores, PyTorch takes twice the time on two threads
SETTLE = 0.02
LONG = 0.1  # a call that takes longer settles on its way


class Runner(NamedTuple):
    """One contender at one point.

    kind: "ours", "variant" (another program of ours), "jax", "other" or "floor".
    call: runs it once, to the end.
    compile_seconds: tracing and compiling, for JAX programs.
    bytes: XLA's own figure for temporary buffers and outputs, for JAX programs.
    threads: how many PyTorch was given.
    """

    name: str
    kind: str
    call: Callable[[], Any]
    compile_seconds: float | None = None
    bytes: int | None = None
    threads: int | None = None


def compiled(name: str, kind: str, function: Callable, *arguments: Any) -> Runner:
    """A JAX function as a runner: compiled for these arguments, each call blocks."""
    start = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - start
    memory: Any = program.memory_analysis()
    size = memory and memory.temp_size_in_bytes + memory.output_size_in_bytes
    return Runner(
        name, kind, lambda: jax.block_until_ready(program(*arguments)), seconds, size or None
    )


def warm_up(call: Callable[[], Any], calls: int = 5, limit: float = 0.1) -> float:
    """Runs a call once to warm up; the least seconds of the next few, as long as `limit` lasts."""
    call()
    taken: list[float] = []
    while len(taken) < calls and sum(taken) < limit:
        taken.append(seconds_of(call, 1))
    return min(taken)


def seconds_of(call: Callable[[], Any], repeats: int) -> float:
    """Seconds of one call, taken over several in a row."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def settle(call: Callable[[], Any], alone: float) -> None:
    """Runs a call untimed for a while, unless it is a long one."""
    end = time.perf_counter() + (SETTLE if alone < LONG else 0)
    while time.perf_counter() < end:
        call()


def in_rounds(
    calls: Sequence[Callable[[], Any]],
    alone: Sequence[float],
    rounds: int,
    rng: np.random.Generator,
    after_round: Callable[[], Any],
) -> list[list[float]]:
    """Seconds of every call in every round; the order within a round is drawn anew each time.

    alone: about how long each call takes, which decides how it settles and how often it repeats.
    """
    repeats = [math.ceil(SHORTEST / max(seconds, 1e-7)) for seconds in alone]
    seconds: list[list[float]] = [[] for _ in calls]
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for i in rng.permutation(len(calls)):
                settle(calls[i], alone[i])
                seconds[i].append(seconds_of(calls[i], repeats[i]))
            after_round()
    finally:
        if was_enabled:
            gc.enable()
    return seconds
