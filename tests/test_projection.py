"""Cells that another library has too, compared with it live: outputs, carries and gradients."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_close
from rows import problem

from jaxrnn import Stack, unroll
from jaxrnn.cells.mgu import MGU
from jaxrnn.cells.projection_lstm import ProjectionLSTM

B, T, I, H, P = 3, 5, 3, 4, 2

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="PyTorch is not installed: pip install 'jaxrnn[parity]'",
)


def answers(network, params, xs, carry, d_ys):
    """Outputs, final carry, and the gradients of <ys, d_ys>."""

    def loss(params, xs, carry):
        final, ys = unroll(network, params, xs, carry=carry)
        return jnp.vdot(ys, d_ys), (ys, final)

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
    (_, (ys, final)), gradients = run(params, xs, carry)
    return ys, final, gradients


NAMES = {
    "weight_ih": "W_x",
    "weight_hh": "W_h",
    "bias_ih": "b",
    "bias_hh": "b_h",
    "weight_hr": "W_r",
}


def torch_answers(params, xs, carry, d_ys):
    """The same from `nn.LSTM` with `proj_size`, params and carry being those of a Stack."""
    import torch

    def tensor(array):
        return torch.tensor(np.array(array), requires_grad=True)

    def gradient(layer, k):
        own = {ours: getattr(lstm, f"{theirs}_l{k}").grad for theirs, ours in NAMES.items()}
        return layer._replace(
            **{ours: g.numpy().reshape(getattr(layer, ours).shape) for ours, g in own.items()}
        )

    def carry_of(h, c):
        return tuple(type(carry[k])(h[k], c[k]) for k in range(len(carry)))

    lstm = torch.nn.LSTM(I, H, len(params), batch_first=True, proj_size=P, dtype=torch.float64)
    with torch.no_grad():
        for k, layer in enumerate(params):
            for theirs, ours in NAMES.items():
                weight = getattr(lstm, f"{theirs}_l{k}")
                weight.copy_(tensor(getattr(layer, ours)).reshape(weight.shape))
    x = tensor(xs)
    start = tuple(tensor(np.stack([getattr(c, part) for c in carry])) for part in ("h", "c"))
    ys, end = lstm(x, start)
    (ys * torch.tensor(d_ys)).sum().backward()
    d_params = tuple(gradient(layer, k) for k, layer in enumerate(params))
    d_carry = carry_of(*(part.grad.numpy() for part in start))
    final = carry_of(*(part.detach().numpy() for part in end))
    return ys.detach().numpy(), final, (d_params, x.grad.numpy(), d_carry)


@needs_torch
def test_a_projection_lstm_is_pytorchs_lstm_with_proj_size():
    # two layers, so that the second reads a projection
    network = Stack((ProjectionLSTM(I, H, P, biases=2), ProjectionLSTM(P, H, P, biases=2)))
    params, xs, carry = problem(network, (B, T), seed=3, scale=0.6)
    d_ys = np.random.default_rng(4).standard_normal((B, T, P))
    got = answers(network, params, xs, carry, d_ys)
    assert_close(got, torch_answers(params, xs, carry, d_ys), 1e-12)


def test_a_projection_lstm_draws_its_projection_in_pytorchs_range():
    params = ProjectionLSTM(8, 64, 16).init(jax.random.key(0))
    assert params.W_r.shape == (16, 64) and params.W_h.shape == (4, 64, 16)
    for leaf in (params.W_r, params.W_h):
        assert 0.9 / 8 < jnp.abs(leaf).max() <= 1 / 8


def test_a_projection_has_a_size():
    with pytest.raises(ValueError, match="projection_size must be an int of at least 1, got 0"):
        ProjectionLSTM(I, H, 0)


@pytest.mark.parametrize("reset", ["after", "none"])
def test_an_mgu_of_these_forms_is_flaxs(reset):
    import flax.linen

    cell = MGU(I, H, reset=reset, forget_weighs="old")
    params, xs, carry = problem(cell, (B, T), seed=5, scale=0.6)
    d_ys = np.random.default_rng(6).standard_normal((B, T, H))
    theirs = flax.linen.MGUCell(H, reset_gate=reset == "after", param_dtype=jnp.float64)

    def run(params, xs, carry):
        dense = {
            "if": {"kernel": params.W_x[0].T, "bias": params.b[0]},
            "in": {"kernel": params.W_x[1].T, "bias": params.b[1]},
            "hf": {"kernel": params.W_h[0].T},
            "hn": {"kernel": params.W_h[1].T},
        }
        if reset == "after":
            dense["hn"]["bias"] = params.b_h[0]
        ys, h = [], carry.h
        for t in range(T):
            h, y = theirs.apply({"params": dense}, h, xs[:, t])
            ys.append(y)
        ys = jnp.stack(ys, axis=1)
        return jnp.vdot(ys, d_ys), (ys, type(carry)(h))

    gradient = jax.jit(jax.value_and_grad(run, argnums=(0, 1, 2), has_aux=True))
    (_, (ys, final)), gradients = gradient(params, xs, carry)
    assert_close(answers(cell, params, xs, carry, d_ys), (ys, final, gradients), 1e-12)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(variant="MGU4"), "variant must be 'MGU' or 'MGU1' or 'MGU2' or 'MGU3', got 'MGU4'"),
        (dict(variant="MGU1", reset="after"), "variant 'MGU1' goes with reset='before'"),
        (dict(variant="MGU3", biases=0), "biases must be 1 or 2, got 0"),
    ],
)
def test_an_mgu_that_is_none_says_why(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        MGU(I, H, **options)
