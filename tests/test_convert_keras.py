"""Keras's layers as ours and ours as Keras's: equal outputs, and what each refusal says."""

import functools
import importlib.util
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import make_framework_numbers as frameworks
from oracles.framework_cases import CASES, H, I, of, stored
from oracles.framework_checks import assert_same, inputs, random_params, run

from jaxrnn import GRU, LSTM, Bidirectional, Elman, Readout, Stack
from jaxrnn.convert import from_keras, to_keras

os.environ.setdefault("KERAS_BACKEND", "jax")
needs_keras = pytest.mark.skipif(
    importlib.util.find_spec("keras") is None,
    reason="Keras is not installed: pip install 'jaxrnn[peers]'",
)
LIVE = pytest.param(frameworks.live, id="live", marks=needs_keras)
OPTIONS = {
    "keras-simple-none": {"activation": "relu"},
    "keras-gru-before-none": {"reset_after": False},
}
CELLS = {
    "keras-simple": Elman(I, H),
    "keras-simple-none": Elman(I, H, "relu", biases=0),
    "keras-lstm": LSTM(I, H),
    "keras-lstm-none": LSTM(I, H, biases=0),
    "keras-lstm-both": Bidirectional(LSTM(I, H)),
    "keras-gru-after": GRU(I, H, "after", "old", biases=2),
    "keras-gru-after-none": GRU(I, H, "after", "old", biases=0),
    "keras-gru-before": GRU(I, H, "before", "old"),
    "keras-gru-before-none": GRU(I, H, "before", "old", biases=0),
    "keras-gru-both": Bidirectional(GRU(I, H, "after", "old", biases=2)),
}


@functools.cache
def imported(name):
    weights = list(CASES[name].weights("float32").values())
    cell, params = from_keras(weights, **OPTIONS.get(name, {}))
    return cell, params, run(cell, params, CASES[name].xs("float32"))


@pytest.mark.parametrize("reference", [pytest.param(stored, id="stored"), LIVE])
@pytest.mark.parametrize("name", of("keras"))
def test_lists_of_weights_become_ours(name, reference):
    cell, _, got = imported(name)
    assert cell == CELLS[name]
    assert_same(got, reference(name), "float32")


@needs_keras
@pytest.mark.parametrize("name", of("keras"))
def test_layers_tell_what_lists_do_not(name):
    layer = frameworks.keras_layer(**frameworks.KERAS[name])
    layer.set_weights(list(CASES[name].weights("float32").values()))
    expected, params, _ = imported(name)
    cell, got = from_keras(layer)
    assert cell == expected
    jax.tree.map(np.testing.assert_array_equal, got, params)


EXPORTS = {
    "elman": (Elman(I, H), dict(kind="SimpleRNN")),
    "elman-two": (
        Elman(I, H, "logistic", biases=2),
        dict(kind="SimpleRNN", activation="sigmoid"),
    ),
    "elman-none": (
        Elman(I, H, "identity", biases=0),
        dict(kind="SimpleRNN", activation="linear", use_bias=False),
    ),
    "lstm": (LSTM(I, H), dict(kind="LSTM")),
    "lstm-two": (LSTM(I, H, biases=2), dict(kind="LSTM")),
    "lstm-none": (LSTM(I, H, biases=0), dict(kind="LSTM", use_bias=False)),
    "gru-after": (GRU(I, H, "after", "old", biases=2), dict(kind="GRU")),
    "gru-after-new-one": (GRU(I, H, "after"), dict(kind="GRU")),
    "gru-after-none": (GRU(I, H, "after", biases=0), dict(kind="GRU", use_bias=False)),
    "gru-before": (GRU(I, H), dict(kind="GRU", reset_after=False)),
    "gru-before-two": (GRU(I, H, "before", "old", biases=2), dict(kind="GRU", reset_after=False)),
    "both": (Bidirectional(GRU(I, H, "after")), dict(kind="GRU", both=True)),
}


@needs_keras
@pytest.mark.parametrize("name", EXPORTS)
def test_keras_computes_what_we_export(name):
    cell, options = EXPORTS[name]
    params, xs = random_params(cell, "float32"), inputs("float32")
    layer = frameworks.keras_layer(**options)
    layer.set_weights(to_keras(cell, params))
    assert_same(run(cell, params, xs), frameworks.run_keras(layer, xs), "float32")


