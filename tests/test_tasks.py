"""Tasks: examples recomputed in plain Python, baselines met by answers that do not look."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from jaxrnn import GRU, Readout, tasks, unroll
from jaxrnn.tasks.reber import SYMBOLS

TASKS = {
    "adding": tasks.Adding(20),
    "adding early": tasks.Adding(25, markers="early"),
    "multiplication": tasks.Multiplication(20),
    "copying": tasks.Copying(delay=5, symbols=3, count=4),
    "selective copying": tasks.SelectiveCopying(window=9, symbols=3, count=4),
    "delayed recall": tasks.DelayedRecall(delay=6, cues=3, distractors=4),
    "temporal order": tasks.TemporalOrder(22),
    "temporal order of three": tasks.TemporalOrder(33, relevant=3),
    "parity": tasks.Parity(9),
    "parity at every step": tasks.Parity(6, every_step=True),
    "Reber": tasks.Reber(14),
    "flip-flop": tasks.FlipFlop(12, pulse=0.3),
    "perceptual integration": tasks.PerceptualIntegration(40, (0.2,), 2.0),
    "context integration": tasks.ContextIntegration(40, (0.2,), 2.0),
    "sine generator": tasks.SineGenerator(30, frequencies=5),
}
EVERY = pytest.mark.parametrize("name", TASKS)
N = 6000
FLOATS = ("adding", "multiplication", "flip", "perceptual", "context", "sine")


# compiled quickly rather than well: every function here runs once or twice
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def keys():
    return jax.random.split(jax.random.key(7), N)


def draw(task, keys):
    """An example for each key, as NumPy arrays."""
    return jax.tree.map(np.asarray, jit(jax.vmap(task.sample))(keys))


@functools.cache
def batch(name):
    """Many examples of one task."""
    return draw(TASKS[name], keys())


def row(name, number=0):
    return tasks.Example(*(jnp.asarray(leaf[number]) for leaf in batch(name)))


@functools.cache
def evaluation(name):
    task = TASKS[name]
    return jit(lambda outputs, e: (jax.vmap(task.loss)(outputs, e), task.correct(outputs, e)))


def evaluate(name, outputs):
    """The loss of each of the many examples, and whether it is solved, for outputs of each."""
    task = TASKS[name]
    outputs = np.broadcast_to(outputs, (N, task.length, task.output_size)).astype(np.float32)
    return map(np.asarray, evaluation(name)(outputs, batch(name)))


# ---- what xs say, in plain Python ----


def marked(xs):
    return [float(value) for value, mark in xs if mark == 1]


def ids(xs):
    """The symbols of one-hot rows, None for an empty one."""
    for row in xs:
        assert sorted(set(row)) in ([0, 1], [0])
    return [int(np.argmax(row)) if row.any() else None for row in xs]


def at_the_end(answer):
    return lambda task, xs: {len(xs) - 1: answer(xs)}


def copied(task, xs):
    said = ids(xs)[: task.count]
    blanks = [task.symbols] * (task.delay + task.count)
    sign = [task.symbols] * (task.delay - 1) + [task.symbols + 1] + [task.symbols] * task.count
    assert ids(xs) == said + sign and max(said) < task.symbols
    return dict(enumerate(blanks + said))


def picked(task, xs):
    said = [i for i in ids(xs)[: task.window] if i < task.symbols]
    assert len(said) == task.count
    assert ids(xs)[task.window :] == [task.symbols + 1] * task.count
    return {task.window + k: i for k, i in enumerate(said)}


def recalled(task, xs):
    cue, *between, question = ids(xs)
    assert cue < task.cues and question == task.cues + task.distractors
    assert all(task.cues <= i < question for i in between) and len(between) == task.delay
    return {len(xs) - 1: cue}


def ordered(task, xs):
    text = "".join("abcdXYEB"[i] for i in ids(xs) if i is not None)
    assert re.fullmatch(rf"E[a-d]+([XY][a-d]+){{{task.relevant}}}B", text)
    found = "".join(letter for letter in text if letter in "XY")
    orders = {2: "XX XY YX YY", 3: "XXX XXY XYX XYY YXX YXY YYX YYY"}[task.relevant].split()
    return {len(text) - 1: orders.index(found)}


def parity(task, xs):
    odd, answers = False, {}
    for t, (bit,) in enumerate(xs):
        assert bit in (1, -1)
        odd ^= bool(bit == 1)
        answers[t] = int(odd)
    return answers if task.every_step else {len(xs) - 1: int(odd)}


# node of the inner grammar, by the symbols that lead on from it
REBER = {
    "start": {"T": "s", "P": "t"},
    "s": {"S": "s", "X": "x"},
    "t": {"T": "t", "V": "v"},
    "x": {"X": "t", "S": "end"},
    "v": {"P": "x", "V": "end"},
    "end": {"E": None},
}


def legal_after(text):
    """The symbols that may follow the beginning of a string of the embedded grammar."""
    if len(text) < 3:
        return ["B", "TP", "B"][len(text)]
    node = "start"
    for i, symbol in enumerate(text[3:], 3):
        node = REBER[node][symbol]
        if node is None:
            return [text[1], "E"][len(text) - i - 1]
    return "".join(REBER[node])


def continued(task, xs):
    text = "".join(SYMBOLS[i] for i in ids(xs) if i is not None)
    probabilities = {}
    for t in range(len(text)):
        legal = legal_after(text[: t + 1])
        probabilities[t] = [(s in legal) / len(legal) for s in SYMBOLS]
    return probabilities


def remembered(task, xs):
    bits, answers = [None] * task.bits, {}
    for t, pulses in enumerate(xs):
        bits = [
            bit if pulse == 0 else float(pulse) for bit, pulse in zip(bits, pulses, strict=True)
        ]
        assert set(bits) <= {1.0, -1.0}
        answers[t] = bits
    return answers


def oscillating(task, xs):
    assert len(set(xs[:, 0])) == 1
    omega = 0.1 + 0.5 * (xs[0, 0] - 0.25) * task.frequencies / (task.frequencies - 1)
    return {t: [math.sin(omega * t * task.dt)] for t in range(len(xs))}


ORACLES = {
    "adding": at_the_end(lambda xs: [sum(marked(xs))]),
    "multiplication": at_the_end(lambda xs: [math.prod(marked(xs))]),
    "copying": copied,
    "selective copying": picked,
    "delayed recall": recalled,
    "temporal order": ordered,
    "parity": parity,
    "Reber": continued,
    "flip-flop": remembered,
    "sine generator": oscillating,
}


def oracle(name):
    (found,) = (ORACLES[key] for key in ORACLES if name.startswith(key))
    return found


# what noise hides cannot be recomputed; a test of its own looks at these
WITHOUT_NOISE = [name for name in TASKS if "integration" not in name]


@pytest.mark.parametrize("name", WITHOUT_NOISE)
def test_targets_weights_and_length_are_what_xs_say(name):
    task, examples = TASKS[name], batch(name)
    for xs, targets, weights, length in zip(*(leaf[:60] for leaf in examples), strict=True):
        answers = oracle(name)(task, xs)
        assert length == max(answers) + 1 and not xs[length:].any()
        np.testing.assert_array_equal(weights, [t in answers for t in range(task.length)])
        nothing = np.zeros(targets.shape[1:])
        expected = [answers.get(t, nothing) for t in range(task.length)]
        np.testing.assert_allclose(targets, expected, atol=2e-6)


# ---- laws of every task ----


@EVERY
def test_shapes_and_dtypes(name):
    task, examples = TASKS[name], batch(name)
    assert isinstance(task, tasks.Task)
    T, O = task.length, task.output_size
    real = name.startswith((*FLOATS, "Reber"))
    assert examples.xs.shape == (N, T, task.input_size) and examples.xs.dtype == np.float32
    assert examples.targets.shape == ((N, T, O) if real else (N, T))
    assert examples.targets.dtype == (np.float32 if real else np.int32)
    assert examples.weights.shape == (N, T) and examples.weights.dtype == np.float32
    assert examples.length.shape == (N,) and examples.length.dtype == np.int32
    assert set(np.unique(examples.weights)) <= {0, 1} and examples.weights.any(1).all()
    assert examples.length.max() == T


@EVERY
def test_dtypes_under_strict_promotion(name):
    task = TASKS[name]
    for dtype in (jnp.float64, jnp.float32, jnp.bfloat16):
        example = jax.eval_shape(functools.partial(task.sample, dtype=dtype), keys()[0])
        real = jnp.issubdtype(example.targets.dtype, jnp.floating)
        assert example.xs.dtype == example.weights.dtype == dtype
        assert example.targets.dtype == (dtype if real else jnp.int32)
        assert example.length.dtype == jnp.int32
        outputs = jax.ShapeDtypeStruct((task.length, task.output_size), dtype)
        loss = jax.eval_shape(task.loss, outputs, example)
        assert loss.shape == () and loss.dtype == (jnp.float64 if dtype == jnp.float64 else "f4")


def same(got, expected, **within):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **within), got, expected)


SOME = ("adding", "Reber")


@pytest.mark.parametrize(
    "name", [n if n in SOME else pytest.param(n, marks=pytest.mark.long) for n in TASKS]
)
def test_alone_in_a_batch_and_in_another_dtype_it_is_the_same_example(name):
    task, expected = TASKS[name], row(name, 3)
    same(jit(lambda task, key: task.sample(key))(task, keys()[3]), expected, rtol=1e-6)
    double = jit(functools.partial(task.sample, dtype=jnp.float64))(keys()[3])
    same(double, expected, rtol=1e-6, atol=2e-6)


@EVERY
def test_another_key_gives_another_example(name):
    seen = batch(name).xs[:40].reshape(40, -1)
    few = {"sine generator": 5}.get(name, 10)
    assert len(np.unique(seen, axis=0)) >= few


def perfect(name, examples):
    """Outputs as good as can be."""
    if name == "Reber":
        return np.log(np.maximum(examples.targets, 1e-30))
    if name.startswith(FLOATS):
        return examples.targets
    return 100.0 * np.eye(TASKS[name].output_size, dtype=np.float32)[examples.targets]


@EVERY
def test_perfect_outputs_have_no_loss_and_are_correct(name):
    examples, outputs = batch(name), perfect(name, batch(name))
    floor = 0.0
    if name == "Reber":  # a fair coin at each step where two symbols are legal
        two = np.sum(examples.targets == 0.5, (1, 2)) / 2
        floor = math.log(2) * two / examples.length
        assert floor.mean() > 0.2
    losses, correct = evaluate(name, outputs)
    np.testing.assert_allclose(losses, floor, atol=1e-6)
    assert correct.shape == (N,) and correct.dtype == bool and correct.all()


@pytest.mark.parametrize("name", [name for name in TASKS if not name.startswith("sine")])
def test_one_wrong_step_is_enough(name):
    weights, outputs = batch(name).weights, perfect(name, batch(name)).copy()
    last = weights.shape[1] - 1 - np.argmax(weights[:, ::-1], 1)
    outputs[np.arange(N), last] = 0.5 - outputs[np.arange(N), last]
    _, correct = evaluate(name, outputs)
    if name in ("adding", "multiplication"):  # where right and wrong may lie close together
        answers = batch(name).targets[np.arange(N), last, 0]
        np.testing.assert_array_equal(correct, np.abs(0.5 - 2 * answers) < 0.04)
    elif not name.startswith("adding"):
        assert not correct.any()


@pytest.mark.parametrize("name", ["temporal order", "Reber", "flip-flop"])
def test_loss_is_the_mean_over_examples_and_blind_where_nothing_counts(name):
    task = TASKS[name]
    draws = np.random.default_rng(1).normal(size=(N, task.length, task.output_size))
    losses, solved = (a[:6] for a in evaluate(name, draws))
    two = jax.tree.map(lambda a: a[:6].reshape(2, 3, *a.shape[1:]), (draws, batch(name)))

    @jit
    def judge(outputs, examples):
        value, gradient = jax.value_and_grad(task.loss)(outputs, examples)
        return value, gradient, task.correct(outputs, examples)

    value, gradient, correct = judge(*two)
    np.testing.assert_allclose(value, np.mean(losses), rtol=1e-5)
    np.testing.assert_array_equal(correct, solved.reshape(2, 3))
    # whatever stands where nothing counts, NaN too
    counts = two[1].weights[..., None] > 0
    same(judge(np.where(counts, two[0], np.nan), two[1]), (value, gradient, correct), rtol=0)
    assert np.all((np.abs(gradient) > 0).any(-1, keepdims=True) == counts)


def test_it_is_static_and_traced_once():
    traces = []

    @jit
    def sample(task, key):
        traces.append(task)
        return task.sample(key).xs

    assert sample(tasks.Parity(8), keys()[0]).shape == sample(tasks.Parity(8), keys()[1]).shape
    assert len(traces) == 1 and tasks.Parity(8) == tasks.Parity(length=8)


# ---- baselines ----


def blind(name, examples):
    """The best answer that knows only the step, as far as these examples tell."""
    share = examples.weights / examples.weights.sum(1, keepdims=True)
    targets, counted = examples.targets, share.sum(0)[:, None]
    if name.startswith(FLOATS):
        return (share[..., None] * targets).sum(0) / np.maximum(counted, 1e-9)
    if targets.ndim == 2:
        targets = np.eye(TASKS[name].output_size)[targets]
    return np.log((share[..., None] * targets).sum(0) + 1e-3)


@EVERY
def test_the_best_answer_that_does_not_look_meets_the_baseline(name):
    task, half = TASKS[name], N // 2
    answer = blind(name, tasks.Example(*(leaf[:half] for leaf in batch(name))))
    losses, correct = evaluate(name, answer)
    held_out = losses[half:]
    error = held_out.std() / math.sqrt(half)
    learned = task.output_size / half  # what estimating the answer costs, at most
    assert abs(held_out.mean() - task.baseline) < 4 * error + learned
    if name in ("copying", "Reber", "sine generator"):  # others may be right by chance
        assert correct.mean() < 0.03


# the answer that is the same at every step, if that is the best one, and how often it is "correct"
def _product_below(z):
    return z - z * math.log(z)  # of two numbers from U(0, 1)


CONSTANTS = {
    "adding": (1.0, 1 - 0.96**2),
    "multiplication": (0.25, _product_below(0.29) - _product_below(0.21)),
    "selective copying": (0.0, 0),
    "delayed recall": (0.0, 0),
    "temporal order": (0.0, 0),
    "parity": (0.0, 0),
    "flip-flop": (0.0, 0),
    "perceptual integration": (0.0, 0),
    "context integration": (0.0, 0),
}


@pytest.mark.parametrize("name", [n for n in TASKS if n.startswith(tuple(CONSTANTS))])
def test_the_constant_answer_meets_the_baseline_and_is_not_correct(name):
    ((value, rate),) = (CONSTANTS[key] for key in CONSTANTS if name.startswith(key))
    losses, correct = evaluate(name, value)
    error = losses.std() / math.sqrt(N)
    assert abs(losses.mean() - TASKS[name].baseline) < 4 * error + 1e-6
    assert abs(correct.mean() - rate) <= 4 * math.sqrt(rate * (1 - rate) / N)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (tasks.Adding(400), 1 / 6),
        (tasks.Multiplication(100), 1 / 9 - 1 / 16),
        (tasks.Copying(delay=100), 10 * math.log(8) / 120),
        (tasks.Copying(delay=1000), 10 * math.log(8) / 1020),
        (tasks.TemporalOrder(), math.log(4)),
        (tasks.TemporalOrder(relevant=3), math.log(8)),
        (tasks.Parity(), math.log(2)),
        (tasks.DelayedRecall(cues=20), math.log(20)),
        (tasks.SelectiveCopying(), math.log(14)),
        (tasks.FlipFlop(), 1),
        (tasks.PerceptualIntegration(), 1),
        (tasks.ContextIntegration(), 1),
        # t = 1 is the only step at which two sines differ: ((sin .6 − sin .1) / 2)² / 2
        (tasks.SineGenerator(2, frequencies=2), (math.sin(0.6) - math.sin(0.1)) ** 2 / 8),
        # four strings of equal chance: see the test of the shortest ones
        (tasks.Reber(8), math.log(2) * 5 / 8 + math.log(4) / 8),
    ],
)
def test_baselines_as_published_or_by_hand(task, expected):
    assert task.baseline == pytest.approx(expected, rel=1e-12)


def test_late_sines_have_drifted_apart():
    # from the start until all meet again; each sine is a part of the mean that it is told from
    for n, meet in ((2, 20 * math.pi), (6, 20 * math.pi), (51, 200 * math.pi)):
        together = tasks.SineGenerator(10_000, n, dt=meet / 10_000)
        assert abs(together.baseline - (1 - 1 / n) / 2) < 1e-4


def test_the_best_answer_to_noisy_evidence_is_right_as_often_as_is_said():
    for task, share in (
        (tasks.PerceptualIntegration(), 0.852),
        (tasks.ContextIntegration(), 0.875),
    ):
        reach = np.array(task.coherences) * math.sqrt(task.length) / task.noise
        assert abs(scipy.stats.norm.cdf(reach).mean() - share) < 5e-4


def test_evidence_in_sixteen_bits_is_the_rounded_evidence():
    task = tasks.PerceptualIntegration(coherences=(0.009,))
    narrow, wide = (
        task.sample(jax.random.key(0), dtype).xs for dtype in (jnp.bfloat16, jnp.float32)
    )
    np.testing.assert_array_equal(narrow, wide.astype(jnp.bfloat16))


# ---- where things are ----


def marks(name):
    return [np.flatnonzero(row) for row in batch(name).xs[..., 1]]


def test_markers_stand_one_in_each_half_or_both_in_the_first():
    for first, second in marks("adding"):
        assert 0 <= first < 10 <= second < 20
    assert {first for first, _ in marks("adding")} == set(range(10))
    assert {second for _, second in marks("adding")} == set(range(10, 20))
    # of 25: the first ten, then the other eleven of the first twelve
    early = np.array(marks("adding early"))
    assert early.shape == (N, 2) and early.max() == 11 and early.min() == 0
    # steps 10 and 11 can only be the second draw, and are it once in eleven times
    late = np.mean(early[:, 1] >= 10)
    assert abs(late - 2 / 11) < 4 * math.sqrt(2 / 11 * 9 / 11 / N)
    counts = np.bincount(early.ravel(), minlength=12)
    expected = N * np.array([0.1 + 0.9 / 11] * 10 + [1 / 11] * 2)
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


def test_numbers_are_uniform():
    values = np.sort(batch("adding").xs[..., 0].ravel())
    steps = np.arange(1, len(values) + 1) / len(values)
    assert np.abs(values - steps).max() < 1.95 / math.sqrt(len(values))  # Kolmogorov, p = 0.001


@pytest.mark.parametrize("relevant", [pytest.param(2, marks=pytest.mark.long), 3])
def test_temporal_order_has_the_lengths_and_places_of_the_paper(relevant):
    task = tasks.TemporalOrder(relevant=relevant)
    examples = draw(task, keys()[:2000])
    assert set(np.unique(examples.length)) == set(range(100, 111))
    symbol = np.asarray(examples.xs).argmax(-1)
    places = np.array([np.flatnonzero((row == 4) | (row == 5)) for row in symbol])
    windows = {2: [(10, 20), (50, 60)], 3: [(10, 20), (33, 43), (66, 76)]}[relevant]
    for column, (low, high) in zip(places.T, windows, strict=True):
        assert set(column) == set(range(low, high + 1))
    answers = np.asarray(examples.targets).max(1)
    assert set(answers) == set(range(2**relevant))


def test_classes_are_balanced():
    for name in ("delayed recall", "parity", "temporal order"):
        answers = batch(name).targets.max(1)
        K = TASKS[name].output_size
        expected = N / K
        assert np.all(np.abs(np.bincount(answers, minlength=K) - expected) < 5 * expected**0.5)


# ---- the grammar ----


def strings(symbols):
    """What was read, as text."""
    return ["".join(SYMBOLS[i] for i in row[row >= 0]) for row in symbols]


def read(examples):
    xs = np.asarray(examples.xs)
    return np.where(xs.any(-1), xs.argmax(-1), -1)


LOOP = "T*(?:VPXT*)*V"  # from the node before V's loop to that behind V
REGULAR = re.compile(rf"B([TP])B(?:TS*X(?:S|X{LOOP}(?:V|PS))|P{LOOP}(?:V|PS))E\1E")


def test_strings_belong_to_the_grammar():
    assert REGULAR.fullmatch("BTBTSSXXTVVETE") and REGULAR.fullmatch("BPBPVPXVPXVPXVVEPE")
    assert not REGULAR.fullmatch("BTBTSSXXTVVEPE") and not REGULAR.fullmatch("BTBTSVVETE")
    texts = strings(read(batch("Reber")))
    assert all(REGULAR.fullmatch(text + "E") for text in texts)
    assert {len(text) for text in texts} == set(range(8, 15))


def spelled_out(text, chance, most):
    """All strings that begin so and have no more symbols than that, with their chances."""
    if REGULAR.fullmatch(text):
        yield text, chance
    elif len(text) < most:
        legal = legal_after(text)
        for symbol in legal:
            yield from spelled_out(text + symbol, chance / len(legal), most)


@pytest.mark.parametrize("length", [9, 14])
def test_the_baseline_of_the_grammar_string_by_string(length):
    every = dict(spelled_out("", 1.0, length + 1))
    asked = [{} for _ in range(length)]  # at each step, how much each symbol is asked for
    for text, chance in every.items():
        for t in range(len(text) - 1):
            legal = legal_after(text[: t + 1])
            for symbol in legal:
                part = chance / sum(every.values()) / (len(text) - 1) / len(legal)
                asked[t][symbol] = asked[t].get(symbol, 0) + part
    expected = -sum(w * math.log(w / sum(at.values())) for at in asked for w in at.values())
    assert tasks.Reber(length).baseline == pytest.approx(expected, rel=1e-12)


def test_every_edge_of_the_grammar_is_taken():
    texts = strings(read(draw(tasks.Reber(30), keys()[:500])))
    taken = set()
    for text in texts:
        node = "start"
        for symbol in text[3:-1]:
            taken.add((node, symbol))
            node = REBER[node][symbol]
            if node is None:
                break
    assert taken == {(node, symbol) for node, edges in REBER.items() for symbol in edges}


def test_the_shortest_strings_have_equal_chances():
    # of nine symbols there are four, each by three fair choices behind the first one
    texts = strings(read(draw(tasks.Reber(8), keys())))
    found = {text: texts.count(text) for text in set(texts)}
    assert set(found) == {"BTBTXSET", "BPBTXSEP", "BTBPVVET", "BPBPVVEP"}
    assert max(abs(count - N / 4) for count in found.values()) < 5 * math.sqrt(N / 4)


def test_chances_of_short_strings_in_a_long_grammar():
    # length 200 cuts off nothing to speak of: the inner BTXSE has chance 1/8
    examples = draw(tasks.Reber(200), keys()[:4000])
    short = np.mean(np.asarray(examples.length) == 8)
    assert abs(short - 1 / 4) < 4 * math.sqrt(3 / 16 / 4000)


# ---- what noise hides ----


def normal_below(z):
    return 0.5 * math.erfc(-z / math.sqrt(2))


@pytest.mark.parametrize("name", ["perceptual integration", "context integration"])
def test_the_sum_over_time_decides_as_often_as_theory_says(name):
    task, examples = TASKS[name], batch(name)
    xs, answers = np.asarray(examples.xs, np.float64), np.asarray(examples.targets)[:, -1, 0]
    evidence = xs[..., 0]
    if task.input_size == 4:
        assert set(map(tuple, xs[:, 0, 2:])) == {(0, 1), (1, 0)}
        assert np.all(xs[:, :, 2:] == xs[:, :1, 2:])
        evidence = np.where(xs[:, :, 2] == 1, xs[..., 0], xs[..., 1])
        other = np.sign(np.where(xs[:, :, 2] == 1, xs[..., 1], xs[..., 0]).sum(1))
        assert abs(np.mean(other == answers) - 0.5) < 4 * math.sqrt(1 / 4 / N)
    assert set(answers) == {1, -1} and abs(answers.mean()) < 4 / math.sqrt(N)
    wrong = normal_below(-0.2 * math.sqrt(40) / 2)
    got = np.mean(np.sign(evidence.sum(1)) != answers)
    assert abs(got - wrong) < 4 * math.sqrt(wrong * (1 - wrong) / N)
    rest = evidence - 0.2 * answers[:, None]
    assert abs(rest.std() - 2) < 0.02 and abs(rest.mean()) < 0.02
    assert not np.asarray(examples.targets)[:, :-1].any()
    assert np.all(np.asarray(examples.weights) == np.eye(40)[-1])


def test_without_noise_the_coherences_show():
    task = tasks.PerceptualIntegration(3, (0.1, 0.5), 0.0)
    xs = draw(task, keys()[:100]).xs
    np.testing.assert_allclose(np.unique(np.abs(xs)), [0.1, 0.5], rtol=1e-6)


# ---- criteria ----


def test_criteria_at_their_edges():
    tenth = 0.1 * TASKS["sine generator"].baseline
    for name, error in (("adding", 0.04), ("multiplication", 0.04), ("sine generator", tenth**0.5)):
        for factor, right in ((0.99, True), (-0.99, True), (1.01, False), (-1.01, False)):
            _, correct = evaluate(name, batch(name).targets + factor * error)
            assert np.all(correct == right)
    for name, least in (("temporal order", 0.7), ("delayed recall", 0.8), ("parity", 0.5)):
        answer = perfect(name, batch(name)) > 0
        others = answer.shape[-1] - 1
        for p, right in ((least - 0.01, False), (least + 0.01, True)):
            _, correct = evaluate(name, np.log(np.where(answer, p, (1 - p) / others)))
            assert np.all(correct == right)


def test_in_the_grammar_both_legal_symbols_must_stand_out():
    legal = batch("Reber").targets > 0
    one = (np.cumsum(legal, -1) == 1) & legal  # the first of them only
    assert np.all(evaluation("Reber")(np.where(legal, 1.0, 0.9).astype("f4"), batch("Reber"))[1])
    assert not np.any(evaluation("Reber")(one.astype("f4"), batch("Reber"))[1])


# ---- what makes no sense ----


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: tasks.Adding(1), "Adding: length must be a whole number of at least 2, got 1"),
        (lambda: tasks.Adding(3, "early"), "length must be a whole number of at least 4, got 3"),
        (lambda: tasks.Adding(9, "ends"), "Adding: markers must be 'halves' .* got 'ends'"),
        (lambda: tasks.Copying(delay=0), "Copying: delay must be a whole number of at least 1"),
        (lambda: tasks.Copying(symbols=1), "symbols must be a whole number of at least 2, got 1"),
        (lambda: tasks.SelectiveCopying(window=5), "window .* at least 16, the count .* got 5"),
        (lambda: tasks.DelayedRecall(cues=1), "DelayedRecall: cues must be a whole number"),
        (lambda: tasks.TemporalOrder(10), "TemporalOrder: length .* at least 11, got 10"),
        (lambda: tasks.TemporalOrder(relevant=4), "relevant must be 2 or 3, got 4"),
        (lambda: tasks.Parity(0), "Parity: length must be a whole number of at least 1, got 0"),
        (lambda: tasks.Reber(7), "Reber: length .* at least 8, as the shortest string has nine"),
        (lambda: tasks.FlipFlop(bits=0), "FlipFlop: bits must be a whole number of at least 1"),
        (lambda: tasks.FlipFlop(pulse=0.0), "FlipFlop: pulse must be a number above 0, got 0.0"),
        (lambda: tasks.FlipFlop(pulse=1.5), "pulse is a probability, at most 1, got 1.5"),
        (
            lambda: tasks.PerceptualIntegration(coherences=()),
            "numbers above 0, got \\(\\)",
        ),
        (lambda: tasks.ContextIntegration(noise=-1.0), "noise must be a number of at least 0"),
        (lambda: tasks.SineGenerator(frequencies=1), "frequencies must be a whole number"),
        (lambda: tasks.SineGenerator(dt=float("inf")), "dt must be a number above 0, got inf"),
    ],
)
def test_what_makes_no_sense_is_said(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_outputs_and_dtypes_that_do_not_fit_are_said():
    task, example = TASKS["parity"], row("parity")
    sentence = "Parity: outputs have shape \\(9, 3\\), expected \\(9, 2\\): \\(\\*batch, T, 2\\)"
    for method in (task.loss, task.correct):
        with pytest.raises(ValueError, match=sentence):
            method(jnp.zeros((9, 3)), example)
    for task in TASKS.values():
        with pytest.raises(TypeError, match=r"must be a floating one.* got int32"):
            task.sample(jax.random.key(0), jnp.int32)


# ---- they can be learned ----


def trained(task, updates, hidden=32, rate=1e-2):
    """A GRU trained on fresh examples, all in one compiled scan: losses, and those on new ones."""
    network = Readout(GRU(task.input_size, hidden), task.output_size)
    schedule = optax.cosine_decay_schedule(rate, updates)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    def loss(params, examples):
        return task.loss(unroll(network, params, examples.xs)[1], examples)

    def update(carry, key):
        params, state = carry
        examples = jax.vmap(task.sample)(jax.random.split(key, 64))
        value, gradients = jax.value_and_grad(loss)(params, examples)
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), value

    @jax.jit
    def run(key):
        first, then, last = jax.random.split(key, 3)
        params = network.init(first)
        start = (params, optimizer.init(params))
        (params, _), values = jax.lax.scan(update, start, jax.random.split(then, updates))
        examples = jax.vmap(task.sample)(jax.random.split(last, 1000))
        outputs = unroll(network, params, examples.xs)[1]
        return values, task.loss(outputs, examples), task.correct(outputs, examples).mean()

    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam mixes dtypes
        return run(jax.random.key(0))


@pytest.mark.long
@pytest.mark.parametrize(
    ("task", "updates"), [(tasks.Adding(20), 1000), (tasks.FlipFlop(20, pulse=0.2), 400)]
)
def test_a_network_learns_it(task, updates):
    values, held_out, correct = trained(task, updates)
    assert values[0] > 0.5 * task.baseline
    assert held_out < 0.1 * task.baseline and correct > 0.5


# ---- a figure ----


def cells(axes, steps):
    """What the cells of a figure show, a row for each step."""
    (mesh,) = axes.collections
    return np.ma.filled(mesh.get_array(), 0).reshape(-1, steps).T


def test_figures_draw_what_the_example_holds():
    plot = pytest.importorskip("jaxrnn.plot.tasks")
    for name in ("temporal order", "Reber"):
        task, example = TASKS[name], row(name, 1)
        upper, lower = plot.task_example(task, example)
        np.testing.assert_array_equal(cells(upper, task.length), example.xs)
        asked = example.targets
        if asked.ndim == 1:
            asked = np.eye(task.output_size)[asked] * np.asarray(example.weights)[:, None]
        np.testing.assert_array_equal(cells(lower, task.length), asked)
        outputs = jnp.zeros((task.length, task.output_size))
        _, lower = plot.task_example(task, example, outputs)
        even = np.where(np.asarray(example.weights)[:, None] > 0, 1 / task.output_size, 0)
        np.testing.assert_allclose(cells(lower, task.length), even + 0 * outputs)
        assert [text.get_text() for text in lower.get_legend().get_texts()] == [
            "target",
            "probability",
        ]


def test_figures_of_numbers_show_only_what_counts():
    plot = pytest.importorskip("jaxrnn.plot.tasks")
    example = row("adding")
    _, lower = plot.task_example(TASKS["adding"], example, example.targets + 0.5)
    target, output = lower.lines[1].get_ydata(), lower.lines[3].get_ydata()
    np.testing.assert_array_equal(np.isfinite(target), example.weights)
    assert target[-1] == example.targets[-1, 0] and output[-1] == target[-1] + 0.5
    upper, _ = plot.task_example(TASKS["flip-flop"], row("flip-flop"))
    for channel, line in enumerate(upper.lines[1::2]):
        height = channel - np.asarray(row("flip-flop").xs)[:, channel] / 2.4
        np.testing.assert_allclose(line.get_ydata(), height)
    with pytest.raises(ValueError, match=r"expected \(T, I\), one example: take a row of a batch"):
        plot.task_example(TASKS["adding"], batch("adding"))
