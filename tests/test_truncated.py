"""Truncated backpropagation: the values of the unroll, and gradients that end where they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_close, situation, weighted_sum
from rows import BIDIRECTIONAL, STACK, problem

import jaxrnn
from jaxrnn import GRU, LSTM, unroll

B, T = 3, 11
CELL = LSTM(3, 4, learned_carry=True)
GIVEN = situation([T, 7, 0], np.eye(T)[[4, 2, 9]])
# one short window at the end, contexts that begin before, at and behind the first step
CASES = [(CELL, 3, 7)]
MORE = [
    (CELL, *more)
    for more in ((20, 30), (4, None), (4, 6), (4, 8), (5, 11), (1, 3), (11, None), (2, 99))
]
MORE += [(STACK, 3, 7), (STACK, 5, None)]
CASES += [pytest.param(*case, marks=pytest.mark.long) for case in MORE]


def by_hand(cell, params, xs, carry, window, reach, given):
    """Window by window, each with its context walked from a carry held constant."""
    reach = window if reach is None else reach
    ys = []
    for begin in range(0, T, window):
        end = min(begin + window, T)
        first = max(0, begin + window - reach)
        start = carry
        if first:
            before = cut(given, 0, first)
            start, _ = unroll(cell, params, xs[:, :first], carry=carry, **before)
            start = jax.lax.stop_gradient(start)
        last, some = unroll(cell, params, xs[:, first:end], carry=start, **cut(given, first, end))
        ys.append(some[:, begin - first :])
    return last, jnp.concatenate(ys, axis=1)


def cut(given, first, end):
    return dict(
        lengths=jnp.clip(given.lengths - first, 0, end - first),
        resets=given.resets[:, first:end],
        key=given.keys[:, first:end],
    )


@pytest.mark.parametrize(("cell", "window", "reach"), CASES)
def test_gradients_reach_back_so_far_and_no_further(cell, window, reach):
    params, xs, carry = problem(cell, (B, T), seed=4)
    options = dict(lengths=GIVEN.lengths, resets=GIVEN.resets, key=GIVEN.keys)

    def ours(params, xs, carry):
        out = jaxrnn.truncated(cell, params, xs, carry=carry, window=window, reach=reach, **options)
        return weighted_sum(out), out

    def theirs(params, xs, carry):
        out = by_hand(cell, params, xs, carry, window, reach, GIVEN)
        return weighted_sum(out), out

    at = (params, xs, carry)
    got, want = (
        jax.jit(jax.value_and_grad(f, (0, 1, 2), has_aux=True))(*at) for f in (ours, theirs)
    )
    assert_close(got, want)
    assert_close(got[0][1], unroll(cell, params, xs, carry=carry, **options))


@pytest.mark.long
def test_a_gradient_ends_at_the_edge_of_its_reach():
    cell = GRU(3, 4)
    params, xs, _ = problem(cell, (T,))

    def late(xs, **options):
        return jnp.sum(jaxrnn.truncated(cell, params, xs, window=2, **options)[1][8:10])

    # the window of steps 8 and 9, with reach 5: steps 5 … 9
    touched = np.abs(jax.grad(late)(xs, reach=5)).sum(axis=1) > 0
    assert touched.tolist() == [t in range(5, 10) for t in range(T)]
    assert (np.abs(jax.grad(late)(xs)).sum(axis=1) > 0).tolist() == [t in (8, 9) for t in range(T)]


def test_the_program_does_not_grow_with_the_number_of_windows():
    cell = GRU(3, 4)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), dtype=jnp.float32))

    def size(steps):
        xs = jax.ShapeDtypeStruct((steps, 3), jnp.float32)
        run = jax.jit(lambda p, xs: jaxrnn.truncated(cell, p, xs, window=10, reach=25))
        return len(run.lower(params, xs).as_text())

    assert size(4000) < 1.1 * size(400)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(window=0), "window must be an int of at least 1, got 0"),
        (dict(window=5, reach=4), "reach must be an int of at least 5, got 4"),
    ],
)
def test_windows_that_make_no_sense(options, sentence):
    params, xs, _ = problem(CELL, (T,))
    with pytest.raises(ValueError, match=sentence):
        jaxrnn.truncated(CELL, params, xs, **options)


def test_a_network_that_needs_the_future_cannot_go_in_windows():
    network = BIDIRECTIONAL["two-kinds"]
    params, xs, _ = problem(network, (B, T))
    with pytest.raises(TypeError, match="needs the future and cannot go window by window"):
        jaxrnn.truncated(network, params, xs, window=3)
