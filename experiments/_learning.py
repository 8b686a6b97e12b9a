"""Training small networks on tasks, drawn anew for each update, until the task is solved."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import jaxrnn
from jaxrnn.cells.lru import Ring
from jaxrnn.initializers import Chrono, ForgetBias, Identity, Orthogonal, Zeros
from jaxrnn.tasks import Task


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Perceptron:
    """A cell without memory, y = tanh(W x + b): what a linear recurrence needs below it."""

    input_size: int
    output_size: int

    def init(self, key: Any, dtype: Any = jnp.float32) -> Any:
        """Draws W ~ N(0, 1/I)."""
        W = jax.random.normal(key, (self.output_size, self.input_size), dtype)
        return W / self.input_size**0.5, jnp.zeros(self.output_size, dtype)

    def initial_carry(self, params: Any) -> tuple[()]:
        """Nothing."""
        return ()

    def step(self, params: Any, carry: tuple[()], x: Any) -> Any:
        """One step for one example."""
        W, b = params
        return carry, jnp.tanh(W @ x + b)


def _lru(input_size: int, hidden_size: int) -> Any:
    below = Perceptron(input_size, hidden_size)
    return jaxrnn.Stack((below, jaxrnn.LRU(hidden_size, hidden_size, hidden_size, ring=Ring(0.9))))


# by what they are called: LSTM and GRU begin with a bias of 1 on the gate that keeps, or with
# biases for up to a hundred steps
CELLS: dict[str, Callable[[int, int], Any]] = {
    "Elman": jaxrnn.Elman,
    "LSTM": functools.partial(jaxrnn.LSTM, bias_initializer=ForgetBias(1.0)),
    "GRU": functools.partial(jaxrnn.GRU, bias_initializer=ForgetBias(1.0)),
    "LSTM, chrono": functools.partial(jaxrnn.LSTM, bias_initializer=Chrono(100.0)),
    "GRU, chrono": functools.partial(jaxrnn.GRU, bias_initializer=Chrono(100.0)),
    "Elman, orthogonal": functools.partial(jaxrnn.Elman, recurrent_initializer=Orthogonal()),
    "Elman, identity": functools.partial(
        jaxrnn.Elman, activation="relu", recurrent_initializer=Identity(), bias_initializer=Zeros()
    ),
    "LRU": _lru,
    "minGRU": jaxrnn.MinGRU,
}
HELD_OUT = 1000  # sequences that no update sees


class Lesson(NamedTuple):
    """A network, a task, and how the one is taught the other; static.

    batch: sequences of one update.
    learning_rate, clip: of Adam, and the global norm that gradients are clipped to.
    every: updates between two looks at the held-out sequences.
    updates: at most so many.
    goal: the held-out loss at which the task counts as solved.
    """

    network: Any
    task: Task
    batch: int
    learning_rate: float
    clip: float
    every: int
    updates: int
    goal: float

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam on clipped gradients."""
        return optax.chain(optax.clip_by_global_norm(self.clip), optax.adam(self.learning_rate))


class Learned(NamedTuple):
    """What came of a lesson.

    errors: held-out loss at each look, the first before training.
    sequences: how many were seen until the loss was below the goal; inf if it never was.
    correct: share of the held-out sequences that are solved in the end, by the task's criterion.
    before, after: params.
    """

    errors: list[float]
    sequences: float
    correct: float
    before: Any
    after: Any


def learn(
    lesson: Lesson,
    seed: int,
    advance: Callable[[float, str], None],
    name: str,
    drawn_by: Any = None,
) -> Learned:
    """Trains one network; ends as soon as the task is solved.

    drawn_by: a network of the same shapes that draws the params in place of the lesson's own, so
        that networks which only begin differently share what is compiled.

    One seed at a time: under `vmap`, products with params that differ take ten times as long on a
    CPU as those of one network.
    """
    k_params, k_train, k_test = jax.random.split(jax.random.key(seed), 3)
    before = params = (drawn_by or lesson.network).init(k_params)
    state = lesson.optimizer.init(params)
    errors = [float(held_out(lesson, params, k_test)[0])]
    for look in range(1, lesson.updates // lesson.every + 1):
        # a diverged network stays so
        if errors[-1] < lesson.goal or not math.isfinite(errors[-1]):
            advance(lesson.every, name)
            continue
        params, state = _train(lesson, params, state, jax.random.fold_in(k_train, look))
        errors.append(float(held_out(lesson, params, k_test)[0]))
        advance(lesson.every, f"{name}: {errors[-1]:.3g}")
    solved = errors[-1] < lesson.goal
    seen = lesson.batch * lesson.every * (len(errors) - 1) if solved else math.inf
    correct = float(held_out(lesson, params, k_test)[1])
    return Learned(errors, seen, correct, before, params)


@functools.partial(jax.jit, static_argnums=0)
def _train(lesson: Lesson, params: Any, state: Any, key: jax.Array) -> tuple[Any, Any]:
    """`every` updates."""

    def update(before, key):
        params, state = before
        batch = examples(lesson.task, key, lesson.batch)
        gradient = jax.grad(lambda p: lesson.task.loss(outputs(lesson, p, batch), batch))(params)
        # descent goes against the conjugate where params are complex
        gradient = jax.tree.map(jnp.conj, gradient)
        change, state = lesson.optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, change), state), None

    return jax.lax.scan(update, (params, state), jax.random.split(key, lesson.every))[0]


@functools.partial(jax.jit, static_argnums=0)
def held_out(lesson: Lesson, params: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Loss, and share of sequences solved, on sequences that no update sees."""
    batch = examples(lesson.task, key, HELD_OUT)
    ys = outputs(lesson, params, batch)
    return lesson.task.loss(ys, batch), jnp.mean(lesson.task.correct(ys, batch))


def examples(task: Task, key: jax.Array, count: int) -> Any:
    """A batch of examples of a task."""
    return jax.vmap(task.sample)(jax.random.split(key, count))


def outputs(lesson: Lesson, params: Any, batch: Any) -> jax.Array:
    """What the network answers at every step."""
    return jaxrnn.unroll(lesson.network, params, batch.xs, lengths=batch.length)[1]


def network(name: str, task: Task, hidden_size: int) -> jaxrnn.Readout:
    """A cell of the table above, and a linear readout."""
    return jaxrnn.Readout(CELLS[name](task.input_size, hidden_size), task.output_size)
