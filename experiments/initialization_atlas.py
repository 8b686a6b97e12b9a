"""How fast do gradients fade or grow before any training, in every cell and from every beginning?

Claim
    What is said of beginnings holds at large: gates alone help, orthogonal matrices and the
    identity with relu keep the gradient, a forget bias lengthens its reach and chrono more so,
    cells that are linear in time do not vanish, most cells keep half of a gradient over 100 steps,
    and by default none grows on the way.
Source
    Saxe et al. 2014 (1312.6120), Le, Jaitly and Hinton 2015 (1504.00941), Jozefowicz et al. 2015,
    Tallec and Ollivier 2018 (1804.11188), Orvieto et al. 2023 (2303.06349).
What would refute it
    A cell that takes such a beginning and fades, or grows, all the same.
Cost
    About three minutes on two idle cores, nearly all of it compiling; under half a minute with
    --quick.

Rates are slopes of ln σ_max of ∂carry_T/∂carry_(T−lag) over lags T/10…T, in nats per step, float32:
what the luckiest direction keeps. ln ‖·‖_F has a rate of its own, that of a random direction. Where
nothing is left at lag T, the rate is −∞. The carry begins as the cell begins it, lag T reaches the
carry after the first input, and inputs are white noise: a rate belongs to a cell, a beginning *and*
a size of inputs.

Initialisers replace that of the recurrent weights, or of the bias of the gate that keeps; the rest
stays as by default. Uniform is U(−1, 1)/√H, normal N(0, 1/H), zeros what is left without recurrent
weights. Not every cell takes every one: IndRNN has no matrix that could be orthogonal. An SLSTM has
a forget bias of 3 by default, so that 1 is less.
"""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from experiments import _atlas_figure as figure
from experiments import _atlas_measure as measuring
from experiments import _atlas_plan as plans
from experiments import _atlas_verdicts as weighing
from experiments import _claims as claims
from experiments import _common as common
from experiments._atlas_plan import KINDS
from experiments._atlas_verdicts import middle

