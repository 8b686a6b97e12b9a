"""Cells whose carry is an image, from their papers, place by place."""

import itertools

import numpy as np

from jaxrnn.cells.conv_lstm import ConvLSTM
from papers import Row, logistic


def correlate(image, kernel, stride, same):
    """Σ_{offset, channel} kernel[offset, channel, :] · image[place + offset, channel], by loops."""
    *space, C = image.shape
    *sizes, _, F = kernel.shape
    low = [0] * len(space)
    places = [(n - k) // s + 1 for n, k, s in zip(space, sizes, stride, strict=True)]
    if same:
        # ⌈n / stride⌉ places; zeros all around, the odd one at the far end
        places = [-(-n // s) for n, s in zip(space, stride, strict=True)]
        missing = [
            max((m - 1) * s + k - n, 0)
            for m, s, k, n in zip(places, stride, sizes, space, strict=True)
        ]
        low = [m // 2 for m in missing]
    out = np.zeros((*places, F))
    for place in itertools.product(*map(range, places)):
        for offset in itertools.product(*map(range, sizes)):
            at = tuple(
                p * s + o - lo for p, s, o, lo in zip(place, stride, offset, low, strict=True)
            )
            if all(0 <= a < n for a, n in zip(at, space, strict=True)):
                for channel, feature in itertools.product(range(C), range(F)):
                    weight = kernel[(*offset, channel, feature)]
                    out[(*place, feature)] += weight * image[(*at, channel)]
    return out


def conv_lstm(stride, same=True):
    """Shi et al. 2015, equation 3, with W_ci, W_cf and W_co zero where there are none."""

    def step(params, carry, X):
        H, C = carry.h, carry.c
        ones = (1,) * len(stride)
        nothing = np.zeros_like(C)
        W_ci, W_cf, W_co = (nothing,) * 3 if params.W_p is None else params.W_p
        b = np.zeros((4, C.shape[-1])) if params.b is None else params.b
        A = [
            correlate(X, params.W_x[k], stride, same)
            + correlate(H, params.W_h[k], ones, True)
            + b[k]
            for k in range(4)
        ]
        i = logistic(A[0] + W_ci * C)
        f = logistic(A[1] + W_cf * C)
        C = f * C + i * np.tanh(A[2])
        o = logistic(A[3] + W_co * C)
        H = o * np.tanh(C)
        return carry._replace(h=H, c=C), H

    return step


ROWS: dict[str, Row] = {
    "conv-lstm-1d-learned": Row(ConvLSTM((4, 2), 2, (3,), learned_carry=True), conv_lstm((1,))),
    "conv-lstm-2d": Row(ConvLSTM((3, 4, 2), 2, (2, 3), (3, 1), peepholes=False), conv_lstm((1, 1))),
    "conv-lstm-2d-strides": Row(
        ConvLSTM((5, 4, 1), 2, (3, 2), strides=(2, 1), padding="valid", biases=0),
        conv_lstm((2, 1), same=False),
    ),
    "conv-lstm-3d": Row(ConvLSTM((2, 3, 2, 1), 1, (1, 2, 3)), conv_lstm((1, 1, 1))),
}
