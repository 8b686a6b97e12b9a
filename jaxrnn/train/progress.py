"""How far a run has come, on stderr: a bar on a terminal, now and then a line in a file."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

FIRST, AFTER = 10.0, 30.0  # seconds until the first line, and from one to the next at least

Say = Callable[[str], None]
Show = Callable[[dict[str, Any]], None]


@contextlib.contextmanager
def progress(shown: bool, total: int, step: int) -> Iterator[tuple[Say, Show]]:
    """Yields `say(sentence)` and `show(record)`, which is called after each line of the log."""
    drawn = _rich() if shown else None
    if not shown:
        yield (lambda sentence: None), (lambda record: None)
    elif drawn is None:
        yield _say, _lines(total)
    else:
        with drawn:
            task = drawn.add_task("", total=total, completed=step)

            def show(record: dict[str, Any]) -> None:
                drawn.update(task, completed=record["step"], description=_text(record))

            yield (lambda sentence: drawn.console.print(sentence, markup=False)), show


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _lines(total: int) -> Show:
    due = time.monotonic() + FIRST

    def show(record: dict[str, Any]) -> None:
        nonlocal due
        if time.monotonic() >= due:
            _say(f"{record['step']}/{total} · {_text(record)}")
            due = time.monotonic() + AFTER

    return show


def _rich() -> Any:
    """A bar of rich, or None if it is not installed or has nowhere to draw."""
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:  # training goes on without
        return None
    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        return None
    columns = (
        progress.BarColumn(12),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.description}"),
        progress.TimeRemainingColumn(compact=True),
        progress.TextColumn("left"),
    )  # short enough for 80 columns
    return progress.Progress(*columns, console=console)


def _text(record: dict[str, Any]) -> str:
    units = [unit for unit in ("steps", "tokens") if f"{unit}_per_second" in record]
    speeds = [f"{_short(record[f'{unit}_per_second'])} {unit}/s" for unit in units]
    return " · ".join([f"loss {record['loss']:.4g}", *speeds])


def _short(speed: float) -> str:
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"
