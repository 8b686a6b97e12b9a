"""What do norms and eigenvalues of single steps say about the gradient over many?

Claim
    σ_max(J_t) ≤ r < 1 at every step suffices for decay; σ_max(J_t) > 1 is necessary for growth
    but not sufficient. "Norm > 1 means growth" and "eigenvalue > 1 means growth" are false as
    written, and so is "the LSTM is free of vanishing and explosion".
Source
    Bengio, Simard and Frasconi 1994; Pascanu, Mikolov and Bengio 2013 (1211.5063), who state the
    bound with the largest singular value of W_h.
What would refute it
    A network that grows, or falls more slowly than its step norms allow, although all of these are
    below 1; no network that shrinks with step norms, or with eigenvalues, above 1.
Cost
    About a minute on two cores, under half a minute with --quick: most of it compiles.

Rates are slopes of ln σ_max of ∂carry_T/∂carry_(T−lag) over lags T/10…T, in nats per step, float64.
For Elman's network with tanh, ln|det J_t| = ln|det W_h| + Σ ln φ'(a_t) tells what of the decay is
due to the slopes of φ.
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
import tyro

import jaxrnn
from experiments import _claims as claims
from experiments import _common as common
from experiments import _spectral_figure as figure
from experiments import _spectral_small as small_networks
from experiments._spectral_small import log
from jaxrnn import analysis
from jaxrnn.initializers import ForgetBias, Normal, Orthogonal, Uniform

NAME = "spectral_bounds"
LEVEL = 1e-3  # nats per step: what is above it grows, what is below its negative shrinks


class Kind(NamedTuple):
    """A row: a label, how to make the cell from (I, H), and what of it begins otherwise.

    Rows that differ only in how they begin share all compiled functions.
    """

    label: str
    make: Callable[[int, int], Any]
    begin: dict[str, Any]


KINDS = {
    "elman": Kind("Elman, default", jaxrnn.Elman, {}),
    "elman-half": Kind("Elman, half of it", jaxrnn.Elman, dict(recurrent_initializer=Uniform(0.5))),
    "elman-orthogonal": Kind(
        "Elman, orthogonal", jaxrnn.Elman, dict(recurrent_initializer=Orthogonal())
    ),
    "elman-gain-1.5": Kind(
        "Elman, gain 1.5", jaxrnn.Elman, dict(recurrent_initializer=Normal(1.5))
    ),
    "elman-gain-4": Kind("Elman, gain 4", jaxrnn.Elman, dict(recurrent_initializer=Normal(4.0))),
    "indrnn": Kind("IndRNN", jaxrnn.IndRNN, {}),
    "orthogonal": Kind("OrthogonalRNN", jaxrnn.OrthogonalRNN, {}),
    "leaky": Kind("Leaky, τ = 10", jaxrnn.Leaky, {}),
    "antisymmetric": Kind("Antisymmetric", jaxrnn.Antisymmetric, {}),
    "cornn": Kind("CoRNN", jaxrnn.CoRNN, {}),
    "lru": Kind("LRU", functools.partial(jaxrnn.LRU, output_size=1), {}),
    "mgu": Kind("MGU", jaxrnn.MGU, {}),
    "janet": Kind("JANET", jaxrnn.JANET, {}),
    "lem": Kind("LEM", jaxrnn.LEM, {}),
    "gru": Kind("GRU", jaxrnn.GRU, {}),
    "lstm": Kind("LSTM", jaxrnn.LSTM, {}),
    "lstm-bias-1": Kind("LSTM, forget bias 1", jaxrnn.LSTM, dict(bias_initializer=ForgetBias(1.0))),
    "lstm-gain-8": Kind("LSTM, gain 8", jaxrnn.LSTM, dict(recurrent_initializer=Normal(8.0))),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure.

    Attributes:
        cells: which rows, by name.
        hidden_size: H, units of every cell.
        input_size: I, features of an input.
        input_scale: standard deviation of the inputs, white noise.
        length: T, and so the largest lag.
        windows: sequences for each network.
        seeds: how many networks of each kind.
        seed: the first of them.
        redraw: a result of an earlier run: prints its tables and draws its figure again.
        output: folder for spectral_bounds.json and .png.
        quick: the same, smaller: under half a minute.
    """

    cells: tuple[str, ...] = tuple(KINDS)
    hidden_size: int = 32
    input_size: int = 32
    input_scale: float = 1.0
    length: int = 100
    windows: int = 2
    seeds: int = 5
    seed: int = 0
    redraw: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    output: Path = Path("results")
    quick: bool = False


