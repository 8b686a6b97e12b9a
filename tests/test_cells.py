"""Exact facts about the cells: sizes, equations, Jacobians, and how parameters begin."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_close, assert_same
from rows import problem

import jaxrnn
from jaxrnn import GRU, LSTM, Bidirectional, Elman, Stack, unroll
from jaxrnn.initializers import (
    Chrono,
    FanIn,
    ForgetBias,
    Gate,
    Identity,
    Normal,
    Orthogonal,
    Uniform,
    Zeros,
)

# ---- sizes


@pytest.mark.parametrize(
    ("cell", "count"),
    [
        # a block costs d(m + d + 1): four, three and one of them
        (LSTM(128, 64), 49_408),
        (GRU(128, 64), 37_056),
        (Elman(128, 64), 12_352),
        # PyTorch's two biases
        (LSTM(128, 64, biases=2), 49_664),
        (GRU(128, 64, reset="after", biases=2), 37_248),
        # one extra bias for the candidate
        (GRU(128, 64, reset="after"), 37_120),
        (LSTM(128, 64, biases=0), 49_408 - 4 * 64),
        (LSTM(128, 64, learned_carry=True), 49_408 + 2 * 64),
        (Bidirectional(GRU(128, 64)), 2 * 37_056),
        (Stack((LSTM(128, 64), LSTM(64, 64))), 49_408 + 4 * 64 * (64 + 64 + 1)),
    ],
)
def test_parameter_counts(cell, count):
    assert jaxrnn.count_parameters(cell) == count


def test_an_lstm_has_four_thirds_of_a_gru():
    assert jaxrnn.count_parameters(LSTM(7, 5)) * 3 == jaxrnn.count_parameters(GRU(7, 5)) * 4


def test_an_lstm_carries_twice_as_much():
    assert jaxrnn.carry_size(LSTM(3, 5)) == 10
    assert jaxrnn.carry_size(GRU(3, 5)) == jaxrnn.carry_size(Elman(3, 5)) == 5
    assert jaxrnn.carry_bytes(LSTM(3, 5)) == 40
    assert jaxrnn.carry_bytes(LSTM(3, 5), jnp.bfloat16) == 20
    assert jaxrnn.carry_bytes(Stack((LSTM(3, 5), GRU(5, 2))), jnp.float64) == 96


@pytest.mark.parametrize(
    ("cell", "blocks"), [(Elman(32, 64), 1), (GRU(32, 64), 3), (LSTM(32, 64), 4)]
)
def test_a_step_costs_about_two_operations_for_each_weight(cell, blocks):
    params, xs, _ = problem(cell, (1,), dtype=jnp.float32)
    matrices = 2 * blocks * 64 * (32 + 64)
    # the rest is what is done element by element
    assert matrices <= jaxrnn.step_flops(cell, params, xs[0]) <= 1.1 * matrices


def test_a_flattened_carry_comes_back_whole():
    carry = {
        "z": jnp.array([1 + 2j, 3 - 4j]),
        "n": jnp.array(7, jnp.int32),
        "h": jnp.arange(6.0).reshape(2, 3),
        "key": jax.random.key(3),
        "short": jnp.array([0.5], jnp.float32),
    }
    flat, back = jaxrnn.flatten_carry(carry)
    # complex numbers count twice, integers and keys not at all
    assert flat.shape == (6 + 1 + 4,) and flat.dtype == jnp.float64
    doubled = back(2 * flat)
    assert jax.eval_shape(lambda: doubled) == jax.eval_shape(lambda: carry)
    np.testing.assert_array_equal(doubled["z"], 2 * carry["z"])
    np.testing.assert_array_equal(doubled["h"], 2 * carry["h"])
    assert doubled["n"] == 7 and doubled["key"] == carry["key"]


# ---- equations


def one_step(cell, seed=0, scale=0.5):
    """params, a carry and an input, all random; for one example."""
    params, xs, carry = problem(cell, (1,), seed, scale)
    return params, carry, xs[0]


def test_lstm_is_one_matrix_times_h_and_x_side_by_side():
    cell = LSTM(3, 4, biases=2)
    params, carry, x = one_step(cell)
    # rows of gates i, f, g, o; columns first of h, then of x
    matrix = np.concatenate([params.W_h, params.W_x], axis=2).reshape(16, 7)
    bias = np.ravel(params.b + params.b_h)
    i, f, g, o = (matrix @ np.concatenate([carry.h, x]) + bias).reshape(4, 4)

    def logistic(a):
        return 1 / (1 + np.exp(-a))

    c = logistic(f) * carry.c + logistic(i) * np.tanh(g)
    h = logistic(o) * np.tanh(c)
    after, y = cell.step(params, carry, x)
    assert_close((after.h, after.c, y), (h, c, h))


@pytest.mark.parametrize("reset", ["before", "after"])
def test_gru_forms_convert_by_negating_the_update_gate(reset):
    new, old = GRU(3, 4, reset, "new", biases=2), GRU(3, 4, reset, "old", biases=2)
    params, carry, x = one_step(new)
    sign = jnp.array([1.0, -1.0, 1.0])
    negated = params._replace(
        W_x=params.W_x * sign[:, None, None],
        W_h=params.W_h * sign[:, None, None],
        b=params.b * sign[:, None],
        b_h=params.b_h * sign[:, None],
    )
    assert_close(old.step(negated, carry, x), new.step(params, carry, x))
    # and they are not the same to begin with
    assert not np.allclose(old.step(params, carry, x)[1], new.step(params, carry, x)[1])


def test_gru_reset_before_and_after_the_matrix_differ_only_through_the_reset_gate():
    before, after = GRU(3, 4, "before"), GRU(3, 4, "after", biases=0)
    params, carry, x = one_step(before)
    bare = params._replace(b=None)
    y_before, y_after = (cell.step(bare, carry, x)[1] for cell in (before, after))
    assert not np.allclose(y_before, y_after)
    # a reset gate that is open for all, or shut for all, commutes with the matrix
    for value, rounding in ((40.0, 1e-12), (-40.0, 1e-12)):
        b = jnp.zeros((3, 4)).at[0].set(value)
        pair = [cell.step(params._replace(b=b), carry, x)[1] for cell in (before, after)]
        assert_close(*pair, rounding)


def test_a_gru_with_one_bias_and_reset_after_resets_the_candidates_own_bias():
    cell = GRU(3, 4, reset="after")
    params, carry, x = one_step(cell)
    assert params.b_h.shape == (1, 4)
    all_biases = params._replace(b_h=jnp.concatenate([jnp.zeros((2, 4)), params.b_h]))
    two = GRU(3, 4, reset="after", biases=2)
    assert_close(cell.step(params, carry, x), two.step(all_biases, carry, x))


@pytest.mark.parametrize(
    ("name", "phi"),
    [
        ("tanh", np.tanh),
        ("relu", lambda a: np.maximum(a, 0)),
        ("identity", lambda a: a),
        ("logistic", lambda a: 1 / (1 + np.exp(-a))),
        (jnp.arctan, np.arctan),
    ],
)
def test_elman_is_phi_of_an_affine_map(name, phi):
    cell = Elman(3, 4, name, biases=2)
    params, carry, x = one_step(cell)
    h = phi(params.W_x @ np.asarray(x) + params.W_h @ np.asarray(carry.h) + params.b + params.b_h)
    assert_close(cell.step(params, carry, x)[1], jnp.asarray(h))


def test_gates_are_what_the_step_uses():
    params, carry, x = one_step(LSTM(3, 4))
    gates = LSTM(3, 4).gates(params, carry, x)
    assert_close(
        LSTM(3, 4).step(params, carry, x)[0].c,
        gates.forget * carry.c + gates.input * gates.candidate,
    )
    params, carry, x = one_step(GRU(3, 4))
    _, z, n = GRU(3, 4).gates(params, carry, x)
    assert_close(GRU(3, 4).step(params, carry, x)[1], (1 - z) * carry.h + z * n)


# ---- Jacobians


def step_jacobian(cell, params, carry, x):
    """∂carry'/∂carry as one matrix."""
    flat, back = jaxrnn.flatten_carry(carry)
    return np.asarray(
        jax.jacrev(lambda f: jaxrnn.flatten_carry(cell.step(params, back(f), x)[0])[0])(flat)
    )


