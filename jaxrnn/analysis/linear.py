"""One step of a cell as a linear map, around any point."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PyTree

from jaxrnn import cell as contract
from jaxrnn.cell import flatten_carry
from jaxrnn.sequences import check_carry, sequence_shape


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Linearization:
    """One step around a point: carry' ≈ A carry + B x + offset, exact at the point itself.

    Carries are flattened as by `jaxrnn.flatten_carry` into N real numbers, and so is x, into I.

    A: ∂carry'/∂carry: row i, column j holds ∂carry'_i/∂carry_j.
    B: ∂carry'/∂x; without columns if x holds no floating numbers.
    offset: carry' − A carry − B x.
    eigenvalues: of A, the largest modulus first; `modes` turns them into time constants.
    """

    A: Float[Array, "*points N N"]
    B: Float[Array, "*points N I"]
    offset: Float[Array, "*points N"]
    eigenvalues: Complex[Array, "*points N"]


def linearize(cell: Any, params: PyTree, carry: PyTree, x: PyTree) -> Linearization:
    """Linearises one step at one point, or at many.

    N pulled rows and one eigendecomposition for each point. Eigenvalues are taken one matrix after
    the other: under an outer `jax.vmap`, large ones batched on a CPU can hang (jax issues 39292
    and 38056). They have no derivative where two of them meet.

    Args:
        carry: one carry, or carries `(*points, …)`, such as those of `jaxrnn.trajectory`.
        x: one moment, for all points, or `(*points, *moment)`. One of the two may be single.

    Noise is left out, as everywhere without a key.
    """
    carry = jax.tree.map(jnp.asarray, carry)
    points = check_points(cell, params, carry)
    moments = check_moments(cell, params, x)
    if points and moments and points != moments:
        raise ValueError(
            f"carry has the leading axes {points}, but x has {moments}: expected the same, or "
            "none for one of them"
        )
    return _linearize(cell, len(points), len(moments), params, carry, x)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _linearize(
    cell: Any, carry_axes: int, x_axes: int, params: PyTree, carry: PyTree, x: PyTree
) -> Linearization:
    def one(carry: PyTree, x: PyTree) -> tuple[Array, Array, Array]:
        return _at(cell, params, carry, x)

    for axis in range(max(carry_axes, x_axes)):
        one = jax.vmap(one, (0 if axis < carry_axes else None, 0 if axis < x_axes else None))
    with jax.default_matmul_precision("highest"):
        A, B, offset = one(carry, x)
    return Linearization(A, B, offset, _eigenvalues(A))


def _at(cell: Any, params: PyTree, carry: PyTree, x: PyTree) -> tuple[Array, Array, Array]:
    point, unflatten = flatten_carry(carry)
    inputs, unflatten_x = flatten_carry(x)

    def step(point: Array, inputs: Array) -> Array:
        after, _ = contract.step(cell, params, unflatten(point), unflatten_x(inputs))
        return flatten_carry(after)[0]

    after, pull = jax.vjp(step, point, inputs)
    A, B = jax.vmap(pull)(jnp.eye(point.size, dtype=point.dtype))
    # an x of tokens has no entries, and a dtype of its own
    B, inputs = B.astype(A.dtype), inputs.astype(A.dtype)
    return A, B, after - A @ point - B @ inputs


def _eigenvalues(matrices: Float[Array, "*points N N"]) -> Complex[Array, "*points N"]:
    def of_one(matrix: Array) -> Array:
        found = jnp.linalg.eigvals(matrix)
        return found[jnp.argsort(-jnp.abs(found), stable=True)]

    N = matrices.shape[-1]
    found = jax.lax.map(of_one, matrices.reshape(-1, N, N))
    return found.reshape(matrices.shape[:-1])


def check_points(cell: Any, params: PyTree, carry: PyTree) -> tuple[int, ...]:
    """The leading axes of carries, or an error that says what does not fit."""
    contract.check_cell(cell)
    if not contract.is_causal(cell):
        raise TypeError(
            f"{type(cell).__name__} has no single direction of time to follow: analyse its "
            "causal parts one by one"
        )
    one = jax.eval_shape(lambda p: jax.tree.map(jnp.asarray, cell.initial_carry(p)), params)
    points: tuple[int, ...] = ()
    if jax.tree.structure(carry) == jax.tree.structure(one) and jax.tree.leaves(one):
        got, want = jax.tree.leaves(carry)[0], jax.tree.leaves(one)[0]
        points = np.shape(got)[: max(np.ndim(got) - want.ndim, 0)]
    check_carry(cell, params, carry, points)
    return points


def check_moments(cell: Any, params: PyTree, x: PyTree) -> tuple[int, ...]:
    """The leading axes of inputs, or an error that says what does not fit."""
    try:
        return sequence_shape(cell, params, jax.tree.map(lambda a: jnp.asarray(a)[None], x))[1:]
    except ValueError as error:
        raise ValueError(f"x, taken as a sequence of one step: {error}") from None
