"""What all experiments share: one command line, one JSON, a table, progress, errors in a line."""

import concurrent.futures
import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

Config = TypeVar("Config")
Item = TypeVar("Item")
Output = TypeVar("Output")
QUIET = 30.0  # seconds between two lines of progress where there is no terminal to draw on


class UsageError(Exception):
    """A mistake in what the user passed in, told in one line that says what to do."""


def main(
    config_class: type[Config], run: Callable[[Config], Any], arguments: Sequence[str] | None = None
) -> None:
    """Reads a config from the command line and runs the experiment; exit code 2 on bad input."""
    # a heading and what is indented below it is a paragraph of its own
    description = re.sub(r"\n+(?=\S+.*\n    )", "\n\n", sys.modules[run.__module__].__doc__ or "")
    config = tyro.cli(
        config_class,
        prog=_command(),
        args=arguments,
        description=description,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        run(config)
    except UsageError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped: no result was written", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # whoever read what is printed has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def _command() -> str | None:
    """How the experiment was started, for its help."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = getattr(spec, "name", "")
    return f"python -m {name}" if name.startswith("experiments.") else None


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turns what the library raises at its boundary into a `UsageError`."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def results_folder(path: Path) -> Path:
    """Makes the folder, and makes sure *before* a long run that results can be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UsageError(
            f"cannot write to the folder {path}: {error.strerror}; choose another with --output"
        ) from None
    return path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to; the file appears under its own name only when it is complete."""
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, result: dict) -> None:
    """Writes a result; what JSON has no number for becomes "Infinity", "-Infinity" or "NaN"."""
    text = json.dumps(plain(result), ensure_ascii=False, allow_nan=False, indent=1)
    with whole_file(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, experiment: str) -> dict:
    """Reads a result of one experiment back."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{path} is not a JSON file") from None
    if not isinstance(result, dict) or result.get("experiment") != experiment:
        raise UsageError(f"{path} is not a result of experiments.{experiment}")
    return _numbers(result)


def plain(value: Any) -> Any:
    """Arrays, tuples, paths and dataclass-like values as what JSON knows, six digits each."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if hasattr(value, "tolist") and not isinstance(value, float):
        return plain(np.asarray(value).tolist())
    if not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return float(f"{value:.6g}")


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return float(value) if value in ("Infinity", "-Infinity", "NaN") else value


def machine() -> dict:
    """Versions and device, for the record."""
    import jax

    device = jax.devices()[0]
    packages = ("jaxrnn", "jax", "jaxlib", "numpy", "optax")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "device": f"{device.platform}: {device.device_kind}",
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def console(error: bool = False) -> Console:
    """The terminal; what is piped elsewhere gets 120 columns."""
    out = Console(stderr=error, highlight=False, markup=False, emoji=False)
    if not out.is_terminal:
        out.width = 120
    return out


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: first column to the left, the others to the right; an empty row is a rule."""
    table = Table(box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        cells = [len(row[i]) for row in rows if row]
        # on a narrow terminal the first column gives way, but does not vanish
        least = min(max(cells, default=0), 12) if i == 0 else None
        table.add_column(
            column, justify="left" if i == 0 else "right", no_wrap=i > 0, min_width=least
        )
    for row in rows:
        if row:
            table.add_row(*row)
        else:
            table.add_section()
    out = console()
    out.print(f"\n{title}", style="bold")  # across the terminal, however narrow the table is
    out.print(table)


@contextlib.contextmanager
def progress(total: float) -> Iterator[Callable[[float, str], None]]:
    """A bar on stderr, or a line now and then; yields `advance(by, what has just been done)`.

    Once the block is left, by an error or by Ctrl-C, `advance` raises, which ends the threads that
    still call it.
    """
    columns = (BarColumn(40), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())
    text = TextColumn("{task.description}")
    left = threading.Event()
    seen = console(error=True)
    due = [time.monotonic() + QUIET]
    with Progress(*columns, text, console=seen, transient=True) as bar:
        task = bar.add_task("", total=total)

        def advance(by: float, what: str) -> None:
            if left.is_set():
                raise RuntimeError("the run was stopped")
            bar.update(task, advance=by, description=what)
            if not (seen.is_terminal or seen.is_jupyter) and time.monotonic() >= due[0]:
                due[0] = time.monotonic() + QUIET
                seen.print(f"{bar.tasks[0].percentage:.0f} % {what}")

        try:
            yield advance
        finally:
            left.set()


def about_fonts(missing: str) -> list[str]:
    """What to say of characters that no font has, and for which a figure shows boxes."""
    if not missing:
        return []
    some = " ".join(missing[:8]) + (" …" if len(missing) > 8 else "")
    return [
        f"No installed font has {some}: the figure shows boxes in their place. For Chinese, "
        "install Noto Sans CJK (Debian, Ubuntu: apt install fonts-noto-cjk) and draw again with "
        "--from."
    ]


def side_by_side(function: Callable[[Item], Output], items: Iterable[Item]) -> list[Output]:
    """`[function(item) for item in items]` on two threads, results in order.

    Small recurrent networks keep about one core busy; compiled code runs outside Python's lock.
    """
    pool = concurrent.futures.ThreadPoolExecutor(2)
    try:
        return list(pool.map(function, items))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def sized(config: Any, quick: dict[str, Any], full: dict[str, Any] | None = None) -> Any:
    """With --quick or --full, the numbers of `quick` or `full` wherever none was asked for."""
    if full is not None and config.quick and config.full:
        raise UsageError("--quick and --full exclude each other")
    other = quick if config.quick else full if full is not None and config.full else {}
    default = type(config)()
    asked = {k for k in other if getattr(config, k) != getattr(default, k)}
    return dataclasses.replace(config, **{k: v for k, v in other.items() if k not in asked})