@pytest.mark.parametrize("reset", ["before", "after"])
@pytest.mark.parametrize("weighs", ["new", "old"])
def test_gru_with_zero_weights_halves_its_carry(reset, weighs):
    cell = GRU(3, 4, reset, weighs)
    params, carry, x = one_step(cell, scale=0.0)
    np.testing.assert_array_equal(step_jacobian(cell, params, carry, x), np.eye(4) / 2)


def test_lstm_with_zero_weights_has_eigenvalues_0_and_a_half_but_a_larger_norm():
    cell = LSTM(3, 4)
    params, carry, x = one_step(cell, scale=0.0)
    carry = jax.tree.map(jnp.zeros_like, carry)
    J = step_jacobian(cell, params, carry, x)
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(J)), [0] * 4 + [0.5] * 4, atol=1e-15)
    assert np.linalg.norm(J, 2) == pytest.approx(math.sqrt(1 / 4 + 1 / 16), rel=1e-15)


def test_lstm_jacobian_in_blocks():
    cell = LSTM(3, 4)
    params, carry, x = one_step(cell)
    i, f, g, o = map(np.asarray, cell.gates(params, carry, x))
    U_i, U_f, U_g, U_o = np.asarray(params.W_h)
    c = np.asarray(carry.c)
    t = np.tanh(f * c + i * g)
    cc = np.diag(f)
    ch = (
        np.diag(f * (1 - f) * c) @ U_f
        + np.diag(i * (1 - i) * g) @ U_i
        + np.diag(i * (1 - g**2)) @ U_g
    )
    hh = np.diag(o * (1 - o) * t) @ U_o + np.diag(o * (1 - t**2)) @ ch
    hc = np.diag(o * (1 - t**2) * f)
    assert_close(step_jacobian(cell, params, carry, x), np.block([[hh, hc], [ch, cc]]))