@needs_keras
def test_a_sequential_is_a_stack_and_back():
    import keras

    layers = [
        frameworks.keras_layer("LSTM"),
        keras.layers.RNN([keras.layers.GRUCell(2), keras.layers.SimpleRNNCell(H)]),
    ]
    layers[1].build((None, None, H))
    stack = Stack((LSTM(I, H), Stack((GRU(H, 2, "after", "old", biases=2), Elman(2, H)))))
    params = random_params(stack, "float32")
    for layer, cell, p in zip(layers, stack.layers, params, strict=True):
        layer.set_weights(to_keras(cell, p))
    cell, got = from_keras(layers)
    assert cell == stack
    jax.tree.map(np.testing.assert_array_equal, got, params)
    model = keras.Sequential([keras.Input((None, I)), frameworks.keras_layer("SimpleRNN")])
    first = Stack((Elman(I, H),))
    model.set_weights(to_keras(first, random_params(first, "float32")))
    assert from_keras(model)[0] == first


@needs_keras
def test_layers_that_compute_something_else_are_refused():
    import keras

    def layer(kind, **options):
        return frameworks.keras_layer(kind, **options)

    with pytest.raises(ValueError, match="LSTM has activation='relu', ours has 'tanh'"):
        from_keras(layer("LSTM", activation="relu"))
    with pytest.raises(ValueError, match="GRU has recurrent_activation='hard_sigmoid', ours"):
        from_keras(layer("GRU", recurrent_activation="hard_sigmoid"))
    with pytest.raises(ValueError, match="SimpleRNN has activation='gelu', expected one of 'tanh'"):
        from_keras(layer("SimpleRNN", activation="gelu"))
    with pytest.raises(ValueError, match=r"LSTM with go_backwards=True: .* reverse=True"):
        from_keras(layer("LSTM", go_backwards=True))
    two = keras.layers.Bidirectional(layer("LSTM"), merge_mode="sum")
    with pytest.raises(ValueError, match=r"Bidirectional with merge_mode='sum': .* side by side"):
        from_keras(two)
    with pytest.raises(ValueError, match="the GRU has no weights yet: call it once, or layer"):
        from_keras(keras.layers.GRU(H))
    with pytest.raises(TypeError, match="Dense is none of SimpleRNN, LSTM, GRU"):
        from_keras(keras.layers.Dense(3))


def kernels(gates, bias=None):
    shapes = [(I, gates * H), (H, gates * H)] + ([bias] if bias else [])
    return [np.zeros(shape, np.float32) for shape in shapes]


def replaced(arrays, index, array):
    return [array if n == index else a for n, a in enumerate(arrays)]


@pytest.mark.parametrize(
    "arrays, message",
    [
        ([], "got 0 arrays, expected those of one layer's get_weights"),
        (kernels(4)[:1], "got 1 arrays"),
        (
            kernels(2),
            r"recurrent_kernel has shape \(4, 8\), expected \(H, H\) of a SimpleRNN, "
            r"\(H, 3·H\) of a GRU or",
        ),
        (
            replaced(kernels(4), 0, np.zeros((I, 12), np.float32)),
            r"^kernel has shape \(3, 12\), expected \(3, 16\) in LSTM with 4 units",
        ),
        (
            kernels(4, (2, 16)),
            r"^bias has shape \(2, 16\), expected \(16,\) in LSTM with 4 units",
        ),
        (kernels(3, (3, 12)), r"^bias has shape \(3, 12\), expected \(2, 12\) in GRU"),
        (
            replaced(kernels(3), 0, np.zeros(36, np.float32)),
            r"^kernel has shape \(36,\), expected a matrix in GRU",
        ),
        (
            replaced(kernels(3), 0, np.zeros((I, 12), np.float64)),
            "the arrays of GRU with 4 units have several dtypes, float32, float64",
        ),
        (
            replaced(kernels(1), 1, np.zeros((H, H), int)),
            "recurrent_kernel has dtype int64, expected floating-point numbers",
        ),
    ],
)
def test_what_does_not_fit_is_named(arrays, message):
    with pytest.raises(ValueError, match=message):
        from_keras(arrays)


def test_options_are_checked():
    with pytest.raises(ValueError, match="activation must be one of 'tanh', 'relu', 'linear'"):
        from_keras(kernels(1), activation="gelu")


def test_what_keras_cannot_express_is_refused():
    def refused(network, error, message):
        with pytest.raises(error, match=message):
            to_keras(network, random_params(network))

    refused(LSTM(I, H, learned_carry=True), ValueError, "LSTM has learned_carry=True, which Keras")
    refused(Elman(I, H, jnp.sin), ValueError, "Elman has activation .*, expected one of 'tanh'")
    message = "Keras has no cell like Readout: it holds Elman, GRU, LSTM"
    refused(Readout(LSTM(I, H), 2), TypeError, message)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_dtypes_stay(dtype):
    arrays = [array.astype(jnp.dtype(dtype)) for array in kernels(3, (2, 12))]
    cell, params = from_keras(arrays)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    assert {array.dtype for array in to_keras(cell, params)} == {jnp.dtype(dtype)}
