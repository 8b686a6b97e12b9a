"""Intents of commands: end to end on a few sentences, what is asked, and the verdict."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import _intent_models as kinds
from experiments import _intent_questions as questions
from experiments import intent_classification as experiment
from experiments._common import UsageError
from experiments._intents import Corpus, Sentence, Tokens
from jaxrnn import plot

pytestmark = pytest.mark.usefixtures("as_a_user_runs_it")


def sentences(rooms):
    """On before off is to switch off in the end, and the other way round: order alone tells."""
    two = {"on": "先关{}后开{}", "off": "先开{}后关{}"}
    return [
        Sentence(form.format(a, b), intent, form, form)
        for intent, form in two.items()
        for a in rooms
        for b in rooms
    ]


@pytest.fixture
def corpus(monkeypatch):
    found = Corpus(sentences("灯窗门扇"), sentences("灯门"), sentences("窗扇"), ("off", "on"), {})
    monkeypatch.setattr(experiment.intents, "corpus", lambda *_, **__: found)
    return found


@pytest.mark.long
def test_a_bag_of_words_guesses_where_order_tells(corpus, tmp_path, capsys):
    config = experiment.Config(
        models=("bag of words", "GRU", kinds.TWO_WAYS, kinds.OUT_OF_ORDER), features=8,
        hidden_size=12, batch=8, steps=150, seeds=1, learning_rate=1e-2, dropout=0.0,
        output=tmp_path,
    )  # fmt: skip
    result = experiment.run(config)
    bag, network, _, out_of_order = result["rows"]
    assert max(bag["accuracy"]) == 0.5 and min(network["accuracy"]) == 1.0
    # here order is all there is, and who never sees it can only guess
    assert max(out_of_order["known"]) < 0.8
    assert [verdict["holds"] for verdict in result["verdicts"]] == [True, False, True, True]
    assert "+50.0 points" in result["verdicts"][0]["measured"]
    assert result["counts"]["train"] == 32 and result["counts"]["largest"] == 0.5
    # every sentence has its like of the other intent
    assert result["counts"]["order_tells"] == 1.0
    asked = {(q["model"], q["asked"]): q["apart"] for q in result["questions"]}
    assert asked["bag of words", questions.TURNED] < 1e-6
    # what comes later cannot change what a causal network has made of a word
    assert asked["GRU", questions.APPLE] == 0
    assert asked["bidirectional LSTM", questions.APPLE] > 0.01
    followed = result["sentence"]
    assert followed["text"] == list(questions.SENTENCE)
    assert followed["model"] == "bidirectional LSTM"
    record = json.loads((tmp_path / "intent_classification.json").read_text(encoding="utf-8"))
    assert len(record["sentence"]["confidences"]) == len(questions.SENTENCE)
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.long
def test_the_quick_form_runs_to_its_end_without_a_chinese_font(
    corpus, tmp_path, capsys, monkeypatch
):
    dejavu = {k: v for k, v in plot.text._regular_fonts().items() if "DejaVu" in k}
    monkeypatch.setattr(plot.text, "_regular_fonts", lambda: dejavu)
    plot.text._characters.cache_clear()
    result = experiment.run(experiment.Config(quick=True, batch=8, output=tmp_path))
    assert [row["model"] for row in result["rows"]] == ["bag of words", "GRU"]
    assert (tmp_path / "intent_classification.png").stat().st_size > 10_000
    assert "apt install fonts-noto-cjk" in capsys.readouterr().out
    plot.text._characters.cache_clear()


def small(name, corpus, features=8, hidden_size=8):
    tokens = Tokens("character", [s.text for s in corpus.train])
    return tokens, kinds.KINDS[name].make(
        tokens.size, 2, features, hidden_size, dropout=0.0, rngs=nnx.Rngs(0)
    )


@pytest.mark.parametrize("name", kinds.KINDS)
def test_every_model_can_be_made(corpus, name):
    tokens, model = small(name, corpus)
    padded = tokens.padded([s.text for s in corpus.test])
    logits = nnx.eval_shape(lambda m: m(*padded), model)
    assert logits.shape == (8, 2)


def test_out_of_order_each_sentence_keeps_its_tokens():
    tokens, lengths = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]]), np.array([3, 5])
    batch, seen = {"tokens": jnp.array(tokens), "lengths": lengths, "label": jnp.zeros(2, int)}, []

    def model(tokens, lengths, key):
        seen.append(np.asarray(tokens))
        return jnp.zeros((2, 3))

    for seed in range(20):
        kinds.out_of_order(model, batch, jax.random.key(seed))
    for mixed in seen:
        assert sorted(mixed[0, :3]) == [1, 2, 3] and not mixed[0, 3:].any()
        assert sorted(mixed[1]) == [4, 5, 6, 7, 8]
    # all six orders of three come up, save once in a thousand times
    assert len({tuple(mixed[0, :3]) for mixed in seen}) >= 5


def test_a_state_is_that_at_the_last_character_of_the_word(corpus):
    tokens, model = small("GRU", corpus)
    text = "先关灯后关灯"
    at = questions.states(model, tokens, text)
    np.testing.assert_array_equal(questions._state_at(model, tokens, text, "关灯", 0), at[2])
    np.testing.assert_array_equal(questions._state_at(model, tokens, text, "关灯", 1), at[5])


def test_verdicts_can_say_no():
    rows = [
        dict(model="bag of words", accuracy=[0.8, 0.82], known=[0.9, 0.9]),
        dict(model=kinds.TWO_WAYS, accuracy=[0.81, 0.83], known=[1.0, 0.99]),
        dict(model=kinds.OUT_OF_ORDER, accuracy=[0.84, 0.82], known=[1.0, 1.0]),
    ]
    ahead, misled = experiment.verdicts(rows, dict(order_tells=0.25))
    assert not ahead["holds"] and "+1.0 points" in ahead["measured"]
    assert "25.00%" in ahead["measured"] and "they know 99.5% and 90.0%" in ahead["measured"]
    assert not misled["holds"] and "+1.0 points" in misled["measured"]
    rows[2]["accuracy"] = [0.86, 0.88]
    assert experiment.verdicts(rows, dict(order_tells=0.25))[1]["holds"]
    assert experiment.verdicts(rows[:1], dict(order_tells=0.25)) == []
    apart = {"bag of words": 0.0, "Elman": 0.3, "GRU": 0.0}
    answers = [dict(model=name, asked=questions.TURNED, apart=v) for name, v in apart.items()]
    (verdict,) = questions.verdicts(answers)
    assert not verdict["holds"] and "GRU 0" in verdict["measured"]


def test_mistakes_are_told_in_a_sentence():
    with pytest.raises(UsageError, match="--models takes one or more of"):
        experiment.run(experiment.Config(models=("GRU", "LSTM")))
