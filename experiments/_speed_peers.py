"""The libraries that `speed` compares with, each in its own way of running a whole sequence.

None is needed: what is not installed is left out. All run time-first, which spares them a
transposition, but for Keras, whose layers know batch-first alone.
"""

import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._speed_cases import Case, draw_params
from experiments._speed_clock import Runner, compiled, warm_up


class Model(NamedTuple):
    """A network in JAX: `apply(params, xs) -> ys`, and xs in the layout that it likes best."""

    params: Any
    xs: Any
    apply: Callable[[Any, Any], Any]

    def function(self, task: str) -> Callable[[Any, Any], Any]:
        """All outputs; or the loss, mean(ys²), and its gradient of params."""

        def loss(params: Any, xs: Any) -> jax.Array:
            return jnp.mean(jnp.square(self.apply(params, xs)))

        return self.apply if task == "forward" else jax.value_and_grad(loss)

    def runner(self, name: str, kind: str, task: str) -> Runner:
        """That function, compiled."""
        return compiled(name, kind, self.function(task), self.params, self.xs)


class TorchModel(NamedTuple):
    """A module of PyTorch, and xs as a tensor."""

    module: Any
    xs: Any

    def runner(self, name: str, kind: str, task: str) -> Runner:
        """All outputs without a graph; or the loss and its gradient of the parameters.

        On all cores, or on one where that is faster, as it is for small networks.
        """
        torch: Any = importlib.import_module("torch")
        parameters = list(self.module.parameters())

        def run(threads: int) -> Any:
            torch.set_num_threads(threads)
            if task == "forward":
                with torch.no_grad():
                    return self.module(self.xs)
            loss = self.module(self.xs)[0].square().mean()
            return loss, torch.autograd.grad(loss, parameters)

        alone = {n: warm_up(functools.partial(run, n)) for n in sorted({1, cores()})}
        threads = min(alone, key=alone.__getitem__)
        return Runner(name, kind, functools.partial(run, threads), threads=threads)


class Peer(NamedTuple):
    """A library.

    modules: what is imported. pip: what is installed for it.
    note: which cells it has, where that matters.
    build: (case, xs (B, T, I)) -> a model, or None where it has no such cell.
    """

    title: str
    kind: str
    modules: tuple[str, ...]
    pip: str
    note: str
    build: Callable[[Case, np.ndarray], Model | TorchModel | None]


def missing(peer: Peer) -> str:
    """Why a peer cannot run, or nothing if it can."""
    if importlib.util.find_spec(peer.modules[0].split(".")[0]) is None:
        return f"not installed: pip install '{peer.pip}'"
    if peer.modules[0] == "keras":
        if "keras" not in sys.modules:
            os.environ["KERAS_BACKEND"] = "jax"  # read once, on import
        backend = importlib.import_module("keras").backend.backend()
        if backend != "jax":
            return f"imported before with the backend {backend}: set KERAS_BACKEND=jax"
    for module in peer.modules:
        importlib.import_module(module)
    return ""


