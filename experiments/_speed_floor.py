"""The matrix products of a recurrent network, and nothing else.

At every step x and h are multiplied by matrices that lie (K, N) in memory; there are no biases, no
activations, no outputs. For a training step, the way back and the two products that give the
gradients of the matrices follow. It is a floor for these products in this order and layout: who
multiplies all x at once, or by columns, may come out below it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments._speed_cases import Case
from experiments._speed_clock import Runner, compiled

NAME = "matrix products"


class Matrices(NamedTuple):
    """W (I, G·H) and U (H, G·H), by which a step multiplies; V (G·H, H) on the way back."""

    W: Array
    U: Array
    V: Array


class Sequences(NamedTuple):
    """What is multiplied, time first: x (T, B, I), h (T, B, H) and δ (T, B, G·H)."""

    xs: Array
    hs: Array
    deltas: Array


def runner(case: Case, task: str, seed: int) -> Runner:
    """The floor of a forward pass or of a training step."""
    arguments = draw(case, seed)
    return compiled(NAME, "floor", forward if task == "forward" else training, *arguments)


def draw(case: Case, seed: int) -> tuple[Matrices, Sequences]:
    """Numbers at which neither overflow nor denormals disturb: h stays about as large as x."""
    _, B, T, I, H = case
    wide = case.gates * H
    sizes = dict(W=(I, wide), U=(H, wide), V=(wide, H), xs=(T, B, I), hs=(T, B, H))
    sizes["deltas"] = (T, B, wide)
    rng = np.random.default_rng(seed)
    drawn = {name: rng.standard_normal(size, np.float32) for name, size in sizes.items()}
    for name in "WUV":
        drawn[name] *= np.float32(0.5 / sizes[name][0] ** 0.5)
    arrays = {name: jnp.asarray(a) for name, a in drawn.items()}
    return Matrices(*(arrays.pop(name) for name in "WUV")), Sequences(**arrays)


def forward(matrices: Matrices, sequences: Sequences) -> Array:
    """x W and h U at every step."""
    H = matrices.U.shape[0]

    def body(h: Array, x: Array) -> tuple[Array, None]:
        # the next h takes H columns of both products, or nothing would keep the loop from
        # dropping them; behind a barrier, or only those columns would be computed
        a, b = jax.lax.optimization_barrier((x @ matrices.W, h @ matrices.U))
        return a[:, :H] + b[:, :H], None

    return jax.lax.scan(body, sequences.hs[0], sequences.xs)[0]


def training(matrices: Matrices, sequences: Sequences) -> tuple[Array, ...]:
    """The same, then δ V at every step of the way back, then xᵀδ and hᵀδ over all T·B rows."""
    xs, hs, deltas = sequences

    def body(total: Array, delta: Array) -> tuple[Array, None]:
        return total + delta @ matrices.V, None

    back, _ = jax.lax.scan(body, jnp.zeros_like(hs[0]), deltas, reverse=True)
    return forward(matrices, sequences), back, _outer(xs, deltas), _outer(hs, deltas)


def _outer(v: Array, deltas: Array) -> Array:
    # the smaller factor is transposed on its own: XLA on a CPU is fastest this way
    rows = jax.lax.optimization_barrier(v.reshape(-1, v.shape[-1]).T)
    return rows @ deltas.reshape(-1, deltas.shape[-1])


def operations(case: Case, task: str) -> int:
    """Additions and multiplications of the floor."""
    _, B, T, I, H = case
    wide = case.gates * H
    once = 2 * B * T * (I + H) * wide
    return once if task == "forward" else 2 * once + 2 * B * T * H * wide
