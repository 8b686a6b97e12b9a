"""Elman, LSTM and GRU as a NumPy loop with its own backward pass, written from the equations.

Nothing here is taken from the library: one row, one step, one formula at a time, forwards and then
backwards by the chain rule. A network is a list of layers, a layer a list of one or two directions,
a direction its `Weights`.

    Elman   h' = φ(a),  a = W x + U h + b + d
    LSTM    i, f, o = σ(a), g = tanh(a),  c' = f c + i g,  h' = o tanh c'
    GRU     r, z = σ(a)
            n = tanh(W x + b + U (r h) + d)   (before)    n = tanh(W x + b + r (U h + d))   (after)
            h' = (1 − z) h + z n   (new)                  h' = z h + (1 − z) n   (old)
"""

from typing import NamedTuple

import numpy as np


class Weights(NamedTuple):
    """Gate by gate: i, f, g, o or r, z, n, or the one of Elman. `d` is the bias beside U h."""

    W: np.ndarray  # (gates, H, I)
    U: np.ndarray  # (gates, H, H)
    b: np.ndarray  # (gates, H)
    d: np.ndarray  # (gates, H)


class Result(NamedTuple):
    """Outputs, final carries, and the gradients of <ys, d_ys> + <carry, d_carry>."""

    ys: np.ndarray
    carry: list  # [layer][direction] a tuple of (B, H)
    d_weights: list  # [layer][direction] Weights
    d_xs: np.ndarray
    d_carry: list


def logistic(a):
    return 1 / (1 + np.exp(-a))


PHI = {
    "tanh": (np.tanh, lambda a: 1 - np.tanh(a) ** 2),
    "relu": (lambda a: np.maximum(a, 0), lambda a: np.where(a > 0, 1.0, 0.0)),
    "identity": (lambda a: a, np.ones_like),
    "logistic": (logistic, lambda a: logistic(a) * (1 - logistic(a))),
}


def elman(kind, w, x, carry):
    (h,) = carry
    phi, slope = PHI[kind]
    a = w.W[0] @ x + w.U[0] @ h + w.b[0] + w.d[0]
    after = (phi(a),)

    def back(d_carry, grad):
        (dh,) = d_carry
        da = dh * slope(a)
        grad.W[0] += np.outer(da, x)
        grad.U[0] += np.outer(da, h)
        grad.b[0] += da
        grad.d[0] += da
        return w.W[0].T @ da, (w.U[0].T @ da,)

    return after, back


def lstm(kind, w, x, carry):
    h, c = carry
    a_i, a_f, a_g, a_o = (w.W[k] @ x + w.U[k] @ h + w.b[k] + w.d[k] for k in range(4))
    i, f, g, o = logistic(a_i), logistic(a_f), np.tanh(a_g), logistic(a_o)
    c_new = f * c + i * g
    squashed = np.tanh(c_new)
    after = (o * squashed, c_new)

    def back(d_carry, grad):
        dh, dc = d_carry
        dc = dc + dh * o * (1 - squashed**2)
        slopes = (
            dc * g * i * (1 - i),
            dc * c * f * (1 - f),
            dc * i * (1 - g**2),
            dh * squashed * o * (1 - o),
        )
        dx, dh_before = np.zeros_like(x), np.zeros_like(h)
        for k, da in enumerate(slopes):
            grad.W[k] += np.outer(da, x)
            grad.U[k] += np.outer(da, h)
            grad.b[k] += da
            grad.d[k] += da
            dx += w.W[k].T @ da
            dh_before += w.U[k].T @ da
        return dx, (dh_before, dc * f)

    return after, back


