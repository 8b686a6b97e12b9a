"""Cells that are linear in time, from their papers."""

import numpy as np

from jaxrnn.cells.linear_rnn import LinearRNN
from jaxrnn.cells.lru import LRU
from jaxrnn.cells.min_gru import MinGRU
from jaxrnn.cells.min_lstm import MinLSTM
from jaxrnn.cells.qrnn import QRNN
from jaxrnn.cells.rg_lru import RGLRU
from jaxrnn.cells.s4d import S4D
from jaxrnn.cells.s5 import S5
from jaxrnn.cells.selective_ssm import SelectiveSSM
from jaxrnn.cells.sru import SRU
from papers import H, I, Row, logistic, softplus


def linear_rnn(params, carry, x):
    h = params.W_h @ carry.h + params.W_x @ x
    h = h if params.b is None else h + params.b
    return carry._replace(h=h), h


def lru(params, carry, x):
    # the state is called x in the paper, and the input u
    u, x = x, carry.h
    nu, theta, gamma = map(np.exp, (params.log_nu, params.log_theta, params.log_gamma))
    modulus, phase = np.exp(-nu), theta
    Lambda = np.diag(modulus * (np.cos(phase) + 1j * np.sin(phase)))
    B = np.diag(gamma) @ (params.B_real + 1j * params.B_imag)
    x = Lambda @ x + B @ u
    y = np.real((params.C_real + 1j * params.C_imag) @ x) + params.D @ u
    return carry._replace(h=x), y


def s4d(rule):
    def step(params, carry, x):
        h, y = np.empty_like(carry.h), np.empty_like(x)
        for i in range(len(x)):
            A = np.diag(-np.exp(params.log_A_real[i]) + 1j * params.A_imag[i])
            B = np.ones(len(A))
            A_bar, B_bar = rule(A, B, np.exp(params.log_delta[i]))
            h[i] = A_bar @ carry.h[i] + B_bar * x[i]
            C = params.C_real[i] + 1j * params.C_imag[i]
            # with the conjugate of every entry beside it
            both = np.concatenate([C, C.conj()]) @ np.concatenate([h[i], h[i].conj()])
            y[i] = both.real + params.D[i] * x[i]
        return carry._replace(h=h), y

    return step


def zero_order_hold(A, B, delta):
    A_bar = np.diag(np.exp(delta * np.diag(A)))
    return A_bar, np.linalg.inv(A) @ (A_bar - np.eye(len(A))) @ B


def bilinear(A, B, delta):
    inverse = np.linalg.inv(np.eye(len(A)) - delta / 2 * A)
    return inverse @ (np.eye(len(A)) + delta / 2 * A), delta * inverse @ B


def s5(rule):
    def step(params, carry, u):
        Lambda = params.lambda_real + 1j * params.lambda_imag
        B = params.B_real + 1j * params.B_imag
        C = params.C_real + 1j * params.C_imag
        # with one Δ for each entry, so entry by entry
        rows = [
            rule(Lambda[p : p + 1, None], B[p : p + 1], np.exp(params.log_delta[p]))
            for p in range(len(B))
        ]
        x = np.concatenate(
            [A_bar @ carry.h[p : p + 1] + B_bar @ u for p, (A_bar, B_bar) in enumerate(rows)]
        )
        return carry._replace(h=x), (C @ x + C.conj() @ x.conj()).real + params.D * u

    return step


def of_x(params, x, k):
    a = params.W_x[k] @ x
    return a if params.b is None else a + params.b[k]


def min_gru(params, carry, x):
    z, candidate = logistic(of_x(params, x, 0)), of_x(params, x, 1)
    h = (1 - z) * carry.h + z * candidate
    return carry._replace(h=h), h


def min_lstm(params, carry, x):
    f, i = logistic(of_x(params, x, 0)), logistic(of_x(params, x, 1))
    h = (f * carry.h + i * of_x(params, x, 2)) / (f + i)
    return carry._replace(h=h), h


