"""Flax's cells as ours and ours as Flax's, linen and NNX: equal outputs, and what refusals say."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import make_framework_numbers as frameworks
from oracles.framework_cases import CASES, H, I, of, stored
from oracles.framework_checks import assert_same, h_before_c, inputs, random_params, run
from oracles.make_framework_numbers import linen_module, nested

import jaxrnn
from jaxrnn import GRU, LSTM, Bidirectional, Elman, Stack
from jaxrnn.cells.mgu import MGU
from jaxrnn.convert import from_linen, from_nnx, to_linen, to_nnx

REFERENCES = [pytest.param(stored, id="stored"), pytest.param(frameworks.live, id="live")]
FLAX_GRU, FLAX_MGU = GRU(I, H, "after", "old"), MGU(I, H, reset="after", forget_weighs="old")
CELLS = {
    "linen-simple": Elman(I, H, "relu"),
    "linen-lstm": LSTM(I, H),
    "linen-optimized": LSTM(I, H),
    "linen-gru": FLAX_GRU,
    "linen-mgu": FLAX_MGU,
    "linen-mgu-no-reset": MGU(I, H, reset="none", forget_weighs="old"),
    "nnx-simple": Elman(I, H),
    "nnx-lstm": LSTM(I, H),
    "nnx-optimized": LSTM(I, H),
    "nnx-gru": FLAX_GRU,
}


@functools.cache
def imported(name, dtype):
    weights = CASES[name].weights(dtype)
    if name.startswith("linen"):
        cell, params = from_linen(frameworks.linen_module(name, dtype), nested(weights))
    else:
        cell, params = from_nnx(frameworks.nnx_module(name, weights))
    return cell, params, run(cell, params, CASES[name].xs(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("name", of("linen") + of("nnx"))
def test_cells_become_ours(name, reference, dtype):
    cell, params, got = imported(name, dtype)
    assert cell == CELLS[name]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    assert_same(got, h_before_c(reference(name)), dtype)


EXPORTS = {
    "elman": Elman(I, H),
    "elman-two": Elman(I, H, "logistic", biases=2),
    "elman-none": Elman(I, H, "identity", biases=0),
    "lstm": LSTM(I, H),
    "lstm-two": LSTM(I, H, biases=2),
    "lstm-none": LSTM(I, H, biases=0),
    "gru": FLAX_GRU,
    "gru-two": GRU(I, H, "after", "old", biases=2),
    "gru-new": GRU(I, H, "after"),
    "gru-none": GRU(I, H, "after", biases=0),
    "mgu": FLAX_MGU,
    "mgu-two": MGU(I, H, reset="after", forget_weighs="old", biases=2),
    "mgu-none-new-two": MGU(I, H, reset="none", biases=2),
    "mgu-none": MGU(I, H, reset="after", forget_weighs="old", biases=0),
}
ACTIVATIONS = {"tanh": nn.tanh, "relu": nn.relu, "logistic": nn.sigmoid, "identity": lambda a: a}


def linen_for(cell):
    if isinstance(cell, Elman):
        return nn.SimpleCell(H, activation_fn=ACTIVATIONS[cell.activation])
    if isinstance(cell, MGU):
        return nn.MGUCell(H, reset_gate=cell.reset == "after")
    return nn.GRUCell(H) if isinstance(cell, GRU) else nn.OptimizedLSTMCell(H)


@pytest.mark.parametrize("name", EXPORTS)
def test_linen_computes_what_we_export(name):
    cell, xs = EXPORTS[name], inputs()
    params = random_params(cell)
    theirs = frameworks.run_linen(linen_for(cell), to_linen(cell, params), xs)
    assert_same(run(cell, params, xs), h_before_c(theirs), "float64")


@pytest.mark.parametrize("name", [name for name in EXPORTS if not name.startswith("mgu")])
def test_nnx_computes_what_we_export(name):
    cell, xs = EXPORTS[name], inputs()
    params = random_params(cell)
    if isinstance(cell, GRU) and cell.biases:
        with pytest.raises(ValueError, match=r"nnx\.GRUCell has no bias of the candidate's own"):
            to_nnx(cell, params)
        params = params._replace(b_h=params.b_h.at[-1].set(0))
    module = to_nnx(cell, params)
    assert_same(run(cell, params, xs), h_before_c(frameworks.run_nnx(module, xs)), "float64")
    again = nnx.clone(module)
    nnx.update(again, nnx.state(to_nnx(cell, params)))  # the line that the docstring gives
    xs = xs[:, :2]
    jax.tree.map(
        np.testing.assert_array_equal,
        frameworks.run_nnx(again, xs),
        frameworks.run_nnx(module, xs),
    )


def draw(module, width=I, seed=0):
    """Params of a linen layer for whole sequences, in float64, none of them zero."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 2, width)))["params"]
    random = np.random.RandomState(seed)
    return jax.tree.map(lambda s: jnp.asarray(random.uniform(-0.8, 0.8, s.shape)), shapes)