def test_elman_jacobian_is_slope_times_matrix_and_so_is_its_determinant():
    cell = Elman(3, 4)
    params, carry, x = one_step(cell)
    slope = 1 - np.tanh(cell.gates(params, carry, x).pre_activation) ** 2
    J = step_jacobian(cell, params, carry, x)
    assert_close(J, np.diag(slope) @ np.asarray(params.W_h))
    log_determinant = np.linalg.slogdet(J)[1]
    assert log_determinant == pytest.approx(
        np.linalg.slogdet(params.W_h)[1] + np.log(slope).sum(), rel=1e-12
    )


def last_carry_jacobian(cell, params, steps):
    xs = jnp.zeros((steps, cell.input_size))
    zero = jnp.zeros(cell.hidden_size)
    return np.asarray(
        jax.jacrev(lambda h: unroll(cell, params, xs, carry=jaxrnn.ElmanCarry(h))[0].h)(zero)
    )


def test_tanh_network_at_zero_multiplies_by_the_power_of_its_matrix():
    cell = Elman(2, 5, biases=0)
    params, _, _ = one_step(cell)
    want = np.linalg.matrix_power(np.asarray(params.W_h), 9)
    assert_close(last_carry_jacobian(cell, params, 9), want)


def test_linear_network_with_a_scaled_orthogonal_matrix_neither_turns_nor_bends():
    cell = Elman(2, 5, "identity", biases=0, recurrent_initializer=Orthogonal(0.9))
    params = cell.init(jax.random.key(0), jnp.float64)
    singular = np.linalg.svd(last_carry_jacobian(cell, params, 40), compute_uv=False)
    np.testing.assert_allclose(singular, 0.9**40, rtol=1e-12)


