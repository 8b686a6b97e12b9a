"""Models against PyTorch, NumPy and closed forms, and against running parts by themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracle import assert_close
from test_models import (
    LABELS,
    LENGTHS,
    REAL,
    TOKENS,
    B,
    C,
    F,
    H,
    T,
    V,
    cross_entropy,
    features,
    filled,
    make,
)

import jaxrnn
from jaxrnn import BidirectionalParams, Elman, Pooled, Readout
from jaxrnn.models import BagOfWords, Classifier, Tagger, Transformer


def test_classifier_is_pytorchs():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    words = torch.nn.Embedding(V, F).double()
    lstm = torch.nn.LSTM(F, H, num_layers=2, bidirectional=True, batch_first=True).double()
    linear = torch.nn.Linear(2 * H, C).double()
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        words(torch.tensor(TOKENS)), LENGTHS, batch_first=True, enforce_sorted=False
    )
    _, (h, _) = lstm(packed)
    logits = linear(torch.cat([h[-2], h[-1]], dim=1))
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(np.asarray(LABELS)).long())
    loss.backward()

    network, params = jaxrnn.convert.from_torch(lstm.state_dict())
    model = filled(Classifier, V, C, network)
    model.inputs.embedding[...] = jnp.asarray(words.weight.detach().numpy())
    model.recurrent.set_tree(params)
    model.linear.kernel[...] = jnp.asarray(linear.weight.detach().numpy().T)
    model.linear.bias[...] = jnp.asarray(linear.bias.detach().numpy())
    slope = jax.value_and_grad(lambda model: cross_entropy(model, TOKENS), has_aux=True)
    (_, out), gradient = jax.jit(slope)(model)
    assert_close(out, logits.detach().numpy())
    assert_close(gradient.inputs.embedding[...], words.weight.grad.numpy())
    assert_close(gradient.linear.kernel[...], linear.weight.grad.numpy().T)
    # their gradients have the layout of their weights
    theirs = {name: weight.grad for name, weight in lstm.named_parameters()}
    assert_close(gradient.recurrent.tree, jaxrnn.convert.from_torch(theirs)[1])


def test_tagger_is_pytorchs():
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    gru = torch.nn.GRU(F, H, bidirectional=True, batch_first=True).double()
    xs = features()
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(np.asarray(xs)), LENGTHS, batch_first=True, enforce_sorted=False
    )
    ys = torch.nn.utils.rnn.pad_packed_sequence(gru(packed)[0], batch_first=True)[0]
    network, params = jaxrnn.convert.from_torch(gru.state_dict())
    model = filled(Tagger, None, C, network)
    model.recurrent.set_tree(params)
    want = ys.detach().numpy() @ model.linear.kernel[...] + model.linear.bias[...]
    assert_close(model(xs, LENGTHS), np.where(REAL[..., None], want, 0))


def test_transformer_is_pytorchs():
    torch = pytest.importorskip("torch")
    model = filled(Transformer, None, C, F, heads=2, hidden=6)

    def given(module, **arrays):
        for name, array in arrays.items():
            getattr(module, name).data = torch.tensor(np.asarray(array))

    def layer_of(ours):
        layer = torch.nn.TransformerEncoderLayer(
            F, 2, 6, dropout=0, activation="relu", layer_norm_eps=1e-6, batch_first=True,
            norm_first=True, dtype=torch.float64,
        )  # fmt: skip
        a = ours.attention
        into = [getattr(a, name) for name in ("query", "key", "value")]
        given(
            layer.self_attn,
            in_proj_weight=jnp.concatenate([m.kernel[...].reshape(F, F).T for m in into]),
            in_proj_bias=jnp.concatenate([m.bias[...].ravel() for m in into]),
        )
        given(layer.self_attn.out_proj, weight=a.out.kernel[...].reshape(F, F).T, bias=a.out.bias)
        given(layer.linear1, weight=ours.up.kernel[...].T, bias=ours.up.bias[...])
        given(layer.linear2, weight=ours.down.kernel[...].T, bias=ours.down.bias[...])
        for theirs, norm in zip((layer.norm1, layer.norm2), ours.norms, strict=True):
            given(theirs, weight=norm.scale[...], bias=norm.bias[...])
        return layer.eval()

    # Vaswani et al. 2017, section 3.5
    places = np.zeros((T, F))
    for t in range(T):
        for i in range(F // 2):
            angle = t / 10000 ** (2 * i / F)
            places[t, 2 * i : 2 * i + 2] = np.sin(angle), np.cos(angle)
    h = torch.tensor(np.asarray(features()) + places)
    for layer in model.layers:
        h = layer_of(layer)(h, src_key_padding_mask=torch.tensor(~REAL))
    h = torch.nn.functional.layer_norm(
        h,
        (F,),
        torch.tensor(np.asarray(model.norm.scale[...])),
        torch.tensor(np.asarray(model.norm.bias[...])),
        1e-6,
    )
    mean = (h.detach().numpy() * REAL[..., None]).sum(1) / LENGTHS[:, None]
    want = mean @ np.asarray(model.linear.kernel[...]) + np.asarray(model.linear.bias[...])
    assert_close(nnx.jit(model)(features(), LENGTHS), want)


def relu(x):
    return np.maximum(x, 0)


def dense(layer, x):
    return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


def row_of(name, model, x):
    """Logits of one row without padding, in NumPy."""
    if name == "bag":
        return dense(model.linear, x.mean(0))
    if name == "bag, fed forward":
        return dense(model.linear, relu(dense(model.layers.layers[0], x.sum(0))))
    if name == "step":
        first, second = model.layers.layers
        return dense(model.linear, sum(relu(dense(second, relu(dense(first, v)))) for v in x))
    if name == "padded":
        window = np.zeros((4, F))
        window[: min(len(x), 4)] = x[:4]
        return dense(model.linear, relu(dense(model.layers.layers[0], window.ravel())))
    for layer in model.layers:
        kernel = np.asarray(layer.kernel[...])
        side = len(kernel) // 2
        padded = np.pad(x, [(side, side), (0, 0)])
        windows = [
            np.einsum("kf,kfc->c", padded[t : t + len(kernel)], kernel) for t in range(len(x))
        ]
        x = relu(np.array(windows) + np.asarray(layer.bias[...]))
    return dense(model.linear, x.max(0) if name == "convolution" else x.mean(0))


@pytest.mark.parametrize(
    "name", ["bag", "bag, fed forward", "step", "padded", "convolution", "convolution, mean"]
)
def test_baselines_are_numpys(name):
    model, xs = make(name), np.asarray(features())
    want = [row_of(name, model, x[:n]) for x, n in zip(xs, LENGTHS, strict=True)]
    assert_close(model(features(np.nan), LENGTHS), np.array(want))


@pytest.mark.parametrize(
    "name, pooled",
    [
        ("over time", lambda ys: ys.max(0)),
        ("apart over time", lambda ys: ys.mean(0)),
        ("causal over time", lambda ys: ys.sum(0)),
    ],
)
def test_a_classifier_reads_all_steps_together(name, pooled):
    model = make(name)
    network, reverse = model.recurrent.network, model.reverse
    for b, n in enumerate(LENGTHS):
        xs = features()[b, :n]
        _, ys = jaxrnn.unroll(network, model.recurrent.tree, xs, reverse=reverse)
        ys = np.concatenate(jax.tree.leaves(ys), axis=-1)  # of a GRU kept apart there are two
        assert_close(model(xs), dense(model.linear, pooled(ys)))


def test_two_directions_trained_apart_are_pooled():
    network = Readout(Elman(F, H), C)
    there = filled(Classifier, None, C, network, readout=False)
    back = filled(Classifier, None, C, network, readout=False, reverse=True, seed=1)
    p, q = (jax.nn.softmax(model(features(), LENGTHS)) for model in (there, back))
    geometric = np.sqrt(p * q)
    for pool, want in [
        ("linear", (p + q) / 2),
        ("logarithmic", geometric / geometric.sum(-1, keepdims=True)),
    ]:
        both = filled(Classifier, None, C, Pooled(network, pool=pool), readout=False)
        both.recurrent.set_tree(BidirectionalParams(there.recurrent.tree, back.recurrent.tree))
        assert_close(jnp.exp(both(features(), LENGTHS)), want)


def test_a_delay_ends_when_it_has_read_everything_and_waited():
    late, now = make("late"), make("causal")
    now.recurrent.set_tree(late.recurrent.tree)
    nnx.update(now.linear, nnx.state(late.linear))
    silence = jnp.zeros((2, F))
    for b, n in enumerate(LENGTHS[:2]):
        xs = features()[b, :n]
        assert_close(late(xs), now(jnp.concatenate([xs, silence])))


# ---- what it thinks on the way, and why


@pytest.mark.parametrize("name", ["two ways", "causal", "causal over time", "bag"])
def test_confidences_are_those_of_prefixes(name):
    model = make(name)
    got = model.confidences(features(np.nan), LENGTHS)
    prefix = nnx.jit(lambda model, xs, n: jax.nn.softmax(model(xs, n)))
    for b, length in enumerate(LENGTHS):
        assert not np.any(got[b, length:])
        for n in range(1, length + 1):
            # what follows is not there for it
            words = features()[b].at[n:].set(np.nan)
            np.testing.assert_allclose(got[b, n - 1], prefix(model, words, n), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["two ways", "bag"])
def test_leave_one_out_against_a_loop(name):
    model, label = make(name, V), 2
    got = model.shares(TOKENS, LENGTHS, label=np.full(B, label), by="leave_one_out")
    logs = nnx.jit(lambda model, tokens, n: jax.nn.log_softmax(model(tokens, n))[label])
    for b, length in enumerate(LENGTHS):
        assert not np.any(got[b, length:])
        for t in range(length):
            fewer = np.append(np.delete(TOKENS[b], t), 0)
            share = logs(model, TOKENS[b], length) - logs(model, fewer, length - 1)
            np.testing.assert_allclose(got[b, t], share, rtol=0, atol=1e-12)
    # one class may be asked about in all rows
    assert_close(model.shares(TOKENS, LENGTHS, label=label, by="leave_one_out"), got)


def test_gradient_shares_of_a_sum_in_closed_form():
    model = filled(BagOfWords, V, C, F, pool="sum")
    got = model.shares(TOKENS, LENGTHS)
    logits = model(TOKENS, LENGTHS)
    k = np.argmax(logits, -1)
    # ∂ ln p_k / ∂ logits = e_k − p, and the logits are linear in every word
    slope = np.eye(C)[k] - jax.nn.softmax(logits)
    words = model.inputs.embedding[...][TOKENS] @ model.linear.kernel[...]
    assert_close(got, np.where(REAL, np.einsum("btc,bc->bt", words, slope), 0))
    # all words together, to first order, from no words to all of them
    assert_close(model.shares(TOKENS[:1]), got[:1])
