"""Cells that are dynamical systems, from their papers."""

import functools

import numpy as np

from jaxrnn.cells.antisymmetric import Antisymmetric, GatedAntisymmetric
from jaxrnn.cells.cornn import CoRNN
from jaxrnn.cells.indrnn import IndRNN
from jaxrnn.cells.leaky import Leaky
from jaxrnn.cells.lem import LEM
from jaxrnn.cells.lipschitz import Lipschitz
from jaxrnn.cells.low_rank import LowRank
from jaxrnn.cells.orthogonal_rnn import OrthogonalRNN
from jaxrnn.cells.reservoir import Reservoir
from jaxrnn.cells.taugru import TauGRU
from jaxrnn.cells.unicornn import UnICORNN
from jaxrnn.cells.unitary_rnn import UnitaryRNN
from papers import H, I, Row, logistic, relu


def leaky_step(params, carry, x):
    """Song et al. 2016, τ v' = −v + W φ(v) + W_x x + b with φ = relu; four excitatory of five."""
    dt, tau = 1.0, 5.0
    W = np.abs(params.W_h) @ np.diag([1, 1, -1, 1])
    W = W * np.array([[1, 1, 0, 1], [0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 0]])
    v = carry.h
    v = v + dt / tau * (-v + W @ relu(v) + params.W_x @ x + params.b)
    return carry._replace(h=v), relu(v)


def leaky_rate_step(params, carry, x):
    """τ r' = −r + φ(W r + W_x x + b), a τ for each unit, connections where the mask is above 0."""
    dt, tau = 2.0, np.array([4.0, 5.0, 2.0, 8.0])
    W = np.where(params.mask > 0, params.W_h, 0)
    r = carry.h
    r = r + dt / tau * (-r + np.tanh(W @ r + params.W_x @ x + params.b + params.b_h))
    return carry._replace(h=r), r


def leaky_learned_step(params, carry, x):
    """1/τ = σ(leak), and Dale's law with half of the units excitatory."""
    W = np.abs(params.W_h) * np.array([1, 1, -1, -1])
    v, alpha = carry.h, logistic(params.leak)
    v = v + alpha * (-v + W @ np.tanh(v) + params.W_x @ x + params.b)
    return carry._replace(h=v), np.tanh(v)


def low_rank_step(params, carry, x):
    """Dubreuil et al. 2022: the matrix is written out, a sum of outer products over H."""
    W = sum(np.outer(m, n) for m, n in zip(params.M.T, params.N.T, strict=True)) / len(carry.h)
    v = carry.h
    v = v + 0.1 * (-v + W @ np.tanh(v) + params.W_x @ x + params.b)
    return carry._replace(h=v), np.tanh(v)


def antisymmetric(M, gamma):
    return M - M.T - gamma * np.eye(len(M))


def antisymmetric_step(params, carry, x):
    """Chang et al. 2019, h_t = h_{t-1} + ε tanh((W − Wᵀ − γ I) h_{t-1} + V x_t + b)."""
    (W,), (V,), (b,), (b_h,) = params.W_h, params.W_x, params.b, params.b_h
    h = carry.h + 0.3 * np.tanh(antisymmetric(W, 0.2) @ carry.h + V @ x + b + b_h)
    return carry._replace(h=h), h


def gated_antisymmetric_step(params, carry, x):
    """Chang et al. 2019: V_z, V_h and b_z, b_h are the two blocks; the matrix of h is shared."""
    (V_z, V_h), (b_z, b_h) = params.W_x, params.b
    M = antisymmetric(params.W_h[0], 0.01)
    z = logistic(M @ carry.h + V_z @ x + b_z)
    h = carry.h + 0.01 * z * np.tanh(M @ carry.h + V_h @ x + b_h)
    return carry._replace(h=h), h


def cornn_step(params, carry, x, implicit=False):
    """Rusch and Mishra 2021, with n̄ = n if implicit and n̄ = n − 1 if not."""
    dt, gamma, epsilon = 0.2, 1.3, 0.7
    (W, W_cal), (V,), (b,) = params.W_h, params.W_x, params.b
    y, z = carry.y, carry.z
    sigma = np.tanh(W @ y + W_cal @ z + V @ x + b)
    if implicit:
        system = np.eye(len(z)) * (1 + dt * epsilon)
        z = np.linalg.solve(system, z + dt * sigma - dt * gamma * y)
    else:
        z = z + dt * sigma - dt * gamma * y - dt * epsilon * z
    y = y + dt * z
    return carry._replace(y=y, z=z), y