@pytest.mark.parametrize(
    ("activation", "W", "steps", "size"),
    [("tanh", 0.5, 30, 0.5**30), ("identity", 1.5, 20, 1.5**20), ("relu", 1.1, 30, 1.1**30)],
)
def test_scalar_network_vanishes_or_explodes_as_the_power_says(activation, W, steps, size):
    cell = Elman(1, 1, activation, biases=0)
    params = one_step(cell)[0]._replace(W_h=jnp.array([[W]]), W_x=jnp.array([[1.0]]))
    # relu is active where the carry is positive; tanh is steepest where it is zero
    start = jaxrnn.ElmanCarry(jnp.array([1e-3 if activation == "relu" else 0.0]))

    def last(carry):
        return unroll(cell, params, jnp.zeros((steps, 1)), carry=carry)[0].h[0]

    (gradient,) = jax.grad(last)(start)
    assert gradient[0] == pytest.approx(size, rel=1e-12)


# ---- how parameters begin

LSTM_GATES = (Gate("input", writes=+1), Gate("forget", keeps=+1), Gate("candidate"), Gate("output"))
DRAWS = [Uniform(), Normal(2.0), Orthogonal(1.5), Identity(0.5), Zeros(), FanIn()]


@pytest.mark.parametrize("initializer", DRAWS, ids=lambda i: type(i).__name__)
def test_bfloat16_parameters_are_the_rounded_float32_ones(initializer):
    def draw(dtype):
        return initializer(jax.random.key(0), LSTM_GATES, (5, 5), dtype)

    assert_same(draw(jnp.bfloat16), draw(jnp.float32).astype(jnp.bfloat16))


def test_chrono_and_forget_bias_round_only_once_too():
    for initializer in (Chrono(50.0), ForgetBias(1.0, Uniform())):
        wide = initializer(jax.random.key(0), LSTM_GATES, (64,), jnp.float32)
        short = initializer(jax.random.key(0), LSTM_GATES, (64,), jnp.bfloat16)
        assert_same(short, wide.astype(jnp.bfloat16))


def test_orthogonal_is_orthogonal_for_each_gate_and_no_two_alike():
    W = np.asarray(Orthogonal(1.5)(jax.random.key(0), LSTM_GATES, (6, 6), jnp.float64))
    for gate in W:
        assert_close(gate.T @ gate, 1.5**2 * np.eye(6))
    assert len({gate.tobytes() for gate in W}) == 4
    # a wide one has orthonormal rows
    wide = np.asarray(Orthogonal()(jax.random.key(0), LSTM_GATES, (4, 6), jnp.float64))
    assert_close(wide[0] @ wide[0].T, np.eye(4))


def test_uniform_and_normal_have_the_spread_they_promise():
    shape = (400, 100)
    uniform = np.asarray(Uniform(2.0)(jax.random.key(0), LSTM_GATES, shape, jnp.float64))
    assert 0.999 * 2 / 20 < np.abs(uniform).max() <= 2 / 20
    fan_in = np.asarray(FanIn(2.0)(jax.random.key(0), LSTM_GATES, shape, jnp.float64))
    assert 0.999 * 2 / 10 < np.abs(fan_in).max() <= 2 / 10
    normal = np.asarray(Normal(3.0)(jax.random.key(0), LSTM_GATES, shape, jnp.float64))
    # of 160000 draws the standard deviation is known to 0.2 %
    assert normal.std() == pytest.approx(3 / 10, rel=0.01)


def test_a_readout_begins_as_a_linear_layer_does():
    # U(±1/√H), whatever the number of outputs
    W = jaxrnn.Readout(Elman(3, 400), output_size=1).init(jax.random.key(0)).W
    assert W.shape == (1, 400)
    assert 0.9 / 20 < np.abs(W).max() <= 1 / 20


def test_identity_is_scaled():
    W = Identity(0.5)(jax.random.key(0), LSTM_GATES, (3, 3), jnp.float64)
    assert_same(W, jnp.stack([0.5 * jnp.eye(3)] * 4))


def test_forget_bias_lands_on_the_forget_gate():
    cell = LSTM(3, 4, bias_initializer=ForgetBias(1.5, Zeros()))
    b = cell.init(jax.random.key(0), jnp.float64).b
    assert_same(b, jnp.zeros((4, 4)).at[1].set(1.5))
    params = problem(cell, (1,), scale=0.0).params._replace(b=b)
    gates = cell.gates(params, cell.initial_carry(params), jnp.zeros(3))
    assert_close(gates.forget, jax.nn.sigmoid(jnp.full(4, 1.5)))
    assert_close(gates.input, jnp.full(4, 0.5))


