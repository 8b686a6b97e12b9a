"""What `fit` is made of: the state of a run, the best model in it, and how it is saved."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxrnn.cell import describe
from jaxrnn.train import sharding
from jaxrnn.train.parts import check_arrays, parts_of
from jaxrnn.train.update import Report, State, Update, compiled, fresh, homes, skips


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
    """Something was NaN, or infinite where it may not be; nothing of that step was applied.

    step: the update that failed, counted from 1. position: of its batch, counted from 0.
    path: the first leaf concerned, in the order of the tree; None if it is the loss alone.
    checkpoint: the step of the last checkpoint that was written; None if there is none.
    fit: a `Fit` of the steps before, with the model and the optimizer as they were.
    """

    def __init__(
        self, sentence: str, *, position: int, path: str | None, checkpoint: int | None, fit: Fit
    ) -> None:
        super().__init__(sentence)
        self.step, self.position, self.path = position + 1, position, path
        self.checkpoint, self.fit = checkpoint, fit

    def __reduce__(self) -> tuple:
        kept = {name: getattr(self, name) for name in ("position", "path", "checkpoint", "fit")}
        return functools.partial(NotFiniteError, **kept), self.args


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
        checkpoints: Any,
        *,
        data_parallel: bool,
        evaluated: bool,
    ) -> None:
        check_arrays("model", model)
        check_arrays("carry", carry)
        self._parts, self._batches, self._checkpoints = parts_of(model), batches, checkpoints
        self._mesh = sharding.mesh(data_parallel)
        self.step, self.aside = 0, 0.0
        self._saved: int | None = None
        self._written: int | None = None
        self._lost: Exception | None = None
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
        self._best = self._chosen = Best(np.float32(np.nan), np.int32(0), np.int32(0), parts)

    def _begin(self, state: State) -> None:
        self.state = sharding.put(fresh(state), homes(state, self._mesh))

    def _copy(self) -> tuple[PyTree, PyTree]:
        """The parts of the model, out of reach of the next update, which reuses the memory."""
        return fresh(sharding.local((self.state.trained, self.state.rest)))

    def advance(self) -> Report:
        """Makes the next update, or rather has the device make it."""
        batch = sharding.put_rows(self._batches[self.step], self._mesh)
        begins = np.bool(self.step % len(self._batches) == 0)
        self.state, report = self._update(self.state, batch, self._key, self._start, begins)
        self.step += 1
        return report

    def judge(
        self, evaluate: Callable, metric: str, lowest: bool, lasting: bool
    ) -> dict[str, float]:
        """Evaluates the model and keeps it if it is the best so far.

        lasting: whether checkpoints are to know. They are not where it is done only because the run
        ends, so that one that is made longer goes on as if it had never ended there.
        """
        with self._aside():
            parts = self._copy()
            values = _scalars(evaluate(self._parts.merge(*parts)), metric)
        # in single precision always, so that nothing is lost in a checkpoint
        value, best = np.float32(values[metric]), self._best
        better = value < best.value if lowest else value > best.value
        if better or (best.step == 0 and not np.isnan(value)):
            self._chosen = Best(value, np.int32(self.step), np.int32(0), parts)
        else:
            self._chosen = best._replace(stale=np.int32(best.stale + 1))
        if lasting:
            self._best = self._chosen
        return {f"evaluate/{name}": value for name, value in values.items()}

    def patient(self, patience: int | None) -> bool:
        """Whether evaluations without a better one are still fewer than that."""
        return patience is None or int(self._best.stale) < patience

    def save(self) -> None:
        """Hands over all that a run needs to go on."""
        with self._aside():
            everywhere = sharding.replicated(self._mesh)  # rows of other processes are saved, too
            state = self.state._replace(carry=sharding.put(self.state.carry, everywhere))
            self._checkpoints.save(self.step, {"state": state, "best": self._best})
            # which waits for the one before
            self._written, self._saved = self._saved, self.step

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """What is done here is no training: its seconds are counted apart."""
        began = time.perf_counter()
        yield
        self.aside += time.perf_counter() - began

    @contextlib.contextmanager
    def settling(self) -> Iterator[None]:
        """Whatever ends a run, it ends after the checkpoint in flight has arrived."""
        try:
            yield
        except BaseException as error:
            self._settle()
            if self._lost is not None:
                error.add_note(str(self._lost))
            raise

    def _settle(self) -> None:
        try:
            if self._checkpoints is not None:
                self._checkpoints.wait()
            self._written = self._saved
        except Exception as error:
            self._lost, self._saved = error, self._written

    def finish(self) -> None:
        """Returns when the last state is saved for every process to find."""
        if self._checkpoints is None:
            return
        if self._saved != self.step:
            self.save()
        self._checkpoints.wait()
        sharding.meet(self._mesh)

    def restore(self) -> bool:
        """Goes on from the newest checkpoint, and tells whether there is one."""
        if self._checkpoints is None:
            return False
        try:
            found = self._checkpoints.restore({"state": self.state, "best": self._best})
        except ValueError as error:
            raise _with_cause(error) from None
        if found is not None:
            self.step, kept = int(found[0]), found[1]
            self._saved = self._written = self.step
            self._begin(State(*kept["state"]))
            self._best = self._chosen = kept["best"]
        return found is not None

    def result(self, history: list[dict[str, Any]], stopped: str) -> Fit:
        """The record of the run so far."""
        last, best = self._copy(), self._chosen
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
        report = jax.device_get(report)
        what = [] if report.finite.loss else [f"the loss is {report.numbers['loss']}"]
        trees = dict(gradients=self.state.trained, updates=self.state.trained)
        trees |= dict(carry=self.state.carry, variables=self.state.rest)
        path = None
        for kind, tree in trees.items():
            names, flags = _paths(tree), getattr(report.finite, kind)
            bad = [name for name, finite in zip(names, flags, strict=True) if not finite]
            if bad and path is None:
                path = bad[0]
                what.append(f"{_KINDS[kind].format(path)} ({len(bad)} of {len(names)} leaves)")
        spoilt = _not_finite(self._batches[position])
        what += [f"the batch itself is not finite at {name}" for name in spoilt]
        self._settle()
        saved = f", the last checkpoint is of step {self._written}"
        return NotFiniteError(
            f"step {position + 1}, batches[{position}]: {'; '.join(what)}. Nothing of it was "
            f"applied: the model before is error.fit.last{'' if self._written is None else saved}. "
            f"{_cure(report, spoilt)}",
            position=position,
            path=path,
            checkpoint=self._written,
            fit=self.result(history, "not finite"),
        )


_KINDS = {
    "gradients": "the gradient of {} is not finite",
    "updates": "the update of {} is not finite",
    "carry": "the carry became NaN at {}",
    "variables": "the variable {} became NaN",
}


def _cure(report: Report, spoilt: list[str]) -> str:
    if spoilt:
        return "Mend that batch, or skip such steps by optax.apply_if_finite"
    if report.finite.loss and report.finite.gradients.all() and report.finite.updates.all():
        return "Look at what the loss makes of it there: nothing else is wrong yet"
    return (
        "Lower the learning rate, clip gradients, or skip such steps by optax.apply_if_finite; a "
        "token or class that does not exist is NaN, too"
    )


def _scalars(values: Any, metric: str) -> dict[str, float]:
    """What the user's evaluation returned, as floats."""
    if not isinstance(values, dict):
        raise TypeError(
            f"evaluate must return a dict of floats, such as {{{metric!r}: 0.5}}, got "
            f"{describe(values)}"
        )
    for name, value in values.items():
        if np.ndim(value) != 0:
            raise TypeError(
                f"evaluate must return a dict of floats, but {name!r} has shape {np.shape(value)}: "
                "reduce it to one number"
            )
    if metric not in values:
        raise ValueError(f"evaluate must return {metric!r}, the metric; got {sorted(values)}")
    return {name: float(value) for name, value in values.items()}


def _with_cause(error: ValueError) -> ValueError:
    """The error of a template that does not fit, with the argument of `fit` that makes it so."""
    text = str(error)
    absent = " is not in the checkpoint" in text or "and not in the template" in text
    for part, argument in {"['best'].parts": "evaluate", "['state'].carry": "carry"}.items():
        if absent and f"state{part}" in text:
            return ValueError(
                f"{text}. One run was given `{argument}` and the other was not: it cannot be added "
                "or left out midway"
            )
    return error


def _paths(tree: PyTree) -> list[str]:
    """Of each floating leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [
        jax.tree_util.keystr(path)
        for path, leaf in leaves
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]


def _not_finite(batch: PyTree) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    return [
        jax.tree_util.keystr(path)
        for path, leaf in leaves
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) and not jnp.isfinite(leaf).all()
    ]