FEW = ("elman", "elman-half", "elman-gain-1.5", "elman-gain-4", "lstm", "lstm-gain-8")
QUICK = dict(cells=FEW, hidden_size=16, input_size=16, length=50, windows=1, seeds=3)


# networks


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, 0, 0))
def _look(cell: Any, params: Any, xs: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, Any]:
    decay = analysis.gradient_decay(cell, params, xs)
    assert decay.log_spectral_norm is not None
    jacobians = analysis.step_jacobians(cell, params, xs)
    carries, _ = jaxrnn.trajectory(cell, params, xs)
    return decay.rate, decay.log_spectral_norm, jacobians, carries


def measure(kind: Kind, config: Config) -> dict:
    """Rates beside norms and radii of all steps, a number for each seed."""
    with jax.enable_x64(True):
        cell = kind.make(config.input_size, config.hidden_size)
        begins = dataclasses.replace(cell, **kind.begin)
        keys = jax.random.split(jax.random.key(config.seed), (2, config.seeds))
        params = jax.vmap(lambda key: begins.init(key, dtype=jnp.float64))(keys[0])
        shape = (config.windows, config.length, config.input_size)
        draw = jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float64))
        xs = config.input_scale * draw(keys[1])
        found = jax.tree.map(np.asarray, _look(cell, params, xs))
    rate, log_norm, jacobians, carries = found
    sigma = log(np.linalg.norm(jacobians, 2, axis=(-2, -1)))
    bound = np.cumsum(sigma[..., ::-1], axis=-1)
    # an eigenvalue takes ten times as long as a norm: every fourth step will do
    rho = log(np.abs(np.linalg.eigvals(jacobians[:, :, ::4])).max(-1))
    row: dict[str, Any] = dict(
        label=kind.label,
        rate=rate.mean(1),
        log_sigma=sigma.mean((1, 2)),
        largest_log_sigma=sigma.max((1, 2)),
        log_rho=rho.mean((1, 2)),
        excess=(log_norm - bound).max((1, 2)),
    )
    if isinstance(cell, jaxrnn.Elman):
        row["elman"] = split(jax.tree.map(np.asarray, params), np.asarray(xs), carries.h, jacobians)
    return row


def split(params: Any, xs: np.ndarray, hs: np.ndarray, jacobians: np.ndarray) -> dict:
    """ln|det J_t| = ln|det W_h| + Σ ln φ'(a_t) of tanh networks, each side on its own, per unit."""
    W_h = params.W_h
    before = np.concatenate([np.zeros_like(hs[:, :, :1]), hs[:, :, :-1]], axis=2)
    a = before @ W_h.swapaxes(-1, -2)[:, None] + xs @ params.W_x.swapaxes(-1, -2)[:, None]
    a = np.abs(a + params.b[:, None, None])
    # tanh' = 4 / (eᵃ + e⁻ᵃ)², which would read 0 where tanh has saturated
    slope = 2 * (math.log(2) - a - np.log1p(np.exp(-2 * a)))
    units = W_h.shape[-1]
    det_W, det_J = np.linalg.slogdet(W_h)[1], np.linalg.slogdet(jacobians)[1]
    error = np.abs(det_J - det_W[:, None, None] - slope.sum(-1))
    return dict(
        log_sigma=np.log(np.linalg.norm(W_h, 2, axis=(-2, -1))),
        log_rho=np.log(np.abs(np.linalg.eigvals(W_h)).max(-1)),
        log_det=det_W / units,
        log_det_step=det_J.mean((1, 2)) / units,
        log_slope=slope.mean((1, 2, 3)),
        split_error=error.max((1, 2)),
        # 1 − tanh² cancels where tanh saturates, in the Jacobians as anywhere
        rounding=np.finfo(slope.dtype).eps * np.exp(-slope).sum(-1).max((1, 2)),
    )


# verdicts


def verdicts(rows: list[dict], small: list[dict]) -> list[dict]:
    """All claims, each with the numbers that decide it."""
    found = [_bound(rows), _sufficient(rows), _necessary(rows), _norm(rows, small)]
    found += [_eigenvalue(rows, small), _radius(small)]
    if any("elman" in row for row in rows):
        found.append(_split(rows))
    if any(row["label"].startswith("LSTM") for row in rows):
        found.append(_lstm(rows))
    return found


