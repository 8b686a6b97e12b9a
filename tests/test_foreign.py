"""Cells of other libraries, and modules that users wrote with them, as cells of ours."""

import functools
import importlib.util
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import make_framework_numbers as frameworks
from oracles.framework_cases import CASES, H, I
from oracles.framework_checks import assert_same, inputs, random_params, run
from oracles.make_framework_numbers import nested

import jaxrnn
from jaxrnn import Loop, Readout, Scan, Stack, analysis, as_cell
from jaxrnn.convert import (
    from_equinox,
    from_haiku,
    from_linen,
    from_nnx,
    to_equinox,
    to_haiku,
    to_linen,
    to_nnx,
)

close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-12)


# cells of the libraries, as themselves and as ours


def linen_gru(native, dtype="float64"):
    weights = nested(CASES["linen-gru"].weights(dtype))
    return from_linen(frameworks.linen_module("linen-gru"), weights, I, native)


def nnx_gru(native, dtype="float64"):
    module = frameworks.nnx_module("nnx-gru", CASES["nnx-gru"].weights(dtype))
    return from_nnx(module, native=native)


def haiku_gru(native, dtype="float64"):
    weights = nested(CASES["haiku-gru"].weights(dtype))
    return from_haiku(_make_haiku_gru, weights, I, native=native)


def _make_haiku_gru():
    import haiku as hk

    return hk.GRU(H)


def equinox_gru(native, dtype="float64"):
    module = frameworks.equinox_module("equinox-gru", CASES["equinox-gru"].weights(dtype))
    return from_equinox(module, native=native)


def needs(library):
    return pytest.mark.skipif(
        importlib.util.find_spec(library) is None,
        reason=f"{library} is not installed: pip install 'jaxrnn[peers]'",
    )


def each(linen, nnx, haiku, equinox):
    """One parameter for each library."""
    return [
        pytest.param(linen, id="linen"),
        pytest.param(nnx, id="nnx"),
        pytest.param(haiku, id="haiku", marks=needs("haiku")),
        pytest.param(equinox, id="equinox", marks=needs("equinox")),
    ]


GRUS = each(linen_gru, nnx_gru, haiku_gru, equinox_gru)
NAMES = {"linen_gru": "LinenCell", "nnx_gru": "NNXCell", "haiku_gru": "HaikuCell"}


@pytest.mark.parametrize("library", GRUS)
def test_a_cell_as_itself_does_what_it_does_as_ours(library):
    (ours, p), (theirs, q) = library(native=True), library(native=False)
    assert isinstance(ours, jaxrnn.GRU)
    assert type(theirs).__name__ == NAMES.get(library.__name__, "EquinoxCell")
    assert (theirs.input_size, theirs.output_size, theirs.input_rank) == (I, H, 1)
    xs = inputs()
    resets = np.array([[0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0]], bool)
    options = dict(lengths=np.array([6, 3]), resets=resets, reverse=True)
    final, ys = jaxrnn.unroll(ours, p, xs, **options)
    for method in (None, Loop()):
        h, got = jaxrnn.unroll(theirs, q, xs, method=method, **options)
        close(got, ys)
        close(h, final.h)


@pytest.mark.parametrize("library", GRUS)
def test_the_microscope_sees_the_same(library):
    (ours, p), (theirs, q) = library(native=True), library(native=False)
    x = inputs()[0]
    carry = jax.tree.map(lambda a: jnp.full_like(a, 0.3), ours.initial_carry(p))
    got, want = (
        analysis.step_jacobians(theirs, q, x, carry=carry.h),
        analysis.step_jacobians(ours, p, x, carry=carry),
    )
    jax.tree.map(close, got, want)
    if library is not linen_gru:
        return  # one of them is enough for what takes long to compile
    got, want = (
        analysis.gradient_decay(theirs, q, x),
        analysis.gradient_decay(ours, p, x),
    )
    jax.tree.map(close, jax.tree.leaves(got), jax.tree.leaves(want))


@pytest.mark.parametrize("library", GRUS)
def test_a_rebuilt_cell_is_the_same_cell(library):
    (one, params), (again, _) = library(native=False), library(native=False)
    assert one == again and hash(one) == hash(again)
    traces = []

    def loss(cell, params, xs):
        traces.append(cell)
        return jnp.sum(jaxrnn.unroll(cell, params, xs)[1])

    gradient = jax.jit(jax.grad(loss, argnums=1))
    xs = inputs()
    for cell in (one, again):
        got = gradient(cell, params, xs)
    assert len(traces) == 1
    assert jax.tree.structure(got) == jax.tree.structure(params)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("library", GRUS)
