"""What do the Jacobians of a whole sequence cost, next to the matrix products they consist of?

Claim
    `gradient_decay` follows ∂carry_T/∂carry_(T−lag) over all lags of an LSTM within 3 times the
    time of the matrix products of T Jacobians and of T − 1 links of their chain.
Source
    An LSTM's Jacobian is N vector-Jacobian products through the (4H, H) recurrent map, N = 2H; a
    link of the chain is one (N, N) by (N, N) product. Both are 16 H³ operations here.
What would refute it
    A ratio above 3, minimum of interleaved rounds, measured in the same run.
Cost
    About a minute on two cores.

What spectral norms add is stated, not promised: "exact" squares N × N matrices until two bounds
meet, "iterative" starts from the directions of the lag before.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from experiments import _common as common
from experiments._common import UsageError

NAME = "jacobian_cost"
FLOOR = "matrix products of both"
CHAIN = "chain, Frobenius norms"


@dataclasses.dataclass(frozen=True)
class Config:
    """What to time.

    Attributes:
        hidden_size: H, units of the LSTM.
        length: T, an even number of steps.
        rounds: how often everything is timed, in turn.
        limit: the ratio to the floor that is claimed.
        seed: of params and inputs.
        output: folder for jacobian_cost.json.
        quick: a smaller network and fewer rounds, to see that it runs.
    """

    hidden_size: int = 128
    length: int = 200
    rounds: int = 5
    limit: float = 3.0
    seed: int = 0
    output: Path = Path("results")
    quick: bool = False


def contestants(config: Config) -> dict[str, Callable[[], Any]]:
    """What is timed, by name: each call runs on the same LSTM and the same inputs."""
    H, T = config.hidden_size, config.length
    cell = jaxrnn.LSTM(H, H)
    params = cell.init(jax.random.key(config.seed))
    xs = jax.random.normal(jax.random.key(config.seed + 1), (T, H))
    floor = jax.jit(_products_alone, static_argnums=3)

    def decay(spectral: str) -> Callable[[], Any]:
        return lambda: jaxrnn.analysis.gradient_decay(cell, params, xs, spectral=spectral)

    chain = jax.jit(lambda: _chain(jaxrnn.analysis.step_jacobians(cell, params, xs)))
    draws = jax.random.normal(jax.random.key(2), (2, 2 * H, 2 * H)) / (2 * H) ** 0.5
    return {
        FLOOR: lambda: floor(draws[0], draws[1], params.W_h.reshape(4 * H, H), T),
        CHAIN: decay("none"),
        "the same, every Jacobian formed": chain,
        "… with iterative spectral norms": decay("iterative"),
        "… with exact spectral norms": decay("exact"),
    }


def _products_alone(
    P: jax.Array, J: jax.Array, W_h: jax.Array, steps: int
) -> tuple[jax.Array, jax.Array]:
    # the products that cannot be avoided, and nothing else; rows go through W_h there and back,
    # two steps a turn, so that nothing has to be copied between them
    rows = jnp.tile(P[:, : W_h.shape[1]], 4)

    def body(state, _):
        P, rows = state
        return (P @ J @ J, (rows @ W_h) @ W_h.T), None

    with jax.default_matmul_precision("highest"):
        return jax.lax.scan(body, (P, rows), None, length=steps // 2)[0]


def _chain(jacobians: jax.Array) -> jax.Array:
    # the obvious way: all Jacobians in memory, multiplied up one by one
    def body(P, J):
        P = P @ J
        size = jnp.linalg.norm(P)
        return P / size, jnp.log(size)

    with jax.default_matmul_precision("highest"):
        start = jnp.eye(jacobians.shape[-1])
        return jnp.cumsum(jax.lax.scan(body, start, jacobians, reverse=True)[1][::-1])


def time_in_turn(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every call in every round, after one call each that compiles."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with common.progress(len(calls) * (rounds + 1)) as advance:
        for turn in range(rounds + 1):
            for name, call in calls.items():
                advance(0, name)
                start = time.perf_counter()
                jax.block_until_ready(call())
                if turn:
                    seconds[name].append(time.perf_counter() - start)
                advance(1, name)
    return seconds


def run(config: Config) -> dict:
    """Times everything, prints the table and the verdict, writes the JSON."""
    if min(config.hidden_size, config.length, config.rounds) < 1 or config.length % 2:
        raise UsageError("hidden-size, length and rounds must be at least 1, and length even")
    if config.quick:
        config = dataclasses.replace(config, hidden_size=32, length=50, rounds=2)
    folder = common.results_folder(config.output)
    seconds = time_in_turn(contestants(config), config.rounds)
    least = {name: min(times) for name, times in seconds.items()}
    H, T = config.hidden_size, config.length
    operations = 2 * 16 * H**3 * T
    rows = [
        [name, f"{1e3 * t:.1f}", f"{1e3 * np.median(seconds[name]):.1f}", f"{t / least[FLOOR]:.2f}"]
        for name, t in least.items()
    ]
    common.print_table(
        f"LSTM, H = {H}, N = {2 * H}, T = {T}, float32: least of {config.rounds} rounds",
        ("", "ms", "median", "ratio to the products"),
        rows,
    )
    ratio = least[CHAIN] / least[FLOOR]
    verdict = {
        "claim": f"Jacobians and chain within {config.limit:g} times their matrix products",
        "ratio": ratio,
        "holds": bool(ratio <= config.limit),
        "floor_gflops": operations / least[FLOOR] / 1e9,
    }
    print(
        f"{'Holds' if verdict['holds'] else 'Does not hold'}: {verdict['claim']}; measured "
        f"{ratio:.2f}. The products alone ran at {verdict['floor_gflops']:.0f} GFLOP/s."
    )
    result = {
        "experiment": NAME,
        "config": dataclasses.asdict(config),
        "machine": common.machine(),
        "seconds": seconds,
        "verdict": verdict,
    }
    common.write_json(folder / f"{NAME}.json", result)
    return result


if __name__ == "__main__":
    common.main(Config, run)
