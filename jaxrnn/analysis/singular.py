"""All singular values of a long product, the small ones as true as the large ones."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxrnn.analysis.products import Rows
from jaxrnn.analysis.scaled import log_scaled, norm, rescale, shift


class SingularValues(NamedTuple):
    """A product of Jacobians up to a rotation on its left: `values · 2^exponents` times `vectors`.

    vectors: its right singular vectors as rows, in the order of falling singular values; a row of
        zeros for a singular value of zero.
    values: in [½, 1), or 0.

    The singular values of the product itself are those of a matrix that floats cannot hold: from
    1/ε apart on, the small ones would be rounding noise of the large ones. Here each keeps a power
    of two of its own. With S Vᵀ at hand, one older Jacobian gives S (Vᵀ J) = (S L) Q, L lower
    triangular, and rotating the columns of S L until they are orthogonal gives the next S; the
    same rotations of the rows of Q give the next Vᵀ.
    """

    vectors: Float[Array, "N N"]
    values: Float[Array, " N"]
    exponents: Int[Array, " N"]

    @classmethod
    def start(cls, size: int, dtype: DTypeLike) -> "SingularValues":
        """Those of the identity."""
        return cls(jnp.eye(size, dtype=dtype), jnp.ones(size, dtype), jnp.zeros(size, jnp.int32))

    def older(self, pull_rows: Rows) -> tuple["SingularValues", Float[Array, " N"]]:
        """One older Jacobian on the right; also returns ln σ, the largest first."""
        L, Q = lower_triangular(pull_rows(self.vectors))
        # row j: column j of S L under the power of two of σ_j, than which those below are smaller
        relative = jnp.minimum(self.exponents[None, :] - self.exponents[:, None], 0)
        columns = shift(L.T * self.values[None, :], relative)
        columns, exponents = rescale(columns, self.exponents, axis=(1,))
        columns, exponents, vectors = orthogonalize(columns, exponents, Q)
        lengths = jax.vmap(norm)(columns)
        values, exponents = rescale(lengths, exponents, axis=())
        lowest = jnp.iinfo(jnp.int32).min
        order = jnp.lexsort((values, jnp.where(values > 0, exponents, lowest)))[::-1]
        after = SingularValues(vectors[order], values[order], exponents[order])
        return after, log_scaled(after.values, after.exponents)


def lower_triangular(
    rows: Float[Array, "M N"],
) -> tuple[Float[Array, "M M"], Float[Array, "M N"]]:
    """L and Q with rows = L Q: L lower triangular, the rows of Q orthonormal.

    Gram-Schmidt, twice over. A row that lies within rounding of the span of those before it is
    taken to lie in it: it leaves a row of zeros in Q and a zero on the diagonal of L.
    """
    count, size = rows.shape
    least = 4 * float(jnp.finfo(rows.dtype).eps) * math.sqrt(size)

    def one_row(Q, numbered):
        i, row = numbered
        rest, along = row, jnp.zeros(count, rows.dtype)
        for _ in range(2):
            part = Q @ rest
            rest, along = rest - part @ Q, along + part
        length = norm(rest)
        new = length > least * norm(row)
        Q = Q.at[i].set(jnp.where(new, rest / jnp.where(new, length, 1), 0))
        return Q, along.at[i].set(jnp.where(new, length, 0))

    numbered = (jnp.arange(count, dtype=jnp.int32), rows)
    Q, L = jax.lax.scan(one_row, jnp.zeros_like(rows), numbered)
    return L, Q


def orthogonalize(
    rows: Float[Array, "M K"],
    exponents: Int[Array, " M"],
    turned: Float[Array, "M N"],
    most: int = 30,
) -> tuple[Float[Array, "M K"], Int[Array, " M"], Float[Array, "M N"]]:
    """Rotates pairs of `rows · 2^exponents` until all are orthogonal, and `turned` with them.

    One-sided Jacobi: the norms it ends with are singular values, each true to rounding relative to
    itself, however far apart they lie, if the rows scaled to one length are well conditioned
    (Demmel and Veselić 1992). LAPACK knows only one scale for all. A turn costs M(M − 1)/2
    rotations of rows of K + N numbers, M/2 of them at a time.
    """
    count = len(rows)
    even = count + count % 2
    pad = ((0, even - count), (0, 0))
    state = (jnp.pad(rows, pad), jnp.pad(exponents, pad[0]), jnp.pad(turned, pad))
    order = _next_pairs(even)
    enough = 1e-2 * math.sqrt(float(jnp.finfo(rows.dtype).eps))

    def one_round(state, _):
        *state, off = _rotate_pairs(*state)
        return tuple(a[order] for a in state), off

    def turn(state):
        *state, _, turns = state
        state, off = jax.lax.scan(one_round, tuple(state), length=even - 1)
        return *state, jnp.max(off), turns + 1

    # a turn leaves about the square of what it found: one that found this little was the last
    first = (*state, jnp.ones((), rows.dtype), 0)
    last = jax.lax.while_loop(lambda s: (s[3] > enough) & (s[4] < most), turn, first)
    return last[0][:count], last[1][:count], last[2][:count]


def _next_pairs(count: int) -> np.ndarray:
    # row i meets row i + count/2; then all but the first move on by one place, as in a tournament
    half = count // 2
    if half < 2:
        return np.arange(count)
    upper, lower = np.arange(half), np.arange(half, count)
    return np.concatenate([[0, half], upper[1:-1], lower[1:], upper[-1:]])


def _rotate_pairs(
    rows: Float[Array, "M K"], exponents: Int[Array, " M"], turned: Float[Array, "M N"]
) -> tuple[Float[Array, "M K"], Int[Array, " M"], Float[Array, "M N"], Float[Array, ""]]:
    """Makes row i orthogonal to row i + M/2; also returns the largest cosine there was."""
    half = len(rows) // 2
    swap = jnp.tile(exponents[half:] > exponents[:half], 2)

    def exchange(a):
        # the row with the larger exponent into the upper half, or back to where it was
        other = jnp.concatenate([a[half:], a[:half]])
        return jnp.where(swap.reshape(-1, *(1,) * (a.ndim - 1)), other, a)

    rows, exponents, turned = exchange(rows), exchange(exponents), exchange(turned)
    (large, small), (upper, lower) = ((a[:half], a[half:]) for a in (rows, turned))
    ratio = shift(jnp.ones(half, rows.dtype), exponents[half:] - exponents[:half])
    slope, off = _slope(large, small, ratio)
    tangent = ratio * slope
    cosine = 1 / jnp.sqrt(1 + tangent * tangent)
    ratio, slope, tangent, cosine = (a[:, None] for a in (ratio, slope, tangent, cosine))
    large, small = cosine * (large - tangent * ratio * small), cosine * (small + slope * large)
    upper, lower = cosine * (upper - tangent * lower), cosine * (lower + tangent * upper)
    rows, exponents = rescale(jnp.concatenate([large, small]), exponents, axis=(1,))
    return exchange(rows), exchange(exponents), exchange(jnp.concatenate([upper, lower])), off


def _slope(
    large: Float[Array, "M K"], small: Float[Array, "M K"], ratio: Float[Array, " M"]
) -> tuple[Float[Array, " M"], Float[Array, ""]]:
    """The angle that makes `large` and `ratio · small` orthogonal, as tangent/ratio.

    That stays of order one where the ratio vanishes, and is then what Gram-Schmidt subtracts.
    """
    square, small_square, dot = (
        jnp.sum(a * b, axis=1) for a, b in ((large, large), (small, small), (large, small))
    )
    difference = ratio * ratio * small_square - square
    below = jnp.abs(difference) + jnp.hypot(difference, 2 * ratio * dot)
    signed = jnp.where(difference < 0, -2 * dot, 2 * dot)
    slope = jnp.where(below > 0, signed / jnp.where(below > 0, below, 1), 0)
    lengths = jnp.sqrt(square) * jnp.sqrt(small_square)
    some = lengths > 0
    return slope, jnp.max(jnp.where(some, jnp.abs(dot) / jnp.where(some, lengths, 1), 0))
