"""The few directions in which carries move."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxrnn.cell import describe, flatten_carry


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PrincipalComponents:
    """The directions of largest variance of carries, all leading axes taken together.

    mean: of the carries, flattened as by `jaxrnn.flatten_carry` into N numbers.
    components: orthonormal rows, the direction of largest variance first; the largest entry of
        each is positive.
    variances: along all N directions, from the largest on; they divide by one less than the number
        of carries.
    explained: the part of the whole variance that each component has.
    projections: the carries in these coordinates, `(carry − mean) componentsᵀ`.
    participation_ratio: (Σ variances)² / Σ variances²; see the function of that name.
    """

    mean: Float[Array, " N"]
    components: Float[Array, "k N"]
    variances: Float[Array, " N"]
    explained: Float[Array, " k"]
    projections: Float[Array, "*lead k"]
    participation_ratio: Float[Array, ""]

    def project(self, vectors: Float[Array, "*any N"]) -> Float[Array, "*any k"]:
        """Other flattened carries in the same coordinates, such as `FixedPoints.vectors`."""
        return _project(vectors.astype(self.mean.dtype), self.mean, self.components)


def principal_components(
    carries: PyTree,
    components: int = 2,
    *,
    like: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
) -> PrincipalComponents:
    """Principal components of trajectories.

    The eigenvectors of the covariance: one (N, n) by (n, N) product for n carries, and one
    symmetric eigendecomposition. Variances below about 1e-7 of the largest (1e-16 in float64) are
    rounding. Large N under `jax.vmap` on a CPU can hang (jax issues 39292 and 38056).

    Args:
        carries: `(*lead, …)`, from `jaxrnn.trajectory`, or plain vectors `(*lead, N)`.
        components: k, how many.
        like: one carry, such as `cell.initial_carry(params)`, which tells the axes of a carry from
            the leading ones. Without it, the last axis of every array belongs to the carry.
        lengths: as for `jaxrnn.unroll`, with `carries` `(*batch, T, …)`: padding is left out.
    """
    vectors, real = _vectors(carries, like, lengths)
    if not 1 <= components <= vectors.shape[-1]:
        raise ValueError(
            f"components must be from 1 to {vectors.shape[-1]}, the size of a carry, "
            f"got {components!r}"
        )
    return _principal_components(components, vectors, real)


@functools.partial(jax.jit, static_argnums=0)
def _principal_components(
    k: int, vectors: Float[Array, "*lead N"], real: Bool[Array, "*lead"] | None
) -> PrincipalComponents:
    mean, covariance = _moments(vectors, real)
    variances, directions = jnp.linalg.eigh(covariance)
    variances, rows = jnp.maximum(variances[::-1], 0), directions.T[::-1][:k]
    largest = jnp.argmax(jnp.abs(rows), axis=1)
    rows = rows * jnp.sign(rows[jnp.arange(k), largest])[:, None]
    whole = jnp.sum(variances)
    return PrincipalComponents(
        mean=mean,
        components=rows,
        variances=variances,
        explained=variances[:k] / jnp.where(whole > 0, whole, 1),
        projections=_project(vectors, mean, rows),
        participation_ratio=_ratio(covariance),
    )


def participation_ratio(
    carries: PyTree,
    *,
    like: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
) -> Float[Array, ""]:
    """(Σλ)² / Σλ² over the variances λ along principal components: in how many directions it moves.

    k if k directions share the variance equally, 1 if there is one; 0 if nothing moves. Gao et al.
    2017 (bioRxiv 214262). From traces of the covariance, (tr C)² / tr C², without decomposing it:
    one (N, n) by (n, N) product.

    Args as for `principal_components`.
    """
    return _participation_ratio(*_vectors(carries, like, lengths))


@jax.jit
def _participation_ratio(vectors: Array, real: Array | None) -> Float[Array, ""]:
    return _ratio(_moments(vectors, real)[1])


def _ratio(covariance: Float[Array, "N N"]) -> Float[Array, ""]:
    # in units of the trace, so that no square underflows
    trace = jnp.trace(covariance)
    scaled = covariance / jnp.where(trace > 0, trace, 1)
    return jnp.where(trace > 0, 1 / jnp.where(trace > 0, jnp.sum(scaled * scaled), 1), 0)


def _moments(vectors: Array, real: Array | None) -> tuple[Array, Array]:
    # mean and covariance over all leading axes
    flat = vectors.reshape(-1, vectors.shape[-1])
    weight = jnp.ones(len(flat), bool) if real is None else real.ravel()
    count = jnp.sum(weight).astype(flat.dtype)
    flat = jnp.where(weight[:, None], flat, 0)
    mean = jnp.sum(flat, axis=0) / jnp.maximum(count, 1)
    centred = jnp.where(weight[:, None], flat - mean, 0)
    with jax.default_matmul_precision("highest"):
        return mean, centred.T @ centred / jnp.maximum(count - 1, 1)


def _project(vectors: Array, mean: Array, rows: Array) -> Array:
    with jax.default_matmul_precision("highest"):
        return (vectors - mean) @ rows.T


def _vectors(carries: PyTree, like: PyTree | None, lengths: Any) -> tuple[Array, Array | None]:
    # carries flattened, and which of them are real
    carries = jax.tree.map(jnp.asarray, carries)
    lead = _leading_axes(carries, like)

    def flat(carry: PyTree) -> Array:
        return flatten_carry(carry)[0]

    for _ in lead:
        flat = jax.vmap(flat)
    vectors = flat(carries)
    if 0 in vectors.shape:
        raise ValueError(f"got carries with the leading axes {lead}: expected at least one carry")
    if lengths is None:
        return vectors, None
    lengths = jnp.asarray(lengths)
    if not lead or lengths.shape != lead[:-1]:
        raise ValueError(
            f"lengths has shape {lengths.shape}, expected {lead[:-1]}: one for each row of carries "
            "(*batch, T, …)"
        )
    return vectors, jnp.arange(lead[-1]) < lengths[..., None]


def _leading_axes(carries: PyTree, like: PyTree | None) -> tuple[int, ...]:
    leaves = jax.tree.leaves(carries)
    if like is None:
        ranks = [1] * len(leaves)
    elif jax.tree.structure(like) != jax.tree.structure(carries):
        raise ValueError(
            f"like has another structure than carries: got {describe(like)}, "
            f"expected that of {describe(carries)}"
        )
    else:
        ranks = [np.ndim(leaf) for leaf in jax.tree.leaves(like)]
    found = {leaf.shape[: leaf.ndim - rank] for leaf, rank in zip(leaves, ranks, strict=True)}
    if len(found) != 1 or any(leaf.ndim < rank for leaf, rank in zip(leaves, ranks, strict=True)):
        raise ValueError(
            f"carries {describe(carries)} have no leading axes in common: pass "
            "like=cell.initial_carry(params) to tell the axes of a carry from them"
        )
    return found.pop()
