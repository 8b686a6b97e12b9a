"""How long do the gates of LSTM and GRU keep what they have, and which average tells?

Claim
    A unit that keeps the part f_t of itself is a leaky integrator with τ = −Δt / mean_t ln f_t.
    The logarithm of the mean instead of the mean of logarithms overstates τ, since it overlooks
    the moments at which a gate forgets. Training on a task with a time constant of its own moves
    those of the slowest units towards it, and they tell how long the trained network remembers.
Source
    Tallec and Ollivier 2018 (1804.11188), read backwards.
What would refute it
    A direct path that keeps more than the mean of logarithms says; a logarithm of the mean that
    predicts it as well; slowest units no closer to the task's time constant after training, or a
    carry that outlives them.
Cost
    Under a minute on two cores, half a minute with --quick.

Inputs are white noise and the target is a leaky sum of their past. keep is f of an LSTM and 1 − z
of a GRU. A time constant is that of the direct path of one unit: what units hand to each other may
live longer or shorter, as the rate of the whole carry shows beside it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import jaxrnn
from experiments import _claims as claims
from experiments import _common as common
from jaxrnn import analysis, plot
from jaxrnn.analysis.timescales import time_constants
from jaxrnn.initializers import Chrono, ForgetBias, Initializer, Uniform

NAME = "gate_time_constants"


class Kind(NamedTuple):
    """A row: the cell, and how its biases begin."""

    make: Callable[[int, int], Any]
    bias: Initializer


KINDS = {
    "LSTM": Kind(jaxrnn.LSTM, Uniform()),
    "LSTM, forget bias 1": Kind(jaxrnn.LSTM, ForgetBias(1.0)),
    "LSTM, chrono 40": Kind(jaxrnn.LSTM, Chrono(40.0)),
    "GRU": Kind(jaxrnn.GRU, Uniform()),
    "GRU, keep bias 1": Kind(jaxrnn.GRU, ForgetBias(1.0)),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure.

    Attributes:
        time_constant: of the leaky sum that is asked for, in steps.
        hidden_size: H, units of every cell.
        length: T, steps of a sequence.
        batch: sequences in one update.
        windows: sequences that gates are averaged over, together with time.
        updates: of training.
        learning_rate: of Adam.
        seeds: how many networks of each kind.
        seed: the first of them.
        redraw: a result of an earlier run: prints its tables and draws its figure again.
        output: folder for gate_time_constants.json and .png.
        quick: the same, smaller: under half a minute.
    """

    time_constant: float = 20.0
    hidden_size: int = 32
    length: int = 150
    batch: int = 16
    windows: int = 8
    updates: int = 300
    learning_rate: float = 5e-3
    seeds: int = 5
    seed: int = 0
    redraw: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    output: Path = Path("results")
    quick: bool = False


QUICK = dict(hidden_size=16, length=60, windows=4, updates=60, seeds=3, batch=8)


