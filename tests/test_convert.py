"""PyTorch's weights in and out: what is read off them, and what each refusal says.

That the numbers mean the same is the business of `test_parity.py`.
"""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.framework_cases import CASES, stored
from oracles.make_framework_numbers import live
from safetensors.numpy import save_file

import jaxrnn
from jaxrnn import GRU, LSTM, Bidirectional, Elman, Readout, Residual, Stack
from jaxrnn.cells.projection_lstm import ProjectionLSTM
from jaxrnn.convert import from_torch, to_torch


def state_dict(gates, I=3, H=4, layers=1, directions=1, bias=True, dtype=np.float32):
    arrays = {}
    for layer in range(layers):
        for end in (f"l{layer}", f"l{layer}_reverse")[:directions]:
            shapes = {"weight_ih": (gates * H, I if layer == 0 else directions * H)}
            shapes["weight_hh"] = (gates * H, H)
            if bias:
                shapes |= {"bias_ih": (gates * H,), "bias_hh": (gates * H,)}
            for name, shape in shapes.items():
                size = int(np.prod(shape))
                arrays[f"{name}_{end}"] = np.arange(size, dtype=dtype).reshape(shape) / size
    return arrays


def projected(I=3, H=4, P=2, layers=1, directions=1, bias=True, dtype=np.float32):
    """The state dict of an nn.LSTM with proj_size."""
    random, arrays = np.random.RandomState(0), {}
    for layer in range(layers):
        for end in (f"l{layer}", f"l{layer}_reverse")[:directions]:
            shapes = {"weight_ih": (4 * H, directions * P if layer else I)}
            shapes |= {"weight_hh": (4 * H, P), "weight_hr": (P, H)}
            shapes |= {"bias_ih": (4 * H,), "bias_hh": (4 * H,)} if bias else {}
            for name, shape in shapes.items():
                arrays[f"{name}_{end}"] = random.uniform(-0.7, 0.7, shape).astype(dtype)
    return arrays


@pytest.mark.parametrize(
    "arrays, expected",
    [
        (state_dict(1), Stack((Elman(3, 4, biases=2),))),
        (state_dict(1, bias=False), Stack((Elman(3, 4, biases=0),))),
        (state_dict(4, layers=2), Stack((LSTM(3, 4, biases=2), LSTM(4, 4, biases=2)))),
        (
            state_dict(3, directions=2),
            Stack((Bidirectional(GRU(3, 4, "after", "old", biases=2)),)),
        ),
        (
            state_dict(4, layers=2, directions=2, bias=False),
            Stack((Bidirectional(LSTM(3, 4, biases=0)), Bidirectional(LSTM(8, 4, biases=0)))),
        ),
        (state_dict(3, I=1, H=1), Stack((GRU(1, 1, "after", "old", biases=2),))),
        (
            projected(layers=2),
            Stack((ProjectionLSTM(3, 4, 2, biases=2), ProjectionLSTM(2, 4, 2, biases=2))),
        ),
        (
            projected(directions=2, layers=2, bias=False),
            Stack(
                (
                    Bidirectional(ProjectionLSTM(3, 4, 2, biases=0)),
                    Bidirectional(ProjectionLSTM(4, 4, 2, biases=0)),
                )
            ),
        ),
    ],
)
def test_kind_sizes_depth_directions_and_biases_are_read_off(arrays, expected):
    stack, params = from_torch(arrays)
    assert stack == expected
    wanted = jax.eval_shape(expected.init, jax.random.key(0))
    assert jax.tree.structure(params) == jax.tree.structure(wanted)
    assert [p.shape for p in jax.tree.leaves(params)] == [p.shape for p in jax.tree.leaves(wanted)]


def numbered(network):
    """Params like those of `init`, without compiling random draws."""
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return jax.tree.map(lambda s: jnp.asarray(np.arange(s.size).reshape(s.shape), s.dtype), shapes)


def test_rows_of_a_gate_stay_together():
    arrays = state_dict(4, I=2, H=3)
    _, (params,) = from_torch(arrays)
    np.testing.assert_array_equal(params.W_x[1], arrays["weight_ih_l0"][3:6])  # forget
    np.testing.assert_array_equal(params.b_h[3], arrays["bias_hh_l0"][9:12])  # output


def test_relu_must_be_said():
    assert from_torch(state_dict(1), nonlinearity="relu")[0].layers[0].activation == "relu"
    with pytest.raises(ValueError, match="nonlinearity must be 'tanh' or 'relu', got 'gelu'"):
        from_torch(state_dict(1), nonlinearity="gelu")


