"""What does somebody want who speaks to a house in Chinese, and does the order of words tell?

Claims
    1. The best recurrent network tells the intents of commands better than a bag of words does, by
       more than the spread over seeds, on templates that it has not seen.
    2. 我爱你 and 你爱我 are one to a bag of words and two to every recurrent network.
    3. At 苹果 a network that only reads on is in the same state whether 味道不错 follows or
       股票大涨; one that reads both ways is not.
Source
    Commands are expanded from the templates of home-assistant-intents, and split by template: no
    template is in two parts. To play music is no intent of theirs; its templates are ours.
What would refute it
    1: a mean accuracy of the best recurrent network that is not above that of the best bag of words
    by more than both standard deviations together. 2, 3: a distance of more than a rounding error
    where there should be none, or of none where there should be one.
Cost
    Three minutes on two cores, under a minute with --quick.

Beside the table, one sentence is followed word by word, and three questions are put to the trained
networks: whether 我爱你 and 你爱我 are the same to them, whether 苹果 is the same before 味道不错
as before 股票大涨, and whether 周杰伦 and 黑神话 are, where they come after different words.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import tyro
from flax import nnx
from matplotlib.figure import Figure

import jaxrnn
from experiments import _claims as claims
from experiments import _common as common
from experiments import _intents as intents
from jaxrnn import models, plot, train

NAME = "intent_classification"
SENTENCE = "播放周杰伦的《稻香》"
BAGS = ("bag of words", "bag of words, two layers")
RECURRENT = ("Elman", "GRU", "bidirectional LSTM")
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


@dataclasses.dataclass(frozen=True)
class Config:
    """What to train.

    Attributes:
        unit: what a token is: a character, or a word as jieba cuts it.
        models: which of the models.
        features: of the vector of a token.
        hidden_size: H, of recurrent networks; other models are about as wide.
        dropout: on the vectors of tokens and on what is read at the end.
        batch: sentences in one update.
        steps: updates.
        learning_rate: of Adam.
        per_template: at most so many sentences of each template.
        seeds: how many models of each kind; the split stays.
        seed: the first of them.
        cache: folder for downloaded packages.
        redraw: a result of an earlier run: prints its tables and draws its figure again.
        output: folder for intent_classification.json and .png.
        quick: fewer sentences and updates, one seed: under a minute.
    """

    unit: Literal["character", "word"] = "character"
    models: tuple[str, ...] = (
        *BAGS,
        "shared feed-forward",
        "convolution",
        *RECURRENT,
        "Transformer",
    )
    features: int = 64
    hidden_size: int = 64
    dropout: float = 0.2
    batch: int = 64
    steps: int = 800
    learning_rate: float = 3e-3
    per_template: int = 20
    seeds: int = 3
    seed: int = 0
    cache: Path | None = None
    redraw: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    output: Path = Path("results")
    quick: bool = False


QUICK: dict[str, Any] = dict(
    models=("bag of words", "GRU"), features=32, hidden_size=32, steps=150, per_template=5, seeds=1
)


def _kinds() -> dict[str, Callable[..., Any]]:
    # each from (tokens, classes, config) and the keywords of every model
    def recurrent(make: Callable[[int, int], Any]) -> Callable[..., Any]:
        return lambda n, classes, c, **o: models.Classifier(
            n, classes, make(c.features, c.hidden_size), **o
        )

    return {
        BAGS[0]: lambda n, k, c, **o: models.BagOfWords(n, k, c.features, **o),
        BAGS[1]: lambda n, k, c, **o: models.BagOfWords(
            n, k, c.features, hidden=(2 * c.hidden_size,), **o
        ),
        "shared feed-forward": lambda n, k, c, **o: models.SharedFeedForward(
            n, k, c.features, hidden=(2 * c.hidden_size,), **o
        ),
        "convolution": lambda n, k, c, **o: models.Convolution(
            n, k, c.features, channels=(2 * c.hidden_size,), **o
        ),
        "Elman": recurrent(jaxrnn.Elman),
        "GRU": recurrent(jaxrnn.GRU),
        "bidirectional LSTM": recurrent(lambda m, h: jaxrnn.Bidirectional(jaxrnn.LSTM(m, h))),
        "Transformer": lambda n, k, c, **o: models.Transformer(n, k, c.features, **o),
    }


KINDS = _kinds()


def run(config: Config) -> dict:
    """Trains, prints table, sentence and verdicts, writes JSON and figure."""
    config = common.sized(config, QUICK)
    claims.at_least(config, features=4, hidden_size=1, batch=1, steps=1, per_template=1, seeds=1)
    claims.one_of("--models", config.models, tuple(KINDS))
    return claims.conduct(NAME, config, measure, _show, _draw)


# the data


class Tokens:
    """Tokens of the training sentences by number; all others share the last number.

    The questions' tokens have numbers as well, met in training or not: two words that are unknown
    would else be one.
    """

    def __init__(self, config: Config, sentences: Sequence[intents.Sentence]) -> None:
        self.cut = intents.words if config.unit == "word" else intents.characters
        texts = [*(sentence.text for sentence in sentences), *ASKED]
        seen = {token for text in texts for token in self.cut(text)}
        self._number = {token: i for i, token in enumerate(sorted(seen))}

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return len(self._number) + 1

    def encode(self, text: str) -> np.ndarray:
        """The numbers of the tokens of a text."""
        return np.array([self._number.get(t, self.size - 1) for t in self.cut(text)], np.int32)

    def padded(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Texts of unequal lengths in one array, and their lengths."""
        rows = [self.encode(text) for text in texts]
        lengths = np.array([len(row) for row in rows], np.int32)
        tokens = np.zeros((len(rows), lengths.max()), np.int32)
        for into, row in zip(tokens, rows, strict=True):
            into[: len(row)] = row
        return tokens, lengths


