"""Models of whole sequences: laws over all of them. Oracles: `test_models_oracles.py`."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from oracle import assert_close, compilations
from test_errors import says

import jaxrnn
from jaxrnn import (
    GRU,
    LRU,
    LSTM,
    Bidirectional,
    Delay,
    Elman,
    Pooled,
    Readout,
    Residual,
    SelectiveSSM,
    Stack,
)
from jaxrnn.models import (
    BagOfWords,
    Classifier,
    Convolution,
    PaddedFeedForward,
    Recurrent,
    SharedFeedForward,
    Tagger,
    Transformer,
)
from jaxrnn.models.linen import LinenRecurrent

V, F, H, C = 7, 4, 3, 5  # tokens, features of a word, units, classes
B, T = 3, 5
LENGTHS = np.array([T, 2, 3])
REAL = np.arange(T) < LENGTHS[:, None]
TOKENS = np.random.default_rng(0).integers(0, V, (B, T))
LABELS = jnp.array([1, 4, 0])

TWO_WAYS = Bidirectional(Elman(F, H))
DEEP = Stack((Bidirectional(LSTM(F, H)), Bidirectional(LSTM(2 * H, H))), dropout=0.5)


@dataclasses.dataclass(frozen=True)
class Row:
    """A model as (vocabulary, options) -> model, and how many numbers it learns beside words."""

    make: Any
    count: int


def whole(model, *sizes, **fixed):
    return lambda vocabulary, **options: model(vocabulary, C, *sizes, **fixed, **options)


def elman(inputs):
    return H * (inputs + H + 1)


def lstm(inputs):
    return 4 * H * (inputs + H + 1)


def gru(inputs):
    return 3 * H * (inputs + H + 1)


def linear(inputs, outputs):
    return outputs * (inputs + 1)


ENCODER = 4 * linear(F, F) + linear(F, 6) + linear(6, F) + 2 * 2 * F

MODELS = {
    "two ways": Row(whole(Classifier, TWO_WAYS), 2 * elman(F) + linear(2 * H, C)),
    "causal": Row(whole(Classifier, GRU(F, H)), gru(F) + linear(H, C)),
    "bag": Row(whole(BagOfWords, F), linear(F, C)),
    "step": Row(whole(SharedFeedForward, F, hidden=(6, 6)), 30 + 42 + linear(6, C)),
    "padded": Row(whole(PaddedFeedForward, F, 4, hidden=(6,)), linear(4 * F, 6) + linear(6, C)),
    "convolution": Row(
        whole(Convolution, F, channels=(6, 2)),
        6 * (3 * F + 1) + 2 * (3 * 6 + 1) + linear(2, C),
    ),
    "transformer": Row(
        whole(Transformer, F, layers=1, heads=2, hidden=6), ENCODER + 2 * F + linear(F, C)
    ),
    "tagger": Row(whole(Tagger, TWO_WAYS), 2 * elman(F) + linear(2 * H, C)),
}
MORE = {
    "deep": Row(whole(Classifier, DEEP), 2 * lstm(F) + 2 * lstm(2 * H) + linear(2 * H, C)),
    "bag, fed forward": Row(
        whole(BagOfWords, F, hidden=(6,), pool="sum"), linear(F, 6) + linear(6, C)
    ),
    "convolution, mean": Row(
        whole(Convolution, F, channels=(2,), kernel=5, pool="mean"), 2 * (5 * F + 1) + linear(2, C)
    ),
    "backwards": Row(whole(Classifier, GRU(F, H), reverse=True), gru(F) + linear(H, C)),
    "late": Row(whole(Classifier, Delay(GRU(F, H), 2)), gru(F) + linear(H, C)),
    "summed": Row(
        whole(Classifier, Bidirectional(GRU(F, H), merge="sum")), 2 * gru(F) + linear(H, C)
    ),
    "apart": Row(
        whole(Classifier, Bidirectional(GRU(F, H), merge=None)), 2 * gru(F) + linear(2 * H, C)
    ),
    "over time": Row(whole(Classifier, TWO_WAYS, pool="max"), 2 * elman(F) + linear(2 * H, C)),
    "apart over time": Row(
        whole(Classifier, Bidirectional(GRU(F, H), merge=None), pool="mean"),
        2 * gru(F) + linear(2 * H, C),
    ),
    "causal over time": Row(
        whole(Classifier, GRU(F, H), pool="sum", reverse=True), gru(F) + linear(H, C)
    ),
    "pooled": Row(
        whole(Classifier, Pooled(Readout(GRU(F, H), C)), readout=False),
        2 * (gru(F) + linear(H, C)),
    ),
    "state space": Row(
        whole(Classifier, SelectiveSSM(F, 2)),
        jaxrnn.count_parameters(SelectiveSSM(F, 2)) + linear(F, C),
    ),
    "causal tagger": Row(whole(Tagger, Stack((GRU(F, H),))), gru(F) + linear(H, C)),
    "pooled tagger": Row(
        whole(Tagger, Pooled(Readout(GRU(F, H), C)), readout=False),
        2 * (gru(F) + linear(H, C)),
    ),
}
ALL = MODELS | MORE
TABLE = [
    *(pytest.param(name, id=name) for name in MODELS),
    *(pytest.param(name, id=name, marks=pytest.mark.long) for name in MORE),
]


def features(padding=0.0):
    xs = np.random.default_rng(0).normal(size=(B, T, F))
    for row, length in zip(xs, LENGTHS, strict=True):
        row[length:] = padding
    return jnp.asarray(xs)


def abstract(model, *sizes, dtype=jnp.float64, **options):
    """The model without numbers, which costs no compilation."""
    return nnx.eval_shape(lambda: model(*sizes, rngs=nnx.Rngs(0), dtype=dtype, **options))


def filled(model, *sizes, seed=0, **options):
    """The model with numbers drawn by NumPy: biases and scales too."""
    rng = np.random.default_rng(seed)
    model = abstract(model, *sizes, **options)
    state = nnx.state(model)
    numbers = [jnp.asarray(rng.normal(size=a.shape) / 2, a.dtype) for a in jax.tree.leaves(state)]
    nnx.update(model, jax.tree.unflatten(jax.tree.structure(state), numbers))
    return model


def make(name, vocabulary=None, **options):
    return filled(ALL[name].make, vocabulary, **options)


def cross_entropy(model, xs):
    out = model(xs, LENGTHS)
    logits = out[:, 1] if out.ndim == 3 else out
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean(), out


traces = []


@functools.cache
def compiled(name):
    """One program for what the laws without noise compare: (model, xs) -> values and gradients."""

    @jax.jit
    def run(model, xs):
        traces.append(name)
        (loss, out), gradients = jax.value_and_grad(cross_entropy, (0, 1), has_aux=True)(model, xs)
        alone = model(xs[1, : LENGTHS[1]])
        return dict(out=out, alone=alone, loss=loss, of_model=gradients[0], of_xs=gradients[1])

    return run


@functools.cache
def seen(name, padding=0.0):
    model = make(name)
    return model, compiled(name)(model, features(padding))


@pytest.mark.parametrize("name", TABLE)
def test_a_batch_is_its_rows_alone(name):
    _, got = seen(name)
    row = got["out"][1]
    if row.ndim == 2:
        assert not np.any(row[LENGTHS[1] :])
        row = row[: LENGTHS[1]]
    np.testing.assert_allclose(row, got["alone"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TABLE)
def test_padding_changes_nothing_and_has_no_gradient(name):
    _, clean = seen(name)
    _, spoilt = seen(name, padding=np.nan)
    jax.tree.map(np.testing.assert_array_equal, clean, spoilt)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(clean))
    assert not np.any(clean["of_xs"][~REAL])
    assert np.any(clean["of_xs"][REAL])


@pytest.mark.parametrize("name", TABLE)
def test_one_step_down_the_gradient_lowers_the_loss_without_another_trace(name):
    model, got = seen(name)
    lower = jax.tree.map(lambda p, g: np.asarray(p) - 0.01 * np.asarray(g), model, got["of_model"])
    assert compiled(name)(lower, features())["loss"] < got["loss"]
    # counted from here, as what an earlier test compiled may have been given up since
    before = traces.count(name)
    compiled(name)(make(name, seed=1), features())
    compiled(name)(model, features())
    assert traces.count(name) == before


@pytest.mark.long
@pytest.mark.parametrize("name", ALL)
def test_noise_needs_a_key_and_belongs_to_its_row(name):
    model = make(name, dropout=0.5)
    keys = jax.random.split(jax.random.key(3), B)

    @jax.jit
    def run(model, xs, keys):
        n = LENGTHS[1]
        return model(xs, LENGTHS, key=keys), model(xs[1, :n], key=keys[1])

    together, alone = run(model, features(np.nan), keys)
    row = together[1, : LENGTHS[1]] if together.ndim == 3 else together[1]
    np.testing.assert_allclose(row, alone, rtol=0, atol=1e-12)
    assert np.abs(together - seen(name)[1]["out"]).max() > 1e-3


@pytest.mark.parametrize("name", ALL)
def test_dtype_and_number_of_parameters(name):
    for dtype in (jnp.float32, jnp.float64):
        model = abstract(ALL[name].make, V, dtype=dtype)
        leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
        assert {leaf.dtype for leaf in leaves} == {jnp.dtype(dtype)}
        assert sum(leaf.size for leaf in leaves) == ALL[name].count + V * F
        assert len(leaves) == len(jax.tree.leaves(model))  # nothing else is kept


@pytest.mark.parametrize("name", ["two ways", "late", "tagger"])
def test_no_steps_at_all_are_no_error(name):
    model = make(name)
    for lengths in (None, np.zeros(2, int)):
        got = model(jnp.zeros((2, 0, F)), lengths)
        assert got.shape == (2, 0, C) if name == "tagger" else np.isfinite(got).all()


def test_what_is_called_by_itself_is_compiled_once():
    model, other = make("two ways", V), make("two ways", V)
    for one in (
        lambda model: model.confidences(TOKENS, LENGTHS),
        lambda model: model.shares(TOKENS, LENGTHS, by="leave_one_out"),
    ):
        one(model)
        with compilations() as found:
            one(model), one(other)
        assert not found


# ---- words and noise


def test_a_frozen_embedding_stays():
    table = np.random.default_rng(1).normal(size=(V, F))
    options = dict(embedding=table, rngs=nnx.Rngs(0), dtype=jnp.float64)
    model = BagOfWords(V, C, F, frozen=True, **options)
    assert not jax.tree.leaves(nnx.state(model.inputs, nnx.Param))
    free = BagOfWords(V, C, F, **options)
    assert len(jax.tree.leaves(nnx.state(free.inputs, nnx.Param))) == 1
    nnx.update(free.linear, nnx.state(model.linear))
    logits = model(TOKENS, LENGTHS)
    assert_close(logits, free(TOKENS, LENGTHS))
    # zero even for the plain pytree, where nothing is told apart
    gradient = jax.jit(jax.grad(lambda model: cross_entropy(model, TOKENS)[0]))(model)
    assert not np.any(gradient.inputs.embedding[...])
    decay = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1))
    nnx.Optimizer(model, decay, wrt=nnx.Param).update(model, nnx.state(gradient, nnx.Param))
    np.testing.assert_array_equal(model.inputs.embedding[...], table)
    assert np.abs(model(TOKENS, LENGTHS) - logits).max() > 1e-3


@pytest.mark.parametrize("name", ["bag", "tagger"])
def test_tokens_are_their_vectors_and_none_is_special(name):
    model = make(name, V)
    by_vector = make(name)
    for part in {"recurrent", "linear"} & set(vars(model)):
        nnx.update(getattr(by_vector, part), nnx.state(getattr(model, part)))
    words = model.inputs.embedding[...][TOKENS]
    want = by_vector(words, LENGTHS)
    for padding in (0, 3, -1, 10**6):
        assert_close(model(np.where(REAL, TOKENS, padding), LENGTHS), want)
    assert (TOKENS[REAL] == 0).any()  # a word like any other


def test_dropout_at_half_has_the_right_mean_and_drops_half():
    model = make("bag", dropout=0.5)
    keys = jax.random.split(jax.random.key(0), 4000)
    word = features()[0, :1]
    noisy = np.asarray(jax.jit(jax.vmap(lambda key: model(word, key=key)))(keys))
    error = noisy.std(0) / np.sqrt(len(keys))
    assert np.all(np.abs(noisy.mean(0) - model(word)) < 5 * error)
    # a feature survives both places with probability 1/4, and none does with (3/4)^F
    nothing = np.all(noisy == np.asarray(model.linear.bias[...]), axis=-1).mean()
    expected = 0.75**F
    assert abs(nothing - expected) < 5 * np.sqrt(expected * (1 - expected) / len(keys))


# ---- Recurrent


def complex_step(params, carry, x):
    h = params["a"] * carry + params["b"] @ x.astype(carry.dtype)
    return h, h.real


def complex_carry(params):
    return jnp.zeros_like(params["a"])


def complex_init(key, dtype):
    k, l = jax.random.split(key)
    wide = jnp.promote_types(dtype, jnp.complex64) if dtype == jnp.float32 else jnp.complex128
    return {
        "a": 0.5 * jax.random.normal(k, (H,), wide),
        "b": jax.random.normal(l, (H, F), dtype).astype(wide),
        "ticks": jnp.zeros((), jnp.int32),
    }


COMPLEX = jaxrnn.as_cell(complex_step, complex_carry, complex_init)


def test_recurrent_is_unroll_with_its_params():
    network = Stack((Elman(F, H), LRU(H, 2, H)), dropout=0.5)
    recurrent = filled(Recurrent, network)
    xs, key = features(), jax.random.key(1)
    options = dict(lengths=LENGTHS, key=key)
    want = jaxrnn.unroll(network, recurrent.tree, xs, **options)
    jax.tree.map(np.testing.assert_array_equal, recurrent(xs, **options), want)
    again = nnx.merge(*nnx.split(recurrent))
    jax.tree.map(np.testing.assert_array_equal, again(xs, **options), want)
    carry, ys, step = recurrent.initial_carry(), [], jax.jit(Recurrent.step)
    for t, x in enumerate(xs[0]):
        # what `unroll` says of its keys
        of_step = jax.random.fold_in(jax.random.fold_in(key, 0), t)
        carry, y = step(recurrent, carry, x, of_step)
        ys.append(y)
    assert_close(jnp.stack(ys), want[1][0])
    assert "1.log_nu" in recurrent.params
    fresh = jax.tree.map(lambda leaf: leaf / 2, recurrent.tree)
    recurrent.set_tree(fresh)
    jax.tree.map(np.testing.assert_array_equal, recurrent.tree, fresh)


def test_a_method_is_the_modules_own():
    model = make("causal")
    exact = model(features(), LENGTHS)
    model.recurrent.method = jaxrnn.Scan(checkpoint=True)
    assert_close(model(features(), LENGTHS), exact)
    model.recurrent.method = jaxrnn.Staged(compute_dtype="bfloat16")
    assert 1e-9 < np.abs(model(features(), LENGTHS) - exact).max() < 0.1


def test_recurrent_learns_complex_params_and_leaves_whole_numbers():
    recurrent = Recurrent(COMPLEX, rngs=nnx.Rngs(0), dtype=jnp.float64)

    def loss(recurrent):
        return jnp.sum(recurrent(features())[1] ** 2)

    gradient = jax.jit(nnx.grad(loss))(recurrent)
    optimizer = nnx.Optimizer(recurrent, optax.sgd(1e-2), wrt=nnx.Param)
    before = loss(recurrent)
    # JAX gives the conjugate of the direction of steepest ascent
    optimizer.update(recurrent, jax.tree.map(jnp.conj, gradient))
    assert loss(recurrent) < before
    assert recurrent.tree["ticks"].dtype == jnp.int32
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype(jnp.complex128)}


@pytest.mark.long
def test_recurrent_holds_a_foreign_module():
    module = nnx.GRUCell(F, H, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    cell, params = jaxrnn.convert.from_nnx(module, native=False)
    cell = dataclasses.replace(cell, init_function=draw_foreign)
    recurrent = Recurrent(cell, rngs=nnx.Rngs(1), dtype=jnp.float64)
    recurrent.set_tree(params)
    _, want = nnx.RNN(module)(features(), return_carry=True)
    assert_close(recurrent(features())[1], want)
    optimizer = nnx.Optimizer(recurrent, optax.sgd(1e-2), wrt=nnx.Param)
    optimizer.update(recurrent, nnx.grad(lambda m: m(features())[1].sum())(recurrent))


def draw_foreign(key):
    return nnx.GRUCell(F, H, rngs=nnx.Rngs(params=key), param_dtype=jnp.float64)


def test_linen_twin():
    class Reader(linen.Module):
        @linen.compact
        def __call__(self, xs, lengths):
            return LinenRecurrent(TWO_WAYS, jnp.float64, name="reader")(xs, lengths=lengths)

    variables = Reader().init(jax.random.key(0), features(), LENGTHS)
    params = variables["params"]["reader"]["network"]
    got = Reader().apply(variables, features(), LENGTHS)
    want = jaxrnn.unroll(TWO_WAYS, params, features(), lengths=LENGTHS)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    slope = jax.grad(lambda v: Reader().apply(v, features(), LENGTHS)[1].sum())
    gradient = jax.eval_shape(slope, variables)
    assert jax.tree.structure(gradient) == jax.tree.structure(variables)


# ---- errors


def test_errors():
    rngs = nnx.Rngs(0)
    model = filled(Classifier, V, C, GRU(F, H))
    numbers = filled(Classifier, None, C, GRU(F, H))
    with says(ValueError, "float64[3, 5, 4]", "expected integer tokens", "vocabulary=None"):
        model(features())
    with says(ValueError, "got token 7, expected 0…6"):
        model(TOKENS + (TOKENS == 6))
    with says(ValueError, "got inputs int64[3, 5]", "expected floating features", "4)"):
        numbers(TOKENS)
    with says(ValueError, "embedding has shape (7, 3)", "(7, 4)"):
        Classifier(V, C, GRU(F, H), embedding=np.zeros((7, 3)), rngs=rngs)
    with says(ValueError, "an embedding is for tokens"):
        BagOfWords(None, C, F, frozen=True, rngs=rngs)
    with says(ValueError, "Residual ends", "let its last layer be a Bidirectional"):
        abstract(Classifier, V, C, Residual(Bidirectional(GRU(F, 2))))
    with says(ValueError, "readout=False", "3 outputs", "5 classes", "Readout"):
        abstract(Tagger, V, C, GRU(F, H), readout=False)
    with says(ValueError, "dropout must be in [0, 1)"):
        Tagger(V, C, GRU(F, H), dropout=1.0, rngs=rngs)
    with says(ValueError, "lengths holds 6, expected 0…5"):
        model(TOKENS, LENGTHS + 1)
    with says(ValueError, "by must be 'gradient' or 'leave_one_out'"):
        model.shares(TOKENS, by="magic")
    with says(ValueError, "Classifier: pool must be one of 'last', 'sum'", "'attention'"):
        abstract(Classifier, V, C, GRU(F, H), pool="attention")
    with says(ValueError, "pool must be one of", "'min'"):
        BagOfWords(V, C, F, pool="min", rngs=rngs)
    with says(ValueError, "an odd kernel", "kernel=2"):
        Convolution(V, C, F, kernel=2, rngs=rngs)
    with says(ValueError, "a multiple of heads, got 4 and 3"):
        Transformer(V, C, F, heads=3, rngs=rngs)
    with says(ValueError, "got features of float64, expected float32", "xs.astype('float32')"):
        filled(BagOfWords, None, C, F, dtype=jnp.float32)(features())
    with says(ValueError, "got label 5, expected 0…4"):
        model.shares(TOKENS, label=5)
    with says(TypeError, "got the class GRU, expected an instance"):
        Classifier(V, C, GRU, rngs=rngs)
    with says(TypeError, "int has no method initial_carry"):
        Classifier(V, C, 3, rngs=rngs)
    for make_it in (
        lambda: BagOfWords(0, C, F, rngs=rngs),
        lambda: BagOfWords(V, 0, F, rngs=rngs),
        lambda: PaddedFeedForward(V, C, F, -1, rngs=rngs),
        lambda: Transformer(V, C, F, heads=0, rngs=rngs),
    ):
        with says(ValueError, "must be a whole number of at least 1"):
            make_it()
    with says(ValueError, "not params of GRU", "got", "expected"):
        model.recurrent.set_tree(make("two ways").recurrent.tree)
    with says(TypeError, "the class GRU", "expected an instance"):
        Recurrent(GRU, rngs=rngs)