def _bound(rows: list[dict]) -> dict:
    worst, label = max((float(np.max(row["excess"])), row["label"]) for row in rows)
    return claims.claim(
        "at every lag the norm of the product is at most the product of the step norms",
        worst < 1e-6,
        f"Largest excess {worst:.1e} nats, {label}",
    )


def _sufficient(rows: list[dict]) -> dict:
    inside = [
        (float(rate), row["label"])
        for row in rows
        for rate, largest in zip(row["rate"], row["largest_log_sigma"], strict=True)
        if largest < 0
    ]
    slowest = max(inside, default=(math.nan, "none"))
    return claims.claim(
        "σ_max(J_t) < 1 at every step suffices for decay",
        inside and slowest[0] < 0,
        f"{len(inside)} networks of {len({label for _, label in inside})} kinds have it, the "
        f"slowest decays at {slowest[0]:+.4f} per step, {slowest[1]}",
    )


def _necessary(rows: list[dict]) -> dict:
    growing = [row for row in rows if claims.above(row["rate"], LEVEL)]
    least = min((float(np.min(row["log_sigma"])) for row in growing), default=math.nan)
    return claims.claim(
        "what grows has σ_max(J_t) > 1 in the mean of logs",
        growing and least > 0,
        f"{len(growing)} of {len(rows)} kinds grow, with a mean ln σ_max(J_t) of at least "
        f"{least:+.3f}",
    )


def _norm(rows: list[dict], small: list[dict]) -> dict:
    loud = [row for row in rows if claims.above(row["log_sigma"], LEVEL)]
    shrink = [row for row in loud if claims.below(row["rate"], -LEVEL)]
    normal, toy = small[0], small[2]
    exact = abs(normal["rate"] - normal["log_sigma"]) < 1e-6
    named = [row for row in rows if "elman" in row and claims.below(row["rate"], -LEVEL)]
    named = [row for row in named if claims.above(row["elman"]["log_sigma"], LEVEL)]
    example = ""
    if named:
        row = named[0]
        example = (
            f"; {row['label']}: σ_max(W_h) = {_exp(row['elman']['log_sigma']):.2f}, rate "
            f"{claims.spread(row['rate'])}"
        )
    return claims.claim(
        "“norm > 1 means growth”",
        loud and not shrink and not named and toy["rate"] > 0,
        f"{len(shrink)} of {len(loud)} kinds with mean ln σ_max(J_t) > 0 shrink{example}; a linear "
        f"one of σ_max = {_exp(toy['log_sigma']):.2f}: {toy['rate']:+.3f}",
        only_if="the Jacobian is constant and normal" if exact else "",
    )


def _eigenvalue(rows: list[dict], small: list[dict]) -> dict:
    steps = [row for row in rows if claims.above(row["log_rho"], LEVEL)]
    matrices = [
        row for row in rows if "elman" in row and claims.above(row["elman"]["log_rho"], LEVEL)
    ]
    shrink, fall = ([r for r in of if claims.below(r["rate"], -LEVEL)] for of in (steps, matrices))
    toy = small[-1]
    constant = [t for t in small if t["constant"] and np.isfinite(t["log_rho"])]
    off = max(abs(t["rate"] - t["log_rho"]) for t in constant)
    example = (
        f"; {fall[0]['label']}: ρ(W_h) = {_exp(fall[0]['elman']['log_rho']):.2f}, rate "
        f"{claims.spread(fall[0]['rate'])}"
        if fall
        else ""
    )
    return claims.claim(
        "“eigenvalue > 1 means growth”",
        not shrink and not fall and toy["rate"] > 0,
        f"{len(shrink)} of {len(steps)} kinds with mean ln ρ(J_t) > 0 shrink, and {len(fall)} of "
        f"{len(matrices)} with ρ(W_h) > 1{example}; {toy['label']}: {toy['rate']:+.3f}",
        only_if="the Jacobian is constant and the lag long" if off < 0.02 else "",
    )


