"""What does clipping gradients by their global norm do about explosion, and what about vanishing?

Claim
    Clipping at 5 tames explosion: without it, single updates throw the loss of a network with a
    large gain up by orders of magnitude, with it they do not. It does nothing for vanishing:
    a gradient that is small is never clipped, and training goes number for number as without.
Source
    Mikolov 2012; Pascanu, Mikolov and Bengio 2013 (1211.5063) for clipping by norm.
What would refute it
    A network with a large gain whose loss bursts in spite of clipping, or does not burst without;
    a network with vanishing gradients that trains otherwise with clipping than without, or that
    recalls its first input.
Cost
    Under a minute on two cores, under half a minute with --quick.

Elman's network, plain gradient descent (Adam would rescale what is clipped), a task of memory: the
first of T inputs carries a sign, the rest is noise, and the sign is asked for at the end. All runs
of a seed see the same params and data. Clipping changes the length of a gradient and not its
direction, so what share of it comes from the first input stays what it was.
"""

import dataclasses
import functools
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
from jaxrnn.initializers import Initializer, Normal, Orthogonal, Uniform

NAME = "gradient_clipping"
KINDS: dict[str, Initializer] = {
    "default": Uniform(),
    "orthogonal": Orthogonal(),
    "large gain": Normal(3.0),
}
WAYS = {"clipped": "clipped", "free": "not clipped"}
CHANCE = 1.0  # mean squared error of predicting 0 for ±1
BURST = 10.0  # a loss so many times chance is one


@dataclasses.dataclass(frozen=True)
class Config:
    """What to train.

    Attributes:
        threshold: the global norm that gradients are clipped to.
        hidden_size: H, units of the network.
        length: T, steps from the sign to the end.
        batch: sequences in one update.
        updates: of training.
        learning_rate: of gradient descent.
        seeds: how many networks of each kind.
        seed: the first of them.
        redraw: a result of an earlier run: prints its tables and draws its figure again.
        output: folder for gradient_clipping.json and .png.
        quick: the same, smaller: under half a minute.
    """

    threshold: float = 5.0
    hidden_size: int = 32
    length: int = 50
    batch: int = 32
    updates: int = 1000
    learning_rate: float = 0.05
    seeds: int = 5
    seed: int = 0
    redraw: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    output: Path = Path("results")
    quick: bool = False


QUICK = dict(updates=100, seeds=3, batch=16)


def draw(config: Config, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two features, a sign at the first step and noise, `(B, T, 2)`, and the sign."""
    k_sign, k_noise = jax.random.split(key)
    sign = jax.random.rademacher(k_sign, (config.batch,), jnp.float32)
    shape = (config.batch, config.length)
    noise = 0.5 * jax.random.normal(k_noise, shape, jnp.float32)
    cue = jnp.zeros(shape, jnp.float32).at[:, 0].set(sign)
    return jnp.stack([cue, noise], axis=-1), sign


def network(config: Config) -> jaxrnn.Readout:
    """Elman's network with one number read out."""
    return jaxrnn.Readout(jaxrnn.Elman(2, config.hidden_size), 1)


def start(kind: str, config: Config) -> Any:
    """Params of a kind, one set for each seed; all kinds share their compiled training."""
    cell = dataclasses.replace(network(config).network, recurrent_initializer=KINDS[kind])
    return jax.vmap(jaxrnn.Readout(cell, 1).init)(keys(config)[0])


def keys(config: Config) -> jax.Array:
    """A key for params and one for data, for each seed."""
    return jax.random.split(jax.random.key(config.seed), (2, config.seeds))


def loss(net: jaxrnn.Readout, params: Any, xs: jax.Array, sign: jax.Array) -> jax.Array:
    """Mean squared error at the last step."""
    return jnp.mean((jaxrnn.unroll(net, params, xs)[1][:, -1, 0] - sign) ** 2)


def train(net: jaxrnn.Readout, config: Config, threshold: jax.Array, params: Any, key: jax.Array):
    """Params after training; at each update the loss and the norm before clipping."""
    optimizer = optax.chain(
        # a threshold of infinity clips nothing, in the same compiled program
        optax.clip_by_global_norm(threshold),  # pyright: ignore[reportArgumentType]
        optax.sgd(config.learning_rate),
    )

    def update(state, key):
        params, memory = state
        xs, sign = draw(config, key)
        value, gradient = jax.value_and_grad(lambda p: loss(net, p, xs, sign))(params)
        change, memory = optimizer.update(gradient, memory, params)
        after = optax.apply_updates(params, change)
        return (after, memory), (value, optax.tree.norm(gradient))

    keys = jax.random.split(key, config.updates)
    (params, _), history = jax.lax.scan(update, (params, optimizer.init(params)), keys)
    return params, *history


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, 0, 0))
def reach(net: jaxrnn.Readout, config: Config, params: Any, key: jax.Array) -> dict:
    """The rate of the carry, and what of the loss's gradient reaches the first input."""
    xs, sign = draw(dataclasses.replace(config, batch=4), key)
    cell, own = net.network, params.network
    decay = analysis.gradient_decay(cell, own, xs)

    def error(ys, data):
        W, b, sign = data
        return (W[0] @ ys[-1] + b[0] - sign) ** 2

    data = (*(jnp.broadcast_to(a, (4, *a.shape)) for a in (params.W, params.b)), sign)
    back = analysis.loss_gradient_decay(cell, own, xs, error, loss_data=data)
    assert back.log_norm_x is not None
    to_first = back.log_norm_x[:, 0] - back.log_norm_x[:, -1]
    return dict(rate=jnp.mean(decay.rate), log_share_of_first=jnp.mean(to_first))


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, 0, 0))
def _train_both(net: jaxrnn.Readout, config: Config, params: Any, key: jax.Array) -> tuple:
    thresholds = jnp.array([config.threshold, jnp.inf], jnp.float32)
    return jax.lax.map(lambda threshold: train(net, config, threshold, params, key), thresholds)