# training


def loss(model: Any, batch: dict[str, Any], key: Any) -> jax.Array:
    """Cross-entropy of the intents."""
    logits = model(batch["tokens"], batch["lengths"], key=key)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()


def build(name: str, config: Config, tokens: Tokens, classes: int, seed: int) -> Any:
    """A model, freshly drawn."""
    options = dict(dropout=config.dropout, rngs=nnx.Rngs(seed))
    return KINDS[name](tokens.size, classes, config, **options)


@functools.cache
def optimizer_of(learning_rate: float) -> optax.GradientTransformation:
    """Adam on clipped gradients; one object, so that seeds share what is compiled."""
    return optax.chain(optax.clip_by_global_norm(5.0), optax.adam(learning_rate))


@nnx.jit
def answers(model: Any, tokens: Any, lengths: Any) -> jax.Array:
    """The most probable intents."""
    return jnp.argmax(model(tokens, lengths), -1)


def measure(config: Config) -> dict:
    """All models, the sentence, the questions."""
    corpus = intents.corpus(config.cache, per_template=config.per_template, without=(SENTENCE,))
    tokens = Tokens(config, corpus.train)
    sentences = [tokens.encode(s.text) for s in corpus.train]
    labels = np.array(corpus.labels(corpus.train), np.int32)
    data = {"tokens": sentences, "label": labels}
    asked, taught = (tokens.padded([s.text for s in part]) for part in (corpus.test, corpus.train))
    truth = np.array(corpus.labels(corpus.test))
    jobs = [(name, config.seed + i) for name in config.models for i in range(config.seeds)]
    trained: dict[str, Any] = {}
    with common.progress(len(jobs)) as advance:

        def one(job: tuple[str, int]) -> tuple[float, float, float, int]:
            name, seed = job
            began = time.perf_counter()
            model = build(name, config, tokens, len(corpus.intents), seed)
            batches = train.Batches(data, config.batch, seed=seed, drop_last=True, padding=0.4)
            key, optimizer = jax.random.key(seed), optimizer_of(config.learning_rate)
            options: Any = dict(steps=config.steps, key=key, progress=False)
            fit = train.fit(loss, model, batches, optimizer, **options)
            trained.setdefault(name, fit.model)
            right, known = (
                float(np.mean(np.asarray(answers(fit.model, *padded)) == true))
                for padded, true in ((asked, truth), (taught, labels))
            )
            advance(1, f"{name}, seed {seed}: {right:.1%}")
            size = sum(a.size for a in jax.tree.leaves(nnx.state(model, nnx.Param)))
            return right, known, time.perf_counter() - began, size

        done = common.side_by_side(one, jobs)
    rows = []
    for i, name in enumerate(config.models):
        mine = done[i * config.seeds : (i + 1) * config.seeds]
        accuracy, known, seconds, sizes = zip(*mine, strict=True)
        rows.append(
            dict(model=name, accuracy=accuracy, known=known, seconds=seconds, parameters=sizes[0])
        )
    questions, counts = _questions(trained, tokens), _counts(corpus, tokens)
    return dict(
        counts=counts,
        rows=rows,
        sentence=_followed(config, trained, tokens, corpus.intents),
        questions=questions,
        # words swallow what stands beside them, and then other tokens are asked
        verdicts=verdicts(rows, counts)
        + (order_verdicts(questions) if config.unit == "character" else []),
    )


