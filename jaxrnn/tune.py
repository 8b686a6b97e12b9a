"""`tune`: which method is fastest for a cell, on the machine at hand."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import PyTree

from jaxrnn import cell as contract
from jaxrnn.methods import Method, Scan, Staged
from jaxrnn.unroll import unroll

CANDIDATES: tuple[Method, ...] = (
    Staged(),
    Staged(ahead=True),
    Staged(unroll=2),
    Staged(block=16),
    Staged(ahead=True, block=16),
    Scan(),
    Scan(unroll=4),
)
LEAN: tuple[Method, ...] = (Staged(checkpoint=True), Staged(checkpoint=16), Scan(checkpoint=True))


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What `tune` measured.

    method: the fastest of those that kept within the memory asked for; pass it to `unroll`.
    milliseconds: for each method the least time of one call.
    megabytes: for each method what XLA sets aside for the call, in 10⁶ bytes.
    """

    method: Method
    milliseconds: Mapping[Method, float]
    megabytes: Mapping[Method, float]

    def __str__(self) -> str:
        rows = sorted(self.milliseconds, key=self.milliseconds.__getitem__)
        lines = [
            f"{self.milliseconds[m]:9.3f} ms {self.megabytes[m]:9.2f} MB  {m}"
            + ("  ← fastest that fits" if m == self.method else "")
            for m in rows
        ]
        return "\n".join(lines)


def tune(
    cell: Any,
    shape: tuple[int, ...],
    *,
    xs: PyTree | None = None,
    gradient: bool = True,
    megabytes: float | None = None,
    methods: tuple[Method, ...] | None = None,
    rounds: int = 10,
    dtype: DTypeLike = jnp.float32,
    report: Callable[[str], None] | None = print,
) -> Tuning:
    """Measures methods on this machine and returns the fastest.

    Args:
        cell: a cell or network that has `init`.
        shape: `(*batch, T)`, as in `xs` of the real thing.
        xs: inputs to measure with; standard normal numbers by default.
        gradient: whether the gradient with respect to params is part of what is measured.
        megabytes: the most memory that a call may set aside, in 10⁶ bytes; None for any amount.
        methods: the candidates; by default `Staged` and `Scan` with several options, and with
            checkpoints where memory is limited.
        rounds: how often each candidate is called, in turns; the least time counts.
        dtype: of params and xs.
        report: is told what is going on, a line at a time; None for silence.

    Raises:
        ValueError: no candidate keeps within `megabytes`; the message says what the leanest takes.
    """
    if rounds < 1:
        raise ValueError(f"tune: rounds must be at least 1, got {rounds}")
    methods = methods or (CANDIDATES if megabytes is None else CANDIDATES + LEAN)
    say = report or (lambda line: None)
    params = cell.init(jax.random.key(0), dtype=dtype)
    if xs is None:
        xs = jax.random.normal(
            jax.random.key(1), (*shape, contract.size(cell, "input_size")), dtype
        )
    calls, sizes = {}, {}
    for method in methods:
        say(f"compiling {method}")
        calls[method] = jax.jit(_work(cell, method, gradient)).lower(params, xs).compile()
        sizes[method] = calls[method].memory_analysis().temp_size_in_bytes / 1e6
    fitting = [m for m in methods if megabytes is None or sizes[m] <= megabytes]
    if not fitting:
        raise ValueError(
            f"tune: no method keeps within {megabytes} MB; the leanest, "
            f"{min(sizes, key=sizes.__getitem__)}, takes {min(sizes.values()):.1f} MB"
        )
    say(f"measuring {len(methods)} methods in {rounds} rounds")
    times = _least_times(calls, (params, xs), rounds)
    tuning = Tuning(min(fitting, key=times.__getitem__), times, sizes)
    say(str(tuning))
    return tuning


def _work(cell: Any, method: Method, gradient: bool) -> Callable[[PyTree, PyTree], Any]:
    def run(params: PyTree, xs: PyTree) -> Any:
        return unroll(cell, params, xs, method=method)

    def loss(params: PyTree, xs: PyTree) -> Any:
        ys = jax.tree.leaves(run(params, xs)[1])
        return sum(jnp.mean(y**2) for y in ys if jnp.issubdtype(y.dtype, jnp.floating))

    return jax.value_and_grad(loss) if gradient else run


def _least_times(
    calls: Mapping[Method, Callable], arguments: tuple, rounds: int
) -> dict[Method, float]:
    # in turns, so that whatever else the machine does befalls all of them alike
    times = {method: float("inf") for method in calls}
    for call in calls.values():
        jax.block_until_ready(call(*arguments))
    for _ in range(rounds):
        for method, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call(*arguments))
            times[method] = min(times[method], 1e3 * (time.perf_counter() - start))
    return times