# what is known exactly


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Given:
    """A unit that keeps as much of itself as its input says: a gate without a network."""

    def init(self, key: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
        """Nothing is learned."""
        return jnp.zeros(0, dtype)

    def initial_carry(self, params: jax.Array) -> jax.Array:
        """Zero."""
        return jnp.zeros(1, params.dtype)

    def step(self, params: jax.Array, carry: jax.Array, x: jax.Array) -> tuple[Any, Any]:
        """Keeps x of itself."""
        after = x * carry
        return after, after

    def keep(self, params: jax.Array, carry: jax.Array, x: jax.Array) -> jax.Array:
        """What is kept."""
        return x


def exact() -> list[dict]:
    """Gates given by hand, in steps or seconds: the time constants that follow, and measured."""
    cases = [
        ("f = 0.95, Δt = 0.02 s", np.full(100, 0.95), 0.02),
        ("f = 0.99 at 90 steps, 0.05 at 10", np.repeat([0.99, 0.05], [90, 10]), 1.0),
    ]
    rows = []
    for label, gate, dt in cases:
        with jax.enable_x64(True):
            cell = Given()
            found = time_constants(cell, jnp.zeros(0), jnp.asarray(gate)[:, None], dt=dt)
        rows.append(
            dict(
                label=label,
                expected=-dt / float(np.mean(np.log(gate))),
                measured=float(found.time_constant[0]),
                expected_of_mean=-dt / math.log(float(np.mean(gate))),
                measured_of_mean=float(found.time_constant_of_mean[0]),
            )
        )
    return rows


# networks


def draw(config: Config, key: jax.Array, rows: int) -> tuple[jax.Array, jax.Array]:
    """White noise, (B, T, 1), and its leaky sum at every step, of variance one in the long run."""
    xs = jax.random.normal(key, (rows, config.length, 1), jnp.float32)
    keep = math.exp(-1 / config.time_constant)
    gain = math.sqrt(1 - keep**2)

    def leak(total: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        total = keep * total + gain * x
        return total, total

    _, targets = jax.lax.scan(leak, jnp.zeros_like(xs[:, 0]), jnp.moveaxis(xs, 1, 0))
    return xs, jnp.moveaxis(targets, 0, 1)


def train(net: jaxrnn.Readout, config: Config, params: Any, key: jax.Array) -> Any:
    """Params after training by Adam on the mean squared error, clipped to norm 1."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate))

    def update(state: Any, key: jax.Array) -> tuple[Any, None]:
        params, memory = state
        gradient = jax.grad(functools.partial(loss, net))(params, *draw(config, key, config.batch))
        change, memory = optimizer.update(gradient, memory, params)
        return (optax.apply_updates(params, change), memory), None

    keys = jax.random.split(key, config.updates)
    (params, _), _ = jax.lax.scan(update, (params, optimizer.init(params)), keys)
    return params


def loss(net: jaxrnn.Readout, params: Any, xs: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean squared error at all steps."""
    return jnp.mean((jaxrnn.unroll(net, params, xs)[1] - targets) ** 2)


def look(net: jaxrnn.Readout, config: Config, params: Any, key: jax.Array) -> dict:
    """Both averages of each unit's gate, and what becomes of the whole carry."""
    xs, targets = draw(config, key, config.windows)
    found = time_constants(net.network, params.network, xs)
    decay = analysis.gradient_decay(net.network, params.network, xs[:2])
    mean_log, mean = (jnp.mean(a, axis=0) for a in (found.mean_log_keep, found.mean_keep))
    out = dict(
        tau=-1 / mean_log,
        tau_of_mean=-1 / jnp.log(mean),
        rate=jnp.mean(decay.rate),
        loss=loss(net, params, xs, targets),
    )
    if decay.curves is not None:
        # what is left in the best unit of what it had T steps ago, and what either average says
        out["direct_path"] = jnp.mean(decay.curves.direct_path[:, -1])
        averages = (found.mean_log_keep[:2], jnp.log(found.mean_keep[:2]))
        out["predicted"] = config.length * jnp.stack([jnp.mean(jnp.max(a, 1)) for a in averages])
    return out


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, 0, 0))
def _before_and_after(net: jaxrnn.Readout, config: Config, params: Any, seed: jax.Array) -> dict:
    k_train, k_test = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1))
    after = train(net, config, params, k_train)
    return dict(before=look(net, config, params, k_test), after=look(net, config, after, k_test))


def measure(kind: Kind, config: Config) -> dict:
    """Time constants of all units before and after training, for all seeds."""
    cell = kind.make(1, config.hidden_size)
    begins = dataclasses.replace(cell, bias_initializer=kind.bias)
    seeds = config.seed + jnp.arange(config.seeds)
    params = jax.vmap(lambda s: jaxrnn.Readout(begins, 1).init(jax.random.key(s)))(seeds)
    found = _before_and_after(jaxrnn.Readout(cell, 1), config, params, seeds)
    return jax.tree.map(np.asarray, found)


# verdicts


def verdicts(facts: list[dict], kinds: dict[str, dict], wanted: float) -> list[dict]:
    """All claims, each with the numbers that decide it."""
    found = [_exact(facts), _averages(kinds)]
    if any("direct_path" in of["after"] for of in kinds.values()):
        found.append(_direct_path(kinds))
    return [*found, _training(kinds, wanted), _carry(kinds, wanted)]


