"""Where a network stands still under a constant input, and what it does nearby."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Complex, Float, Int, PyTree

from jaxrnn import cell as contract
from jaxrnn.analysis.linear import check_moments, check_points
from jaxrnn.analysis.speed import (
    SpeedMinima,
    check_optimizer,
    check_single,
    descend,
    drift_of,
    flat_carries,
)
from jaxrnn.cell import flatten_carry


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FixedPoints:
    """P points at which a network stands still, or nearly; stable ones first, slow ones last.

    carries: the points, `(P, …)`, in the dtype of params.
    vectors: the same flattened as by `jaxrnn.flatten_carry`, in the dtype of the search.
    speeds: q = ½ ‖F(carry) − carry‖², a *sum* over the N numbers of a carry:
        its unit is that of a carry squared, per step squared.
    slow: True where the speed is a local minimum above `tolerance`: no fixed point, but passed
        slowly. Its eigenvalues are those of the step there, of which the drift is not part.
    jacobians: ∂F/∂carry at each point.
    eigenvalues: μ of the Jacobian, the largest modulus first; `analysis.modes` turns them into
        time constants and frequencies.
    right_vectors, left_vectors: of unit length, in columns, in the order of the eigenvalues:
        J r = μ r and lᴴ J = μ lᴴ. 1/|lᴴ r| is how much more than itself an error in J moves μ.
    stable: all |μ| < 1, as for every map.
    unstable_directions: number of |μ| > 1.
    hits: how many candidates came down to the point; basins of the *search*, not of the dynamics.
    tolerance: the speed up to which a point counts as fixed.
    unconverged, outliers: how many candidates were left out, and why.
    """

    carries: PyTree
    vectors: Float[Array, "P N"]
    speeds: Float[Array, " P"]
    slow: Bool[Array, " P"]
    jacobians: Float[Array, "P N N"]
    eigenvalues: Complex[Array, "P N"]
    right_vectors: Complex[Array, "P N N"]
    left_vectors: Complex[Array, "P N N"]
    stable: Bool[Array, " P"]
    unstable_directions: Int[Array, " P"]
    hits: Int[Array, " P"]
    tolerance: float
    unconverged: int
    outliers: int

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of each point: "stable", "saddle", "unstable" in all directions, or "slow".

        "marginal" where nothing grows but something does not decay, |μ| = 1.
        """
        slow, count = np.asarray(self.slow), np.asarray(self.unstable_directions)
        conditions = [slow, np.asarray(self.stable), count == 0, count == self.vectors.shape[-1]]
        names = np.select(conditions, ["slow", "stable", "marginal", "unstable"], "saddle")
        return tuple(names.tolist())


