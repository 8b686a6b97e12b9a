"""Can methods that are parallel in time live behind the lowered form? Two small ones try.

They are probes, not methods: a fixed number of Newton turns, no check whether it converged.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_close, see, situation
from rows import problem

import jaxrnn
from jaxrnn import LSTM, Elman, Scan, trajectory, unroll
from jaxrnn.methods import lowered

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


class Flagged(NamedTuple):
    """The element of a stretch of steps, and whether an episode begins within it."""

    element: Affine
    real: jax.Array
    fresh: jax.Array


@dataclasses.dataclass(frozen=True)
class Associative:
    """Combines the elements of all steps in a tree; the flags travel with them."""

    def __call__(self, cell, params, carry, moments, *, reverse, every):
        steps = len(jax.tree.leaves(moments)[0])
        nowhere = jnp.zeros(steps, bool)
        flags = Flagged(
            jax.vmap(cell.element, (None, 0))(params, moments.x),
            ~nowhere if moments.real is None else moments.real,
            nowhere if moments.fresh is None else moments.fresh,
        )

        def combine(older, newer):
            both = cell.combine(older.element, newer.element)
            # what is not real changes nothing; what is fresh forgets what is older
            element = lowered.select(older.real, both, newer.element)
            element = lowered.select(newer.fresh, newer.element, element)
            element = lowered.select(newer.real, element, older.element)
            fresh = older.fresh | newer.fresh
            return Flagged(element, older.real | newer.real, fresh)

        prefixes = jax.lax.associative_scan(jax.vmap(combine), flags, reverse=reverse)

        def after(prefix):
            start = lowered.select(prefix.fresh, cell.initial_carry(params), carry)
            return lowered.select(prefix.real, cell.apply(prefix.element, start), carry)

        carries = jax.vmap(after)(prefixes)
        ys = _outputs(cell, params, carry, carries, moments, reverse)
        return (carries if every else _last(carries, reverse)), ys


@dataclasses.dataclass(frozen=True)
class Newton:
    """All steps at once: linearise around a guess of every carry, solve the linear recurrence."""

    turns: int

    def __call__(self, cell, params, carry, moments, *, reverse, every):
        flat, back = jaxrnn.flatten_carry(carry)
        initial = carry if moments.fresh is None else cell.initial_carry(params)

        def one(before, moment):
            after, _ = lowered.guarded_step(cell, params, initial, back(before), moment)
            return jaxrnn.flatten_carry(after)[0]

        def turn(_, guess):
            before = _before(flat, guess, reverse)
            after = jax.vmap(one)(before, moments)
            J = jax.vmap(jax.jacfwd(one))(before, moments)
            b = after - jnp.einsum("tij,tj->ti", J, before)
            # the first step starts from a known carry
            first = -1 if reverse else 0
            b = b.at[first].add(J[first] @ flat)

            def combine(older, newer):
                return newer[0] @ older[0], newer[0] @ older[1] + newer[1]

            solve = jax.lax.associative_scan(jax.vmap(combine), (J, b), reverse=reverse)
            return solve[1]

        steps = len(jax.tree.leaves(moments)[0])
        guess = jnp.broadcast_to(flat, (steps, flat.size))
        guess = jax.lax.fori_loop(0, self.turns, turn, guess)
        carries = jax.vmap(back)(guess)
        ys = _outputs(cell, params, carry, carries, moments, reverse)
        return (carries if every else _last(carries, reverse)), ys


def _last(carries, reverse):
    return jax.tree.map(lambda leaf: leaf[0 if reverse else -1], carries)


def _before(first, after, reverse):
    """What every step starts from, given what it leaves."""
    return jax.tree.map(
        lambda f, a: jnp.concatenate([a[1:], f[None]] if reverse else [f[None], a[:-1]]),
        first,
        after,
    )


def _outputs(cell, params, carry, carries, moments, reverse):
    """ys from the carries, by one step each."""
    initial = cell.initial_carry(params)

    def one(before, moment):
        return lowered.guarded_step(cell, params, initial, before, moment)[1]

    return jax.vmap(one)(_before(carry, carries, reverse), moments)


def seen(cell, verb, given, method, reverse, args):
    def run(params, xs, carry):
        options = dict(lengths=given.lengths, resets=given.resets, key=given.keys)
        options |= dict(carry=carry, reverse=reverse, method=method)
        return verb(cell, params, xs, **options)

    return see(run, *args)


SITUATIONS = {
    "plain": situation([T] * B, np.zeros((B, T))),
    "lengths": situation([0, 1, 4, 7], np.zeros((B, T))),
    "resets": situation([T] * B, np.eye(T)[[0, 2, 3, 6]]),
    "both": situation([0, 2, 5, 7], np.arange(B * T).reshape(B, T) % 3 == 1),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("cell", "method", "verb"),
    [
        (Diagonal(), Associative(), unroll),
        (Diagonal(), Associative(), trajectory),
        (LSTM(3, 2, learned_carry=True), Newton(T), unroll),
    ],
    ids=["associative", "associative-trajectory", "newton"],
)
def test_parallel_methods_fit_behind_the_lowered_form(cell, method, verb, reverse):
    args = problem(cell, (B, T), seed=3)
    compiled = jax.jit(lambda given, m: seen(cell, verb, given, m, reverse, args), static_argnums=1)
    for given in SITUATIONS.values():
        assert_close(compiled(given, method), compiled(given, Scan()), 1e-11)


def test_without_lengths_and_resets_too():
    for cell, method in ((Diagonal(), Associative()), (Elman(3, 4), Newton(T))):
        params, xs, _ = problem(cell, (B, T))
        for reverse in (False, True):
            got = unroll(cell, params, xs, reverse=reverse, method=method)
            assert_close(got, unroll(cell, params, xs, reverse=reverse), 1e-11)


def test_nan_does_not_cross_a_reset_in_a_parallel_method():
    # in the associative one: Newton's linear recurrence multiplies by J = 0, which NaN survives
    cell = Diagonal()
    params, xs, _ = problem(cell, (T,))
    resets = np.arange(T) == 3
    _, clean = unroll(cell, params, xs, resets=resets, method=Associative())
    _, spoilt = unroll(cell, params, xs.at[:3].set(jnp.nan), resets=resets, method=Associative())
    np.testing.assert_array_equal(spoilt[3:], clean[3:])
    assert np.isnan(spoilt[:3]).all()