def test_the_dtype_is_that_of_params(library, dtype):
    dtype = jnp.dtype(dtype)
    cell, params = library(native=False, dtype=dtype)
    final, ys = jaxrnn.unroll(cell, params, jnp.asarray(inputs(), dtype))
    assert cell.initial_carry(params).dtype == final.dtype == ys.dtype == dtype


@pytest.mark.parametrize("library", GRUS)
def test_foreign_cells_make_networks(library):
    cell, params = library(native=False)
    below = jaxrnn.LSTM(2, I)
    network = Readout(Stack((below, cell)), 2)
    p = random_params(below)
    theirs = jaxrnn.ReadoutParams((p, params), jnp.ones((2, H)), None)
    xs = inputs(width=2)
    _, ys = jaxrnn.unroll(network, theirs, xs)
    _, middle = jaxrnn.unroll(below, p, xs)
    close(ys[..., 0], jaxrnn.unroll(cell, params, middle)[1].sum(-1))
    with pytest.raises(TypeError, match=r"cannot save jaxrnn\.convert\..*Cell: loading executes"):
        jaxrnn.save("never.safetensors", cell, params)


# the way back


def test_foreign_params_go_back_as_they_are():
    cell, params = linen_gru(native=False)
    assert to_linen(cell, params) is params
    cell, params = nnx_gru(native=False)
    module = to_nnx(cell, params)
    x, h = jnp.ones(I), jnp.ones(H)
    close(module(h, x)[1], cell.step(params, h, x)[1])
    nnx.update(module, jax.tree.map(jnp.zeros_like, params))
    assert not module.dense_i.kernel[...].any()


@needs("haiku")
def test_haiku_params_go_back_as_they_are():
    cell, params = haiku_gru(native=False)
    assert to_haiku(cell, params) == params
    assert to_haiku(cell, params, prefix="net/~/").keys() == {"net/~/gru"}


@needs("equinox")
def test_equinox_modules_come_back_whole():
    import equinox as eqx

    cell, params = equinox_gru(native=False)
    module = frameworks.equinox_module("equinox-gru", CASES["equinox-gru"].weights())
    assert eqx.tree_equal(to_equinox(cell, params), module)


# modules that users wrote


class LinenLeaky(nn.Module):
    features: int

    @nn.compact
    def __call__(self, carry, x):
        drive = nn.Dense(self.features, param_dtype="float64", name="drive")(x)
        drive += nn.Dense(self.features, use_bias=False, param_dtype="float64")(jnp.sin(carry["v"]))
        v = 0.9 * carry["v"] + 0.1 * drive
        return {"v": v, "count": carry["count"] + 1}, jnp.sin(v)

    def initialize_carry(self, key, input_shape):
        return {"v": jnp.zeros(self.features), "count": jnp.zeros((), jnp.int32)}


class NNXLeaky(nnx.Module):
    def __init__(self, in_features, features, rngs):
        self.in_features, self.features = in_features, features
        linear = functools.partial(nnx.Linear, param_dtype=jnp.float64, rngs=rngs)
        self.layers = nnx.List([linear(in_features, features), linear(features, features)])

    def advance(self, v, x):
        v = 0.9 * v + 0.1 * (self.layers[0](x) + self.layers[1](jnp.sin(v)))
        return v, jnp.sin(v)


def advance(module, carry, x):
    return module.advance(carry, x)


def zeros(module):
    return jnp.zeros(module.features)


def python_loop(step, carry, xs):
    """Outputs of one sequence at a time."""
    every = []
    for x in xs:
        c, ys = carry, []
        for moment in x:
            c, y = step(c, moment)
            ys.append(y)
        every.append(np.stack(ys))
    return np.stack(every)