@pytest.mark.parametrize("weighs", ["new", "old"])
def test_forget_bias_makes_both_forms_of_gru_keep(weighs):
    cell = GRU(3, 4, update_weighs=weighs, bias_initializer=ForgetBias(3.0, Zeros()))
    b = cell.init(jax.random.key(0), jnp.float64).b
    params = problem(cell, (1,), scale=0.0).params._replace(b=b)
    carry = jaxrnn.GRUCarry(jnp.ones(4))
    kept = cell.step(params, carry, jnp.zeros(3))[1]
    assert_close(kept, jax.nn.sigmoid(jnp.full(4, 3.0)))


def test_chrono_keeps_for_u_steps_and_lets_in_what_is_left():
    cell = LSTM(3, 1000, bias_initializer=Chrono(50.0))
    i, f, g, o = np.asarray(cell.init(jax.random.key(0), jnp.float64).b)
    np.testing.assert_array_equal(i, -f)
    assert not g.any() and not o.any()
    keeps = 1 / (1 + np.exp(-f))
    u = np.exp(f)
    # σ(ln u) = u/(u + 1), so a gate keeps 1 − 1/(1 + u): time constants between 2 and `longest`
    assert u.min() >= 1 and u.max() <= 49 and u.max() > 48
    np.testing.assert_allclose(keeps, 1 - 1 / (1 + u), rtol=1e-12)
    assert keeps.max() < 1 - 1 / 50


def test_a_tuple_gives_each_gate_its_own_initializer():
    each = (Zeros(), Identity(2.0), Orthogonal(), Identity(-1.0))
    W = LSTM(3, 4, recurrent_initializer=each).init(jax.random.key(0), jnp.float64).W_h
    assert_same(W[0], jnp.zeros((4, 4)))
    assert_same(W[1], 2 * jnp.eye(4))
    assert_close(W[2].T @ W[2], jnp.eye(4))
    assert_same(W[3], -jnp.eye(4))


def test_gates_draw_different_numbers():
    params = LSTM(3, 4).init(jax.random.key(0), jnp.float64)
    draws = [
        gate.tobytes() for field in (params.W_x, params.W_h, params.b) for gate in np.asarray(field)
    ]
    assert len(set(draws)) == 12


# ---- both directions, and plain functions


def test_the_backward_carry_is_that_of_its_output_at_the_first_step():
    network = Bidirectional(Elman(3, 4))
    params, xs, _ = problem(network, (3, 5))
    for lengths in (None, [5, 2, 1]):
        carry, ys = unroll(network, params, xs, lengths=lengths)
        assert_same(carry.backward.h, ys[:, 0, 4:])
        if lengths is None:
            assert_same(carry.forward.h, ys[:, -1, :4])
        else:
            last = np.array(lengths) - 1
            assert_same(carry.forward.h, ys[np.arange(3), last, :4])
            assert not np.allclose(carry.backward.h[1:], ys[1:, -1, 4:])


def counter(params, carry, x):
    return carry + x, carry


def test_as_cell_makes_a_cell_of_a_function():
    cell = jaxrnn.as_cell(counter, jnp.zeros_like, input_rank=0)
    last, ys = unroll(cell, jnp.zeros(()), jnp.arange(5.0))
    assert last == 10
    assert ys.tolist() == [0, 0, 1, 3, 6]
    # made twice of the same functions it is the same cell
    assert cell == jaxrnn.as_cell(counter, jnp.zeros_like, input_rank=0)
    assert hash(cell) == hash(jaxrnn.as_cell(counter, jnp.zeros_like, input_rank=0))


def test_a_cell_keeps_its_dtype_from_init_on():
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float64):
        for cell in (Elman(3, 4), LSTM(3, 4, learned_carry=True), GRU(3, 4, reset="after")):
            shapes = jax.eval_shape(functools.partial(cell.init, dtype=dtype), jax.random.key(0))
            assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(dtype)}