NAME = "initialization_atlas"


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure.

    Attributes:
        cells: names from the catalogue, Elman-relu or LRU-ring; all of them if none is named.
        hidden_size: H, units, a multiple of 4; fewer where the carry would pass 3 H numbers.
        input_size: I, features of an input; as many times fewer.
        input_scales: standard deviations of the inputs, white noise.
        length: T, the largest lag, and the longest time constant of chrono.
        seeds: how many networks for each cell and beginning.
        seed: the first of them.
        redraw: a result of an earlier run: prints its tables and draws its figure again.
        output: folder for initialization_atlas.json and .png.
        quick: the same, smaller: under half a minute.
    """

    cells: tuple[str, ...] = ()
    hidden_size: int = 32
    input_size: int = 32
    input_scales: tuple[float, ...] = (0.0, 1.0)
    length: int = 100
    seeds: int = 5
    seed: int = 0
    redraw: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    output: Path = Path("results")
    quick: bool = False


FEW = ("Elman", "Elman-relu", "GRU", "LinearRNN", "LSTM", "MinGRU", "S5")
QUICK = dict(cells=FEW, hidden_size=16, input_size=16, length=50, seeds=3)


def run(config: Config) -> dict:
    """Measures, prints the tables and the verdicts, writes JSON and figure."""
    config = common.sized(config, QUICK)
    config = dataclasses.replace(config, cells=config.cells or tuple(KINDS))
    claims.at_least(config, hidden_size=8, input_size=1, length=20, seeds=1)
    claims.one_of("--cells", config.cells, tuple(KINDS))
    scales = config.input_scales
    if not scales or list(scales) != sorted(set(scales)) or not all(s >= 0 for s in scales):
        raise common.UsageError("--input-scales takes numbers of at least 0, in ascending order")
    if config.hidden_size % 4:
        raise common.UsageError(
            f"--hidden-size must be a multiple of 4, the modules of Clockwork, got "
            f"{config.hidden_size}"
        )
    return claims.conduct(NAME, config, measure_all, _show, figure.draw)


def measure_all(config: Config) -> dict:
    """All rows, and the verdicts."""
    with common.progress(len(config.cells)) as advance:

        def one(name: str) -> dict:
            found = row(name, config)
            advance(1, found["label"])
            return found

        rows = common.side_by_side(one, config.cells)
    return dict(rows=rows, verdicts=weighing.verdicts(rows, config))


def row(name: str, config: Config) -> dict:
    """What is found of one cell; one that cannot be measured has a reason and no numbers."""
    kind = KINDS[name]
    found: dict[str, Any] = dict(name=name, label=kind.label, family="other", columns={})
    try:
        plan = plans.plan(kind, config.input_size, config.hidden_size, config.length)
        columns = measuring.measure(plan, config)
    except (ValueError, TypeError) as error:
        return found | dict(reason=" ".join(str(error).split()))
    lost = [k for k, values in columns.items() if np.isnan(values["rate"]).any()]
    return found | dict(
        family=plan.family,
        hidden_size=plan.hidden_size,
        input_size=plan.input_size,
        carry_size=plan.carry_size,
        reason=f"no number with {', '.join(lost)}" if lost else "",
        columns={k: values for k, values in columns.items() if k not in lost},
    )


# tables


def _show(result: dict) -> None:
    config, rows = result["config"], result["rows"]
    measured = [row for row in rows if plans.DEFAULT in row["columns"]]
    measured.sort(key=lambda row: -middle(row["columns"][plans.DEFAULT]["rate"][-1]))
    _show_rates(measured, config)
    _show_default(measured, config)
    smaller = [row for row in measured if row["hidden_size"] < config["hidden_size"]]
    sizes = ", ".join(f"{r['label']} {r['hidden_size']} (N = {r['carry_size']})" for r in smaller)
    if smaller:
        print(f"H, and I, made smaller to keep the carry small: {sizes}.")
    for row in rows:
        if row["reason"]:
            print(f"Not measured: {row['label']}: {row['reason']}.")


def _show_rates(rows: list[dict], config: dict) -> None:
    *others, last = (f"input {scale:g}" for scale in config["input_scales"])
    heads = ("", *others, last, *list(figure.HEADS.values())[1:])
    lines = []
    for row in rows:
        of = row["columns"]
        line = [row["label"]]
        line += [_spread(rates) for rates in of[plans.DEFAULT]["rate"]]
        line += [
            figure.short(middle(of[k]["rate"][-1])) if k in of else "·" for k in plans.COLUMNS[1:]
        ]
        lines.append(line)
    common.print_table(
        f"Nats per step by default, mean ± sd of {config['seeds']} networks, and from other "
        f"beginnings ({last}); H = {config['hidden_size']}, T = {config['length']}",
        heads,
        lines,
    )


def _show_default(rows: list[dict], config: dict) -> None:
    lines = []
    for row in rows:
        of = row["columns"][plans.DEFAULT]
        line = [row["label"], str(row["carry_size"])]
        for s in range(len(config["input_scales"])):
            line += [
                figure.half_life(middle(of["rate"][s])),
                _factor(middle(of["log_kept"][s])),
                _factor(float(np.max(of["log_growth"][s]))),
            ]
        lines.append([*line, figure.short(middle(of["frobenius_rate"][-1]))])
    heads = ["", "N"]
    for scale in config["input_scales"]:
        heads += [f"half-life, {scale:g}", "left at T", "at most"]
    common.print_table(
        "By default: steps to half of it (×2: to twice); σ_max at lag T and at its largest; rate of"
        " a random direction",
        (*heads, "random"),
        lines,
    )


def _spread(rates: Any) -> str:
    mean, deviation = (figure.short(value) for value in (middle(rates), claims.deviation(rates)))
    return f"{mean} ± {deviation.lstrip('+')}" if np.isfinite(rates).all() else mean


def _factor(log_value: float) -> str:
    if -2.5 < log_value < 2.5:
        return f"{math.exp(log_value):.2f}"
    return f"10^{log_value / math.log(10):.0f}" if math.isfinite(log_value) else "0"


if __name__ == "__main__":
    common.main(Config, run)
