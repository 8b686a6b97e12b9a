"""What is trained on, as `batches[position]`: a pure function of one integer.

Position n is the batch of step n, counted from 0 and without end; its epoch is n // len(batches).
That integer is all that a checkpoint has to know of the input.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from jaxrnn.cell import whole
from jaxrnn.train.positions import Positions, place

LEVEL = 0.03  # buckets begin only where lengths fall by so much: the finer search gains no more


class Batches(Positions):
    """Batches of examples, each example once an epoch, in an order drawn anew for each.

        batches = Batches({"tokens": sentences, "label": labels}, 32)
        batches[0]  # {"tokens": (32, T), "label": (32,), "lengths": (32,)}

    A list in `data` holds sequences of unequal lengths. They are padded with zeros, and their
    `lengths` are added to the batch: one array, or one for each list by its name if lists differ.
    Sequences of like length come together: examples are sorted by length into buckets of whole
    batches, and each bucket has one padded length, its longest. Buckets are as few as keep padding
    under its share, because each is a shape that has to be compiled; where single lengths stand
    out so far that no buckets would do, some batches are smaller, down to a quarter. Which examples
    of a bucket meet, and the order of all batches, is drawn from `(seed, epoch)`.

    Args:
        data: a pytree of arrays `(examples, …)` and of lists of arrays `(length, …)`; a dict if
            there is a list in it.
        size: examples of a batch. The last one of the shortest has what is left over, which costs
            one compilation more.
        seed: with the epoch, decides the order.
        shuffle: False for the order of the data, within each bucket, longest first.
        drop_last: all batches have `size` examples, even if they pad more; what does not fill one
            is left out, of the shortest bucket, others in each epoch.
        padding: the share of all positions of an epoch that may be padding; with 1, all examples
            are one bucket.

    Raises:
        ValueError: entries differ in their number of examples, sequences of a list in more than
            their length, or a number is out of range.
        TypeError: there is a list in what is no dict, or in one with an entry `lengths`.
    """

    def __init__(
        self,
        data: PyTree,
        size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        padding: float = 0.15,
    ) -> None:
        entries, self._structure = jax.tree.flatten(data, is_leaf=_is_list)
        self._entries = list(map(_as_arrays, _names(data), entries))
        self._examples = _count(self._entries)
        self._size = whole("size", size, 1)
        self._seed, self._shuffle = whole("seed", seed, 0), shuffle
        if not 0 < padding <= 1:
            raise ValueError(f"padding must be a share between 0 and 1, got {padding!r}")
        self._lengths = {
            name: np.array([len(sequence) for sequence in entry], np.int32)
            for name, entry in zip(_names(data), self._entries, strict=True)
            if _is_list(entry)
        }
        if self._lengths and (not isinstance(data, dict) or "lengths" in data):
            raise TypeError(
                "sequences of unequal lengths belong into a dict without an entry 'lengths', to "
                f"which that is added; got a {type(data).__name__}"
            )
        self._make_buckets(padding, drop_last)
        if len(self) < 1:
            raise ValueError(f"{self._examples} examples do not fill one batch of {size}")
        self._plan: tuple[int, Any, Any] = (-1, None, None)

    def __len__(self) -> int:
        """Batches of one epoch."""
        return len(self._edges) - 1

    def __getitem__(self, position: int) -> PyTree:
        """The batch at any position from 0 on."""
        epoch, turn = divmod(place(position), len(self))
        order, turns = self._planned(epoch)
        first, end = self._edges[turns[turn] :][:2]
        chosen = order[first:end]
        tops = iter(self._padded[self._buckets[chosen[0]]])
        rows = [
            _padded(entry, chosen, next(tops)) if _is_list(entry) else entry[chosen]
            for entry in self._entries
        ]
        batch = jax.tree.unflatten(self._structure, rows)
        return batch | self._lengths_of(chosen) if self._lengths else batch

    def _lengths_of(self, chosen: np.ndarray) -> dict[str, Any]:
        each = {name: lengths[chosen] for name, lengths in self._lengths.items()}
        first, *others = self._lengths.values()
        same = all(np.array_equal(first, other) for other in others)
        return {"lengths": next(iter(each.values())) if same else each}

    def _planned(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Of an epoch: the examples in order, and which batch of these comes when."""
        known, order, turns = self._plan
        if known != epoch:
            # the raw stream of a bit generator is the same in every version of NumPy
            count = self._examples + len(self)
            draws = np.random.PCG64([self._seed, epoch]).random_raw(count)
            draws = draws if self._shuffle else np.arange(count)
            order = np.lexsort((draws[: self._examples], self._buckets))
            turns = np.argsort(draws[self._examples :], kind="stable")
            self._plan = (epoch, order, turns)
        return order, turns

    def _make_buckets(self, share: float, even: bool) -> None:
        """Sets the edges of batches, the bucket of each example, each bucket's padded lengths."""
        count = self._examples // self._size * self._size if even else self._examples
        self._edges = np.append(np.arange(0, count, self._size), count)
        self._buckets = np.zeros(self._examples, np.int64)
        self._padded = np.zeros((1, 0), np.int64)
        if not self._lengths or not count:
            return
        lengths = np.stack(list(self._lengths.values()), axis=1).astype(np.int64)
        order = np.argsort(-lengths.sum(1), kind="stable")
        if not even:
            self._edges = _split(lengths[order], self._edges, share, max(self._size // 4, 1))
        starts = _starts(lengths[order], self._edges, share)
        for start in starts[1:]:
            self._buckets[order[start:]] += 1
        self._padded = np.maximum(np.maximum.reduceat(lengths[order], starts), 1)


def _split(lengths: np.ndarray, edges: np.ndarray, share: float, least: int) -> np.ndarray:
    """Edges of batches in sorted lengths, `(examples, lists)`: more, where they pad too much."""
    while True:
        tops, sizes = np.maximum.reduceat(lengths, edges[:-1]).sum(1), np.diff(edges)
        waste = tops * sizes - np.add.reduceat(lengths.sum(1), edges[:-1])
        enough = waste.sum() <= share * (waste.sum() + lengths.sum())
        worst = np.where(sizes < 2 * least, 0, waste).argmax()
        if enough or sizes[worst] < 2 * least:
            return edges
        inside, counts = lengths[edges[worst] : edges[worst + 1]], np.arange(1, sizes[worst])
        before = np.maximum.accumulate(inside)[:-1].sum(1) * counts
        after = np.maximum.accumulate(inside[::-1])[-2::-1].sum(1) * counts[::-1]
        cut = least + (before + after)[least - 1 : sizes[worst] - least].argmin()
        edges = np.insert(edges, worst + 1, edges[worst] + cut)


def _starts(lengths: np.ndarray, edges: np.ndarray, share: float) -> np.ndarray:
    """Where buckets begin in sorted lengths, at edges of batches: the fewest that pad little.

    Dynamic programming: `least[j]` is what the examples before place j occupy in k buckets, and
    one bucket more makes that the minimum over i of `least[i] + cost[i, j]`.
    """
    levels = np.log(np.maximum(lengths[edges[:-1]].sum(1), 1)) // LEVEL
    places = np.append(edges[:-1][np.diff(levels, prepend=np.inf) != 0], edges[-1])
    longest = np.maximum.reduceat(lengths, places[:-1])
    cost = np.full((len(places), len(places)), np.inf)  # of one bucket from place i to place j
    for i in range(len(longest)):
        tops = np.maximum.accumulate(longest[i:]).sum(1)
        cost[i, i + 1 :] = tops * (places[i + 1 :] - places[i])
    least, cuts, real = cost[0], [], lengths[: edges[-1]].sum()
    while least[-1] * (1 - share) > real and len(cuts) + 1 < len(longest):
        totals = least[:, None] + cost
        least, cuts = totals.min(0), [*cuts, totals.argmin(0)]
    starts = [len(longest)]
    for cut in reversed(cuts):
        starts.append(cut[starts[-1]])
    return places[[0, *starts[:0:-1]]]


def _is_list(entry: Any) -> bool:
    return isinstance(entry, list)


def _as_arrays(name: str, entry: Any) -> Any:
    if not _is_list(entry) or all(np.ndim(sequence) == 0 for sequence in entry):
        return np.asarray(entry)  # a list of numbers is an array as well
    arrays = [np.asarray(sequence) for sequence in entry]
    # an empty list says nothing of what it would hold, and would count as floating
    dtype = np.result_type(*{a.dtype for a in arrays if a.size} or {a.dtype for a in arrays})
    like = next((a for a in arrays if a.ndim and len(a)), arrays[0])
    for index, array in enumerate(arrays):
        if array.ndim == 0 or (len(array) and array.shape[1:] != like.shape[1:]):
            expected = ", ".join(map(str, ("length", *like.shape[1:])))
            raise ValueError(
                f"sequences of a list may differ in length alone: {name}[{index}] has shape "
                f"{array.shape}, expected ({expected})"
            )
    return [a.astype(dtype).reshape(len(a), *like.shape[1:]) for a in arrays]


def _names(data: PyTree) -> list[str]:
    paths = jax.tree_util.tree_leaves_with_path(data, is_leaf=_is_list)
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]


def _count(entries: list) -> int:
    counts = sorted({len(entry) if _is_list(entry) or entry.ndim else 0 for entry in entries})
    if len(counts) != 1 or counts[0] == 0:
        raise ValueError(f"all entries must have the same number of examples, got {counts}")
    return counts[0]


def _padded(sequences: list[np.ndarray], chosen: np.ndarray, length: Any) -> np.ndarray:
    rows = np.zeros((len(chosen), length, *sequences[0].shape[1:]), sequences[0].dtype)
    for row, example in zip(rows, chosen, strict=True):
        row[: len(sequences[example])] = sequences[example]
    return rows
