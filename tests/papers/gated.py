"""Gated cells, from their papers."""

import numpy as np

from jaxrnn.cells.atr import ATR
from jaxrnn.cells.coupled_lstm import CoupledLSTM
from jaxrnn.cells.janet import JANET
from jaxrnn.cells.layer_norm_lstm import LayerNormLSTM
from jaxrnn.cells.light_ru import LightRU
from jaxrnn.cells.ligru import LiGRU
from jaxrnn.cells.mgu import MGU
from jaxrnn.cells.minimal_rnn import MinimalRNN
from jaxrnn.cells.multiplicative_lstm import MultiplicativeLSTM
from jaxrnn.cells.peephole_lstm import PeepholeLSTM
from jaxrnn.cells.projection_lstm import ProjectionLSTM
from jaxrnn.cells.ran import RAN
from jaxrnn.cells.ugrnn import UGRNN
from papers import H, I, Row, affine, logistic, relu

P = 2  # of the projection


def peephole_lstm_step(params, carry, x, squash=np.tanh):
    # peepholes as the diagonal matrices that Graves 2013 writes
    h, s = carry
    W_si, W_sf, W_so = map(np.diag, params.peepholes)
    y_in = logistic(affine(params, x, h, 0) + W_si @ s)
    y_forget = logistic(affine(params, x, h, 1) + W_sf @ s)
    s = y_forget * s + y_in * np.tanh(affine(params, x, h, 2))
    y_out = logistic(affine(params, x, h, 3) + W_so @ s)
    y = y_out * squash(s)
    return type(carry)(y, s), y


def identity(a):
    return a


def peephole_lstm_2002_step(params, carry, x):
    return peephole_lstm_step(params, carry, x, identity)


def projection_lstm_step(params, carry, x):
    # Sak et al., without peepholes and without the p_t that is not fed back
    r, c = carry
    i, f = logistic(affine(params, x, r, 0)), logistic(affine(params, x, r, 1))
    c = f * c + i * np.tanh(affine(params, x, r, 2))
    m = logistic(affine(params, x, r, 3)) * np.tanh(c)
    r = params.W_r @ m
    return type(carry)(r, c), r


def coupled_lstm_step(params, carry, x):
    # the vanilla LSTM of Greff et al. with f = 1 − i, and p = 0 where there are no peepholes
    y, c = carry
    p_i, p_o = (0, 0) if params.peepholes is None else params.peepholes
    i = logistic(affine(params, x, y, 0) + p_i * c)
    z = np.tanh(affine(params, x, y, 1))
    c = z * i + c * (1 - i)
    o = logistic(affine(params, x, y, 2) + p_o * c)
    y = np.tanh(c) * o
    return type(carry)(y, c), y


def layer_norm(z, gain, bias, epsilon):
    # LN of Ba et al., the variance with ε
    mu = sum(z) / len(z)
    sigma = np.sqrt(sum((z - mu) ** 2) / len(z) + epsilon)
    return (z - mu) / sigma * gain + bias


def layer_norm_lstm_step(params, carry, x, epsilon=1e-5):
    # Ba et al., all gates in one vector; of their three biases of the gates, β_2 = 0
    h, c = carry
    biases = (params.b, params.b_h, params.b_c)
    b, b_h, b_c = (np.zeros(()) if p is None else p.ravel() for p in biases)
    from_h = params.W_h.reshape(-1, len(h)) @ h
    from_x = params.W_x.reshape(-1, len(x)) @ x
    a = layer_norm(from_h, params.gain_h.ravel(), b_h, epsilon)
    a = a + layer_norm(from_x, params.gain_x.ravel(), 0, epsilon) + b
    i, f, g, o = np.split(a, 4)
    c = logistic(f) * c + logistic(i) * np.tanh(g)
    h = logistic(o) * np.tanh(layer_norm(c, params.gain_c, b_c, epsilon))
    return type(carry)(h, c), h


def rough_layer_norm_lstm_step(params, carry, x):
    return layer_norm_lstm_step(params, carry, x, epsilon=0.1)


def multiplicative_lstm_step(params, carry, x):
    # Krause et al., in the order i, f, ĥ, o
    h, c = carry
    b = params.b if params.b_h is None else params.b + params.b_h
    m = (params.W_x[0] @ x) * (params.W_h[0] @ h)
    i, f, h_hat, o = (params.W_x[k] @ x + params.W_h[k] @ m for k in range(1, 5))
    i, f, o = logistic(i + b[0]), logistic(f + b[1]), logistic(o + b[3])
    c = f * c + i * np.tanh(h_hat + b[2])
    h = np.tanh(c) * o
    return type(carry)(h, c), h


def janet_step(params, carry, x):
    # van der Westhuizen and Lasenby
    beta = 1
    (c,) = carry
    s = affine(params, x, c, 0)
    c_tilde = np.tanh(affine(params, x, c, 1))
    c = logistic(s) * c + (1 - logistic(s - beta)) * c_tilde
    return type(carry)(c), c


def mgu_step(params, carry, x):
    # Zhou et al.
    (h,) = carry
    f = logistic(affine(params, x, h, 0))
    h_tilde = np.tanh(affine(params, x, f * h, 1))
    h = (1 - f) * h + f * h_tilde
    return type(carry)(h), h


def mgu_variant_step(gate):
    # Heck and Salem: another f, the rest as in Zhou et al.
    def step(params, carry, x):
        (h,) = carry
        f = logistic(gate(params, h))
        b = params.b[-1] if params.b_h is None else params.b[-1] + params.b_h[-1]
        h_tilde = np.tanh(params.W_x[-1] @ x + params.W_h[-1] @ (f * h) + b)
        h = (1 - f) * h + f * h_tilde
        return type(carry)(h), h

    return step


