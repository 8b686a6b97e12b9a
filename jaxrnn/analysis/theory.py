"""What theory says before anything is measured: bounds, critical gains, mean fields, spectra.

All logarithms are natural, all rates in nats per step.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxrnn.analysis.scaled import log_scaled, rescale, top_singular_value
from jaxrnn.analysis.walk import Walk, check_steps, over_batch
from jaxrnn.cells import GRU, LSTM, Elman
from jaxrnn.cells.elman import ACTIVATIONS
from jaxrnn.methods import Method
from jaxrnn.methods.lowered import select

Number = float | Float[Array, "..."]

# γ, the largest |φ'|
LARGEST_SLOPES = {"tanh": 1.0, "relu": 1.0, "identity": 1.0, "logistic": 0.25}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SpectralBounds:
    """What a recurrent matrix alone says about h ← φ(W h + …), in nats per step.

    log_norm: ln(‖W‖₂ γ). A bound: ln ‖∂h_T/∂h_{T−k}‖₂ ≤ k · log_norm, whatever the input.
    log_radius: ln(ρ(W) γ). *Not* a bound, at any finite k: a nilpotent W has −inf here, and its
        gradients can double for N − 1 steps. With constant slopes γ it is the rate as k → ∞.
    """

    log_norm: Float[Array, "*batch"]
    log_radius: Float[Array, "*batch"]


def spectral_bounds(W: Float[Array, "*batch H H"], activation: str = "tanh") -> SpectralBounds:
    """ln(‖W‖₂ γ) and ln(ρ(W) γ) of a recurrent matrix; γ = 1 for tanh and relu, ¼ for logistic.

    The bound is that of Pascanu, Mikolov and Bengio 2013 (1211.5063). −inf for W = 0.
    """
    if activation not in LARGEST_SLOPES:
        names = ", ".join(map(repr, LARGEST_SLOPES))
        raise ValueError(f"activation must be one of {names}, got {activation!r}")
    return _spectral_bounds(W, math.log(LARGEST_SLOPES[activation]))


@functools.partial(jax.jit, static_argnums=1)
@functools.partial(jnp.vectorize, signature="(n,n)->(),()", excluded=(1,))
def _norms(W, log_slope):
    matrix, exponent = rescale(W, jnp.zeros((), jnp.int32))
    radius = jnp.max(jnp.abs(jnp.linalg.eigvals(matrix)), initial=0)
    norms = (top_singular_value(matrix), radius)
    return tuple(log_scaled(value, exponent) + log_slope for value in norms)


def _spectral_bounds(W: Array, log_slope: float) -> SpectralBounds:
    with jax.default_matmul_precision("highest"):
        return SpectralBounds(*_norms(W, log_slope))


def critical_gain(cell: Any, *, forget_bias: Number = 0.0) -> Float[Array, "*shape"]:
    """The gain of the recurrent matrices at which the zero fixed point loses its stability.

    Without input and biases h = 0 stays 0. Each recurrent matrix has its eigenvalues in the disk
    of radius g (entries N(0, g²/H), H → ∞), and the Jacobian at 0 has, for every μ of the matrix
    of the candidate, the eigenvalue

        Elman (tanh, identity)   μ                                    critical g = 1
        GRU, in all its forms    (1 − z) + z r μ = ½ + ¼ μ            critical g = 2
        LSTM over (h, c)         f + i o μ = σ(b_f) + ¼ μ, and 0      critical g = 4 (1 − σ(b_f))

    so that a forget bias lowers the critical gain. forget_bias: b_f of an LSTM.
    """
    bias = jnp.asarray(forget_bias)
    if isinstance(cell, LSTM):
        return 4 * jax.nn.sigmoid(-bias)
    if isinstance(cell, GRU):
        return jnp.full_like(bias, 2)
    if isinstance(cell, Elman) and cell.activation in ("tanh", "identity"):
        return jnp.ones_like(bias)
    raise TypeError(
        f"no closed form for {cell!r}, only for Elman (tanh, identity), GRU and LSTM: "
        "measure it with jaxrnn.analysis.edge_of_chaos"
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MeanField:
    """The random tanh network of infinite size.

    gain, input_variance: g and s², as given.
    q: variance of a unit's h.
    exponent: largest Lyapunov exponent λ₁, nats per step; −inf at gain 0.
    """

    gain: Float[Array, "*shape"]
    input_variance: Float[Array, "*shape"]
    q: Float[Array, "*shape"]
    exponent: Float[Array, "*shape"]


def mean_field(gain: Number, input_variance: Number = 0.0) -> MeanField:
    """Variance and largest Lyapunov exponent of h ← J tanh(h) + input, J ~ N(0, g²/N), N → ∞.

        q  = g² E tanh²(√q z) + s²,    z ~ N(0, 1)
        λ₁ = ½ ln(g² E sech⁴(√q z))

    The input is white, N(0, s²) for every unit and step. Of several q the largest, the stable one.
    Without input λ₁ = ln g up to g = 1, and about ⅔ (g − 1)² just above: chaos sets in at 1, as in
    continuous time (Sompolinsky, Crisanti and Sommers 1988). Input moves that up (Molgedey,
    Schuchhardt and Schuster 1992). Differentiable once in both arguments, which broadcast.

    Exact to rounding for √q up to about 30 (gains up to about 30), after which the quadrature
    errs by exp(−1100/√q). At the transition itself, g = 1 and s = 0, q comes out near √ε, not 0.
    """
    given = (gain, input_variance)
    dtypes = [getattr(a, "dtype", None) for a in given]
    dtype = dtypes[0] or dtypes[1] or jnp.result_type(float)
    gain, variance = jnp.broadcast_arrays(*(jnp.asarray(a, dtype) for a in given))
    return _mean_field(gain, variance)


@jax.jit
def _mean_field(gain: Float[Array, "*shape"], variance: Float[Array, "*shape"]) -> MeanField:
    z, weight = _half_normal(gain.dtype)

    def excess(q):
        # sums, not matrix products: those may be rounded to fewer digits
        square = jnp.tanh(jnp.sqrt(q + 1e-30)[..., None] * z) ** 2
        mean = jnp.sum(square * weight, axis=-1)
        # by Stein's lemma d/dq E f(√q z) = ½ E f''(√q z)
        bend = jnp.sum((1 - square) * (1 - 3 * square) * weight, axis=-1)
        slope = jnp.minimum(gain**2 * bend - 1, -jnp.finfo(gain.dtype).eps)
        return gain**2 * mean + variance - q, jax.lax.stop_gradient(slope), square

    def newton(_, q):
        # the excess is concave in q: from the right every step stays right of the root
        value, slope, _ = excess(q)
        return jnp.maximum(q - value / slope, 0)

    start = jax.lax.stop_gradient(gain**2 + variance)
    q = jax.lax.stop_gradient(jax.lax.fori_loop(0, 64, newton, start))
    # one more step, which carries the derivative of the implicit function
    q = newton(0, q)
    square = excess(q)[2]
    slopes = jnp.sum((1 - square) ** 2 * weight, axis=-1)
    return MeanField(gain, variance, q, jnp.log(jnp.abs(gain)) + 0.5 * jnp.log(slopes))


@functools.cache
def _half_normal_points(count: int = 1024, end: float = 9.0) -> tuple[np.ndarray, np.ndarray]:
    # trapezoids on the half line, exact to exp(−2π d/step) for a strip of analyticity of width d.
    # tanh(√q z) has d = π/2√q, on which Gauss-Hermite nodes, wide apart, founder
    z = np.linspace(0.0, end, count)
    weight = np.exp(-0.5 * z**2)
    weight[0] /= 2
    return z, weight / weight.sum()


def _half_normal(dtype: DTypeLike) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    z, weight = _half_normal_points()
    return jnp.asarray(z, dtype), jnp.asarray(weight, dtype)


def newman_spectrum(N: int, sigma: Number = 1.0) -> Float[Array, "*shape N"]:
    """Lyapunov exponents of products of iid N × N matrices with entries N(0, σ²/N), descending.

        λ_i = ½ [ln(2σ²/N) + ψ((N − i + 1)/2)],   i = 1 … N

    Newman 1986, Communications in Mathematical Physics 103; exact for every N.
    """
    sigma = jnp.asarray(sigma)[..., None]
    half = jnp.arange(N, 0, -1, dtype=sigma.dtype) / 2
    return jnp.log(sigma) + 0.5 * (math.log(2 / N) + jax.scipy.special.digamma(half))


def chrono_time_constants(longest: Number, units: int) -> Float[Array, "*shape units"]:
    """Time constants of LSTM units under `initializers.Chrono(longest)`, ascending, in steps.

    b_f = ln u with u ~ U(1, longest − 1), so that with zero input and carry f = u/(1 + u) and
    τ = −1/ln f = 1/ln(1 + 1/u), which rises with u: returned are the quantiles (i − ½)/units.
    A unit with u = T − 1 keeps f = 1 − 1/T, and has τ = T − ½ − 1/(12 T) + O(T⁻²). Means over
    units exceed neither end: from 1/ln 2 ≈ 1.44 to about longest − ½.
    """
    longest = jnp.asarray(longest)[..., None]
    quantile = (jnp.arange(units, dtype=longest.dtype) + 0.5) / units
    return 1 / jnp.log1p(1 / (1 + quantile * (longest - 2)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DeterminantSplit:
    """ln|det J_t| of an Elman network, in nats, split exactly into its two causes.

    log_det_recurrent: ln|det W_h|, the same at every step.
    log_slopes: Σ_i ln φ'(a_{t,i}): what the bending of φ takes away; 0 at padding.
    log_det: their sum, ln|det J_t|; its mean over steps is the sum of all Lyapunov exponents.
        0 at padding, where J is the identity; −inf at a reset, where it is 0.
    """

    log_det_recurrent: Float[Array, "*mapped"]
    log_slopes: Float[Array, "*batch T"]
    log_det: Float[Array, "*batch T"]


def determinant_split(
    cell: Any,
    params: PyTree,
    xs: PyTree,
    *,
    carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | Any = None,
    resets: Bool[Array, "*batch T"] | Any = None,
    reverse: bool = False,
    method: Method | None = None,
    key: Array | None = None,
    start: int | Array = 0,
) -> DeterminantSplit:
    """ln|det J_t| = ln|det W_h| + Σ_i ln φ'(a_{t,i}) along a trajectory, for `Elman` alone.

    Slopes are taken in logarithms, so that a saturated tanh counts −2|a|, not −inf. One LU of W_h
    in all and a step of the cell at each t. Options as for `jaxrnn.unroll`.
    """
    if not isinstance(cell, Elman):
        raise TypeError(
            f"the split is that of J = diag(φ'(a)) W_h, which {type(cell).__name__} does not have: "
            "pass an Elman"
        )
    options = dict(carry=carry, lengths=lengths, resets=resets, reverse=reverse, key=key)
    sequences = check_steps(cell, params, xs, start=start, **options)
    return _determinant_split(cell, bool(reverse), method, params, sequences)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _determinant_split(cell, reverse, method, params, sequences):
    of_W = jnp.linalg.slogdet(params.W_h)[1]
    one = functools.partial(_slopes, cell, params, reverse, of_W)
    slopes, whole = over_batch(one, cell, params, sequences, reverse=reverse, method=method)
    return DeterminantSplit(of_W, slopes, whole)


def _slopes(
    cell: Any, params: PyTree, reverse: bool, of_W: Float[Array, ""], walk: Walk
) -> tuple[Float[Array, " T"], Float[Array, " T"]]:
    def at(before, moment):
        fresh = moment.fresh
        before = before if fresh is None else select(fresh, walk.initial, before)
        a = cell.gates(params, before, moment.x).pre_activation
        slopes = jnp.sum(_log_slope(cell.activation, a))
        whole = slopes + of_W if fresh is None else jnp.where(fresh, -jnp.inf, slopes + of_W)
        pair = jnp.stack([slopes, whole])
        return pair if moment.real is None else jnp.where(moment.real, pair, 0)

    pairs = jax.vmap(at)(walk.befores, walk.moments)
    pairs = pairs[::-1] if reverse else pairs
    return pairs[:, 0], pairs[:, 1]


def _log_slope(activation: Any, a: Float[Array, " H"]) -> Float[Array, " H"]:
    size = jnp.abs(a)
    if activation == "tanh":
        return 2 * (math.log(2) - size - jnp.log1p(jnp.exp(-2 * size)))
    if activation == "logistic":
        return -size - 2 * jnp.log1p(jnp.exp(-size))
    phi = activation if callable(activation) else ACTIVATIONS[activation]
    slope = jnp.abs(jax.jvp(phi, (a,), (jnp.ones_like(a),))[1])
    return log_scaled(slope, jnp.zeros(a.shape, jnp.int32))
