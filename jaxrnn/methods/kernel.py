"""One kernel for all steps, written with Pallas, for cells that declare their `stages`.

A scan on a GPU launches a few kernels for every step; where a step is small, that is what it
costs. Here a block of rows goes through all its steps within one kernel, with its carry in
registers; W_x x + b is computed for all steps before, in one product. The element-wise part is the
cell's own JAX function, so that a new cell needs no new kernel.

The derivative is that of `Staged`: the kernel gives every carry, from which the derivatives of all
steps follow at once, in large products; what is scanned is the linear recurrence alone.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, PyTree

from jaxrnn.dense import Dense, add_bias, add_gates, multiply
from jaxrnn.methods.lowered import Moment, select
from jaxrnn.methods.segments import Segments
from jaxrnn.methods.staged import Staged, Walk, derive
from jaxrnn.methods.stages import elementwise_part, find_routes, gate_shapes

_ROWS = 16  # of a batch in one block: the fewest that the matrix units of a GPU multiply
_KEPT = 2**16  # bytes of matrices that stay in registers; more are read anew for every step
_MOST = 2**20  # bytes of matrices beyond which reading them costs more than launching kernels
_WARPS = 4


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Kernel:
    """All steps of a block of rows in one GPU kernel. Unmeasured: its limits are estimates.

    Gives way to `Staged()`, to which it is equal in everything but speed: for cells that `Staged`
    does not serve by their stages; for an element-wise part that holds an array of its own, which
    a kernel cannot; for T = 0; and on a GPU, because of what Triton multiplies there, unless all
    is float32, every size in carry, gates and outputs is a power of two of at least 16, and the
    matrices of the carry take 1 MiB at most (an `LSTM` of 256 units). I and B are free.

    interpret: whether the kernel runs step by step as ordinary JAX, slowly, on any machine; None
        for wherever JAX's default backend is not a GPU.
    """

    interpret: bool | None = None

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
        interpret = jax.default_backend() != "gpu" if self.interpret is None else self.interpret
        routes = find_routes(cell, params, carry)
        if routes is None or not _serves(cell, params, carry, moments, interpret):
            return Staged()(cell, params, carry, moments, reverse=reverse, every=every)
        initial = None if moments.fresh is None else cell.initial_carry(params)
        walk = Walk(cell, Staged(ahead=True), routes, reverse, every)
        x, real, fresh, _ = moments
        run = _differentiable(walk, interpret)
        carry, out = run(cell.stages(params), initial, carry, x, real, fresh)
        return out if every else (carry, out)

    def segments(self, cell: Any, steps: int) -> Segments | None:
        """Those of the `Staged()` that it gives way to."""
        return Staged().segments(cell, steps)


def _serves(cell: Any, params: PyTree, carry: PyTree, moments: Moment, interpret: bool) -> bool:
    maps = cell.stages(params)
    closed, out = jax.make_jaxpr(functools.partial(elementwise_part, cell), return_shape=True)(
        carry, *gate_shapes(maps)
    )
    if closed.consts or maps[0].vectors or len(moments.x) == 0:
        return False
    if interpret:
        return True
    matrices = [dense.W for dense in maps[1]]
    vectors = jax.tree.leaves((carry, out, gate_shapes(maps)))
    sizes = [a.shape[-1] for a in (*vectors, *matrices) if a.ndim]
    return (
        all(a.ndim == 1 for a in vectors)
        and all(size >= 16 and size & (size - 1) == 0 for size in sizes)
        and all(a.dtype == jnp.float32 for a in (*vectors, *matrices))
        and _bytes(matrices) <= _MOST
    )


def _bytes(arrays: list[Array]) -> int:
    return sum(a.size * a.dtype.itemsize for a in arrays)


def _differentiable(walk: Walk, interpret: bool) -> Any:
    run = jax.custom_jvp(functools.partial(_forwards, walk, interpret))
    run.defjvp(functools.partial(_derive, walk, interpret), symbolic_zeros=True)
    return run


# ---- the tangent


def _derive(walk: Walk, interpret: bool, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    _, _, carry, *_ = primals
    run = _differentiable(walk._replace(every=True), interpret)
    end, (carries, ys) = run(*primals)
    before = jax.tree.map(functools.partial(_shift, walk.reverse), carry, carries)
    _, d_out = derive(walk, primals, tangents, before)
    return (end, (carries, ys) if walk.every else ys), d_out


def _shift(reverse: bool, first: Array, after: Array) -> Array:
    """What was before every step, from what was before the first one and after each."""
    parts = (after[1:], first[None]) if reverse else (first[None], after[:-1])
    return jnp.concatenate(parts)


# ---- the kernel


class _Map(NamedTuple):
    """A map of the carry, as a kernel reads it: v ↦ v U + b, b for the last gates.

    U: (gates, K, H), the transposed matrices.
    """

    U: Array
    b: Array | None


class _Rows(NamedTuple):
    """What the rows of a batch go through time with; each with its batch axis first.

    gates: W_x x + b for each gate, (B, T, H). real, fresh: (B, T).
    """

    initial: PyTree
    carry: PyTree
    gates: tuple[Array, ...]
    real: Array | None
    fresh: Array | None


def _forwards(
    walk: Walk,
    interpret: bool,
    maps: tuple[Dense, tuple[Dense, ...]],
    initial: PyTree,
    carry: PyTree,
    xs: Array,
    real: Array | None,
    fresh: Array | None,
) -> tuple[PyTree, PyTree]:
    of_x, of_carry = maps
    gates, size, _ = of_x.W.shape
    products = multiply(xs, of_x.W.reshape(gates * size, -1).T)
    bias = add_bias(jnp.zeros((gates, size), xs.dtype), of_x.b)
    from_x = jnp.split(products + bias.reshape(-1), gates, axis=1)
    one = _Rows(initial, carry, tuple(from_x), real, fresh)
    turned = tuple(_Map(dense.W.swapaxes(1, 2), dense.b) for dense in of_carry)
    _, y = jax.eval_shape(functools.partial(elementwise_part, walk.cell), carry, *gate_shapes(maps))
    launch = _merging(functools.partial(_launch, walk, interpret, y))
    out = launch(turned, jax.tree.map(lambda a: a[None], one))
    return jax.tree.map(lambda a: a[0], out)


def _merging(launch: Any) -> Any:
    """`launch` that under `vmap` is still launched once, with more rows."""
    merging = custom_vmap(launch)

    @merging.def_vmap
    def _(count: int, is_batched: Any, of_carry: PyTree, rows: _Rows) -> tuple[Any, Any]:
        def spread(a: Array, has_axis: bool) -> Array:
            return a if has_axis else jnp.broadcast_to(a, (count, *a.shape))

        rows = jax.tree.map(spread, rows, is_batched[1])
        if any(jax.tree.leaves(is_batched[0])):
            # matrices of its own for every member: one kernel for each
            axes = jax.tree.map(lambda has_axis: 0 if has_axis else None, is_batched[0])
            out = jax.vmap(launch, (axes, 0))(of_carry, rows)
        else:
            own = rows.gates[0].shape[1]
            merged = jax.tree.map(lambda a: a.reshape(count * own, *a.shape[2:]), rows)
            out = merging(of_carry, merged)
            out = jax.tree.map(lambda a: a.reshape(count, own, *a.shape[1:]), out)
        return out, jax.tree.map(lambda _: True, out)

    return merging


def _launch(
    walk: Walk, interpret: bool, y: PyTree, of_carry: tuple[_Map, ...], rows: _Rows
) -> tuple[PyTree, PyTree]:
    """All steps of all rows: the carry after the last, and what `walk` wants of each.

    y: the shape of what one step of one row gives.
    """
    # loaded here because hardly any program wants them, and they take long
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    count, steps, _ = rows.gates[0].shape
    blocks = max(1, -(-count // _ROWS))
    # rows of zeros fill the last block
    rows = jax.tree.map(lambda a: _add_rows(a, blocks * _ROWS - count), rows)
    flags = jax.tree.map(lambda a: a.astype(jnp.int32), (rows.real, rows.fresh))
    given = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), (rows.gates, *flags))
    arguments = (of_carry, rows.initial, rows.carry, given)

    def whole(a: Any) -> Any:
        return pallas.BlockSpec(a.shape, lambda block: (0,) * a.ndim)

    def of_rows(a: Any) -> Any:
        return pallas.BlockSpec((_ROWS, *a.shape[1:]), lambda block: (block,) + (0,) * (a.ndim - 1))

    def of_steps(a: Any) -> Any:
        shape = (steps, _ROWS, *a.shape[2:])
        return pallas.BlockSpec(shape, lambda block: (0, block) + (0,) * (a.ndim - 2))

    def every_step(a: Any, shape: tuple[int, ...]) -> Any:
        return jax.ShapeDtypeStruct((steps, blocks * _ROWS, *shape), a.dtype)

    end = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), rows.carry)
    out = jax.tree.map(lambda a: every_step(a, a.shape), y)
    if walk.every:
        out = (jax.tree.map(lambda a: every_step(a, a.shape[1:]), rows.carry), out)
    kinds = (whole, of_rows, of_rows, of_steps)
    launch = pallas.pallas_call(
        functools.partial(_kernel, walk, steps, _bytes([each.U for each in of_carry]) <= _KEPT),
        grid=(blocks,),
        in_specs=tuple(map(jax.tree.map, kinds, arguments)),
        out_specs=(jax.tree.map(of_rows, end), jax.tree.map(of_steps, out)),
        out_shape=(end, out),
        interpret=interpret,
        compiler_params=None if interpret else triton.CompilerParams(_WARPS, 1),
    )
    end, out = launch(*arguments)
    return jax.tree.map(lambda a: a[:count], (end, jax.tree.map(lambda a: a.swapaxes(0, 1), out)))


def _add_rows(a: Array, number: int) -> Array:
    return jnp.pad(a, ((0, number),) + ((0, 0),) * (a.ndim - 1))


def _kernel(
    walk: Walk,
    steps: int,
    keep: bool,
    of_carry: Any,
    initial: Any,
    carry: Any,
    given: Any,
    end: Any,
    out: Any,
) -> None:
    """What one block does; its arguments are references to memory, read by indexing."""

    def read() -> Any:
        return [_read_map(each) for each in of_carry]

    kept = read() if keep else None
    initial = jax.tree.map(lambda ref: ref[...], initial)

    def turn(i: Array, carry: PyTree) -> PyTree:
        t = steps - 1 - i if walk.reverse else i
        step = functools.partial(_step, walk, kept or read())
        carry, moment = jax.vmap(step)(initial, carry, jax.tree.map(lambda ref: ref[t], given))
        jax.tree.map(lambda ref, a: ref.__setitem__(t, a), out, moment)
        return carry

    carry = jax.lax.fori_loop(0, steps, turn, jax.tree.map(lambda ref: ref[...], carry))
    jax.tree.map(lambda ref, a: ref.__setitem__(..., a), end, carry)


def _step(
    walk: Walk, maps: list[Any], initial: PyTree, carry: PyTree, given: Any
) -> tuple[PyTree, PyTree]:
    """One step of one row."""
    from_x, real, fresh = given
    start = carry if fresh is None else select(fresh != 0, initial, carry)
    after, y = walk.cell.elementwise(start, from_x, *(functools.partial(_apply, m) for m in maps))
    after = after if real is None else select(real != 0, after, carry)
    return after, (after, y) if walk.every else y


def _read_map(of_carry: _Map) -> list[tuple[Array, Array | None]]:
    """U and b, gate by gate: a kernel cannot cut what it has in hand."""
    U, b = of_carry
    without = U.shape[0] if b is None else U.shape[0] - b.shape[0]
    return [(U[g], None if b is None or g < without else b[g - without]) for g in range(U.shape[0])]


def _apply(
    gates: list[tuple[Array, Array | None]], v: Array, plus: tuple | None = None
) -> tuple[Array, ...]:
    """What a `Dense` gives of v, with what was read."""
    sums = tuple(jnp.dot(v, U) if b is None else jnp.dot(v, U) + b for U, b in gates)
    return add_gates(sums, plus)
