"""Numbers too large or too small for their dtype: a power of two aside, the log at the end."""

import math
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


def shift(a: Float[Array, "*any"], by: Int[Array, "*#any"]) -> Float[Array, "*any"]:
    """a · 2^by for by ≤ 0, zero where that is too small to be held."""
    least = jnp.finfo(a.dtype).minexp
    return jnp.where(by < least, 0, a * jnp.ldexp(jnp.ones((), a.dtype), jnp.maximum(by, least)))


def add_scaled(
    a: Float[Array, "*any"],
    a_exponent: Int[Array, "*lead"],
    b: Float[Array, "*any"],
    b_exponent: Int[Array, "*lead"],
) -> tuple[Float[Array, "*any"], Int[Array, "*lead"]]:
    """a · 2^a_exponent + b · 2^b_exponent, under the larger of the two exponents."""
    axes = tuple(range(a_exponent.ndim, a.ndim))
    lowest = jnp.iinfo(jnp.int32).min // 2
    # a sum with zero must not be drowned by whatever exponent the zero has
    a_exponent = jnp.where(jnp.any(a != 0, axes), a_exponent, lowest)
    b_exponent = jnp.where(jnp.any(b != 0, axes), b_exponent, lowest)
    common = jnp.maximum(a_exponent, b_exponent)
    common = jnp.where(common == lowest, 0, common)
    spread = (..., *(None,) * len(axes))
    total = shift(a, (a_exponent - common)[spread]) + shift(b, (b_exponent - common)[spread])
    return total, common


def log_scaled(value: Float[Array, "*#any"], exponent: Int[Array, "*any"]) -> Float[Array, "*any"]:
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


def top_singular_value(a: Float[Array, "M N"], most: int = 48) -> Float[Array, ""]:
    """σ_max of a rescaled matrix to rounding, by squaring G = a aᵀ until two bounds meet.

    After j squarings G^m, m = 2^j, is at hand, and λ_max(G) lies between the Rayleigh quotient of
    its largest column and (tr G^m)^(1/m). Matrix products only: LAPACK called for a batch of
    large matrices from XLA's threads can hang (jax issues 39292 and 38056), and is slow on a GPU.
    """
    gram, exponent = rescale(a @ a.T, jnp.zeros((), jnp.int32))
    tiny = 8 * jnp.finfo(a.dtype).eps

    def bounds(power, log_scale, exponent_of_two):
        column = power[:, jnp.argmax(jnp.diagonal(power))]
        square = jnp.sum(column * column)
        quotient = jnp.sum(column * (gram @ column)) / jnp.where(square > 0, square, 1)
        upper = log_scale + jnp.log(jnp.trace(power)) / exponent_of_two
        return quotient, upper

    def turn(state):
        power, log_scale, m, best, _, count = state
        power, by = rescale(power @ power, jnp.zeros((), jnp.int32))
        m = 2 * m
        log_scale = log_scale + by.astype(a.dtype) * math.log(2) / m
        quotient, upper = bounds(power, log_scale, m)
        return power, log_scale, m, jnp.maximum(best, quotient), upper, count + 1

    zero, one = jnp.zeros((), a.dtype), jnp.ones((), a.dtype)
    state = (gram, zero, one, *bounds(gram, zero, one), 0)
    state = jax.lax.while_loop(lambda s: (s[4] - jnp.log(s[3]) > tiny) & (s[5] < most), turn, state)
    # an even exponent leaves the square root; G = 0 never entered the loop
    half, odd = exponent // 2, exponent % 2
    root = jnp.sqrt(jnp.maximum(state[3], 0) * jnp.where(odd == 1, 2 * one, one))
    return root * jnp.ldexp(one, half)


def subspace_iteration(
    gram: Gram, basis: Float[Array, "N r"], tolerance: float = 1e-2, most: int = 32
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, "N r"]]:
    """√λ_max of a symmetric positive operator, starting from a basis that is nearly right.

    Returns the value, the relative residual ‖G v − λ v‖/λ, which bounds the relative error of λ
    (half of it that of the value), and the basis for the next call. Stops when the residual is
    within `tolerance`, or after `most` turns.
    """

    def turn(state):
        _, _, image, _, count = state
        basis = orthonormal(rescale(image, jnp.zeros((), jnp.int32))[0])
        image = gram(basis)
        values, vectors = jnp.linalg.eigh(basis.T @ image)
        value, vector = values[-1], vectors[:, -1]
        off = norm(image @ vector - value * (basis @ vector))
        residual = jnp.where(value > 0, off / jnp.where(value > 0, value, 1), 0)
        return value, residual, image, basis, count + 1

    nothing = jnp.zeros((), basis.dtype)
    state = (nothing, nothing + jnp.inf, basis, basis, 0)
    state = jax.lax.while_loop(lambda s: (s[1] > tolerance) & (s[4] < most), turn, state)
    return jnp.sqrt(jnp.maximum(state[0], 0)), state[1], state[3]


def orthonormal(columns: Float[Array, "N r"]) -> Float[Array, "N r"]:
    """Gram-Schmidt, twice over, for a few columns; a column that vanishes stays zero."""
    basis: list[Array] = []
    for column in columns.T:
        for _ in range(2):
            for other in basis:
                column = column - jnp.sum(other * column) * other
        size = norm(column)
        basis.append(column / jnp.where(size > 0, size, 1))
    return jnp.stack(basis, axis=1)


def starting_basis(size: int, dtype: jnp.dtype, rank: int = 4) -> Float[Array, "N r"]:
    """Orthonormal columns without any preferred direction, the same at every call."""
    draw = jax.random.normal(jax.random.key(0), (size, min(rank, size)), dtype)
    return orthonormal(draw)
