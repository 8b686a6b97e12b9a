"""Which way a gradient takes through a gated cell: straight on, through gates, or the candidate."""

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxrnn.analysis.scaled import add_scaled, log_scaled, norm, rescale
from jaxrnn.analysis.walk import Walk, check_steps, over_batch, real_steps_last
from jaxrnn.cell import flatten_carry
from jaxrnn.methods import Method, Moment
from jaxrnn.methods.lowered import guarded_step

KINDS = ("direct", "gates", "candidate")
# what cells call that which they would write into the carry
CANDIDATES = (
    *("candidate", "candidate_y", "candidate_z", "content", "context"),
    *("drive", "force", "hidden", "pre_activation"),
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PathJacobians:
    """J_t = ∂carry_t/∂carry_{t−1} as a sum over paths through the step.

    names: of the paths: "direct", "gates", "candidate", or one for each gate.
    jacobians: `[..., t, p]` is what path p contributes to J_t; summed over p they are J_t.
    """

    jacobians: Float[Array, "*batch T paths N N"]
    names: tuple[str, ...] = dataclasses.field(metadata=dict(static=True))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GradientPaths:
    """∂carry_T/∂carry_{T−lag} as a sum over paths. Natural logarithms of Frobenius norms.

    lags: 1…T, in steps, counted back from the last real step.
    log_norm: of the whole.
    log_part_norm: of the part that was last touched by each path: the sum over all ways through
        the lag whose newest step other than a direct one took this path; "direct" is the way that
        was direct at every step. These parts add up to the whole.
    share: ⟨part, whole⟩/⟨whole, whole⟩: how much of the whole lies in each part. Adds up to 1, to
        rounding of the largest; negative where a part works against the whole. 0 if there is none.
    log_product_norm: of the product over the lag of one path's Jacobians alone. For an LSTM
        "direct" is Π f, and what the output makes of it. These do not add up.
    names: of the paths, in the order of their axis.

    −inf at lags that cross a reset or begin before the first real step.
    """

    lags: Int[Array, "*mapped T"]
    log_norm: Float[Array, "*batch T"]
    log_part_norm: Float[Array, "*batch paths T"]
    share: Float[Array, "*batch paths T"]
    log_product_norm: Float[Array, "*batch paths T"]
    names: tuple[str, ...] = dataclasses.field(metadata=dict(static=True))


def gradient_paths(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    *,
    by: str = "kind",
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> GradientPaths:
    """Splits ∂carry_T/∂carry_{T−lag} of a gated cell, exactly, by the way it takes.

    Within a step a path belongs to the first of the declared gates that it meets; one that meets
    none is direct. So h → r → candidate → h' of a GRU goes through the gate r, and h → candidate →
    h', with r held fixed, through the candidate. For an LSTM

        direct      dc'/dc = diag(f), dh'/dc = diag(o (1 − tanh² c') f), as if all gates were fixed
        candidate   dc'/dh = diag(i (1 − g²)) U_g, and what of it arrives in h'
        gates       the rest: the terms of U_i, U_f and U_o

    Over a lag see `GradientPaths`. With p paths it follows 2p products, and p − 1 more leave the
    direct one at every step: 3p − 1 times the N vector-Jacobian products of
    `gradient_decay(…, spectral="none")`, 8 times for three paths; memory for 2p matrices per row.
    No QR, no LAPACK.

    Args:
        cell: any that declares `gates` and whose `step` calls them, or a `Stack` of such: ours do.
            The candidate is the gate of this name, or what else a cell calls that which it would
            write: "pre_activation" of Elman's network, "content" of the RAN. What is linear in
            time and shows no gates is direct alone. A `step` may call its gates within `jax.jit`
            or a scan, which is then written out, but not within `vmap`, `cond` or `checkpoint`.
        by: "kind" for direct, gates, candidate; "gate" for direct and every gate by its name, in a
            stack "0.forget" and so on.

    Other options as for `jaxrnn.unroll`.
    """
    _check_by(by)
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_steps(cell, params, xs, start=start, **options)
    with _gates_in_sight(cell):
        return _gradient_paths(cell, by, bool(reverse), method, params, sequences)


def path_jacobians(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    *,
    by: str = "kind",
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> PathJacobians:
    """The Jacobian of every step, split as by `gradient_paths`: `step_jacobians` by path.

    Takes T·p·N² numbers of memory for p paths. Options as for `gradient_paths`.
    """
    _check_by(by)
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_steps(cell, params, xs, start=start, **options)
    with _gates_in_sight(cell):
        return _path_jacobians(cell, by, bool(reverse), method, params, sequences)


def _check_by(by: str) -> None:
    if by not in ("kind", "gate"):
        raise ValueError(f"by must be 'kind' or 'gate', got {by!r}")


@contextlib.contextmanager
def _gates_in_sight(cell: Any) -> Iterator[None]:
    try:
        yield
    except jax.errors.UnexpectedTracerError as error:
        raise TypeError(
            f"{type(cell).__name__} calls its gates within jax.vmap, jax.lax.cond or "
            "jax.checkpoint, out of which their values cannot be taken: call self.gates(params, "
            "carry, x) in step itself, and transform what is done before or after"
        ) from error


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _path_jacobians(cell, by, reverse, method, params, sequences):
    def one(walk: Walk) -> PathJacobians:
        split = Split(cell, params, walk, by)
        rows = jnp.eye(split.size, dtype=split.dtype)
        paths = jnp.eye(len(split.names), dtype=split.dtype)

        def at(before, moment):
            pull = split.pull(before, moment)
            return jax.vmap(lambda path: jax.vmap(lambda row: pull(row, path))(rows))(paths)

        jacobians = jax.vmap(at)(walk.befores, walk.moments)
        return PathJacobians(jnp.flip(jacobians, 0) if reverse else jacobians, split.names)

    return over_batch(one, cell, params, sequences, reverse=reverse, method=method)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _gradient_paths(cell, by, reverse, method, params, sequences):
    one = functools.partial(_paths, cell, params, by)
    paths = over_batch(one, cell, params, sequences, reverse=reverse, method=method)
    return dataclasses.replace(paths, lags=_lags(paths.log_norm.shape[-1]))


def _lags(steps: int) -> Int[Array, " T"]:
    return jnp.arange(1, steps + 1, dtype=jnp.int32)


def _paths(cell: Any, params: PyTree, by: str, walk: Walk) -> GradientPaths:
    walk = real_steps_last(walk)
    split = Split(cell, params, walk, by)
    p, N = len(split.names), split.size
    alone = jnp.eye(p, dtype=split.dtype)
    # the whole, what was last touched by paths 1…p−1, and the product of each path alone
    weights = jnp.concatenate([jnp.ones((p, p), split.dtype), alone])

    def one_step_older(state, inputs):
        matrices, exponents = state
        pull = split.pull(*inputs)
        pulled = _each(pull, matrices, weights)
        # ways direct so far are touched here for the last time, on their way from the newest step
        direct = jnp.broadcast_to(matrices[p], (p - 1, N, N))
        leaving = _each(pull, direct, alone[1:])
        touched, by_touch = add_scaled(
            pulled[1:p], exponents[1:p], leaving, jnp.broadcast_to(exponents[p], (p - 1,))
        )
        matrices = jnp.concatenate([pulled[:1], touched, pulled[p:]])
        exponents = jnp.concatenate([exponents[:1], by_touch, exponents[p:]])
        matrices, exponents = rescale(matrices, exponents, axis=(1, 2))
        logs = log_scaled(jax.vmap(norm)(matrices), exponents)
        return (matrices, exponents), (logs, _shares(matrices, exponents))

    identity = jnp.eye(N, dtype=split.dtype)
    whole = jnp.concatenate([identity[None], jnp.zeros((p - 1, N, N), split.dtype)])
    matrices = jnp.concatenate([whole, jnp.tile(identity, (p, 1, 1))])
    state = (matrices, jnp.zeros(2 * p, jnp.int32))
    inputs = (walk.befores, walk.moments)
    _, (logs, shares) = jax.lax.scan(one_step_older, state, inputs, reverse=True)
    lags = _lags(len(logs))
    inside = lags <= walk.real_count
    logs = jnp.where(inside, logs[::-1].T, -jnp.inf)
    parts = jnp.concatenate([logs[p : p + 1], logs[1:p]])
    shares = jnp.where(inside, shares[::-1].T, 0)
    return GradientPaths(lags, logs[0], parts, shares, logs[p:], split.names)


def _each(
    pull: Callable, matrices: Float[Array, "m N N"], weights: Float[Array, "m p"]
) -> Float[Array, "m N N"]:
    rows = jax.vmap(pull, (0, None))
    return jax.vmap(rows)(matrices, weights)


def _shares(
    matrices: Float[Array, "two_p N N"], exponents: Int[Array, " two_p"]
) -> Float[Array, " p"]:
    p = len(matrices) // 2
    whole = matrices[0]
    square = jnp.sum(whole * whole)
    parts = jnp.concatenate([matrices[p : p + 1], matrices[1:p]])
    by = jnp.concatenate([exponents[p : p + 1], exponents[1:p]]) - exponents[0]
    shares = jnp.sum(parts * whole, axis=(1, 2)) / jnp.where(square > 0, square, 1)
    # by halves, so that what a float cannot hold becomes 0 or inf, and 0 stays 0
    most = int(jnp.finfo(matrices.dtype).maxexp) - 2
    by = jnp.clip(by, -2 * most, 2 * most)
    one = jnp.ones((), matrices.dtype)
    return shares * jnp.ldexp(one, by // 2) * jnp.ldexp(one, by - by // 2)


class Split:
    """The step of a cell, taken apart at its gates.

    names: of the paths. size, dtype: of the flat carry.
    """

    def __init__(self, cell: Any, params: PyTree, walk: Walk, by: str) -> None:
        self.params, self.initial = params, walk.initial
        self.seen: list[tuple[str, Array]] = []
        self.cell = _watched(cell, self.seen)
        vector, _ = flatten_carry(walk.initial)
        self.size, self.dtype = vector.size, vector.dtype
        one_step = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), (walk.befores, walk.moments)
        )
        jax.eval_shape(self._step, *one_step)
        if not self.seen and not hasattr(cell, "element"):
            raise TypeError(
                f"{type(cell).__name__} shows no gates: its step must call self.gates(params, "
                "carry, x), which returns a NamedTuple of their values, and go on with what it "
                "returns"
            )
        gates = tuple(dict.fromkeys(name for name, _ in self.seen))
        self.names = KINDS if by == "kind" else ("direct", *gates)
        self.path_of = {
            gate: (2 if gate.split(".")[-1] in CANDIDATES else 1) if by == "kind" else 1 + i
            for i, gate in enumerate(gates)
        }

    def _step(self, before: PyTree, moment: Moment) -> tuple[Array, list[Array]]:
        self.seen.clear()
        # what is jitted or scanned within the step is written out, so that its gates show
        with jax.disable_jit():
            after, _ = guarded_step(self.cell, self.params, self.initial, before, moment)
        return flatten_carry(after)[0], [value for _, value in self.seen]

    def pull(
        self, before: PyTree, moment: Moment
    ) -> Callable[[Float[Array, " N"], Float[Array, " p"]], Float[Array, " N"]]:
        """(row, weights) -> row · Σ weights[p] J_t^p, by the first gate a path meets.

        With all gates at fixed values, ∂carry'/∂carry is the direct part, and ∂gate/∂carry leads
        from the carry to a gate through no other one. From there on everything may move.
        """
        vector, unflatten = flatten_carry(before)
        program = jax.make_jaxpr(lambda flat: self._step(unflatten(flat), moment))(vector)
        gates = {}
        for (name, _), variable in zip(self.seen, program.jaxpr.outvars[1:], strict=True):
            if not isinstance(variable, Literal) and jnp.issubdtype(
                variable.aval.dtype, jnp.inexact
            ):
                gates.setdefault(variable, self.path_of[name])

        def fixed(flat):
            values: dict[Any, Array] = {}

            def at_gate(variable, value):
                values[variable] = value
                return jax.lax.stop_gradient(value)

            return _evaluate(program, flat, gates, at_gate), [values[gate] for gate in gates]

        (_, values), pull_fixed = jax.vjp(fixed, vector)

        def moved(by):
            by = dict(zip(gates, by, strict=True))
            return _evaluate(program, vector, gates, lambda gate, value: value + by[gate])

        _, pull_moved = jax.vjp(moved, [jnp.zeros_like(value) for value in values])

        def part(row, weights):
            (at_gates,) = pull_moved(row)
            at_gates = [
                weights[path].astype(a.dtype) * a
                for path, a in zip(gates.values(), at_gates, strict=True)
            ]
            return pull_fixed((weights[0] * row, at_gates))[0]

        return part


def _watched(cell: Any, seen: list[tuple[str, Array]], prefix: str = "") -> Any:
    """A copy that does what the cell does, and writes down the gates that it computes.

    The copy equals the cell: not for use as a static argument.
    """
    twin = copy.copy(cell)
    if dataclasses.is_dataclass(cell):
        for field in dataclasses.fields(cell):
            value = getattr(cell, field.name)
            if _is_cell(value):
                object.__setattr__(twin, field.name, _watched(value, seen, prefix))
            elif isinstance(value, tuple) and value and all(map(_is_cell, value)):
                layers = (_watched(v, seen, f"{prefix}{i}.") for i, v in enumerate(value))
                object.__setattr__(twin, field.name, tuple(layers))
    for name in ("gates", "gate_values"):
        if callable(getattr(cell, name, None)):
            object.__setattr__(twin, name, _writing(getattr(cell, name), seen, prefix))
    return twin


def _is_cell(value: Any) -> bool:
    return callable(getattr(value, "step", None)) and hasattr(value, "initial_carry")


def _writing(function: Callable, seen: list[tuple[str, Array]], prefix: str) -> Callable:
    def call(*arguments: Any) -> Any:
        gates = function(*arguments)
        for name, value in gates._asdict().items():
            seen.extend((prefix + name, leaf) for leaf in jax.tree.leaves(value))
        return gates

    return call


def _evaluate(program: ClosedJaxpr, flat: Array, gates: dict, at_gate: Callable) -> Array:
    """The first output of a program, with `at_gate(variable, value)` in place of every gate."""
    values = {}

    def write(variables, results):
        for variable, value in zip(variables, results, strict=True):
            values[variable] = at_gate(variable, value) if variable in gates else value

    def read(atom):
        return atom.val if isinstance(atom, Literal) else values[atom]

    write(program.jaxpr.constvars, program.consts)
    write(program.jaxpr.invars, [flat])
    for equation in program.jaxpr.eqns:
        bound = equation.primitive.get_bind_params(equation.params)
        # some versions of JAX return functions among the parameters apart
        functions, named = bound if isinstance(bound, tuple) else ((), bound)
        results = equation.primitive.bind(*functions, *map(read, equation.invars), **named)
        write(equation.outvars, results if equation.primitive.multiple_results else [results])
    return read(program.jaxpr.outvars[0])