def cores() -> int:
    """Processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def time_first(xs: np.ndarray) -> np.ndarray:
    """(B, T, I) as (T, B, I)."""
    return np.ascontiguousarray(np.swapaxes(xs, 0, 1))


def _torch(case: Case, xs: np.ndarray) -> TorchModel:
    torch: Any = importlib.import_module("torch")
    torch.manual_seed(0)
    layers = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "elman": torch.nn.RNN}
    module = layers[case.cell](case.input_size, case.hidden_size)
    return TorchModel(module, torch.from_numpy(time_first(xs)))


def _linen(case: Case, xs: np.ndarray) -> Model:
    nn: Any = importlib.import_module("flax.linen")
    cells = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell, "elman": nn.SimpleCell}
    network = nn.RNN(cells[case.cell](case.hidden_size), time_major=True)
    first = jnp.asarray(time_first(xs))
    params = draw_params(network.init, jax.random.key(0), first, size=case.hidden_size)
    return Model(params, first, network.apply)


def _nnx(case: Case, xs: np.ndarray) -> Model:
    nnx: Any = importlib.import_module("flax.nnx")
    cells = {"lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell, "elman": nnx.SimpleCell}
    rngs = nnx.Rngs(0)
    cell = cells[case.cell](case.input_size, case.hidden_size, rngs=rngs)
    # it would draw keys for a carry of zeros, and its counter of keys forbids that under jit
    carry = cell.initialize_carry((case.batch, case.input_size), rngs)
    graph, params, rest = nnx.split(nnx.RNN(cell, time_major=True, rngs=False), nnx.Param, ...)

    def apply(params: Any, xs: Any) -> Any:
        return nnx.merge(graph, params, rest)(xs, initial_carry=carry)

    return Model(params, jnp.asarray(time_first(xs)), apply)


def _equinox(case: Case, xs: np.ndarray) -> Model | None:
    nn: Any = importlib.import_module("equinox").nn
    cells = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}
    if case.cell not in cells:
        return None
    cell = cells[case.cell](case.input_size, case.hidden_size, key=jax.random.key(0))
    zeros = jnp.zeros((case.batch, case.hidden_size), jnp.float32)
    is_lstm = case.cell == "lstm"

    def apply(cell: Any, xs: Any) -> Any:
        def body(carry: Any, x: Any) -> tuple[Any, Any]:
            carry = jax.vmap(cell)(x, carry)
            return carry, carry[0] if is_lstm else carry

        return jax.lax.scan(body, (zeros, zeros) if is_lstm else zeros, xs)[1]

    return Model(cell, jnp.asarray(time_first(xs)), apply)


def _haiku(case: Case, xs: np.ndarray) -> Model:
    hk: Any = importlib.import_module("haiku")

    class Elman(hk.RNNCore):
        """Haiku's VanillaRNN, which knows relu alone, with tanh."""

        def __call__(self, x: Any, h: Any) -> tuple[Any, Any]:
            sums = hk.Linear(case.hidden_size)(x) + hk.Linear(case.hidden_size)(h)
            h = jnp.tanh(sums)
            return h, h

        def initial_state(self, batch_size: int | None) -> Any:
            return jnp.zeros((batch_size, case.hidden_size), jnp.float32)

    def network(xs: Any) -> Any:
        size = case.hidden_size
        core = {"lstm": hk.LSTM, "gru": hk.GRU}[case.cell](size) if case.gates > 1 else Elman()
        return hk.dynamic_unroll(core, xs, core.initial_state(case.batch))[0]

    transformed = hk.without_apply_rng(hk.transform(network))
    first = jnp.asarray(time_first(xs))
    params = draw_params(transformed.init, jax.random.key(0), first, size=case.hidden_size)
    return Model(params, first, transformed.apply)


def _keras(case: Case, xs: np.ndarray) -> Model:
    layers: Any = importlib.import_module("keras").layers
    kinds = {"lstm": layers.LSTM, "gru": layers.GRU, "elman": layers.SimpleRNN}
    layer = kinds[case.cell](case.hidden_size, return_sequences=True, unroll=False)
    layer.build(xs.shape)
    params = [variable.value for variable in layer.trainable_variables]
    rest = [variable.value for variable in layer.non_trainable_variables]

    def apply(params: Any, xs: Any) -> Any:
        return layer.stateless_call(params, rest, xs)[0]

    return Model(params, jnp.asarray(xs), apply)


_AFTER = "GRU: reset after the matrix, "
PEERS = {
    "torch": Peer(
        "PyTorch", "other", ("torch",), "torch",
        _AFTER + "two biases; on one core or on all, whichever is faster at a point", _torch,
    ),
    "linen": Peer(
        "Flax linen", "jax", ("flax.linen",), "flax",
        _AFTER + "one bias; LSTM: OptimizedLSTMCell", _linen,
    ),
    "nnx": Peer(
        "Flax nnx", "jax", ("flax.nnx",), "flax",
        _AFTER + "one bias; LSTM: OptimizedLSTMCell", _nnx,
    ),
    "equinox": Peer(
        "Equinox", "jax", ("equinox",), "equinox",
        _AFTER + "one bias; no Elman cell; vmap of the cell within a scan", _equinox,
    ),
    "haiku": Peer(
        "Haiku", "jax", ("haiku",), "dm-haiku",
        "GRU: reset before the matrix, one bias; Elman: VanillaRNN with tanh for relu", _haiku,
    ),
    "keras": Peer(
        "Keras", "jax", ("keras",), "keras",
        _AFTER + "two biases; stateless_call on the JAX backend", _keras,
    ),
}  # fmt: skip