def _counts(corpus: intents.Corpus, tokens: Tokens) -> dict:
    parts = {part: getattr(corpus, part) for part in intents.EVERYTHING}
    met = {token for s in corpus.train for token in tokens.cut(s.text)}
    unknown = [token not in met for s in corpus.test for token in tokens.cut(s.text)]
    largest = np.bincount(corpus.labels(corpus.test)).max() / len(corpus.test)
    return {name: len(part) for name, part in parts.items()} | dict(
        templates={name: len({s.template for s in part}) for name, part in parts.items()},
        intents=len(corpus.intents), tokens=tokens.size, unknown=float(np.mean(unknown)),
        largest=float(largest), order_tells=order_tells(corpus, tokens),
    )  # fmt: skip


def order_tells(corpus: intents.Corpus, tokens: Tokens) -> float:
    """Share of all sentences whose tokens, in another order, are a sentence of another intent."""
    everything = [s for part in intents.EVERYTHING for s in getattr(corpus, part)]
    bags = [tuple(sorted(tokens.cut(s.text))) for s in everything]
    found: dict[tuple[str, ...], set[str]] = {}
    for bag, sentence in zip(bags, everything, strict=True):
        found.setdefault(bag, set()).add(sentence.intent)
    return float(np.mean([len(found[bag]) > 1 for bag in bags]))


# what is asked of them


def _followed(config: Config, trained: dict, tokens: Tokens, names: Sequence[str]) -> dict | None:
    """One sentence through a recurrent network: the likeliest intents after each token."""
    known = [name for name in reversed(RECURRENT) if name in config.models]
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


def _questions(trained: dict[str, Any], tokens: Tokens) -> list[dict]:
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


# what is said


def verdicts(rows: Sequence[dict], counts: dict) -> list[dict]:
    """Whether the best recurrent network is ahead by more than the spread; if not, why."""
    by_name = {row["model"]: np.array(row["accuracy"], float) for row in rows}

    def best(names: Sequence[str]) -> str | None:
        known = [name for name in names if name in by_name]
        return max(known, key=lambda name: by_name[name].mean(), default=None)

    network, bag = best(RECURRENT), best(BAGS)
    if network is None or bag is None:
        return []
    ahead = by_name[network].mean() - by_name[bag].mean()
    spread = claims.deviation(by_name[network]) + claims.deviation(by_name[bag])
    known = {row["model"]: np.mean(row["known"]) for row in rows}
    why = (
        f". Order tells the intent of {counts['order_tells']:.2%} of the sentences, and of those "
        f"it was taught the {network} knows {known[network]:.1%}: what it lacks is not capacity"
    )
    return [
        claims.claim(
            "the best recurrent network beats the best bag of words by more than the spread",
            ahead > spread,
            f"{network} {by_name[network].mean():.1%}, {bag} {by_name[bag].mean():.1%}: "
            f"{100 * ahead:+.1f} points, standard deviations together {100 * spread:.1f}"
            + ("" if ahead > spread else why),
        )
    ]


