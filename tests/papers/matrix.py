"""Cells with a matrix for memory, and xLSTM, from their papers."""

import numpy as np

from jaxrnn.cells.delta_net import DeltaNet
from jaxrnn.cells.gated_delta_net import GatedDeltaNet
from jaxrnn.cells.linear_attention import LinearAttention
from jaxrnn.cells.mlstm import MLSTM
from jaxrnn.cells.slstm import SLSTM
from papers import H, I, Row, logistic, softplus


def slstm(forget):
    """Without a stabiliser: m says only in what units c and n stand."""

    def step(params, carry, x):
        heads, size = params.W_h.shape[1:3]

        def before(gate):
            R = np.zeros((heads * size, heads * size))
            for a in range(heads):
                part = slice(a * size, (a + 1) * size)
                R[part, part] = params.W_h[gate, a]
            b = 0 if params.b is None else params.b[gate]
            return params.W_x[gate] @ x + R @ carry.h + b

        i, f = np.exp(before(0)), forget(before(1))
        z, o = np.tanh(before(2)), logistic(before(3))
        c = f * carry.c * np.exp(carry.m) + i * z
        n = f * carry.n * np.exp(carry.m) + i
        h = o * (c / n)
        m = np.maximum(np.log(f) + carry.m, np.log(i))
        return type(carry)(h, c / np.exp(m), n / np.exp(m), m), h

    return step


def mlstm(forget):
    """Without a stabiliser too."""

    def step(params, carry, x):
        after, ys = [], []
        for a in range(len(params.W_q)):
            d = params.W_k.shape[1]
            q = params.W_q[a] @ x + params.b_q[a]
            k = 1 / np.sqrt(d) * (params.W_k[a] @ x) + params.b_k[a]
            v = params.W_v[a] @ x + params.b_v[a]
            i = np.exp(params.W_i[a] @ x + params.b_i[a])
            f = forget(params.W_f[a] @ x + params.b_f[a])
            o = logistic(params.W_o[a] @ x + params.b_o[a])
            C = f * carry.C[a] * np.exp(carry.m[a]) + i * np.outer(v, k)
            n = f * carry.n[a] * np.exp(carry.m[a]) + i * k
            ys.append(o * (C @ q / max(abs(n @ q), 1)))
            m = max(np.log(f) + carry.m[a], np.log(i))
            after.append((C / np.exp(m), n / np.exp(m), m))
        return type(carry)(*map(np.stack, zip(*after, strict=True))), np.concatenate(ys)

    return step


def linear_attention(params, carry, x):
    def phi(a):
        return np.where(a > 0, a, np.exp(a) - 1) + 1

    S, z, ys = carry.S.copy(), carry.z.copy(), []
    for a in range(len(S)):
        q, k, v = params.W_q[a] @ x, params.W_k[a] @ x, params.W_v[a] @ x
        S[a] += np.outer(phi(k), v)
        z[a] += phi(k)
        ys.append(phi(q) @ S[a] / (phi(q) @ z[a] + 1e-6))
    return carry._replace(S=S, z=z), np.concatenate(ys)


def silu_unit(a):
    a = a * logistic(a)
    return a / np.sqrt(a @ a + 1e-6)


def dpfp(nu):
    """Equation by equation: φ_{i + 2dj'}(k) = r_i r_{i+j}, here with indices that go around."""

    def phi(k):
        r = np.maximum(np.concatenate([k, -k]), 0)
        out = np.array([[r[i] * r[i - j] for i in range(len(r))] for j in range(1, nu + 1)])
        return out.ravel() / (out.sum() + 1e-6)

    return phi


def delta_net(phi):
    def step(params, carry, x):
        S, ys = carry.S.copy(), []
        for a in range(len(S)):
            k, q = phi(params.W_k[a] @ x), phi(params.W_q[a] @ x)
            beta = logistic(params.W_beta[a] @ x)
            old = S[a] @ k
            new = beta * (params.W_v[a] @ x) + (1 - beta) * old
            S[a] = S[a] - np.outer(old, k) + np.outer(new, k)
            ys.append(S[a] @ q)
        return carry._replace(S=S), np.concatenate(ys)

    return step


def gated_delta_net(params, carry, x):
    S, ys = carry.S.copy(), []
    for a in range(len(S)):
        k, q = silu_unit(params.W_k[a] @ x), silu_unit(params.W_q[a] @ x)
        v = params.W_v[a] @ x
        v = v * logistic(v)
        beta = logistic(params.W_beta[a] @ x)
        delta = softplus(params.W_alpha[a] @ x + params.b_alpha[a])
        alpha = np.exp(-np.exp(params.log_A[a]) * delta)
        S[a] = S[a] @ (alpha * (np.eye(len(k)) - beta * np.outer(k, k))) + beta * np.outer(v, k)
        ys.append(S[a] @ q)
    return carry._replace(S=S), np.concatenate(ys)


ROWS: dict[str, Row] = {
    "slstm": Row(SLSTM(I, H, heads=2), slstm(logistic)),
    "slstm-exponential": Row(SLSTM(I, 2, forget="exponential", biases=0), slstm(np.exp)),
    "mlstm": Row(MLSTM(I, H, heads=2), mlstm(logistic)),
    "mlstm-exponential": Row(MLSTM(I, 2, key_size=3, forget="exponential"), mlstm(np.exp)),
    "linear-attention": Row(LinearAttention(I, H, heads=2, key_size=3), linear_attention),
    "delta-net": Row(DeltaNet(I, H, heads=2), delta_net(silu_unit)),
    "delta-net-dpfp": Row(DeltaNet(I, 2, key_size=3, feature_map="dpfp", nu=2), delta_net(dpfp(2))),
    "gated-delta-net": Row(GatedDeltaNet(I, H, heads=2, key_size=3), gated_delta_net),
}
