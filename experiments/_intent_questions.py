"""What is asked of networks that know the intents of commands: one sentence, word by word, and
whether two readings are the same to them.

Whether 我爱你 and 你爱我 are, whether 苹果 is the same before 味道不错 as before 股票大涨, and
whether 周杰伦 and 黑神话 are where they come after different words.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import _claims as claims
from experiments._intent_models import BAGS, RECURRENT
from experiments._intents import Tokens
from jaxrnn import models

SENTENCE = "播放周杰伦的《稻香》"
TURNED = "我爱你 / 你爱我"
APPLE = "苹果 before 味道不错 / before 股票大涨"
# a text, a word in it, and which of its places
PLACES = {
    APPLE: (("苹果味道不错", "苹果", 0), ("苹果股票大涨", "苹果", 0)),
    "周杰伦 after 播放 / after 我喜欢": (
        ("播放周杰伦", "周杰伦", 0),
        ("我喜欢周杰伦", "周杰伦", 0),
    ),
    "黑神话, first / second": (
        ("黑神话比黑神话好", "黑神话", 0),
        ("黑神话比黑神话好", "黑神话", 1),
    ),
}
ASKED = (*TURNED.split(" / "), *(text for two in PLACES.values() for text, _, _ in two))
ROUNDING = 1e-5  # of a reading, relative to its size, in float32


def follow(trained: dict[str, Any], tokens: Tokens, names: Sequence[str]) -> dict | None:
    """One sentence through a recurrent network: the likeliest intents after each token."""
    known = [name for name in reversed(RECURRENT) if name in trained]
    if not known:
        return None
    model, row = trained[known[0]], tokens.encode(SENTENCE)[None]
    confidences = np.asarray(model.confidences(row))[0]
    best = np.argsort(-confidences.max(0))[:4]
    shares = np.asarray(model.shares(row, by="leave_one_out"))[0]
    return dict(
        model=known[0], text=tokens.cut(SENTENCE), intents=[names[i] for i in best],
        confidences=confidences[:, best], shares=shares,
        answer=names[int(confidences[-1].argmax())],
    )  # fmt: skip


def states(model: models.Classifier, tokens: Tokens, text: str) -> np.ndarray:
    """What the network puts out at each token of a text."""
    xs, _ = model.inputs(tokens.encode(text)[None], None)
    return np.asarray(model.recurrent(xs)[1])[0]


def ask(trained: dict[str, Any], tokens: Tokens) -> list[dict]:
    """How far apart two readings are, relative to their size; 0 is identical."""
    found = []
    for name, model in trained.items():
        turned = [np.asarray(model(tokens.encode(text)[None]))[0] for text in TURNED.split(" / ")]
        found.append(dict(model=name, asked=TURNED, apart=_apart(*turned)))
        if isinstance(model, models.Classifier):
            found += [dict(model=name, **answer) for answer in _contexts(model, tokens)]
    return found


def _contexts(model: models.Classifier, tokens: Tokens) -> list[dict]:
    # the state at the last token of a word in two places
    return [
        dict(asked=asked, apart=_apart(*(_state_at(model, tokens, *place) for place in two)))
        for asked, two in PLACES.items()
    ]


def _state_at(
    model: models.Classifier, tokens: Tokens, text: str, word: str, which: int
) -> np.ndarray:
    ends = text.index(word) + len(word)
    for _ in range(which):
        ends = text.index(word, ends) + len(word)
    # the token that holds the last character of the word
    lengths = np.cumsum([len(token) for token in tokens.cut(text)])
    return states(model, tokens, text)[int(np.searchsorted(lengths, ends))]


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(a), np.linalg.norm(b)))


def verdicts(answers: Sequence[dict]) -> list[dict]:
    """Whether order and what follows tell where they must, and only there."""

    def asked(question: str, names: Sequence[str]) -> dict[str, float]:
        of = {q["model"]: q["apart"] for q in answers if q["asked"] == question}
        return {name: of[name] for name in names if name in of}

    def said(text: str, same: dict[str, float], different: dict[str, float]) -> dict:
        holds = max(same.values()) < ROUNDING < min(different.values())
        apart = (f"{name} {value:.2g}" for name, value in (same | different).items())
        return claims.claim(text, holds, f"Apart, relative to size: {', '.join(apart)}")

    found = []
    same, different = asked(TURNED, BAGS), asked(TURNED, RECURRENT)
    if same and different:
        text = "我爱你 and 你爱我 are one to a bag of words, two to recurrent networks"
        found.append(said(text, same, different))
    same, different = asked(APPLE, RECURRENT[:2]), asked(APPLE, RECURRENT[2:])
    if same and different:
        text = "what follows changes the state at 苹果 for who reads both ways, and for nobody else"
        found.append(said(text, same, different))
    return found
