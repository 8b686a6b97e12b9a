"""`fit`: from a loss, a model, batches and an Optax optimizer to a trained model."""

import contextlib
import inspect
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from jaxrnn.cell import whole
from jaxrnn.train.checkpoints import Checkpoints
from jaxrnn.train.log import Log
from jaxrnn.train.progress import progress as show_progress
from jaxrnn.train.reports import Reports
from jaxrnn.train.run import Fit, Run


def fit(
    loss: Callable,
    model: PyTree,
    batches: Any,
    optimizer: Any,
    *,
    steps: int,
    key: Array | None = None,
    carry: PyTree = None,
    evaluate: Callable[[PyTree], dict[str, Any]] | None = None,
    evaluate_every: int | None = None,
    metric: str = "loss",
    lowest: bool | None = None,
    patience: int | None = None,
    checkpoints: Any = None,
    checkpoint_every: int = 1000,
    log: Any = None,
    log_every: int = 10,
    tensorboard: Any = None,
    data_parallel: bool = False,
    progress: bool = True,
) -> Fit:
    """Trains a model; the one that was passed in stays as it is.

        trained = fit(loss, model, Batches(data, 32), optax.adam(1e-3), steps=1000)

    Update n, counted from 0, is made on `batches[n]` with the key `fold_in(key, n)`. With
    `checkpoints` a run that was killed goes on, bit for bit, when it is started again.

    Loss, gradients or updates that are not finite stop it with a `NotFiniteError`, in which the
    model before that step is kept; so does NaN that comes into the carry or a variable. An
    optimizer that deals with them, such as `optax.apply_if_finite` or `optax.zero_nans`, is left to
    do so; then only what it lets through stops.

    Args:
        loss: `loss(model, batch, key) -> scalar` or `(scalar, metrics)`, metrics a dict of
            scalars; with a carry `loss(model, batch, key, carry) -> (scalar, carry)` or
            `(scalar, (carry, metrics))`. The key is None if there is none: nothing is drawn.
            Compiled once for each shape and kept, as by `jax.jit`: what it closes over is fixed.
        model: an NNX module, of which `nnx.Param`s are trained and other variables are carried
            along, or any tree of arrays, of which floating and complex ones are trained.
        batches: `len(batches)` of an epoch and `batches[position]`, a pytree of arrays.
        optimizer: of Optax, clipping and schedules in it. It is also told `value`, the loss,
            and xs, lengths, resets and carry if the batch has them, as a monitor wants.
        steps: updates in all, those before a checkpoint included.
        key: what the keys of all steps come from.
        carry: what the first window of each epoch starts from, rows first: truncated BPTT.
            It is handed on from window to window; gradients end there.
        evaluate: the model -> a dict of floats; called after every `evaluate_every` updates, and
            after the last one.
        evaluate_every: an epoch, if not given.
        metric: which of these numbers decides what is best; compared in single precision.
        lowest: whether low is good; of any other metric than the loss it has to be said.
        patience: evaluations in a row without a better one after which it stops; None for never.
        checkpoints: `Checkpoints(folder)`, or a folder for these, or anything with their `save`,
            `restore` and `wait`.
        checkpoint_every: updates between two; there is one at the end, too.
        log: a file for one line of JSON every `log_every` updates and at each evaluation. A run
            that goes on from a checkpoint goes on in its log; any other replaces it.
        tensorboard: a folder; needs tensorboardX.
        data_parallel: shares the rows of each batch out among all devices of all processes.
        progress: a bar on stderr, if that is a terminal or notebook and rich is installed, else a
            line now and then; and one if the run goes on from a checkpoint.

    Raises:
        NotFiniteError: as above.
        ValueError, TypeError: an argument is not what it should be, the checkpoint is of another
            model or beyond `steps`, or the log is another file.
        CheckpointError: a checkpoint could not be written or read.
        OSError: the log could not be written.
    """
    _check_batches(batches)
    every = len(batches) if evaluate_every is None else evaluate_every
    counts = dict(steps=steps, log_every=log_every, checkpoint_every=checkpoint_every)
    lowest = _direction(metric, lowest)
    _check_counts(evaluate, patience, counts | {"evaluate_every": every})
    _check_optimizer(optimizer)
    _check_loss(loss, key, carry)
    speaks = jax.process_index() == 0
    with _opened(checkpoints) as checkpoints:
        options = dict(data_parallel=data_parallel, evaluated=evaluate is not None)
        run = Run(loss, model, batches, optimizer, key, carry, checkpoints, **options)
        restored = run.restore()
        if run.step > steps:
            raise ValueError(
                f"{_name(checkpoints)} holds step {run.step}, beyond steps={steps}, which counts "
                "those before a checkpoint: ask for more steps, or choose another folder"
            )
        diary = Log(*((log, tensorboard) if speaks else ()), step=run.step)
        drawn = show_progress(progress and speaks, steps, run.step)
        with contextlib.closing(diary), drawn as (say, show), run.settling():
            if restored:
                say(_goes_on(run.step, run.step < steps and run.patient(patience), checkpoints))
            if evaluate is not None and run.step == steps and steps % every:
                run.judge(evaluate, metric, lowest, lasting=False)  # of which no checkpoint knows
            reports = Reports(run)
            while run.step < steps and run.patient(patience):
                report = run.advance()
                last, on_time = run.step == steps, run.step % every == 0
                evaluating = evaluate is not None and (on_time or last)
                saving = checkpoints is not None and run.step % checkpoint_every == 0
                reports.add(report, wanted=evaluating or last or run.step % log_every == 0)
                records, unsound = reports.read(late=not (evaluating or saving or last))
                if evaluate is not None and evaluating and unsound is None:
                    records[-1] |= run.judge(evaluate, metric, lowest, lasting=on_time)
                for record in records:
                    diary.write(record)
                    show(record)
                if unsound is not None:
                    raise run.failure(unsound.step - 1, unsound.report, diary.history)
                if saving:  # after the lines, so that none is lost that a checkpoint is beyond
                    run.save()
            run.finish()
        return run.result(diary.history, "steps" if run.step >= steps else "patience")


