"""Every cell equals a NumPy transcription of its paper's equations, written apart from it."""

import jax
import numpy as np
import pytest
from oracle import assert_close
from rows import PAPERS, problem

from jaxrnn import trajectory

T = 6


# the plain run shows one form of each cell
FIRST = {type(cell): name for name, (cell, _) in reversed(PAPERS.items())}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in FIRST.values() else pytest.mark.long) for n in PAPERS],
)
def test_a_cell_computes_what_its_paper_says(name):
    cell, step = PAPERS[name]
    params, xs, carry = problem(cell, (T,), seed=7, scale=0.6)
    carries, ys = trajectory(cell, params, xs, carry=carry)
    params, xs, carry = jax.tree.map(np.asarray, (params, xs, carry))
    for t in range(T):
        carry, y = step(params, carry, jax.tree.map(lambda a, t=t: a[t], xs))
        assert_close(jax.tree.map(lambda a, t=t: a[t], (carries, ys)), (carry, y), 1e-11)
