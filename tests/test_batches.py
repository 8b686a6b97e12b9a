"""Batches: a pure plan, every example once an epoch, little padding; windows of text."""

import pickle
import re

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.train.batches import Batches
from jaxrnn.train.sources import Prefetched, Samples, Windows


def sequences(lengths):
    """Sequence i holds 1000 i + 1, 1000 i + 2, …: each number says where it comes from."""
    return [1000 * i + 1 + np.arange(length) for i, length in enumerate(lengths)]


def ragged(count=500, longest=300, seed=0):
    lengths = np.random.default_rng(seed).integers(1, longest, count)
    return {"xs": sequences(lengths), "label": np.arange(count)}, lengths


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


@hypothesis.settings(max_examples=30)
@hypothesis.given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=60),
    size=st.integers(1, 12),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
)
def test_an_epoch_holds_every_example_once_and_whole(lengths, size, epoch, shuffle):
    data = {"xs": sequences([*lengths, 1]), "label": np.arange(len(lengths) + 1)}
    batches = Batches(data, size, shuffle=shuffle)
    seen = []
    for position in range(epoch * len(batches), (epoch + 1) * len(batches)):
        batch = batches[position]
        assert len(batch["xs"]) <= size
        for row, length, label in zip(batch["xs"], batch["lengths"], batch["label"], strict=True):
            assert np.array_equal(row[:length], data["xs"][label])
            assert not row[length:].any()
            seen.append(label)
    assert sorted(seen) == list(range(len(lengths) + 1))


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.integers(1, 1000, n),
        lambda rng, n: rng.geometric(0.02, n),
        lambda rng, n: np.exp(rng.normal(3, 1, n)).astype(int) + 1,
        lambda rng, n: np.where(rng.random(n) < 0.5, 5, 500),
    ],
    ids=["uniform", "geometric", "lognormal", "two lengths"],
)
@pytest.mark.parametrize("size", [16, 64])
def test_little_is_padding_and_shapes_are_few(draw, size):
    lengths = draw(np.random.default_rng(1), 4000)
    batches = Batches({"xs": sequences(lengths)}, size)
    for epoch in range(2):
        epochs = range(epoch * len(batches), (epoch + 1) * len(batches))
        shapes = [batches[position]["xs"].shape for position in epochs]
        assert lengths.sum() / sum(map(np.prod, shapes)) > 0.8
        assert len(set(shapes)) <= 20
    even = Batches({"xs": sequences(lengths)}, size, drop_last=True)
    assert {len(batch["xs"]) for batch in even} == {size}
    in_order = [lengths[i : i + size] for i in range(0, 4000, size)]
    assert lengths.sum() / sum(len(part) * part.max() for part in in_order) < 0.7  # else no feat


def test_buckets_are_as_few_as_they_can_be():
    # by hand: of 1, …, 8 in batches of two, {8, 7, 6, 5} and {4, 3, 2, 1} pad 12 of 48 positions,
    # {8 … 5}, {4, 3}, {2, 1} pad 8 of 44, and no two buckets pad less than 12
    def shapes(share):
        data = {"xs": sequences(range(1, 9))}
        batches = Batches(data, 2, padding=share, drop_last=True)
        return sorted({batch["xs"].shape[1] for batch in batches})

    assert shapes(0.26) == [4, 8]
    assert len(shapes(0.24)) == 3
    assert shapes(0.01) == [2, 4, 6, 8]
    assert shapes(1) == [8]


def test_a_length_that_stands_out_makes_a_batch_smaller():
    # ten together, they take 1000 positions for 190 steps; two, and eight others, 280
    data = {"xs": sequences([10] * 39 + [100])}
    shapes = [batch["xs"].shape for batch in Batches(data, 10)]
    assert sorted(shapes) == [(2, 100), (8, 10), *[(10, 10)] * 3]
    assert {batch["xs"].shape for batch in Batches(data, 10, padding=1)} == {(10, 100)}