def fixed_points(
    cell: Any,
    params: PyTree,
    x: PyTree,
    *,
    candidates: PyTree | None = None,
    key: Array | None = None,
    count: int = 256,
    scale: float | None = None,
    optimizer: Any = None,
    steps: int = 1000,
    newton_steps: int = 200,
    tolerance: float | None = None,
    slow_tolerance: float | None = None,
    unique_distance: float | None = None,
    outlier_distance: float = 3.0,
    progress: Callable[[float, str], None] | None = None,
) -> FixedPoints:
    """Finds fixed and slow points of the map carry → F(carry) = step(carry, x) for a constant x.

    Sussillo and Barak 2013 (Neural Computation 25:626): minimises the speed q from many candidates
    at once. First by `optimizer`, then by Newton's method on F(carry) = carry, damped after
    Levenberg and Marquardt, so that it halts at a local minimum of q where there is no fixed point;
    see `minimize_speed`. What is left of the candidates, once those that have not converged, that
    are far from where the network goes, or that met another, are taken away, depends on the data:
    this function runs on the host, not under `jit`, `vmap` or `grad`, where `minimize_speed` does.

    Works in float64 where JAX has it enabled, whatever the dtype of params, else in float32. With
    integer leaves in the carry (clocks), these stay as `initial_carry` has them.

    Args:
        x: one moment.
        candidates: carries `(*any, …)`, such as those of `jaxrnn.trajectory`.
        key: draws `count` of the candidates and moves each by N(0, scale²); without candidates,
            `count` points around the initial carry. Without a key every candidate is taken.
        scale: 0 with candidates, 1 without, unless given.
        optimizer: an Optax transformation, built once: a new one is compiled anew. None: Adam, with
            a step size that falls from 0.01 to 0 along a cosine.
        steps, newton_steps: of the two stages. Fixed points take about 10 of the latter, slow ones,
            where no linear map tells how far to go, up to hundreds.
        tolerance: q up to which a point is fixed; None: N/2 (100 ε)², where each number of the
            carry moves by less than 100 roundings: N · 2e-28 in float64, N · 7e-11 in float32.
        slow_tolerance: q up to which a local minimum is a slow point; None: N/2 (0.01)². 0: none.
        unique_distance: points nearer than that are one; None: 1e-3 √N.
        outlier_distance: a point farther than that from all candidates, in units of their root
            mean square distance from their mean, is left out: far out, where gates saturate, a
            network that never comes there stands still. inf keeps all.
        progress: called after each eighth of the candidates, `progress(part, what)`, with the part
            of the search that this was, all of which add up to 1, and a line of text. Points are
            the same to rounding with or without it.

    Costs, for each of K candidates: 3 steps for each step of the optimiser, and N pulled rows and
    one QR of (2N, N) for each Newton step; scipy's eigendecomposition for each point found. With
    a few hundred units one waits for the Newton steps: a QR takes about 7 N³ operations, and they
    are taken for one candidate after the other.
    """
    _check_concrete(params, x, candidates, key)
    search = _search(cell, params, x)
    given = None if candidates is None else _given(cell, params, candidates)
    start = _candidates(search, given, key, count, scale)
    N, epsilon = start.shape[1], float(jnp.finfo(start.dtype).eps)
    tolerance = N / 2 * (100 * epsilon) ** 2 if tolerance is None else tolerance
    slow_tolerance = N / 2 * 0.01**2 if slow_tolerance is None else slow_tolerance
    unique_distance = 1e-3 * math.sqrt(N) if unique_distance is None else unique_distance
    rule = check_optimizer(optimizer, steps)
    minima = _descend(cell, (rule, steps, newton_steps), search, start, progress)
    vectors, speeds = np.asarray(minima.vectors), np.asarray(minima.speeds)
    low = np.asarray(minima.slopes) <= 1e-2
    converged = np.asarray((speeds <= tolerance) | ((speeds <= slow_tolerance) & low))
    near = _near(vectors, np.asarray(start if given is None else given), outlier_distance)
    kept = np.flatnonzero(converged & near)
    kept, hits = _distinct(vectors, kept[np.argsort(speeds[kept])], unique_distance)
    return _record(
        cell,
        search,
        params,
        vectors[kept],
        speeds=speeds[kept],
        slow=speeds[kept] > tolerance,
        hits=hits,
        tolerance=float(tolerance),
        unconverged=int(np.sum(~converged)),
        outliers=int(np.sum(converged & ~near)),
    )


def _descend(
    cell: Any,
    static: tuple[Any, int, int],
    search: "_Search",
    start: Float[Array, "K N"],
    progress: Callable[[float, str], None] | None,
) -> SpeedMinima:
    """`descend`, in eight parts if somebody watches."""
    K = len(start)
    if progress is None or K == 0:
        return descend(cell, *static, search.params, search.x, start)
    size, found = math.ceil(K / 8), []
    for first in range(0, K, size):
        done = min(first + size, K)
        # all of one shape, so that one program serves them
        rows = np.minimum(np.arange(first, first + size), K - 1)
        part = descend(cell, *static, search.params, search.x, start[rows])
        found.append(jax.block_until_ready(part))
        progress((done - first) / K, f"{done} of {K} candidates followed")
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[:K], *found)


# ---- candidates


class _Search(NamedTuple):
    """What a search runs on: params and x in the widest dtype, and a carry to start from."""

    params: PyTree
    x: PyTree
    initial: Float[Array, " N"]


def _search(cell: Any, params: PyTree, x: PyTree) -> _Search:
    check_points(cell, params, jax.tree.map(jnp.asarray, cell.initial_carry(params)))
    check_single(check_moments(cell, params, x))
    wide = jax.tree.map(_widened, (params, x))
    try:
        initial = jax.tree.map(jnp.asarray, cell.initial_carry(wide[0]))
        contract.check_step_keeps_carry(cell, wide[0], initial, wide[1], None)
    except (TypeError, ValueError):
        # a cell with a dtype of its own: as it is
        wide, initial = (params, x), cell.initial_carry(params)
    return _Search(wide[0], wide[1], flatten_carry(initial)[0])


def _widened(leaf: Any) -> Array:
    leaf, real = jnp.asarray(leaf), jax.dtypes.canonicalize_dtype(np.float64)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        return leaf.astype(jax.dtypes.canonicalize_dtype(np.complex128))
    return leaf.astype(real) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _given(cell: Any, params: PyTree, candidates: PyTree) -> Float[Array, "M N"]:
    candidates = jax.tree.map(jnp.asarray, candidates)
    flat = flat_carries(candidates, len(check_points(cell, params, candidates)))
    if flat.size == 0:
        raise ValueError("candidates hold no carry: expected at least one to start from")
    return flat.reshape(-1, flat.shape[-1])


