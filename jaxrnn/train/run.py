"""What `fit` is made of: the state of a run, and the reading of its reports, one step late."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxrnn.train import sharding
from jaxrnn.train.log import Clock, numbers
from jaxrnn.train.parts import parts_of
from jaxrnn.train.update import Report, State, Update, compiled, fresh, homes, skips

AHEAD = 8  # updates that may wait for the device at most: their batches lie there already


@dataclasses.dataclass(frozen=True)
class Fit:
    """What training came to.

    model: the best by evaluation; the last one if it was not evaluated.
    last: the model after the last update.
    optimizer_state: after the last update.
    carry: what the next window would start from; None without a carry.
    step: updates that were made, those before a checkpoint included.
    best_step: the update after which `model` was evaluated; None if it was not.
    history: the records that were logged, one dict each: the lines of the log; without a log,
        those since the checkpoint it went on from.
    stopped: "steps", "patience" or "not finite".
    """

    model: PyTree
    last: PyTree
    optimizer_state: PyTree
    carry: PyTree
    step: int
    best_step: int | None
    history: list[dict[str, Any]]
    stopped: str


class NotFiniteError(FloatingPointError):
    """Loss, gradients or updates were NaN or infinite; nothing of that step was applied.

    step: the update that failed, counted from 1. position: of its batch, counted from 0.
    path: the first leaf concerned, in the order of the tree; None if it is the loss alone.
    checkpoint: the step of the last checkpoint of this run; None if there is none.
    fit: a `Fit` of the steps before, with the model and the optimizer as they were.
    """

    def __init__(
        self, sentence: str, *, position: int, path: str | None, checkpoint: int | None, fit: Fit
    ) -> None:
        super().__init__(sentence)
        self.step, self.position, self.path = position + 1, position, path
        self.checkpoint, self.fit = checkpoint, fit


class Best(NamedTuple):
    """The best model so far.

    value, step: its metric, and the update after which it was evaluated; 0 for none yet.
    stale: evaluations since, none of them better.
    parts: what was trained and the rest; None if nothing is ever evaluated.
    """

    value: Any
    step: Any
    stale: Any
    parts: Any


class Run:
    """A model in training: its state, the best one so far, and what changes them."""

    def __init__(
        self,
        loss: Callable,
        model: PyTree,
        batches: Any,
        optimizer: Any,
        key: Array | None,
        carry: PyTree,
        *,
        data_parallel: bool,
        evaluated: bool,
    ) -> None:
        self._parts, self._batches = parts_of(model), batches
        self._mesh = sharding.mesh(data_parallel)
        self.step, self.saved = 0, None
        trained, rest = self._parts.split(model)
        with jax.numpy_dtype_promotion("standard"):  # as Optax needs
            optimizer_state = optimizer.init(trained)
        self._begin(State(jnp.int32(0), trained, rest, optimizer_state, carry, jnp.bool_(True)))
        self._key = sharding.put(key, sharding.replicated(self._mesh))
        self._start = sharding.put(fresh(carry), sharding.by_rows(carry, self._mesh))
        self._lenient, carried = skips(self.state.optimizer), carry is not None
        self._update = compiled(
            Update(loss, optimizer, self._parts, carried, self._lenient, self._mesh)
        )
        parts = self._copy() if evaluated else None
        self.best = Best(np.float32(np.nan), np.int32(0), np.int32(0), parts)

    def _begin(self, state: State) -> None:
        self.state = sharding.put(fresh(state), homes(state, self._mesh))

    def _copy(self) -> tuple[PyTree, PyTree]:
        """The parts of the model, out of reach of the next update, which reuses the memory."""
        return fresh(sharding.local((self.state.trained, self.state.rest)))

    def advance(self) -> Report:
        """Makes the next update, or rather has the device make it."""
        batch = self._batches[self.step]
        batch = sharding.put(batch, sharding.by_rows(batch, self._mesh))
        begins = np.bool(self.step % len(self._batches) == 0)
        self.state, report = self._update(self.state, batch, self._key, self._start, begins)
        self.step += 1
        return report

    def judge(self, evaluate: Callable, metric: str, lowest: bool) -> dict[str, float]:
        """Evaluates the model and keeps it if it is the best so far."""
        parts = self._copy()
        values = {name: float(value) for name, value in evaluate(self._parts.merge(*parts)).items()}
        if metric not in values:
            raise ValueError(f"evaluate must return {metric!r}, the metric; got {sorted(values)}")
        # in single precision always, so that nothing is lost in a checkpoint
        value, best = np.float32(values[metric]), self.best
        better = value < best.value if lowest else value > best.value
        if better or (best.step == 0 and not np.isnan(value)):
            self.best = Best(value, np.int32(self.step), np.int32(0), parts)
        else:
            self.best = best._replace(stale=np.int32(best.stale + 1))
        return {f"evaluate/{name}": value for name, value in values.items()}

    def patient(self, patience: int | None) -> bool:
        """Whether evaluations without a better one are still fewer than that."""
        return patience is None or int(self.best.stale) < patience

    def save(self, checkpoints: Any) -> None:
        """Hands over all that a run needs to go on."""
        everywhere = sharding.replicated(self._mesh)  # rows of other processes are saved here, too
        state = self.state._replace(carry=sharding.put(self.state.carry, everywhere))
        checkpoints.save(self.step, {"state": state, "best": self.best})
        self.saved = self.step

    def finish(self, checkpoints: Any) -> None:
        """Returns when the last state is saved for every process to find."""
        if self.saved != self.step:
            self.save(checkpoints)
        checkpoints.wait()
        sharding.meet(self._mesh)

    def restore(self, checkpoints: Any) -> None:
        """Goes on from the newest checkpoint, if there is one."""
        found = checkpoints.restore({"state": self.state, "best": self.best})
        if found is not None:
            self.step, kept = int(found[0]), found[1]
            self.saved = self.step
            self._begin(State(*kept["state"]))
            self.best = kept["best"]

    def result(self, history: list[dict[str, Any]], stopped: str) -> Fit:
        """The record of the run so far."""
        last, best = self._copy(), self.best
        found = best.step > 0
        return Fit(
            model=self._parts.merge(*(best.parts if found else last)),
            last=self._parts.merge(*last),
            optimizer_state=sharding.local(self.state.optimizer),
            carry=self.state.carry,
            step=int(sharding.local(self.state.step)),
            best_step=int(best.step) if found else None,
            history=history,
            stopped=stopped,
        )

    def failure(self, position: int, report: Report, history: list) -> NotFiniteError:
        """What to raise on a report of what is not finite; the state is that of the step before."""
        paths = jax.tree_util.tree_leaves_with_path(self.state.trained)
        names = [jax.tree_util.keystr(path) for path, _ in paths]
        what, path = [], None
        if not report.finite.loss:
            what.append(f"the loss is {report.numbers['loss']}")
        for kind in ("gradients", "updates"):
            flags = getattr(report.finite, kind)
            bad = [name for name, finite in zip(names, flags, strict=True) if not finite]
            if bad and path is None:
                path = bad[0]
                what.append(
                    f"the {kind[:-1]} of {path} is not finite ({len(bad)} of {len(names)} leaves)"
                )
        what += [
            f"the batch itself is not finite at {name}"
            for name in _not_finite(self._batches[position])
        ]
        saved = "" if self.saved is None else f", the last checkpoint is of step {self.saved}"
        return NotFiniteError(
            f"step {position + 1}, batches[{position}]: {'; '.join(what)}. Nothing of it was "
            f"applied: the model before is error.fit.last{saved}. Lower the learning rate, clip "
            "gradients, or skip such steps by optax.apply_if_finite",
            position=position,
            path=path,
            checkpoint=self.saved,
            fit=self.result(history, "not finite"),
        )


class Reports:
    """Reads what updates report, one step late, so that the device has the next one to do."""

    def __init__(self, run: Run, history: list[dict[str, Any]]) -> None:
        self._run, self._history, self._clock = run, history, Clock()
        self._pending: list[tuple[int, Report, bool]] = []

    def add(self, report: Report, wanted: bool) -> None:
        """The report of the last update; whether it is wanted as a record."""
        self._pending.append((self._run.step, report, wanted))

    def read(self, late: bool) -> list[dict[str, Any]]:
        """The records that were wanted; if late, of all but the last update, and not always.

        Raises:
            NotFiniteError: an update was not sound.
        """
        before = self._pending[:-1] if late else self._pending
        if late and len(before) < AHEAD and not any(wanted for *_, wanted in before):
            return []
        self._pending = self._pending[len(before) :]
        records = []
        reports = jax.device_get([report for _, report, _ in before])
        for (step, _, wanted), report in zip(before, reports, strict=True):
            if not report.sound:
                raise self._run.failure(step - 1, report, self._history)
            self._clock.count(report.tokens)
            if wanted:
                first = {"step": step, "loss": None, "gradient_norm": None}  # in this order
                records.append(first | numbers(report.numbers) | self._clock.read())
        return records


def _not_finite(batch: PyTree) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    return [
        jax.tree_util.keystr(path)
        for path, leaf in leaves
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) and not jnp.isfinite(leaf).all()
    ]
