"""Time constants against closed forms, and what a cell keeps against its Jacobian."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import cells
from jaxrnn.analysis.timescales import TimeConstants, keep, modes, time_constants
from jaxrnn.catalogue import classes, example

matplotlib = pytest.importorskip("matplotlib")


def logit(f):
    return jnp.log(f / (1 - f))


def forgetting(dtype=jnp.float64, hidden=1):
    """An LSTM whose forget gate is σ(x) and reads nothing else."""
    cell = jaxrnn.LSTM(1, hidden)
    params = jax.tree.map(lambda a: jnp.zeros(a.shape, dtype), shapes(cell))
    return cell, params._replace(W_x=params.W_x.at[1].set(1.0))


def shapes(cell):
    return jax.eval_shape(lambda key: cell.init(key, dtype=jnp.float64), jax.random.key(0))


def random_params(cell, seed=0):
    """Normal numbers, without the compiling that initialisers ask for."""
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(draw.normal(size=a.shape)), shapes(cell))


def gates(*values, dtype=jnp.float64):
    return logit(jnp.asarray(values, dtype))[:, None]


@pytest.mark.long
def test_a_gate_held_at_095_is_039_seconds():
    cell, params = forgetting()
    found = time_constants(cell, params, gates(*[0.95] * 7), dt=0.02)
    np.testing.assert_allclose(found.time_constant, -0.02 / np.log(0.95), rtol=1e-12)
    assert round(float(found.time_constant[0]), 2) == 0.39
    np.testing.assert_allclose(found.time_constant_of_mean, found.time_constant, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_two_averages_of_a_gate_that_sometimes_forgets(dtype):
    cell, params = forgetting(dtype)
    xs = gates(*[0.99] * 90, *[0.05] * 10, dtype=dtype)
    found = time_constants(cell, params, xs)
    mean_log = (90 * np.log(0.99) + 10 * np.log(0.05)) / 100
    rtol = 1e-12 if dtype == jnp.float64 else 2e-6
    np.testing.assert_allclose(found.mean_log_keep, mean_log, rtol=rtol)
    np.testing.assert_allclose(found.mean_keep, 0.9 * 0.99 + 0.1 * 0.05, rtol=rtol)
    assert f"{float(found.time_constant[0]):.1f}" == "3.2"
    assert f"{float(found.time_constant_of_mean[0]):.1f}" == "9.1"
    # what is left of c after 100 steps is what the first of them says, not the second
    carry = cells.LSTMCarry(jnp.zeros(1, dtype), jnp.ones(1, dtype))
    left = jaxrnn.unroll(cell, params, xs, carry=carry)[0].c
    np.testing.assert_allclose(left, np.exp(-100 / found.time_constant), rtol=100 * rtol)
    assert found.time_constant.dtype == dtype


def test_chrono_bias_gives_its_time_constant():
    # σ(ln(T − 1)) = 1 − 1/T, whose time constant is T − ½ to 1/(12 T)
    longest = 50.0
    cell, params = forgetting()
    xs = jnp.full((3, 1), np.log(longest - 1))
    found = float(time_constants(cell, params, xs).time_constant[0])
    np.testing.assert_allclose(found, -1 / np.log1p(-1 / longest), rtol=1e-12)
    assert abs(found - (longest - 0.5)) < 1 / (10 * longest)


# cells without a gate, a leak or a diagonal that would keep what a unit has
NONE = {"Antisymmetric", "CoRNN", "DeltaNet", "Elman", "GatedAntisymmetric", "IndRNN", "Jordan"}
NONE |= {"LinearRNN", "Lipschitz", "NAS", "OrthogonalRNN", "UnICORNN", "UnitaryRNN"}
# maps of the carry: where they are zero, nothing is handed on but along the direct path
RECURRENT = ("W_h", "b_h", "peepholes", "v", "W_c", "W_p", "R", "P", "M", "N")
# a tanh lies on the direct path, whose slope is 1 where its argument is 0
SQUASHED = {"CFN", "SGRN", "STAR"}


def moment_shape(cell):
    return getattr(cell, "input_shape", None) or (cell.input_size,)


def without_recurrence(name, cell):
    """Random params under which units do not meet from one step to the next."""
    params = random_params(cell)
    for field in set(RECURRENT) & set(getattr(params, "_fields", ())):
        params = params._replace(**{field: jax.tree.map(jnp.zeros_like, getattr(params, field))})
    if name in ("BR", "NBR"):
        # their candidate reads its own unit without a matrix: shut by saturation
        params = params._replace(b=params.b.at[2].set(1e3))
    if name == "STAR":
        params = params._replace(b=jnp.zeros_like(params.b))
    if name == "GatedDeltaNet":
        # nothing is written, so that nothing is erased
        params = params._replace(W_k=jnp.zeros_like(params.W_k))
    return params


def test_every_cell_of_the_catalogue_is_accounted_for():
    without = set()
    for name, kind in classes().items():
        cell = example(kind, 2, 4)
        x = jnp.zeros(moment_shape(cell))
        found = jax.eval_shape(
            lambda p, c=cell, x=x: keep(c, p, c.initial_carry(p), x), shapes(cell)
        )
        if not jax.tree.leaves(found):
            without.add(name)
    assert without == NONE


def _one(name, **options):
    # the plain run asks those that people know, the long run all
    shown = name in ("GRU", "LSTM", "LRU") and not options
    return pytest.param(name, options, marks=[] if shown else [pytest.mark.long])


@pytest.mark.parametrize(
    "name, options",
    [
        *(_one(name) for name in sorted(set(classes()) - NONE - {"MLSTM", "SLSTM", "Clockwork"})),
        _one("GRU", update_weighs="old"),
        _one("MGU", forget_weighs="old"),
        _one("RHN", coupled=False, depth=3),
        _one("QRNN", pooling="ifo"),
        _one("Leaky", learned_tau=True),
        _one("Leaky", tau=(2.0, 3.0, 4.0, 5.0)),
        _one("SCRN", learned_alpha=True),
    ],
)
def test_what_is_kept_is_the_slope_along_the_direct_path(name, options):
    cell = dataclasses.replace(example(classes()[name], 2, 4), **options)
    params = without_recurrence(name, cell)
    x = np.random.default_rng(1).normal(size=moment_shape(cell))
    x = jnp.asarray(x * (name not in SQUASHED))
    carry = cell.initial_carry(params)
    kept = keep(cell, params, carry, x)
    several = isinstance(kept, tuple)
    for field in carry._fields if several else [KEPT.get(name, carry._fields[-1])]:

        def after(a, field=field):
            return getattr(cell.step(params, carry._replace(**{field: a}), x)[0], field)

        got, moved = getattr(kept, field) if several else kept, getattr(carry, field)
        # where units do not meet, a row of the Jacobian sums up to its diagonal
        slope = jax.jvp(after, (moved,), (jnp.ones_like(moved),))[1]
        got = got.reshape(*got.shape, *(1,) * (slope.ndim - got.ndim))
        np.testing.assert_allclose(np.broadcast_to(got, slope.shape), slope, rtol=1e-12)


# the field that is kept, where it is not the last of the carry
KEPT = {"QRNN": "c", "TauGRU": "h", "TGRU": "h", "TLSTM": "c"}


@pytest.mark.long
def test_stabilised_gates_count_before_they_are_stabilised():
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=2))
    cell = cells.SLSTM(2, 4, heads=2)
    params, carry = random_params(cell), cells.SLSTMCarry(*jnp.asarray(draw.normal(size=(4, 4))))
    after, _ = cell.step(params, carry, x)
    # c exp(m) is the c of the paper: what is left of it beside what enters
    entering = cell.step(params, carry._replace(c=jnp.zeros(4)), x)[0].c
    left = (after.c - entering) * np.exp(after.m) / (carry.c * np.exp(carry.m))
    np.testing.assert_allclose(keep(cell, params, carry, x), left, rtol=1e-9)
    cell = cells.MLSTM(2, 4, heads=2, forget="exponential")
    params = random_params(cell)
    n, m = jnp.asarray(draw.normal(size=(2, 2))), jnp.asarray(draw.normal(size=2))
    carry = cell.initial_carry(params)._replace(n=n, m=m)
    after, _ = cell.step(params, carry, x)
    entering = cell.step(params, carry._replace(n=jnp.zeros_like(n)), x)[0].n
    left = (after.n - entering) * np.exp(after.m)[:, None] / (n * np.exp(m)[:, None])
    kept = np.broadcast_to(keep(cell, params, carry, x)[:, None], left.shape)
    np.testing.assert_allclose(kept, left, rtol=1e-9)


def test_a_clockwork_keeps_all_until_it_ticks():
    cell = cells.Clockwork(1, 4, periods=(1, 4))
    params = random_params(cell)
    found = time_constants(cell, params, jnp.zeros((8, 1)))
    np.testing.assert_allclose(found.mean_keep, [0, 0, 0.75, 0.75])
    np.testing.assert_array_equal(found.time_constant, 0)
    np.testing.assert_allclose(found.time_constant_of_mean[2:], -1 / np.log(0.75))


def test_leaky_cells_give_their_tau_back():
    cell = jaxrnn.Leaky(2, 3, dt=0.5, tau=(2.0, 10.0, 100.0))
    params = random_params(cell)
    found = time_constants(cell, params, jnp.ones((4, 2)), dt=0.5)
    np.testing.assert_allclose(found.leak_time_constant, [2, 10, 100], rtol=1e-14)
    alpha = 0.5 / np.array([2, 10, 100])
    np.testing.assert_allclose(found.time_constant, -0.5 / np.log1p(-alpha), rtol=1e-12)
    # Euler's steps decay faster than the equation, by half a step
    np.testing.assert_allclose(found.time_constant, np.array([2, 10, 100]) - 0.25, atol=0.012)
    instant = dataclasses.replace(cell, tau=0.5)
    none = time_constants(instant, params, jnp.ones((4, 2)), dt=0.5)
    np.testing.assert_array_equal(none.time_constant, 0)
    np.testing.assert_array_equal(none.leak_time_constant, 0.5)


def test_complex_diagonal_cells_have_a_frequency():
    cell = cells.LRU(2, 3, 1)
    params = random_params(cell)._replace(
        log_nu=jnp.log(jnp.array([0.1, 0.01, 1.0])),
        log_theta=jnp.log(2 * jnp.pi * jnp.array([0.25, 0.01, 0.4])),
    )
    found = time_constants(cell, params, jnp.ones((5, 2)), dt=0.1)
    np.testing.assert_allclose(found.time_constant, [1, 10, 0.1], rtol=1e-12)
    np.testing.assert_allclose(found.frequency, [2.5, 0.1, 4.0], rtol=1e-12)
    cell, params = forgetting()
    assert time_constants(cell, params, gates(0.5, 0.5)).frequency is None


def test_modes_of_eigenvalues():
    found = modes(np.array([0.5j, -0.5, 1.0, 0.0, 2.0, np.exp(-0.01 + 0.3j)]), dt=0.1)
    expected = [0.1 / np.log(2), 0.1 / np.log(2), np.inf, 0, -0.1 / np.log(2), 10.0]
    np.testing.assert_allclose(found.time_constant, expected, rtol=1e-12)
    np.testing.assert_allclose(found.frequency, [2.5, 5, 0, 0, 0, 3 / (2 * np.pi)], rtol=1e-12)


# ---- sequences

B, T = 3, 6
LENGTHS = jnp.array([6, 0, 4])
RESETS = jnp.zeros((B, T), bool).at[0, 3].set(True).at[2, 1].set(True)


@pytest.mark.parametrize("reverse", [True, pytest.param(False, marks=pytest.mark.long)])
def test_averages_over_real_steps_from_the_carry_before_each(reverse):
    cell = jaxrnn.LSTM(2, 3)
    params = random_params(cell)
    xs = jnp.asarray(np.random.default_rng(1).normal(size=(B, T, 2)))
    options = dict(lengths=LENGTHS, resets=RESETS, reverse=reverse)
    found = time_constants(cell, params, xs.at[2, 4:].set(jnp.nan), dt=2.0, **options)
    W_x, W_h, b = (np.asarray(a)[1] for a in params[:3])
    carries = np.asarray(jaxrnn.trajectory(cell, params, xs, **options)[0].h)
    for row in (0, 2):
        length = int(LENGTHS[row])
        order = range(length)[::-1] if reverse else range(length)
        logs, before = [], np.zeros(3)
        for t in order:
            fresh = RESETS[row, t + 1] if reverse and t + 1 < length else RESETS[row, t]
            if fresh and not (reverse and t + 1 >= length):
                before = np.zeros(3)
            a = W_x @ np.asarray(xs[row, t]) + W_h @ before + b
            logs.append(-np.log1p(np.exp(-a)))
            before = carries[row, t]
        np.testing.assert_allclose(found.mean_log_keep[row], np.mean(logs, 0), rtol=1e-12)
        np.testing.assert_allclose(found.time_constant[row], -2 / np.mean(logs, 0), rtol=1e-12)
        np.testing.assert_allclose(found.mean_keep[row], np.mean(np.exp(logs), 0), rtol=1e-12)
    np.testing.assert_array_equal(found.mean_log_keep[1], -np.inf)
    np.testing.assert_array_equal(found.time_constant[1], 0)


def test_a_stack_is_its_layers_and_a_batch_its_rows():
    layers = (jaxrnn.GRU(2, 3), jaxrnn.Elman(3, 3), jaxrnn.Leaky(3, 2))
    stack = jaxrnn.Readout(jaxrnn.Stack(layers, dropout=0.5), 1)
    params = random_params(stack)
    xs = jnp.asarray(np.random.default_rng(1).normal(size=(B, T, 2)))
    found = time_constants(stack, params, xs)
    assert found.time_constant[1] is None
    alone = time_constants(layers[0], params.network[0], xs)
    np.testing.assert_allclose(found.mean_log_keep[0], alone.mean_log_keep, rtol=1e-12)
    np.testing.assert_allclose(found.leak_time_constant[2], np.full((B, 2), 10.0), rtol=1e-12)
    one = jax.jit(jax.vmap(lambda x: time_constants(stack, params, x)))(xs)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.long
def test_layers_of_a_stack_read_what_dropout_leaves():
    layers = (jaxrnn.GRU(2, 3), jaxrnn.GRU(3, 2))
    stack = jaxrnn.Stack(layers, dropout=0.5)
    params = random_params(stack)
    xs = jnp.asarray(np.random.default_rng(1).normal(size=(T, 2)))
    key = jax.random.key(2)
    found = time_constants(stack, params, xs, key=key)
    ys = jaxrnn.unroll(
        jaxrnn.Stack((*layers[:1], Copy()), dropout=0.5), (params[0], ()), xs, key=key
    )[1]
    above = time_constants(layers[1], params[1], ys)
    assert np.sum(np.asarray(ys) == 0) > 3
    np.testing.assert_allclose(found.mean_log_keep[1], above.mean_log_keep, rtol=1e-12)


@dataclasses.dataclass(frozen=True)
class Copy:
    """A layer that shows what it reads."""

    input_size = output_size = 3

    def initial_carry(self, params):
        return ()

    def step(self, params, carry, x):
        return carry, x


class Counter(NamedTuple):
    n: jax.Array


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A user's cell, which says itself what it keeps."""

    def init(self, key, dtype=jnp.float32):
        return jnp.asarray(0.5, dtype)

    def initial_carry(self, params):
        return Counter(jnp.ones(2, params.dtype))

    def step(self, params, carry, x):
        n = params * carry.n + x
        return Counter(n), n

    def keep(self, params, carry, x):
        return jnp.full(2, params)


