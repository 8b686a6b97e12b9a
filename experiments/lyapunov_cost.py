"""What do Lyapunov spectra cost, next to the matrix products and QRs that they consist of?

Claim
    `lyapunov_spectrum` of an LSTM, for all N = 2H exponents and for 16, takes at most 1.5 times
    the time of its own matrix products and QRs.
Source
    With a basis of K columns a step is K Jacobian-vector products through the (4H, H) recurrent
    map, 8 H² K operations, and a QR of (N, K), about 4 N K² operations.
What would refute it
    A ratio above 1.5 for either K, minimum of interleaved rounds, measured in the same run.
Cost
    A few minutes on two cores; `--quick` some seconds.

The floor is what cannot be avoided and nothing else: the same products with the same shapes, and
the QR that the library itself uses. LAPACK's QR of the same matrices is stated beside it: called
from within XLA's threads it is the faster one on an idle machine and far slower on a busy one. A
QR once in ten steps is stated, too, not promised.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from experiments import _common as common
from experiments._common import UsageError
from experiments.jacobian_cost import time_in_turn
from jaxrnn.analysis.householder import qr
from jaxrnn.analysis.lyapunov import lyapunov_spectrum

NAME = "lyapunov_cost"


@dataclasses.dataclass(frozen=True)
class Config:
    """What to time.

    Attributes:
        hidden_size: H, units of the LSTM; N = 2H.
        few: K, exponents of the case with few.
        length: T, steps.
        rounds: how often everything is timed, in turn.
        limit: the ratio to the floor that is claimed.
        seed: of params and inputs.
        output: folder for lyapunov_cost.json.
        quick: a smaller network and fewer rounds, to see that it runs.
    """

    hidden_size: int = 128
    few: int = 16
    length: int = 100
    rounds: int = 5
    limit: float = 1.5
    seed: int = 0
    output: Path = Path("results")
    quick: bool = False


QUICK = dict(hidden_size=16, few=4, length=50, rounds=2)


def contestants(config: Config) -> dict[str, Callable[[], Any]]:
    """What is timed, by name: each call runs on the same LSTM and the same inputs."""
    H, T = config.hidden_size, config.length
    cell = jaxrnn.LSTM(H, H)
    params = cell.init(jax.random.key(config.seed))
    xs = jax.random.normal(jax.random.key(config.seed + 1), (T, H))
    W_h = params.W_h.reshape(4 * H, H)
    floor = jax.jit(_products_and_factors, static_argnums=(2, 3))
    calls: dict[str, Callable[[], Any]] = {}
    for count in (2 * H, config.few):
        draw = jax.random.normal(jax.random.key(2), (2 * H, count))

        def ours(interval: int, count: int = count) -> Any:
            found = lyapunov_spectrum(cell, params, xs, exponents=count, interval=interval)
            return found.exponents

        def alone(factors: Any, draw: jax.Array = draw) -> Any:
            return floor(W_h, draw, factors, T)

        calls[_floor(count)] = lambda alone=alone: alone(qr)
        calls[f"K = {count}: products and LAPACK's QRs"] = lambda alone=alone: alone(_lapack)
        calls[_ours(count)] = lambda ours=ours: ours(1)
        calls[f"K = {count}: … with a QR once in ten steps"] = lambda ours=ours: ours(10)
    return calls


def _floor(count: int) -> str:
    return f"K = {count}: products and QRs"


def _ours(count: int) -> str:
    return f"K = {count}: lyapunov_spectrum"


def _lapack(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    q, r = jnp.linalg.qr(a)
    return q, r


def _products_and_factors(
    W_h: jax.Array, columns: jax.Array, factors: Callable, steps: int
) -> tuple[jax.Array, jax.Array]:
    # W_h takes the columns of h to four gates, of which two make the next columns; a scale keeps
    # them from vanishing, and the logarithms are what is wanted
    H = W_h.shape[1]

    def body(basis, _):
        gates = W_h @ basis[:H]
        basis, r = factors(gates[: 2 * H] + gates[2 * H :] + basis)
        return basis, jnp.log(jnp.abs(jnp.diagonal(r)))

    with jax.default_matmul_precision("highest"):
        return jax.lax.scan(body, columns, None, length=steps)


def run(config: Config) -> dict:
    """Times everything, prints the table and the verdict, writes the JSON."""
    if min(config.hidden_size, config.few, config.length, config.rounds) < 1:
        raise UsageError("hidden-size, few, length and rounds must be at least 1")
    config = common.sized(config, QUICK)
    size = 2 * config.hidden_size
    if config.few >= size:
        raise UsageError(f"few must be less than N = 2 hidden-size = {size}, got {config.few}")
    folder = common.results_folder(config.output)
    seconds = time_in_turn(contestants(config), config.rounds)
    least = {name: min(times) for name, times in seconds.items()}
    rows = []
    for name, t in least.items():
        count = int(name.split()[2].rstrip(":"))
        median = np.median(seconds[name])
        per_step = 1e6 / config.length
        ratio = t / least[_floor(count)]
        rows.append([name, f"{per_step * t:.0f}", f"{per_step * median:.0f}", f"{ratio:.2f}"])
    common.print_table(
        f"LSTM, N = {size}, T = {config.length}, float32: least of {config.rounds} rounds",
        ("", "µs a step", "median", "ratio to products and QRs"),
        rows,
    )
    verdict = verdict_on(config, least)
    print(
        f"{'Holds' if verdict['holds'] else 'Does not hold'}: {verdict['claim']}; {verdict['text']}"
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


def verdict_on(config: Config, least: dict[str, float]) -> dict:
    """Whether the spectrum is within the limit of its floor, for all exponents and for few."""
    ratios = {k: least[_ours(k)] / least[_floor(k)] for k in (2 * config.hidden_size, config.few)}
    return {
        "claim": f"spectra within {config.limit:g} times their matrix products and QRs",
        "ratios": ratios,
        "holds": bool(max(ratios.values()) <= config.limit),
        "text": ", ".join(f"{ratio:.2f} for K = {k}" for k, ratio in ratios.items()),
    }


if __name__ == "__main__":
    common.main(Config, run)