def order_verdicts(questions: Sequence[dict]) -> list[dict]:
    """Whether order and what follows tell where they must, and only there."""

    def asked(question: str, names: Sequence[str]) -> dict[str, float]:
        of = {q["model"]: q["apart"] for q in questions if q["asked"] == question}
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


def _show(result: dict) -> None:
    counts, rows = result["counts"], []
    for row in sorted(result["rows"], key=lambda row: -np.mean(row["accuracy"])):
        deviation = claims.deviation(row["accuracy"])
        rows.append(
            [
                row["model"],
                f"{np.mean(row['accuracy']):.1%} ± {100 * deviation:.1f}",
                f"{np.mean(row['known']):.1%}",
                f"{row['parameters']:,}",
                f"{np.mean(row['seconds']):.0f}",
            ]
        )
    common.print_table(
        f"{counts['intents']} intents; {counts['train']:,} sentences to learn from, "
        f"{counts['test']:,} of {counts['templates']['test']} other templates asked, "
        f"{counts['unknown']:.1%} of their tokens unknown; always the same answer: "
        f"{counts['largest']:.1%}",
        ("", "accuracy", "of those taught", "parameters", "seconds"),
        rows,
    )
    if result["sentence"]:
        _show_sentence(result["sentence"])
    common.print_table(
        "How far apart, relative to size (0: the same to it)",
        ("", "", "apart"),
        [[q["model"], q["asked"], f"{q['apart']:.3g}"] for q in result["questions"]],
    )


def _show_sentence(found: dict) -> None:
    rows = [
        [token, *(f"{p:.2f}" for p in after), f"{share:+.2f}"]
        for token, after, share in zip(
            found["text"], found["confidences"], found["shares"], strict=True
        )
    ]
    common.print_table(
        f"{SENTENCE}: {found['answer']}, says the {found['model']}; its confidence after each "
        "token, and what ln p loses without the token",
        ("", *found["intents"], "share"),
        rows,
    )


def _draw(result: dict) -> Figure:
    families, _ = plot.families_for(SENTENCE)
    with matplotlib.rc_context({"font.family": ["DejaVu Sans", *families[1:]]}):
        figure = Figure(figsize=(13, 5), layout="constrained")
        left, right = figure.subplots(1, 2)
        rows = sorted(result["rows"], key=lambda row: np.mean(row["accuracy"]))
        for place, row in enumerate(rows):
            colour = plot.COLOURS[1 if row["model"] in RECURRENT else 0]
            values = 100 * np.array(row["accuracy"], float)
            left.plot([values.min(), values.max()], [place] * 2, color=colour, linewidth=2)
            left.plot(values, [place] * len(values), "o", color=colour, markersize=5, alpha=0.5)
            left.plot(values.mean(), place, "o", color=colour, markersize=11)
        left.set_yticks(range(len(rows)), [row["model"] for row in rows])
        left.grid(axis="y", color="#dddddd", linewidth=0.8)
        left.set_xlabel("accuracy on unseen templates, per cent (small: seeds)")
        left.set_title("Intents of Chinese commands (orange: recurrent)", loc="left")
        if result["sentence"]:
            _draw_sentence(right, result["sentence"])
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        figure.draw_without_rendering()  # fonts are looked up while the context lasts
    return figure


def _draw_sentence(axes: Any, found: dict) -> None:
    confidences = np.array(found["confidences"], float)
    for i, (name, colour) in enumerate(zip(found["intents"], plot.COLOURS, strict=False)):
        axes.plot(confidences[:, i], "o-", color=colour, label=name)
    axes.set_xticks(range(len(found["text"])), found["text"], fontsize=13)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("confidence after each token")
    axes.set_title(f"The {found['model']} reads on", loc="left")
    axes.legend(frameon=False)


if __name__ == "__main__":
    common.main(Config, run)