def test_the_plan_is_a_pure_function_of_seed_and_position():
    data, _ = ragged()
    batches, again = Batches(data, 32, seed=7), Batches(data, 32, seed=7)
    asked = [0, 40, 3, 16, 15, 3, 1000, 0]
    for position in asked:
        same(batches[position], again[position])
    for position in reversed(asked):  # whatever was asked before
        same(batches[position], again[position])
    same(pickle.loads(pickle.dumps(batches))[17], again[17])

    def order(batches, epoch):
        positions = range(epoch * len(batches), (epoch + 1) * len(batches))
        return [label for n in positions for label in batches[n]["label"].tolist()]

    orders = [order(batches, 0), order(batches, 1), order(Batches(data, 32, seed=8), 0)]
    assert len({tuple(o) for o in orders}) == 3
    meets = [{frozenset(b["label"].tolist()) for b in Batches(data, 32, seed=s)} for s in (7, 8)]
    assert not meets[0] & meets[1]  # not only the order of batches is drawn


def test_plain_arrays_and_any_tree():
    data = (np.arange(10), {"x": np.arange(20).reshape(10, 2)})
    batches = Batches(data, 4)
    assert [len(batch[0]) for batch in batches].count(4) == 2
    rows = np.concatenate([batch[0] for batch in batches])
    assert sorted(rows) == list(range(10))
    assert all(np.array_equal(b[1]["x"][:, 0], 2 * b[0]) for b in batches)
    whole = [batch[0] for batch in Batches(data, 4, drop_last=True)]
    assert [len(rows) for rows in whole] == [4, 4]
    in_order = Batches(data, 4, shuffle=False)
    assert [batch[0].tolist() for batch in in_order] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [row["x"].tolist() for row in Batches({"x": [3, 1, 2]}, 3, shuffle=False)] == [[3, 1, 2]]


def test_two_lists_of_their_own_lengths():
    rng = np.random.default_rng(0)
    source = sequences(rng.integers(1, 50, 200))
    target = sequences(rng.integers(0, 80, 200))
    for batch in Batches({"source": source, "target": target}, 8):
        lengths = batch["lengths"]
        assert 2 <= len(batch["source"]) <= 8
        for i in range(len(batch["source"])):
            example = batch["source"][i, 0] // 1000
            assert lengths["source"][i] == len(source[example])
            n = lengths["target"][i]
            assert np.array_equal(batch["target"][i, :n], target[example])
    alike = Batches({"words": source, "tags": [s + 1 for s in source]}, 8, drop_last=True)[0]
    assert alike["lengths"].shape == (8,)
    assert alike["words"].shape == alike["tags"].shape


def test_vectors_and_dtypes_stay():
    data = {"xs": [np.ones((n, 3), np.float32) for n in (2, 5, 1)], "empty": [[], [1], [2, 3]]}
    batch = Batches(data, 3, drop_last=True)[0]
    assert (batch["xs"].shape, batch["xs"].dtype) == ((3, 5, 3), np.float32)
    assert batch["empty"].dtype == np.array([1]).dtype
    assert batch["lengths"]["xs"].dtype == np.int32


