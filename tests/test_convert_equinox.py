"""Equinox's cells as ours and ours as Equinox's: equal outputs, and what each refusal says."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import make_framework_numbers as frameworks
from oracles.framework_cases import CASES, H, I, of, stored
from oracles.framework_checks import assert_same, inputs, random_params, run

from jaxrnn import GRU, LSTM, Elman, Stack
from jaxrnn.convert import from_equinox, to_equinox

needs_equinox = pytest.mark.skipif(
    importlib.util.find_spec("equinox") is None,
    reason="Equinox is not installed: pip install 'jaxrnn[peers]'",
)
LIVE = pytest.param(frameworks.live, id="live", marks=needs_equinox)
CELLS = {
    "equinox-lstm": LSTM(I, H),
    "equinox-lstm-none": LSTM(I, H, biases=0),
    "equinox-gru": GRU(I, H, "after", "old"),
    "equinox-gru-none": GRU(I, H, "after", "old", biases=0),
}


@functools.cache
def imported(name, dtype):
    cell, params = from_equinox(CASES[name].weights(dtype))
    return cell, params, run(cell, params, CASES[name].xs(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reference", [pytest.param(stored, id="stored"), LIVE])
@pytest.mark.parametrize("name", of("equinox"))
def test_arrays_become_ours_by_their_names(name, reference, dtype):
    cell, params, got = imported(name, dtype)
    assert cell == CELLS[name]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    assert_same(got, reference(name), dtype)


@needs_equinox
@pytest.mark.parametrize("name", of("equinox"))
def test_a_module_says_the_same_and_comes_back(name):
    import equinox as eqx

    module = frameworks.equinox_module(name, CASES[name].weights())
    cell, params = from_equinox(module)
    assert cell == CELLS[name]
    jax.tree.map(np.testing.assert_array_equal, params, imported(name, "float64")[1])
    assert eqx.tree_equal(to_equinox(cell, params), module)


EXPORTS = {
    "lstm-two": LSTM(I, H, biases=2),
    "gru-two": GRU(I, H, "after", "old", biases=2),
    "gru-new": GRU(I, H, "after"),
    "gru-new-none": GRU(I, H, "after", biases=0),
}


@needs_equinox
@pytest.mark.parametrize("name", EXPORTS)
def test_equinox_computes_what_we_export(name):
    cell, xs = EXPORTS[name], inputs()
    params = random_params(cell)
    theirs = frameworks.run_equinox(to_equinox(cell, params), xs)
    assert_same(run(cell, params, xs), theirs, "float64")


@needs_equinox
def test_a_list_of_modules_is_a_stack_and_back():
    stack = Stack((LSTM(I, H), GRU(H, 2, "after", "old")))
    params = random_params(stack)
    network, ours = from_equinox(list(to_equinox(stack, params)))
    assert network == stack
    jax.tree.map(np.testing.assert_array_equal, ours, params)


def changed(name, **changes):
    return {k: v for k, v in (CASES[name].weights() | changes).items() if v is not None}


@pytest.mark.parametrize(
    "arrays, message",
    [
        (changed("equinox-lstm", weight_hh=None), r"^weight_hh is missing in eqx\.nn\.LSTMCell or"),
        (changed("equinox-gru", bias=None), r"^bias is missing: eqx\.nn\.GRUCell\(3, 4\) has wei"),
        (changed("equinox-gru", bias_n=None), "^bias_n is missing: .*; found weight_ih"),
        (changed("equinox-lstm", bias_n=np.zeros(H)), "^bias_n is not expected: .*LSTMCell"),
        (
            changed("equinox-gru", weight_hh=np.zeros((8, H))),
            r"^weight_hh has shape \(8, 4\), expected \(3·H, H\) of a GRUCell or \(4·H, H\) of an",
        ),
        (
            changed("equinox-gru", weight_ih=np.zeros(36)),
            r"^weight_ih has shape \(36,\), expected a matrix",
        ),
        (
            changed("equinox-lstm", bias=np.zeros(12)),
            r"^bias has shape \(12,\), expected \(16,\) in eqx\.nn\.LSTMCell\(3, 4\)",
        ),
        (changed("equinox-lstm", bias=np.zeros(16, int)), "^bias has dtype int64, expected float"),
    ],
)
def test_what_does_not_fit_is_named(arrays, message):
    with pytest.raises(ValueError, match=message):
        from_equinox(arrays)


@needs_equinox
def test_what_equinox_cannot_express_is_refused():
    def refused(network, error, message):
        with pytest.raises(error, match=message):
            to_equinox(network, random_params(network))

    refused(GRU(I, H), ValueError, "a GRU with reset='before': Equinox has only 'after'")
    refused(Elman(I, H), TypeError, "Equinox has no cell like Elman: it holds GRU, LSTM")
    refused(LSTM(I, H, learned_carry=True), ValueError, "learned_carry=True, which Equinox lacks")
