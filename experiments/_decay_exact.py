"""Table 1 of `gradient_decay`: what is known exactly, beside what the library measures.

No measured value is written down here: each is computed through `unroll`, `jax.grad` and
`jaxrnn.analysis`, on networks so small that the answer can be had with pencil and paper.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import jaxrnn
from experiments._common import side_by_side
from jaxrnn.analysis import gradient_decay, step_jacobians
from jaxrnn.cells import ElmanParams

FLOAT = jnp.float32


class Fact(NamedTuple):
    """A claim with its exact value, what was measured, and whether the two agree."""

    claim: str
    exact: str
    measured: str
    holds: bool


def facts() -> list[Fact]:
    """All rows of the table."""
    claims = (half_to_the_thirty, explosion, relu, orthogonal, by_hand, wrong_order)
    return [fact for found in side_by_side(lambda claim: list(claim()), claims) for fact in found]


def elman(W_h: Array | np.ndarray, W_x: Array | None = None, activation: str = "tanh"):
    """An Elman network without bias, and its parameters."""
    H = len(W_h)
    W_h = jnp.asarray(W_h, FLOAT)
    W_x = jnp.zeros((H, 1), FLOAT) if W_x is None else W_x
    cell = jaxrnn.Elman(W_x.shape[1], H, activation=activation, biases=0)
    return cell, ElmanParams(W_x, W_h, None, None, None)


def half_to_the_thirty() -> Iterator[Fact]:
    """A tanh unit with W = 0.5: at lag 30, from the first input, and away from zero."""
    cell, params = elman(np.array([[0.5]]), W_x=jnp.ones((1, 1), FLOAT))
    xs = jnp.zeros((30, 1), FLOAT)
    yield _equal(
        "tanh unit, W = 0.5, at h = 0: |∂h_T/∂h_(T−30)| = 0.5³⁰", 0.5**30, _growth(cell, params, xs)
    )

    def last(xs):
        return jaxrnn.unroll(cell, params, xs)[0].h[0]

    from_first = jnp.abs(jax.grad(last)(xs)[0, 0])
    yield _equal("… from x_1 to h_30, 29 recurrent factors: 0.5²⁹", 0.5**29, from_first)
    driven = jax.random.normal(jax.random.key(0), (30, 1), FLOAT)
    measured = float(_growth(cell, params, driven))
    claim = "… and less as soon as a state is not 0 (input std 1)"
    yield Fact(claim, f"< {0.5**30:.3g}", f"{measured:.3g}", 0 < measured < 0.5**30)


def explosion() -> Iterator[Fact]:
    """A linear unit with W = 1.5."""
    cell, params = elman(np.array([[1.5]]), activation="identity")
    measured = _growth(cell, params, jnp.zeros((20, 1), FLOAT))
    yield _equal("linear unit, W = 1.5: 20 steps give 1.5²⁰", 1.5**20, measured)


def relu(scale: float = 1.1, units: int = 4, steps: int = 30) -> Iterator[Fact]:
    """W_h = s·I while every unit is active: carry and gradient grow alike."""
    cell, params = elman(scale * np.eye(units), activation="relu")
    xs, start = jnp.zeros((steps, 1), FLOAT), jaxrnn.ElmanCarry(jnp.ones(units, FLOAT))
    carry, _ = jaxrnn.unroll(cell, params, xs, carry=start)
    claim = f"ReLU, W_h = {scale}·I, from h = 1: after {steps} steps"
    yield _equal(f"{claim} the carry is s³⁰", scale**steps, jnp.max(carry.h))
    yield _equal(f"{claim} the gradient is s³⁰", scale**steps, _growth(cell, params, xs, start))


def orthogonal(units: int = 16, steps: int = 1000) -> Iterator[Fact]:
    """A linear network with orthogonal W_h: every singular value stays 1."""
    draw = jax.nn.initializers.orthogonal()
    cell, params = elman(draw(jax.random.key(1), (units, units), FLOAT), activation="identity")
    decay = gradient_decay(cell, params, jnp.zeros((steps, 1), FLOAT))
    # largest and root-mean-square singular value both 1: then all are
    mean_square = np.asarray(decay.log_frobenius_norm) - 0.5 * np.log(units)
    off = float(np.max(np.abs([np.asarray(decay.log_spectral_norm), mean_square])))
    claim = f"linear, W_h orthogonal ({units} units): every ln σ up to lag {steps} is 0"
    yield Fact(claim, "0", f"|ln σ| ≤ {off:.1e}", off < 1e-3)


def by_hand(units: int = 6, steps: int = 12) -> Iterator[Fact]:
    """Backpropagation through time, twice by hand, against `jax.grad`."""
    net = jaxrnn.Readout(jaxrnn.Elman(3, units, learned_carry=True), 2)
    params = jax.jit(net.init)(jax.random.key(2))
    draw = np.random.default_rng(2)
    xs, targets = draw.normal(size=(steps, 3)), draw.normal(size=(steps, 2))
    h_0 = jaxrnn.ElmanCarry(jnp.asarray(draw.normal(size=units), FLOAT))
    params = params._replace(network=params.network._replace(initial=h_0))
    xs, targets = jnp.asarray(xs, FLOAT), jnp.asarray(targets, FLOAT)

    def loss(params, xs):
        return 0.5 * jnp.sum((jaxrnn.unroll(net, params, xs)[1] - targets) ** 2)

    got, got_x = jax.tree.map(np.asarray, jax.jit(jax.grad(loss, (0, 1)))(params, xs))
    wanted = {
        "W_h": got.network.W_h,
        "W_x": got.network.W_x,
        "b": got.network.b,
        "h_0": got.network.initial.h,
        "x": got_x,
        "W_y": got.W,
    }
    claims = {
        "recursion δ_t = ∂L_t/∂h_t + δ_(t+1) J_(t+1)": _recursion,
        "double sum Σ_t Σ_k ∂L_t/∂h_t · ∂h_t/∂h_k · ∂⁺h_k/∂θ": _double_sum,
    }
    for claim, compute in claims.items():
        ours = _gradients(_forward(params, xs, targets), compute)
        off = max(float(np.max(np.abs(ours[k] - w)) / np.max(np.abs(w))) for k, w in wanted.items())
        text = f"BPTT by {claim} = jax.grad for {', '.join(wanted)}"
        yield Fact(text, "0", f"max |Δ|/max |grad| = {off:.1e}", off < 1e-5)


def _forward(params, xs: Array, targets: Array) -> tuple:
    # float64 NumPy from here on: nothing of JAX is used to differentiate by hand
    net = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    x, target = np.asarray(xs, np.float64), np.asarray(targets, np.float64)
    hs = [net.network.initial.h]
    for x_t in x:
        hs.append(np.tanh(net.network.W_x @ x_t + net.network.W_h @ hs[-1] + net.network.b))
    h = np.stack(hs)
    slopes = 1 - h[1:] ** 2
    jacobians = slopes[:, :, None] * net.network.W_h
    error = h[1:] @ net.W.T + net.b - target
    return net, x, h, slopes, jacobians, error


def _recursion(jacobians: np.ndarray, direct: np.ndarray) -> np.ndarray:
    # δ_k = dL/dh_k for k = 0…T, from the newest step to the oldest
    delta = np.zeros((len(direct) + 1, direct.shape[1]))
    delta[-1] = direct[-1]
    for t in range(len(direct) - 1, -1, -1):
        delta[t] = delta[t + 1] @ jacobians[t]
        if t > 0:
            delta[t] += direct[t - 1]
    return delta


def _double_sum(jacobians: np.ndarray, direct: np.ndarray) -> np.ndarray:
    # every pair k ≤ t on its own, each with its own ordered product of t − k Jacobians
    T = len(direct)
    delta = np.zeros((T + 1, direct.shape[1]))
    for t in range(1, T + 1):
        for k in range(t + 1):
            product = np.eye(direct.shape[1])
            for s in range(k + 1, t + 1):
                product = jacobians[s - 1] @ product
            delta[k] += direct[t - 1] @ product
    return delta


def _gradients(forward: tuple, compute: Callable) -> dict[str, np.ndarray]:
    net, x, h, slopes, jacobians, error = forward
    delta = compute(jacobians, error @ net.W)
    before = delta[1:] * slopes
    return {
        "W_h": before.T @ h[:-1],
        "W_x": before.T @ x,
        "b": before.sum(axis=0),
        "h_0": delta[0],
        "x": before @ net.network.W_x,
        "W_y": error.T @ h[1:],
    }


def wrong_order(units: int = 64, lag: int = 50, draws: int = 8) -> Iterator[Fact]:
    """The product of the same Jacobians, oldest on the left: right size, wrong direction."""
    cell = jaxrnn.Elman(units, units)

    @jax.jit
    @jax.vmap
    def jacobians(key):
        k_params, k_xs = jax.random.split(key)
        xs = jax.random.normal(k_xs, (lag, units), FLOAT)
        return step_jacobians(cell, cell.init(k_params), xs)

    chains = np.asarray(jacobians(jax.random.split(jax.random.key(3), draws)), np.float64)
    pairs = np.array([_compare(_product(chain), _product(chain[::-1])) for chain in chains])
    off, cosine = np.median(pairs, axis=0)
    claim = f"{lag} Jacobians in the wrong order: norm about right, direction wrong (H = {units})"
    measured = f"ln‖·‖ {off:.1%} off, cosine {cosine:.2f} (median of {draws})"
    yield Fact(claim, "cosine ≪ 1", measured, bool(off < 0.1 and cosine < 0.3))


def _product(chain: np.ndarray) -> np.ndarray:
    product = np.eye(chain.shape[-1])
    for jacobian in chain:
        product = jacobian @ product
    return product


def _compare(right: np.ndarray, wrong: np.ndarray) -> tuple[float, float]:
    norms = np.linalg.norm(right), np.linalg.norm(wrong)
    off = abs(np.log(norms[1]) / np.log(norms[0]) - 1)
    return float(off), float(abs(np.sum(right * wrong)) / (norms[0] * norms[1]))


def _growth(cell, params, xs: Array, carry=None) -> Float[Array, ""]:
    # root-mean-square singular value over all steps: for one unit, and for s·I, it is σ_max
    decay = gradient_decay(cell, params, xs, carry=carry, spectral="none")
    return jnp.exp(decay.log_frobenius_norm[-1]) / math.sqrt(len(params.W_h))


def _equal(claim: str, exact: float, measured: Float[Array, ""]) -> Fact:
    value = float(measured)
    return Fact(claim, f"{exact:.6g}", f"{value:.6g}", abs(value / exact - 1) < 1e-4)