def test_an_empty_sequence_is_one_of_its_list():
    data = {"xs": [[], np.ones((2, 3), np.float32)], "none": [[], []]}
    batch = Batches(data, 2, padding=1)[0]
    assert (batch["xs"].shape, batch["xs"].dtype) == ((2, 2, 3), np.float32)
    assert sorted(batch["lengths"]["xs"]) == [0, 2] and not batch["lengths"]["none"].any()
    assert batch["none"].shape == (2, 1)
    typed = Batches({"xs": [np.zeros((0, 3), np.int8)] * 2}, 2)[0]["xs"]
    assert (typed.shape, typed.dtype) == ((2, 1, 3), np.int8)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (
            lambda: Batches({"a": [np.ones((5, 3)), np.ones((4, 1))]}, 2),
            "differ in length alone: a[1] has shape (4, 1), expected (length, 3)",
        ),
        (
            lambda: Batches({"a": [[], np.ones(3), np.ones((5, 3))]}, 2),
            "differ in length alone: a[2] has shape (5, 3), expected (length)",
        ),
        (lambda: Batches({"a": [1, [2, 3]]}, 2), "a[0] has shape (), expected (length)"),
        (lambda: Batches({"a": np.ones(3), "b": np.ones(4)}, 2), "the same number of examples"),
        (lambda: Batches({"a": np.ones(3)}, 0), "size must be a whole number of at least 1, got 0"),
        (lambda: Batches({"a": np.ones(3)}, 4, drop_last=True), "3 examples do not fill one batch"),
        (lambda: Batches([np.ones(3), np.ones(4)], 2), "belong into a dict"),
        (lambda: Batches({"a": [[1, 2], [1]], "lengths": np.ones(2)}, 2), "without an entry"),
        (lambda: Batches({"a": np.ones(3)}, 2, padding=0), "padding must be a share"),
        (lambda: Windows(np.arange(8), 2, 4), "8 steps are too few for 2 rows of a window of 4"),
        (lambda: Batches({"a": np.ones(3)}, 2)[-1], "positions are counted from 0, got -1"),
    ],
)
def test_errors_say_what_to_do(call, sentence):
    with pytest.raises((ValueError, TypeError, IndexError), match=re.escape(sentence)):
        call()


def test_windows_go_on_where_they_stopped():
    text = np.arange(1003) % 97
    windows = Windows(text, batch=4, window=25)
    assert len(windows) == 10
    rows = np.concatenate([batch["tokens"] for batch in windows], axis=1)
    assert np.array_equal(rows.reshape(-1), text[:1000])  # every row a stretch of the text
    targets = np.concatenate([batch["targets"] for batch in windows], axis=1)
    assert np.array_equal(targets.reshape(-1), text[1:1001])
    same(windows[3], windows[13])
    series = np.random.default_rng(0).normal(size=(101, 3))
    assert Windows(series, 2, 10)[4]["targets"].shape == (2, 10, 3)
    assert len(Windows(np.arange(9), 2, 4)) == 1


def test_samples_are_a_function_of_key_and_position():
    def sample(key):
        return {"x": jax.random.normal(key, (3,)), "n": jnp.int32(1)}

    samples = Samples(sample, 5, key=jax.random.key(3))
    assert len(samples) == 1000
    batch = samples[1234]
    assert batch["x"].shape == (5, 3)
    same(batch, Samples(sample, 5, key=jax.random.key(3))[1234])
    keys = jax.random.split(jax.random.fold_in(jax.random.key(3), 1234), 5)
    assert np.array_equal(batch["x"][4], jax.random.normal(keys[4], (3,)))
    assert len({float(x) for n in range(3) for x in samples[n]["x"].ravel()}) == 45


def test_grain_carries_the_same_batches():
    grain = pytest.importorskip("grain")
    batches = Batches(ragged(count=70)[0], 16)
    for mine, theirs in zip(batches, grain.MapDataset.source(batches), strict=True):
        same(mine, theirs)
    sampler = grain.samplers.SequentialSampler(len(batches))
    loader = grain.DataLoader(data_source=batches, sampler=sampler, worker_count=0)
    for mine, theirs in zip(batches, loader, strict=True):
        same(mine, theirs)
    ahead = Prefetched(batches)
    assert len(ahead) == len(batches)
    for position in [0, 1, 2, 3, 4, 5, 6, 7, 20, 21, 3]:  # over the epoch, ahead and back
        same(batches[position], ahead[position])


@pytest.mark.long  # each worker is a process that imports all it needs
def test_grain_carries_the_same_batches_with_two_workers():
    pytest.importorskip("grain")
    batches = Batches(ragged(count=70)[0], 16)
    ahead = Prefetched(batches, workers=2)
    for position in [3, 4, 5, 6, 7, 8, 9]:
        same(batches[position], ahead[position])
