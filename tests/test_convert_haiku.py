"""Haiku's cores as ours and ours as Haiku's: equal outputs, and what each refusal says."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import make_framework_numbers as frameworks
from oracles.framework_cases import CASES, H, I, of, stored
from oracles.framework_checks import TOLERANCE, assert_same, inputs, random_params, run
from oracles.make_framework_numbers import nested

import jaxrnn
from jaxrnn import GRU, LSTM, Bidirectional, Elman, Stack
from jaxrnn.convert import from_haiku, to_haiku

needs_haiku = pytest.mark.skipif(
    importlib.util.find_spec("haiku") is None,
    reason="Haiku is not installed: pip install 'jaxrnn[peers]'",
)
LIVE = pytest.param(frameworks.live, id="live", marks=needs_haiku)
CELLS = {
    "haiku-lstm": LSTM(I, H),
    "haiku-gru": GRU(I, H),
    "haiku-vanilla": Elman(I, H, "relu", biases=2),
    "haiku-vanilla-one-bias": Elman(I, H, "relu"),
}


@functools.cache
def imported(name, dtype):
    cell, params = from_haiku(params=nested(CASES[name].weights(dtype)))
    return cell, params, run(cell, params, CASES[name].xs(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reference", [pytest.param(stored, id="stored"), LIVE])
@pytest.mark.parametrize("name", of("haiku"))
def test_params_become_ours_by_their_names(name, reference, dtype):
    cell, params, got = imported(name, dtype)
    assert cell == CELLS[name]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    # the relu network is not contracting: its outputs reach 10
    want = reference(name)
    scale = max(1.0, np.abs(want[0]).max())
    assert_same([part / scale for part in got], [part / scale for part in want], dtype)


@needs_haiku
@pytest.mark.parametrize("name", of("haiku"))
def test_a_core_says_the_same_as_the_names(name):
    weights = nested(CASES[name].weights())
    cell, params = from_haiku(frameworks.haiku_core(name), weights)
    assert cell == CELLS[name]
    jax.tree.map(np.testing.assert_array_equal, params, imported(name, "float64")[1])
    inside = {f"net/~/{module}": arrays for module, arrays in weights.items()}
    inside |= {"net/~/head": {"w": np.zeros((H, 2)), "b": np.zeros(2)}}
    for make in (frameworks.haiku_core(name), None):
        prefix = "net/~/" if make else f"net/~/{min(weights).split('/')[0]}"
        if make is None:
            assert from_haiku(params=inside, prefix=prefix)[0] == cell
        else:
            only = {k: v for k, v in inside.items() if "head" not in k}
            assert from_haiku(make, only, prefix=prefix)[0] == cell
    assert from_haiku(frameworks.haiku_core(name), input_size=I) == (cell, None)


EXPORTS = {
    "lstm": (LSTM(I, H), "haiku-lstm"),
    "lstm-two": (LSTM(I, H, biases=2), "haiku-lstm"),
    "lstm-none": (LSTM(I, H, biases=0), "haiku-lstm"),
    "gru": (GRU(I, H), "haiku-gru"),
    "gru-old-two": (GRU(I, H, update_weighs="old", biases=2), "haiku-gru"),
    "elman-two": (Elman(I, H, "relu", biases=2), "haiku-vanilla"),
    "elman": (Elman(I, H, jax.nn.relu), "haiku-vanilla-one-bias"),
    "elman-none": (Elman(I, H, "relu", biases=0), "haiku-vanilla-one-bias"),
}


@needs_haiku
@pytest.mark.parametrize("name", EXPORTS)
def test_haiku_computes_what_we_export(name):
    cell, core = EXPORTS[name]
    params, xs = random_params(cell), inputs()
    theirs = frameworks.run_haiku(frameworks.haiku_core(core), to_haiku(cell, params), xs)
    assert_same(run(cell, params, xs), theirs, "float64")


@needs_haiku
def test_a_deep_rnn_is_a_stack_and_back():
    import haiku as hk

    def make_core():
        return hk.DeepRNN([hk.LSTM(H), hk.GRU(2), hk.LSTM(3)])

    stack = Stack((LSTM(I, H), GRU(H, 2), LSTM(2, 3)))
    params, xs = random_params(stack), inputs()
    theirs = to_haiku(stack, params)
    assert theirs.keys() == {"lstm/linear", "gru", "lstm_1/linear"}
    assert_same(run(stack, params, xs), frameworks.run_haiku(make_core, theirs, xs), "float64")
    network, ours = from_haiku(make_core, theirs)
    assert network == stack
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=TOLERANCE["float64"])
    jax.tree.map(close, ours, params)
    assert from_haiku(make_core, input_size=I) == (stack, None)
    with pytest.raises(ValueError, match=r"^rnn is not expected: the core has lstm, gru, lstm_1"):
        from_haiku(make_core, theirs | {"rnn": {"w": np.zeros(3)}})


@needs_haiku
def test_gradients_reach_the_params_of_haiku():
    make, xs = frameworks.haiku_core("haiku-lstm"), inputs()

    def loss(weights):
        cell, params = from_haiku(make, weights)
        return jnp.sum(jaxrnn.unroll(cell, params, xs)[1] ** 2)

    def theirs(weights):
        import haiku as hk

        core = hk.without_apply_rng(hk.transform(lambda x, s: make()(x, s)))
        zeros = jnp.zeros((len(xs), H))
        state = hk.LSTMState(zeros, zeros)
        _, ys = jax.lax.scan(lambda s, x: core.apply(weights, x, s)[::-1], state, xs.swapaxes(0, 1))
        return jnp.sum(ys**2)

    weights = nested(CASES["haiku-lstm"].weights())
    got, want = jax.jit(jax.grad(loss))(weights), jax.jit(jax.grad(theirs))(weights)
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-11)
    jax.tree.map(close, got, want)


def arrays(name, **changes):
    flat = CASES[name].weights() | changes
    return nested({k.replace("__", "/"): v for k, v in flat.items() if v is not None})


LSTM_W = "lstm/linear/w"


@pytest.mark.parametrize(
    "params, message",
    [
        ({}, "^no module is named …: found no params"),
        (
            arrays("haiku-lstm", **{"lstm/linear/b": None}),
            r"^lstm/linear/b is missing: hk\.LSTM\(4\) has linear/w, linear/b; found linear/w",
        ),
        (
            arrays("haiku-lstm", **{LSTM_W: np.zeros((7, 15))}),
            r"^lstm/linear/w has shape \(7, 15\), expected \(7, 12\) in hk\.LSTM\(3\)",
        ),
        (
            arrays("haiku-lstm", **{LSTM_W: np.zeros(7)}),
            r"^lstm/linear/w has shape \(7,\), expected a matrix in hk\.LSTM",
        ),
        (
            arrays("haiku-gru", **{"gru/w_i": np.zeros((I, 11))}),
            r"^gru/w_i has shape \(3, 11\), expected \(3, 12\) in hk\.GRU\(4\)",
        ),
        (
            arrays("haiku-gru", **{"gru/w_i": None}),
            r"^gru/w_i is missing in hk\.GRU\(4\): found w_",
        ),
        (
            arrays("haiku-vanilla", **{"vanilla_rnn/linear/b": None}),
            r"^vanilla_rnn/linear/b is missing: hk\.VanillaRNN\(4, double_bias=True\) has",
        ),
        (
            arrays("haiku-lstm") | arrays("haiku-gru"),
            "the params are of several modules, .*: pass a longer prefix, or make_core",
        ),
    ],
)
def test_what_does_not_fit_is_named(params, message):
    with pytest.raises(ValueError, match=message):
        from_haiku(params=params)


def test_nothing_says_what_the_core_is():
    with pytest.raises(ValueError, match="from_haiku needs make_core or params"):
        from_haiku()
    with pytest.raises(ValueError, match=r"no module is named net/…: found lstm/linear"):
        from_haiku(params=arrays("haiku-lstm"), prefix="net/")


def test_what_haiku_cannot_express_is_refused():
    def refused(network, error, message):
        with pytest.raises(error, match=message):
            to_haiku(network, random_params(network))

    refused(GRU(I, H, "after"), ValueError, "a GRU with reset='after': Haiku has only 'before'")
    refused(Elman(I, H), ValueError, r"Elman has activation 'tanh': hk\.VanillaRNN has 'relu'")
    refused(LSTM(I, H, learned_carry=True), ValueError, "learned_carry=True, which Haiku lacks")
    refused(Bidirectional(LSTM(I, H)), TypeError, "Haiku has no cell like Bidirectional: it holds")
