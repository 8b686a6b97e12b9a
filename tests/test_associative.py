"""Cells that say how their steps combine: the tree of combinations gives what the scan gives."""

import functools

import jax
import numpy as np
import papers.linear
import papers.matrix
import pytest
from oracle import assert_close, see, situation
from rows import problem

from jaxrnn import Scan, trajectory
from jaxrnn.methods.associative import Associative, is_associative

B, T = 3, 7
ROWS = papers.linear.ROWS | papers.matrix.ROWS
CELLS = {name: row.cell for name, row in ROWS.items() if is_associative(row.cell)}


SITUATIONS = {
    "plain": situation([T] * B, np.zeros((B, T))),
    "lengths": situation([0, 1, 5], np.zeros((B, T))),
    "resets": situation([T] * B, np.eye(T)[[0, 3, 6]]),
    "both": situation([2, 5, T], np.arange(B * T).reshape(B, T) % 3 == 1),
}


@functools.cache
def both_ways(cell, method):
    """Every carry, every output and the gradients, in both directions; compiled once."""

    # a program that runs four times need not be a fast one
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def run(params, xs, carry, given):
        options = dict(lengths=given.lengths, resets=given.resets, method=method)
        return tuple(
            see(
                lambda p, xs, c, r=reverse: trajectory(cell, p, xs, carry=c, reverse=r, **options),
                params,
                xs,
                carry,
            )
            for reverse in (False, True)
        )

    return run


# the laws hold every associative cell to the Python loop in the long run; these are unlike enough
@pytest.mark.parametrize(
    "name", ["lru", *(pytest.param(n, marks=pytest.mark.long) for n in ("min-gru", "delta-net"))]
)
def test_the_tree_gives_what_the_scan_gives(name):
    cell = CELLS[name]
    given = problem(cell, (B, T), seed=3)
    for where in SITUATIONS.values():
        got = both_ways(cell, Associative())(*given, where)
        assert_close(got, both_ways(cell, Scan())(*given, where), 1e-10)


@pytest.mark.parametrize(
    "name",
    [n if i % 3 == 0 else pytest.param(n, marks=pytest.mark.long) for i, n in enumerate(CELLS)],
)
def test_stretches_of_any_length_combine_in_any_order(name):
    cell = CELLS[name]
    params, xs, carry = problem(cell, (5,), seed=4)

    @jax.jit
    def ways(params, xs, carry):
        a, b, c, d, e = (cell.element(params, x) for x in xs)
        join, act = cell.combine, cell.apply
        step_by_step = act(e, act(d, act(c, act(b, act(a, carry)))))
        left = join(join(join(join(a, b), c), d), e)
        right = join(a, join(b, join(c, join(d, e))))
        middle = join(join(a, join(b, c)), join(d, e))
        in_two = act(join(join(c, d), e), act(join(a, b), carry))
        return (
            (left, right, middle),
            [act(w, carry) for w in (left, right, middle)],
            (
                step_by_step,
                in_two,
            ),
        )

    (left, right, middle), after, (step_by_step, in_two) = ways(params, xs, carry)
    for other in (right, middle):
        assert_close(other, left)
    for other in (*after, in_two):
        assert_close(other, step_by_step)


@pytest.mark.long
def test_gates_that_would_overflow_leave_a_matrix_memory_finite():
    cell = CELLS["mlstm"]
    params, xs, carry = problem(cell, (B, T), seed=3)
    # ln i of thousands, both ways, where exp would leave float64 at 709
    params = params._replace(W_i=3000 * params.W_i)
    got = both_ways(cell, Associative())(params, xs, carry, SITUATIONS["both"])
    assert_close(got, both_ways(cell, Scan())(params, xs, carry, SITUATIONS["both"]), 1e-10)
