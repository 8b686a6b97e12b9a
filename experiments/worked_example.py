"""What does a recurrent network compute, number by number, on 播放 / 周杰伦 / 的 / 《稻香》?

Claim
    h_t = tanh(W_x x_t + W_h h_{t-1} + b) is all there is to Elman's network: a NumPy loop, jaxrnn
    and PyTorch give the same h_1 … h_4, and four printed digits are enough to redo each step by
    hand. Written with columns (W x, as here) or with rows (x Wᵀ, as in PyTorch) it is the same.
Source
    Elman 1990, "Finding structure in time", Cognitive Science 14.
What would refute it
    Two programs that differ by more than rounding, 1e-12 in float64, or a step in which the
    printed digits do not lead to the printed h_t.
Cost
    Some seconds on any machine.
"""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from experiments import _common as common

NAME = "worked_example"
TOLERANCE = 1e-12
SHOWN = 4  # digits, and entries of x_t


@dataclasses.dataclass(frozen=True)
class Config:
    """What to compute.

    Attributes:
        words: T words; the same word has the same embedding.
        embedding_size: E, features of a word.
        hidden_size: H, units.
        seed: of all numbers.
        output: folder for worked_example.json.
        quick: the same with E = 8.
    """

    words: tuple[str, ...] = ("播放", "周杰伦", "的", "《稻香》")
    embedding_size: int = 128
    hidden_size: int = 3
    seed: int = 42
    output: Path = Path("results")
    quick: bool = False


class Numbers(NamedTuple):
    """What the network is given, in float64."""

    W_x: np.ndarray  # (H, E)
    W_h: np.ndarray  # (H, H)
    b: np.ndarray  # (H,)
    xs: np.ndarray  # (T, E)


class Step(NamedTuple):
    """One step in its parts, each of shape (H,)."""

    from_input: np.ndarray
    from_past: np.ndarray
    a: np.ndarray
    h: np.ndarray


class Result(NamedTuple):
    """Config, every step, every difference, and the verdict."""

    experiment: str
    config: dict
    machine: dict
    torch: str | None
    steps: list[dict]
    differences: dict
    verdict: str


def run(config: Config) -> Result:
    """Computes, prints and writes the example."""
    if config.quick:
        config = dataclasses.replace(config, embedding_size=8)
    check(config)
    folder = common.results_folder(config.output)
    numbers = draw(config)
    steps = walk(numbers)
    hs = np.stack([step.h for step in steps])
    torch_hs, torch_version = with_torch(numbers)
    differences = {
        "jaxrnn": gap(with_jaxrnn(numbers), hs),
        "rows": gap(with_rows(numbers), hs),
        "PyTorch": None if torch_hs is None else gap(torch_hs, hs),
        "by hand": gap(by_hand(numbers.b, steps), hs),
        "W_h not transposed": gap(with_rows(numbers, forgotten=True), hs),
    }
    verdict = judge(differences)
    print_steps(config, numbers, steps)
    print_conventions(config, differences)
    print_differences(differences, verdict)
    settings = dataclasses.asdict(config)
    record = [step._asdict() | {"word": w} for step, w in zip(steps, config.words, strict=True)]
    result = Result(NAME, settings, common.machine(), torch_version, record, differences, verdict)
    common.write_json(folder / f"{NAME}.json", result._asdict())
    return result


def check(config: Config) -> None:
    """Raises if there is nothing to compute."""
    sizes = {"words": len(config.words)}
    sizes |= {"embedding-size": config.embedding_size, "hidden-size": config.hidden_size}
    for name, size in sizes.items():
        if size < 1:
            raise common.UsageError(f"--{name}: got {size}, expected at least 1")


def draw(config: Config) -> Numbers:
    """All numbers from one seed, by a generator whose stream NumPy keeps for ever."""
    random, E, H = np.random.RandomState(config.seed), config.embedding_size, config.hidden_size
    # vectors of length about 1, so that tanh does not saturate and h stays readable
    table = {word: random.randn(E) / E**0.5 for word in dict.fromkeys(config.words)}
    W_x, W_h, b = (random.uniform(-1, 1, shape) / H**0.5 for shape in ((H, E), (H, H), (H,)))
    return Numbers(W_x, W_h, b, np.stack([table[word] for word in config.words]))


def walk(numbers: Numbers) -> list[Step]:
    """The NumPy loop: columns, one word at a time."""
    W_x, W_h, b, xs = numbers
    h, steps = np.zeros(len(b)), []
    for x in xs:
        from_input, from_past = W_x @ x, W_h @ h
        a = from_input + from_past + b
        h = np.tanh(a)
        steps.append(Step(from_input, from_past, a, h))
    return steps


def with_rows(numbers: Numbers, forgotten: bool = False) -> np.ndarray:
    """The same with rows, x Wᵀ; with `forgotten`, as if W_h needed no transposing."""
    W_x, W_h, b, xs = numbers
    h, hs = np.zeros((1, len(b))), []
    for x in xs:
        h = np.tanh(x[None] @ W_x.T + h @ (W_h if forgotten else W_h.T) + b)
        hs.append(h[0])
    return np.stack(hs)


def network(numbers: Numbers) -> tuple[jaxrnn.Elman, jaxrnn.ElmanParams]:
    """The cell and its params, from the same numbers."""
    H, E = numbers.W_x.shape
    W_x, W_h, b = (jnp.asarray(part) for part in numbers[:3])
    return jaxrnn.Elman(E, H), jaxrnn.ElmanParams(W_x, W_h, b, None, None)