mgu_1_step = mgu_variant_step(lambda params, h: params.W_h[0] @ h + params.b[0])
mgu_2_step = mgu_variant_step(lambda params, h: params.W_h[0] @ h)
mgu_3_step = mgu_variant_step(lambda params, h: params.b[0])


def mgu_after_step(params, carry, x):
    # the equations of Flax
    (h,) = carry
    f = logistic(params.W_x[0] @ x + params.b[0] + params.W_h[0] @ h)
    n = np.tanh(params.W_x[1] @ x + params.b[1] + f * (params.W_h[1] @ h + params.b_h[0]))
    h = (1 - f) * n + f * h
    return type(carry)(h), h


def mgu_none_step(params, carry, x):
    (h,) = carry
    f = logistic(affine(params, x, h, 0))
    h = (1 - f) * np.tanh(affine(params, x, h, 1)) + f * h
    return type(carry)(h), h


def minimal_rnn_step(params, carry, x):
    # Chen
    (h,) = carry
    U_h, U_z = params.W_h
    z = np.tanh(params.W_x[0] @ x + params.b[0])
    u = logistic(U_h @ h + U_z @ z + params.b_h.sum(axis=0))
    h = u * h + (1 - u) * z
    return type(carry)(h), h


def ugrnn_step(params, carry, x):
    # Collins et al.
    (h,) = carry
    g = logistic(affine(params, x, h, 0))
    c = np.tanh(affine(params, x, h, 1))
    h = g * h + (1 - g) * c
    return type(carry)(h), h


def ran_step(params, carry, x, g=np.tanh):
    # Lee et al.
    (c,) = carry
    h = g(c)
    b = params.b if params.b_h is None else params.b + params.b_h
    W_cx, W_ix, W_fx = params.W_x
    W_ih, W_fh = params.W_h
    i = logistic(W_ih @ h + W_ix @ x + b[0])
    f = logistic(W_fh @ h + W_fx @ x + b[1])
    c = i * (W_cx @ x) + f * c
    return type(carry)(c), g(c)


def ran_identity_step(params, carry, x):
    return ran_step(params, carry, x, identity)


def ligru_step(params, carry, x):
    # Ravanelli et al., with a bias in the place of batch normalisation
    (h,) = carry
    z = logistic(affine(params, x, h, 0))
    h_tilde = relu(affine(params, x, h, 1))
    h = z * h + (1 - z) * h_tilde
    return type(carry)(h), h


def light_ru_step(params, carry, x):
    # Ye et al., section 3.2
    (h,) = carry
    b = params.b[0] if params.b_h is None else params.b[0] + params.b_h[0]
    h_tilde = np.tanh(params.W_x[0] @ x)
    f = logistic(params.W_h[0] @ h + params.W_x[1] @ x + b)
    h = (1 - f) * h + f * h_tilde
    return type(carry)(h), h


def atr_step(params, carry, x):
    # Zhang et al., with biases
    (h,) = carry
    p = params.W_x[0] @ x + (0 if params.b is None else params.b[0])
    q = params.W_h[0] @ h + (0 if params.b_h is None else params.b_h[0])
    h = logistic(p + q) * p + logistic(p - q) * h
    return type(carry)(h), h


ROWS: dict[str, Row] = {
    "peephole-lstm": Row(PeepholeLSTM(I, H), peephole_lstm_step),
    "peephole-lstm-identity-learned": Row(
        PeepholeLSTM(I, H, "identity", biases=2, learned_carry=True), peephole_lstm_2002_step
    ),
    "projection-lstm": Row(
        ProjectionLSTM(I, H, P, biases=2, learned_carry=True), projection_lstm_step
    ),
    "coupled-lstm": Row(CoupledLSTM(I, H), coupled_lstm_step),
    "coupled-lstm-peepholes": Row(CoupledLSTM(I, H, peepholes=True), coupled_lstm_step),
    "layer-norm-lstm": Row(LayerNormLSTM(I, H), layer_norm_lstm_step),
    "layer-norm-lstm-two-biases": Row(
        LayerNormLSTM(I, H, epsilon=0.1, biases=2), rough_layer_norm_lstm_step
    ),
    "multiplicative-lstm": Row(MultiplicativeLSTM(I, H, biases=2), multiplicative_lstm_step),
    "janet": Row(JANET(I, H), janet_step),
    "mgu": Row(MGU(I, H, biases=2), mgu_step),
    "mgu-1": Row(MGU(I, H, "MGU1"), mgu_1_step),
    "mgu-2": Row(MGU(I, H, "MGU2", biases=2), mgu_2_step),
    "mgu-3": Row(MGU(I, H, "MGU3"), mgu_3_step),
    "mgu-after-old": Row(MGU(I, H, reset="after", forget_weighs="old"), mgu_after_step),
    "mgu-none-old": Row(MGU(I, H, reset="none", forget_weighs="old"), mgu_none_step),
    "minimal-rnn": Row(MinimalRNN(I, H), minimal_rnn_step),
    "ugrnn": Row(UGRNN(I, H), ugrnn_step),
    "ran": Row(RAN(I, H), ran_step),
    "ran-identity": Row(RAN(I, H, "identity", biases=2), ran_identity_step),
    "ligru": Row(LiGRU(I, H), ligru_step),
    "light-ru": Row(LightRU(I, H), light_ru_step),
    "atr": Row(ATR(I, H, biases=2), atr_step),
}
