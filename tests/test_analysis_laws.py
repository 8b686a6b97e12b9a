"""Laws of every analysis: under jit and vmap, over batches, on stacks, with lengths and resets.

What other files prove for an analysis is not proven twice: `ELSEWHERE` says where to look.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from analysis_rows import ROWS, assert_close

import jaxrnn
from jaxrnn import analysis

# gradient_decay: test_gradient_analysis.py. gradient_paths: test_paths.py. lyapunov_spectrum:
# test_lyapunov.py. fisher_memory, forgetting_curve: test_memory.py. time_constants, and keep with
# them: test_timescales.py. fixed_points, which cannot be traced: test_fixed_points.py. theory:
# test_theory.py.
ELSEWHERE = {
    *("gradient_decay", "gradient_paths", "lyapunov_spectrum", "fisher_memory"),
    *("forgetting_curve", "time_constants", "keep", "fixed_points"),
    *("theory.critical_gain", "theory.determinant_split"),
}
STACK = jaxrnn.Stack((jaxrnn.GRU(2, 2), jaxrnn.Elman(2, 2)))
B, T = 2, 6
LENGTHS = jnp.array([6, 4])
RESETS = jnp.zeros((B, T), bool).at[0, 2].set(True)
# what joins the rows of a batch: one gain for all, means over rows, one moment for all
JOINS = {"edge_of_chaos", "monitor", "memory_capacity", "linearize", "minimize_speed"}


def setup():
    numbers = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: STACK.init(key, jnp.float64), jax.random.key(0))
    params = jax.tree.map(lambda s: jnp.asarray(numbers.uniform(-0.9, 0.9, s.shape)), shapes)
    return params, jnp.asarray(numbers.normal(size=(B, T, 2)))


def call(name, params, x, n, r):
    options = dict(lengths=n, resets=r) if ROWS[name].options else {}
    return ROWS[name].call(STACK, params, x, **options)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(set(ROWS) - ELSEWHERE))
def test_rows_alone_together_and_nested_in_float32(name):
    params, xs = setup()
    alone = [call(name, params, xs[b], LENGTHS[b], RESETS[b]) for b in range(B)]
    if name not in JOINS:
        together = call(name, params, xs, LENGTHS, RESETS)
        for b in range(B):
            assert_close(jax.tree.map(take(b), together, alone[b]), alone[b], 1e-9, 1e-9)
    narrow = jax.tree.map(lambda a: a.astype(jnp.float32), (params, xs))
    nested = jax.jit(jax.vmap(lambda p, x, n, r: call(name, p, x, n, r), (None, 0, 0, 0)))
    nested = nested(*narrow, LENGTHS, RESETS)
    for b in range(B):
        found = jax.tree.map(lambda a, b=b: a[b], nested)
        wide = [jnp.issubdtype(leaf.dtype, jnp.float64) for leaf in jax.tree.leaves(found)]
        assert not any(wide)
        assert_close(found, alone[b], 3e-4, 3e-4)


def take(b):
    """Row b of a field; lags, which all rows share, as they are."""
    return lambda whole, row: whole if whole.shape == row.shape else whole[b]


def test_a_search_for_fixed_points_says_how_far_it_is():
    # h' = tanh(2h) stands still at 0 and at ±0.9575…; 11 candidates are not a multiple of 8
    cell = jaxrnn.Elman(1, 1, biases=0)
    params = jaxrnn.ElmanParams(jnp.zeros((1, 1)), jnp.full((1, 1), 2.0), None, None, None)
    candidates = jaxrnn.cells.ElmanCarry(jnp.linspace(-1.0, 1.1, 11)[:, None])
    told = []

    def search(**options):
        options = dict(candidates=candidates, steps=0, newton_steps=50, **options)
        return analysis.fixed_points(cell, params, jnp.zeros(1), **options)

    watched = search(progress=lambda part, what: told.append((part, what)))
    parts, lines = zip(*told, strict=True)
    assert sum(parts) == pytest.approx(1) and len(parts) == 6 and min(parts) > 0
    assert lines[0] == "2 of 11 candidates followed"
    assert lines[-1] == "11 of 11 candidates followed"
    rest = 1.0
    for _ in range(100):
        rest = np.tanh(2 * rest)
    np.testing.assert_allclose(np.sort(watched.vectors[:, 0]), [-rest, 0, rest], atol=1e-12)
    alone = search()
    np.testing.assert_allclose(alone.vectors, watched.vectors, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(alone.hits, watched.hits)