def with_jaxrnn(numbers: Numbers) -> np.ndarray:
    """h_1 … h_T by `jaxrnn.unroll`, on a batch of one."""
    with jax.enable_x64(True):
        _, ys = jaxrnn.unroll(*network(numbers), numbers.xs[None])
        return np.asarray(ys[0])


def with_torch(numbers: Numbers) -> tuple[np.ndarray | None, str | None]:
    """h_1 … h_T by PyTorch's `nn.RNN` and its version, or None where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None, None
    torch: Any = importlib.import_module("torch")
    H, E = numbers.W_x.shape
    module = torch.nn.RNN(E, H, batch_first=True).double()
    with jax.enable_x64(True):
        arrays = jaxrnn.convert.to_torch(*network(numbers))
    module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    with torch.no_grad():
        out, _ = module(torch.from_numpy(numbers.xs[None]))
    return out[0].numpy(), str(torch.__version__)


def by_hand(b: np.ndarray, steps: list[Step]) -> np.ndarray:
    """Every h_t from the printed digits alone: add three numbers, take tanh, round."""
    sums = [step.from_input.round(SHOWN) + step.from_past.round(SHOWN) for step in steps]
    return np.tanh(np.stack(sums) + b.round(SHOWN)).round(SHOWN)


def gap(got: np.ndarray, want: np.ndarray) -> float:
    """Largest absolute difference."""
    return float(np.abs(got - want).max())


def judge(differences: dict[str, float | None]) -> str:
    """The verdict; a NaN counts against the claim."""
    # three rounded summands and a rounded result, each off by half a unit of the last digit
    allowed = {"jaxrnn": TOLERANCE, "rows": TOLERANCE, "PyTorch": TOLERANCE}
    allowed["by hand"] = 2.0 * 10.0**-SHOWN
    far = [
        f"{name} differs by {differences[name]:.1e}, allowed is {limit:.0e}"
        for name, limit in allowed.items()
        if (d := differences[name]) is not None and not d <= limit
    ]
    if far:
        return f"the claim is refuted: {'; '.join(far)}"
    return f"the claim holds: all agree within {TOLERANCE:.0e}, and {SHOWN} digits suffice by hand"


def vector(values: np.ndarray) -> str:
    """Numbers side by side, rounded as `by_hand` takes them."""
    return "  ".join(f"{value:+.{SHOWN}f}" for value in values)


def print_steps(config: Config, numbers: Numbers, steps: list[Step]) -> None:
    """Every step with pencil and paper."""
    W_x, W_h, b, xs = numbers
    sizes = f"B=1, T={len(xs)}, E={W_x.shape[1]}, H={len(b)}, seed {config.seed}"
    print(f"{' / '.join(config.words)}    {sizes}\n")
    print("h_t = tanh(a_t),   a_t = W_x x_t + W_h h_(t-1) + b,   h_0 = 0\n")
    for i, row in enumerate(W_h):
        print(f"{'W_h       =' if i == 0 else '':11}  {vector(row)}")
    print(f"b         =  {vector(b)}\n")
    for t, (word, x, step) in enumerate(zip(config.words, xs, steps, strict=True), start=1):
        more = "  …" if len(x) > SHOWN else ""
        print(f"t = {t}   {word}")
        print(f"  x_{t}       =  {vector(x[:SHOWN])}{more}   ({len(x)} numbers)")
        print(f"  W_x x_{t}   =  {vector(step.from_input)}")
        print(f"  W_h h_{t - 1}   =  {vector(step.from_past)}")
        print(f"  b         =  {vector(b)}")
        print(f"  a_{t}       =  {vector(step.a)}   (the sum of the three)")
        print(f"  h_{t}       =  {vector(step.h)}   (its tanh)\n")


def print_conventions(config: Config, differences: dict[str, float | None]) -> None:
    """Columns against rows, by their shapes."""
    E, H = config.embedding_size, config.hidden_size
    shapes = "  {:6}  ({}, {}) ({}, {}) -> ({}, {})"
    print("Columns, as in the formula and in our cells:")
    print(shapes.format("W_x x", H, E, E, 1, H, 1), shapes.format("W_h h", H, H, H, 1, H, 1))
    print("Rows, as in PyTorch, which keeps the same W and transposes it:")
    print(shapes.format("x W_xᵀ", 1, E, E, H, 1, H), shapes.format("h W_hᵀ", 1, H, H, H, 1, H))
    print(
        "Without the transpose, x W_x does not fit unless E = H; but h W_h fits, because W_h is\n"
        f"square, and silently changes h by up to {differences['W_h not transposed']:.4f}.\n"
    )


def print_differences(differences: dict[str, float | None], verdict: str) -> None:
    """Largest differences from the NumPy loop, and the verdict."""
    print("Largest difference from the NumPy loop over h_1 …:")
    for name in ("jaxrnn", "PyTorch", "rows", "by hand"):
        d = differences[name]
        missing = "not installed: pip install 'jaxrnn[parity]' to compare"
        print(f"  {name:8}  {missing if d is None else f'{d:.1e}'}")
    print(f"\nVerdict: {verdict}.")


if __name__ == "__main__":
    common.main(Config, run)
