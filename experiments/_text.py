"""Text for experiments: reading it, turning characters into numbers, and counting baselines."""

import codecs
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments._common import UsageError

PYDOC = "pydoc_data.topics (the English help texts of Python)"


class Text(NamedTuple):
    """A text by name."""

    name: str
    characters: str


class Alphabet(NamedTuple):
    """The characters that have a number of their own; all others share the number `rest`."""

    characters: tuple[str, ...]

    @property
    def rest(self) -> int:
        """The number of every character that is not listed."""
        return len(self.characters)

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return len(self.characters) + 1

    def encode(self, text: str) -> np.ndarray:
        """The numbers of all characters of a text."""
        number = {character: i for i, character in enumerate(self.characters)}
        return np.fromiter((number.get(c, self.rest) for c in text), np.int32, len(text))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these numbers; what shares one number is "�"."""
        letters = (*self.characters, "�")
        return "".join(letters[i] for i in ids)


def read_text(path: Path | None, encoding: str = "utf-8") -> Text:
    """A text file, or without a path the prose that every Python carries."""
    if path is None:
        return Text(PYDOC, _pydoc_prose())
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise UsageError(f"unknown encoding {encoding!r}: try utf-8, gb18030 or latin-1") from None
    try:
        characters = path.read_bytes().decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not {encoding}: byte {error.start} cannot be decoded; "
            "name the right one with --encoding, e.g. gb18030"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot read the text {path}: {error.strerror}") from None
    characters = characters.replace("\r\n", "\n").replace("\r", "\n")
    if not characters.strip():
        raise UsageError(f"the text {path} is empty")
    return Text(path.name, characters)


def _pydoc_prose() -> str:
    # topics quote each other: a paragraph counts once, lest held-out text has been seen before
    from pydoc_data.topics import topics

    paragraphs = [p.strip("\n") for topic in topics.values() for p in topic.split("\n\n")]
    prose = [p for p in paragraphs if p.strip() and not p.lstrip().startswith(("|", "+-"))]
    return "\n\n".join(dict.fromkeys(prose))


def most_frequent(text: str, most: int = 2000) -> Alphabet:
    """The `most` most frequent characters of a text; ties in the order of Unicode."""
    characters, counts = np.unique(np.array(list(text)), return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return Alphabet(tuple(str(c) for c in characters[order]))


def evenly_spaced(size: int, count: int, length: int) -> np.ndarray:
    """Where to cut `count` windows of `length` out of `size` characters, as far apart as can be."""
    return np.linspace(0, size - length, count).astype(int)


def cut(ids: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Windows `(count, length)` of a sequence of numbers."""
    return ids[starts[:, None] + np.arange(length)]


def unigram_bits(train: np.ndarray, test: np.ndarray, size: int) -> np.ndarray:
    """Bits that each number of `test` costs under counts of `train`, one added to each."""
    counts = np.bincount(train, minlength=size) + 1
    return -np.log2(counts / counts.sum())[test]


def trigram_bits(train: np.ndarray, test: np.ndarray, size: int) -> np.ndarray:
    """Bits of `test[..., 2:]` under counts of the two numbers before."""
    return ngram_bits(train, test, size, 3)


def ngram_bits(train: np.ndarray, test: np.ndarray, size: int, order: int) -> np.ndarray:
    """Bits of `test[..., order − 1:]` under counts with Witten-Bell interpolation.

    p(c | ab) = (n(abc) + d(ab) p(c | b)) / (n(ab) + d(ab)), d(ab) the number of different
    characters seen after ab; p(c | b) likewise from p(c), the unigram with one added.
    """
    if size**order >= 2**63:
        raise ValueError(f"{order} numbers of {size} kinds do not fit into 64 bits")
    p = 2.0 ** -unigram_bits(train, test[..., order - 1 :], size)
    for context in range(2, order + 1):
        p = _interpolate(train, test[..., order - context :], size, context, p)
    return -np.log2(p)


def _interpolate(
    train: np.ndarray, test: np.ndarray, size: int, order: int, lower: np.ndarray
) -> np.ndarray:
    grams, counts = np.unique(_codes(train, order, size), return_counts=True)
    contexts, first, different = np.unique(grams // size, return_index=True, return_counts=True)
    totals = np.add.reduceat(counts, first)
    code = _codes(test, order, size)
    n = _look_up(grams, counts, code)
    total, kinds = (_look_up(contexts, v, code // size) for v in (totals, different))
    seen = total > 0
    return np.where(seen, (n + kinds * lower) / np.where(seen, total + kinds, 1), lower)


def _codes(ids: np.ndarray, order: int, size: int) -> np.ndarray:
    # each run of `order` numbers as one: its digits in base `size`
    length = ids.shape[-1] - order + 1
    code = np.zeros((*ids.shape[:-1], length), np.int64)
    for i in range(order):
        code = code * size + ids[..., i : i + length]
    return code


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)
