"""Do more layers, residual connections or a second direction cure vanishing gradients?

Claim
    No. A stack passes on as much of its carry as its slowest layer does, with or without residual
    connections, for these add no path through time; each half of a bidirectional network fades as
    one direction alone does, and reading both ends only halves the distance.
Source
    Schuster and Paliwal 1997; Hermans and Schrauwen 2013; Pascanu, Gulcehre, Cho and Bengio 2014
    (1312.6026) for depth.
What would refute it
    A stack whose gradient lives twice as long as a single layer's, or stacks that learn to recall
    the first of 50 inputs more often than single layers; halves that fade at another rate than one
    direction alone.
Cost
    Two to three minutes on two cores; half a minute with --quick, which leaves training out.

Rates are in nats per step: of ∂carry_T/∂carry_(T−lag), carry being that of all layers, and of the
gradient of the last output with respect to each input. Analyses follow one direction of time, so a
bidirectional network is taken in its two parts, the backward one with reverse=True.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from matplotlib.figure import Figure

import jaxrnn
from experiments import _claims as claims
from experiments import _common as common
from jaxrnn import analysis, plot
from jaxrnn.initializers import ForgetBias

NAME = "depth_and_direction"
KINDS: dict[str, Callable[[int, int], Any]] = {
    "Elman": jaxrnn.Elman,
    "GRU": jaxrnn.GRU,
    "LSTM": jaxrnn.LSTM,
}
HALVES = ("forward", "backward")
CONTROL = "LSTM, forget bias 3"
CHANCE = 1.0  # mean squared error of predicting 0 for ±1


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure.

    Attributes:
        cells: which of Elman, GRU, LSTM.
        depths: numbers of layers, beside 1.
        hidden_size: H, units of every layer, and features of the input.
        length: T, and so the largest lag.
        windows: sequences of white noise for each network.
        learners: how many networks of each depth learn.
        updates: of training to recall the first input's sign at the last step; 0 for none.
        batch: sequences in one update.
        learning_rate: of Adam.
        recall: steps from the sign to the end.
        seeds: how many networks of each kind.
        seed: the first of them.
        redraw: a result of an earlier run: prints its tables and draws its figure again.
        output: folder for depth_and_direction.json and .png.
        quick: the same, smaller and without training: half a minute.
    """

    cells: tuple[str, ...] = tuple(KINDS)
    depths: tuple[int, ...] = (2, 4)
    hidden_size: int = 16
    length: int = 100
    windows: int = 2
    learners: int = 16
    updates: int = 300
    batch: int = 32
    learning_rate: float = 1e-2
    recall: int = 50
    seeds: int = 5
    seed: int = 0
    redraw: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    output: Path = Path("results")
    quick: bool = False


QUICK = dict(cells=("Elman",), depths=(2,), hidden_size=8, length=60, updates=0, seeds=3)


def stack(make: Callable[[int, int], Any], depth: int, residual: bool, size: int) -> Any:
    """So many layers of a kind, each with its input added to its output if `residual`."""
    cell = make(size, size)
    if depth == 1:
        return cell
    return jaxrnn.Stack((jaxrnn.Residual(cell) if residual else cell,) * depth)


def last(ys: jax.Array) -> jax.Array:
    """A loss on the last output alone."""
    return jnp.sum(ys[-1])


def first(ys: jax.Array) -> jax.Array:
    """A loss on the first output alone, which is the backward direction's last."""
    return jnp.sum(ys[0])


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, 0, 0))
def _look(network: Any, reverse: bool, params: Any, xs: jax.Array) -> dict:
    # of one network, or of one layer or direction of it: how carries and inputs are reached
    loss = first if reverse else last
    back = analysis.loss_gradient_decay(network, params, xs, loss, reverse=reverse)
    assert back.log_norm_x is not None
    over_lag = back.log_norm_x if reverse else back.log_norm_x[:, ::-1]
    lags = jnp.arange(over_lag.shape[-1])
    decay = analysis.gradient_decay(network, params, xs, reverse=reverse)
    reached = over_lag - over_lag[:, :1]
    return dict(
        rate=jnp.mean(decay.rate),
        input_rate=jnp.mean(analysis.decay_rate(over_lag, lags)[0]),
        horizon=jnp.median(analysis.horizon(reached, lags)),
        log_norm_input=jnp.mean(over_lag, axis=0),
    )


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, 0, 0))
def _outputs(layer: Any, params: Any, xs: jax.Array) -> jax.Array:
    return jaxrnn.unroll(layer, params, xs)[1]


