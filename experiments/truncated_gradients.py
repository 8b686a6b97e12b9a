"""How wrong is the gradient of truncated backpropagation, and what does truncation save?

Claim
    The gradient that reaches back k2 steps differs from the full one by less and less as k2 grows;
    at equal k2 it is the more wrong the more slowly a cell's own gradients fade, so a trained LSTM
    with an open forget gate is hurt most and Elman's network least. What one update costs does not
    depend on T.
Source
    Williams and Peng 1990; Tallec and Ollivier 2017 (1705.08209) for the bias.
What would refute it
    An error that grows with k2 beyond its spread over seeds; an Elman network with a larger error
    than the LSTM with forget bias at the same reach after training; an update of a window that
    takes longer at the end of a long sequence than in a short one.
Cost
    Two minutes on two cores, under 30 seconds with --quick.

The task asks for memory: x is white noise and the target a leaky sum of its past with a time
constant. Errors are ‖g_k2 − g‖ / ‖g‖ over all params, at the same params and data.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxrnn
from experiments import _common as common
from experiments._common import UsageError
from jaxrnn.initializers import ForgetBias

NAME = "truncated_gradients"
KINDS = {
    "Elman": jaxrnn.Elman,
    "GRU": jaxrnn.GRU,
    "LSTM": jaxrnn.LSTM,
    "LSTM, forget bias 1": functools.partial(jaxrnn.LSTM, bias_initializer=ForgetBias(1.0)),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure.

    Attributes:
        hidden_size: H, units of every cell.
        length: T, steps of a sequence.
        batch: sequences.
        time_constant: of the leaky sum that is asked for, in steps.
        updates: of training before the second measurement.
        learning_rate: of Adam.
        seeds: how many networks of each kind.
        seed: the first of them.
        output: folder for truncated_gradients.json and .png.
        quick: the same, smaller: under 30 seconds.
    """

    hidden_size: int = 32
    length: int = 256
    batch: int = 16
    time_constant: float = 20.0
    updates: int = 200
    learning_rate: float = 5e-3
    seeds: int = 3
    seed: int = 0
    output: Path = Path("results")
    quick: bool = False


QUICK = dict(length=64, updates=30, seeds=2, hidden_size=16)


def network(kind: str, config: Config) -> jaxrnn.Readout:
    """A cell of the kind, and one number read out at every step."""
    return jaxrnn.Readout(KINDS[kind](1, config.hidden_size), 1)


