"""What does looking into a network cost, next to the matrix products and QRs that it consists of?

Claims
    1. `gradient_decay` follows ∂carry_T/∂carry_(T−lag) over all lags of an LSTM within 1.5 times
       the time of the matrix products of T Jacobians and of T − 1 links of their chain.
    2. `lyapunov_spectrum` of an LSTM, for all N = 2H exponents and for 16, takes at most 1.5 times
       the time of its matrix products and QRs.
    3. `monitor` makes a hundred training updates at most 5 per cent slower.
Source
    An LSTM's Jacobian is N vector-Jacobian products through the (4H, H) recurrent map, a link of
    the chain one (N, N) by (N, N) product: both are 16 H³ operations. With a basis of K columns a
    step is K Jacobian-vector products, 8 H² K operations, and a QR of (N, K), about 4 N K².
What would refute it
    A ratio above the limit, minimum of interleaved rounds, measured in the same run.
Cost
    About a minute on two cores; `--quick` some seconds.

A floor is what cannot be avoided and nothing else: the same products with the same shapes, and the
QR that the library itself uses. Stated beside it, not promised: LAPACK's QR of the same matrices,
which called from within XLA's threads is the faster one on an idle machine and far slower on a
busy one; spectral norms, "exact" by squaring N × N matrices until two bounds meet, "iterative" from
the directions of the lag before; all singular values, by rotations, in a smaller network.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxrnn
from experiments import _claims as claims
from experiments import _common as common
from experiments._common import UsageError
from jaxrnn import analysis
from jaxrnn.analysis.householder import qr

NAME = "analysis_cost"
UPDATES = 100  # of training, to which a monitor adds one measurement
BATCH = 32
CLIP = 5.0


@dataclasses.dataclass(frozen=True)
class Config:
    """What to time.

    Attributes:
        hidden_size: H, units of the LSTM; N = 2H.
        few: K, exponents of the case with few.
        length: T, an even number of steps.
        rounds: how often everything is timed, in turn.
        limit: the ratio to the floor that is claimed.
        share: by how much a monitor may slow training down.
        seed: of params and inputs.
        output: folder for analysis_cost.json.
        quick: smaller networks and fewer rounds, to see that it runs.
    """

    hidden_size: int = 128
    few: int = 16
    length: int = 100
    rounds: int = 5
    limit: float = 1.5
    share: float = 0.05
    seed: int = 0
    output: Path = Path("results")
    quick: bool = False


QUICK = dict(hidden_size=16, few=4, length=20, rounds=2)


class Part(NamedTuple):
    """What is timed side by side: a floor, what is claimed of one call, and what is stated."""

    title: str
    calls: dict[str, Callable[[], Any]]
    floor: str
    ours: str
    limit: float | None
    times: int = 1  # the rounds of the others: a small difference takes more of them to be seen


def parts(config: Config) -> list[Part]:
    """All that is timed; each call of a part runs on the same network and inputs."""
    size = 2 * config.hidden_size
    return [
        _jacobians(config),
        *(_exponents(config, count) for count in (size, config.few)),
        _singular_values(config),
        _monitor(config),
    ]


def _network(config: Config, H: int) -> tuple[Any, Any, jax.Array]:
    cell = jaxrnn.LSTM(H, H)
    xs = jax.random.normal(jax.random.key(config.seed + 1), (config.length, H))
    return cell, cell.init(jax.random.key(config.seed)), xs


def _jacobians(config: Config) -> Part:
    H, T = config.hidden_size, config.length
    cell, params, xs = _network(config, H)
    alone = jax.jit(_products, static_argnums=3)
    P, J = jax.random.normal(jax.random.key(2), (2, 2 * H, 2 * H)) / (2 * H) ** 0.5
    formed = jax.jit(lambda: _chain(analysis.step_jacobians(cell, params, xs)))

    def decay(spectral: str) -> Callable[[], Any]:
        return lambda: analysis.gradient_decay(cell, params, xs, spectral=spectral)

    calls = {
        "products": lambda: alone(P, J, params.W_h.reshape(4 * H, H), T),
        "gradient_decay, Frobenius norms": decay("none"),
        "the same, every Jacobian formed": formed,
        "… with iterative spectral norms": decay("iterative"),
        "… with exact spectral norms": decay("exact"),
    }
    title = f"Jacobians and their chain, N = {2 * H}"
    return Part(title, calls, "products", "gradient_decay, Frobenius norms", config.limit)


def _products(P: jax.Array, J: jax.Array, W_h: jax.Array, steps: int) -> tuple[Any, Any]:
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


def _exponents(config: Config, count: int) -> Part:
    H, T = config.hidden_size, config.length
    cell, params, xs = _network(config, H)
    alone = jax.jit(_products_and_factors, static_argnums=(2, 3))
    W_h, columns = (
        params.W_h.reshape(4 * H, H),
        jax.random.normal(jax.random.key(2), (2 * H, count)),
    )

    def spectrum(interval: int) -> Callable[[], Any]:
        options: Any = dict(exponents=count, interval=interval)
        return lambda: analysis.lyapunov_spectrum(cell, params, xs, **options)

    calls = {
        "products and QRs": lambda: alone(W_h, columns, qr, T),
        "products and LAPACK's QRs": lambda: alone(W_h, columns, _lapack, T),
        "lyapunov_spectrum": spectrum(1),
        "… with a QR once in ten steps": spectrum(10),
    }
    title = f"{count} exponents, N = {2 * H}"
    return Part(title, calls, "products and QRs", "lyapunov_spectrum", config.limit)


def _lapack(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    q, r = jnp.linalg.qr(a)
    return q, r


def _products_and_factors(W_h: jax.Array, columns: jax.Array, factors: Callable, steps: int) -> Any:
    # W_h takes the columns of h to four gates, of which two make the next columns; a scale keeps
    # them from vanishing, and the logarithms are what is wanted
    H = W_h.shape[1]

    def body(basis, _):
        gates = W_h @ basis[:H]
        basis, r = factors(gates[: 2 * H] + gates[2 * H :] + basis)
        return basis, jnp.log(jnp.abs(jnp.diagonal(r)))

    with jax.default_matmul_precision("highest"):
        return jax.lax.scan(body, columns, None, length=steps)


def _singular_values(config: Config) -> Part:
    H = max(config.hidden_size // 4, 1)
    cell, params, xs = _network(config, H)

    def decay(count: int) -> Callable[[], Any]:
        options: Any = dict(spectral="none", singular_values=count)
        return lambda: analysis.gradient_decay(cell, params, xs, **options)

    calls = {"Frobenius norms": decay(0), "all singular values": decay(2 * H)}
    title = f"singular values over lag, N = {2 * H}"
    return Part(title, calls, "Frobenius norms", "all singular values", None)


def _monitor(config: Config) -> Part:
    H, T = max(config.hidden_size // 4, 1), config.length
    cell, params, _ = _network(config, H)
    xs = jax.random.normal(jax.random.key(config.seed + 2), (BATCH, T, H))
    clipped = (optax.clip_by_global_norm(CLIP), optax.adam(1e-3))
    plain = optax.with_extra_args_support(optax.chain(*clipped))
    watched = optax.chain(analysis.monitor(cell, every=UPDATES, clip=CLIP), *clipped)
    calls = {
        "training": lambda: _train(cell, plain, params, xs),
        "training with a monitor": lambda: _train(cell, watched, params, xs),
    }
    title = f"{UPDATES} updates on {BATCH} sequences, one measurement, N = {2 * H}"
    return Part(title, calls, "training", "training with a monitor", 1 + config.share, times=6)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _train(cell: Any, optimizer: Any, params: Any, xs: jax.Array) -> Any:
    def loss(params):
        return jnp.mean(jaxrnn.unroll(cell, params, xs)[1] ** 2)

    def update(state, _):
        params, inner = state
        change, inner = optimizer.update(jax.grad(loss)(params), inner, params, xs=xs)
        return (optax.apply_updates(params, change), inner), None

    return jax.lax.scan(update, (params, optimizer.init(params)), None, length=UPDATES)[0]


def time_in_turn(
    calls: dict[str, Callable[[], Any]], rounds: int, advance: Callable[[float, str], None]
) -> np.ndarray:
    """Seconds of every call in every round, `(rounds, calls)`, after one call each to compile."""
    seconds = np.zeros((rounds + 1, len(calls)))
    for turn in range(rounds + 1):
        for i, (name, call) in enumerate(calls.items()):
            advance(0, name)
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds[turn, i] = time.perf_counter() - start
            advance(1, name)
    return seconds[1:]


def run(config: Config) -> dict:
    """Times everything, prints tables and verdicts, writes the JSON."""
    claims.at_least(config, hidden_size=1, few=1, length=2, rounds=1)
    if config.length % 2:
        raise UsageError(f"--length must be even, got {config.length}")
    config = common.sized(config, QUICK)
    if config.few >= 2 * config.hidden_size:
        raise UsageError(
            f"--few must be less than N = 2 hidden-size = {2 * config.hidden_size}, "
            f"got {config.few}"
        )
    folder = common.results_folder(config.output)
    timed = parts(config)
    seconds = {}
    total = sum((config.rounds * part.times + 1) * len(part.calls) for part in timed)
    with common.progress(total) as advance:
        for part in timed:
            columns = time_in_turn(part.calls, config.rounds * part.times, advance).T
            seconds[part.title] = dict(zip(part.calls, columns, strict=True))
    verdicts = []
    for part in timed:
        verdicts += _show(part, seconds[part.title], config)
    for verdict in verdicts:
        print(claims.sentence(verdict))
    about = dict(config=dataclasses.asdict(config), machine=common.machine())
    result = dict(experiment=NAME, **about, seconds=seconds, verdicts=verdicts)
    common.write_json(folder / f"{NAME}.json", result)
    return result


def _show(part: Part, seconds: dict[str, np.ndarray], config: Config) -> list[dict]:
    """Prints the table of a part; its verdict, if it claims anything."""
    floor = seconds[part.floor]
    rows = [
        [name, f"{1e3 * t.min():.1f}", f"{1e3 * np.median(t):.1f}", f"{t.min() / floor.min():.2f}"]
        for name, t in seconds.items()
    ]
    title = f"LSTM, T = {config.length}, float32: {part.title}; least of {len(floor)} rounds"
    common.print_table(title, ("", "ms", "median", f"ratio to {part.floor}"), rows)
    if part.limit is None:
        return []
    ratio = seconds[part.ours].min() / floor.min()
    text = f"{part.title}: {part.ours} takes at most {part.limit:g} times {part.floor}"
    return [claims.claim(text, ratio <= part.limit, f"Measured {ratio:.2f}")]


if __name__ == "__main__":
    common.main(Config, run)
