"""The character model: against PyTorch, its cuts of the text, its baselines, its saved model."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import _text as texts
from experiments import character_model as characters
from experiments._common import UsageError
from jaxrnn import train

VERSE = "Tell me, O Muse, of that ingenious hero who travelled far and wide. "


pytestmark = pytest.mark.usefixtures("as_a_user_runs_it")


@pytest.fixture(scope="module")
def verse(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "verse.txt"
    path.write_text(VERSE * 80, encoding="utf-8")
    return path


def small(verse, tmp_path, **options):
    sizes = dict(hidden_size=24, window=10, batch=4, steps=200, held_out=150, sample=68)
    options = {"learning_rate": 1e-2, "text": verse, "output": tmp_path, **sizes, **options}
    return characters.Config(**options)


def test_it_learns_a_verse_and_writes_it_again_from_its_folder(verse, tmp_path, capsys):
    config = small(verse, tmp_path, temperatures=(0.1,))
    result = characters.run(config)
    assert result["bits"]["LSTM"] < 0.5 < 2 < result["bits"]["counts, no context"]
    shown = capsys.readouterr().out
    assert "bits per character" in shown and "ingenious hero" in shown
    folder = tmp_path / "character_model"
    again = characters.run(
        dataclasses.replace(config, generate=folder, prompt="Tell me,", temperatures=(0.0,))
    )
    assert again["samples"]["0"].startswith(" O Muse, of that ingenious hero")
    # a second run finds everything done, and a model of another kind is not trained over it
    assert characters.run(config)["bits"] == result["bits"]
    with pytest.raises(UsageError, match="holds a model that differs in hidden_size"):
        characters.run(dataclasses.replace(config, hidden_size=12))
    with pytest.raises(
        UsageError, match=r"--prompt takes characters that the model knows, not \['ß'"
    ):
        characters.run(dataclasses.replace(config, generate=folder, prompt="ß"))


def test_bits_are_those_of_reading_step_by_step(verse, tmp_path):
    config = small(verse, tmp_path, window=7)
    alphabet = texts.most_frequent(VERSE)
    ids = alphabet.encode(VERSE)
    model = characters.build(config, alphabet.size)
    for predict in ("all", "last"):
        got = characters.bits(dataclasses.replace(config, predict=predict), model, ids)
        assert got.shape == (len(ids) - 7,)
        for place in (0, 30, len(got) - 1):
            carry, start = model.initial_carry(), 0 if predict == "all" else place
            for token in ids[start : place + 7]:
                carry, logits = model.step(carry, jnp.asarray(token))
            nats = -jax.nn.log_softmax(logits)[ids[place + 7]]
            assert got[place] == pytest.approx(float(nats) / math.log(2), rel=1e-4)


def test_windows_for_the_last_character_are_cuts_of_the_text():
    ids = np.arange(500)
    batches = characters.LastOnly(ids, 4, 9, seed=0)
    batch = batches[3]
    assert batch["tokens"].shape == (4, 9)
    assert np.all(np.diff(batch["tokens"]) == 1)
    np.testing.assert_array_equal(batch["targets"], batch["tokens"][:, -1] + 1)
    np.testing.assert_array_equal(batches[3]["tokens"], batch["tokens"])
    assert not np.array_equal(batches[4]["tokens"], batch["tokens"])


def test_counts_of_any_order_are_probabilities_and_know_what_they_have_seen():
    draw = np.random.default_rng(0)
    ids = draw.integers(0, 3, 200)
    for order in (2, 4):
        context = draw.integers(0, 3, order - 1)
        tests = np.stack([np.append(context, c) for c in range(3)])
        p = 2.0 ** -texts.ngram_bits(ids, tests, 3, order)
        assert p.sum() == pytest.approx(1)
    # p(c | ab), by hand, where ab has been seen twice, with two different numbers after it
    seen = np.array([0, 1, 2, 0, 1, 0])
    lower = 2.0 ** -texts.ngram_bits(seen, np.array([1, 2]), 3, 2)[0]
    got = 2.0 ** -texts.ngram_bits(seen, np.array([0, 1, 2]), 3, 3)[0]
    assert got == pytest.approx((1 + 2 * lower) / (2 + 2))


@pytest.mark.long
def test_no_worse_than_pytorch_on_the_same_batches(tmp_path):
    torch = pytest.importorskip("torch")
    text = texts.read_text(None).characters[:200_000]
    alphabet = texts.most_frequent(text)
    ids = alphabet.encode(text)
    learned, held_out = ids[:180_000], ids[180_000:]
    config = small(None, tmp_path, hidden_size=64, window=50, batch=16, steps=600)
    ours, theirs = [], []
    for seed in (0, 1):
        one = dataclasses.replace(config, seed=seed)
        model = characters.learn(one, learned, alphabet.size, None).last
        assert sum(a.size for a in jax.tree.leaves(nnx.state(model, nnx.Param))) == (
            2 * alphabet.size * 64 + alphabet.size + 4 * (64 * 64 * 2 + 64)
        )
        ours.append(characters.bits(one, model, held_out).mean())
        theirs.append(by_torch(torch, one, learned, held_out, alphabet.size))
    assert np.mean(ours) <= 1.02 * np.mean(theirs), (ours, theirs)


def by_torch(torch, config, learned, held_out, size):
    """Bits per character of PyTorch's LSTM after the same updates on the same batches."""
    torch.manual_seed(config.seed)
    H = config.hidden_size
    embed, lstm = torch.nn.Embedding(size, H), torch.nn.LSTM(H, H, batch_first=True)
    linear = torch.nn.Linear(H, size)
    parameters = [p for part in (embed, lstm, linear) for p in part.parameters()]
    adam = torch.optim.Adam(parameters)
    batches = train.Windows(learned, config.batch, config.window)
    rate = characters.rate_of(config)

    def nats(tokens, targets, carry):
        tokens, targets = (torch.as_tensor(np.asarray(a, np.int64)) for a in (tokens, targets))
        hs, carry = lstm(embed(tokens), carry)
        losses = torch.nn.functional.cross_entropy(linear(hs).flatten(0, 1), targets.flatten(),
                                                   reduction="none")  # fmt: skip
        return losses, carry

    carry = None
    for step in range(config.steps):
        if step % len(batches) == 0:
            carry = None
        batch = batches[step]
        losses, carry = nats(batch["tokens"], batch["targets"], carry)
        carry = tuple(part.detach() for part in carry)
        adam.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.clip)
        for group in adam.param_groups:
            group["lr"] = float(rate(step))
        adam.step()
    with torch.no_grad():
        losses, _ = nats(held_out[None, :-1], held_out[None, 1:], None)
    return float(losses[config.window - 1 :].mean()) / math.log(2)
