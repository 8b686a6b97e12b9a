"""Downhill to where a network moves slowest under a constant input."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxrnn import cell as contract
from jaxrnn.analysis.linear import check_moments, check_points
from jaxrnn.cell import flatten_carry


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SpeedMinima:
    """Where K candidates have come down to; of a fixed shape, so that it works under `jit`.

    vectors: flattened carries.
    speeds: q = ½ ‖F(carry) − carry‖², a sum over the N numbers of a carry.
    slopes: ‖∇q‖ / ‖F(carry) − carry‖ = ‖(J − I)ᵀ u‖ for the direction u of the drift: about 0 at
        a local minimum of q, be it a fixed point or not.
    """

    vectors: Float[Array, "*K N"]
    speeds: Float[Array, "*K"]
    slopes: Float[Array, "*K"]


def minimize_speed(
    cell: Any,
    params: PyTree,
    x: PyTree,
    candidates: PyTree,
    *,
    optimizer: Any = None,
    steps: int = 1000,
    newton_steps: int = 200,
) -> SpeedMinima:
    """Follows the speed q = ½ ‖F(carry) − carry‖² downhill from each candidate.

    The half of `fixed_points` that runs under `jit` and `vmap`, in the dtype of params. The QR of
    each Newton step is taken for one candidate after the other, because LAPACK called for a batch
    of large matrices on a CPU can hang (jax issues 39292 and 38056); so be careful with an outer
    `vmap` at large N.

    Args as for `fixed_points`, with candidates `(*K, …)`.
    """
    candidates = jax.tree.map(jnp.asarray, candidates)
    lead = check_points(cell, params, candidates)
    check_single(check_moments(cell, params, x))
    flat = flat_carries(candidates, len(lead))
    start, optimizer = flat.reshape(-1, flat.shape[-1]), check_optimizer(optimizer, steps)
    minima = descend(cell, optimizer, steps, newton_steps, params, x, start)
    return jax.tree.map(lambda a: a.reshape(*lead, *a.shape[1:]), minima)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def descend(
    cell: Any,
    optimizer: Any,
    steps: int,
    newton_steps: int,
    params: PyTree,
    x: PyTree,
    start: Float[Array, "K N"],
) -> SpeedMinima:
    """The jitted core of `minimize_speed`, for flattened candidates."""
    with jax.default_matmul_precision("highest"):
        drift = drift_of(cell, params, x)
        points = jax.vmap(functools.partial(_follow, drift, optimizer, steps))(start)
        return jax.lax.map(functools.partial(_polish, drift, newton_steps), points)


def drift_of(cell: Any, params: PyTree, x: PyTree) -> Callable[[Array], Array]:
    """F(carry) − carry, as a function of the flattened carry."""
    _, unflatten = flatten_carry(cell.initial_carry(params))

    def drift(point: Array) -> Array:
        after, _ = contract.step(cell, params, unflatten(point), x)
        return flatten_carry(after)[0] - point

    return drift


def _speed(drift: Array) -> Array:
    return jnp.sum(drift * drift) / 2


def _follow(drift: Callable, optimizer: Any, steps: int, point: Array) -> Array:
    if steps == 0:
        return point
    slope = jax.grad(lambda point: _speed(drift(point)))

    def turn(state: tuple, _: None) -> tuple[tuple, None]:
        point, inner = state
        down = slope(point)
        # Optax counts on it that dtypes are promoted
        with jax.numpy_dtype_promotion("standard"):
            update, inner = optimizer.update(down, inner, point)
        return (point + update.astype(point.dtype), inner), None

    (point, _), _ = jax.lax.scan(turn, (point, optimizer.init(point)), None, length=steps)
    return point


class _Newton(NamedTuple):
    """Where Newton's method stands: `step` is the length of the last step, taken or not."""

    point: Array
    drift: Array
    damping: Array
    step: Array
    taken: Array
    turns: int | Array


def _polish(drift: Callable, most: int, point: Array) -> SpeedMinima:
    N, epsilon = point.size, jnp.finfo(point.dtype).eps
    identity, one = jnp.eye(N, dtype=point.dtype), jnp.ones((), point.dtype)
    slope_of = jax.jacrev(drift)

    def turn(at: _Newton) -> _Newton:
        # min ‖M d + drift‖² + damping ‖d‖² over d, by QR: squaring M would square its condition
        M = jnp.concatenate([slope_of(at.point), jnp.sqrt(at.damping) * identity])
        Q, R = jnp.linalg.qr(M)
        d = jax.scipy.linalg.solve_triangular(R, -(Q[:N].T @ at.drift))
        there = drift(at.point + d)
        taken = _speed(there) < _speed(at.drift)
        return _Newton(
            jnp.where(taken, at.point + d, at.point),
            jnp.where(taken, there, at.drift),
            jnp.where(taken, jnp.maximum(at.damping / 10, epsilon**2), at.damping * 10),
            jnp.sqrt(jnp.sum(d * d)),
            taken,
            at.turns + 1,
        )

    def goes_on(at: _Newton) -> Array:
        # a step that is not taken although it is as short as rounding, or that no damping helps
        short = at.step <= 8 * epsilon * (1 + jnp.sqrt(jnp.sum(at.point * at.point)))
        ends = (~at.taken & short) | (at.damping > 1 / epsilon) | (_speed(at.drift) == 0)
        return ~ends & (at.turns < most)

    first = _Newton(point, drift(point), 1e-3 * one, jnp.inf * one, jnp.array(True), 0)
    at = jax.lax.while_loop(goes_on, turn, first)
    size = jnp.sqrt(jnp.sum(at.drift * at.drift))
    direction = at.drift / jnp.where(size > 0, size, 1)
    slope = slope_of(at.point).T @ direction
    return SpeedMinima(at.point, _speed(at.drift), jnp.sqrt(jnp.sum(slope * slope)))


@functools.lru_cache
def _adam(steps: int) -> Any:
    import optax

    return optax.adam(optax.cosine_decay_schedule(0.01, steps))


def check_optimizer(optimizer: Any, steps: int) -> Any:
    """The optimiser, Adam by default, as an object that jit recognises when it comes again."""
    if optimizer is None:
        return _adam(steps) if steps else None
    contract.check_hash(optimizer)
    return optimizer


def flat_carries(carries: PyTree, axes: int) -> Float[Array, "*any N"]:
    """Carries with so many leading axes, each flattened."""

    def one(carry: PyTree) -> Array:
        return flatten_carry(carry)[0]

    for _ in range(axes):
        one = jax.vmap(one)
    return one(carries)


def check_single(moments: tuple[int, ...]) -> None:
    """Raises if x has leading axes."""
    if moments:
        raise ValueError(
            f"x has the leading axes {moments}, expected one moment: fixed points belong to one "
            "constant input, so call once for each"
        )
