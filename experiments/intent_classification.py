"""What does somebody want who speaks to a house in Chinese, and does the order of words tell?

Claims
    1. The best recurrent network tells the intents of commands better than a bag of words does, by
       more than the spread over seeds, on templates that it has not seen.
    2. 我爱你 and 你爱我 are one to a bag of words and two to every recurrent network.
    3. At 苹果 a network that only reads on is in the same state whether 味道不错 follows or
       股票大涨; one that reads both ways is not.
    4. What a bidirectional LSTM learns of the order of words in the templates it is taught misleads
       it on others: taught with its tokens in random order, it does better there.
Source
    Commands are expanded from the templates of home-assistant-intents, and split by template: no
    template is in two parts. To play music is no intent of theirs; its templates are ours.
What would refute it
    1: a mean accuracy of the best recurrent network that is not above that of the best bag of words
    by more than both standard deviations together; 4 likewise. 2, 3: a distance of more than a
    rounding error where there should be none, or of none where there should be one.
Cost
    Four minutes on two cores, under a minute with --quick.

Beside the table, one sentence is followed word by word, and three questions are put to the trained
networks: whether 我爱你 and 你爱我 are the same to them, whether 苹果 is the same before 味道不错
as before 股票大涨, and whether 周杰伦 and 黑神话 are, where they come after different words.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import matplotlib
import numpy as np
import tyro
from flax import nnx
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import _claims as claims
from experiments import _common as common
from experiments import _intent_models as kinds
from experiments import _intent_questions as questions
from experiments import _intents as intents
from jaxrnn import plot, train

NAME = "intent_classification"
PARTS = "train", "test"


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
    models: tuple[str, ...] = tuple(kinds.KINDS)
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


def run(config: Config) -> dict:
    """Trains, prints table, sentence and verdicts, writes JSON and figure."""
    config = common.sized(config, QUICK)
    claims.at_least(config, features=4, hidden_size=1, batch=1, steps=1, per_template=1, seeds=1)
    claims.at_least(config, learning_rate=0, dropout=0, seed=0)
    if config.dropout >= 1:
        raise common.UsageError(f"--dropout must be below 1, got {config.dropout}")
    claims.one_of("--models", config.models, tuple(kinds.KINDS))
    return claims.conduct(NAME, config, measure, _show, _draw)


def measure(config: Config) -> dict:
    """All models, the sentence, the questions."""
    without = (questions.SENTENCE,)
    corpus = intents.corpus(config.cache, per_template=config.per_template, without=without)
    # the questions' tokens have numbers, met in training or not: two unknown words would be one
    texts = [*(sentence.text for sentence in corpus.train), *questions.ASKED]
    tokens = intents.Tokens(config.unit, texts)
    jobs = [(name, config.seed + i) for name in config.models for i in range(config.seeds)]
    with common.progress(len(jobs)) as advance:

        def one(job: tuple[str, int]) -> tuple[Any, dict]:
            model, found = taught(config, corpus, tokens, *job)
            advance(1, f"{job[0]}, seed {job[1]}: {found['accuracy']:.1%}")
            return model, found

        done = common.side_by_side(one, jobs)
    first = slice(None, None, config.seeds)
    trained = {name: model for (name, _), (model, _) in zip(jobs[first], done[first], strict=True)}
    rows = [
        dict(model=name, **_of_seeds([found for _, found in done[i : i + config.seeds]]))
        for i, name in zip(range(0, len(jobs), config.seeds), config.models, strict=True)
    ]
    counts, answers = _counts(corpus, tokens), questions.ask(trained, tokens)
    # words swallow what stands beside them, and then other tokens are asked
    of_order = questions.verdicts(answers) if config.unit == "character" else []
    return dict(
        counts=counts,
        rows=rows,
        sentence=questions.follow(trained, tokens, corpus.intents),
        questions=answers,
        verdicts=verdicts(rows, counts) + of_order,
    )


def taught(
    config: Config, corpus: intents.Corpus, tokens: intents.Tokens, name: str, seed: int
) -> tuple[Any, dict]:
    """A model in the end, and what it knows: of unseen templates, and of what it was taught."""
    began, kind = time.perf_counter(), kinds.KINDS[name]
    options = dict(dropout=config.dropout, rngs=nnx.Rngs(seed))
    sizes = tokens.size, len(corpus.intents), config.features, config.hidden_size
    model = kind.make(*sizes, **options)
    truth = {part: np.array(corpus.labels(getattr(corpus, part)), np.int32) for part in PARTS}
    sentences = [tokens.encode(sentence.text) for sentence in corpus.train]
    batches = train.Batches(
        {"tokens": sentences, "label": truth["train"]},
        config.batch,
        seed=seed,
        drop_last=True,
        padding=0.4,
    )
    model = train.fit(
        kind.loss,
        model,
        batches,
        kinds.optimizer_of(config.learning_rate),
        steps=config.steps,
        key=jax.random.key(seed),
        progress=False,
    ).model

    def right(part: str) -> float:
        texts = [sentence.text for sentence in getattr(corpus, part)]
        answers = kinds.answers(model, *tokens.padded(texts))
        return float(np.mean(np.asarray(answers) == truth[part]))

    return model, dict(
        accuracy=right("test"),
        known=right("train"),
        seconds=time.perf_counter() - began,
        parameters=sum(a.size for a in jax.tree.leaves(nnx.state(model, nnx.Param))),
    )


def _of_seeds(found: Sequence[dict]) -> dict:
    """Lists over seeds; the number of parameters is one."""
    together = {name: [record[name] for record in found] for name in found[0]}
    return together | dict(parameters=found[0]["parameters"])


def _counts(corpus: intents.Corpus, tokens: intents.Tokens) -> dict:
    parts = {part: getattr(corpus, part) for part in intents.EVERYTHING}
    met = {token for s in corpus.train for token in tokens.cut(s.text)}
    unknown = [token not in met for s in corpus.test for token in tokens.cut(s.text)]
    largest = np.bincount(corpus.labels(corpus.test)).max() / len(corpus.test)
    return {name: len(part) for name, part in parts.items()} | dict(
        templates={name: len({s.template for s in part}) for name, part in parts.items()},
        intents=len(corpus.intents), tokens=tokens.size, unknown=float(np.mean(unknown)),
        largest=float(largest), order_tells=order_tells(corpus, tokens), dropped=corpus.dropped,
    )  # fmt: skip


def order_tells(corpus: intents.Corpus, tokens: intents.Tokens) -> float:
    """Share of all sentences whose tokens, in another order, are a sentence of another intent."""
    everything = [s for part in intents.EVERYTHING for s in getattr(corpus, part)]
    bags = [tuple(sorted(tokens.cut(s.text))) for s in everything]
    found: dict[tuple[str, ...], set[str]] = {}
    for bag, sentence in zip(bags, everything, strict=True):
        found.setdefault(bag, set()).add(sentence.intent)
    return float(np.mean([len(found[bag]) > 1 for bag in bags]))


# what is said


def verdicts(rows: Sequence[dict], counts: dict) -> list[dict]:
    """Whether the best recurrent network is ahead by more than the spread; what order does."""
    accuracy = {row["model"]: np.array(row["accuracy"], float) for row in rows}

    def best(names: Sequence[str]) -> str | None:
        known = [name for name in names if name in accuracy]
        return max(known, key=lambda name: accuracy[name].mean(), default=None)

    network, bag = best(kinds.RECURRENT), best(kinds.BAGS)
    found = []
    if network and bag:
        text = "the best recurrent network beats the best bag of words by more than the spread"
        why = f"; order tells the intent of {counts['order_tells']:.2%} of the sentences"
        known = {row["model"]: np.mean(row["known"]) for row in rows}
        why += f"; of what they were taught they know {known[network]:.1%} and {known[bag]:.1%}"
        found.append(_ahead(text, accuracy, network, bag, why))
    if {kinds.TWO_WAYS, kinds.OUT_OF_ORDER} <= set(accuracy):
        text = (
            f"what a {kinds.TWO_WAYS} learns of the order of known templates misleads it on others "
            "by more than the spread"
        )
        found.append(_ahead(text, accuracy, kinds.OUT_OF_ORDER, kinds.TWO_WAYS))
    return found


def _ahead(text: str, accuracy: dict, one: str, other: str, why: str = "") -> dict:
    """Whether one model is ahead of another by more than both standard deviations together."""
    ahead = accuracy[one].mean() - accuracy[other].mean()
    spread = claims.deviation(accuracy[one]) + claims.deviation(accuracy[other])
    several = len(accuracy[one]) > 1
    deviations = f"standard deviations together {100 * spread:.1f}"
    return claims.claim(
        text,
        ahead > spread,
        f"{one} {accuracy[one].mean():.1%}, {other} {accuracy[other].mean():.1%}: "
        f"{100 * ahead:+.1f} points, {deviations if several else 'the spread unknown: one seed'}"
        f"{why}",
    )


# what is shown


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
        ("", "accuracy", "on sentences taught", "parameters", "seconds each"),
        rows,
    )
    for what, count in counts["dropped"].items():
        if count:
            print(f"dropped: {count} {what}")
    if result["sentence"]:
        _show_sentence(result["sentence"])
    common.print_table(
        "How far apart, relative to size (0: the same to it)",
        ("", "", "apart"),
        [[q["model"], q["asked"], f"{q['apart']:.3g}"] for q in result["questions"]],
    )


def _show_sentence(found: dict) -> None:
    rows = [
        [token, *(f"{p:.2f}" for p in after), f"{share:+.1g}"]
        for token, after, share in zip(
            found["text"], found["confidences"], found["shares"], strict=True
        )
    ]
    common.print_table(
        f"{questions.SENTENCE}: {found['answer']}, says the {found['model']}; its confidence after "
        "each token, and what ln p loses without the token",
        ("", *found["intents"], "share"),
        rows,
    )


def _draw(result: dict) -> Figure:
    families, missing = plot.families_for(questions.SENTENCE, "DejaVu Sans")
    for line in common.about_fonts(missing):
        print(line)
    with matplotlib.rc_context({"font.family": families}):
        figure = Figure(figsize=(13 if result["sentence"] else 7, 5), layout="constrained")
        panels = figure.subplots(1, 2 if result["sentence"] else 1, squeeze=False)[0]
        rows = sorted(result["rows"], key=lambda row: np.mean(row["accuracy"]))
        _draw_rows(panels[0], rows)
        if result["sentence"]:
            _draw_sentence(panels[1], result["sentence"], families)
        for axes in panels:
            axes.spines[["top", "right"]].set_visible(False)
        figure.draw_without_rendering()  # fonts are looked up while the context lasts
    return figure


def _draw_rows(axes: Axes, rows: Sequence[dict]) -> None:
    for place, row in enumerate(rows):
        name, values = row["model"], 100 * np.array(row["accuracy"], float)
        control, recurrent = name == kinds.OUT_OF_ORDER, name in kinds.RECURRENT
        colour = plot.COLOURS[1 if control or recurrent else 0]
        axes.plot([values.min(), values.max()], [place] * 2, color=colour, linewidth=2)
        axes.plot(values, [place] * len(values), "o", color=colour, markersize=5, alpha=0.5)
        inside = "white" if control else colour
        axes.plot(values.mean(), place, "o", color=colour, markersize=11, markerfacecolor=inside)
    axes.set_yticks(range(len(rows)), [row["model"] for row in rows])
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("accuracy on unseen templates, per cent (small: seeds)")
    axes.set_title("Intents of Chinese commands (orange: recurrent)", loc="left")


def _draw_sentence(axes: Axes, found: dict, families: Sequence[str]) -> None:
    confidences = np.array(found["confidences"], float)
    # not the colours of the other panel, which mean something else
    for i, (name, colour) in enumerate(zip(found["intents"], plot.COLOURS[2:], strict=False)):
        axes.plot(confidences[:, i], "o-", color=colour, label=name)
    tokens = [plot.drawable(token, families) for token in found["text"]]
    axes.set_xticks(range(len(tokens)), tokens, fontsize=13)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("confidence after each token")
    text = plot.drawable("".join(found["text"]), families)
    axes.set_title(f"The {found['model']} reads {text}", loc="left")
    axes.legend(frameon=False, title="intent", alignment="left")


if __name__ == "__main__":
    common.main(Config, run)