def _exact(facts: list[dict]) -> dict:
    off = max(
        abs(f[f"measured{which}"] / f[f"expected{which}"] - 1)
        for f in facts
        for which in ("", "_of_mean")
    )
    first, second = facts
    return claims.claim(
        "gates given by hand have the time constants of pencil and paper",
        off < 1e-9,
        f"{first['label']}: {first['measured']:.2f} s; {second['label']}: "
        f"{second['measured']:.1f} steps by the mean of logs, "
        f"{second['measured_of_mean']:.1f} by the log of the mean",
    )


def _averages(kinds: dict[str, dict]) -> dict:
    ratios = {
        (kind, when): np.asarray(of[when]["tau_of_mean"]) / np.asarray(of[when]["tau"])
        for kind, of in kinds.items()
        for when in ("before", "after")
    }
    least = min(float(np.min(r)) for r in ratios.values())
    (kind, when), most = max(
        ((k, float(np.median(r))) for k, r in ratios.items()), key=lambda pair: pair[1]
    )
    return claims.claim(
        "the log of the mean overstates every time constant",
        least >= 1 - 1e-4,
        f"Ratio at least {least:.3f}, in the median up to {most:.2f} ({kind}, {when} training), "
        f"at most {max(float(np.max(r)) for r in ratios.values()):.1f}",
    )


def _direct_path(kinds: dict[str, dict]) -> dict:
    right, wrong = [], []
    for kind, of in kinds.items():
        if "direct_path" in of["after"]:
            path, (logs, mean) = of["after"]["direct_path"], of["after"]["predicted"].T
            right.append((float(np.max(np.abs(logs - path))), kind))
            wrong.append((float(np.mean(mean - path)), kind))
    off, over = max(right), max(wrong)
    return claims.claim(
        "what the slowest unit of a trained LSTM keeps over T steps follows from the mean of logs, "
        "not from the log of the mean",
        off[0] < 1e-2 < over[0],
        f"Off by at most {off[0]:.1e} nats; the log of the mean by up to {over[0]:+.2f}, {over[1]}",
    )


def slowest(values: Any) -> np.ndarray:
    """The largest time constant of each network."""
    return np.max(np.asarray(values, float), axis=-1)


def _training(kinds: dict[str, dict], wanted: float) -> dict:
    closer, words = [], []
    for kind, of in kinds.items():
        before, after = (np.log(slowest(of[when]["tau"]) / wanted) for when in ("before", "after"))
        # by more than the spread over seeds
        closer.append(claims.above(np.abs(before) - np.abs(after)))
        medians = (float(np.median(slowest(of[when]["tau"]))) for when in ("before", "after"))
        words.append(f"{kind} " + " → ".join(f"{m:.1f}" for m in medians))
    return claims.claim(
        f"training moves every network's slowest unit towards the {wanted:g} steps of the task",
        all(closer),
        f"{sum(closer)} of {len(closer)} kinds; medians: {', '.join(words)}",
    )


def _carry(kinds: dict[str, dict], wanted: float) -> dict:
    # of the carry as a whole: −1/rate, without end if it does not fall
    lives, gates = [], []
    for of in kinds.values():
        rate = float(np.mean(of["after"]["rate"]))
        lives.append(-1 / rate if rate < 0 else np.inf)
        gates.append(float(np.median(slowest(of["after"]["tau"]))))
    ratios = np.array(lives) / np.array(gates)
    far = np.abs(np.log(ratios)) > np.log(2)
    listed = ", ".join(
        f"{kind} {gate:.1f} against {life:.1f}"
        for kind, gate, life in zip(kinds, gates, lives, strict=True)
    )
    return claims.claim(
        "after training the slowest gate tells how long the carry lives, within a factor of 2",
        not far.any(),
        f"{far.sum()} of {len(far)} kinds are further off: {listed} steps",
    )


# the run


