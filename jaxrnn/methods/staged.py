"""The fast way through time, for cells that declare their `stages`.

Forwards it is the scan. Its derivative is taken by hand, once for all such cells: with the maps of
the carry U_k, what they read v_k and what they give s_k = U_k v_k + …, a step is element-wise but
for these products, so its tangent is

    δs_k,t = U_k δv_k,t + e_k,t        e_k,t = δW x_t + W δx_t + δU_k v_k,t + δb
    δv_k,t, δcarry_t  = element-wise, linear in δcarry_{t-1} and in the δs

Everything in e needs no carry and is had for all steps at once in large products; what is scanned
is this linear recurrence alone. JAX transposes it to a backward pass whose weight gradients are
again one large product each. Being a `custom_jvp`, it leaves every other derivative exact.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.extend
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, PyTree

from jaxrnn.dense import Dense, add_gates, multiply
from jaxrnn.methods.lowered import Moment, select
from jaxrnn.methods.scan import Scan, check_options
from jaxrnn.methods.segments import Segments, checkpointed
from jaxrnn.methods.stages import (
    Routes,
    at_all_steps,
    elementwise_part,
    find_routes,
    gate_shapes,
    has_stages,
    is_dear,
    runs_of,
    stretches_of,
)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Staged:
    """Step after step, with everything that needs no carry done for all steps at once.

    Serves cells that declare `stages` (see `jaxrnn.cell`); any other cell, one that draws noise
    and one that closes over a traced array go through `Scan` with the same options.

    unroll, checkpoint: as for `Scan`.
    ahead: whether W_x x is computed for all steps before the first. Faster as long as the result,
        (B, T, gates · H), fits into the processor's cache, slower beyond; with a single gate
        always faster, which is what None stands for.
    block: the gates' gradients are turned into those of inputs and params so many steps at a time,
        which takes less memory; None for all steps at once. `checkpoint` brings its own blocks.
    compute_dtype: what the factors of matrix products are rounded to, e.g. jnp.bfloat16; sums,
        carry and gradients stay in the dtype of params.
    """

    unroll: int = 1
    checkpoint: bool | int = False
    ahead: bool | None = None
    block: int | None = None
    compute_dtype: Any = None

    def __post_init__(self) -> None:
        check_options(self)
        if self.block is not None and (type(self.block) is not int or self.block < 1):
            raise ValueError(f"Staged: block must be None or at least 1, got {self.block!r}")
        if self.compute_dtype is not None:
            # by name, so that jnp.bfloat16 and "bfloat16" are one method
            object.__setattr__(self, "compute_dtype", jnp.dtype(self.compute_dtype).name)

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
        routes = find_routes(cell, params, carry)
        if routes is None:
            plain = Scan(self.unroll)
            return plain(cell, params, carry, moments, reverse=reverse, every=every)
        initial = None if moments.fresh is None else cell.initial_carry(params)
        maps = cell.stages(params)
        ahead = len(maps[0].W) == 1 if self.ahead is None else self.ahead
        method = dataclasses.replace(self, ahead=ahead)
        run = _differentiable(Walk(cell, method, routes, reverse, every))
        x, real, fresh, _ = moments
        carry, out = run(maps, initial, carry, x, real, fresh)
        return out if every else (carry, out)

    def segments(self, cell: Any, steps: int) -> Segments | None:
        """Checkpoints, or blocks; for a cell that has to be taken as a whole, those of `Scan`."""
        if not has_stages(cell):
            return Scan(self.unroll, self.checkpoint).segments(cell, steps)
        if self.checkpoint is not False:
            return checkpointed(self.checkpoint, steps)
        return None if self.block is None or self.block >= steps else Segments(self.block)


class Walk(NamedTuple):
    """What a walk through time depends on besides arrays; static."""

    cell: Any
    method: Staged
    routes: Routes
    reverse: bool
    every: bool

    def scan(self, body: Any, carry: PyTree, xs: PyTree, steps: int) -> tuple[PyTree, PyTree]:
        """`jax.lax.scan` in the direction of the walk."""
        method = self.method
        return jax.lax.scan(body, carry, xs, steps, reverse=self.reverse, unroll=method.unroll)

    def times(self, v: Array, W: Array) -> Array:
        """v W at the precision of the method."""
        return multiply(v, W, self.method.compute_dtype)


class _Given(NamedTuple):
    """What one step of a walk is given besides the carry."""

    x: Any
    real: Array | None
    fresh: Array | None


def _differentiable(walk: Walk) -> Any:
    run = jax.custom_jvp(functools.partial(_forwards, walk))
    run.defjvp(functools.partial(derive, walk), symbolic_zeros=True)
    return run


def _cut(sums: Array, gates: int) -> tuple[Array, ...]:
    # one operation, whose transpose is one concatenation
    return tuple(jax.lax.split(sums, (len(sums) // gates,) * gates))


def _columns(W: Array) -> Array:
    """All gates of a map as columns of one matrix, (K, gates · H)."""
    return W.reshape(-1, W.shape[-1]).T


# ---- forwards


def _prepare(walk: Walk, maps: tuple[Dense, tuple[Dense, ...]], xs: PyTree) -> tuple[Any, Any]:
    """A function that gives the gates of x from one entry of a sequence, and that sequence."""
    of_x, _ = maps
    gates = of_x.W.shape[0]
    W, b = _columns(of_x.W), of_x.b
    if not walk.method.ahead:
        return (lambda x: _add_biases(_cut(walk.times(x, W), gates), b) + of_x.vectors), xs
    # one array for each gate: slicing them off a slice in the loop costs more than the product
    each = tuple(walk.times(xs, w) for w in jnp.split(W, gates, axis=1))
    return (lambda x: _add_biases(x, b) + of_x.vectors), each


def _add_biases(gates: tuple[Array, ...], b: Array | None) -> tuple[Array, ...]:
    if b is None:
        return gates
    without = len(gates) - len(b)
    return gates[:without] + tuple(g + row for g, row in zip(gates[without:], b, strict=True))


def _forwards(
    walk: Walk,
    maps: tuple[Dense, tuple[Dense, ...]],
    initial: PyTree,
    carry: PyTree,
    xs: PyTree,
    real: Array | None,
    fresh: Array | None,
) -> tuple[PyTree, PyTree]:
    steps = len(xs)
    gates_of_x, xs = _prepare(walk, maps, xs)
    matrices = [_columns(dense.W) for dense in maps[1]]

    def body(carry: PyTree, given: _Given) -> tuple[PyTree, PyTree]:
        def of_carry(U: Array, dense: Dense) -> Any:
            def apply(v: Array, plus: tuple | None = None) -> tuple[Array, ...]:
                sums = _cut(walk.times(v, U), dense.W.shape[0])
                return add_gates(_add_biases(sums, dense.b), plus)

            return apply

        start = carry if given.fresh is None else select(given.fresh, initial, carry)
        applied = [of_carry(U, dense) for U, dense in zip(matrices, maps[1], strict=True)]
        after, y = walk.cell.elementwise(start, gates_of_x(given.x), *applied)
        after = after if given.real is None else select(given.real, after, carry)
        return after, (after, y) if walk.every else y

    return walk.scan(body, carry, _Given(xs, real, fresh), steps)


# ---- the tangent


class _Before(NamedTuple):
    """A part of the carry before every step, as the one after every step and the first."""

    after: Array
    first: Array


class _Kept(NamedTuple):
    """What the tangent of a walk needs of each step.

    reads: what each map of the carry was applied to, an array or `_Before`.
    partials: the element-wise derivatives, for each map and for the end of the step.
    """

    reads: tuple[Any, ...]
    partials: tuple[Any, ...]


def derive(walk: Walk, primals: tuple, tangents: tuple, before: PyTree = None) -> tuple[Any, Any]:
    """The rule of the walk; before: the carry before every step, if it is known already."""
    maps, initial, carry, xs, real, fresh = primals
    d_maps, d_initial, d_carry, d_xs, _, _ = tangents
    (end, out), reads, partials, linear = _forwards_keeping(walk, before, *primals)
    into, direct = _inhomogeneous(walk, maps, xs, reads, d_maps, d_xs)
    matrices = [dense.W.reshape(-1, dense.W.shape[-1]) for dense in maps[1]]
    d_carry, d_initial = _instantiate(carry, d_carry), _instantiate(initial, d_initial)
    shapes_x, shapes = gate_shapes(maps)

    def body(d_carry: PyTree, given: tuple) -> tuple[PyTree, PyTree]:
        real, fresh, into, direct, partials = given
        d_start = d_carry if fresh is None else select(fresh, d_initial, d_carry)
        d_x = list(_zeros(shapes_x))
        for (first, last), d in zip(_direct(walk, maps), direct, strict=True):
            if d is not None and last == first + 1:
                d_x[first] = d.reshape(shapes_x[first].shape)
            elif d is not None:
                d_x[first:last] = _cut(d, last - first)
        d_sums = [_zeros(gates) for gates in shapes]
        for k, U in enumerate(matrices):
            d_read = linear[k](d_start, tuple(d_x), tuple(d_sums), *partials[k])
            # by rows of U, so that the transpose multiplies by U as it lies in memory
            product = _by_rows(walk, d_read, U)
            d_sums[k] = add_gates(_cut(product, len(shapes[k])), _by_gates(walk, k, into[k]))
        d_after, d_y = linear[-1](d_start, tuple(d_x), tuple(d_sums), *partials[-1])
        d_after = d_after if real is None else select(real, d_after, d_carry)
        return d_after, (d_after, d_y) if walk.every else d_y

    given = (real, fresh, into, direct, partials)
    d_end, d_out = walk.scan(body, d_carry, given, len(xs))
    return (end, out), (d_end, d_out)


def _by_gates(walk: Walk, k: int, runs: tuple[Array | None, ...]) -> tuple[Array | None, ...]:
    gates: list[Array | None] = []
    for (first, last, _), run in zip(runs_of(walk.routes.into[k]), runs, strict=True):
        count = last - first
        gates += [None] * count if run is None else _cut(run, count)
    return tuple(gates)


def _zeros(shapes: tuple) -> tuple[Array, ...]:
    return tuple(jnp.zeros(s.shape, s.dtype) for s in shapes)


def _by_rows(walk: Walk, v: Array, U: Array) -> Array:
    dtype = walk.method.compute_dtype
    left, right = (v, U) if dtype is None else (v.astype(dtype), U.astype(dtype))
    return jax.lax.dot_general(
        left, right, (((0,), (1,)), ((), ())), preferred_element_type=v.dtype
    )


def _forwards_keeping(
    walk: Walk,
    before: PyTree,
    maps: tuple[Dense, tuple[Dense, ...]],
    initial: PyTree,
    carry: PyTree,
    xs: PyTree,
    real: Array | None,
    fresh: Array | None,
) -> tuple[Any, tuple[Any, ...], tuple[Any, ...], list[Any]]:
    """Like `_forwards`, and returns what the tangent needs: reads, partials, and linear maps."""
    steps = len(xs)
    gates_of_x, xs = _prepare(walk, maps, xs)
    matrices = [_columns(dense.W) for dense in maps[1]]
    _, shapes = gate_shapes(maps)
    linear: list[Any] = []

    def keep(k: int | None, *at: PyTree) -> tuple[Any, Any]:
        # the derivative of a piece, as a function and the numbers that it takes from this step
        piece = functools.partial(elementwise_part, walk.cell, upto=k)
        piece = jax.checkpoint(piece, policy=is_dear, prevent_cse=False)
        out, derivative = jax.linearize(piece, *at)
        derivative, numbers = jax.closure_convert(derivative, *jax.tree.map(jnp.zeros_like, at))
        linear.append(derivative)
        return out, tuple(numbers)

    def body(carry: PyTree, given: _Given) -> tuple[PyTree, PyTree]:
        linear.clear()
        start = carry if given.fresh is None else select(given.fresh, initial, carry)
        from_x = gates_of_x(given.x)
        sums = [_zeros(gates) for gates in shapes]
        reads, partials = [], []
        for k, (U, dense) in enumerate(zip(matrices, maps[1], strict=True)):
            v, numbers = keep(k, start, from_x, tuple(sums))
            gates = _add_biases(_cut(walk.times(v, U), len(shapes[k])), dense.b)
            plus = tuple(None if g is None else from_x[g] for g in walk.routes.into[k])
            sums[k] = add_gates(gates, plus)
            reads.append(v)
            partials.append(numbers)
        (after, y), numbers = keep(None, start, from_x, tuple(sums))
        after = after if given.real is None else select(given.real, after, carry)
        kept = _Kept(tuple(reads), (*partials, numbers))
        return after, ((after, y) if walk.every else y, kept)

    given = _Given(xs, real, fresh)
    if before is None:
        wide = [math.prod(dense.W.shape[:2]) > dense.W.shape[2] for dense in maps[1]]
        end, (out, kept) = _scan_once(walk, body, carry, given, steps, wide)
    else:
        end, (out, kept) = jax.vmap(body)(before, given)  # no step waits for the one before it
    return (end, out), kept.reads, kept.partials, linear


def _scan_once(
    walk: Walk, body: Any, carry: PyTree, given: _Given, steps: int, wide: list[bool]
) -> tuple[PyTree, tuple[PyTree, _Kept]]:
    """`walk.scan` of a body that returns (carry, (out, kept)), but nothing is stored twice.

    What is one and the same in a step, as an output and a derivative may be, is stored once. And
    what only a map reads of the carry before a step is not stored, if the carry after it is, and
    if what the map gives, which is shifted for that, is no larger.
    """
    if steps == 0:
        return walk.scan(body, carry, given, steps)
    first = jax.tree.map(lambda a: a[0], given)
    closed, (_, shapes) = jax.make_jaxpr(body, return_shape=True)(carry, first)
    leaves, structure = jax.tree.flatten(carry)
    count = len(leaves)
    names = [id(v) for v in closed.jaxpr.outvars]
    names, afters = names[count:], names[:count]
    where = jax.tree.unflatten(jax.tree.structure(shapes), names)
    elsewhere = jax.tree.leaves((where[0], where[1].partials))
    elsewhere += [name for name, is_wide in zip(where[1].reads, wide, strict=True) if is_wide]
    before = {
        id(v): (after, leaf)
        for v, after, leaf in zip(closed.jaxpr.invars, afters, leaves, strict=False)
        if after in elsewhere and id(v) not in elsewhere
    }
    stored = {name: i for i, name in enumerate(names) if name not in before}

    def once(carry: PyTree, given: _Given) -> tuple[PyTree, list[Array]]:
        out = jax.extend.core.jaxpr_as_fun(closed)(*jax.tree.leaves((carry, given)))
        after, rest = out[:count], out[count:]
        return structure.unflatten(after), [rest[i] for i in stored.values()]

    end, stacks = walk.scan(once, carry, given, steps)
    found: dict[int, Any] = dict(zip(stored, stacks, strict=True))
    found |= {name: _Before(found[after], leaf) for name, (after, leaf) in before.items()}
    return end, jax.tree.map(found.__getitem__, where)


def _inhomogeneous(
    walk: Walk,
    maps: tuple[Dense, tuple[Dense, ...]],
    xs: Array,
    reads: tuple[Any, ...],
    d_maps: tuple[Dense, tuple[Dense, ...]],
    d_xs: Any,
) -> tuple[tuple, tuple]:
    """e_k for each map of the carry, and the tangents of gates of x that are read directly.

    One array for each run of gates, (T, gates · H), or None if it is zero.
    """
    (of_x, of_carry), (d_of_x, d_of_carry) = maps, d_maps

    def from_x(first: int, last: int) -> list[Array]:
        return [
            *_affine(walk, xs, len(xs), of_x, d_of_x, first, last),
            *([] if _is_zero(d_xs) else [walk.times(d_xs, _columns(of_x.W[first:last]))]),
        ]

    into = []
    for k, route in enumerate(walk.routes.into):
        runs = []
        for first, last, start in runs_of(route):
            terms = _affine(walk, reads[k], len(xs), of_carry[k], d_of_carry[k], first, last)
            if start is not None:
                terms += from_x(start, start + last - first)
            runs.append(_sum(terms))
        into.append(tuple(runs))
    direct, gates = [], len(of_x.W)
    for first, last in _direct(walk, maps):
        if first < gates:
            direct.append(_sum(from_x(first, last)))
        else:
            d = d_of_x.vectors[first - gates]
            direct.append(None if _is_zero(d) else at_all_steps(d.reshape(-1), len(xs)))
    return tuple(into), tuple(direct)


def _direct(walk: Walk, maps: tuple[Dense, tuple[Dense, ...]]) -> list[tuple[int, int]]:
    """What the element-wise part reads itself: stretches of gates of x, then vectors one by one."""
    gates, direct = len(maps[0].W), walk.routes.direct
    vectors = [(g, g + 1) for g in direct if g >= gates]
    return stretches_of(tuple(g for g in direct if g < gates)) + vectors


def _affine(
    walk: Walk, vs: Any, steps: int, dense: Dense, d_dense: Dense, first: int, last: int
) -> list[Array]:
    """δW v + δb at all steps, for gates first … last − 1; what is zero is left out."""
    terms = []
    if not _is_zero(d_dense.W):
        d_W = _columns(d_dense.W[first:last])
        terms.append(
            _times_before(walk, *vs, d_W) if isinstance(vs, _Before) else walk.times(vs, d_W)
        )
    if not (d_dense.b is None or _is_zero(d_dense.b)):
        d_b = jnp.pad(d_dense.b, ((len(dense.W) - len(d_dense.b), 0), (0, 0)))
        terms.append(at_all_steps(d_b[first:last].reshape(-1), steps))
    return terms


def _times_before(walk: Walk, after: Array, first: Array, W: Array) -> Array:
    # the product is shifted, not what is multiplied: that would be stored for the backward pass
    edge, rest = walk.times(first[None], W), walk.times(after, W)
    return jnp.concatenate((rest[1:], edge) if walk.reverse else (edge, rest[:-1]))


def _sum(terms: list[Array]) -> Array | None:
    return functools.reduce(jnp.add, terms) if terms else None


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)


def _instantiate(primals: PyTree, tangents: PyTree) -> PyTree:
    return jax.tree.map(lambda p, t: jnp.zeros_like(p) if _is_zero(t) else t, primals, tangents)