def measure(kind: str, config: Config) -> dict:
    """Both trainings of a kind, for all seeds side by side."""
    net, params = network(config), start(kind, config)
    k_train, k_test = jnp.moveaxis(jax.vmap(jax.random.split)(keys(config)[1]), 1, 0)
    after, losses, norms = _train_both(net, config, params, k_train)
    found: dict[str, Any] = dict(before=reach(net, config, params, k_test))
    for number, way in enumerate(WAYS):
        own = jax.tree.map(lambda a, number=number: a[:, number], after)
        # what has burst to no number at all has no rate either
        finite = [jnp.isfinite(a).reshape(config.seeds, -1).all(1) for a in jax.tree.leaves(own)]
        sound = jnp.stack(finite).all(0)
        safe = jax.vmap(lambda a, yes: jax.tree.map(lambda b: jnp.where(yes, b, 0), a))(own, sound)
        seen = reach(net, config, safe, k_test)
        seen = {key: jnp.where(sound, value, jnp.nan) for key, value in seen.items()}
        found[way] = dict(loss=losses[:, number], norm=norms[:, number], **seen)
    return jax.tree.map(np.asarray, found)


def summary(found: dict, threshold: float) -> dict:
    """What a row of the table says of one training, a number for each seed."""
    losses, norms = (np.asarray(found[key], float) for key in ("loss", "norm"))
    # a loss that is no number has burst, too
    losses = np.where(np.isfinite(losses), losses, np.inf)
    norms = np.where(np.isfinite(norms), norms, np.inf)
    quarter = max(losses.shape[1] // 4, 1)
    return dict(
        largest_loss=losses.max(1),
        final_loss=np.median(losses[:, -quarter:], axis=1),
        clipped_share=np.mean(norms > threshold, axis=1),
        norm_quantiles=np.quantile(norms, (0.05, 0.5, 0.95), axis=1, method="nearest"),
    )


def verdicts(kinds: dict[str, dict], threshold: float) -> list[dict]:
    """All claims, each with the numbers that decide it."""
    of = {k: {w: summary(found[w], threshold) for w in WAYS} for k, found in kinds.items()}
    found = [_bursts(of["large gain"]), _tamed(of)]
    return [*found, _same(kinds["default"], of["default"]), _vanished(kinds["default"], of)]


def _bursts(of: dict) -> dict:
    largest = of["free"]["largest_loss"]
    count = int(np.sum(largest > BURST * CHANCE))
    return claims.claim(
        f"without clipping, a large gain makes the loss burst above {BURST:g} times chance",
        count > len(largest) / 2,
        f"{count} of {len(largest)} networks; the largest loss, median, {np.median(largest):.1e}",
    )


def _tamed(of: dict[str, dict]) -> dict:
    largest = np.concatenate([found["clipped"]["largest_loss"] for found in of.values()])
    count = int(np.sum(largest > BURST * CHANCE))
    share, final = (of["large gain"]["clipped"][key] for key in ("clipped_share", "final_loss"))
    return claims.claim(
        "with clipping none does, of any kind",
        count == 0,
        f"{count} of {len(largest)}; the largest loss of all {np.max(largest):.2f}. With a large "
        f"gain {100 * np.mean(share):.0f} % of updates are clipped, and the loss ends at "
        f"{np.median(final):.3f}",
    )


def _same(found: dict, of: dict) -> dict:
    apart = np.max(np.abs(np.asarray(found["clipped"]["loss"]) - np.asarray(found["free"]["loss"])))
    return claims.claim(
        "where gradients vanish, training goes number for number as without clipping",
        apart == 0,
        f"{100 * np.mean(of['clipped']['clipped_share']):.1f} % of updates clipped, largest "
        f"difference of losses {apart:.1e}",
    )


def _vanished(found: dict, of: dict) -> dict:
    share = float(np.mean(found["clipped"]["log_share_of_first"])) / plot.LN10
    final = of["default"]["clipped"]["final_loss"]
    return claims.claim(
        "and the first input stays out of reach",
        share < -6 and np.mean(final) > 0.9 * CHANCE,
        f"After training its gradient is 10^{share:.1f} of the last one's; loss "
        f"{np.mean(final):.2f} (chance {CHANCE:g}), rate "
        f"{claims.spread(found['before']['rate'])} before and "
        f"{claims.spread(found['clipped']['rate'])} after",
    )


def run(config: Config) -> dict:
    """Trains, prints the table and the verdicts, writes JSON and figure."""
    config = common.sized(config, QUICK)
    claims.at_least(config, hidden_size=1, length=10, batch=1, updates=1, seeds=1)
    if not (config.threshold > 0 and config.learning_rate > 0):
        raise common.UsageError("--threshold and --learning-rate must be positive")
    return claims.conduct(NAME, config, measure_all, _show, _draw)


def measure_all(config: Config) -> dict:
    """All kinds, and the verdicts."""
    kinds: dict[str, dict] = {}
    with common.progress(len(KINDS)) as advance:
        for kind in KINDS:
            advance(0, kind)
            kinds[kind] = measure(kind, config)
            advance(1, kind)
    return dict(kinds=kinds, verdicts=verdicts(kinds, config.threshold))


def _show(result: dict) -> None:
    threshold, rows = result["config"]["threshold"], []
    for kind, found in result["kinds"].items():
        for way, text in WAYS.items():
            of = summary(found[way], threshold)
            quantiles = np.median(of["norm_quantiles"], axis=1)
            rows.append(
                [
                    f"{kind}, {text}" if way == "clipped" else f"    {text}",
                    f"{100 * np.mean(of['clipped_share']):.1f} %",
                    " / ".join(f"{q:.2g}" for q in quantiles),
                    f"{np.max(of['largest_loss']):.2g}",
                    f"{np.median(of['final_loss']):.3f}",
                    _spread(found["before"]["rate"]),
                    _spread(found[way]["rate"]),
                    _power(found[way]["log_share_of_first"]),
                ]
            )
    heads = ("Elman, W_h", f"norm > {threshold:g}", "5 / 50 / 95 %")
    heads += ("worst loss", "final", "rate before", "after", "first/last")
    common.print_table(
        f"Gradient norms over {result['config']['updates']} updates (medians of "
        f"{result['config']['seeds']} networks), loss (chance {CHANCE:g}), nats per step",
        heads,
        rows,
    )


def _power(log_values: Any) -> str:
    values = np.asarray(log_values, float) / plot.LN10
    return "no number" if np.isnan(values).all() else f"10^{np.nanmedian(values):.1f}"


def _spread(values: Any, digits: int = 2) -> str:
    values = np.asarray(values, float)
    sound = values[~np.isnan(values)]
    return claims.spread(sound, digits) if len(sound) else "no number"


def _draw(result: dict) -> Figure:
    figure = Figure(figsize=(13, 6.5), layout="constrained")
    grid = figure.subplots(2, len(result["kinds"]), sharex=True, sharey="row")
    config = result["config"]
    for column, (kind, found) in enumerate(result["kinds"].items()):
        for way, colour in zip(("free", "clipped"), plot.COLOURS[1::-1], strict=True):
            for row, key in enumerate(("norm", "loss")):
                values = np.array(found[way][key], float)
                # nothing above 1e12 can be told apart, and nothing at all once it is no number
                values = np.where(np.isfinite(values), np.minimum(values, 1e12), 1e12)
                _band(grid[row, column], values, colour, WAYS[way], dashed=way == "clipped")
        rate = _spread(found["before"]["rate"])
        grid[0, column].set_title(f"{kind}: {rate} nats per step")
        grid[0, column].axhline(config["threshold"], color="#555555", linewidth=1)
        grid[1, column].axhline(CHANCE, color="#555555", linewidth=1)
        grid[1, column].set_xlabel("update")
        if column:
            words = "10¹² and more, or no number"
            grid[0, column].text(config["updates"], 4e11, words, fontsize=9, ha="right", va="top")
    grid[0, 0].set_ylabel("global norm of the gradient,\nbefore clipping")
    grid[1, 0].set_ylabel("loss (line: chance)")
    grid[0, 0].legend(frameon=False)
    return figure


def _band(axes: Any, values: np.ndarray, colour: str, label: str, dashed: bool) -> None:
    updates = np.arange(values.shape[1])
    # coloured first, dashed on top: where both are the same numbers, both are seen
    style = (0, (3, 3)) if dashed else "-"
    axes.plot(updates, np.median(values, axis=0), color=colour, linestyle=style, label=label)
    axes.fill_between(updates, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
    axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    common.main(Config, run)