def run(config: Config) -> dict:
    """Measures, prints the tables and the verdicts, writes JSON and figure."""
    config = common.sized(config, QUICK)
    claims.at_least(config, hidden_size=1, length=20, batch=1, windows=2, updates=1, seeds=1)
    claims.at_least(config, time_constant=0.1)
    return claims.conduct(NAME, config, measure_all, _show, _draw)


def measure_all(config: Config) -> dict:
    """All kinds, and the verdicts."""
    facts, kinds = exact(), {}
    with common.progress(len(KINDS)) as advance:
        for name, kind in KINDS.items():
            advance(0, name)
            kinds[name] = measure(kind, config)
            advance(1, name)
    return dict(exact=facts, kinds=kinds, verdicts=verdicts(facts, kinds, config.time_constant))


def _show(result: dict) -> None:
    rows = [
        [f["label"], *(f"{f[k]:.4g}" for k in ("measured", "expected"))]
        + [f"{f[k]:.4g}" for k in ("measured_of_mean", "expected_of_mean")]
        for f in result["exact"]
    ]
    heads = ("", "mean of logs", "exact", "log of mean", "exact")
    common.print_table("Time constants of gates given by hand, in s and in steps", heads, rows)
    rows = []
    for kind, found in result["kinds"].items():
        for when in ("before", "after"):
            of = found[when]
            tau, mean = np.array(of["tau"]), np.array(of["tau_of_mean"])
            rows.append(
                [
                    f"{kind}, {when}" if when == "before" else "    after",
                    *(f"{np.quantile(tau, q):.2f}" for q in (0.05, 0.5, 0.95)),
                    _steps(slowest(tau)),
                    _steps(slowest(mean)),
                    f"{-1 / np.mean(of['rate']):.1f}" if np.mean(of["rate"]) < 0 else "∞",
                    claims.spread(of["loss"]).lstrip("+"),
                ]
            )
    config = result["config"]
    heads = ("τ, mean of logs, in steps", "5 %", "median", "95 %", "slowest unit")
    heads += ("by log of mean", "−1/rate of carry", "loss")
    common.print_table(
        f"All units of {config['seeds']} networks, H = {config['hidden_size']}, before and after "
        f"{config['updates']} updates; the task has τ = {config['time_constant']:g}",
        heads,
        rows,
    )


def _steps(values: np.ndarray) -> str:
    return f"{np.mean(values):.1f} ± {claims.deviation(values):.1f}"


def _draw(result: dict) -> Figure:
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    axes = figure.subplots()
    for number, found in enumerate(result["kinds"].values()):
        for when, shift, alpha in (("before", 0.2, 0.3), ("after", -0.2, 0.9)):
            of, colour = found[when], plot.COLOURS[number]
            tau = np.sort(np.array(of["tau"]).ravel())
            # units one above the other, the slowest at the top of its row
            height = number + shift + np.linspace(0.12, -0.12, len(tau))
            axes.plot(tau, height, ".", color=colour, alpha=alpha, markersize=5)
            falls = np.array([rate for rate in of["rate"] if rate < 0])
            row = np.full(len(falls), number + shift)
            axes.plot(-1 / falls, row, marker="D", alpha=alpha + 0.1, **MARK)
    axes.axvline(result["config"]["time_constant"], color="#555555", linewidth=1)
    axes.set_yticks(range(len(result["kinds"])), list(result["kinds"]))
    axes.invert_yaxis()
    # room for the legend
    axes.set(xscale="log", xlabel="steps", xlim=(None, 250))
    handles = [
        Line2D([], [], marker=".", color="#555555", linestyle="", label="τ of the gate of a unit"),
        Line2D([], [], marker="D", label="−1/rate of the carry of a network", **MARK),
        Line2D([], [], color="#555555", linewidth=1, label="τ of the task"),
    ]
    axes.legend(handles=handles, frameon=False, loc="lower right")
    axes.set_title("How long gates keep, and how long carries live (faint: untrained)", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


MARK: dict[str, Any] = dict(color="black", markerfacecolor="none", linestyle="")


if __name__ == "__main__":
    common.main(Config, run)