def rg_lru(params, carry, x):
    blocks, size = params.W_x.shape[1:3]
    W_a, W_x = np.zeros((2, len(x), len(x)))
    for k in range(blocks):
        part = slice(k * size, (k + 1) * size)
        W_a[part, part], W_x[part, part] = params.W_x[0, k], params.W_x[1, k]
    r = logistic(W_a @ x + params.b[0])
    i = logistic(W_x @ x + params.b[1])
    a = logistic(params.Lambda)
    a_t = a ** (8 * r)
    h = a_t * carry.h + np.sqrt(1 - a_t**2) * (i * x)
    return carry._replace(h=h), h


def selective_ssm(params, carry, x):
    """Algorithm 2 of the paper and the simplified B̄ of its code, entry by entry."""
    A = -np.exp(params.log_A)
    delta = softplus(params.b_delta + params.W_up @ params.W_down @ x)
    B, C = params.W_B @ x, params.W_C @ x
    h, y = np.empty_like(A), np.empty_like(x)
    for d in range(A.shape[0]):
        for n in range(A.shape[1]):
            h[d, n] = np.exp(delta[d] * A[d, n]) * carry.h[d, n] + delta[d] * B[n] * x[d]
        y[d] = C @ h[d] + params.D[d] * x[d]
    return carry._replace(h=h), y


def sru(highway_bias):
    def step(params, carry, x):
        c = carry.c
        v = np.zeros((2, len(c))) if params.v is None else params.v
        f = logistic(params.W_x[1] @ x + v[0] * c + params.b[0])
        r = logistic(params.W_x[2] @ x + v[1] * c + params.b[1])
        c = f * c + (1 - f) * (params.W_x[0] @ x)
        x = x if len(params.W_x) == 3 else params.W_x[3] @ x
        alpha = np.sqrt(1 + np.exp(highway_bias) * 2)
        return carry._replace(c=c), r * c + (1 - r) * x * alpha

    return step


def qrnn(pooling):
    def step(params, carry, x):
        inputs = [*carry.inputs, x]
        k, I = len(inputs), len(x)

        def convolve(gate):
            a = params.b[gate]
            for j in range(k):
                a = a + params.W_x[gate][:, j * I : (j + 1) * I] @ inputs[j]
            return a

        z, f = np.tanh(convolve(0)), logistic(convolve(1))
        if pooling == "ifo":
            c = f * carry.c + logistic(convolve(3)) * z
        else:
            c = f * carry.c + (1 - f) * z
        h = c if pooling == "f" else logistic(convolve(2)) * c
        later = np.stack(inputs[1:]) if k > 1 else carry.inputs
        return carry._replace(c=c, inputs=later), h

    return step


ROWS: dict[str, Row] = {
    "linear-rnn": Row(LinearRNN(I, H), linear_rnn),
    "lru": Row(LRU(I, 4, 2), lru),
    "s4d": Row(S4D(I, 4), s4d(zero_order_hold)),
    "s4d-bilinear": Row(S4D(I, 4, discretization="bilinear", spectrum="inverse"), s4d(bilinear)),
    "s5": Row(S5(I, 4), s5(zero_order_hold)),
    "s5-bilinear-blocks": Row(S5(I, 4, blocks=2, discretization="bilinear"), s5(bilinear)),
    "min-gru": Row(MinGRU(I, H), min_gru),
    "min-lstm": Row(MinLSTM(I, H), min_lstm),
    "rg-lru": Row(RGLRU(I), rg_lru),
    "rg-lru-blocks": Row(RGLRU(4, blocks=2), rg_lru),
    "selective-ssm": Row(SelectiveSSM(I, 2), selective_ssm),
    "sru-peephole": Row(SRU(I, H), sru(0.0)),
    "sru": Row(SRU(I, I, peephole=False, highway_bias=-1.0), sru(-1.0)),
    "qrnn-fo": Row(QRNN(I, H, width=3), qrnn("fo")),
    "qrnn-ifo": Row(QRNN(I, H, width=1, pooling="ifo"), qrnn("ifo")),
    "qrnn-f": Row(QRNN(I, H, width=1, pooling="f"), qrnn("f")),
}