def test_a_users_linen_module():
    module, xs = LinenLeaky(H), inputs()
    cell, _ = from_linen(module, input_size=I)
    params = random_params(cell)
    carry = {"v": jnp.zeros(H), "count": jnp.zeros((), jnp.int32)}
    want = python_loop(lambda c, x: module.apply({"params": params}, c, x), carry, xs)
    final, ys = jaxrnn.unroll(cell, params, xs)
    close(ys, want)
    assert final["count"].tolist() == [6, 6] and final["count"].dtype == jnp.int32
    drawn = module.init(jax.random.key(1), carry, xs[0, 0])["params"]
    jax.tree.map(close, cell.init(jax.random.key(1), "float64"), drawn)
    assert jaxrnn.count_parameters(cell) == H * I + H + H * H


def test_a_users_nnx_module():
    xs = inputs()
    module = NNXLeaky(I, H, nnx.Rngs(0))
    cell, params = from_nnx(module, step=advance, initial_carry=zeros)
    close(jaxrnn.unroll(cell, params, xs)[1], python_loop(module.advance, jnp.zeros(H), xs))
    again = from_nnx(NNXLeaky(I, H, nnx.Rngs(1)), step=advance, initial_carry=zeros)[0]
    assert cell == again
    with pytest.raises(ValueError, match=r"draws its params when it is made: pass from_nnx\(…, i"):
        cell.init(jax.random.key(0))
    cell, _ = from_nnx(module, step=advance, initial_carry=zeros, init=_fresh_leaky)
    got = cell.init(jax.random.key(2), "float64")
    expected = nnx.state(_fresh_leaky(jax.random.key(2)), nnx.Param)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    with pytest.raises(ValueError, match=r"NNXLeaky has no initialize_carry.*pass initial_carry="):
        from_nnx(module, step=advance)


def _fresh_leaky(key):
    return NNXLeaky(I, H, nnx.Rngs(key))


@needs("haiku")
def test_a_users_haiku_core():
    import haiku as hk

    class Leaky(hk.RNNCore):
        def __call__(self, x, v):
            drive = hk.Linear(H)(x) + hk.Linear(H)(jnp.sin(v))
            v = 0.9 * v + 0.1 * drive
            return jnp.sin(v), v

        def initial_state(self, batch_size):
            return hk.get_parameter("first", [H], jnp.float64, init=jnp.ones)  # a learned one

    xs = inputs()
    cell, _ = from_haiku(Leaky, input_size=I)
    params = random_params(cell)
    assert params.keys() == {"leaky", "leaky/linear", "leaky/linear_1"}
    pair = hk.without_apply_rng(hk.transform(lambda x, v: Leaky()(x, v)))
    want = python_loop(lambda v, x: pair.apply(params, x, v)[::-1], params["leaky"]["first"], xs)
    close(jaxrnn.unroll(cell, params, xs)[1], want)
    # a pair that there is already, in one line, as the docstring says
    pair = hk.transform(lambda x, v: Leaky()(x, v))
    own = as_cell(
        lambda p, carry, x: pair.apply(p, None, x, carry)[::-1], lambda p: p["leaky"]["first"]
    )
    close(jaxrnn.unroll(own, params, xs)[1], want)


@needs("equinox")
def test_a_users_equinox_module():
    import equinox as eqx

    class Leaky(eqx.Module):
        drive: eqx.nn.Linear
        inner: eqx.nn.Linear
        phi: object
        features: int

        def __call__(self, x, v):
            return 0.9 * v + 0.1 * (self.drive(x) + self.inner(self.phi(v)))

    def make(key):
        one, two = jax.random.split(key)
        return Leaky(eqx.nn.Linear(I, H, key=one), eqx.nn.Linear(H, H, key=two), jnp.sin, H)

    xs, module = inputs(), make(jax.random.key(0))
    cell, params = from_equinox(module, I, initial_carry=zeros, init=make)
    want = python_loop(lambda v, x: (module(x, v),) * 2, jnp.zeros(H), xs)
    close(jaxrnn.unroll(cell, params, xs)[1], want)
    assert cell == from_equinox(make(jax.random.key(1)), I, initial_carry=zeros, init=make)[0]
    drawn = cell.init(jax.random.key(1), "float64")
    assert eqx.tree_equal(cell.module(drawn), make(jax.random.key(1)))
    with pytest.raises(ValueError, match="Leaky doesn't say what it starts from: pass initial_c"):
        from_equinox(module, I)
    with pytest.raises(ValueError, match="the Equinox module Leaky doesn't say what it reads"):
        from_equinox(module, initial_carry=zeros)
    bare, _ = from_equinox(module, I, initial_carry=zeros)
    with pytest.raises(ValueError, match=r"draws its params when it is made: pass from_equinox"):
        bare.init(jax.random.key(0))


