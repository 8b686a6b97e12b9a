"""What every source of batches shares: positions from 0 without end, epochs of a length."""

import operator
from collections.abc import Iterator
from typing import Any

from jaxtyping import PyTree


class Positions:
    """`batches[position]`, the position counted from 0 through all epochs; `len` of one epoch."""

    def __len__(self) -> int:
        """Batches of one epoch."""
        raise NotImplementedError

    def __getitem__(self, position: int) -> PyTree:
        """The batch at a position, a pure function of it."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[PyTree]:
        """The first epoch."""
        return (self[position] for position in range(len(self)))


def place(position: Any) -> int:
    """A position as an integer; raises if it is counted from the end."""
    if operator.index(position) < 0:
        raise IndexError(f"positions are counted from 0, got {position}")
    return operator.index(position)
