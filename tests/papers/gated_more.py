"""More gated cells, from their papers."""

import numpy as np

from jaxrnn.cells.br import BR
from jaxrnn.cells.cfn import CFN
from jaxrnn.cells.clockwork import Clockwork
from jaxrnn.cells.fastgrnn import FastGRNN
from jaxrnn.cells.fastrnn import FastRNN
from jaxrnn.cells.jordan import Jordan
from jaxrnn.cells.mut import MUT1, MUT2, MUT3
from jaxrnn.cells.nas import NAS
from jaxrnn.cells.nbr import NBR
from jaxrnn.cells.rhn import RHN
from jaxrnn.cells.scrn import SCRN
from jaxrnn.cells.sgrn import SGRN
from jaxrnn.cells.star import STAR
from jaxrnn.cells.tgru import TGRU
from jaxrnn.cells.tlstm import TLSTM
from jaxrnn.cells.trnn import TRNN
from jaxrnn.cells.wmclstm import WMCLSTM
from papers import H, I, Row, affine, logistic, relu


def bias(b, k):
    return 0 if b is None else b[k]


def star_step(params, carry, x):
    (W_z, W_x), (W_h,), (b_z, b_K) = params.W_x, params.W_h, params.b
    z = np.tanh(W_z @ x + b_z)
    K = logistic(W_x @ x + W_h @ carry.h + b_K + bias(params.b_h, 0))
    h = np.tanh((1 - K) * carry.h + K * z)
    return carry._replace(h=h), h


def sgrn_step(params, carry, x):
    (W,), (U,) = params.W_x, params.W_h
    f = logistic(W @ x + U @ carry.h + bias(params.b, 0))
    h = np.tanh((1 - f) * (W @ x) + f * carry.h)
    return carry._replace(h=h), h


def nas_step(params, carry, x):
    # the nodes of the tree, two leaves each, from the left
    m, n = params.W_x @ x, params.W_h @ carry.h
    if params.b is not None:
        m = m + params.b
    if params.b_h is not None:
        n = n + params.b_h
    leaves = [
        logistic(m[0] + n[0]),
        relu(m[1] + n[1]),
        logistic(m[2] + n[2]),
        relu(m[3] * n[3]),
        np.tanh(m[4] + n[4]),
        logistic(m[5] + n[5]),
        np.tanh(m[6] + n[6]),
        logistic(m[7] + n[7]),
    ]
    left = np.tanh(np.tanh(leaves[0] * leaves[1]) + carry.c)
    c = left * np.tanh(leaves[2] + leaves[3])
    right = np.tanh(np.tanh(leaves[4] * leaves[5]) + logistic(leaves[6] + leaves[7]))
    h = np.tanh(c * right)
    return carry._replace(h=h, c=c), h


def mut1_step(params, carry, x):
    h, (W_xz, W_xr, *W_xh), (W_hr, W_hh) = carry.h, params.W_x, params.W_h
    z = logistic(W_xz @ x + bias(params.b, 0))
    r = logistic(W_xr @ x + W_hr @ h + bias(params.b, 1) + bias(params.b_h, 0))
    inner = np.tanh(W_xh[0] @ x if W_xh else x)
    b_h = bias(params.b, 2) + bias(params.b_h, 1)
    h = np.tanh(W_hh @ (r * h) + inner + b_h) * z + h * (1 - z)
    return carry._replace(h=h), h


def mut2_step(params, carry, x):
    h, (W_hz, W_hr, W_hh), (b_z, b_r, b_h) = carry.h, params.W_h, params.b
    W_xz, *W_xr, W_xh = params.W_x
    z = logistic(W_xz @ x + W_hz @ h + b_z)
    r = logistic((W_xr[0] @ x if W_xr else x) + W_hr @ h + b_r)
    h = np.tanh(W_hh @ (r * h) + W_xh @ x + b_h) * z + h * (1 - z)
    return carry._replace(h=h), h