@needs("equinox")
def test_equinox_lstm_as_itself():
    module = frameworks.equinox_module("equinox-lstm", CASES["equinox-lstm"].weights())
    cell, params = from_equinox(module, native=False)
    xs = inputs()
    assert_same(run(cell, params, xs), frameworks.run_equinox(module, xs), "float64")


def test_a_convolution_reads_images():
    module = nn.ConvLSTMCell(2, (3, 3), param_dtype="float64")
    cell, _ = from_linen(module, input_size=(5, 5, 1))
    assert (cell.input_rank, cell.input_size, cell.output_size) == (3, 1, 2)
    params = random_params(cell)
    xs = np.random.RandomState(0).normal(size=(2, 3, 5, 5, 1))
    want = nn.RNN(module).apply({"params": {"cell": params}}, xs)
    close(jaxrnn.unroll(cell, params, xs, method=Scan())[1], want)


class Tokens(nn.Module):
    @nn.compact
    def __call__(self, carry, x):
        options = dict(param_dtype="float64", dtype="float64")
        return nn.GRUCell(H, **options)(carry, nn.Embed(7, I, **options)(x))


def first_of_tokens(module):
    return jnp.zeros(H)


def test_x_may_be_a_token():
    token = jax.ShapeDtypeStruct((), jnp.int32)
    cell, _ = from_linen(Tokens(), input_size=token, initial_carry=first_of_tokens)
    params = random_params(cell)
    xs = np.array([[1, 5, 2], [0, 0, 6]], np.int32)
    xs_of = params["Embed_0"]["embedding"][xs]
    gru, p = from_linen(nn.GRUCell(H), params["GRUCell_0"])
    close(jaxrnn.unroll(cell, params, xs)[1], jaxrnn.unroll(gru, p, xs_of)[1])


# what cannot be a cell


class Noisy(nnx.Module):
    def __init__(self, rngs):
        self.cell = nnx.GRUCell(I, H, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)


class Normed(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(H, rngs=rngs)


class Sequential(nn.Module):
    @nn.compact
    def __call__(self, carry, x):
        carry, y = nn.GRUCell(H)(carry, x)
        return carry, nn.BatchNorm(use_running_average=True)(y)


class Careless(nn.Module):
    @nn.compact
    def __call__(self, carry, x):
        return carry[:2], nn.Dense(2)(x)

    def initialize_carry(self, key, input_shape):
        return jnp.zeros(H)


def test_modules_with_more_than_params_are_refused():
    with pytest.raises(
        ValueError, match=r"^dropout\.rngs\.\w+ of Noisy is an nnx\.RngC?(Key|Count)"
    ):
        from_nnx(Noisy(nnx.Rngs(0)))
    with pytest.raises(
        ValueError, match=r"^norm\.mean of Normed is an nnx\.BatchStat: a cell has n"
    ):
        from_nnx(Normed(nnx.Rngs(0)))
    with pytest.raises(ValueError, match="the variables have a collection 'batch_stats'"):
        from_linen(Sequential(), input_size=I, initial_carry=first_of_tokens)


def test_modules_that_are_no_cells_are_refused():
    with pytest.raises(
        ValueError, match=r"LinenCell\.step must return a carry like the one it got"
    ):
        from_linen(Careless(), input_size=I)
    with pytest.raises(
        ValueError, match="the linen module Careless doesn't say what it reads: pass"
    ):
        from_linen(Careless())
    with pytest.raises(
        ValueError, match=r"Dense has no initialize_carry\(key, input_shape\): pass"
    ):
        from_linen(nn.Dense(3), input_size=I)


def test_import_loads_none_of_the_libraries():
    libraries = ("flax", "haiku", "keras", "equinox", "torch")
    code = (
        "import sys, jaxrnn, numpy as np; c = jaxrnn.convert; "
        "c.from_keras([np.ones((3, 4), 'f'), np.ones((4, 4), 'f')]); "
        "c.from_equinox({'weight_ih': np.ones((6, 3), 'f'), 'weight_hh': np.ones((6, 2), 'f')}); "
        "c.from_haiku(params={'lstm/linear': {'w': np.ones((3, 8), 'f'), 'b': np.ones(8, 'f')}}); "
        f"print([m for m in {libraries!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