def _opened(checkpoints: Any) -> Any:
    """What is entered for checkpoints: those of a folder are ours to close."""
    if isinstance(checkpoints, (str, os.PathLike)):
        return Checkpoints(checkpoints)
    return contextlib.nullcontext(checkpoints)


def _name(checkpoints: Any) -> str:
    return str(getattr(checkpoints, "folder", "the checkpoint"))


def _goes_on(step: int, further: bool, checkpoints: Any) -> str:
    if further:
        return f"goes on from step {step} of {_name(checkpoints)}"
    return f"{_name(checkpoints)} is at step {step} already: nothing left to do"


def _direction(metric: str, lowest: bool | None) -> bool:
    if lowest is None and metric != "loss":
        raise ValueError(
            f"metric={metric!r} needs lowest=True or lowest=False: whether low is good, as of an "
            "error, or high, as of an accuracy"
        )
    return lowest is not False


def _check_counts(evaluate: Any, patience: int | None, counts: dict[str, int]) -> None:
    for name, value in (counts if patience is None else counts | {"patience": patience}).items():
        whole(name, value, 1)
    if patience is not None and evaluate is None:
        raise ValueError("patience counts evaluations: pass evaluate, a function of the model")


def _check_batches(batches: Any) -> None:
    endless = hasattr(batches, "__len__") and hasattr(batches, "__getitem__")
    if not endless or isinstance(batches, (dict, list, tuple, str, np.ndarray, jax.Array)):
        raise TypeError(
            "batches must have a length and batches[position] for any position from 0 on, as "
            f"Batches, Windows and Samples have, got a {type(batches).__name__}: make "
            "Batches(data, size) of the examples"
        )
    if len(batches) < 1:
        raise ValueError(f"batches must have at least one, got a {type(batches).__name__} of none")


def _check_optimizer(optimizer: Any) -> None:
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        called = callable(optimizer) and hasattr(optimizer, "__name__")
        cure = f"call it: {optimizer.__name__}(…)" if called else "such as optax.adam(1e-3)"
        raise TypeError(f"optimizer must be one of Optax, got a {type(optimizer).__name__}: {cure}")


def _check_loss(loss: Callable, key: Any, carry: PyTree) -> None:
    if not isinstance(key, jax.Array | None):
        raise TypeError(f"key must come from jax.random.key(seed), got {key!r}")
    names = ("model", "batch", "key") if carry is None else ("model", "batch", "key", "carry")
    try:
        signature = inspect.signature(loss)
    except (TypeError, ValueError):  # not everything that can be called tells
        return
    try:
        signature.bind(*names)
    except TypeError as error:
        raise TypeError(
            f"loss is called with ({', '.join(names)}), but takes {signature}: {error}"
        ) from None