def _candidates(
    search: _Search, given: Array | None, key: Array | None, count: int, scale: float | None
) -> Float[Array, "K N"]:
    dtype, N = search.initial.dtype, search.initial.size
    if key is None:
        if given is None:
            raise ValueError(
                "no candidates: pass carries, e.g. candidates=jaxrnn.trajectory(…)[0], or a key "
                "to draw them with"
            )
        return given.astype(dtype)
    k_row, k_noise = jax.random.split(key)
    rows = search.initial[None] if given is None else given.astype(dtype)
    scale = (1.0 if given is None else 0.0) if scale is None else scale
    chosen = jax.random.choice(k_row, len(rows), (count,), replace=count > len(rows))
    return rows[chosen] + scale * jax.random.normal(k_noise, (count, N), dtype)


# ---- filters, on the host


def _near(points: np.ndarray, given: np.ndarray, distance: float) -> np.ndarray:
    # not farther from the nearest candidate than so many times their spread
    finite = np.asarray(np.isfinite(points).all(axis=1))
    spread = math.sqrt(np.mean(np.sum((given - given.mean(axis=0)) ** 2, axis=1)))
    if spread == 0 or distance == math.inf:
        return finite
    places = np.where(finite[:, None], points, 0)
    squares = np.array([np.min(np.sum((given - place) ** 2, axis=1)) for place in places])
    return finite & np.asarray(np.sqrt(squares) <= distance * spread)


def _distinct(
    points: np.ndarray, order: np.ndarray, distance: float
) -> tuple[np.ndarray, np.ndarray]:
    # the first of every cluster in this order, and how many it stands for
    kept: list[int] = []
    hits: list[int] = []
    for i in order:
        apart = np.sqrt(np.sum((points[kept] - points[i]) ** 2, axis=1))
        if len(kept) and apart.min() < distance:
            hits[int(apart.argmin())] += 1
        else:
            kept.append(int(i))
            hits.append(1)
    return np.array(kept, int), np.array(hits, int)


@functools.partial(jax.jit, static_argnums=0)
def _jacobian(cell: Any, params: PyTree, x: PyTree, point: Float[Array, " N"]) -> Array:
    with jax.default_matmul_precision("highest"):
        slope = jax.jacrev(drift_of(cell, params, x))(point)
        return slope + jnp.eye(point.size, dtype=point.dtype)


def _record(
    cell: Any, search: _Search, params: PyTree, points: np.ndarray, **found: Any
) -> FixedPoints:
    N = points.shape[1]
    slope = functools.partial(_jacobian, cell, search.params, search.x)
    jacobians = np.array([slope(jnp.asarray(point)) for point in points]).reshape(-1, N, N)
    values, left, right = _eigen(jacobians)
    unstable = np.sum(np.abs(values) > 1, axis=1)
    stable = np.all(np.abs(values) < 1, axis=1)
    order = np.lexsort((-found["hits"], unstable, found["slow"]))
    _, unflatten = flatten_carry(jax.tree.map(jnp.asarray, cell.initial_carry(params)))
    arrays = dict(
        vectors=points,
        jacobians=jacobians,
        eigenvalues=values,
        right_vectors=right,
        left_vectors=left,
        stable=stable,
        unstable_directions=unstable,
        **{name: found.pop(name) for name in ("speeds", "slow", "hits")},
    )
    arrays = {name: jnp.asarray(array[order]) for name, array in arrays.items()}
    carries = jax.vmap(unflatten)(arrays["vectors"])
    return FixedPoints(carries=carries, **arrays, **found)


def _eigen(jacobians: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # by scipy, in float64: no batch to hang on, and left vectors that a defective J has too
    from scipy import linalg

    shape = jacobians.shape
    values = np.zeros(shape[:2], complex)
    left, right = np.zeros(shape, complex), np.zeros(shape, complex)
    for i, J in enumerate(jacobians.astype(np.float64)):
        found: Any = linalg.eig(J, left=True, right=True)
        w, l, r = found
        order = np.argsort(-np.abs(w), kind="stable")
        values[i], left[i], right[i] = w[order], l[:, order], r[:, order]
    return values, left, right


# ---- checks


def _check_concrete(*trees: PyTree) -> None:
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees)):
        raise TypeError(
            "fixed_points finds as many points as there are, and cannot be traced: call it outside "
            "jit, vmap and grad, or use minimize_speed, which returns one point for each candidate"
        )
