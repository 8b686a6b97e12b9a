"""Methods that are parallel in time: the same numbers as the scan, and what they promise beyond."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_close, see, situation
from rows import CELLS, Stepping, problem

import jaxrnn
from jaxrnn import GRU, LSTM, Associative, Elman, Newton, Scan, trajectory, unroll
from jaxrnn import cell as contract
from jaxrnn.methods.associative import is_associative

B, T = 4, 7


class Affine(NamedTuple):
    """carry ← a ⊙ carry + b."""

    a: jax.Array
    b: jax.Array


@dataclasses.dataclass(frozen=True)
class Diagonal:
    """A user's diagonal linear cell that says how its steps combine."""

    input_size: int = 3
    hidden_size: int = 4
    jacobian = "diagonal"

    def init(self, key, dtype=jnp.float32):
        k_a, k_B = jax.random.split(key)
        H, I = self.hidden_size, self.input_size
        return {
            "a": jax.random.uniform(k_a, (H,), dtype),
            "B": jax.random.normal(k_B, (H, I), dtype),
            "initial": jnp.ones(H, dtype),
        }

    def initial_carry(self, params):
        return params["initial"]

    def element(self, params, x):
        return Affine(params["a"] * jnp.cos(x.sum()), params["B"] @ x)

    def combine(self, older, newer):
        return Affine(newer.a * older.a, newer.a * older.b + newer.b)

    def apply(self, element, carry):
        return element.a * carry + element.b

    def step(self, params, carry, x):
        carry = self.apply(self.element(params, x), carry)
        return carry, jnp.tanh(carry)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Units in pairs that see each other and nobody else: blocks of two."""

    input_size: int = 3
    jacobian = 2

    def init(self, key, dtype=jnp.float32):
        return {"A": jax.random.normal(key, (2, 2, 2), dtype), "B": jnp.ones((4, 3), dtype)}

    def initial_carry(self, params):
        return jnp.zeros(4, params["A"].dtype)

    def step(self, params, carry, x):
        pairs = jnp.einsum("bij,bj->bi", params["A"], carry.reshape(2, 2))
        carry = jnp.tanh(pairs.ravel() + params["B"] @ x)
        return carry, carry


SITUATIONS = {
    "plain": situation([T] * B, np.zeros((B, T))),
    "lengths": situation([0, 1, 4, 7], np.zeros((B, T))),
    "resets": situation([T] * B, np.eye(T)[[0, 2, 3, 6]]),
    "both": situation([0, 2, 5, 7], np.arange(B * T).reshape(B, T) % 3 == 1),
}


def seen(cell, verb, given, method, reverse, args):
    def run(params, xs, carry):
        options = dict(lengths=given.lengths, resets=given.resets, key=given.keys)
        options |= dict(carry=carry, reverse=reverse, method=method)
        return verb(cell, params, xs, **options)

    return see(run, *args)


SMALL = LSTM(3, 2, learned_carry=True)


@pytest.mark.parametrize("reverse", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("cell", "method", "verb"),
    [
        (Diagonal(), Associative(), unroll),
        pytest.param(Diagonal(), Associative(), trajectory, marks=pytest.mark.long),
        (Diagonal(), Newton(), unroll),
        pytest.param(Pairs(), Newton(), unroll, marks=pytest.mark.long),
        (SMALL, Newton(), unroll),
        pytest.param(
            SMALL, Newton(jacobian="diagonal", damping=0.2), trajectory, marks=pytest.mark.long
        ),
    ],
    ids=["associative", "trajectory", "diagonal", "blocks", "newton", "quasi-newton"],
)
def test_parallel_methods_equal_the_scan_in_values_and_gradients(cell, method, verb, reverse):
    args = problem(cell, (B, T), seed=3)
    compiled = jax.jit(lambda given, m: seen(cell, verb, given, m, reverse, args), static_argnums=1)
    for given in SITUATIONS.values():
        assert_close(compiled(given, method), compiled(given, Scan()), 1e-11)
        if isinstance(method, Newton):
            options = dict(lengths=given.lengths, resets=given.resets, key=given.keys)
            report = jaxrnn.unroll_report(
                cell, *args[:2], carry=args[2], reverse=reverse, method=method, **options
            )
            assert not report.fell_back.any()  # else the scan would be compared with itself
            assert report.turns.max() <= T + 1


def test_without_lengths_and_resets_too():
    for cell, method in ((Diagonal(), Associative()), (Elman(3, 4), Newton())):
        params, xs, _ = problem(cell, (B, T))
        for reverse in (False, True):
            got = unroll(cell, params, xs, reverse=reverse, method=method)
            assert_close(got, unroll(cell, params, xs, reverse=reverse), 1e-11)


@pytest.mark.parametrize(("cell", "method"), [(Diagonal(), Associative()), (SMALL, Newton())])
def test_nan_does_not_cross_a_reset_in_a_parallel_method(cell, method):
    params, xs, _ = problem(cell, (T,))
    resets = np.arange(T) == 3

    def later(xs):
        ys = unroll(cell, params, xs, resets=resets, method=method)[1]
        return jnp.sum(jnp.sin(ys[3:])), ys

    spoilt = xs.at[:3].set(jnp.nan)
    (_, ys), of_clean = jax.value_and_grad(later, has_aux=True)(xs)
    (_, zs), of_spoilt = jax.value_and_grad(later, has_aux=True)(spoilt)
    assert_close(zs[3:], ys[3:])
    assert np.isnan(zs[:3]).all()
    assert_close(of_spoilt[3:], of_clean[3:])


@pytest.mark.long
@pytest.mark.parametrize("method", [Newton(), Newton(jacobian="diagonal")])
def test_newton_on_contracting_params_needs_few_turns_for_many_steps(method):
    cell, steps = GRU(3, 4), 4096
    params, xs, carry = problem(cell, (2, steps), seed=5)
    report = jaxrnn.unroll_report(cell, params, xs, carry=carry, method=method)
    assert not report.fell_back.any()
    assert report.turns.max() < 40

    def value(params, xs, method):
        return jnp.sum(jnp.sin(unroll(cell, params, xs, carry=carry, method=method)[1]))

    both = jax.jit(jax.value_and_grad(value, (0, 1)), static_argnums=2)
    assert_close(both(params, xs, method), both(params, xs, Scan()), 1e-10)


def test_newton_gives_way_to_the_scan_on_chaotic_params():
    cell, steps = Elman(3, 16, biases=0), 200
    params, xs, carry = problem(cell, (2, steps), seed=6, scale=1.2)
    report = jaxrnn.unroll_report(cell, params, xs, carry=carry, method=Newton(iterations=10))
    assert report.fell_back.all() and (report.turns <= 10).all()
    got = unroll(cell, params, xs, carry=carry, method=Newton(iterations=10))
    assert_close(got, unroll(cell, params, xs, carry=carry, method=Scan()), 1e-10)


@pytest.mark.long
def test_rows_that_converge_do_not_wait_for_those_that_fall_back():
    # one row of the batch is chaotic: its fall-back changes nothing for the others
    cell = Elman(3, 16, biases=0)
    params, xs, _ = problem(cell, (2, 60), seed=6)
    scales = jnp.array([0.2, 3.0])
    both = jax.vmap(lambda s: params._replace(W_h=s * params.W_h))(scales)

    def run(params, xs):
        return unroll(cell, params, xs, method=Newton(iterations=12))[1]

    ys = jax.jit(jax.vmap(run))(both, xs)
    for row in range(2):
        p = jax.tree.map(lambda a, row=row: a[row], both)
        assert_close(ys[row], unroll(cell, p, xs[row], method=Scan())[1], 1e-10)


def test_the_scan_is_paid_for_only_where_newton_fails():
    cell = GRU(3, 4)
    params, xs, _ = problem(cell, (2, 50))
    run = jax.jit(lambda params, xs: unroll(cell, params, xs, method=Newton())[1])
    entry = run.lower(params, xs).compile().as_text().split("ENTRY")[1]
    # the turns, and the loop of at most one turn that holds the scan: XLA must not move it out
    assert entry.count(" while(") == 2


@pytest.mark.long
def test_every_derivative_of_newton():
    cell = SMALL
    params, xs, carry = problem(cell, (5,), seed=2)
    along = problem(cell, (5,), seed=9).params

    def value(params, method):
        last, ys = unroll(cell, params, xs, carry=carry, method=method)
        return jnp.sum(jnp.sin(ys)) + jnp.sum(last.c**2)

    def derivatives(method):
        def f(p):
            return value(p, method)

        gradient, hessian = jax.jvp(jax.grad(f), (params,), (along,))
        return jax.jvp(f, (params,), (along,))[1], gradient, hessian

    for method in (Newton(), Newton(jacobian="diagonal")):
        assert_close(derivatives(method), derivatives(Scan()), 1e-10)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(iterations=0), "iterations must be at least 1, got 0"),
        (dict(jacobian="full"), "jacobian must be None or 'diagonal', got 'full'"),
        (dict(damping=1.0), r"damping must be in \[0, 1\), got 1.0"),
        (dict(tolerance=0.0), "tolerance must be above 0 or None, got 0.0"),
    ],
)
def test_options_of_newton_that_make_no_sense(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Newton(**options)


LONG = 4096


@pytest.mark.long
@pytest.mark.parametrize("name", [n for n, c in CELLS.items() if not is_associative(c)])
def test_newton_or_its_fall_back_over_thousands_of_steps(name):
    _newton_equals_the_scan(CELLS[name], jnp.float64, 1e-10)


# of cells that forget: over so many steps an oscillator's float32 rounding is seen by any method
FORGETFUL = ("elman-tanh", "lstm", "gru-before-new", "gru-after-old-no-bias", "minimal-rnn", "mgu")


@pytest.mark.long
@pytest.mark.parametrize("name", FORGETFUL)
def test_newton_over_thousands_of_steps_in_float32(name):
    _newton_equals_the_scan(CELLS[name], jnp.float32, 1e-5)


def _newton_equals_the_scan(cell, dtype, rounding):
    cell = Stepping(cell) if isinstance(cell, contract.Network) else cell
    params, xs, carry = problem(cell, (LONG,), seed=8, scale=0.25, dtype=dtype)
    got, want = (
        unroll(cell, params, xs, carry=carry, method=method) for method in (Newton(), Scan())
    )
    assert_close(got, want, rounding)


@pytest.mark.long
def test_what_overflows_is_never_taken_for_a_solution():
    # the turns give NaN here, which some maxima step over; the scan's numbers are finite
    cell = CELLS["layer-norm-lstm"]
    params, xs, carry = problem(cell, (LONG,), seed=8, scale=0.25)
    assert jaxrnn.unroll_report(cell, params, xs, carry=carry, method=Newton()).fell_back
    ys = unroll(cell, params, xs, carry=carry, method=Newton())[1]
    assert np.isfinite(ys).all()