def unicornn_step(params, carry, x):
    """Rusch and Mishra 2021b, with σ̂(u) = 1/2 + tanh(u/2)/2."""
    dt, alpha = 0.4, 1.5
    own = dt * (0.5 + 0.5 * np.tanh(params.c / 2))
    y, z = carry.y, carry.z
    z = z - own * (np.tanh(params.w * y + params.W_x @ x + params.b) + alpha * y)
    y = y + own * z
    return carry._replace(y=y, z=z), y


def lem_step(params, carry, x):
    """Rusch et al. 2022, with σ̂(u) = 1/2 + tanh(u/2)/2; Δt̄ is that of y."""
    (V_2, V_1, V_z, V_y), (W_2, W_1, W_z, W_y) = params.W_x, params.W_h
    b_2, b_1, b_z, b_y = params.b + params.b_h
    y, z = carry.y, carry.z
    dt = 0.6 * (0.5 + 0.5 * np.tanh((W_1 @ y + V_1 @ x + b_1) / 2))
    dt_bar = 0.6 * (0.5 + 0.5 * np.tanh((W_2 @ y + V_2 @ x + b_2) / 2))
    z = (1 - dt) * z + dt * np.tanh(W_z @ y + V_z @ x + b_z)
    y = (1 - dt_bar) * y + dt_bar * np.tanh(W_y @ z + V_y @ x + b_y)
    return carry._replace(y=y, z=z), y


def taugru_step(params, carry, x):
    """Erichson et al. 2022: u, g, a read h_n, and z reads h_l, l = n − delay."""
    (W_1, W_3, W_4, W_2), (U_1, U_3, U_4, U_2) = params.W_h, params.W_x
    b_1, b_3, b_4, b_2 = params.b
    history = [*carry.past, carry.h]
    h, delayed = history[-1], history[0]
    u = np.tanh(W_1 @ h + U_1 @ x + b_1)
    z = np.tanh(W_2 @ delayed + U_2 @ x + b_2)
    g = logistic(W_3 @ h + U_3 @ x + b_3)
    a = logistic(W_4 @ h + U_4 @ x + b_4)
    h = (1 - g) * h + g * (u + a * z)
    return type(carry)(h, np.array(history[1:])), h


def lipschitz_step(params, carry, x):
    """Erichson et al. 2021, with other β and γ for A than for W."""
    (M_A, M_W), (U,), (b,) = params.W_h, params.W_x, params.b
    eye = np.eye(len(M_A))
    A = 0.4 * (M_A + M_A.T) + 0.6 * (M_A - M_A.T) - 0.02 * eye
    W = 0.1 * (M_W + M_W.T) + 0.9 * (M_W - M_W.T) - 0.05 * eye
    h = carry.h + 0.2 * (A @ carry.h + np.tanh(W @ carry.h + U @ x + b))
    return carry._replace(h=h), h


def indrnn_step(params, carry, x):
    """Li et al. 2018, h_t = σ(W x_t + u ⊙ h_{t-1} + b), unit by unit."""
    units = zip(params.W_x, params.u, carry.h, params.b, strict=True)
    h = np.array([np.tanh(w @ x + u * old + b) for w, u, old, b in units])
    return carry._replace(h=h), h


def orthogonal(params, H):
    """exp of a skew-symmetric matrix, from the eigenvectors of a Hermitian one."""
    A = np.zeros((H, H))
    entries = iter(params.skew)
    for i in range(H):
        for j in range(i + 1, H):
            A[i, j] = next(entries)
            A[j, i] = -A[i, j]
    angles, vectors = np.linalg.eigh(1j * A)
    B = np.real(vectors @ np.diag(np.exp(-1j * angles)) @ vectors.conj().T)
    assert np.allclose(B.T @ B, np.eye(H))
    return B


def orthogonal_modrelu_step(params, carry, x):
    """Lezcano-Casado and Martínez-Rubio 2019, h_t = modReLU(exp(A) h_{t-1} + T x_t)."""
    a = orthogonal(params, len(carry.h)) @ carry.h + params.W_x @ x
    h = np.sign(a) * relu(np.abs(a) + params.b)
    return carry._replace(h=h), h


