"""One update, as a pure function of state and batch: what `fit` compiles."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int, PyTree

from jaxrnn.analysis.monitor import Monitored
from jaxrnn.cell import describe
from jaxrnn.train import sharding
from jaxrnn.train.parts import Module, Tree

RESERVED = ("step", "loss", "gradient_norm", "steps_per_second", "tokens_per_second")


class State(NamedTuple):
    """All that an update needs of the ones before, and all that a checkpoint has to hold.

    step: updates that were made; also the position of the next batch.
    trained, rest: the two parts of the model, as `parts` takes it apart.
    optimizer: the state of the Optax optimizer.
    carry: what the next window starts from, or None.
    sound: False once something was not finite; from then on nothing changes.
    """

    step: Int[Array, ""]
    trained: PyTree
    rest: PyTree
    optimizer: PyTree
    carry: PyTree
    sound: Bool[Array, ""]


class Finite(NamedTuple):
    """Whether the loss, and each leaf of gradients and of updates, is finite.

    carry, variables: of each floating leaf of the carry, and of what is not trained, False where
        it holds NaN and held none before. Infinity is a beginning as good as any for a maximum.
    """

    loss: Bool[Array, ""]
    gradients: Bool[Array, " leaves"]
    updates: Bool[Array, " leaves"]
    carry: Bool[Array, " leaves"]
    variables: Bool[Array, " leaves"]


class Report(NamedTuple):
    """What is to be known of one update.

    numbers: loss, norm of the gradient before any clipping, metrics of the loss.
    tokens: real steps in the batch, or None if it does not say.
    sound: as in the state after it.
    """

    numbers: dict[str, Array]
    tokens: Any
    finite: Finite
    sound: Bool[Array, ""]


def fresh(tree: PyTree) -> PyTree:
    """A copy that shares no memory and is not weakly typed, so that updates may reuse it."""

    def one(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        return jnp.array(leaf, dtype=leaf.dtype, copy=True)

    return jax.tree.map(one, tree)


def skips(optimizer_state: PyTree) -> bool:
    """Whether the optimizer itself deals with what is not finite."""

    def one(leaf: Any) -> bool:
        if isinstance(leaf, optax.MultiStepsState):  # what `optax.skip_not_finite` leaves in it
            return isinstance(leaf.skip_state, dict) and "num_not_finite" in leaf.skip_state
        return isinstance(leaf, (optax.ApplyIfFiniteState, optax.ZeroNansState))

    return any(one(leaf) for leaf in jax.tree.leaves(optimizer_state, is_leaf=one))


@dataclasses.dataclass(frozen=True)
class Update:
    """The update `(state, batch, key, start, begins) -> (state, report)`.

    Compare equal if they would compile to the same.

    loss, optimizer: of the user.
    parts: how the model comes apart.
    carried: whether the loss takes and returns a carry.
    lenient: only updates that are not finite make a state unsound, as the optimizer may skip a
        loss and gradients that are not.
    mesh: the devices.
    """

    loss: Callable
    optimizer: Any
    parts: Tree | Module
    carried: bool
    lenient: bool
    mesh: Mesh

    def __call__(
        self, state: State, batch: PyTree, key: Array | None, start: PyTree, begins: Bool[Array, ""]
    ) -> tuple[State, Report]:
        """One update. What is not sound stays as it was.

        start, begins: what the first window of an epoch starts from, and whether this is one.
        """
        before = _choose(begins, start, state.carry)
        value, (carry, rest, metrics), gradients, again = self._gradients(state, batch, key, before)
        told = dict(value=value, grad=gradients, value_fn=again)
        told |= _found(batch, ("xs", "lengths", "resets"))  # for a monitor, and so is the carry
        told |= {"carry": before} if self.carried else {}
        with jax.numpy_dtype_promotion("standard"):  # Optax mixes floats with integers and floats
            updates, optimizer_state = optax.with_extra_args_support(self.optimizer).update(
                gradients, state.optimizer, state.trained, **told
            )
            trained = optax.apply_updates(state.trained, updates)
            norm = optax.tree.norm(gradients)
        harm = _harm(carry, before), _harm(rest, state.rest)
        finite = Finite(
            jnp.isfinite(value), _finite(gradients), _finite(updates), harm[0] < 2, harm[1] < 2
        )
        good = finite.loss & finite.gradients.all()
        sound = state.sound & finite.updates.all()
        if self.lenient:
            # what a skipped step leaves behind must not spoil the next one either
            unspoilt = good | (jnp.concatenate(harm) == 0).all()
            carry, rest = _choose(unspoilt, (carry, rest), (before, state.rest))
        else:
            sound &= good & finite.carry.all() & finite.variables.all()
        after = State(state.step + 1, trained, rest, optimizer_state, carry, sound)
        after = _choose(sound, after, state)._replace(sound=sound)
        numbers = {"loss": value, "gradient_norm": norm, **metrics}
        report = Report(numbers | _monitored(optimizer_state), _tokens(batch), finite, sound)
        places = (homes(after, self.mesh), sharding.replicated(self.mesh))
        return jax.lax.with_sharding_constraint((after, report), places)

    def _gradients(
        self, state: State, batch: PyTree, key: Array | None, before: PyTree
    ) -> tuple[Array, tuple, PyTree, Callable]:
        """The loss, what comes with it, the gradients, and the loss as a function of params."""
        key = None if key is None else jax.random.fold_in(key, state.step)

        def objective(trained: PyTree) -> tuple[Array, tuple]:
            model = self.parts.merge(trained, state.rest)
            # the carry is a number here, not a function of the model: the gradient ends at it
            out = self.loss(model, batch, key, *([before] if self.carried else []))
            value, carry, metrics = _read(out, before, self.carried)
            rest = self.parts.split(model)[1]
            _check_variables(rest, state.rest)
            return value, (carry, rest, metrics)

        (value, extra), gradients = jax.value_and_grad(objective, has_aux=True)(state.trained)
        gradients = jax.tree.map(jnp.conj, gradients)  # of complex leaves: the way up
        return value, extra, gradients, lambda trained: objective(trained)[0]


def homes(state: State, mesh: Mesh) -> State:
    """Where the parts of a state lie: rows of the carry apart, all else on every device."""
    everywhere: Any = [sharding.replicated(mesh)] * len(state)
    return State(*everywhere)._replace(carry=sharding.by_rows(state.carry, mesh))


def compiled(update: Update) -> Callable:
    """The update compiled, once for all that are equal, such as those of several seeds."""
    try:
        return _compiled(update)
    except TypeError:  # a loss without a hash
        return jax.jit(lambda *arguments: update(*arguments), donate_argnums=0)


@functools.lru_cache(maxsize=8)  # no more, as they hold on to what losses close over
def _compiled(update: Update) -> Callable:
    return jax.jit(update, donate_argnums=0)


def _read(out: Any, carry: PyTree, carried: bool) -> tuple[Any, PyTree, dict]:
    """The loss, the carry and the metrics in what the user's function returned."""
    value, extra = out if isinstance(out, tuple) and len(out) == 2 else (out, {})
    after: Any = None
    metrics: Any = extra
    if carried and jax.tree.structure(extra) == jax.tree.structure(carry):
        after, metrics = extra, {}
    elif carried:
        if not (isinstance(extra, tuple) and len(extra) == 2 and isinstance(extra[1], dict)):
            raise ValueError(
                "with a carry the loss must return (value, carry) or (value, (carry, metrics)), "
                f"the carry like the one it got, {describe(carry)}; got {describe(out)}"
            )
        after, metrics = extra
    if describe(after) != describe(carry):
        raise ValueError(
            f"the loss must return a carry like the one it got, {describe(carry)}, "
            f"got {describe(after)}"
        )
    if not _is_number(value, jnp.floating) or not isinstance(metrics, dict):
        raise ValueError(
            "the loss must return a scalar, or a scalar and a dict of metrics, the scalar "
            f"floating; got {describe(out)}"
        )
    _check_metrics(metrics)
    return value, after, metrics