def test_linen_layers_become_networks_and_back():
    xs = inputs()
    layer = nn.Bidirectional(
        nn.RNN(nn.LSTMCell(H, param_dtype="float64")),
        nn.RNN(nn.GRUCell(2, param_dtype="float64")),
        return_carry=True,
    )
    params = draw(layer)
    ((c, h), back), ys = layer.apply({"params": params}, xs)
    network, ours = from_linen(layer, params)
    assert network == Bidirectional(LSTM(I, H), GRU(I, 2, "after", "old"))
    assert_same(run(network, ours, xs), [ys, h, c, back], "float64")
    jax.tree.map(np.testing.assert_array_equal, to_linen(network, ours), params)
    cell, p = from_linen(nn.RNN(nn.LSTMCell(H), time_major=True), params["forward_rnn"])
    assert cell == LSTM(I, H)
    jax.tree.map(np.testing.assert_array_equal, p, ours.forward)


def test_a_list_of_linen_modules_is_a_stack():
    modules, stack = [nn.LSTMCell(H), nn.GRUCell(2)], Stack((LSTM(I, H), GRU(H, 2, "after", "old")))
    params = random_params(stack)
    theirs = to_linen(stack, params)
    network, ours = from_linen(modules, theirs)
    assert network == stack
    jax.tree.map(np.testing.assert_array_equal, ours, params)
    assert from_linen(modules, input_size=I) == (stack, (None, None))
    with pytest.raises(ValueError, match="got 2 modules, but params of 1"):
        from_linen(modules, theirs[:1])


def test_nnx_layers_become_networks_and_back():
    stack = Stack((Bidirectional(LSTM(I, H)), Elman(2 * H, 2)))
    params, xs = random_params(stack), inputs()
    both, cell = to_nnx(stack, params)
    want = nnx.RNN(cell)(both(xs))
    network, ours = from_nnx((both, nnx.RNN(cell)))
    assert network == stack
    jax.tree.map(np.testing.assert_array_equal, ours, params)
    np.testing.assert_allclose(run(network, ours, xs)[0], want, rtol=0, atol=1e-12)


def test_gradients_reach_the_params_of_linen():
    xs, module, weights = inputs(), linen_module("linen-gru"), nested(CASES["linen-gru"].weights())

    def ours(weights):
        cell, params = from_linen(module, weights)
        return jnp.sum(jaxrnn.unroll(cell, params, xs)[1] ** 2)

    def theirs(weights):
        return jnp.sum(nn.RNN(module).apply({"params": {"cell": weights}}, xs) ** 2)

    got, want = jax.jit(jax.grad(ours))(weights), jax.jit(jax.grad(theirs))(weights)
    for key, gradients in want.items():
        for name, gradient in gradients.items():
            np.testing.assert_allclose(got[key][name], gradient, rtol=0, atol=1e-11)


def changed(flat, **changes):
    names = {name.replace("_", "/"): array for name, array in changes.items()}
    return nested({k: v for k, v in (flat | names).items() if v is not None})


FLAT = CASES["linen-lstm"].weights()


@pytest.mark.parametrize(
    "params, message",
    [
        (
            changed(FLAT, hf_bias=None),
            r"^hf/bias is missing: nn\.LSTMCell\(features=4\) has ii/kernel, .*; found hf/kernel",
        ),
        (changed(FLAT, ii_kernel=None), r"^ii/kernel is missing in nn\.LSTMCell\(features=4\): f"),
        (
            changed(FLAT, io_kernel=np.zeros((5, H))),
            r"^io/kernel has shape \(5, 4\), expected \(3, 4\) in nn\.LSTMCell",
        ),
        (
            changed(FLAT, hg_kernel=np.zeros((H, 5))),
            r"^hg/kernel has shape \(4, 5\), expected \(4, 4\) in nn\.LSTMCell",
        ),
        (changed(FLAT, ii_bias=np.zeros(H)), r"^ii/bias is not expected: nn\.LSTMCell.* has ii/k"),
        (
            changed(FLAT, hi_bias=np.zeros(H, np.float32)),
            r"the arrays of nn\.LSTMCell\(features=4\) have several dtypes, float32, float64",
        ),
        ({"params": {}, "batch_stats": {}}, "the variables have a collection 'batch_stats': a cel"),
    ],
)
def test_what_does_not_fit_is_named(params, message):
    with pytest.raises(ValueError, match=message):
        from_linen(nn.LSTMCell(H), params)


