"""The grid of `speed`: at every point all contenders in turn, and that ours is the same network."""

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from experiments import _speed_floor as floor
from experiments._speed_cases import TASKS, Case, draw_params
from experiments._speed_clock import Runner, in_rounds, warm_up
from experiments._speed_peers import PEERS, Model, TorchModel, time_first

OURS = "ours"
BATCH_FIRST = "ours, batch first"
DEFAULT_GRU = "ours, default GRU"
CHECKPOINT = "ours, checkpoint"
AGREEMENT = 1e-5  # allowed distance from PyTorch in float32, outputs and gradients
Advance = Callable[[float, str], None]


def our_cell(case: Case) -> Any:
    """Our cell; the GRU in the form that PyTorch has."""
    I, H = case.input_size, case.hidden_size
    if case.cell == "gru":
        return jaxrnn.GRU(I, H, reset="after", update_weighs="old", biases=2)
    return jaxrnn.LSTM(I, H) if case.cell == "lstm" else jaxrnn.Elman(I, H)


def ours(
    case: Case, xs: np.ndarray, cell: Any = None, method: Any = None, batch_first: bool = False
) -> Model:
    """`jaxrnn.unroll` on data that lie time first, as the peers' do; no method named.

    XLA cancels the exchange of axes against the one within `unroll`.
    """
    cell = our_cell(case) if cell is None else cell

    def apply(params: Any, xs: Any) -> Any:
        return jaxrnn.unroll(cell, params, xs, method=method)[1]

    def apply_time_first(params: Any, xs: Any) -> Any:
        return jnp.swapaxes(apply(params, jnp.swapaxes(xs, 0, 1)), 0, 1)

    init = functools.partial(cell.init, dtype=jnp.float32)
    params = draw_params(init, jax.random.key(0), size=case.hidden_size)
    if batch_first:
        return Model(params, jnp.asarray(xs), apply)
    return Model(params, jnp.asarray(time_first(xs)), apply_time_first)


Models = dict[str, tuple[str, Model | TorchModel]]


def models(case: Case, xs: np.ndarray, peers: Sequence[str]) -> Models:
    """Name to (kind, model) of all that serve a case."""
    found: Models = {
        OURS: ("ours", ours(case, xs)),
        BATCH_FIRST: ("variant", ours(case, xs, batch_first=True)),
    }
    if case.cell == "gru":
        default = jaxrnn.GRU(case.input_size, case.hidden_size)
        found[DEFAULT_GRU] = ("variant", ours(case, xs, default))
    checkpoint = jaxrnn.Staged(checkpoint=True)
    found[CHECKPOINT] = ("variant", ours(case, xs, method=checkpoint))
    for name in peers:
        model = PEERS[name].build(case, xs)
        if model is not None:
            found[PEERS[name].title] = (PEERS[name].kind, model)
    return found


def measure(
    cases: Sequence[Case],
    peers: Sequence[str],
    rounds: int,
    limit: float,
    seed: int,
    advance: Advance,
) -> list[dict]:
    """Every point of the grid; `advance` goes up by one for each."""
    points, rng = [], np.random.default_rng(seed)
    for case in cases:
        built = models(case, case.inputs(seed), peers)
        for task in TASKS:
            point = {**case._asdict(), "shape": case.shape, "task": task}
            where = f"{case.cell} {case.shape}, {task}"
            advance(0, f"{where}: compiling")
            runners = [
                model.runner(name, kind, task)
                for name, (kind, model) in built.items()
                if not (name == CHECKPOINT and task == "forward")
            ]
            runners.append(floor.runner(case, task, seed))
            point["operations"] = floor.operations(case, task)
            advance(0.3, where)
            after_round = functools.partial(advance, 0.7 / rounds, where)
            point["contenders"] = _race(runners, rounds, limit, rng, after_round)
            points.append(point)
    return points


def _race(
    runners: list[Runner],
    rounds: int,
    limit: float,
    rng: np.random.Generator,
    after_round: Callable[[], Any],
) -> list[dict]:
    alone = [warm_up(runner.call) for runner in runners]
    fastest = min(t for t, r in zip(alone, runners, strict=True) if r.kind != "floor")
    slower = [t / fastest for t in alone]
    always = ("ours", "floor")
    stays = [i for i, r in enumerate(runners) if r.kind in always or slower[i] <= limit]
    calls = [runners[i].call for i in stays]
    taken = in_rounds(calls, [alone[i] for i in stays], rounds, rng, after_round)
    seconds = dict(zip(stays, taken, strict=True))
    return [
        {
            "name": runner.name,
            "kind": runner.kind,
            "seconds": seconds.get(i, []),
            "left_out": None if i in seconds else slower[i],
            "compile_seconds": runner.compile_seconds,
            "bytes": runner.bytes,
            "threads": runner.threads,
        }
        for i, runner in enumerate(runners)
    ]


def agreement(cell: str) -> dict:
    """Largest differences from PyTorch, whose parameters ours are given: outputs and gradients."""
    torch: Any = importlib.import_module("torch")
    case = Case(cell, 3, 11, 5, 4)
    xs = case.inputs(0)
    theirs = PEERS["torch"].build(case, xs)
    assert isinstance(theirs, TorchModel)
    names = [name for name, _ in theirs.module.named_parameters()]
    # module.parameters() in the order of their names
    _, gradients = theirs.runner("", "", "training").call()
    network, params = jaxrnn.convert.from_torch(_arrays(theirs.module.state_dict()))
    expected = jaxrnn.convert.from_torch(_arrays(dict(zip(names, gradients, strict=True))))[1]

    def loss(params: Any) -> tuple[Any, Any]:
        ys = jaxrnn.unroll(network, params, jnp.asarray(xs))[1]
        return jnp.mean(jnp.square(ys)), ys

    (_, ys), found = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    with torch.no_grad():
        wanted = np.swapaxes(theirs.module(theirs.xs)[0].numpy(), 0, 1)
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    outputs = float(np.max(np.abs(ys - wanted)))
    worst = max(float(np.max(np.abs(a - b))) for a, b in pairs)
    return {"outputs": outputs, "gradients": worst, "holds": max(outputs, worst) <= AGREEMENT}


def _arrays(tensors: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}