def test_other_modules_are_left_aside_by_prefix():
    model = {f"encoder.lstm.{k}": v for k, v in state_dict(4).items()}
    model |= {f"decoder.{k}": v for k, v in state_dict(3, H=5).items()}
    model |= {"embedding.weight": np.zeros((9, 3), np.int8)}
    assert from_torch(model, prefix="encoder.lstm.")[0].layers[0] == LSTM(3, 4, biases=2)
    assert from_torch(model, prefix="decoder.")[0].layers[0].hidden_size == 5
    with pytest.raises(ValueError, match=r"did you mean prefix='decoder\.' or 'encoder\.lstm\.'\?"):
        from_torch(model)
    with pytest.raises(ValueError, match=r"no key is named lstm\.weight_ih_l0 .*did you mean"):
        from_torch(model, prefix="lstm.")
    assert from_torch(model | state_dict(1, H=2))[0].layers[0].hidden_size == 2


def test_nothing_to_read_says_what_was_there():
    with pytest.raises(ValueError, match=r"under any prefix: found fc\.weight, fc\.bias"):
        from_torch({"fc.weight": np.zeros((2, 2)), "fc.bias": np.zeros(2)})
    with pytest.raises(ValueError, match="under any prefix: found nothing"):
        from_torch({})


def changed(arrays, **changes):
    return {k: v for k, v in (arrays | changes).items() if v is not None}


@pytest.mark.parametrize(
    "arrays, message",
    [
        (
            changed(state_dict(4, layers=2), bias_hh_l1=None),
            r"^bias_hh_l1 is missing: .* nn\.LSTM with input_size=3, hidden_size=4, num_layers=2$",
        ),
        (changed(state_dict(3, layers=3), weight_ih_l1=None), "^weight_ih_l1 is missing"),
        (changed(state_dict(3), weight_hh_l0=None), "^weight_hh_l0 is missing: found bias_hh_l0"),
        (
            changed(state_dict(3, directions=2), weight_hh_l0_reverse=None),
            "^weight_hh_l0_reverse is missing: .*bidirectional",
        ),
        (
            changed(state_dict(3), weight_hh_l0=np.zeros((8, 4))),
            r"weight_hh_l0 has shape \(8, 4\), expected \(H, H\) of an nn\.RNN",
        ),
        (
            changed(state_dict(3), weight_ih_l0=np.zeros(12)),
            r"weight_ih_l0 has shape \(12,\), expected \(gates·H, I\)",
        ),
        (
            changed(state_dict(3, layers=2), weight_ih_l1=np.zeros((12, 3))),
            r"weight_ih_l1 has shape \(12, 3\), expected \(12, 4\) in an nn\.GRU",
        ),
        (
            changed(state_dict(4), weight_hr_l0=np.zeros((2, 4))),
            r"weight_hh_l0 has shape \(16, 4\), expected \(16, 2\) in an nn\.LSTM .*proj_size=2$",
        ),
        (
            changed(projected(layers=2), weight_hr_l1=None),
            r"^weight_hr_l1 is missing: .* nn\.LSTM with .*num_layers=2, proj_size=2$",
        ),
        (
            changed(projected(), weight_hr_l0=np.zeros(8)),
            r"weight_hr_l0 has shape \(8,\), expected \(P, H\)",
        ),
        (changed(state_dict(4), bias_l0=np.zeros(16)), "^bias_l0 is not expected"),
        (
            changed(state_dict(4), bias_ih_l0=np.zeros(16, np.int32)),
            "bias_ih_l0 has dtype int32, expected floating-point numbers",
        ),
        (
            changed(state_dict(4), bias_ih_l0=np.zeros(16, np.float64)),
            "several dtypes, float32, float64",
        ),
    ],
)
def test_what_does_not_fit_is_named(arrays, message):
    with pytest.raises(ValueError, match=message):
        from_torch(arrays)


def test_errors_name_the_key_with_its_prefix():
    arrays = {f"rnn.{k}": v for k, v in changed(state_dict(3), bias_hh_l0=None).items()}
    with pytest.raises(ValueError, match=r"^rnn\.bias_hh_l0 is missing"):
        from_torch(arrays, prefix="rnn.")


def test_a_safetensors_file_is_read_by_its_path(tmp_path):
    arrays = {f"lstm.{k}": v for k, v in state_dict(4).items()}
    save_file(arrays, tmp_path / "w.safetensors")
    for path in (tmp_path / "w.safetensors", str(tmp_path / "w.safetensors")):
        stack, (params,) = from_torch(path, prefix="lstm.")
        assert stack.layers[0] == LSTM(3, 4, biases=2)
        np.testing.assert_array_equal(params.b.ravel(), arrays["lstm.bias_ih_l0"])


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "pytorch_model.bin"])
def test_pickles_are_never_opened(name):
    with pytest.raises(ValueError, match=r"can execute code: .*safetensors\.torch\.save_file"):
        from_torch(name)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes_stay(dtype):
    arrays = {k: v.astype(jnp.dtype(dtype)) for k, v in state_dict(3).items()}
    stack, params = from_torch(arrays)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    for name, array in to_torch(stack, params).items():
        assert array.dtype == arrays[name].dtype
        np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="PyTorch is not installed: pip install 'jaxrnn[parity]'",
)
def test_tensors_are_taken_as_they_are():
    import torch

    module = torch.nn.LSTM(3, 4).to(torch.bfloat16)
    _, (params,) = from_torch(dict(module.named_parameters()))  # which require gradients
    assert params.W_x.dtype == jnp.bfloat16
    want = module.weight_ih_l0.detach().float().numpy().reshape(4, 4, 3)
    np.testing.assert_array_equal(params.W_x.astype(jnp.float32), want)