def mut3_step(params, carry, x):
    h, b_h = carry.h, params.b_h
    (W_xz, W_xr, W_xh), (W_hz, W_hr, W_hh), (b_z, b_r, b_n) = params.W_x, params.W_h, params.b
    z = logistic(W_xz @ x + W_hz @ np.tanh(h) + b_z + bias(b_h, 0))
    r = logistic(W_xr @ x + W_hr @ h + b_r + bias(b_h, 1))
    h = np.tanh(W_hh @ (r * h) + W_xh @ x + b_n + bias(b_h, 2)) * z + h * (1 - z)
    return carry._replace(h=h), h


def cfn_step(params, carry, x):
    h, (W, V_theta, V_eta), (U_theta, U_eta) = carry.h, params.W_x, params.W_h
    theta = logistic(U_theta @ h + V_theta @ x + params.b[0] + bias(params.b_h, 0))
    eta = logistic(U_eta @ h + V_eta @ x + params.b[1] + bias(params.b_h, 1))
    h = theta * np.tanh(h) + eta * np.tanh(W @ x)
    return carry._replace(h=h), h


def br_step(params, carry, x):
    h, (U_a, U_c, U) = carry.h, params.W_x
    matrices = params.W_h.ndim == 3
    W_a, W_c = params.W_h if matrices else map(np.diag, params.W_h)
    b_h = params.b_h if matrices else None
    a = 1 + np.tanh(U_a @ x + W_a @ h + bias(params.b, 0) + bias(b_h, 0))
    c = logistic(U_c @ x + W_c @ h + bias(params.b, 1) + bias(b_h, 1))
    h = c * h + (1 - c) * np.tanh(U @ x + a * h + bias(params.b, 2))
    return carry._replace(h=h), h


def scrn_step(params, carry, x):
    alpha = 0.9 if params.beta is None else logistic(params.beta)
    s = (1 - alpha) * (params.B @ x) + alpha * carry.s
    b = 0 if params.b is None else params.b
    h = logistic(params.P @ s + params.A @ x + params.R @ carry.h + b)
    return carry._replace(h=h, s=s), np.concatenate([h, s])


def rhn_step(params, carry, x):
    s = carry.h
    for layer, R in enumerate(params.W_h):

        def highway(k, layer=layer, R=R, s=s):
            indicator = 1 if layer == 0 else 0
            b = 0 if params.b is None else params.b[layer][k]
            return indicator * (params.W_x[k] @ x) + R[k] @ s + b

        t = logistic(highway(1))
        c = logistic(highway(2)) if len(R) == 3 else 1 - t
        s = np.tanh(highway(0)) * t + s * c
    return carry._replace(h=s), s


def fastrnn_step(params, carry, x):
    (W,), (U,), (b,) = params.W_x, params.W_h, params.b
    candidate = np.tanh(W @ x + U @ carry.h + b + bias(params.b_h, 0))
    h = logistic(params.alpha) * candidate + logistic(params.beta) * carry.h
    return carry._replace(h=h), h


def fastgrnn_step(params, carry, x):
    (W,), (U,) = params.W_x, params.W_h
    z = logistic(W @ x + U @ carry.h + bias(params.b, 0))
    candidate = np.tanh(W @ x + U @ carry.h + bias(params.b, 1))
    zeta, nu = logistic(params.zeta), logistic(params.nu)
    h = (zeta * (1 - z) + nu) * candidate + z * carry.h
    return carry._replace(h=h), h


def trnn_step(params, carry, x):
    W, V = params.W_x
    f = logistic(V @ x + bias(params.b, 0))
    h = f * carry.h + (1 - f) * (W @ x)
    return carry._replace(h=h), h


def typed(params, carry, x, k):
    return params.V_x[k] @ carry.x + params.W_x[k] @ x + bias(params.b, k)


def tgru_step(params, carry, x):
    z, f, o = (typed(params, carry, x, k) for k in range(3))
    h = logistic(f) * carry.h + z * np.tanh(o)
    return carry._replace(h=h, x=x), h


def tlstm_step(params, carry, x):
    z, f, o = (typed(params, carry, x, k) for k in range(3))
    c = logistic(f) * carry.c + (1 - logistic(f)) * z
    return carry._replace(c=c, x=x), c * np.tanh(o)