def gru(kind, w, x, carry):
    (h,) = carry
    _, reset, weighs = kind.split("-")
    r = logistic(w.W[0] @ x + w.b[0] + w.U[0] @ h + w.d[0])
    z = logistic(w.W[1] @ x + w.b[1] + w.U[1] @ h + w.d[1])
    inner = w.U[2] @ (r * h) + w.d[2] if reset == "before" else w.U[2] @ h + w.d[2]
    n = np.tanh(w.W[2] @ x + w.b[2] + (inner if reset == "before" else r * inner))
    after = ((1 - z) * h + z * n if weighs == "new" else z * h + (1 - z) * n,)

    def back(d_carry, grad):
        (dh,) = d_carry
        if weighs == "new":
            dn, dz, dh_before = dh * z, dh * (n - h), dh * (1 - z)
        else:
            dn, dz, dh_before = dh * (1 - z), dh * (h - n), dh * z
        da_n = dn * (1 - n**2)
        if reset == "before":
            d_inner, seen = da_n, r * h
            dr = (w.U[2].T @ d_inner) * h
            dh_before = dh_before + (w.U[2].T @ d_inner) * r
        else:
            d_inner, seen = da_n * r, h
            dr = da_n * inner
            dh_before = dh_before + w.U[2].T @ d_inner
        grad.U[2] += np.outer(d_inner, seen)
        grad.d[2] += d_inner
        grad.W[2] += np.outer(da_n, x)
        grad.b[2] += da_n
        dx = w.W[2].T @ da_n
        for k, da in ((0, dr * r * (1 - r)), (1, dz * z * (1 - z))):
            grad.W[k] += np.outer(da, x)
            grad.U[k] += np.outer(da, h)
            grad.b[k] += da
            grad.d[k] += da
            dx += w.W[k].T @ da
            dh_before = dh_before + w.U[k].T @ da
        return dx, (dh_before,)

    return after, back


def step_of(kind):
    """The step function of "tanh", "relu", …, "lstm" or "gru-before-new", "gru-after-old", …"""
    return lstm if kind == "lstm" else gru if kind.startswith("gru-") else elman


def run(kind, layers, xs, carry, lengths, d_ys, d_carry) -> Result:
    """A whole network on padded rows, `(B, T, I)`, forwards and backwards."""
    tapes, finals, inputs = [], [], xs
    for weights, starts in zip(layers, carry, strict=True):
        runs = [
            _forward(kind, w, inputs, start, lengths, reverse=bool(side))
            for side, (w, start) in enumerate(zip(weights, starts, strict=True))
        ]
        inputs = np.concatenate([ys for ys, _, _ in runs], axis=-1)
        finals.append([final for _, final, _ in runs])
        tapes.append([tape for _, _, tape in runs])
    ys, d_weights, d_starts = inputs, [], []
    for weights, tape, d_final in zip(layers[::-1], tapes[::-1], d_carry[::-1], strict=True):
        sides = np.split(d_ys, len(weights), axis=-1)
        backs = [
            _backward(w, rows, d, final)
            for w, rows, d, final in zip(weights, tape, sides, d_final, strict=True)
        ]
        d_ys = sum(d_xs for d_xs, _, _ in backs)
        d_starts.insert(0, [start for _, start, _ in backs])
        d_weights.insert(0, [grad for _, _, grad in backs])
    return Result(ys, finals, d_weights, d_ys, d_starts)


def _forward(kind, w, xs, start, lengths, reverse):
    step = step_of(kind)
    ys = np.zeros((*xs.shape[:2], w.U.shape[1]), xs.dtype)
    finals, rows = [np.array(part) for part in start], []
    for row, length in enumerate(lengths):
        carry, tape = tuple(part[row] for part in start), []
        for t in reversed(range(length)) if reverse else range(length):
            carry, back = step(kind, w, xs[row, t], carry)
            tape.append((t, back))
            ys[row, t] = carry[0]
        for final, part in zip(finals, carry, strict=True):
            final[row] = part
        rows.append(tape)
    return ys, tuple(finals), rows


def _backward(w, rows, d_ys, d_final):
    d_xs = np.zeros((*d_ys.shape[:2], w.W.shape[2]), d_ys.dtype)
    grad = Weights(*(np.zeros_like(part) for part in w))
    d_starts = [np.array(part) for part in d_final]
    for row, tape in enumerate(rows):
        d_carry = tuple(part[row] for part in d_final)
        for t, back in reversed(tape):
            d_carry = (d_carry[0] + d_ys[row, t], *d_carry[1:])
            d_xs[row, t], d_carry = back(d_carry, grad)
        for start, part in zip(d_starts, d_carry, strict=True):
            start[row] = part
    return d_xs, tuple(d_starts), grad
