"""All steps of any recurrence at once, by Newton's method on the whole trajectory.

The carries h_1 … h_T are the root of r_t = f(h_{t-1}, x_t) − h_t. Linearised around a guess, the
correction δ obeys a linear recurrence,

    δ_t = J_t δ_{t-1} + r_t        J_t = ∂f/∂h at the guess,

which is associative in time and so solved in a tree (Lim et al. 2024, 2309.12252). After k turns
the first k steps are exact whatever the J; how many turns all of them take is decided by how fast
the recurrence forgets (Gonzalez et al. 2024, 2407.19115). The tangent of the solution is the same
linear recurrence at the solution, so that derivatives cost one such tree and never see the turns.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, PyTree

from jaxrnn.cell import flatten_carry
from jaxrnn.methods.lowered import Moment, all_steps, before_each, guarded_step, select
from jaxrnn.methods.scan import Scan
from jaxrnn.methods.segments import closes_over_traced


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Newton:
    """Parallel in time, for cells that are not associative.

    A solution is accepted if the last correction is within tolerance everywhere; otherwise, as on
    chaotic parameters, the sequence is walked by the scan, and only then is the scan paid for.
    Carries with integers or random keys, cells that close over a traced array and params of 16 bits
    go through `Scan`. `jaxrnn.unroll_report` says how many turns it took.

    iterations: how many turns at most.
    tolerance: how large the last correction may be, relative to the largest entry of the carries
        (and to 1); by default 30 times the rounding error of the dtype.
    jacobian: None takes what the cell declares, exactly: "dense" costs T N² memory and T N³ work a
        turn for a carry of N numbers, "diagonal" and blocks much less. "diagonal" for a cell that
        is not: the rest of J is left out, which takes more turns (quasi-Newton).
    damping: J is multiplied by 1 − damping, which tames corrections where J is large, and costs
        turns where it is not; in [0, 1).
    """

    iterations: int = 50
    tolerance: float | None = None
    jacobian: str | None = None
    damping: float = 0.0

    def __post_init__(self) -> None:
        if type(self.iterations) is not int or self.iterations < 1:
            raise ValueError(f"Newton: iterations must be at least 1, got {self.iterations!r}")
        if self.jacobian not in (None, "diagonal"):
            raise ValueError(f"Newton: jacobian must be None or 'diagonal', got {self.jacobian!r}")
        if not 0 <= self.damping < 1:
            raise ValueError(f"Newton: damping must be in [0, 1), got {self.damping!r}")
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(f"Newton: tolerance must be above 0 or None, got {self.tolerance!r}")

    def __call__(
        self,
        cell: Any,
        params: PyTree,
        carry: PyTree,
        moments: Moment,
        *,
        reverse: bool,
        every: bool,
    ) -> tuple[PyTree, PyTree]:
        """Carries the unroll out; see `Method`."""
        if not _serves(cell, params, carry, moments):
            return Scan()(cell, params, carry, moments, reverse=reverse, every=every)
        _, back = flatten_carry(carry)
        problem = _Problem(self, cell, reverse)
        trajectory = _differentiable(problem)(params, carry, moments)
        before = before_each(carry, jax.vmap(back)(trajectory), reverse)
        # one step more from everywhere, which ys need anyway: what is left of the error fades in it
        carries, ys = all_steps(cell, params, before, moments)
        return (carries if every else _last(carries, reverse)), ys

    def report(
        self, cell: Any, params: PyTree, carry: PyTree, moments: Moment, *, reverse: bool
    ) -> tuple[Array, Array]:
        """How many turns it takes, and whether it falls back; 0 turns if it gives way at once."""
        if not _serves(cell, params, carry, moments):
            return jnp.asarray(0, jnp.int32), jnp.asarray(True)
        found = _iterate(_Problem(self, cell, reverse), params, carry, moments)
        return found.turns, ~_accepted(self, found)


def _serves(cell: Any, params: PyTree, carry: PyTree, moments: Moment) -> bool:
    leaves = jax.tree.leaves(carry)
    return (
        len(jax.tree.leaves(moments)[0]) > 0
        and bool(leaves)
        and all(jnp.issubdtype(a.dtype, jnp.inexact) and _bits(a) >= 32 for a in leaves)
        and not closes_over_traced(cell, params, carry, moments)
    )


def _bits(a: Array) -> int:
    return jnp.finfo(a.dtype).bits


def _last(tree: PyTree, reverse: bool) -> PyTree:
    return jax.tree.map(lambda a: a[0 if reverse else -1], tree)


class _Problem(NamedTuple):
    """What a solution depends on besides arrays; static."""

    method: Newton
    cell: Any
    reverse: bool


class _Found(NamedTuple):
    """Where the turns have led to.

    error: the largest entry of the last correction, relative to the carries.
    """

    trajectory: Array
    turns: Array
    error: Array


def _one(
    cell: Any, params: PyTree, initial: PyTree, back: Callable, before: Array, moment: Moment
) -> Array:
    after, _ = guarded_step(cell, params, initial, back(before), moment)
    return flatten_carry(after)[0]


def _initial(cell: Any, params: PyTree, moments: Moment) -> PyTree:
    return None if moments.fresh is None else cell.initial_carry(params)


def _tolerance(method: Newton, dtype: Any) -> float:
    return 30 * float(jnp.finfo(dtype).eps) if method.tolerance is None else method.tolerance


def _accepted(method: Newton, found: _Found) -> Array:
    return found.error <= _tolerance(method, found.trajectory.dtype)


# ---- the turns


def _iterate(problem: _Problem, params: PyTree, carry: PyTree, moments: Moment) -> _Found:
    method, cell, reverse = problem
    first, back = flatten_carry(carry)
    step = functools.partial(_one, cell, params, _initial(cell, params, moments), back)
    structure = "diagonal" if method.jacobian else getattr(cell, "jacobian", "dense")
    steps = len(jax.tree.leaves(moments)[0])

    def turn(found: _Found) -> _Found:
        before = before_each(first, found.trajectory, reverse)
        residual = jax.vmap(step)(before, moments) - found.trajectory
        J = jax.vmap(functools.partial(_jacobian, step, structure, exact=not method.jacobian))(
            before, moments
        )
        J = J if method.damping == 0 else (1 - method.damping) * J
        correction = solve_linear(J, residual, moments.fresh, reverse)
        trajectory = found.trajectory + correction
        error = jnp.max(jnp.abs(correction)) / jnp.maximum(jnp.max(jnp.abs(trajectory)), 1)
        # said outright: on some processors XLA's maximum steps over a NaN
        error = jnp.where(jnp.all(jnp.isfinite(trajectory)), error, jnp.nan)
        return _Found(trajectory, found.turns + 1, error)

    def goes_on(found: _Found) -> Array:
        # NaN is never accepted; once there, it stays
        hopeless = jnp.isnan(found.error) & (found.turns > 0)
        return (found.turns < method.iterations) & ~_accepted(method, found) & ~hopeless

    start = jnp.broadcast_to(first, (steps, first.size))
    infinite = jnp.asarray(jnp.inf, first.dtype)
    return jax.lax.while_loop(goes_on, turn, _Found(start, jnp.asarray(0, jnp.int32), infinite))


def _jacobian(
    step: Callable, structure: str | int, before: Array, moment: Moment, *, exact: bool
) -> Array:
    """∂after/∂before of one step: (N, N), its diagonal (N,), or its blocks (N/k, k, k)."""

    def f(before: Array) -> Array:
        return step(before, moment)

    if structure == "dense":
        return jax.jacfwd(f)(before)
    if not exact:
        return jnp.diagonal(jax.jacfwd(f)(before))
    if structure == "diagonal":
        return jax.jvp(f, (before,), (jnp.ones_like(before),))[1]
    k = int(structure)

    def column(i: Array) -> Array:
        along = (jnp.arange(before.size, dtype=jnp.int32) % k == i).astype(before.dtype)
        return jax.jvp(f, (before,), (along,))[1].reshape(-1, k)

    return jnp.moveaxis(jax.vmap(column)(jnp.arange(k, dtype=jnp.int32)), 0, -1)


def solve_linear(J: Array, u: Array, fresh: Array | None, reverse: bool) -> Array:
    """δ_t = J_t δ_{t-1} + u_t for all t at once, δ_0 = 0; nothing crosses where `fresh`.

    J: (T, N, N), or diagonals (T, N), or blocks (T, N/k, k, k). u: (T, N).
    """
    blocks = u.reshape(*J.shape[:-2], J.shape[-1]) if J.ndim > 2 else u

    def times(A: Array, B: Array) -> Array:
        if J.ndim == 2:
            return A * B
        return jnp.einsum("...ij,...jk->...ik", A, B, precision="highest")

    def combine(older: tuple, newer: tuple) -> tuple:
        (A, a, was_fresh), (B, b, is_fresh) = older, newer
        Ba = times(B, a) if J.ndim == 2 else times(B, a[..., None])[..., 0]
        if is_fresh is None:
            return times(B, A), b + Ba, None
        # by where, as a NaN on the far side must not come across
        forget = jax.vmap(lambda c, yes, no: select(c, yes, no))
        AB, ab = forget(is_fresh, (B, b), (times(B, A), b + Ba))
        return AB, ab, was_fresh | is_fresh

    _, solution, _ = jax.lax.associative_scan(combine, (J, blocks, fresh), reverse=reverse)
    return solution.reshape(u.shape)


# ---- the solution and its derivative


def _solution(problem: _Problem, params: PyTree, carry: PyTree, moments: Moment) -> Array:
    found = _iterate(problem, params, carry, moments)
    ok = _accepted(problem.method, found)

    def walk(before: tuple[Array, Array]) -> tuple[Array, Array]:
        # behind a barrier together with what the loop changes: XLA would move a scan that does not
        # depend on that out of the loop, and pay for it
        given, _ = jax.lax.optimization_barrier(((params, carry, moments), before))
        carries, _ = Scan()(problem.cell, *given, reverse=problem.reverse, every=True)
        return jnp.asarray(True), jax.vmap(lambda c: flatten_carry(c)[0])(carries)

    # not a cond, which under vmap would walk always
    return jax.lax.while_loop(lambda s: ~s[0], walk, (ok, found.trajectory))[1]


def _differentiable(problem: _Problem) -> Callable:
    def call(params: PyTree, carry: PyTree, moments: Moment) -> Array:
        leaves, structure = jax.tree.flatten((params, carry, moments))
        run = jax.custom_jvp(lambda *leaves: _solution(problem, *structure.unflatten(leaves)))

        def rule(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
            trajectory = run(*primals)
            moving = [i for i, d in enumerate(tangents) if not isinstance(d, SymbolicZero)]
            d_moving = tuple(tangents[i] for i in moving)

            def merge(some: tuple) -> tuple:
                all_of_them = dict(enumerate(primals)) | dict(zip(moving, some, strict=True))
                return structure.unflatten(list(all_of_them.values()))

            return trajectory, _tangent(
                problem, merge, tuple(primals[i] for i in moving), d_moving, trajectory
            )

        run.defjvp(rule, symbolic_zeros=True)
        return run(*leaves)

    return call


def _tangent(
    problem: _Problem, merge: Callable, given: tuple, d_given: tuple, trajectory: Array
) -> Array:
    """The tangent of the trajectory: once more the linear recurrence, at the solution."""
    method, cell, reverse = problem
    _, carry, moments = merge(given)
    _, back = flatten_carry(carry)

    def all_steps(some: tuple) -> Array:
        # what comes from the step before is held; the first carry is given
        params, carry, moments = merge(some)
        first, _ = flatten_carry(carry)
        before = before_each(first, trajectory, reverse)
        step = functools.partial(_one, cell, params, _initial(cell, params, moments), back)
        return jax.vmap(step)(before, moments)

    _, u = jax.jvp(all_steps, (given,), (d_given,))
    params, carry, moments = merge(given)
    step = functools.partial(_one, cell, params, _initial(cell, params, moments), back)
    before = before_each(flatten_carry(carry)[0], trajectory, reverse)
    structure = getattr(cell, "jacobian", "dense")
    if structure == "dense" and method.jacobian:
        # a dense J was too much to ask for: without it, step by step
        return _tangent_step_by_step(step, before, moments, u, reverse)
    J = jax.vmap(functools.partial(_jacobian, step, structure, exact=True))(before, moments)
    # J of the first step acts on the carry given, whose tangent is in u already
    return solve_linear(J, u, moments.fresh, reverse)


def _tangent_step_by_step(
    step: Callable, before: Array, moments: Moment, u: Array, reverse: bool
) -> Array:
    def body(d: Array, given: tuple) -> tuple[Array, Array]:
        before, moment, u = given
        d = u + jax.jvp(lambda b: step(b, moment), (before,), (d,))[1]
        return d, d

    return jax.lax.scan(body, jnp.zeros_like(u[0]), (before, moments, u), reverse=reverse)[1]