def look(network: Any, params: Any, xs: jax.Array) -> dict:
    """Rates of a stack, and of each layer on what that layer reads, a number for each seed."""
    found = jax.tree.map(np.asarray, _look(network, False, params, xs))
    if not isinstance(network, jaxrnn.Stack):
        return found | dict(layer_rates=found["rate"][None])
    rates = []
    for layer, own in zip(network.layers, params, strict=True):
        # a residual layer's carry is its cell's
        cell, of_cell = (layer.layer, own.layer) if hasattr(layer, "layer") else (layer, own)
        rates.append(np.asarray(_look(cell, False, of_cell, xs)["rate"]))
        xs = _outputs(layer, own, xs)
    return found | dict(layer_rates=np.stack(rates))


def noise(config: Config) -> jax.Array:
    """White noise, `(seeds, windows, T, H)`."""
    shape = (config.seeds, config.windows, config.length, config.hidden_size)
    return jax.random.normal(jax.random.key(config.seed + 1000), shape, jnp.float32)


def seeds(config: Config) -> jax.Array:
    """A key for each network."""
    return jax.random.split(jax.random.key(config.seed), config.seeds)


# learning to recall


def draw(config: Config, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Noise whose first step carries a sign in its first feature, and that sign."""
    k_sign, k_noise = jax.random.split(key)
    shape = (config.batch, config.recall + 1, config.hidden_size)
    sign = jax.random.rademacher(k_sign, (config.batch,), jnp.float32)
    xs = 0.3 * jax.random.normal(k_noise, shape, jnp.float32)
    return xs.at[:, :, 0].set(0).at[:, 0, 0].set(2 * sign), sign


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, 0, 0))
def train(network: Any, config: Config, params: Any, key: jax.Array) -> tuple[Any, jax.Array]:
    """Params after training, and the loss on fresh sequences over its last quarter."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate))

    def loss(params, key):
        xs, sign = draw(config, key)
        return jnp.mean((jaxrnn.unroll(network, params, xs)[1][:, -1, 0] - sign) ** 2)

    def update(state, key):
        params, memory = state
        value, gradient = jax.value_and_grad(loss)(params, key)
        change, memory = optimizer.update(gradient, memory, params)
        return (optax.apply_updates(params, change), memory), value

    keys = jax.random.split(key, config.updates)
    (params, _), losses = jax.lax.scan(update, (params, optimizer.init(params)), keys)
    return params, jnp.mean(losses[-max(config.updates // 4, 1) :])


def learn(network: Any, config: Config, begins: Any = None) -> dict:
    """How well a stack learns to recall, and its rate thereafter."""
    readout = jaxrnn.Readout(network, 1)
    keys = jax.random.split(jax.random.key(config.seed), (2, config.learners))
    params = jax.vmap(jaxrnn.Readout(begins or network, 1).init)(keys[0])
    params, loss = train(readout, config, params, keys[1])
    xs = jax.vmap(lambda key: draw(config, key)[0])(keys[0])[:, : config.windows]
    found = _look(network, False, params.network, xs)
    return dict(loss=np.asarray(loss), rate=np.asarray(found["rate"]))


# the run


def measure_all(config: Config) -> dict:
    """Depths, directions and learning, and the verdicts."""
    xs, H = noise(config), config.hidden_size
    plans = [(kind, 1, False) for kind in config.cells]
    plans += [
        (k, d, residual) for k in config.cells for d in config.depths for residual in (False, True)
    ]
    rows, directions = [], []
    with common.progress(len(plans) + len(config.cells)) as advance:

        def one(plan: tuple[str, int, bool]) -> dict:
            kind, depth, residual = plan
            network = stack(KINDS[kind], depth, residual, H)
            row = look(network, jax.vmap(network.init)(seeds(config)), xs)
            if kind == "Elman" and config.updates:
                row["trained"] = learn(network, config)
            advance(1, f"{kind}, depth {depth}")
            return dict(kind=kind, depth=depth, residual=residual) | row

        rows = common.side_by_side(one, plans)
        for kind in config.cells:
            network = jaxrnn.Bidirectional(KINDS[kind](H, H))
            params = jax.vmap(network.init)(seeds(config))
            halves = dict(
                forward=_look(network.forward, False, params.forward, xs),
                backward=_look(network.backward, True, params.backward, xs),
            )
            directions.append(dict(kind=kind) | jax.tree.map(np.asarray, halves))
            advance(1, f"{kind}, both directions")
    control = None
    if config.updates:
        cell = jaxrnn.LSTM(H, H)
        begins = dataclasses.replace(cell, bias_initializer=ForgetBias(3.0))
        control = learn(cell, config, begins)
    found = verdicts(rows, directions, control)
    return dict(rows=rows, directions=directions, control=control, verdicts=found)


def verdicts(rows: list[dict], directions: list[dict], control: dict | None) -> list[dict]:
    """All claims, each with the numbers that decide it."""
    alone = {row["kind"]: row for row in rows if row["depth"] == 1}
    deep = [row for row in rows if row["depth"] > 1]
    found = [_slowest_layer(deep), _depth(deep, alone), _halves(directions, alone)]
    found.append(_middle(directions, alone))
    return found + ([_recall(rows, control)] if control else [])


def name(row: dict) -> str:
    """A row in a few characters."""
    layers = f" × {row['depth']}" if row["depth"] > 1 else ""
    return row["kind"] + layers + (", residual" if row["residual"] else "")


def _slowest_layer(deep: list[dict]) -> dict:
    # k factors of a triangular product leave room for k^(depth − 1): some hundredths per step
    apart = [(float(np.mean(r["rate"] - r["layer_rates"].max(0))), name(r)) for r in deep]
    worst, where = max(apart, key=lambda pair: abs(pair[0]))
    return claims.claim(
        "a stack's carry fades as that of its slowest layer does, within 0.1 nats per step",
        abs(worst) < 0.1,
        f"Largest difference {worst:+.3f}, {where}",
    )


def _depth(deep: list[dict], alone: dict[str, dict]) -> dict:
    ratios = []
    for row in deep:
        for key in ("rate", "input_rate"):
            before, after = (float(np.mean(r[key])) for r in (alone[row["kind"]], row))
            ratios.append((before / after if after < 0 else np.inf, name(row), before, after))
    best, where, before, after = max(ratios)
    return claims.claim(
        "no stack, residual or not, makes gradients live twice as long as a single layer's",
        best < 2,
        f"At most {best:.2f} times as long: {before:+.3f} → {after:+.3f} per step, {where}",
    )


def _halves(directions: list[dict], alone: dict[str, dict]) -> dict:
    apart = []
    for both in directions:
        own = alone[both["kind"]]["rate"]
        for half in HALVES:
            off = abs(float(np.mean(both[half]["rate"]) - np.mean(own)))
            allowed = claims.deviation(both[half]["rate"]) + claims.deviation(own)
            apart.append((off - max(allowed, 1e-3), off, allowed, f"{both['kind']}, {half}"))
    worst, off, allowed, where = max(apart)
    return claims.claim(
        "each half of a bidirectional network fades as one direction alone, to the spread of seeds",
        worst <= 0,
        f"Largest difference {off:.3f} per step, spread {allowed:.3f}: {where}",
    )


def _middle(directions: list[dict], alone: dict[str, dict]) -> dict:
    # what both ends together can tell of the input in the middle, against one end at that lag
    gains = []
    for both in directions:
        own = alone[both["kind"]]["log_norm_input"]
        lag = own.shape[-1] // 2
        single = own[:, lag]
        together = np.logaddexp(*(both[h]["log_norm_input"][:, lag] for h in HALVES))
        allowed = np.log(2) + claims.deviation(together) + claims.deviation(single)
        cost = float(np.mean(single - own[:, 0]))
        gain = float(np.mean(together) - np.mean(single))
        gains.append((gain - allowed, gain, allowed, cost, both["kind"], lag))
    worst, gain, allowed, cost, kind, lag = max(gains)
    return claims.claim(
        "reading both ends reaches the middle no better than one end at half the distance: at most "
        "twice as much, to the spread of seeds",
        worst <= 0,
        f"{gain:+.2f} nats, of which twice and spread explain {allowed:.2f}: {kind}, where a "
        f"distance of {lag} steps costs {cost:+.1f}",
    )


def recalls(trained: dict) -> tuple[int, int]:
    """How many of how many networks end with a loss of less than half of chance."""
    return int(np.sum(np.asarray(trained["loss"]) < 0.5 * CHANCE)), len(trained["loss"])


def _recall(rows: list[dict], control: dict) -> dict:
    counts = {name(row): recalls(row["trained"]) for row in rows if "trained" in row}
    (single, of), *stacks = counts.values()
    # apart by more than two standard errors of a difference of shares
    pooled = [(some + single) / (2 * of) for some, _ in stacks]
    helps = [
        (some - single) / of > 2 * (2 * p * (1 - p) / of) ** 0.5
        for (some, _), p in zip(stacks, pooled, strict=True)
    ]
    listed = ", ".join(f"{where} {some} of {n}" for where, (some, n) in counts.items())
    return claims.claim(
        "trained, no stack recalls the first input more often than one layer, beyond chance",
        not any(helps),
        f"{listed}; {CONTROL} {recalls(control)[0]} of {recalls(control)[1]}",
    )


def run(config: Config) -> dict:
    """Measures, prints the tables and the verdicts, writes JSON and figure."""
    config = common.sized(config, QUICK)
    claims.at_least(config, hidden_size=1, length=20, windows=1, updates=0, batch=1, recall=1)
    claims.at_least(config, seeds=1, learners=1)
    claims.one_of("--cells", config.cells, tuple(KINDS))
    if not config.depths or min(config.depths) < 2:
        raise common.UsageError("--depths takes one or more numbers of at least 2")
    if config.windows > config.batch:
        raise common.UsageError("--windows must be at most --batch")
    return claims.conduct(NAME, config, measure_all, _show, _draw)


def _show(result: dict) -> None:
    rows = []
    for row in result["rows"]:
        trained = row.get("trained")
        extra = _trained(trained) if trained else ["", ""]
        layers = " ".join(f"{np.mean(rates):+.2f}" for rates in row["layer_rates"])
        horizon = f"{np.median(row['horizon']):.0f}"
        rates = [claims.spread(row[k]) for k in ("rate", "input_rate")]
        rows.append([name(row), *rates, horizon, layers, *extra])
    if result["control"]:
        rows.append([CONTROL, "", "", "", "", *_trained(result["control"])])
    rows.append([])
    for both in result["directions"]:
        for half in HALVES:
            of = both[half]
            rates = [claims.spread(of[k]) for k in ("rate", "input_rate")]
            horizon = f"{np.median(of['horizon']):.0f}"
            rows.append([f"{both['kind']}, {half}", *rates, horizon, "", "", ""])
    config = result["config"]
    heads = ("", "rate", "input rate", "horizon", "of each layer", "trained: rate", "recall")
    common.print_table(
        f"Nats per step, mean ± sd of {config['seeds']} networks; H = {config['hidden_size']}, "
        f"T = {config['length']}; horizon: first lag below 1e-6 of lag 0",
        heads,
        rows,
    )


def _trained(found: dict) -> list[str]:
    return [claims.spread(found["rate"], 2), "{} of {}".format(*recalls(found))]


def _draw(result: dict) -> Figure:
    figure = Figure(figsize=(13, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_depth(left, result["rows"])
    _draw_directions(right, result)
    return figure


def _draw_depth(axes: Any, rows: list[dict]) -> None:
    kind, drawn, curves = rows[0]["kind"], [], []
    depths = sorted({row["depth"] for row in rows})
    for row in (row for row in rows if row["kind"] == kind):
        values = np.array(row["log_norm_input"])
        values = values - values[:, :1]
        text = "1 layer" if row["depth"] == 1 else f"{row['depth']} layers"
        style: dict[str, Any] = dict(threshold=None)
        if row["residual"]:
            style |= dict(linestyle="--", band=False)
            text += ", residual"
        colour = plot.COLOURS[depths.index(row["depth"])]
        curves.append(plot.curve(axes, values, colour, text=text, **style))
        drawn.append(values)
    steps = drawn[0].shape[-1] - 1
    axes.set_ylim(*plot.limits(*drawn))
    plot.lag_axis(axes, steps, room=0.4)
    plot.power_axis(axes, "‖∂y_T/∂x_(T−k)‖, 1 at lag 0")
    plot.threshold_line(axes, 1e-6, steps, "1e-6")
    plot.label_ends(axes, curves, size=10)
    axes.set_title(f"{kind}: one layer and more", loc="left")


def _draw_directions(axes: Any, result: dict) -> None:
    for number, both in enumerate(result["directions"]):
        own = next(r for r in result["rows"] if r["kind"] == both["kind"] and r["depth"] == 1)
        steps = np.arange(len(own["log_norm_input"][0]))
        colour = plot.COLOURS[number]

        def middle(values: list) -> np.ndarray:
            return np.median(np.array(values), axis=0) / plot.LN10

        forward, backward, single = (
            middle(of["log_norm_input"]) for of in (both["forward"], both["backward"], own)
        )
        axes.plot(steps[::-1], forward, color=colour, linewidth=2.2, label=both["kind"])
        axes.plot(steps, backward, color=colour, linewidth=2.2, linestyle="--")
        axes.plot(steps[::-1], single, color=colour, linewidth=1, alpha=0.6)
    plot.power_axis(axes, "‖∂ output / ∂x_t‖")
    axes.set(
        xlabel="t, step of the input",
    )
    axes.set_title("Both directions, each read at its end", loc="left")
    axes.legend(frameon=False, title="— forward half, -- backward,\nthin: one direction alone")


if __name__ == "__main__":
    common.main(Config, run)
