"""How long units hold on to what they have: time constants of gates, of leaks, of eigenvalues."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Inexact, Int, PyTree

from jaxrnn import cells
from jaxrnn.analysis.walk import Walk, check_steps, over_batch
from jaxrnn.cell import step as cell_step
from jaxrnn.cells.affine import AffineElement
from jaxrnn.cells.leaky import LeakyUnits
from jaxrnn.methods import Method
from jaxrnn.methods.lowered import Moment, select
from jaxrnn.network import Normalized, Readout, Residual, Stack
from jaxrnn.sequences import Sequences


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TimeConstants:
    """How long each unit keeps what it has, in the unit of dt. All logarithms are natural.

    time_constant: τ = −Δt / mean_t ln keep_t: what is there at first has shrunk to e^(−t/τ) of
        itself after a long time t, along the direct path alone. inf where everything is kept,
        0 where something is lost altogether, negative where a unit grows.
    time_constant_of_mean: −Δt / ln mean_t keep_t, the other average. Never below the first; it
        overlooks the short moments at which a gate forgets. Where both differ, believe the first.
    mean_log_keep, mean_keep: mean_t ln keep_t and mean_t keep_t, over the real steps of a row.
    frequency: mean_t arg λ_t / (2π Δt), in cycles per unit of dt, of complex diagonal cells.
    leak_time_constant: Δt/α of leaky units, the τ of the equation that they are Euler steps of.
        `time_constant` is that of the steps, −Δt / ln(1 − α), which is shorter by about Δt/2.

    Each is an array, `(*batch, *units)`; where several fields of a carry are kept, a carry of
    arrays; of a `Stack`, a tuple, bottom first, with None for a layer that has no keep gate.
    A row without a real step has a `mean_log_keep` of −inf.
    """

    time_constant: PyTree[Float[Array, "..."]]
    time_constant_of_mean: PyTree[Float[Array, "..."]]
    mean_log_keep: PyTree[Float[Array, "..."]]
    mean_keep: PyTree[Float[Array, "..."]]
    frequency: PyTree[Float[Array, "..."]]
    leak_time_constant: PyTree[Float[Array, "..."]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Modes:
    """Time constants of eigenvalues μ of one step.

    time_constant: −Δt / ln |μ|, in the unit of dt: a deviation along the eigenvector shrinks to
        e^(−t/τ) of itself. inf for |μ| = 1, 0 for μ = 0, negative where it grows.
    frequency: arg μ / (2π Δt), in cycles per unit of dt, from −1/(2 Δt) to 1/(2 Δt).
    """

    time_constant: Float[Array, "*shape"]
    frequency: Float[Array, "*shape"]


def time_constants(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    *,
    dt: float = 1.0,
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> TimeConstants:
    """Measures over data how long each unit holds on to what it has.

    A unit that keeps the part f of itself in every step is a leaky integrator with time constant
    −Δt / ln f (Tallec and Ollivier 2018, 1804.11188, read backwards). Over data, keep_t changes
    with the input; what is left after T steps is the product of all, so that it is the *logarithms*
    that average. See `keep` for what a cell keeps. In float32, a τ of n steps is known to about
    n · 1e-7 of itself; a keep that rounds to 0 or to 1 gives a τ of 0 or of inf.

    It is the direct path only: what a unit hands to itself through other units is not in it. For
    that, see `gradient_decay` and `linearize`. A reset counts as any other step: it changes what
    there is to keep. Costs no matrix product beside those of one unroll and of the gates.

    Args:
        dt: Δt, the time that one step takes: 1 for time constants in steps; of a `Leaky` cell its
            own dt gives its own tau back.

    Other options as for `jaxrnn.unroll`.

    Raises:
        TypeError: the cell has no keep gate.
    """
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_steps(cell, params, xs, start=start, **options)
    if not dt > 0:
        raise ValueError(f"dt must be positive, got {dt!r}")
    return _time_constants(cell, bool(reverse), method, params, sequences, dt)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _time_constants(
    cell: Any, reverse: bool, method: Method | None, params: PyTree, sequences: Sequences, dt: Any
) -> TimeConstants:
    one = functools.partial(_constants, cell, params, dt)
    return over_batch(one, cell, params, sequences, reverse=reverse, method=method)


def _constants(cell: Any, params: PyTree, dt: Any, walk: Walk) -> TimeConstants:
    def at(before: PyTree, moment: Moment) -> PyTree:
        if moment.fresh is not None:
            before = select(moment.fresh, walk.initial, before)
        return keep(cell, params, before, moment.x, moment.key)

    kept = jax.vmap(at)(walk.befores, walk.moments)
    if not jax.tree.leaves(kept):
        raise TypeError(
            f"{type(cell).__name__} has no keep gate: give it a method keep(params, carry, x) that "
            "returns the part of itself that each unit keeps in one step, or use "
            "analysis.linearize and analysis.modes for the time constants of a fixed point"
        )
    mean = functools.partial(_mean, walk)
    sizes = jax.tree.map(jnp.abs, kept)
    mean_log = jax.tree.map(lambda a: mean(_log(a), -jnp.inf), sizes)
    mean_keep = jax.tree.map(lambda a: mean(a, 0), sizes)
    return TimeConstants(
        time_constant=jax.tree.map(lambda a: _time_constant(a, dt), mean_log),
        time_constant_of_mean=jax.tree.map(lambda a: _time_constant(_log(a), dt), mean_keep),
        mean_log_keep=mean_log,
        mean_keep=mean_keep,
        frequency=jax.tree.map(lambda a: _mean_frequency(mean, a, dt), kept),
        leak_time_constant=_leak_time_constants(cell, params, dt),
    )


def _mean(walk: Walk, values: Float[Array, "*steps"], of_nothing: float) -> Array:
    real, count = walk.moments.real, walk.real_count.astype(values.dtype)
    if real is not None:
        values = jnp.where(real.reshape(-1, *(1,) * (values.ndim - 1)), values, 0)
    return jnp.where(count > 0, jnp.sum(values, axis=0) / jnp.maximum(count, 1), of_nothing)


def _log(a: Float[Array, "*any"]) -> Float[Array, "*any"]:
    # twice where, for a gradient of zero, not NaN, at zero
    return jnp.where(a > 0, jnp.log(jnp.where(a > 0, a, 1)), -jnp.inf)


def _time_constant(log_keep: Float[Array, "*any"], dt: Any) -> Float[Array, "*any"]:
    changes = log_keep != 0
    return jnp.where(changes, -dt / jnp.where(changes, log_keep, 1), jnp.inf)


def _mean_frequency(mean: Callable, kept: Inexact[Array, "*steps"], dt: Any) -> Array | None:
    if not jnp.issubdtype(kept.dtype, jnp.complexfloating):
        return None
    return mean(jnp.angle(kept), 0) / (2 * math.pi * dt)


def modes(
    eigenvalues: Complex[Array, "*shape"] | Float[Array, "*shape"] | Any, *, dt: float = 1.0
) -> Modes:
    """Time constants and frequencies of the eigenvalues of one step, as `linearize` finds them.

    Args:
        eigenvalues: μ of ∂carry_t/∂carry_{t−1}, of a map: what |μ| < 1 holds for decays.
        dt: Δt, the time that one step takes.
    """
    mu = jnp.asarray(eigenvalues)
    return Modes(_time_constant(_log(jnp.abs(mu)), dt), jnp.angle(mu) / (2 * math.pi * dt))


# ---- what a cell keeps


def keep(cell: Any, params: PyTree, carry: PyTree, x: PyTree, key: Array | None = None) -> PyTree:
    """The part of itself that each unit keeps in one step: carry' = keep ⊙ carry + what enters.

    What the cell's own method `keep(params, carry, x)` returns, if it has one. Of ours: the gate
    that weighs the old carry (f of an LSTM, 1 − z or z of a GRU by `update_weighs`, the product
    over the layers of an RHN), 1 − α of leaky units, and a of a ⊙ carry + b for diagonal linear
    cells, which is λ, complex, for an `LRU`, `S4D` or `S5`. Of an `SLSTM` or `MLSTM` f before it
    is stabilised. Of a `CFN`, `SGRN` or `STAR` the gate too, though a tanh shrinks what it keeps.

    Of a Stack a tuple; of `Readout`, `Residual` and `Normalized` what their member keeps. None
    for cells without a keep gate.
    """
    if isinstance(cell, Stack):
        # the walk that the stack itself takes, with the same noise
        def one(layer: Any, p: PyTree, c: PyTree, x: PyTree, k: Array | None) -> tuple:
            from_below = cell_step(layer, p, c, x, k)[1]
            return keep(layer, p, c, x, k), from_below

        return cell._through(one, params, carry, x, key)[0]
    if isinstance(cell, Residual | Readout | Normalized):
        return keep(cell.members[0], _member_params(params), carry, x, key)
    if callable(getattr(cell, "keep", None)):
        return cell.keep(params, carry, x)
    for kind in type(cell).__mro__:
        if kind in _KEEPS:
            return _KEEPS[kind](cell, params, carry, x)
    element = cell.element(params, x) if hasattr(cell, "element") else None
    return element.a if isinstance(element, AffineElement) else None


def _member_params(params: Any) -> PyTree:
    return params.network if hasattr(params, "network") else params.layer


def _gate(name: str, *, weighs_new: bool = False) -> Callable[..., Array]:
    def of(cell: Any, params: PyTree, carry: PyTree, x: PyTree) -> Array:
        gate = getattr(cell.gates(params, carry, x), name)
        return 1 - gate if weighs_new else gate

    return of


def _gru(cell: Any, *args: PyTree) -> Array:
    return _gate("update", weighs_new=cell.update_weighs == "new")(cell, *args)


def _mgu(cell: Any, *args: PyTree) -> Array:
    return _gate("forget", weighs_new=cell.forget_weighs == "new")(cell, *args)


def _rhn(cell: Any, params: PyTree, carry: PyTree, x: PyTree) -> Array:
    return jnp.prod(cell.gates(params, carry, x).carry, axis=0)


def _lem(cell: Any, params: PyTree, carry: PyTree, x: PyTree) -> cells.LEMCarry:
    gates = cell.gates(params, carry, x)
    return cells.LEMCarry(1 - gates.step_y, 1 - gates.step_z)


def _slstm(cell: Any, params: PyTree, carry: PyTree, x: PyTree) -> Array:
    # `gates` has f as it is applied to what is divided by exp(m)
    return jnp.exp(cell.gate_values(params, carry, x).forget)


def _mlstm(cell: Any, params: PyTree, carry: PyTree, x: PyTree) -> Array:
    return jnp.exp(cell.element(params, x).log_f)


def _leaky(cell: Any, params: PyTree, carry: Any, x: PyTree) -> Array:
    return jnp.broadcast_to(1 - cell.alpha(params), carry.h.shape).astype(carry.h.dtype)


def _reservoir(cell: Any, params: PyTree, carry: Any, x: PyTree) -> Array:
    return jnp.full_like(carry.h, 1 - cell.leak)


def _fast_rnn(cell: Any, params: PyTree, carry: Any, x: PyTree) -> Array:
    return jnp.broadcast_to(jax.nn.sigmoid(params.beta), carry.h.shape)


def _scrn(cell: Any, params: PyTree, carry: Any, x: PyTree) -> Array:
    alpha = cell.alpha if params.beta is None else jax.nn.sigmoid(params.beta)
    return jnp.broadcast_to(alpha, carry.s.shape).astype(carry.s.dtype)


def _everything(cell: Any, params: PyTree, carry: PyTree, x: PyTree) -> PyTree:
    return jax.tree.map(jnp.ones_like, carry)


_FORGET = (cells.LSTM, cells.CoupledLSTM, cells.PeepholeLSTM, cells.ProjectionLSTM)
_FORGET += (cells.LayerNormLSTM, cells.MultiplicativeLSTM, cells.WMCLSTM, cells.ConvLSTM)
_FORGET += (cells.JANET, cells.ATR, cells.RAN, cells.TGRU, cells.TLSTM, cells.TRNN, cells.SRU)
_FORGET += (cells.QRNN, cells.CFN, cells.SGRN, cells.MinLSTM)
_UPDATE_WEIGHS_OLD = (cells.LiGRU, cells.UGRNN, cells.FastGRNN, cells.BR, cells.NBR)
_UPDATE_WEIGHS_NEW = (cells.MUT1, cells.MUT2, cells.MUT3, cells.TauGRU, cells.MinGRU)

_KEEPS: dict[type, Callable[..., Any]] = {
    **dict.fromkeys(_FORGET, _gate("forget")),
    **dict.fromkeys((*_UPDATE_WEIGHS_OLD, cells.MinimalRNN), _gate("update")),
    **dict.fromkeys(_UPDATE_WEIGHS_NEW, _gate("update", weighs_new=True)),
    cells.GRU: _gru,
    cells.MGU: _mgu,
    cells.LightRU: _gate("forget", weighs_new=True),
    cells.STAR: _gate("input", weighs_new=True),
    cells.Clockwork: _gate("ticks", weighs_new=True),
    cells.GatedDeltaNet: _gate("keep"),
    cells.RHN: _rhn,
    cells.LEM: _lem,
    cells.SLSTM: _slstm,
    cells.MLSTM: _mlstm,
    cells.FastRNN: _fast_rnn,
    cells.SCRN: _scrn,
    cells.LinearAttention: _everything,
    cells.Reservoir: _reservoir,
    LeakyUnits: _leaky,
}


def _leak_time_constants(cell: Any, params: PyTree, dt: Any) -> PyTree:
    if isinstance(cell, Stack):
        pairs = zip(cell.layers, params, strict=True)
        return tuple(_leak_time_constants(layer, p, dt) for layer, p in pairs)
    if isinstance(cell, Residual | Readout | Normalized):
        return _leak_time_constants(cell.members[0], _member_params(params), dt)
    if isinstance(cell, LeakyUnits):
        alpha = jnp.asarray(cell.alpha(params), params.W_x.dtype)
    elif isinstance(cell, cells.Reservoir):
        alpha = jnp.asarray(cell.leak, params.W_x.dtype)
    else:
        return None
    return jnp.broadcast_to(dt / alpha, (cell.hidden_size,))
