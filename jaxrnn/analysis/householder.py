"""QR by Householder reflections: matrix products only, true for tiny and for singular matrices.

LAPACK's is not used for three reasons: called for a batch of large matrices from XLA's threads it
can crash or hang (jax issues 39292 and 38056), on a GPU it is slow, and of a matrix with rows of
zeros it returns a last R_ii of rounding noise where the truth is 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

PANEL = 32  # columns that are reflected one by one before the rest gets them as one product
FEW = 2  # columns up to which a loop costs more than its body


class _Panel(NamedTuple):
    """The product of some reflections I − v vᵀ, v·v = 2 or v = 0, as I − V T Vᵀ."""

    V: Float[Array, "M b"]
    T: Float[Array, "b b"]

    def turn(self, a: Float[Array, "M c"], transposed: bool) -> Float[Array, "M c"]:
        """(I − V T Vᵀ) a, or with Tᵀ, which undoes it."""
        return a - self.V @ ((self.T.T if transposed else self.T) @ (self.V.T @ a))


@jax.custom_jvp
def qr(a: Float[Array, "N K"]) -> tuple[Float[Array, "N K"], Float[Array, "K K"]]:
    """a = q r with orthonormal columns in q and r upper triangular, R_ii ≥ 0; K ≤ N.

    Rows are taken largest first, which keeps each true relative to its own size as long as columns
    come about largest first, too (Cox and Higham 1998), and rows of zeros exactly zero: a matrix
    with M rows that are not has R_ii = 0 for all i > M. The columns of q are orthonormal even
    then. About 4 N K² operations in matrix products.

    The derivative is that of full rank; where R_ii is 0 nothing flows.
    """
    if a.shape[1] == 1:
        return _normalize(a)
    order = jnp.argsort(-jnp.max(jnp.abs(a), axis=1))
    panels, rows = _reduce(a[order])
    size, count = a.shape
    q = jnp.eye(size, count, dtype=a.dtype)
    first = count
    for panel in reversed(panels):
        first -= panel.V.shape[1]
        q = q.at[first:, first:].set(panel.turn(q[first:, first:], transposed=False))
    q = jnp.zeros_like(q).at[order].set(q)
    r = jnp.concatenate(rows)
    sign = jnp.where(jnp.diagonal(r) < 0, -jnp.ones_like(r[0]), 1)
    return q * sign, r * sign[:, None]


@qr.defjvp
def _qr_jvp(primals: tuple, tangents: tuple) -> tuple:
    (a,), (da,) = primals, tangents
    q, r = qr(a)
    singular = jnp.diagonal(r) == 0
    whole = r + jnp.diag(singular.astype(r.dtype))
    X = jax.lax.linalg.triangular_solve(whole, da, left_side=False, lower=False)
    X = jnp.where(singular, 0, X)  # da r⁻¹
    C = q.T @ X
    below = jnp.tril(C, -1)
    upper = C - below + below.T
    return (q, r), (X - q @ upper, upper @ r)


def _normalize(a: Float[Array, "N 1"]) -> tuple[Float[Array, "N 1"], Float[Array, "1 1"]]:
    """The QR of a single column."""
    # under its largest entry, so that its square is neither 0 nor infinite
    largest = jnp.max(jnp.abs(a))
    some = largest > 0
    a = a / jnp.where(some, largest, 1)
    length = jnp.sqrt(jnp.sum(a * a))
    first = jnp.zeros_like(a).at[0].set(1)
    return jnp.where(some, a / jnp.where(some, length, 1), first), (length * largest).reshape(1, 1)


def _reduce(rest: Float[Array, "N K"]) -> tuple[list[_Panel], list[Float[Array, "b K"]]]:
    """The reflections, and the rows of r that they leave, a panel at a time."""
    count = rest.shape[1]
    width = max(PANEL, -(-count // 4))
    panels, rows = [], []
    for first in range(0, count, width):
        panel, triangle = _reflect(rest[:, :width])
        right = panel.turn(rest[:, width:], transposed=True)
        done = triangle.shape[0]
        left = jnp.zeros((done, first), rest.dtype)
        rows.append(jnp.concatenate([left, triangle, right[:done]], axis=1))
        panels.append(panel)
        rest = right[done:]
    return panels, rows


def _reflect(a: Float[Array, "M b"]) -> tuple[_Panel, Float[Array, "b b"]]:
    """Column by column, a reflection that leaves nothing below the diagonal."""
    size, count = a.shape
    row = jnp.arange(size, dtype=jnp.int32)

    def column(j, state):
        a_V, T = state  # side by side, for one product with both
        x = jnp.where(row >= j, a_V[:, j], 0)
        # under its largest entry, so that its square is neither 0 nor infinite
        largest = jnp.max(jnp.abs(x))
        x = x / jnp.where(largest > 0, largest, 1)
        length = jnp.sqrt(jnp.sum(x * x))
        length = jnp.where(x[j] < 0, -length, length)
        half = length * (length + x[j])
        v = jnp.where(row == j, x + length, x) / jnp.sqrt(jnp.where(half > 0, half, 1))
        finished = jnp.where(row == j, -length * largest, jnp.where(row > j, 0, a_V[:, j]))
        along = v @ a_V
        a = (a_V[:, :count] - v[:, None] * along[:count]).at[:, j].set(finished)
        V = a_V[:, count:].at[:, j].set(v)
        T = T.at[:, j].set(-T @ along[count:]).at[j, j].set(1)
        return jnp.concatenate([a, V], axis=1), T

    state = (jnp.pad(a, ((0, 0), (0, count))), jnp.zeros((count, count), a.dtype))
    a_V, T = jax.lax.fori_loop(0, count, column, state, unroll=count <= FEW)
    return _Panel(a_V[:, count:], T), a_V[:count, :count]


def is_lost(a: Float[Array, "N K"], diagonal: Float[Array, " K"]) -> Bool[Array, " K"]:
    """Whether R_ii is no larger than what rounding alone leaves in row i, largest first."""
    rows = jnp.sort(jnp.max(jnp.abs(a), axis=1), descending=True)[: diagonal.shape[0]]
    return diagonal <= len(a) * jnp.finfo(a.dtype).eps * rows
