"""Cells written down once more, in NumPy, from the papers and apart from the library.

One module per family, with a table ROWS: name → Row. A new cell is one new row; `test_papers.py`
compares it with its transcription, and the laws of `test_laws.py` run over it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

I, H = 3, 4


class Row(NamedTuple):
    """A cell and its paper.

    step: (params, carry, x) → (carry, y), NumPy in and out, with params and carry as the cell
        names them, in float64. Sizes are read off the arrays.
    """

    cell: Any
    step: Callable


def logistic(a):
    return 1 / (1 + np.exp(-a))


def relu(a):
    return np.maximum(a, 0)


def softplus(a):
    return np.log1p(np.exp(a))


def affine(params, x, h, k, j=None):
    """W x + b + U h + b_h of gate k of x and gate j of the carry (k unless given)."""
    j = k if j is None else j
    a = params.W_x[k] @ x + params.W_h[j] @ h
    a = a if params.b is None else a + params.b[k]
    return a if params.b_h is None else a + params.b_h[j]
