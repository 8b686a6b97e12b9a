"""The small linear networks of `spectral_bounds`, whose rates are known with pencil and paper."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import analysis


def log(values: np.ndarray) -> np.ndarray:
    """ln, −∞ for 0."""
    with np.errstate(divide="ignore"):
        return np.log(values)


def _mix(params: jax.Array, carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    # x picks one of several matrices
    after = jnp.tensordot(x, params, 1) @ carry
    return after, after


def _nothing(params: jax.Array) -> jax.Array:
    return jnp.zeros(params.shape[-1], params.dtype)


class Toy(NamedTuple):
    """Matrices taken in turn, and the rate that pencil and paper give."""

    label: str
    matrices: np.ndarray
    rate: float


def toys(seed: int = 0) -> list[Toy]:
    """Linear networks h_t = A_t h_{t−1} that part norms, eigenvalues and growth from each other."""
    random = np.random.default_rng(seed).normal(size=(16, 16))
    radius = np.abs(np.linalg.eigvals(random)).max()
    rotation = np.linalg.qr(random)[0]
    up, down = np.array([[0.0, 2.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [2.0, 0.0]])
    big, small = np.diag([2.0, 0.1]), np.diag([0.1, 2.0])
    return [
        Toy("1.05 × orthogonal", 1.05 * rotation[None], math.log(1.05)),
        Toy("random, radius 1.05", 1.05 / radius * random[None], math.log(1.05)),
        Toy("random, radius 0.95", 0.95 / radius * random[None], math.log(0.95)),
        Toy("nilpotent, 16 units", 2 * np.eye(16, k=1)[None], math.log(2)),
        Toy("two nilpotent in turn", np.stack([up, down]), math.log(2)),
        Toy("eigenvalue 2, two in turn", np.stack([big, small]), math.log(0.2) / 2),
    ]


def measure(toy: Toy, steps: int = 100) -> dict:
    """The curve that the library measures, and norms and radii of the single steps."""
    with jax.enable_x64(True):
        cell = jaxrnn.as_cell(_mix, _nothing)
        xs = jnp.asarray(np.eye(len(toy.matrices))[np.arange(steps) % len(toy.matrices)])
        decay = analysis.gradient_decay(cell, jnp.asarray(toy.matrices), xs)
    return dict(
        label=toy.label,
        log_sigma=log(np.linalg.norm(toy.matrices, 2, axis=(-2, -1))).max(),
        log_rho=log(np.abs(np.linalg.eigvals(toy.matrices)).max(-1)).max(),
        constant=len(toy.matrices) == 1,
        expected=toy.rate,
        rate=float(decay.rate),
        log_norm=np.asarray(decay.log_spectral_norm),
    )
