"""The convolutional LSTM equals Flax linen's, Haiku's and Keras's, and says what does not fit."""

import flax.linen
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import papers.convolutional
import pytest
from oracle import assert_close
from rows import problem
from test_errors import says

import jaxrnn
from jaxrnn import Readout, Stack, trajectory, unroll
from jaxrnn.cells.conv_lstm import ConvLSTM, ConvLSTMCarry
from jaxrnn.initializers import ForgetBias, Orthogonal, Zeros

T = 4
SHAPES = {
    1: ConvLSTM((5, 2), 3, (3,), peepholes=False),
    2: ConvLSTM((4, 5, 2), 3, (3, 2), peepholes=False),
    3: ConvLSTM((3, 2, 4, 2), 2, (2, 3, 1), peepholes=False),
}


@pytest.mark.parametrize("name", papers.convolutional.ROWS)
def test_equals_its_paper_place_by_place(name):
    cell, step = papers.convolutional.ROWS[name]
    params, xs, carry = problem(cell, (T,), seed=7, scale=0.6)
    carries, ys = trajectory(cell, params, xs, carry=carry)
    assert ys.shape == (T, *cell.output_shape)
    params, xs, carry = jax.tree.map(np.asarray, (params, xs, carry))
    for t in range(T):
        carry, y = step(params, carry, xs[t])
        assert_close(jax.tree.map(lambda a, t=t: a[t], (carries, ys)), (carry, y), 1e-11)


def order(arrays, gates):
    """The gates, named in our order, in another one, behind each other in the last axis."""
    places = ["ifgo".index(gate) for gate in gates]
    return jnp.concatenate([arrays[place] for place in places], axis=-1)


@pytest.mark.parametrize(
    "rank", [pytest.param(r, marks=pytest.mark.long if r > 1 else ()) for r in SHAPES]
)
def test_equals_flax_linen(rank):
    cell = SHAPES[rank]
    params, xs, carry = problem(cell, (2, T))
    theirs = flax.linen.ConvLSTMCell(cell.features, cell.kernel_shape, param_dtype=jnp.float64)
    b = params.b.at[1].add(-1)  # they add it at each step
    variables = {
        "ih": {"kernel": order(params.W_x, "igfo"), "bias": order(b, "igfo")},
        "hh": {"kernel": order(params.W_h, "igfo"), "bias": jnp.zeros(4 * cell.features)},
    }

    def walk(xs):
        c, h = carry.c, carry.h
        ys = []
        for t in range(T):
            (c, h), y = theirs.apply({"params": variables}, (c, h), xs[:, t])
            ys.append(y)
        return ConvLSTMCarry(h, c), jnp.stack(ys, axis=1)

    def ours(xs):
        return unroll(cell, params, xs, carry=carry)

    assert_close(ours(xs), walk(xs))
    gradients = [jax.grad(lambda xs, f=f: jnp.sum(f(xs)[1] ** 2))(xs) for f in (ours, walk)]
    assert_close(*gradients, 1e-11)


@pytest.mark.long
@pytest.mark.parametrize("rank", SHAPES)
def test_equals_haiku(rank):
    haiku = pytest.importorskip("haiku")
    cell = SHAPES[rank]
    kernel = cell.kernel_shape[:1] * rank  # Haiku takes the same number for all axes
    cell = ConvLSTM(cell.input_shape, cell.features, kernel, peepholes=False)
    params, xs, carry = problem(cell, (2, T))
    kind = (haiku.Conv1DLSTM, haiku.Conv2DLSTM, haiku.Conv3DLSTM)[rank - 1]
    name = f"conv{rank}_dlstm"

    def step(x, state):
        return kind(cell.input_shape[:-1], cell.features, kernel[0], name=name)(x, state)

    theirs = haiku.without_apply_rng(haiku.transform(step))
    state = haiku.LSTMState(hidden=carry.h, cell=carry.c)
    drawn = theirs.init(jax.random.key(0), xs[:, 0], state)
    b = params.b.at[1].add(-1)
    mine = {
        key: {
            "w": order(params.W_x if "input" in key else params.W_h, "igfo"),
            "b": order(b if "input" in key else jnp.zeros_like(b), "igfo"),
        }
        for key in drawn
    }
    assert jax.tree.map(jnp.shape, mine) == jax.tree.map(jnp.shape, drawn)
    ys = []
    for t in range(T):
        y, state = theirs.apply(mine, xs[:, t], state)
        ys.append(y)
    got = unroll(cell, params, xs, carry=carry)
    assert_close(got, (ConvLSTMCarry(state.hidden, state.cell), jnp.stack(ys, axis=1)))