def wmclstm_step(params, carry, x):
    W_ic, W_fc, W_oc = params.W_c
    i, f, g, o = (affine(params, x, carry.h, k) for k in range(4))
    i = logistic(i + np.tanh(W_ic @ carry.c))
    f = logistic(f + np.tanh(W_fc @ carry.c))
    c = f * carry.c + i * np.tanh(g)
    o = logistic(o + np.tanh(W_oc @ c))
    h = o * np.tanh(c)
    return carry._replace(h=h, c=c), h


def jordan_step(params, carry, x):
    b, b_y = (0, 0) if params.b is None else (params.b, params.b_y)
    h = np.tanh(params.W_x @ x + params.U @ carry.y + b)
    y = params.W_y @ h + b_y
    y = y if params.b is None else logistic(y)
    return carry._replace(y=y), y


def clockwork_step(params, carry, x, periods=(1, 3)):
    h, units = carry.h.copy(), H // len(periods)
    modules = [slice(i * units, (i + 1) * units) for i in range(len(periods))]
    for i, period in zip(modules, periods, strict=True):
        if carry.steps % period == 0:
            a = params.W_x[i] @ x + bias(params.b, i)
            for j, slower in zip(modules, periods, strict=True):
                if slower >= period:
                    a = a + params.W_h[i, j] @ carry.h[j]
            h[i] = np.tanh(a)
    return carry._replace(h=h, steps=carry.steps + 1), h


ROWS: dict[str, Row] = {
    "star": Row(STAR(I, H), star_step),
    "star-two-biases": Row(STAR(I, H, biases=2), star_step),
    "sgrn": Row(SGRN(I, H), sgrn_step),
    "nas-no-bias": Row(NAS(I, H, biases=0), nas_step),
    "nas-two-biases": Row(NAS(I, H, biases=2), nas_step),
    "mut1": Row(MUT1(I, H), mut1_step),
    "mut1-bare": Row(MUT1(H, H, project_input=False, biases=2), mut1_step),
    "mut2": Row(MUT2(I, H), mut2_step),
    "mut2-bare": Row(MUT2(H, H, project_input=False), mut2_step),
    "mut3-two-biases": Row(MUT3(I, H, biases=2), mut3_step),
    "cfn-two-biases": Row(CFN(I, H, biases=2), cfn_step),
    "br": Row(BR(I, H), br_step),
    "br-no-bias-learned": Row(BR(I, H, biases=0, learned_carry=True), br_step),
    "nbr-two-biases": Row(NBR(I, H, biases=2), br_step),
    "scrn": Row(SCRN(I, H, 2, alpha=0.9, biases=0), scrn_step),
    "scrn-learned": Row(SCRN(I, H, 3, learned_alpha=True, learned_carry=True), scrn_step),
    "rhn": Row(RHN(I, H, depth=3), rhn_step),
    "rhn-uncoupled-no-bias": Row(RHN(I, H, coupled=False, biases=0), rhn_step),
    "fastrnn-two-biases": Row(FastRNN(I, H, biases=2), fastrnn_step),
    "fastgrnn": Row(FastGRNN(I, H), fastgrnn_step),
    "fastgrnn-no-bias-learned": Row(FastGRNN(I, H, biases=0, learned_carry=True), fastgrnn_step),
    "trnn": Row(TRNN(I, H), trnn_step),
    "tgru": Row(TGRU(I, H), tgru_step),
    "tlstm-no-bias": Row(TLSTM(I, H, biases=0), tlstm_step),
    "wmclstm": Row(WMCLSTM(I, H), wmclstm_step),
    "wmclstm-two-biases-learned": Row(WMCLSTM(I, H, biases=2, learned_carry=True), wmclstm_step),
    "jordan-logistic-learned": Row(
        Jordan(I, H, 2, output_activation="logistic", learned_carry=True), jordan_step
    ),
    "jordan-no-bias": Row(Jordan(I, 3, H, biases=0), jordan_step),
    "clockwork": Row(Clockwork(I, H, (1, 3)), clockwork_step),
    "clockwork-no-bias-learned": Row(
        Clockwork(I, H, (1, 3), biases=0, learned_carry=True), clockwork_step
    ),
}
