"""What a training run tells: lines of JSON, and TensorBoard."""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

BEGINNING = '{"step": '  # of every line, and so of every file that is a log


class Log:
    """One JSON object a line, one line for each step that is logged, on disk as soon as written.

    A file tells of one run. Where it goes on after `step`, later lines of the file are dropped,
    and so is one that was cut off; the ones before stay, and are the beginning of `history`.
    What is not a number in a line, NaN or infinite, is null.

    Args:
        path: the file, or None for `history` alone. What is no regular file is written to and
            not read.
        tensorboard: a folder for TensorBoard, written by tensorboardX; None for none.
        step: updates made before.

    Raises:
        ValueError: the file is there and is no log.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Any = None, tensorboard: Any = None, *, step: int = 0) -> None:
        self._board = _board(tensorboard, step) if tensorboard is not None else None
        self.history: list[dict[str, Any]] = []
        self._file = None
        if path is not None:
            self._path = Path(path)
            with _named(self._path):
                self._open(step)

    def _open(self, step: int) -> None:
        path = self._path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() or not path.exists():
            self.history += [record for record in _records(path) if record["step"] <= step]
            part = path.with_name(f".{path.name}.part")
            part.write_text("".join(map(_line, self.history)), encoding="utf-8")
            os.replace(part, path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Adds the record of one step; raises `OSError` if the file takes no more."""
        self.history.append(record)
        if self._file is not None:
            with _named(self._path):
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
                with contextlib.suppress(OSError):  # what cannot be written was said at its line
                    out.close()


class Clock:
    """Steps and tokens in a second, from one reading to the next, the first step not counted.

    That one is compiled, and so is it for each new shape.
    """

    def __init__(self) -> None:
        self._last: float | None = None
        self._steps, self._tokens = 0, 0

    def count(self, moment: float, tokens: Any) -> None:
        """One more step, with its real steps of sequences; None if they are not known."""
        if self._last is None:
            self._last = moment
        else:
            self._steps += 1
            self._tokens += int(tokens or 0)

    def read(self, moment: float) -> dict[str, float]:
        """Both speeds since the last reading, those that are known."""
        if self._last is None or not self._steps:
            return {}
        passed = max(moment - self._last, 1e-9)
        speeds = {"steps_per_second": self._steps / passed}
        if self._tokens:
            speeds["tokens_per_second"] = self._tokens / passed
        self._last, self._steps, self._tokens = moment, 0, 0
        return {name: float(f"{speed:.4g}") for name, speed in speeds.items()}


def numbers(values: dict[str, Any]) -> dict[str, Any]:
    """Scalars and small arrays as Python's own numbers."""
    return {name: np.asarray(value).tolist() for name, value in values.items()}


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file, without a last one that was cut off."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    *lines, rest = text.split("\n")
    if not lines and not rest.startswith(BEGINNING[: len(rest)]):
        lines = [rest]
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            raise ValueError(
                f"{path} is not a log of fit, line {number} is no record: choose another file"
            )
        yield record


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """One error, with the path that the user gave."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"cannot write the log {path}: {reason}; choose another file") from None


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
