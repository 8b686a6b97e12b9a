"""Batches of continuous text, of fresh examples, and made ahead of time."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from jaxrnn.cell import whole
from jaxrnn.train.positions import Positions, place


class Windows(Positions):
    """Continuous text, or any series, in windows: batch n + 1 goes on where batch n stopped.

    The series is cut into `batch` rows, one below the other, and these into windows. A batch is
    `{"tokens": (batch, window, …), "targets": (batch, window, …)}`, the targets one step ahead.
    With a carry that is handed on, as `fit` does, a row is read from its beginning to its end; the
    steps that do not fill a window in all rows are left out.

    Args:
        tokens: the series, `(steps, …)`.
        batch: rows that are read side by side.
        window: steps of one batch, the reach of gradients in truncated BPTT.
    """

    def __init__(self, tokens: Any, batch: int, window: int) -> None:
        tokens = np.asarray(tokens)
        self._batch, self._window = whole("batch", batch, 1), whole("window", window, 1)
        self._length = (len(tokens) - 1) // (batch * window)
        if self._length < 1:
            raise ValueError(
                f"{len(tokens)} steps are too few for {batch} rows of a window of {window} and one "
                f"step more: {batch * window + 1} are needed"
            )
        self._tokens = tokens

    def __len__(self) -> int:
        """Windows of a row."""
        return self._length

    def __getitem__(self, position: int) -> dict[str, np.ndarray]:
        """The batch at any position from 0 on; all epochs are alike."""
        first = place(position) % len(self) * self._window
        rows = np.arange(self._batch)[:, None] * (len(self) * self._window)
        here = rows + np.arange(first, first + self._window)
        return {"tokens": self._tokens[here], "targets": self._tokens[here + 1]}


class Samples(Positions):
    """Fresh examples without end, for tasks that are a function of a key.

        batches = Samples(jaxrnn.tasks.Adding(length=200).sample, 32, key=jax.random.key(0))

    Args:
        sample: a key -> one example, a pytree of arrays; a pure function that `jax.vmap` takes.
        size: examples of a batch.
        key: what all examples come from; those of position n from `fold_in(key, n)`.
        epoch: how many batches are called an epoch.
    """

    def __init__(
        self, sample: Callable[[Array], PyTree], size: int, *, key: Array, epoch: int = 1000
    ) -> None:
        self._length, size = whole("epoch", epoch, 1), whole("size", size, 1)

        def draw(position: Array) -> PyTree:
            return jax.vmap(sample)(jax.random.split(jax.random.fold_in(key, position), size))

        self._draw = jax.jit(draw)

    def __len__(self) -> int:
        """Batches of what is called an epoch."""
        return self._length

    def __getitem__(self, position: int) -> PyTree:
        """The batch at any position from 0 on."""
        return self._draw(np.uint32(place(position)))


class Prefetched(Positions):
    """The same batches, made ahead of time by Grain, in threads or in other processes.

    Each position is the batch that it was. Asked in order, as `fit` does, the next ones are on
    their way; asked for another, it starts there.

    Each worker imports the script that was run: with workers, what a script does must stand under
    `if __name__ == "__main__":`, or they would do it, too.

    Args:
        batches: anything with a length and `batches[position]` that can be pickled if there are
            workers; such as `Batches` and `Windows`.
        workers: processes; 0 for threads in this one.
        ahead: batches that are made ahead, by each worker.
    """

    def __init__(self, batches: Any, workers: int = 0, *, ahead: int = 2) -> None:
        self._batches = batches
        self._workers, self._ahead = whole("workers", workers, 0), whole("ahead", ahead, 1)
        self._next, self._coming = -1, iter(())

    def __len__(self) -> int:
        """Batches of one epoch."""
        return len(self._batches)

    def __getitem__(self, position: int) -> PyTree:
        """The batch at any position from 0 on."""
        if place(position) != self._next:
            self._coming = self._from(position)
        self._next = position + 1
        return next(self._coming)

    def _from(self, position: int) -> Iterator[PyTree]:
        try:
            import grain
            from absl import flags
        except ImportError:
            raise ImportError("Prefetched needs Grain: pip install 'jaxrnn[train]'") from None
        positions = grain.MapDataset.range(position, 2**31).map(self._batches.__getitem__)
        if not self._workers:
            options = grain.ReadOptions(num_threads=self._ahead, prefetch_buffer_size=self._ahead)
            return iter(positions.to_iter_dataset(options))
        if not flags.FLAGS.is_parsed():  # Grain reads them before it starts a process
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(self._workers, self._ahead)
        return iter(positions.to_iter_dataset().mp_prefetch(options))