def _check_metrics(metrics: dict) -> None:
    for name, value in metrics.items():
        if name in RESERVED or str(name).startswith(("evaluate/", "monitor/")):
            raise ValueError(f"a metric may not be called {name!r}: fit tells of that itself")
        if not any(_is_number(value, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
            raise ValueError(
                f"metrics must be real scalars, but {name!r} is {describe(value)}: reduce it in "
                "the loss, or leave it out"
            )


def _check_variables(after: PyTree, before: PyTree) -> None:
    new, old = (
        {jax.tree_util.keystr(path): describe(leaf) for path, leaf in paths}
        for paths in map(jax.tree_util.tree_leaves_with_path, (after, before))
    )
    for name in [*old, *new]:
        was, became = old.get(name, "absent"), new.get(name, "absent")
        if was != became:
            raise ValueError(
                f"the loss must leave variables as they are but for their numbers: {name} was "
                f"{was} and became {became}; cast it there, or begin with that"
            )


def _is_number(value: Any, kind: Any) -> bool:
    if not isinstance(value, (bool, int, float)) and getattr(value, "shape", None) != ():
        return False
    return bool(jnp.issubdtype(jnp.result_type(value), kind))


def _choose(condition: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)


def _finite(tree: PyTree) -> Bool[Array, " leaves"]:
    return jnp.array([jnp.isfinite(leaf).all() for leaf in _inexact(tree)], bool)


def _inexact(tree: PyTree) -> list[Array]:
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def _harm(new: PyTree, old: PyTree) -> Int[Array, " leaves"]:
    """Of each floating leaf: 2 if NaN came into it, 1 if infinity did, 0 if it is no worse."""

    def one(leaf: Array) -> Array:
        infinite = jnp.where(jnp.isinf(leaf).any(), 1, 0)
        return jnp.where(jnp.isnan(leaf).any(), 2, infinite)

    now, before = (jnp.array([one(leaf) for leaf in _inexact(tree)], int) for tree in (new, old))
    return jnp.where(now > before, now, 0)


def _found(batch: PyTree, names: tuple[str, ...]) -> dict[str, Any]:
    """The entries of a dict or NamedTuple that have these names."""
    named = batch._asdict() if hasattr(batch, "_asdict") else batch
    named = named if isinstance(named, dict) else {}
    return {name: named[name] for name in names if name in named}


def _tokens(batch: PyTree) -> Any:
    for lengths in _found(batch, ("lengths", "length")).values():
        counts = [a for a in jax.tree.leaves(lengths) if jnp.issubdtype(a.dtype, jnp.integer)]
        if counts:  # a feature may bear that name, too
            return sum(jnp.sum(leaf) for leaf in counts)
    tokens = _found(batch, ("tokens",)).get("tokens")
    return getattr(tokens, "size", None)


def _monitored(optimizer_state: PyTree) -> dict[str, Array]:
    """The record of `jaxrnn.analysis.monitor`, if it is a link of the optimizer."""

    def is_record(leaf: Any) -> bool:
        return isinstance(leaf, Monitored)

    records = filter(is_record, jax.tree.leaves(optimizer_state, is_leaf=is_record))
    names = ("clipped", "measured_at", "rate", "exponents", "time_constant")
    return {f"monitor/{name}": getattr(record, name) for record in records for name in names}
