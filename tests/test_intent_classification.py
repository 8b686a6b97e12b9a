"""Intents of commands: end to end on a few sentences, what is asked, and the verdict."""

import json

import numpy as np
import pytest
from flax import nnx

from experiments import intent_classification as experiment
from experiments._common import UsageError
from experiments._intents import Corpus, Sentence

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
        models=("bag of words", "GRU", "bidirectional LSTM"), features=8, hidden_size=12,
        batch=8, steps=150, seeds=1, learning_rate=1e-2, dropout=0.0, output=tmp_path,
    )  # fmt: skip
    result = experiment.run(config)
    bag, network, _ = result["rows"]
    assert max(bag["accuracy"]) == 0.5 and min(network["accuracy"]) == 1.0
    assert [verdict["holds"] for verdict in result["verdicts"]] == [True] * 3
    assert "+50.0 points" in result["verdicts"][0]["measured"]
    assert result["counts"]["train"] == 32 and result["counts"]["largest"] == 0.5
    # every sentence has its like of the other intent
    assert result["counts"]["order_tells"] == 1.0
    asked = {(q["model"], q["asked"]): q["apart"] for q in result["questions"]}
    assert asked["bag of words", experiment.TURNED] < 1e-6
    # what comes later cannot change what a causal network has made of a word
    assert asked["GRU", experiment.APPLE] == 0
    assert asked["bidirectional LSTM", experiment.APPLE] > 0.01
    followed = result["sentence"]
    assert followed["text"] == list(experiment.SENTENCE)
    assert followed["model"] == "bidirectional LSTM"
    record = json.loads((tmp_path / "intent_classification.json").read_text(encoding="utf-8"))
    assert len(record["sentence"]["confidences"]) == len(experiment.SENTENCE)
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.long
def test_the_quick_form_runs_to_its_end(corpus, tmp_path):
    result = experiment.run(experiment.Config(quick=True, batch=8, output=tmp_path))
    assert [row["model"] for row in result["rows"]] == ["bag of words", "GRU"]
    assert (tmp_path / "intent_classification.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", experiment.KINDS)
def test_every_model_can_be_made(corpus, name):
    config = experiment.Config(features=8, hidden_size=8)
    tokens = experiment.Tokens(config, corpus.train)
    model = experiment.build(name, config, tokens, 2, 0)
    padded = tokens.padded([s.text for s in corpus.test])
    logits = nnx.eval_shape(lambda m: m(*padded), model)
    assert logits.shape == (8, 2)


def test_a_state_is_that_at_the_last_character_of_the_word(corpus):
    config = experiment.Config(features=4, hidden_size=3)
    tokens = experiment.Tokens(config, corpus.train)
    model = experiment.build("GRU", config, tokens, 2, 0)
    text = "先关灯后关灯"
    at = experiment.states(model, tokens, text)
    np.testing.assert_array_equal(experiment._state_at(model, tokens, text, "关灯", 0), at[2])
    np.testing.assert_array_equal(experiment._state_at(model, tokens, text, "关灯", 1), at[5])


def test_the_verdict_can_say_no():
    rows = [
        dict(model="bag of words", accuracy=[0.8, 0.82], known=[0.9, 0.9]),
        dict(model="GRU", accuracy=[0.81, 0.83], known=[1.0, 0.99]),
    ]
    (verdict,) = experiment.verdicts(rows, dict(order_tells=0.25))
    assert not verdict["holds"] and "+1.0 points" in verdict["measured"]
    assert "25.00%" in verdict["measured"] and "GRU knows 99.5%" in verdict["measured"]
    assert experiment.verdicts(rows[:1], dict(order_tells=0.25)) == []
    apart = {"bag of words": 0.0, "Elman": 0.3, "GRU": 0.0}
    questions = [
        dict(model=name, asked=experiment.TURNED, apart=value) for name, value in apart.items()
    ]
    (verdict,) = experiment.order_verdicts(questions)
    assert not verdict["holds"] and "GRU 0" in verdict["measured"]


def test_mistakes_are_told_in_a_sentence():
    with pytest.raises(UsageError, match="--models takes one or more of"):
        experiment.run(experiment.Config(models=("GRU", "LSTM")))
