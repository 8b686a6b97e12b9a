"""How much of the past a carry holds: memory capacity, and Fisher information under noise."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Int, PyTree

from jaxrnn import cell as contract
from jaxrnn.analysis.products import Product
from jaxrnn.analysis.scaled import log_scaled, norm, rescale
from jaxrnn.analysis.walk import Walk, check_steps, flat_step, over_batch, real_steps_last
from jaxrnn.cell import flatten_carry
from jaxrnn.methods import Method
from jaxrnn.methods.lowered import guarded_step
from jaxrnn.sequences import sequence_shape
from jaxrnn.unroll import trajectory


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MemoryCapacity:
    """How well past inputs can be read out of the carry, linearly.

    lags: 0…K−1, in steps; lag 0 is the input that the carry has just taken in.
    input_scale: standard deviation of the scalar input u, as given.
    capacity: MC_k, squared correlation of u_{t−k} with its best linear readout from the carry
        after step t, from 0 to 1.
    total: Σ_k MC_k over these lags, in inputs remembered; at most N, but for chance.
    in_sample_total: the same on the data that the readout was fitted to, N·K/steps too high where
        there is nothing to remember. While the two are apart, `steps` are too few.
    reachable: for a linear cell the rank of its controllability matrix, to which MC_k sums over
        all lags if every mode decays; None for a measured one.
    """

    lags: Int[Array, "*mapped K"]
    input_scale: Float[Array, "*scales"]
    capacity: Float[Array, "*scales K"]
    total: Float[Array, "*scales"]
    in_sample_total: Float[Array, "*scales"]
    reachable: Int[Array, "*mapped"] | None


def memory_capacity(
    cell: Any,
    params: PyTree,
    *,
    lags: int | None = None,
    input_scale: Any = 1.0,
    direction: PyTree | None = None,
    analytic: bool | None = None,
    key: Array | None = None,
    steps: int = 4000,
    burn_in: int = 100,
    method: Method | None = None,
) -> MemoryCapacity:
    """Memory capacity of a scalar random input, lag by lag (Jaeger 2001, GMD report 152).

    The input is u_t · direction, u iid uniform with mean 0 and standard deviation `input_scale`.

    A cell that is linear in its carry and input, h ← A h + B u, is solved: MC_k = B'A'ᵏ C⁺ Aᵏ B,
    C = Σ AᵏBB'A'ᵏ, whatever the scale. C itself has singular values far below rounding, and
    computing with it loses capacity (Ballarin, Grigoryeva and Ortega 2023, 2305.01457). But MC_k
    depends on nothing but the eigenvalues of the reachable part of A, found by Arnoldi, and is the
    sum of squares of an orthonormal (Takenaka-Malmquist) basis with these poles. Modes on or
    outside of the unit circle have nothing left for a finite lag.

    Any other cell is run, a least-squares readout fitted on `steps` steps and its squared
    correlation taken on as many new ones: about 1/steps too high where there is no memory, up to
    (1 − MC_k) N/steps too low where there is some, with a standard deviation of about
    2√(MC_k/steps) (1 − MC_k). The capacity of a nonlinear cell is a matter of its input scale
    (Ballarin, Grigoryeva and Ortega 2025, 2502.04832): give several. In float32 the long tail,
    which lives below rounding, is lost.

    Args:
        lags: K; by default 2 N.
        input_scale: a number, or an array of them, whose shape the record takes on.
        direction: what u is multiplied by, shaped like one moment of xs; by default 1/√I each.
        analytic: True or False to choose the way; None: analytic where the cell is linear.
        key: of the random inputs, and of a cell that draws noise; for measuring alone.
        steps: to fit on, and as many to test on.
        burn_in: steps to forget the initial carry, before either.
        method: as for `jaxrnn.unroll`.

    Analytic: N + 1 jvps, one N × N eigenvalue problem, K N operations. Measured, per scale: one
    unroll and an SVD of steps × N numbers, one scale after the other (a batch of large LAPACK calls
    from XLA's CPU threads can hang, jax issues 39292 and 38056: mind an outer vmap).
    """
    contract.check_cell(cell)
    direction = _direction(cell, params, direction)
    check_steps(cell, params, jax.tree.map(lambda d: d[None], direction))
    carry = jax.eval_shape(lambda p: flatten_carry(cell.initial_carry(p))[0], params)
    size, scales = carry.size, jnp.asarray(input_scale, carry.dtype)
    count: int = 2 * size if lags is None else lags
    if count < 1:
        raise ValueError(f"lags must be at least 1, got {count}")
    linear = not contract.is_random(cell) and _is_linear(cell, params, direction)
    if analytic and not linear:
        raise ValueError(
            f"{type(cell).__name__} is not linear in its carry and input: leave analytic out"
        )
    if linear if analytic is None else analytic:
        return _analytic(cell, count, params, direction, scales)
    if key is None:
        raise ValueError("a measured capacity needs random input: pass key=jax.random.key(seed)")
    if steps <= size + 1:
        raise ValueError(f"steps must be above N + 1 = {size + 1}, got {steps}")
    if burn_in < 0:
        raise ValueError(f"burn_in must be at least 0, got {burn_in}")
    return _measured(cell, (count, steps, burn_in), method, params, direction, scales, key)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _analytic(cell, count, params, direction, scales):
    with jax.default_matmul_precision("highest"):
        modes, rank = _reachable_modes(cell, params, direction)
    capacity = _mode_memory(modes, count).astype(scales.dtype)
    capacity = jnp.broadcast_to(capacity, (*scales.shape, count))
    total = jnp.sum(capacity, axis=-1)
    lags = jnp.arange(count, dtype=jnp.int32)
    return MemoryCapacity(lags, scales, capacity, total, total, rank)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _measured(cell, counts, method, params, direction, scales, key):
    lags, steps, burn_in = counts
    first = burn_in + lags - 1
    k_input, k_noise = jax.random.split(key)
    shape, end = (first + 2 * steps,), 3**0.5
    # in float32 whatever the cell is in, so that the two can be compared
    u = jax.random.uniform(k_input, shape, jnp.float32, -end, end).astype(scales.dtype)
    noise = dict(key=k_noise) if contract.is_random(cell) else {}
    targets = jax.vmap(lambda k: jax.lax.dynamic_slice(u, (first - k,), (2 * steps,)), out_axes=1)
    targets = targets(jnp.arange(lags, dtype=jnp.int32))

    def at(scale):
        xs = jax.tree.map(
            lambda d: (scale * u).astype(d.dtype)[(...,) + (None,) * d.ndim] * d, direction
        )
        carries, _ = trajectory(cell, params, xs, method=method, **noise)
        features = jax.vmap(lambda c: flatten_carry(c)[0])(carries)[first:]
        return _readout_capacity(features, targets, steps)

    with jax.default_matmul_precision("highest"):
        capacity, in_sample = jax.lax.map(at, scales.ravel())
    capacity = capacity.reshape(*scales.shape, lags)
    in_sample = jnp.sum(in_sample, axis=-1).reshape(scales.shape)
    places = jnp.arange(lags, dtype=jnp.int32)
    return MemoryCapacity(places, scales, capacity, jnp.sum(capacity, -1), in_sample, None)


def _readout_capacity(
    features: Float[Array, "both N"], targets: Float[Array, "both K"], steps: int
) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
    # squared correlations on new data, and on those that the readout was fitted to; a column that
    # overflows is left out
    features = jnp.where(jnp.all(jnp.isfinite(features), axis=0), features, 0)
    features = features - jnp.mean(features[:steps], axis=0)
    spread = jnp.sqrt(jnp.mean(features[:steps] ** 2, axis=0))
    features = features / jnp.where(spread > 0, spread, 1)
    fit, means = features[:steps], jnp.mean(targets[:steps], axis=0)
    # singular values at rounding are no directions
    cut = features.shape[1] * float(jnp.finfo(features.dtype).eps)
    readout = jnp.linalg.lstsq(fit, targets[:steps] - means, rcond=cut)[0]
    predicted = features @ readout
    new = _squared_correlation(predicted[steps:], targets[steps:])
    return new, _squared_correlation(predicted[:steps], targets[:steps])


def _squared_correlation(a: Float[Array, "T K"], b: Float[Array, "T K"]) -> Float[Array, " K"]:
    a, b = a - jnp.mean(a, axis=0), b - jnp.mean(b, axis=0)
    product = jnp.sum(a * a, axis=0) * jnp.sum(b * b, axis=0)
    positive = product > 0
    return jnp.where(positive, jnp.sum(a * b, axis=0) ** 2 / jnp.where(positive, product, 1), 0)


# what repeats or chooses: who depends on whom in there takes more than one look
_LOOPS = ("scan", "while", "cond")


def _is_linear(cell: Any, params: PyTree, direction: PyTree) -> bool:
    """Whether carry ← A carry + B u + b, with A and B the same at every carry and every u.

    Decided on the program of the Jacobian, not on numbers: it must not read carry or u.
    """
    step, point = _step_of_scalar(cell, params, direction)
    u = jnp.zeros((), point.dtype)
    program = jax.make_jaxpr(jax.jacfwd(step, argnums=(0, 1)))(point, u).jaxpr
    return not any(_depends(program, [True, True]))


def _depends(program: Any, given: list[bool]) -> list[bool]:
    # which outputs depend on the inputs marked
    marked = {id(v) for v, mark in zip(program.invars, given, strict=True) if mark}
    for equation in program.eqns:
        inside = [id(v) in marked for v in equation.invars]
        body = _body(equation)
        outs = [any(inside)] * len(equation.outvars) if body is None else _depends(body, inside)
        marked |= {id(v) for v, mark in zip(equation.outvars, outs, strict=True) if mark}
    return [id(v) in marked for v in program.outvars]


def _body(equation: Any) -> Any:
    # the program that a call stands for, if it is one with the same inputs
    if equation.primitive.name in _LOOPS:
        return None
    for value in equation.params.values():
        body = getattr(value, "jaxpr", value)
        same = len(getattr(body, "invars", ())) == len(equation.invars)
        if hasattr(body, "eqns") and same and len(body.outvars) == len(equation.outvars):
            return body
    return None


def _step_of_scalar(cell: Any, params: PyTree, direction: PyTree) -> Any:
    point, unflatten = flatten_carry(cell.initial_carry(params))

    def step(flat: Float[Array, " N"], u: Float[Array, ""]) -> Float[Array, " N"]:
        x = jax.tree.map(lambda d: u.astype(d.dtype) * d, direction)
        return flatten_carry(cell.step(params, unflatten(flat), x)[0])[0]

    return step, point


def _reachable_modes(
    cell: Any, params: PyTree, direction: PyTree
) -> tuple[Complex[Array, " N"], Int[Array, ""]]:
    """Eigenvalues of the part of A that the input reaches, filled up with 2, and their number."""
    step, point = _step_of_scalar(cell, params, direction)
    A, B = jax.jacfwd(step, argnums=(0, 1))(point, jnp.zeros((), point.dtype))
    H, reached = _hessenberg(A, B)
    return jnp.linalg.eigvals(H), jnp.sum(reached).astype(jnp.int32)


def _hessenberg(
    A: Float[Array, "N N"], B: Float[Array, " N"]
) -> tuple[Float[Array, "N N"], Bool[Array, " N"]]:
    """A in the orthonormal basis of B, AB, A²B …, by Arnoldi, orthogonalised twice.

    Returns the Hessenberg matrix and a flag for each column; those that the input does not reach,
    to rounding, hold nothing but a 2 on the diagonal. The flags add up to the rank of the
    controllability matrix.
    """
    size = B.size
    least = 4 * size * jnp.finfo(A.dtype).eps * norm(A)

    def turn(j, state):
        V, H, reached, v, length = state
        v = jnp.where(reached, v / jnp.where(length > 0, length, 1), 0)
        V = V.at[:, j].set(v)
        v = A @ v
        column = jnp.zeros_like(v)
        for _ in range(2):
            by = V.T @ v
            v, column = v - V @ by, column + by
        length = norm(v)
        alone = jnp.where(jnp.arange(size, dtype=jnp.int32) == j, 2, jnp.zeros_like(v))
        H = H.at[:, j].set(jnp.where(reached, column, alone))
        onwards = reached & (length > least)
        H = H.at[j + 1, j].set(jnp.where(onwards, length, 0), mode="drop")
        return V, H, onwards, v, length

    def flagged(state, j):
        return turn(j, state), state[2]

    nothing = jnp.zeros_like(A)
    start = (nothing, nothing, norm(B) > 0, B, norm(B))
    (_, H, _, _, _), reached = jax.lax.scan(flagged, start, jnp.arange(size, dtype=jnp.int32))
    return H, reached


def _mode_memory(modes: Complex[Array, " N"], count: int) -> Float[Array, " K"]:
    """MC_k, k = 0 … count − 1, of a linear system with these eigenvalues, all of them reached.

    The sequences Aᵏ B span those with transforms 1/(1 − λ_n z), of which

        √(1 − |λ_n|²)/(1 − λ_n z) · Π_{m<n} (z − λ̄_m)/(1 − λ_m z)

    is an orthonormal basis (Takenaka 1925, Malmquist 1926), for repeated λ as well. MC_k is the sum
    of the squares of their k-th coefficients. A mode with |λ| ≥ 1 adds nothing.
    """
    weight = jnp.maximum(1 - jnp.abs(modes) ** 2, 0)

    def one_mode(signal, inputs):
        mode, weight = inputs

        def one_lag(before, value):
            after = mode * before + value
            return after, (after, before - jnp.conj(mode) * after)

        _, (response, rest) = jax.lax.scan(one_lag, jnp.zeros_like(mode), signal)
        signal = jnp.where(weight > 0, rest, signal)
        return signal, jnp.where(weight > 0, weight * jnp.abs(response) ** 2, 0)

    impulse = jnp.zeros(count, modes.dtype).at[0].set(1)
    _, shares = jax.lax.scan(one_mode, impulse, (modes, weight))
    return jnp.sum(shares, axis=0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FisherMemory:
    """What a noisy carry at the end still tells about the inputs, in a Fisher information.

    lags: 0…T−1, in steps, counted back from the last real input.
    log_information: ln J(k), natural, for noise of variance 1 on every number of the carry at
        every step; for variance σ², minus ln σ². −inf at lags behind a reset or the first step.
    total: Σ_k J(k). 1 for a normal W and an input map v with |v| = 1, |v|² N at most for any W.
    """

    lags: Int[Array, "*mapped T"]
    log_information: Float[Array, "*batch T"]
    total: Float[Array, "*batch"]


def fisher_memory(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    *,
    direction: PyTree | None = None,
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> FisherMemory:
    """The Fisher memory curve J(k) (Ganguli, Huh and Sompolinsky 2008, PNAS 105) of any cell.

        J(k) = v_k' P_k' C⁻¹ P_k v_k,    P_k = J_T … J_{T−k+1},    v_k = ∂carry_{T−k}/∂u_{T−k}
        C    = Σ_k P_k P_k'

    the information that the carry after T steps has about the input u_{T−k} · direction added k
    steps before, if every step adds white noise to the carry. With a linear cell P_k = Wᵏ, and this
    is the curve of the paper, over T steps instead of infinitely many: Σ_k J(k) = 1 for every
    normal W and |v| = 1 at any T. With another cell everything is linearised along the trajectory
    of xs: exact for noise and signal small enough.

    Args:
        direction: shaped like one moment of xs; by default 1/√I each.

    Other options as for `jaxrnn.unroll`; with `reverse`, lags count in the direction of travel.
    Two products of N × N Jacobians a step to gather the noise, one to go back, and one Cholesky
    factor of C for each row of a batch (in batches of large N mind jax issues 39292 and 38056).
    Noise that has grown to 1/ε of that of one step hides what is below it.
    """
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_steps(cell, params, xs, start=start, **options)
    direction = _direction(cell, params, direction)
    _check_direction(direction, xs, len(sequence_shape(cell, params, xs)))
    return _fisher_memory(cell, bool(reverse), method, params, direction, sequences)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _fisher_memory(cell, reverse, method, params, direction, sequences):
    one = functools.partial(_information, cell, params, direction)
    log_information = over_batch(one, cell, params, sequences, reverse=reverse, method=method)
    lags = jnp.arange(log_information.shape[-1], dtype=jnp.int32)
    return FisherMemory(lags, log_information, jnp.sum(jnp.exp(log_information), axis=-1))


def _information(cell: Any, params: PyTree, direction: PyTree, walk: Walk) -> Float[Array, " T"]:
    walk = real_steps_last(walk)
    factor, exponent = _noise_factor(cell, params, walk)
    whiten = jax.scipy.linalg.solve_triangular(
        factor, jnp.eye(*factor.shape, dtype=factor.dtype), lower=True
    )

    def one_step_older(product, inputs):
        before, moment = inputs
        step, point = flat_step(cell, params, walk.initial, before, moment)

        def of_input(x):
            after, _ = guarded_step(cell, params, walk.initial, before, moment._replace(x=x))
            return flatten_carry(after)[0]

        _, signal = jax.jvp(of_input, (moment.x,), (direction,))
        signal, by = rescale(product.matrix @ signal, product.exponent)
        _, pull = jax.vjp(step, point)
        product = product.times(jax.vmap(lambda row: pull(row)[0]))
        return product, 2 * log_scaled(norm(signal), by)

    start = Product.start(whiten, "none")
    _, logs = jax.lax.scan(one_step_older, start, (walk.befores, walk.moments), reverse=True)
    lags = jnp.arange(logs.shape[0], dtype=jnp.int32)
    logs = logs[::-1] - exponent.astype(logs.dtype) * jnp.log(jnp.asarray(2, logs.dtype))
    return jnp.where(lags < walk.real_count, logs, -jnp.inf)


def _noise_factor(
    cell: Any, params: PyTree, walk: Walk
) -> tuple[Float[Array, "N N"], Int[Array, ""]]:
    # L and e with C = L L' 2^e, the covariance of what unit noise at every real step adds up to
    vector, _ = flatten_carry(walk.initial)
    identity = jnp.eye(vector.size, dtype=vector.dtype)

    def one_step(state, inputs):
        covariance, exponent = state
        before, moment = inputs
        step, point = flat_step(cell, params, walk.initial, before, moment)
        _, push = jax.linearize(step, point)
        columns = jax.vmap(push, in_axes=1, out_axes=1)
        noise = identity * jnp.ldexp(jnp.ones((), vector.dtype), -exponent)
        noise = noise if moment.real is None else jnp.where(moment.real, noise, 0)
        covariance = columns(columns(covariance).T)
        return rescale((covariance + covariance.T) / 2 + noise, exponent), None

    state = (jnp.zeros_like(identity), jnp.zeros((), jnp.int32))
    (covariance, exponent), _ = jax.lax.scan(one_step, state, (walk.befores, walk.moments))
    # no step, no noise: any factor will do
    covariance = jnp.where(jnp.any(covariance != 0), covariance, identity)
    rounding = vector.size * jnp.finfo(vector.dtype).eps
    return jnp.linalg.cholesky(covariance + rounding * identity), exponent


def _direction(cell: Any, params: PyTree, direction: PyTree | None) -> PyTree:
    dtype = contract.params_dtype(params) or jnp.result_type(float)
    if direction is not None:
        return jax.tree.map(lambda d: jnp.asarray(d, dtype), direction)
    size = contract.size(cell, "input_size")
    return jnp.full(size, max(size, 1) ** -0.5, dtype)


def _check_direction(direction: PyTree, xs: PyTree, leading: int) -> None:
    moment = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[leading:], a.dtype), xs)
    got, expected = contract.describe(direction), contract.describe(moment)
    if got != expected:
        raise ValueError(f"direction is {got}, expected {expected}, like one moment of xs")
