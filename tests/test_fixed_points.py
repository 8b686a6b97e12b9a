"""Linearisations, fixed points and principal components against closed forms and NumPy."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import brentq

import jaxrnn
from jaxrnn import cells
from jaxrnn.analysis.fixed_points import fixed_points
from jaxrnn.analysis.linear import linearize
from jaxrnn.analysis.projection import participation_ratio, principal_components
from jaxrnn.analysis.speed import minimize_speed
from jaxrnn.analysis.timescales import modes

close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-12)


def random_params(cell, seed=0, scale=1.0):
    shapes = jax.eval_shape(lambda key: cell.init(key, dtype=jnp.float64), jax.random.key(0))
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(scale * draw.normal(size=a.shape)), shapes)


# ---- one step as a linear map


def test_linearization_of_an_elman_network_is_its_closed_form():
    cell = jaxrnn.Elman(2, 3)
    params = random_params(cell)
    draw = np.random.default_rng(1)
    h, x = draw.normal(size=(4, 3)), draw.normal(size=(4, 2))
    found = linearize(cell, params, cells.ElmanCarry(jnp.asarray(h)), jnp.asarray(x))
    W_x, W_h, b = map(np.asarray, params[:3])
    after = np.tanh(h @ W_h.T + x @ W_x.T + b)
    slope = 1 - after**2
    close(found.A, slope[:, :, None] * W_h)
    close(found.B, slope[:, :, None] * W_x)
    close(
        np.einsum("pij,pj->pi", found.A, h) + np.einsum("pij,pj->pi", found.B, x) + found.offset,
        after,
    )
    for A, values in zip(np.asarray(found.A), np.asarray(found.eigenvalues), strict=True):
        assert np.all(np.diff(np.abs(values)) <= 1e-12)
        close(np.poly(values), np.poly(A), atol=1e-10)
    # one x for all points, one point for all x, and jit and vmap
    same = linearize(cell, params, cells.ElmanCarry(jnp.asarray(h)), jnp.asarray(x[0]))
    close(same.A[0], found.A[0])
    one = linearize(cell, params, cells.ElmanCarry(jnp.asarray(h[0])), jnp.asarray(x))
    close(one.B[0], found.B[0])
    mapped = jax.jit(jax.vmap(lambda h, x: linearize(cell, params, cells.ElmanCarry(h), x)))
    for a, b in zip(
        jax.tree.leaves(mapped(jnp.asarray(h), jnp.asarray(x))), jax.tree.leaves(found), strict=True
    ):
        close(a, b)


def test_float32_agrees_with_float64():
    cell = jaxrnn.Elman(2, 3)
    params = random_params(cell)
    h, x = np.random.default_rng(1).normal(size=(6, 3)), jnp.array([0.5, -1.0])
    wide = linearize(cell, params, cells.ElmanCarry(jnp.asarray(h)), x)
    params, x = jax.tree.map(lambda a: a.astype(jnp.float32), (params, x))
    narrow = linearize(cell, params, cells.ElmanCarry(jnp.asarray(h, jnp.float32)), x)
    for a, b in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True):
        assert a.dtype in (jnp.float32, jnp.complex64)
        close(a, b, atol=3e-6)
    for a, b in zip(
        jax.tree.leaves(principal_components(jnp.asarray(h, jnp.float32))),
        jax.tree.leaves(principal_components(jnp.asarray(h))),
        strict=True,
    ):
        assert a.dtype == jnp.float32
        close(a, b, atol=1e-5)


def test_zero_weights_leave_half_of_a_gru_and_of_an_lstms_cell():
    gru, lstm = jaxrnn.GRU(2, 3), jaxrnn.LSTM(2, 2)
    for cell, values in ((gru, [0.5] * 3), (lstm, [0.5, 0.5, 0, 0])):
        params = jax.tree.map(jnp.zeros_like, random_params(cell))
        found = linearize(cell, params, cell.initial_carry(params), jnp.zeros(2))
        close(np.abs(found.eigenvalues), values)
    close(np.linalg.norm(found.A, 2), np.sqrt(1 / 4 + 1 / 16))


def test_linear_complex_and_token_cells():
    cell = cells.LRU(2, 3, 1)
    params = random_params(cell)
    carry = cells.LRUCarry(jnp.asarray(np.random.default_rng(0).normal(size=3) + 1j))
    x = jnp.array([0.3, -2.0])
    found = linearize(cell, params, carry, x)
    close(found.offset, np.zeros(6))
    lam = np.exp(-np.exp(params.log_nu) + 1j * np.exp(params.log_theta))
    expected = np.concatenate([lam, lam.conj()])
    close(
        np.sort_complex(found.eigenvalues.round(9)), np.sort_complex(expected.round(9)), atol=1e-8
    )
    tokens = jaxrnn.as_cell(_token_step, _token_carry, input_rank=0)
    table = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    found = linearize(tokens, table, jnp.zeros((2, 3)), jnp.array([3, 1]))
    assert found.B.shape == (2, 3, 0)
    close(found.A[0], np.diag(0.5 * (1 - np.tanh(table[3]) ** 2)))


def _token_carry(params):
    return jnp.zeros(3, params.dtype)


def _token_step(params, carry, token):
    h = jnp.tanh(0.5 * carry + params[token])
    return h, h


# ---- fixed points of h' = tanh(w h + b)

ONE = jaxrnn.Elman(1, 1)
NOTHING = jnp.zeros(1)


def one_unit(w, b, dtype=jnp.float64):
    params = jax.tree.map(lambda a: jnp.zeros(a.shape, dtype), random_params(ONE))
    return params._replace(W_h=params.W_h + w, b=params.b + b)


def search(cell, params, x, **options):
    options = dict(key=jax.random.key(0), count=24, steps=300) | options
    return fixed_points(cell, params, x, **options)


def roots(w, b):
    """All h with tanh(w h + b) = h, by bisection between the turning points of the difference."""
    turn = np.sqrt(1 - 1 / w)
    ends = [-1.001, -turn, turn, 1.001]

    def difference(h):
        return np.tanh(w * h + b) - h

    return [
        brentq(difference, low, high, xtol=1e-15)
        for low, high in itertools.pairwise(ends)
        if difference(low) * difference(high) < 0
    ]


@pytest.mark.parametrize("factor", [-0.9, 0.0, 0.999, 1.001, 1.2])
def test_both_sides_of_a_saddle_node(factor):
    # three fixed points up to |b| = w h − artanh h at h = √(1 − 1/w), where two of them meet
    w = 2.0
    turn = np.sqrt(1 - 1 / w)
    b = factor * (w * turn - np.arctanh(turn))
    found = search(ONE, one_unit(w, b), NOTHING)
    fixed = ~np.asarray(found.slow)
    expected = roots(w, b)
    assert len(expected) == (3 if abs(factor) < 1 else 1)
    h = np.asarray(found.carries.h)[fixed, 0]
    close(np.sort(h), expected, atol=1e-9)
    close(found.eigenvalues[fixed, 0], w * (1 - h**2), atol=1e-9)
    kinds = np.array(found.kinds)
    assert sorted(kinds[fixed]) == ["stable"] * (2 if abs(factor) < 1 else 1) + ["unstable"] * (
        len(expected) // 2
    )
    assert np.array_equal(np.asarray(found.stable)[fixed], kinds[fixed] == "stable")
    # right behind the bifurcation its ghost is passed slowly; farther on there is nothing
    assert list(kinds[~fixed]) == (["slow"] if factor == 1.001 else [])
    if factor == 1.001:
        ghost = float(found.carries.h[-1, 0])
        assert abs(ghost + turn) < 0.01
        close(found.speeds[-1], (np.tanh(w * ghost + b) - ghost) ** 2 / 2, atol=1e-18)
        assert found.speeds[-1] > found.tolerance
    assert int(found.hits.sum()) + found.unconverged + found.outliers == 24


@pytest.mark.long
def test_float32_searches_in_float64_and_says_what_it_can_reach():
    params, x = one_unit(2.0, 0.0, jnp.float32), NOTHING.astype(jnp.float32)
    narrow = search(ONE, params, x)
    assert narrow.carries.h.dtype == jnp.float32
    assert narrow.vectors.dtype == jnp.float64
    assert np.all(np.asarray(narrow.speeds) < 1e-30)
    close(narrow.tolerance, 0.5 * (100 * 2.0**-52) ** 2, atol=1e-35)
    close(np.sort(narrow.vectors[:, 0]), roots(2.0, 0.0), atol=1e-12)
    with jax.enable_x64(False):
        single = search(ONE, params, x)
    assert single.vectors.dtype == jnp.float32
    close(single.tolerance, 0.5 * (100 * 2.0**-23) ** 2, atol=1e-15)
    close(np.sort(single.vectors[:, 0]), roots(2.0, 0.0), atol=1e-6)


def test_candidates_and_what_is_far_from_them():
    params = one_unit(2.0, 0.0)
    top = roots(2.0, 0.0)[-1]
    xs = jnp.zeros((2, 6, 1))
    start = cells.ElmanCarry(jnp.array([[0.5], [0.8]]))
    carries, _ = jaxrnn.trajectory(ONE, params, xs, carry=start)
    options = dict(candidates=carries, steps=300)
    every = fixed_points(ONE, params, NOTHING, **options)
    close(every.vectors, [[top]])
    assert every.hits == 12
    # noise carries some of them to the other points, where the trajectories never went
    moved = search(ONE, params, NOTHING, candidates=carries, scale=2.0)
    close(moved.vectors, [[top]])
    assert moved.outliers > 0
    assert int(moved.hits.sum()) + moved.outliers + moved.unconverged == 24
    kept = search(
        ONE, params, NOTHING, candidates=carries, scale=2.0, outlier_distance=float("inf")
    )
    close(np.sort(kept.vectors[:, 0]), roots(2.0, 0.0))
    # all three are one, if one says so
    merged = search(ONE, params, NOTHING, unique_distance=10.0)
    assert merged.hits == 24


@pytest.mark.long
def test_a_network_of_two_units():
    cell = jaxrnn.Elman(1, 2, biases=0)
    params = jax.tree.map(jnp.zeros_like, random_params(cell))
    W_h = params.W_h.reshape(2, 2)
    # the memory (1, 1): two stable points, apart by a saddle that leaves along it
    memory = params._replace(
        W_h=(W_h + jnp.array([[0.9, 0.6], [0.6, 0.9]])).reshape(params.W_h.shape)
    )
    found = search(cell, memory, NOTHING)
    assert found.kinds == ("stable", "stable", "saddle")
    m = roots(1.5, 0.0)[-1]
    close(np.sort(found.vectors, axis=0), [[-m, -m], [0, 0], [m, m]], atol=1e-9)
    close(found.eigenvalues[2], [1.5, 0.3])
    close(np.abs(found.right_vectors[2, :, 0]), [0.5**0.5] * 2)
    # two units alone: every pair of their fixed points
    found = search(cell, params._replace(W_h=2 * jnp.eye(2)), NOTHING, count=100)
    assert found.kinds == ("stable",) * 4 + ("saddle",) * 4 + ("unstable",)
    assert list(found.unstable_directions) == [0] * 4 + [1] * 4 + [2]
    pairs = [(a, b) for a in roots(2.0, 0.0) for b in roots(2.0, 0.0)]
    close(
        sorted(map(tuple, np.asarray(found.vectors).round(9))),
        np.round(sorted(pairs), 9),
        atol=1e-8,
    )


class Plane(NamedTuple):
    x: jax.Array
    y: jax.Array


def _henon(params, carry, _):
    a, b = params
    return Plane(1 - a * carry.x**2 + carry.y, b * carry.x), carry.x


def _origin(params):
    return Plane(*jnp.zeros_like(params))


def test_a_users_map_with_just_the_three_methods():
    # Hénon 1976: both fixed points are saddles, at the roots of a x² + (1 − b) x − 1
    cell, (a, b) = jaxrnn.as_cell(_henon, _origin), (1.4, 0.3)
    found = search(cell, jnp.array([a, b]), NOTHING, scale=2.0)
    x = np.roots([a, 1 - b, -1])
    order = np.argsort(found.carries.x)
    close(np.asarray(found.carries.x)[order], np.sort(x), atol=1e-10)
    close(found.carries.y, b * found.carries.x, atol=1e-10)
    assert found.kinds == ("saddle", "saddle")
    for k, value in enumerate(np.asarray(found.carries.x)):
        mu = np.roots([1, 2 * a * value, -b])
        close(np.sort(found.eigenvalues[k].real), np.sort(mu), atol=1e-9)
        J, w = np.asarray(found.jacobians[k]), np.asarray(found.eigenvalues[k])
        right, left = np.asarray(found.right_vectors[k]), np.asarray(found.left_vectors[k])
        close(J @ right, right * w)
        close(left.conj().T @ J, w[:, None] * left.conj().T)
        close(np.linalg.norm(right, axis=0), 1)


@pytest.mark.parametrize(
    "cell",
    [
        jaxrnn.LSTM(2, 2),
        pytest.param(jaxrnn.Stack((jaxrnn.GRU(2, 2), jaxrnn.Elman(2, 2))), marks=pytest.mark.long),
    ],
)
def test_an_lstm_and_a_stack_stand_still_where_long_runs_end(cell):
    params = random_params(cell, scale=0.4)
    x = jnp.array([0.5, -1.0])
    found = search(cell, params, x, count=8)
    xs = jnp.broadcast_to(x, (3000, 2))
    end, _ = jaxrnn.unroll(cell, params, xs)
    assert found.kinds == ("stable",)
    for a, b in zip(jax.tree.leaves(found.carries), jax.tree.leaves(end), strict=True):
        close(a[0], b, atol=1e-10)
    at = linearize(cell, params, end, x)
    close(found.eigenvalues[0], at.eigenvalues, atol=1e-6)
    close(found.jacobians[0], at.A, atol=1e-9)


@pytest.mark.long
def test_dead_units_and_points_that_run_away_are_never_nan():
    cell = jaxrnn.Elman(1, 2, activation="relu")
    params = jax.tree.map(jnp.zeros_like, random_params(cell))
    dead = search(cell, params._replace(b=params.b - 1e3), NOTHING)
    assert dead.kinds == ("stable",)
    close(dead.vectors, 0)
    assert np.all(modes(dead.eigenvalues).time_constant == 0)
    # h' = relu(h + 1) has none
    away = params._replace(b=params.b + 1, W_h=jnp.eye(2))
    none = search(cell, away, NOTHING)
    assert none.kinds == () and none.vectors.shape == (0, 2)
    assert none.unconverged == 24
    for leaf in jax.tree.leaves((dead, none)):
        assert not np.any(np.isnan(leaf))


@pytest.mark.long
def test_a_line_of_fixed_points_is_marginal_and_far_saturation_is_left_out():
    line = jaxrnn.Elman(1, 2, activation="identity", biases=0)
    params = jax.tree.map(jnp.zeros_like, random_params(line))
    found = search(line, params._replace(W_h=jnp.diag(jnp.array([1.0, 0.5]))), NOTHING)
    assert set(found.kinds) == {"marginal"} and len(found.kinds) == 24
    close(found.vectors[:, 1], 0)
    # a GRU that keeps all once h is large: z = 0 to rounding, so that any such h stands still
    gru = jaxrnn.GRU(1, 1)
    params = jax.tree.map(jnp.zeros_like, random_params(gru))
    params = params._replace(W_h=params.W_h.at[1].set(-40.0), b=params.b.at[2].set(-1.0))
    options = dict(candidates=cells.GRUCarry(jnp.array([[-0.9], [-0.5]])), scale=2.0)
    near = search(gru, params, NOTHING, **options)
    assert near.kinds == ("stable",) and near.outliers > 0
    close(near.vectors, -np.tanh(1.0))
    far = search(gru, params, NOTHING, outlier_distance=float("inf"), **options)
    assert far.kinds.count("marginal") > 5 and far.outliers == 0
    assert np.all(np.asarray(far.vectors)[1:] > 0.5)


def test_the_search_alone_runs_under_jit_and_vmap():
    def of_input(b):
        params = one_unit(2.0, 0.0)
        params = params._replace(b=params.b + b)
        candidates = cells.ElmanCarry(jnp.array([[[-0.9], [0.1]], [[0.2], [0.9]]]))
        return minimize_speed(ONE, params, NOTHING, candidates, steps=50)

    found = jax.jit(jax.vmap(of_input))(jnp.array([0.0, 0.4]))
    assert found.vectors.shape == (2, 2, 2, 1)
    for b, points in zip((0.0, 0.4), found.vectors, strict=True):
        assert np.abs(points.ravel()[:, None] - np.array(roots(2.0, b))).min(1).max() < 1e-9
    assert np.all(np.asarray(found.speeds) < 1e-28)
    close(found.slopes[np.asarray(found.speeds) == 0], 0)


def test_fixed_points_say_what_is_wrong():
    params = one_unit(2.0, 0.0)
    with pytest.raises(ValueError, match=r"no candidates: pass carries, e\.g\. candidates="):
        fixed_points(ONE, params, NOTHING)
    with pytest.raises(ValueError, match=r"x has the leading axes \(3,\), expected one moment"):
        search(ONE, params, jnp.zeros((3, 1)))
    with pytest.raises(ValueError, match="x, taken as a sequence of one step"):
        search(ONE, params, jnp.zeros(2))
    with pytest.raises(TypeError, match=r"cannot be traced: call it outside jit"):
        jax.jit(lambda x: search(ONE, params, x))(NOTHING)
    both = jaxrnn.Bidirectional(ONE)
    twice = jaxrnn.BidirectionalParams(params, params)
    with pytest.raises(TypeError, match="no single direction of time"):
        search(both, twice, NOTHING)
    with pytest.raises(ValueError, match=r"carry\.h is float32\[3,1\], expected float64\[3,1\]"):
        linearize(ONE, params, cells.ElmanCarry(jnp.zeros((3, 1), jnp.float32)), NOTHING)
    with pytest.raises(ValueError, match=r"leading axes \(3,\), but x has \(2,\)"):
        linearize(ONE, params, cells.ElmanCarry(jnp.zeros((3, 1))), jnp.zeros((2, 1)))


# ---- principal components


def test_principal_components_are_those_of_a_singular_value_decomposition():
    draw = np.random.default_rng(0)
    h, c = draw.normal(size=(3, 7, 2)), draw.normal(size=(3, 7, 2)) * 3
    carries = cells.LSTMCarry(jnp.asarray(h), jnp.asarray(c))
    lengths = np.array([7, 2, 5])
    found = principal_components(carries, components=3, lengths=lengths)
    real = np.arange(7) < lengths[:, None]
    rows = np.concatenate([h, c], axis=-1)
    data = rows[real]
    _, s, V = np.linalg.svd(data - data.mean(0), full_matrices=False)
    variances = s**2 / (len(data) - 1)
    close(found.mean, data.mean(0))
    close(found.variances, variances)
    close(found.explained, variances[:3] / variances.sum())
    close(np.abs(np.sum(np.asarray(found.components) * V[:3], axis=1)), 1)
    assert np.all(
        np.asarray(found.components)[np.arange(3), np.abs(found.components).argmax(1)] > 0
    )
    close(found.projections, (rows - data.mean(0)) @ np.asarray(found.components).T)
    close(found.project(jnp.asarray(rows[0])), found.projections[0])
    expected = variances.sum() ** 2 / np.sum(variances**2)
    close(found.participation_ratio, expected)
    close(participation_ratio(carries, lengths=lengths), expected)
    # the leading axes of carries whose fields have axes of their own
    S = jnp.asarray(draw.normal(size=(4, 5, 2, 1, 2)))
    like = cells.DeltaCarry(jnp.zeros((2, 1, 2)))
    cube = principal_components(cells.DeltaCarry(S), like=like)
    flat = principal_components(S.reshape(20, 4))
    close(cube.variances, flat.variances)
    assert cube.projections.shape == (4, 5, 2)


def test_participation_ratios_in_closed_form():
    draw = np.random.default_rng(0)
    orthogonal = np.linalg.qr(draw.normal(size=(50, 4)))[0]
    centred = np.linalg.qr(orthogonal - orthogonal.mean(0))[0]
    close(participation_ratio(jnp.asarray(1e-100 * centred @ np.diag([1, 1, 1, 0.0]))), 3)
    close(participation_ratio(jnp.asarray(centred @ np.diag([3.0, 1, 0, 0]))), 100 / 82)
    close(participation_ratio(jnp.ones((5, 3))), 0)
    still = principal_components(jnp.ones((1, 3)))
    for leaf in jax.tree.leaves(still):
        assert not np.any(np.isnan(leaf))
    with pytest.raises(ValueError, match="expected at least one carry"):
        participation_ratio(jnp.ones((0, 3)))
    with pytest.raises(ValueError, match="components must be from 1 to 3, the size of a carry"):
        principal_components(jnp.ones((5, 3)), components=4)
    with pytest.raises(ValueError, match="have no leading axes in common: pass like="):
        principal_components((jnp.ones((5, 3)), jnp.ones((5, 2, 3))))


# ---- the 3-bit flip-flop of Sussillo and Barak 2013


def flip_flop(key, rows, steps, bits=3, probability=0.2):
    """Pulses of ±1, and what each bit was last set to; 0 before its first pulse."""
    k_where, k_sign = jax.random.split(key)
    shape = (rows, steps, bits)
    signs = 2 * jax.random.bernoulli(k_sign, 0.5, shape).astype(jnp.float64) - 1
    pulses = jnp.where(jax.random.bernoulli(k_where, probability, shape), signs, 0)

    def hold(state, pulse):
        state = jnp.where(pulse != 0, pulse, state)
        return state, state

    _, states = jax.lax.scan(hold, jnp.zeros((rows, bits)), jnp.moveaxis(pulses, 1, 0))
    return pulses, jnp.moveaxis(states, 0, 1)


@functools.cache
def trained_flip_flop(seed):
    # eight units and a step size that falls to zero: with 24 units and a constant one, the task is
    # solved as well, but some of the eight memories are slow points that drift away after hundreds
    # of steps
    net = jaxrnn.Readout(jaxrnn.GRU(3, 8), 3)
    params = net.init(jax.random.key(seed), dtype=jnp.float64)
    adam = optax.adam(optax.cosine_decay_schedule(1e-2, 1200))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), adam)

    def loss(params, key):
        pulses, states = flip_flop(key, 64, 30)
        return jnp.mean((jaxrnn.unroll(net, params, pulses)[1] - states) ** 2)

    def update(state, key):
        params, inner = state
        value, slope = jax.value_and_grad(loss)(params, key)
        with jax.numpy_dtype_promotion("standard"):
            change, inner = optimizer.update(slope, inner, params)
        return (optax.apply_updates(params, change), inner), value

    keys = jax.random.split(jax.random.key(1), 1200)
    train = jax.jit(lambda state, keys: jax.lax.scan(update, state, keys))
    (params, _), values = train((params, optimizer.init(params)), keys)
    pulses, _ = flip_flop(jax.random.key(2), 32, 60)
    carries, _ = jaxrnn.trajectory(net, params, pulses)
    points = fixed_points(
        net, params, jnp.zeros(3), candidates=carries, key=jax.random.key(3), count=1000, scale=0.2
    )  # fmt: skip
    return net, params, carries, points, float(values[-50:].mean())


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1])
def test_a_trained_flip_flop_has_eight_memories_apart_by_saddles(seed):
    net, params, _, points, loss = trained_flip_flop(seed)
    assert loss < 0.02
    kinds = np.array(points.kinds)
    stable = np.asarray(points.vectors)[kinds == "stable"]

    def read(h):
        return np.asarray(h) @ np.asarray(params.W, np.float64).T + np.asarray(params.b, np.float64)

    bits = np.sign(read(stable))
    assert len(stable) == 8
    assert len({tuple(b) for b in bits}) == 8
    assert np.abs(read(stable)).min() > 0.5
    assert np.all(np.asarray(points.speeds)[kinds != "slow"] <= points.tolerance)

    # from both sides of a saddle with one way out the network falls into neighbouring memories
    saddles = np.flatnonzero((kinds == "saddle") & (np.asarray(points.unstable_directions) == 1))
    rest = jnp.zeros((3000, 3))
    run = jax.jit(
        jax.vmap(lambda h: jaxrnn.unroll(net, params, rest, carry=cells.GRUCarry(h))[0].h)
    )
    out = np.real(points.right_vectors[saddles, :, 0])
    at = np.asarray(points.vectors)[saddles]
    ends = np.stack([run(jnp.asarray(at + side * 0.01 * out)) for side in (1, -1)])
    assert np.abs(ends[:, :, None] - stable).max(-1).min(-1).max() < 1e-3
    sides = np.sign(read(ends)).astype(int)
    assert np.all(np.any(sides[0] != sides[1], axis=1))
    edges = {frozenset(map(tuple, pair)) for pair in sides.swapaxes(0, 1)}
    assert len(edges) == 12  # of a cube
    # from any memory every other one is reached over saddles
    reached = {tuple(sides[0, 0])}
    for _ in range(8):
        reached |= {bits for edge in edges if edge & reached for bits in edge}
    assert len(reached) == 8


# ---- figures


def test_the_figures_show_every_point():
    from jaxrnn.plot import state_space as plot

    cell = jaxrnn.Elman(1, 2, biases=0)
    params = jax.tree.map(jnp.zeros_like, random_params(cell))
    params = params._replace(W_h=jnp.array([[0.9, 0.6], [0.6, 0.9]]))
    start = cells.ElmanCarry(jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)) / 3))
    carries, _ = jaxrnn.trajectory(cell, params, jnp.zeros((4, 8, 1)), carry=start)
    found = search(cell, params, NOTHING)
    components = principal_components(carries)
    axes = plot.fixed_points(found, components)
    labels = axes.get_legend().get_texts()
    assert [text.get_text() for text in labels] == [
        "stable (2)",
        "saddle (1)",
        "unstable direction",
    ]
    circle = plot.eigenvalues(found)
    drawn = np.concatenate([line.get_xdata() for line in circle.get_lines()[3:]])
    assert {1.5, 0.3} <= set(np.round(drawn.astype(float), 9))
    with pytest.raises(ValueError, match="needs principal_components"):
        plot.principal_components(principal_components(carries, 1))
