"""What experiments that weigh claims share: verdicts in words, one JSON, all else drawn from it."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import _common as common
from experiments._common import UsageError


def claim(text: str, holds: Any, measured: str, only_if: str = "") -> dict:
    """A verdict on a claim: whether it holds has been computed, and so has `only_if`.

    only_if: the condition under which a claim that is false as written was found to be true.
    """
    return dict(claim=text, holds=bool(holds), only_if=only_if, measured=measured)


def sentence(verdict: dict) -> str:
    """A verdict as it is printed."""
    word = "Holds" if verdict["holds"] else "False as written"
    if not verdict["holds"] and verdict["only_if"]:
        word = f"Holds if {verdict['only_if']}, false as written"
    return f"{word}: {verdict['claim']}. {verdict['measured']}."


def conduct(
    name: str,
    config: Any,
    measure: Callable[[Any], dict],
    show: Callable[[dict], None],
    draw: Callable[[dict], Figure],
) -> dict:
    """Measures, or reads what was measured; prints table and verdicts, draws the figure.

    Both are made from the JSON, so that `--from` gives them again.
    """
    folder = common.results_folder(config.output)
    path = folder / f"{name}.json"
    if config.redraw is None:
        began = time.perf_counter()
        found = measure(config)
        about = dict(config=dataclasses.asdict(config), machine=common.machine())
        seconds = time.perf_counter() - began
        common.write_json(path, dict(experiment=name, **about, seconds=seconds, **found))
    result = common.read_json(config.redraw or path, name)
    if "verdicts" not in result:
        raise UsageError(f"{config.redraw} holds no verdicts: measure again, without --from")
    show(result)
    for verdict in result["verdicts"]:
        print(sentence(verdict))
    picture = path.with_suffix(".png")
    with common.whole_file(picture) as part:
        draw(result).savefig(part, dpi=150)
    print(f"Wrote {picture}; measured in {result['seconds']:.0f} s.")
    return result


def at_least(config: Any, **least: float) -> None:
    """Raises if a number of the config is below what makes sense."""
    for field, value in least.items():
        if not getattr(config, field) >= value:
            flag = "--" + field.replace("_", "-")
            raise UsageError(f"{flag} must be at least {value}, got {getattr(config, field)}")


def one_of(flag: str, got: Sequence[str], known: Sequence[str]) -> None:
    """Raises if a list of names is empty, repeats itself or has one that is not known."""
    if not got or len(set(got)) < len(got) or not set(got) <= set(known):
        raise UsageError(f"{flag} takes one or more of {', '.join(map(repr, known))}, each once")


def deviation(values: Any) -> float:
    """The standard deviation over seeds, 0 for a single one."""
    values = np.asarray(values, float)
    return float(values.std(ddof=1)) if values.size > 1 and np.isfinite(values).all() else 0.0


def spread(values: Any, digits: int = 3) -> str:
    """Mean and standard deviation over seeds, in a few characters; the median if one is −∞."""
    values = np.asarray(values, float).ravel()
    if not np.isfinite(values).all():
        return f"{np.median(values):+.{digits}f}"
    text = f"{values.mean():+.{digits}f}"
    return f"{text} ± {deviation(values):.{digits}f}" if values.size > 1 else text


def above(values: Any, level: float = 0.0) -> bool:
    """Whether the mean over seeds is above a level by more than their standard deviation."""
    values = np.asarray(values, float)
    return bool(np.mean(values) - deviation(values) > level)


def below(values: Any, level: float = 0.0) -> bool:
    """Whether the mean over seeds is below a level by more than their standard deviation."""
    return above(-np.asarray(values, float), -level)
