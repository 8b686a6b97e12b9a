"""Covariant Lyapunov vectors: the directions that grow at each exponent, and their angles."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxrnn.analysis.householder import qr
from jaxrnn.analysis.lyapunov import check_exponents, check_whole
from jaxrnn.analysis.scaled import log_scaled, norm, rescale
from jaxrnn.analysis.tangents import (
    age,
    episode_length,
    from_episode_starts,
    leave_out,
    push_columns,
    starting_columns,
)
from jaxrnn.analysis.walk import Walk, check_steps, over_batch
from jaxrnn.methods import Method


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CovariantVectors:
    """Covariant Lyapunov vectors along one trajectory for each row; logarithms are natural.

    vectors: `vectors[t, :, i]` is v_i at the carry *after* the step at xs[t], of length 1, its
        sign without meaning: J_t v_i(t−1) is a multiple of v_i(t). Zero at padding.
    angles: between v_i and v_j at each step, in radians, 0…π/2. Small ones mean that directions
        of different growth nearly touch.
    local_exponents: ln ‖J_t v_i(t−1)‖, in nats per step, or per unit of time if `dt` was given.
    settled: where both the basis from the past and the vectors from the future have settled.
    exponents: mean of the local exponents over the settled steps; −inf if there are none.
    """

    vectors: Float[Array, "*batch T N K"]
    angles: Float[Array, "*batch T K K"]
    local_exponents: Float[Array, "*batch T K"]
    settled: Bool[Array, "*batch T"]
    exponents: Float[Array, "*batch K"]


def covariant_vectors(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    *,
    exponents: int | None = None,
    burn_in: int | None = None,
    settle: int | None = None,
    dt: float = 1.0,
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> CovariantVectors:
    """The K leading covariant Lyapunov vectors at every step.

    Forwards J_t Q_(t−1) = Q_t R_t; then from the end back C_(t−1) ∝ R_t⁻¹ C_t with upper
    triangular C, columns of length 1, and v_i(t) = Q_t c_i(t) (Ginelli et al. 2007, Phys. Rev.
    Lett. 99, 130601). Unlike the columns of Q they do not depend on the inner product, and a
    linear network's are its eigenvectors. Two equal exponents, as of a complex pair, have a plane
    of such directions: single vectors in it are arbitrary.

    A step costs K Jacobian-vector products, a QR of (N, K) and a triangular solve of (K, K);
    memory T·(N K + 2 K²) numbers.

    Args:
        exponents: K, how many; all N by default, N counting real numbers of the carry.
        burn_in: steps at the start of each episode until the carry and the basis have settled.
        settle: steps at its end until the vectors, which come from there, have. None: a tenth of
            the episode, for both.
        dt: time that a step stands for; exponents are then per unit of time.

    Other options as for `jaxrnn.unroll`. No product crosses a reset. Directions that a singular
    Jacobian annihilates have local exponent −inf; several of them are not told apart.
    """
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_steps(cell, params, xs, start=start, **options)
    count = check_exponents(cell, params, exponents)
    for name, value in (("burn_in", burn_in), ("settle", settle)):
        if value is not None:
            check_whole(name, value, 0)
    if not dt > 0:
        raise ValueError(f"dt must be positive, got {dt!r}")
    plan = _Plan(count, burn_in, settle, float(dt), bool(reverse))
    return _covariant_vectors(cell, plan, method, params, sequences)


class _Plan(NamedTuple):
    """What is asked for; static."""

    exponents: int
    burn_in: int | None
    settle: int | None
    dt: float
    reverse: bool


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _covariant_vectors(cell, plan, method, params, sequences):
    one = functools.partial(_vectors, cell, params, plan)
    return over_batch(one, cell, params, sequences, reverse=plan.reverse, method=method)


class _Factors(NamedTuple):
    """J_t Q_(t−1) = q r 2^exponent, the power of two by columns."""

    q: Float[Array, "*T N K"]
    r: Float[Array, "*T K K"]
    exponent: Int[Array, "*T K"]


def _vectors(cell: Any, params: PyTree, plan: _Plan, walk: Walk) -> CovariantVectors:
    factors = _forwards(cell, params, plan.exponents, walk)
    vectors, angles, local = _backwards(factors, walk.moments.fresh)
    since = age(walk)
    left = episode_length(walk) - 1 - since
    settled = (since >= leave_out(walk, plan.burn_in)) & (left >= leave_out(walk, plan.settle))
    real = walk.moments.real
    if real is not None:
        settled = settled & real
        vectors = jnp.where(real[:, None, None], vectors, 0)
    number = jnp.sum(settled).astype(local.dtype)
    mean = jnp.sum(jnp.where(settled[:, None], local, 0), axis=0) / jnp.maximum(number, 1)
    by_time = dict(vectors=vectors, angles=angles, local_exponents=local / plan.dt, settled=settled)
    if plan.reverse:
        by_time = jax.tree.map(lambda a: a[::-1], by_time)
    mean = jnp.where(number > 0, mean / plan.dt, -jnp.inf)
    return CovariantVectors(exponents=mean, **by_time)


def _forwards(cell: Any, params: PyTree, count: int, walk: Walk) -> _Factors:
    start = starting_columns(walk.initial, count)

    def one_step(basis, inputs):
        before, moment = inputs
        if moment.fresh is not None:
            basis = jnp.where(moment.fresh, start, basis)
        columns = push_columns(cell, params, walk.initial, before, moment, basis)
        columns, exponent = rescale(columns, jnp.zeros(count, jnp.int32), axis=(0,))
        q, r = qr(columns)
        return q, _Factors(q, r, exponent)

    return jax.lax.scan(one_step, start, (from_episode_starts(walk), walk.moments))[1]


def _backwards(
    factors: _Factors, fresh: Bool[Array, " T"] | None
) -> tuple[Float[Array, "T N K"], Float[Array, "T K K"], Float[Array, "T K"]]:
    identity = jnp.eye(factors.r.shape[-1], dtype=factors.r.dtype)

    def one_step_back(C, inputs):
        at, begins = inputs
        earlier, local = _pull(at.r, at.exponent, C)
        # what an episode begins with has nothing to do with how the one before ended
        earlier = earlier if begins is None else jnp.where(begins, identity, earlier)
        return earlier, (at.q @ C, _angles(C), local)

    return jax.lax.scan(one_step_back, identity, (factors, fresh), reverse=True)[1]


def _pull(
    r: Float[Array, "K K"], exponent: Int[Array, " K"], C: Float[Array, "K K"]
) -> tuple[Float[Array, "K K"], Float[Array, " K"]]:
    """C one step earlier, columns of length 1, and by how much each grows in that step."""
    diagonal = jnp.diagonal(r)
    # a direction that is annihilated shrinks by more than anything that is not
    least = jnp.finfo(r.dtype).eps ** 2
    whole = r + jnp.diag(jnp.where(diagonal == 0, least, 0))
    earlier = jax.lax.linalg.triangular_solve(whole, C, left_side=True)
    lowest = jax.lax.cummin(exponent)
    by = jnp.minimum(lowest - exponent[:, None], 0)  # row i of column k ≥ i
    earlier = jnp.triu(earlier * jnp.ldexp(jnp.ones_like(earlier), by))
    earlier, up = rescale(earlier, -lowest, axis=(0,))
    length = jax.vmap(norm, in_axes=1)(earlier)
    local = jnp.where(diagonal == 0, -jnp.inf, -log_scaled(length, up))
    return earlier / jnp.where(length > 0, length, 1), local


def _angles(C: Float[Array, "K K"]) -> Float[Array, "K K"]:
    # by the chord, which is true for small angles, too; Q is orthonormal, so that C will do
    sign = jnp.where(C.T @ C < 0, -jnp.ones_like(C), 1)
    chord = jnp.sqrt(jnp.sum((C[:, :, None] - sign * C[:, None, :]) ** 2, axis=0))
    return 2 * jnp.arcsin(jnp.minimum(chord / 2, 1))
