"""What a training run tells: lines of JSON, TensorBoard, and a bar on the terminal."""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


class Log:
    """One JSON object a line, one line for each step that is logged, on disk as soon as written.

    A file tells of one run. Where it goes on after `step`, later lines of the file are dropped,
    and so is one that was cut off; the ones before stay, and are the beginning of `history`.
    What is not a number in a line, NaN or infinite, is null.

    Args:
        path: the file, or None for `history` alone.
        tensorboard: a folder for TensorBoard, written by tensorboardX; None for none.
        step: updates made before.
    """

    def __init__(self, path: Any = None, tensorboard: Any = None, *, step: int = 0) -> None:
        self._board = _board(tensorboard, step) if tensorboard is not None else None
        self.history: list[dict[str, Any]] = []
        self._file = None
        if path is not None:
            path = Path(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.history = [record for record in _records(path) if record["step"] <= step]
            part = path.with_name(f".{path.name}.part")
            part.write_text("".join(map(_line, self.history)), encoding="utf-8")
            os.replace(part, path)
            self._file = path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Adds the record of one step."""
        self.history.append(record)
        if self._file is not None:
            self._file.write(_line(record))
            self._file.flush()
        if self._board is not None:
            for name, value in record.items():
                if name != "step" and isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Closes what was opened."""
        for out in (self._file, self._board):
            if out is not None:
                out.close()


class Clock:
    """Steps and tokens in a second, from one reading to the next."""

    def __init__(self) -> None:
        self._last, self._steps, self._tokens = time.perf_counter(), 0, 0

    def count(self, tokens: Any) -> None:
        """One more step, with its real steps of sequences; None if they are not known."""
        self._steps += 1
        self._tokens += int(tokens or 0)

    def read(self) -> dict[str, float]:
        """Both speeds since the last reading, the second only if there were tokens."""
        now = time.perf_counter()
        passed = max(now - self._last, 1e-9)
        speeds = {"steps_per_second": self._steps / passed}
        if self._tokens:
            speeds["tokens_per_second"] = self._tokens / passed
        self._last, self._steps, self._tokens = now, 0, 0
        return {name: float(f"{speed:.4g}") for name, speed in speeds.items()}


@contextlib.contextmanager
def bar(shown: bool, total: int, step: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar on stderr, if that is a terminal; yields `show(record)`, called after each line."""
    drawn = _rich() if shown and sys.stderr.isatty() else None
    if drawn is None:
        yield lambda record: None
        return
    with drawn:
        task = drawn.add_task("", total=total, completed=step)

        def show(record: dict[str, Any]) -> None:
            units = [unit for unit in ("steps", "tokens") if f"{unit}_per_second" in record]
            speeds = [f"{_short(record[f'{unit}_per_second'])} {unit}/s" for unit in units]
            text = " · ".join([f"loss {record['loss']:.4g}", *speeds])
            drawn.update(task, completed=record["step"], description=text)

        yield show


def _rich() -> Any:
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:  # training goes on without
        return None
    columns = (
        progress.BarColumn(12),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.description}"),
        progress.TimeRemainingColumn(compact=True),
        progress.TextColumn("left"),
    )  # short enough for 80 columns
    return progress.Progress(*columns, console=Console(stderr=True))


def _short(speed: float) -> str:
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"


def numbers(values: dict[str, Any]) -> dict[str, Any]:
    """Scalars and small arrays as Python's own numbers."""
    return {name: np.asarray(value).tolist() for name, value in values.items()}


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file as far as they are whole."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    for line in lines:
        try:
            record = json.loads(line) if line.endswith("\n") else None
        except ValueError:
            return
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            return
        yield record


def _line(record: dict[str, Any]) -> str:
    return json.dumps(_plain(record), ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _board(folder: Any, step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ImportError("tensorboard=… needs tensorboardX: pip install 'jaxrnn[train]'") from None
    # what an earlier run wrote of later steps is not shown
    return SummaryWriter(str(folder), purge_step=step + 1)
