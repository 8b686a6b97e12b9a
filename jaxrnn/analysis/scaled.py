"""Numbers too large or too small for their dtype: a power of two aside, the log at the end."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Gram = Callable[[Float[Array, "N r"]], Float[Array, "N r"]]


def rescale(
    a: Float[Array, "*shape"], exponent: Int[Array, "*units"], axis: tuple[int, ...] | None = None
) -> tuple[Float[Array, "*shape"], Int[Array, "*units"]]:
    """`a · 2^exponent`, written anew with the largest |a| in [½, 1): exact, nothing is rounded.

    axis: the axes that share an exponent; all by default.
    """
    if a.size == 0:
        return a, exponent
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(a), axis=axis, keepdims=True))
    _, by = jnp.frexp(largest)
    by = jnp.where((largest > 0) & jnp.isfinite(largest), by, 0).astype(exponent.dtype)
    return a * jnp.ldexp(jnp.ones_like(largest), -by), exponent + by.reshape(exponent.shape)


def log_scaled(value: Float[Array, "*any"], exponent: Int[Array, "*any"]) -> Float[Array, "*any"]:
    """ln(value · 2^exponent); −inf for zero, with a gradient of zero there."""
    positive = value > 0
    safe = jnp.where(positive, value, jnp.ones_like(value))
    log = jnp.log(safe) + exponent.astype(value.dtype) * jnp.log(jnp.asarray(2.0, value.dtype))
    return jnp.where(positive, log, -jnp.inf)


def norm(a: Float[Array, "*any"]) -> Float[Array, ""]:
    """The Euclidean (Frobenius) norm of a rescaled array, with a gradient of zero at zero."""
    square = jnp.sum(a * a)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, jnp.ones_like(square))), 0)


def top_singular_value(a: Float[Array, "N N"]) -> Float[Array, ""]:
    """σ_max of a rescaled matrix, from the largest eigenvalue of a aᵀ.

    The square root halves the rounding error of that eigenvalue, so nothing is lost for σ_max
    (for the small singular values everything would be).
    """
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(a @ a.T)[-1], 0))


def subspace_iteration(
    gram: Gram, basis: Float[Array, "N r"], tolerance: float = 1e-3, most: int = 32
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, "N r"]]:
    """√λ_max of a symmetric positive operator, starting from a basis that is nearly right.

    Returns the value, the relative residual ‖G v − λ v‖/λ, which bounds the relative error of λ
    (half of it that of the value), and the basis for the next call. Stops when the residual is
    within `tolerance`, or after `most` turns.
    """

    def look(basis):
        image = gram(basis)
        values, vectors = jnp.linalg.eigh(basis.T @ image)
        value, vector = values[-1], vectors[:, -1]
        off = norm(image @ vector - value * (basis @ vector))
        residual = jnp.where(value > 0, off / jnp.where(value > 0, value, 1), 0)
        return jnp.sqrt(jnp.maximum(value, 0)), residual, image

    def turn(state):
        _, _, image, _, count = state
        image, _ = rescale(image, jnp.zeros((), jnp.int32))
        basis, _ = jnp.linalg.qr(image)
        return *look(basis), basis, count + 1

    state = (*look(basis), basis, 0)
    state = jax.lax.while_loop(lambda s: (s[1] > tolerance) & (s[4] < most), turn, state)
    return state[0], state[1], state[3]


def starting_basis(size: int, dtype: jnp.dtype, rank: int = 4) -> Float[Array, "N r"]:
    """Orthonormal columns without any preferred direction, the same at every call."""
    draw = jax.random.normal(jax.random.key(0), (size, min(rank, size)), dtype)
    return jnp.linalg.qr(draw)[0]
