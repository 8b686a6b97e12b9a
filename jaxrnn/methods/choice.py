"""What `method=None` stands for."""

import math
from typing import Any

import jax
from jaxtyping import PyTree

from jaxrnn.methods.lowered import Method
from jaxrnn.methods.segments import even_length
from jaxrnn.methods.staged import Staged

# Measured on two cores with 1 MB of second-level and 32 MB of third-level cache, jax 0.10.2.
# Bytes of W_x x for a whole batch up to which it pays to have it before the loop: 5 % to 30 %
# faster below, 10 % to 20 % slower beyond twice as much. With a single gate it always pays: there
# is nothing to slice.
AHEAD, AHEAD_NARROW = 6_000_000, 18_000_000
NARROW = 128  # H up to which the products within the loop are too small for two cores
# Bytes of the gates' gradients for one block. Beyond, blocks are slower than no blocks; up to here
# they take a quarter to a third less memory in about the same time.
BLOCK = 4 * 2**20
# XLA cuts the columns of a product into tiles of so many, of which one core computes one whole.
TILE = 256


def choose(cell: Any, params: PyTree, batch: tuple[int, ...], steps: int) -> Method:
    """The method for a cell when none is named: `Staged`, which gives way to `Scan` itself."""
    if not hasattr(cell, "stages"):
        return Staged()
    of_x, of_carry = jax.eval_shape(cell.stages, params)
    gates, size, inputs = of_x.W.shape
    rows = max(1, math.prod(batch))
    each = rows * gates * size * of_x.W.dtype.itemsize
    if jax.default_backend() != "cpu":
        return Staged(ahead=True)
    # three tiles keep two cores busy for two turns, unless two steps are there to fill the second
    columns = of_carry[0].W.shape[0] * size if of_carry else 0
    uneven = columns > TILE and columns % (2 * TILE) == TILE
    return Staged(
        unroll=2 if uneven and rows > 1 else 1,
        ahead=gates == 1 or steps * each <= (AHEAD_NARROW if size <= NARROW else AHEAD),
        block=_block(rows, steps, each, inputs + size),
    )


def _block(rows: int, steps: int, each: int, width: int) -> int | None:
    """Steps in a block: enough rows that adding up the gradients of the maps costs little.

    rows: of the batch. each: bytes of the gates of one step. width: I + H.
    """
    length = even_length(max(4, -(-max(2 * width, 1024) // rows)), steps)
    worthwhile = steps * each > AHEAD and length * each <= BLOCK and 2 * length <= steps
    return length if worthwhile else None