def draw(config: Config, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """White noise, (B, T, 1), and its leaky sum at every step, of variance one in the long run."""
    xs = jax.random.normal(key, (config.batch, config.length, 1), jnp.float32)
    keep = float(np.exp(-1 / config.time_constant))
    gain = float(np.sqrt(1 - keep**2))

    def leak(total, x):
        total = keep * total + gain * x
        return total, total

    _, targets = jax.lax.scan(leak, jnp.zeros_like(xs[:, 0]), jnp.moveaxis(xs, 1, 0))
    return xs, jnp.moveaxis(targets, 0, 1)


def loss(net: Any, params: Any, xs: jax.Array, targets: jax.Array, reach: int | None) -> jax.Array:
    """Mean squared error; gradients go back `reach` steps from every step, or all the way."""
    if reach is None:
        _, ys = jaxrnn.unroll(net, params, xs)
    else:
        _, ys = jaxrnn.truncated(net, params, xs, window=reach)
    return jnp.mean((ys - targets) ** 2)


def train(net: Any, params: Any, config: Config, key: jax.Array) -> Any:
    """Params after so many updates with the full gradient, clipped to norm 1."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate))

    def update(state, key):
        params, memory = state
        gradient = jax.grad(lambda p: loss(net, p, *draw(config, key), None))(params)
        change, memory = optimizer.update(gradient, memory, params)
        return (optax.apply_updates(params, change), memory), None

    keys = jax.random.split(key, config.updates)
    (params, _), _ = jax.lax.scan(update, (params, optimizer.init(params)), keys)
    return params


def flat(tree: Any) -> jax.Array:
    """All numbers of a tree in one vector."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def compare(net: Any, params: Any, config: Config, key: jax.Array, reaches: list[int]) -> dict:
    """Relative error and cosine of the truncated gradient at every reach, and the loss."""
    xs, targets = draw(config, key)

    def gradient(reach: int | None) -> jax.Array:
        return flat(jax.grad(lambda p: loss(net, p, xs, targets, reach))(params))

    full = gradient(None)
    some = jnp.stack([gradient(reach) for reach in reaches])
    size = jnp.linalg.norm(full)
    return dict(
        error=jnp.linalg.norm(some - full, axis=1) / size,
        cosine=some @ full / (jnp.linalg.norm(some, axis=1) * size),
        loss=loss(net, params, xs, targets, None),
    )


def measure(kind: str, config: Config, reaches: list[int]) -> dict:
    """`compare` before and after training, for all seeds side by side."""
    net = network(kind, config)

    @jax.jit
    @jax.vmap
    def all_of_it(seed: jax.Array) -> dict:
        k_init, k_train, k_test = jax.random.split(jax.random.key(seed), 3)
        params = net.init(k_init)
        trained = train(net, params, config, k_train)
        return dict(
            initial=compare(net, params, config, k_test, reaches),
            trained=compare(net, trained, config, k_test, reaches),
        )

    return jax.tree.map(np.asarray, all_of_it(config.seed + jnp.arange(config.seeds)))


def costs(config: Config) -> list[dict]:
    """Seconds of one update with a window of 32 steps and with all T, for growing T."""
    net = network("LSTM", config)
    params = net.init(jax.random.key(0))
    rows = []
    for steps in (config.length, 4 * config.length, 16 * config.length):
        xs, targets = draw(dataclasses.replace(config, length=steps), jax.random.key(1))
        carry, _ = jaxrnn.unroll(net, params, xs[:, :-32])

        @jax.jit
        def window(params, carry, xs, targets):
            def value(params):
                after, ys = jaxrnn.unroll(net, params, xs, carry=carry)
                return jnp.mean((ys - targets) ** 2), after

            return jax.grad(value, has_aux=True)(params)

        whole = jax.jit(jax.grad(lambda p, xs, targets: loss(net, p, xs, targets, None)))
        rows.append(
            dict(
                steps=steps,
                window=_least(window, params, carry, xs[:, -32:], targets[:, -32:]),
                whole=_least(whole, params, xs, targets),
            )
        )
    return rows


def _least(function: Any, *arguments: Any) -> float:
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return min(times)


def verdicts(kinds: dict[str, dict], reaches: list[int], cost: list[dict]) -> list[dict]:
    """The three claims, each with the number that decides it."""
    rises = []
    for kind, found in kinds.items():
        for when in ("initial", "trained"):
            error = found[when]["error"]
            mean, spread = error.mean(axis=0), error.std(axis=0)
            worst = float(np.max(mean[1:] - mean[:-1] - spread[1:] - spread[:-1], initial=-1.0))
            rises.append((worst, f"{kind}, {when}"))
    rise, where = max(rises)
    at = reaches.index(min(reaches, key=lambda k: abs(k - 16)))
    elman, open_gate = (
        kinds[kind]["trained"]["error"][:, at] for kind in ("Elman", "LSTM, forget bias 1")
    )
    apart = float(open_gate.mean() - elman.mean())
    spread = float(open_gate.std() + elman.std())
    grows = cost[-1]["window"] / cost[0]["window"]
    return [
        dict(
            claim="the error falls as the reach grows, to the spread over seeds",
            holds=rise <= 0,
            measured=f"largest rise beyond it {max(rise, 0.0):.2g}, {where}",
        ),
        dict(
            claim=f"trained, at reach {reaches[at]}, Elman errs less than the LSTM with bias 1, by "
            "more than the spread over seeds",
            holds=apart > spread,
            measured=f"{elman.mean():.2f} against {open_gate.mean():.2f}, both ±{spread / 2:.2f}",
        ),
        dict(
            claim="an update of 32 steps costs the same at the end of any sequence, within 1.3",
            holds=grows < 1.3,
            measured=f"{grows:.2f} times, T = {cost[0]['steps']} to {cost[-1]['steps']}; "
            f"full gradient {cost[-1]['whole'] / cost[0]['whole']:.1f} times",
        ),
    ]


def run(config: Config) -> dict:
    """Measures, prints the tables and the verdicts, writes JSON and figure."""
    config = common.sized(config, QUICK)
    if (
        min(config.hidden_size, config.batch, config.updates, config.seeds) < 1
        or config.length < 33
    ):
        raise UsageError("all sizes must be at least 1, and length at least 33")
    folder = common.results_folder(config.output)
    reaches = [2**k for k in range(config.length.bit_length()) if 2**k < config.length]
    kinds: dict[str, dict] = {}
    with common.progress(len(KINDS) + 1) as advance:
        for kind in KINDS:
            advance(0, kind)
            kinds[kind] = measure(kind, config, reaches)
            advance(1, kind)
        advance(0, "costs")
        cost = costs(config)
    found = verdicts(kinds, reaches, cost)
    _print(config, kinds, reaches, cost, found)
    result = dict(
        experiment=NAME,
        config=dataclasses.asdict(config),
        machine=common.machine(),
        reaches=reaches,
        kinds=kinds,
        costs=cost,
        verdicts=found,
    )
    common.write_json(folder / f"{NAME}.json", result)
    _figure(common.read_json(folder / f"{NAME}.json", NAME), folder / f"{NAME}.png")
    print(f"Wrote {folder / NAME}.png and .json.")
    return result


def _print(
    config: Config, kinds: dict, reaches: list[int], cost: list[dict], found: list[dict]
) -> None:
    for when, name in (("initial", "at initialisation"), ("trained", "after training")):
        rows = []
        for kind, of in kinds.items():
            error = of[when]["error"]
            rows.append(
                [kind, f"{of[when]['loss'].mean():.3f}"]
                + [f"{m:.2f}±{s:.2f}" for m, s in zip(error.mean(0), error.std(0), strict=True)]
            )
        common.print_table(
            f"Relative error of the gradient over its reach in steps, {name}; "
            f"mean and spread of {config.seeds} seeds",
            ("", "loss", *map(str, reaches)),
            rows,
        )
    rows = [[str(c["steps"]), f"{1e3 * c['window']:.2f}", f"{1e3 * c['whole']:.1f}"] for c in cost]
    common.print_table("LSTM: ms of one gradient", ("T", "window of 32", "all of T"), rows)
    for v in found:
        print(f"{'Holds' if v['holds'] else 'Does not hold'}: {v['claim']}. {v['measured']}.")


def _figure(result: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    reaches = np.array(result["reaches"])
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 4.2), width_ratios=(2, 1), layout="constrained"
    )
    for number, (kind, of) in enumerate(result["kinds"].items()):
        for when, style in (("initial", ":"), ("trained", "-")):
            error = np.array(of[when]["error"])
            mean, spread = error.mean(axis=0), error.std(axis=0)
            label = kind if when == "trained" else None
            color = f"C{number}"
            left.plot(reaches, mean, style, color=color, marker="o", markersize=3, label=label)
            left.fill_between(
                reaches, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0
            )
    left.set(
        xlabel="reach of the gradient k₂, steps",
        ylabel="‖g − g_full‖ / ‖g_full‖",
        ylim=(0, None),
        title="What truncation leaves out (dotted: before training)",
    )
    left.set_xscale("log", base=2)
    left.legend(frameon=False)
    steps = [c["steps"] for c in result["costs"]]
    for name, text in (("whole", "all of T"), ("window", "a window of 32")):
        right.plot(steps, [1e3 * c[name] for c in result["costs"]], marker="o", label=text)
    right.set(yscale="log", xlabel="T, steps", ylabel="ms", title="One gradient, LSTM")
    right.set_xscale("log", base=2)
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    with common.whole_file(path) as part:
        figure.savefig(part, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    common.main(Config, run)
