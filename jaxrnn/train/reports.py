"""What updates report, read one step late, so that the device has the next one to do."""

import time
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrnn.train.log import Clock, numbers
from jaxrnn.train.run import Run
from jaxrnn.train.update import Report

AHEAD = 8  # updates that may wait for the device at most: their batches lie there already


class Pending(NamedTuple):
    """The report of an update, whether it is wanted as a record, and when it was made."""

    step: int
    report: Report
    wanted: bool
    moment: float


class Reports:
    """The reports of a run that are still to be read, and the clock that goes with them."""

    def __init__(self, run: Run) -> None:
        self._run, self._clock = run, Clock()
        self._pending: list[Pending] = []

    def add(self, report: Report, wanted: bool) -> None:
        """The report of the last update; whether it is wanted as a record."""
        moment = time.perf_counter() - self._run.aside
        self._pending.append(Pending(self._run.step, report, wanted, moment))

    def read(self, late: bool) -> tuple[list[dict[str, Any]], Pending | None]:
        """The records that were wanted; if late, of all but the last update, and not always.

        And the first update that was not sound, if there is one; the records are of those before.
        """
        before = self._pending[:-1] if late else self._pending
        if late and len(before) < AHEAD and not any(one.wanted for one in before):
            return [], None
        self._pending = self._pending[len(before) :]
        unsound = None
        if not jax.device_get(before[-1].report.sound):  # which it stays, once it is
            sound = jax.device_get([one.report.sound for one in before])
            first = int(np.argmin(sound))
            unsound, before = before[first], before[:first]
        return self._records(before), unsound

    def _records(self, before: list[Pending]) -> list[dict[str, Any]]:
        records = []
        tokens = jax.device_get([one.report.tokens for one in before])
        for one, count in zip(before, tokens, strict=True):
            self._clock.count(one.moment, count)
            if one.wanted:
                first = {"step": one.step, "loss": None, "gradient_norm": None}  # in this order
                told = numbers(jax.device_get(one.report.numbers))
                records.append(first | told | self._clock.read(one.moment))
        return records