def _radius(small: list[dict]) -> dict:
    shift, turns = small[3], small[4]
    peak = float(np.max(shift["log_norm"])) / math.log(2)
    return claims.claim(
        "“all eigenvalues below 1 mean decay”",
        turns["rate"] < 0 and peak <= 0,
        f"Radius 0, and yet the norm doubles for {peak:.0f} lags ({shift['label']}), or for ever: "
        f"{turns['rate']:+.3f} per step ({turns['label']})",
        only_if="the Jacobian is constant and the lag long" if shift["log_norm"][-1] < 0 else "",
    )


def _split(rows: list[dict]) -> dict:
    row = next(row for row in rows if "elman" in row)
    of = {key: float(np.mean(value)) for key, value in row["elman"].items()}
    error, rounding = (
        max(float(np.max(r["elman"][key])) for r in rows if "elman" in r)
        for key in ("split_error", "rounding")
    )
    share = 100 * of["log_slope"] / of["log_det_step"]
    return claims.claim(
        "ln|det J_t| = ln|det W_h| + Σ ln φ'(a_t) exactly, in tanh networks",
        error < 10 * rounding + 1e-9,
        f"Largest error {of['split_error']:.0e} nats in {row['label']}, {error:.0e} in all, where "
        f"1 − tanh² of saturated units rounds by {rounding:.0e}; {row['label']}, per unit: "
        f"{of['log_det_step']:+.3f} = {of['log_det']:+.3f} {of['log_slope']:+.3f}, φ' has "
        f"{share:.0f} % of it",
    )


def _lstm(rows: list[dict]) -> dict:
    of = [row for row in rows if row["label"].startswith("LSTM")]
    low, high = (f(of, key=lambda row: np.mean(row["rate"])) for f in (min, max))
    return claims.claim(
        "“the LSTM is free of vanishing and explosion”",
        np.mean(low["rate"]) > -0.01 and np.mean(high["rate"]) < 0.01,
        "; ".join(f"{row['label']} {claims.spread(row['rate'])}" for row in (low, high)),
    )


def _exp(values: Any) -> float:
    return math.exp(float(np.mean(values)))


# the run


def run(config: Config) -> dict:
    """Measures, prints the tables and the verdicts, writes JSON and figure."""
    config = common.sized(config, QUICK)
    claims.at_least(config, hidden_size=2, input_size=1, length=20, windows=1, seeds=1)
    claims.one_of("--cells", config.cells, tuple(KINDS))
    return claims.conduct(NAME, config, measure_all, _show, figure.draw)


def measure_all(config: Config) -> dict:
    """Small networks and large ones, and the verdicts on both."""
    small = [small_networks.measure(toy) for toy in small_networks.toys()]
    with common.progress(len(config.cells)) as advance:

        def one(name: str) -> dict:
            found = measure(KINDS[name], config)
            advance(1, KINDS[name].label)
            return found

        rows = common.side_by_side(one, config.cells)
    return dict(small=small, rows=rows, verdicts=verdicts(rows, small))


def _show(result: dict) -> None:
    rows = [
        [t["label"], *(_number(t[key]) for key in ("log_rho", "log_sigma", "expected", "rate"))]
        for t in result["small"]
    ]
    heads = ("linear, nats per step", "ln ρ(A)", "ln σ(A)", "rate, exact", "measured")
    common.print_table("Small networks: the largest of their steps, and the rate", heads, rows)
    rows = []
    for row in sorted(result["rows"], key=lambda row: -np.mean(row["rate"])):
        own = row.get("elman")
        matrix = [claims.spread(own[k], 2) for k in ("log_sigma", "log_rho")] if own else ["", ""]
        steps = [claims.spread(row[k], 2) for k in ("log_sigma", "log_rho")]
        largest = f"{np.max(row['largest_log_sigma']):+.2f}"
        rows.append([row["label"], claims.spread(row["rate"]), *steps, largest, *matrix])
    about = result["config"]
    common.print_table(
        f"Nats per step, mean ± sd of {about['seeds']} networks; H = {about['hidden_size']}, "
        f"T = {about['length']}, white noise of sd {about['input_scale']:g}",
        ("", "rate", "ln σ(J), mean", "ln ρ(J), mean", "most", "ln σ(W_h)", "ln ρ(W_h)"),
        rows,
    )


def _number(value: float) -> str:
    return f"{value:+.4f}" if math.isfinite(value) else "−∞"


if __name__ == "__main__":
    common.main(Config, run)
