"""`fit`: from a loss, a model, batches and an Optax optimizer to a trained model."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, PyTree

from jaxrnn.train.log import Log, bar
from jaxrnn.train.positions import whole
from jaxrnn.train.run import Fit, Reports, Run


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
    lowest: bool = True,
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
    model before that step is kept. An optimizer that deals with them, `optax.apply_if_finite` or
    `optax.zero_nans`, is left to do so; then only what it lets through stops.

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
        evaluate: the model -> a dict of floats; called after every `evaluate_every` updates.
        evaluate_every: an epoch, if not given.
        metric: which of these numbers decides what is best.
        lowest: whether low is good.
        patience: evaluations in a row without a better one after which it stops; None for never.
        checkpoints: `Checkpoints(folder)`, or anything with its `save`, `restore` and `wait`.
        checkpoint_every: updates between two; there is one at the end, too.
        log: a file for one line of JSON every `log_every` updates and at each evaluation.
        tensorboard: a folder; needs tensorboardX.
        data_parallel: shares the rows of each batch out among all devices of all processes.
        progress: a bar on stderr, if that is a terminal and rich is installed.
    """
    every = len(batches) if evaluate_every is None else evaluate_every
    counts = dict(steps=steps, log_every=log_every, checkpoint_every=checkpoint_every)
    _check(optimizer, evaluate, patience, counts | {"evaluate_every": every})
    options = dict(data_parallel=data_parallel, evaluated=evaluate is not None)
    run = Run(loss, model, batches, optimizer, key, carry, **options)
    if checkpoints is not None:
        run.restore(checkpoints)
    speaks = jax.process_index() == 0
    diary = Log(*((log, tensorboard) if speaks else ()), step=run.step)
    with contextlib.closing(diary), bar(progress and speaks, steps, run.step) as show:
        reports = Reports(run, diary.history)
        while run.step < steps and run.patient(patience):
            report = run.advance()
            evaluating = evaluate is not None and run.step % every == 0
            saving = checkpoints is not None and run.step % checkpoint_every == 0
            last = run.step == steps
            reports.add(report, wanted=evaluating or last or run.step % log_every == 0)
            records = reports.read(late=not (evaluating or saving or last))
            if evaluate is not None and evaluating:
                records[-1] |= run.judge(evaluate, metric, lowest)
            for record in records:
                diary.write(record)
                show(record)
            if saving:  # after the lines, so that none is lost that a checkpoint is beyond
                run.save(checkpoints)
    if checkpoints is not None:
        run.finish(checkpoints)
    return run.result(diary.history, "steps" if run.step >= steps else "patience")


def _check(optimizer: Any, evaluate: Any, patience: int | None, counts: dict[str, int]) -> None:
    for name, value in (counts if patience is None else counts | {"patience": patience}).items():
        whole(name, value, 1)
    if not hasattr(optimizer, "update"):
        raise TypeError(f"optimizer must be one of Optax, got a {type(optimizer).__name__}")
    if patience is not None and evaluate is None:
        raise ValueError("patience counts evaluations: pass evaluate, a function of the model")