def test_layers_that_compute_something_else_are_refused():
    cell = nn.LSTMCell(H)
    with pytest.raises(ValueError, match=r"nn\.RNN with reverse=True: a direction is no part of"):
        from_linen(nn.RNN(cell, reverse=True), {"cell": nested(FLAT)})
    with pytest.raises(ValueError, match=r"cell is missing in the params of nn\.RNN: found ii, if"):
        from_linen(nn.RNN(cell), nested(FLAT))
    two = nn.Bidirectional(nn.RNN(cell), nn.RNN(nn.LSTMCell(H)), merge_fn=jnp.add)
    with pytest.raises(ValueError, match=r"nn\.Bidirectional with merge_fn=.* side by side"):
        from_linen(two, {})
    with pytest.raises(ValueError, match=r"nn\.LSTMCell without params doesn't say what it reads"):
        from_linen(cell)
    module = to_nnx(LSTM(I, H), random_params(LSTM(I, H)))
    with pytest.raises(ValueError, match=r"nnx\.RNN with reverse=True: a direction is no part of"):
        from_nnx(nnx.RNN(module, reverse=True))
    two = nnx.Bidirectional(nnx.RNN(module), nnx.RNN(module), merge_fn=jnp.add)
    with pytest.raises(ValueError, match=r"nnx\.Bidirectional with merge_fn=.* side by side"):
        from_nnx(two)
    module.ii.kernel = nnx.Param(jnp.zeros((5, H)))
    with pytest.raises(ValueError, match=r"^ii\.kernel has shape \(5, 4\), expected \(3, 4\)"):
        from_nnx(module)


@pytest.mark.parametrize("export, name", [(to_linen, "Flax linen"), (to_nnx, "Flax NNX")])
def test_what_flax_cannot_express_is_refused(export, name):
    def refused(cell, error, message):
        with pytest.raises(error, match=message):
            export(cell, random_params(cell))

    refused(GRU(I, H), ValueError, f"a GRU with reset='before': {name} has only 'after'")
    refused(LSTM(I, H, learned_carry=True), ValueError, f"learned_carry=True, which {name} lacks")
    refused(jaxrnn.Readout(LSTM(I, H), 2), TypeError, f"{name} has no cell like Readout: it holds")


def test_an_mgu_that_linen_lacks_is_refused():
    def refused(cell, message):
        with pytest.raises(ValueError, match=message):
            to_linen(cell, random_params(cell))

    refused(MGU(I, H), "an MGU with variant='MGU' and reset='before': Flax linen has only variant")
    refused(MGU(I, H, reset="after"), "a gate that resets as well cannot be turned around")


def test_other_arithmetic_is_not_taken_for_ours():
    weights = nested(CASES["linen-simple"].weights())

    def stays(module, weights):
        return type(from_linen(module, weights, input_size=I)[0]).__name__ == "LinenCell"

    assert stays(nn.SimpleCell(H, residual=True), weights)
    assert stays(nn.SimpleCell(H, carry_init=nn.initializers.ones_init()), weights)
    lstm = nested(FLAT)
    assert stays(nn.LSTMCell(H, gate_fn=nn.hard_sigmoid), lstm)
    assert stays(nn.LSTMCell(H, activation_fn=nn.relu), lstm)
    assert not stays(nn.LSTMCell(H), lstm)
    options = dict(param_dtype=jnp.float64, dtype=jnp.float64, rngs=nnx.Rngs(0))
    module = nnx.SimpleCell(I, H, residual=True, **options)
    assert type(from_nnx(module)[0]).__name__ == "NNXCell"
    module = nnx.GRUCell(I, H, activation_fn=nn.relu, **options)
    assert type(from_nnx(module)[0]).__name__ == "NNXCell"