def test_convolutions_stack_and_a_readout_reads_every_place():
    below = ConvLSTM((4, 3, 2), 3, (3, 3))
    network = Readout(Stack((below, ConvLSTM(below.output_shape, 2, (1, 3)))), 5)
    params, _, carry = problem(network, (2, T))
    xs = problem(below, (2, T)).xs
    after, ys = unroll(network, params, xs, carry=carry, lengths=[T, 2])
    assert ys.shape == (2, T, 4, 3, 5)
    first, hs = unroll(below, params.network[0], xs[1:, :2], carry=jax.tree.map(second, carry[0]))
    assert_close(jax.tree.map(second, after[0]), first)
    assert not ys[1, 2:].any() and hs.any()


def second(leaf):
    return leaf[1:]


def test_initialisers_know_the_gates_and_what_one_output_reads():
    cell = ConvLSTM(
        (4, 4, 2),
        3,
        (3, 3),
        input_initializer=Orthogonal(),
        bias_initializer=ForgetBias(1, Zeros()),
    )
    params = cell.init(jax.random.key(0), jnp.float64)
    rows = jnp.moveaxis(params.W_x, -1, 1).reshape(4, 3, -1)
    for gate in rows:
        np.testing.assert_allclose(gate @ gate.T, np.eye(3), atol=1e-12)
    assert_close(params.b, jnp.array([[0.0] * 3, [1.0] * 3, [0.0] * 3, [0.0] * 3]))
    assert not params.W_p.any()
    assert abs(params.W_h).max() <= 1 / 27**0.5


@pytest.fixture
def without_type_checker():
    """Sentences as users meet them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_what_does_not_fit(without_type_checker):
    for shape in ((3,), (1, 2, 3, 4, 5), [3, 3, 1], (3, 0), 3):
        with says(ValueError, "ConvLSTM: input_shape must be one to three axes", f"got {shape!r}"):
            ConvLSTM(shape, 2, (3, 3))
    with says(ValueError, "kernel_shape must have one int", "for each of the 2 axes", "got (3,)"):
        ConvLSTM((4, 4, 1), 2, (3,))
    with says(ValueError, "strides must have one int of at least 1", "got (0, 1)"):
        ConvLSTM((4, 4, 1), 2, (3, 3), strides=(0, 1))
    with says(ValueError, "features must be an int of at least 1, got 0"):
        ConvLSTM((4, 4, 1), 0, (3, 3))
    with says(ValueError, "padding must be 'same' or 'valid', got 'full'"):
        ConvLSTM((4, 4, 1), 2, (3, 3), padding="full")
    with says(ValueError, "a kernel of (5, 5) does not fit into an image of (4, 4)"):
        ConvLSTM((4, 4, 1), 2, (5, 5), padding="valid")
    with says(ValueError, "biases must be 0 or 1, got 2"):
        ConvLSTM((4, 4, 1), 2, (3, 3), biases=2)
    cell = ConvLSTM((4, 4, 1), 2, (3, 3))
    params = problem(cell, (T,)).params
    with says(ValueError, "xs has shape (4, 4, 1)", "expected (*batch, T, …, …, features)"):
        jaxrnn.unroll(cell, params, jnp.zeros((4, 4, 1)))