def test_a_single_bias_is_exported_beside_zeros():
    cell = GRU(3, 4, reset="after", update_weighs="old")
    params = numbered(cell)._replace(b_h=jnp.full((1, 4), 7.0, jnp.float32))
    arrays = to_torch(cell, params)
    np.testing.assert_array_equal(arrays["bias_hh_l0"], [0] * 8 + [7] * 4)
    np.testing.assert_array_equal(arrays["bias_ih_l0"], np.asarray(params.b).ravel())
    assert not to_torch(LSTM(3, 4), numbered(LSTM(3, 4)))["bias_hh_l0"].any()
    arrays["bias_ih_l0"][0] = 1.0  # exported arrays are the caller's own, and writable


@pytest.mark.parametrize(
    "network, error, message",
    [
        (GRU(3, 4), ValueError, "reset='before': PyTorch has only 'after'"),
        (
            Elman(3, 4, "logistic"),
            ValueError,
            "layer 0 has activation 'logistic': .*has 'tanh'",
        ),
        (LSTM(3, 4, learned_carry=True), ValueError, "layer 0 has learned_carry=True"),
        (
            Stack((LSTM(3, 4), Residual(LSTM(4, 4)))),
            TypeError,
            "layer 1 is a Residual: PyTorch's modules hold only Elman, GRU and LSTM",
        ),
        (Readout(LSTM(3, 4), 2), TypeError, "layer 0 is a Readout"),
        (Stack((LSTM(3, 4), LSTM(4, 5))), ValueError, "layer 1 has hidden_size 5, another layer 4"),
        (
            Stack((ProjectionLSTM(3, 4, 2), ProjectionLSTM(2, 4, 3))),
            ValueError,
            "layer 1 has projection_size 3, another layer 2",
        ),
        (
            Stack((LSTM(3, 4), Elman(4, 4))),
            ValueError,
            "layer 1 has kind 'Elman', another",
        ),
        (
            Stack((Elman(3, 4), Elman(4, 4, "relu"))),
            ValueError,
            "layer 1 has activation 'relu', another layer 'tanh'",
        ),
        (
            Bidirectional(LSTM(3, 4), LSTM(3, 4, biases=0)),
            ValueError,
            "layer 0 has bias False, another layer True",
        ),
        (
            Stack((Bidirectional(LSTM(3, 4)), LSTM(8, 4))),
            ValueError,
            "layer 1: PyTorch wants one direction, or both, in all layers",
        ),
    ],
)
def test_what_pytorch_cannot_express_is_refused(network, error, message):
    with pytest.raises(error, match=message):
        to_torch(network, numbered(network))


def test_dropout_is_no_obstacle_and_no_weight():
    stack = Stack((LSTM(3, 4), LSTM(4, 4)), dropout=0.5)
    assert len(jaxrnn.convert.to_torch(stack, numbered(stack))) == 8


TORCH = pytest.param(
    live,
    id="live",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("torch") is None,
        reason="PyTorch is not installed: pip install 'jaxrnn[parity]'",
    ),
)


@pytest.mark.parametrize("reference", [pytest.param(stored, id="stored"), TORCH])
def test_a_projection_computes_what_pytorch_computes(reference):
    name = "torch-projection"
    want, weights = reference(name), CASES[name].weights()
    stack, params = from_torch(weights)
    final, ys = jaxrnn.unroll(stack, params, CASES[name].xs())
    np.testing.assert_allclose(ys, want[0], atol=1e-12, rtol=0)
    (there_0, back_0), (there_1, back_1) = final
    each = there_0, back_0, there_1, back_1
    np.testing.assert_allclose(np.stack([c.h for c in each]), want[1], atol=1e-12, rtol=0)
    np.testing.assert_allclose(np.stack([c.c for c in each]), want[2], atol=1e-12, rtol=0)
    # out again, in the names and the layout that PyTorch has loaded above
    out = to_torch(stack, params)
    assert out.keys() == weights.keys()
    for name, array in out.items():
        np.testing.assert_array_equal(array, weights[name])
