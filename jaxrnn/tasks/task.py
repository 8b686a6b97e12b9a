"""What a task is: examples as a pure function of a key, a loss, and when an example is solved."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jaxrnn.cell import at_least_float32


class Example(NamedTuple):
    """One example, or a batch of them by `jax.vmap(task.sample)(keys)`.

    xs: what the network reads.
    targets: classes, or what `loss` compares the outputs with; zero at steps that do not count.
    weights: 1 at steps that count, else 0.
    length: real steps; xs is zero after them.
    """

    xs: Float[Array, "*batch T I"]
    targets: Int[Array, "*batch T"] | Float[Array, "*batch T O"]
    weights: Float[Array, "*batch T"]
    length: Int[Array, "*batch"]


@runtime_checkable
class Task(Protocol):
    """What every task has; one of your own needs no more."""

    @property
    def input_size(self) -> int:
        """I, features of one moment of xs."""
        ...

    @property
    def output_size(self) -> int:
        """O, numbers that the network is to give at each step."""
        ...

    @property
    def length(self) -> int:
        """T, steps of an example, of the longest if they vary."""
        ...

    @property
    def baseline(self) -> float:
        """The least loss of an answer that does not look at xs and knows only the step."""
        ...

    def sample(self, key: Array, dtype: DTypeLike = ...) -> Example:
        """Draws one example."""
        ...

    def loss(self, outputs: Any, example: Example) -> Any:
        """The mean over the steps that count, then over the batch."""
        ...

    def correct(self, outputs: Any, example: Example) -> Any:
        """Whether an example is solved."""
        ...


class Stepwise:
    """Loss and success of a task from those of its single steps."""

    @property
    def output_size(self) -> int:
        """O, numbers that the network is to give at each step."""
        raise NotImplementedError

    def _step_losses(self, outputs: Array, targets: Array) -> Float[Array, "*batch T"]:
        raise NotImplementedError

    def _steps_solved(self, outputs: Array, targets: Array) -> Bool[Array, "*batch T"]:
        raise NotImplementedError

    def loss(self, outputs: Float[Array, "*batch T O"], example: Example) -> Float[Array, ""]:
        """The mean over the steps that count, then over the batch, in float32 at least."""
        return jnp.mean(self._losses(outputs, example))

    def correct(
        self, outputs: Float[Array, "*batch T O"], example: Example
    ) -> Bool[Array, "*batch"]:
        """Whether an example is solved: every step that counts is."""
        outputs, targets, weights = self._counted(outputs, example)
        return jnp.all(self._steps_solved(outputs, targets) | (weights == 0), -1)

    def _losses(self, outputs: Array, example: Example) -> Float[Array, "*batch"]:
        # of each example
        outputs, targets, weights = self._counted(outputs, example)
        losses = self._step_losses(outputs, targets)
        return jnp.sum(weights * losses, -1) / jnp.sum(weights, -1)

    def _counted(self, outputs: Array, example: Example) -> tuple[Array, Array, Array]:
        # outputs of steps that do not count are replaced before anything is made of them, so that
        # not even NaN there reaches the loss or its gradient
        expected = (*example.weights.shape, self.output_size)
        if outputs.shape != expected:
            raise ValueError(
                f"{type(self).__name__}: outputs have shape {outputs.shape}, expected {expected}: "
                f"(*batch, T, {self.output_size}), one row of numbers for each step of xs"
            )
        counts = example.weights > 0
        dtype = at_least_float32(outputs.dtype)
        outputs = jnp.where(counts[..., None], outputs.astype(dtype), 0)
        targets = example.targets
        if jnp.issubdtype(targets.dtype, jnp.floating):
            targets = targets.astype(dtype)
        return outputs, targets, example.weights.astype(dtype)


class Classification(Stepwise):
    """Outputs are logits, targets int classes: cross-entropy in nats.

    A step is solved if the right class alone is the most probable: a tie is none.
    """

    def _step_losses(self, outputs: Array, targets: Array) -> Array:
        log_p = jax.nn.log_softmax(outputs)
        return -jnp.take_along_axis(log_p, targets[..., None], -1)[..., 0]

    def _steps_solved(self, outputs: Array, targets: Array) -> Array:
        return above_all_others(outputs, jax.nn.one_hot(targets, outputs.shape[-1]) > 0)


class Regression(Stepwise):
    """Outputs and targets are real numbers: mean squared error, over the features too."""

    def _step_losses(self, outputs: Array, targets: Array) -> Array:
        return jnp.mean((outputs - targets) ** 2, -1)


class Signs(Regression):
    """Targets are ±1, and a step is solved if each output has the sign of its target."""

    def _steps_solved(self, outputs: Array, targets: Array) -> Array:
        return jnp.all(outputs * targets > 0, -1)


def above_all_others(
    outputs: Float[Array, "*batch O"], chosen: Bool[Array, "*batch O"]
) -> Bool[Array, "*batch"]:
    """Whether each of the chosen outputs is larger than each of the others."""
    least = jnp.min(jnp.where(chosen, outputs, jnp.inf), -1)
    return least > jnp.max(jnp.where(chosen, -jnp.inf, outputs), -1)


def surely(outputs: Array, targets: Array, error: float) -> Array:
    """Whether every softmax probability is closer than `error` to the 0 or 1 it should be.

    `error` is below 1/2: then it is enough to look at the right class, as the others share the
    rest.
    """
    p = jax.nn.softmax(outputs)
    return jnp.take_along_axis(p, targets[..., None], -1)[..., 0] > 1 - error


def symbols(ids: Int[Array, " T"], kinds: int, dtype: DTypeLike) -> Float[Array, "T I"]:
    """One-hot rows; zeros for a negative id."""
    return jax.nn.one_hot(ids, kinds, dtype=dtype)


def answer_once(
    xs: Float[Array, "T I"], answer: Array, length: int | Int[Array, ""] | None = None
) -> Example:
    """The example whose only step that counts is the last: a class, or real numbers `(O,)`."""
    steps = xs.shape[0]
    length = jnp.asarray(steps if length is None else length, jnp.int32)
    last = step_numbers(steps) == length - 1
    where = last.reshape(-1, *[1] * answer.ndim)
    targets = jnp.where(where, answer, jnp.zeros_like(answer))
    return Example(xs, targets, last.astype(xs.dtype), length)


def step_numbers(steps: int) -> Int[Array, " T"]:
    """0 … T − 1, int32 also where 64 bits are enabled."""
    return jnp.arange(steps, dtype=jnp.int32)


def draw_uniform(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """U(0, 1), drawn in float32 and then cast: a key gives the same example in every dtype."""
    return jax.random.uniform(key, shape, jnp.float32).astype(dtype)


def draw_normal(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """N(0, 1), likewise."""
    return jax.random.normal(key, shape, jnp.float32).astype(dtype)


def draw_int(key: Array, shape: tuple[int, ...], low: int | Array, high: int | Array) -> Array:
    """Whole numbers from low to high − 1, int32."""
    return jax.random.randint(key, shape, low, high, jnp.int32)


def check_whole(task: Any, field: str, least: int, why: str = "") -> None:
    """Raises unless a field is a whole number of at least `least`."""
    value = getattr(task, field)
    if type(value) is not int or value < least:
        raise ValueError(
            f"{type(task).__name__}: {field} must be a whole number of at least {least}{why}, "
            f"got {value!r}"
        )


def check_positive(task: Any, field: str, *, zero: bool = False) -> None:
    """Raises unless a field is a positive number, or zero where that makes sense."""
    value = getattr(task, field)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (0 <= value < float("inf")) or (value == 0 and not zero):
        raise ValueError(
            f"{type(task).__name__}: {field} must be a number {'of at least' if zero else 'above'} "
            f"0, got {value!r}"
        )


def check_dtype(task: Any, dtype: DTypeLike) -> None:
    """Raises unless examples can be of that dtype."""
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"{type(task).__name__}: dtype must be a floating one, such as jnp.float32, "
            f"got {jnp.dtype(dtype).name}"
        )