def test_a_users_cell_says_itself_what_it_keeps():
    found = time_constants(Foreign(), jnp.float64(0.5), jnp.zeros((4, 2)))
    np.testing.assert_allclose(found.time_constant, 1 / np.log(2), rtol=1e-12)


@pytest.mark.long
def test_no_steps_saturated_gates_and_gradients_are_never_nan():
    cell, params = forgetting(jnp.float32)
    none = time_constants(cell, params, jnp.zeros((0, 1), jnp.float32))
    np.testing.assert_array_equal(none.mean_log_keep, -np.inf)
    np.testing.assert_array_equal(none.time_constant, 0)
    full = time_constants(cell, params, jnp.full((3, 1), 1e3, jnp.float32))
    np.testing.assert_array_equal(full.time_constant, np.inf)
    shut = time_constants(cell, params, jnp.full((3, 1), -1e3, jnp.float32))
    np.testing.assert_array_equal(shut.time_constant, 0)
    slope = jax.grad(lambda x: time_constants(cell, params, x).time_constant.sum())
    for x in (0.0, 1e3, -1e3):
        assert np.all(np.isfinite(slope(jnp.full((3, 1), x, jnp.float32))))


def test_errors_say_what_to_do():
    cell = jaxrnn.Elman(1, 2)
    params = random_params(cell)
    with pytest.raises(TypeError, match=r"Elman has no keep gate: give it a method keep\("):
        time_constants(cell, params, jnp.zeros((3, 1)))
    cell, params = forgetting()
    with pytest.raises(ValueError, match="dt must be positive, got 0"):
        time_constants(cell, params, gates(0.5), dt=0.0)


def test_the_figure_shows_both_averages():
    from jaxrnn.plot.state_space import time_constants as draw

    taus = jnp.array([[0.5, 20.0], [3.0, np.inf]])
    nothing = jnp.zeros((2, 2))
    record = TimeConstants((taus,), (taus + 1,), (nothing,), (nothing,), None, None)
    lines = draw(record).get_lines()
    assert [line.get_label() for line in lines[:2]] == ["mean of ln keep", "ln of mean keep"]
    np.testing.assert_allclose(lines[0].get_xdata(), [0.5, 3, 20])
    np.testing.assert_allclose(lines[0].get_ydata(), [0.25, 0.5, 0.75])