def orthogonal_tanh_step(params, carry, x):
    """The same with tanh, without a bias."""
    h = np.tanh(orthogonal(params, len(carry.h)) @ carry.h + params.W_x @ x)
    return carry._replace(h=h), h


def unitary_step(params, carry, x):
    """Arjovsky et al. 2016, every factor of W = D_3 R_2 F⁻¹ D_2 Π R_1 F D_1 as a matrix."""
    n = len(carry.h)
    D_1, D_2, D_3 = (np.diag(np.exp(1j * w)) for w in params.angles)
    v_1, v_2 = params.reflections[0] + 1j * params.reflections[1]
    R_1, R_2 = (np.eye(n) - 2 * np.outer(v, v.conj()) / (v.conj() @ v) for v in (v_1, v_2))
    k = np.arange(n)
    F = np.exp(-2j * np.pi * np.outer(k, k) / n) / np.sqrt(n)
    Pi = np.eye(n)[np.random.RandomState(3).permutation(n)]
    W = D_3 @ R_2 @ F.conj().T @ D_2 @ Pi @ R_1 @ F @ D_1
    assert np.allclose(W.conj().T @ W, np.eye(n))
    V = params.W_x[0] + 1j * params.W_x[1]
    z = W @ carry.h + V @ x
    h = relu(np.abs(z) + params.b) * np.exp(1j * np.angle(z))
    return carry._replace(h=h), np.concatenate([np.real(h), np.imag(h)])


def reservoir_step(params, carry, x):
    """Jaeger et al. 2007, x(n+1) = (1 − a γ) x(n) + γ tanh(W_in u(n+1) + W x(n) + b), a = 1."""
    (W,), (W_in,), (b,) = params.W_h, params.W_x, params.b
    h = 0.7 * carry.h + 0.3 * np.tanh(W_in @ x + W @ carry.h + b)
    return carry._replace(h=h), h


ROWS: dict[str, Row] = {
    "leaky": Row(
        Leaky(
            I,
            H,
            "relu",
            tau=5.0,
            signs=(1, 1, -1, 1),
            mask=((1, 1, 0, 1), (0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 1, 0)),
        ),
        leaky_step,
    ),
    "leaky-rate": Row(
        Leaky(
            I, H, carries="rate", dt=2.0, tau=(4.0, 5.0, 2.0, 8.0), mask=0.7, noise=0.3, biases=2
        ),
        leaky_rate_step,
    ),
    "leaky-learned": Row(
        Leaky(I, H, learned_tau=True, signs=0.5, learned_carry=True), leaky_learned_step
    ),
    "low-rank": Row(LowRank(I, H, rank=2), low_rank_step),
    "antisymmetric": Row(Antisymmetric(I, H, epsilon=0.3, gamma=0.2, biases=2), antisymmetric_step),
    "gated-antisymmetric": Row(GatedAntisymmetric(I, H), gated_antisymmetric_step),
    "cornn": Row(CoRNN(I, H, dt=0.2, gamma=1.3, epsilon=0.7), cornn_step),
    "cornn-implicit": Row(
        CoRNN(I, H, "implicit", dt=0.2, gamma=1.3, epsilon=0.7),
        functools.partial(cornn_step, implicit=True),
    ),
    "unicornn": Row(UnICORNN(I, H, dt=0.4, alpha=1.5), unicornn_step),
    "lem": Row(LEM(I, H, dt=0.6, biases=2), lem_step),
    "tau-gru": Row(TauGRU(I, H, delay=3), taugru_step),
    "lipschitz": Row(
        Lipschitz(I, H, epsilon=0.2, beta=(0.6, 0.9), gamma=(0.02, 0.05)), lipschitz_step
    ),
    "indrnn": Row(IndRNN(I, H, "tanh"), indrnn_step),
    "orthogonal-modrelu": Row(OrthogonalRNN(I, H), orthogonal_modrelu_step),
    "orthogonal-tanh": Row(OrthogonalRNN(I, H, "tanh", biases=0), orthogonal_tanh_step),
    "unitary": Row(UnitaryRNN(I, H, seed=3), unitary_step),
    "unitary-learned": Row(UnitaryRNN(I, H, seed=3, learned_carry=True), unitary_step),
    "reservoir": Row(Reservoir(I, H, leak=0.3), reservoir_step),
}
