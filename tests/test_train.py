"""`fit`: the plain Optax loop bit for bit, and what it adds: resuming, stopping, telling."""

import json
import pickle
import re
import sys
import types

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from flax import nnx

import jaxrnn
from jaxrnn.train import progress, sharding
from jaxrnn.train.batches import Batches
from jaxrnn.train.checkpoints import CheckpointError, Checkpoints
from jaxrnn.train.fit import fit
from jaxrnn.train.run import NotFiniteError
from jaxrnn.train.sources import Windows

CELL = jaxrnn.Readout(jaxrnn.Elman(3, 4), 3)
PARAMS = CELL.init(jax.random.key(0))
SERIES = np.random.default_rng(0).normal(size=(97, 3)).astype(np.float32)
ADAM = optax.adam(0.1)
ROWS = {
    "xs": SERIES[:72].reshape(12, 6, 3),
    "targets": SERIES[1:73].reshape(12, 6, 3),
}


class Interrupted(Exception):
    """What ends a run in the middle."""


class Memory:
    """Checkpoints that are copies in memory."""

    def __init__(self):
        self.saved = {}

    def save(self, step, state):
        self.saved[step] = jax.tree.map(np.array, state)

    def restore(self, template):
        if not self.saved:
            return None
        step = max(self.saved)
        assert jax.tree.structure(self.saved[step]) == jax.tree.structure(template)
        return step, self.saved[step]

    def wait(self):
        pass


class Slow(Memory):
    """Copies that are there once they were waited for, unless writing fails."""

    def __init__(self, fails=()):
        super().__init__()
        self.writing, self.fails = {}, fails

    def save(self, step, state):
        self.wait()
        self.writing[step] = jax.tree.map(np.array, state)

    def wait(self):
        writing, self.writing = self.writing, {}
        if writing.keys() & set(self.fails):
            raise CheckpointError("the disk is full")
        self.saved |= writing


class Until:
    """Batches that are there up to a position."""

    def __init__(self, batches, end):
        self.batches, self.end = batches, end

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, position):
        if position >= self.end:
            raise Interrupted
        return self.batches[position]


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def without_speed(history):
    return [{k: v for k, v in line.items() if "per_second" not in k} for line in history]


def windowed(params, batch, key, carry):
    xs = batch["tokens"]
    if key is not None:
        xs = xs + jax.random.normal(key, xs.shape, xs.dtype) / 10
    carry, ys = jaxrnn.unroll(CELL, params, xs, carry=carry)
    return jnp.mean((ys - batch["targets"]) ** 2), carry


def start(batch):
    carry = CELL.initial_carry(PARAMS)
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (batch, *a.shape)), carry)


def quadratic(model, batch, key):
    """Its gradient is model − batch: everything about it is known."""
    return sum(jnp.sum((w - x) ** 2) for w, x in zip(model, batch, strict=True)) / 2


def constant(count=100, value=1.0):
    return Batches((np.full((count, 2), value), np.full((count, 3), value)), 10)


MODEL = (jnp.zeros(2), jnp.zeros(3))


def over_rows(model, batch, key):
    return sum(jnp.mean((w - x) ** 2) for w, x in zip(model, batch, strict=True))


def test_fit_is_the_plain_loop_bit_for_bit():
    windows = Windows(SERIES, 4, 6)  # four windows: the carry begins anew at steps 0, 4, 8
    schedule = optax.exponential_decay(0.03, 3, 0.9)
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(schedule))
    key = jax.random.key(5)

    @jax.jit
    def update(params, state, batch, key, carry):
        gradient = jax.value_and_grad(windowed, has_aux=True)
        (loss, carry), gradients = gradient(params, batch, key, carry)
        with jax.numpy_dtype_promotion("standard"):  # as Optax needs
            updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, carry, loss

    params, state, carry, losses = PARAMS, optimizer.init(PARAMS), None, []
    for n in range(10):
        carry = start(4) if n % 4 == 0 else carry
        step_key = jax.random.fold_in(key, n)
        params, state, carry, loss = update(params, state, windows[n], step_key, carry)
        losses.append(float(loss))

    before = jax.tree.map(np.array, PARAMS)
    done = fit(windowed, PARAMS, windows, optimizer, steps=10, key=key, carry=start(4), log_every=1)
    same(done.model, params)
    same(done.last, params)
    same(done.optimizer_state, state)
    same(done.carry, carry)
    assert [line["loss"] for line in done.history] == losses
    assert [line["step"] for line in done.history] == list(range(1, 11))
    assert (done.step, done.stopped, done.best_step) == (10, "steps", None)
    same(PARAMS, before)  # the memory of the user's model is not reused


def test_of_a_module_only_params_are_trained_and_the_rest_is_carried_along():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(3, 2, rngs=rngs)
            self.network = nnx.data(jax.tree.map(nnx.Param, PARAMS))
            self.calls = nnx.Variable(jnp.zeros((), jnp.int32))
            self.fixed = nnx.Variable(jnp.ones(3, jnp.float32))
            self.dropout = nnx.Dropout(0.5, rngs=rngs)  # a random key and a count

        def __call__(self, xs):
            self.calls[...] += 1
            inner = self.network.network
            hs = jnp.tanh(xs * self.fixed[...] @ inner.W_x[...].T + inner.b[...])
            return self.linear(self.dropout(hs[..., :3]))

    def loss(model, batch, key):
        return jnp.mean(model(batch["xs"]) ** 2), {"calls": model.calls[...]}

    batches = Batches(ROWS, 4)
    model = Model(nnx.Rngs(0))
    done = fit(loss, model, batches, ADAM, steps=5, log_every=1)
    assert int(model.calls[...]) == 0
    assert int(done.model.calls[...]) == 5
    assert [line["calls"] for line in done.history] == [1, 2, 3, 4, 5]
    assert isinstance(done.model.network, jaxrnn.ReadoutParams)
    assert np.array_equal(done.model.fixed[...], np.ones(3))

    optimizer = nnx.Optimizer(model, ADAM, wrt=nnx.Param)  # Flax's own loop

    @nnx.jit
    def update(model, optimizer, batch):
        gradients = nnx.grad(lambda model: loss(model, batch, None)[0])(model)
        with jax.numpy_dtype_promotion("standard"):
            optimizer.update(model, gradients)

    for n in range(5):
        update(model, optimizer, batches[n])
    ours, flax = (nnx.as_pure(nnx.state(m, nnx.Param)) for m in (done.model, model))
    for a, b in zip(*map(jax.tree.leaves, (ours, flax)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_complex_leaves_descend_and_integers_stay():
    target = np.array([1 + 2j, -3j])
    model = {"z": jnp.zeros(2, complex), "x": jnp.zeros(()), "n": jnp.arange(3), "none": None}

    def loss(model, batch, key):
        away = model["z"] - target
        return jnp.sum(away.real**2 + away.imag**2) + (model["x"] - 5.0) ** 2

    done = fit(loss, model, constant(), optax.sgd(0.1), steps=20)
    # z ← z − 0.2 (z − target)
    np.testing.assert_allclose(done.model["z"], target * (1 - 0.8**20), rtol=1e-12)
    np.testing.assert_allclose(done.model["x"], 5 * (1 - 0.8**20), rtol=1e-12)
    assert np.array_equal(done.model["n"], np.arange(3))
    assert done.model["n"].dtype == model["n"].dtype


def scripted(values):
    """An evaluation that gives these values in turn, and remembers the models it saw."""
    seen = []

    def evaluate(model):
        seen.append(jax.tree.map(np.array, model))
        return {"loss": values[len(seen) - 1], "other": 0.5}

    return evaluate, seen


@pytest.mark.parametrize("killed", [3, 6, 9, 11])
def test_a_run_goes_on_bit_for_bit(killed, tmp_path):
    windows = Windows(SERIES, 4, 6)
    options = dict(steps=12, key=jax.random.key(5), carry=start(4), evaluate_every=2, log_every=1)

    def evaluate(model):  # rises and falls, so that what is best is kept over the interruption
        return {"loss": np.sin(100 * np.sum(model.W))}

    def run(batches, **more):
        args = (windowed, PARAMS, batches, ADAM)
        return fit(*args, **options, **more, evaluate=evaluate, checkpoint_every=3)

    whole = run(windows)
    memory, log = Memory(), tmp_path / "log.jsonl"
    with pytest.raises(Interrupted):
        run(Until(windows, killed), checkpoints=memory, log=log)
    assert max(memory.saved) == killed // 3 * 3
    resumed = run(windows, checkpoints=memory, log=log)
    for name in ("model", "last", "optimizer_state", "carry"):
        same(getattr(resumed, name), getattr(whole, name))
    assert (resumed.step, resumed.best_step) == (whole.step, whole.best_step)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert without_speed(lines) == without_speed(whole.history) == without_speed(resumed.history)
    again = run(windows, checkpoints=memory, log=log)  # nothing is left to do
    same(again.last, whole.last)
    assert without_speed(again.history) == without_speed(whole.history)


def test_a_run_goes_on_with_shuffled_batches_and_to_more_steps():
    rng = np.random.default_rng(1)
    batches = Batches((rng.normal(size=(50, 2)), rng.normal(size=(50, 3))), 8)
    memory = Memory()
    fit(over_rows, MODEL, batches, ADAM, steps=9, checkpoints=memory)
    assert list(memory.saved) == [9]
    longer = fit(over_rows, MODEL, batches, ADAM, steps=20, checkpoints=memory)
    same(longer.model, fit(over_rows, MODEL, batches, ADAM, steps=20).model)


class Spoilt:
    """Batches, one of which holds a NaN."""

    def __init__(self, batches, position):
        self.batches, self.position = batches, position

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, position):
        first, second = self.batches[position]
        if position == self.position:
            second = second.copy()
            second[0, 1] = np.nan
        return first, second


def test_infinity_in_carry_or_variables_is_no_harm():
    def loss(model, batch, key, carry):
        model["count"][...] += 1
        value = over_rows([w[...] for w in model["w"]], batch, key)
        return value, carry | {"count": carry["count"] + 1}

    least, count = (nnx.Variable(jnp.asarray(number)) for number in (jnp.inf, 0))
    model = {"w": [nnx.Param(w) for w in MODEL], "count": count, "least": least}
    carry = {"count": jnp.zeros(10), "most": jnp.full(10, -jnp.inf)}  # of a running maximum
    skipping = optax.apply_if_finite(ADAM, 3)
    for optimizer, batches in [(ADAM, constant()), (skipping, Spoilt(constant(), 2))]:
        done = fit(loss, model, batches, optimizer, steps=4, carry=carry)
        assert np.array_equal(done.carry["count"], np.full(10, 4))
        assert done.model["count"][...] == 4


def test_nan_in_carry_or_variables_stops_though_the_loss_is_finite():
    def loss(model, batch, key, carry):
        return over_rows(model, batch, key), {
            "c": jnp.where(carry["c"] < 3, 1, jnp.nan) + carry["c"]
        }

    with pytest.raises(NotFiniteError) as caught:
        fit(loss, MODEL, constant(), ADAM, steps=9, carry={"c": jnp.zeros(10)})
    error = caught.value
    assert (error.step, error.path) == (4, "['c']")
    assert "batches[3]: the carry became NaN at ['c'] (1 of 1 leaves). Nothing" in str(error)
    assert "Look at what the loss makes of it" in str(error)
    assert np.array_equal(error.fit.carry["c"], np.full(10, 3))

    class Model(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.zeros(2))
            self.mean = nnx.Variable(jnp.zeros(2))

    def drift(model, batch, key):
        model.mean[...] += jnp.where(model.mean[...] < 2, 1, jnp.nan)
        return jnp.mean((model.w[...] - batch[0]) ** 2)

    with pytest.raises(NotFiniteError, match=r"the variable .*mean.* became NaN") as caught:
        fit(drift, Model(), constant(), ADAM, steps=9)
    assert caught.value.step == 3 and "mean" in caught.value.path


@pytest.mark.parametrize("end", [Interrupted, KeyboardInterrupt, NotFiniteError])
def test_whatever_ends_a_run_the_checkpoint_in_flight_arrives(end):
    class Ends(Spoilt):
        def __getitem__(self, position):
            if position == 9 and end is not NotFiniteError:
                raise end
            return super().__getitem__(position)

    def run(checkpoints):
        options = dict(steps=12, checkpoint_every=3, checkpoints=checkpoints)
        with pytest.raises(end) as caught:
            fit(over_rows, MODEL, Ends(constant(), 9), ADAM, **options)
        return caught.value

    slow = Slow()
    assert not hasattr(run(slow), "__notes__")
    assert max(slow.saved) == 9
    lost = Slow(fails=[9])
    error = run(lost)
    assert error.__notes__ == ["the disk is full"]
    assert max(lost.saved) == 6
    if end is NotFiniteError:  # what it names is there
        assert error.checkpoint == 6 and "the last checkpoint is of step 6" in str(error)


def test_lines_before_the_step_that_failed_are_told(tmp_path):
    log, options = tmp_path / "log.jsonl", dict(steps=30, log_every=1, evaluate_every=8)
    with pytest.raises(NotFiniteError) as caught:
        batches = Spoilt(constant(), 7)
        fit(over_rows, MODEL, batches, ADAM, log=log, evaluate=lambda m: {"loss": 1}, **options)
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == [line["step"] for line in caught.value.fit.history] == list(range(1, 8))


def test_an_error_can_be_sent_to_another_process():
    with pytest.raises(NotFiniteError) as caught:
        fit(over_rows, MODEL, Spoilt(constant(), 1), ADAM, steps=3)
    error, back = caught.value, pickle.loads(pickle.dumps(caught.value))
    assert (str(back), back.step, back.path) == (str(error), 2, "[1]")
    same(back.fit.last, error.fit.last)


@pytest.mark.parametrize("log_every, spoilt", [(1, 7), (100, 7), (1, 0), (7, 29)])
def test_not_finite_stops_and_loses_nothing(log_every, spoilt):
    batches, memory = constant(), Memory()
    with pytest.raises(NotFiniteError) as caught:
        fit(
            over_rows,
            MODEL,
            Spoilt(batches, spoilt),
            ADAM,
            steps=30,
            log_every=log_every,
            checkpoints=memory,
            checkpoint_every=4,
        )
    error = caught.value
    assert (error.step, error.position, error.path) == (spoilt + 1, spoilt, "[1]")
    assert f"step {spoilt + 1}, batches[{spoilt}]: the loss is nan; " in str(error)
    assert "the gradient of [1] is not finite (1 of 2 leaves)" in str(error)
    assert "the batch itself is not finite at [1]" in str(error)
    assert "Mend that batch" in str(error) and "learning rate" not in str(error)
    saved = spoilt // 4 * 4 or None
    assert error.checkpoint == saved == max(memory.saved, default=None)
    assert (error.fit.step, error.fit.stopped) == (spoilt, "not finite")
    last = MODEL
    if spoilt:
        good = fit(over_rows, MODEL, batches, ADAM, steps=spoilt)
        same(error.fit.optimizer_state, good.optimizer_state)
        last = good.last
    same(error.fit.last, last)


def test_the_leaf_is_named_where_the_gradient_alone_is_not_finite():
    def loss(model, batch, key):
        return jnp.sum(model["a"] ** 2) + jnp.sum(jnp.sqrt(model["b"]["c"]))

    model = {"a": jnp.ones(2), "b": {"c": jnp.zeros(1)}, "d": jnp.ones(())}
    with pytest.raises(NotFiniteError, match=re.escape("batches[0]: the gradient of ['b']['c']")):
        fit(loss, model, constant(), optax.sgd(0.1), steps=5)

    def overflow(updates, state, params=None):
        return jax.tree.map(lambda u: u / 0.0, updates), state

    optimizer = optax.GradientTransformation(lambda params: (), overflow)
    with pytest.raises(NotFiniteError, match=re.escape("the update of [0] is not finite (2 of 2")):
        fit(over_rows, MODEL, constant(), optimizer, steps=5)


def test_the_optimizer_may_skip_what_is_not_finite():
    batches = constant()
    skipping = optax.apply_if_finite(ADAM, 3)
    done = fit(over_rows, MODEL, Spoilt(batches, 7), skipping, steps=11, log_every=1)
    same(done.model, fit(over_rows, MODEL, batches, skipping, steps=10).model)
    assert done.step == 11
    assert int(done.optimizer_state.total_notfinite) == 1
    assert np.isnan(done.history[7]["loss"])

    class Always(Spoilt):
        def __getitem__(self, position):
            return Spoilt(self.batches, position)[position]

    with pytest.raises(NotFiniteError) as caught:  # it gives up after three
        fit(over_rows, MODEL, Always(batches, 0), skipping, steps=11)
    assert caught.value.step == 4


def test_gradients_may_be_skipped_where_several_are_put_together():
    skip = dict(should_skip_update_fn=optax.skip_not_finite)
    several = optax.MultiSteps(optax.sgd(0.1), 2, **skip, accumulator_dtype=jnp.float64)
    batches = constant()
    done = fit(over_rows, MODEL, Spoilt(batches, 3), several, steps=5)
    same(done.model, fit(over_rows, MODEL, batches, several, steps=4).model)
    with pytest.raises(NotFiniteError):
        several = optax.MultiSteps(optax.sgd(0.1), 2, accumulator_dtype=jnp.float64)
        fit(over_rows, MODEL, Spoilt(batches, 3), several, steps=5)


def test_params_of_several_dtypes():
    def loss(model, batch, key):
        return jnp.mean((model["w"] + model["b"].astype(jnp.float32) - 1) ** 2)

    model = {"w": jnp.zeros(2, jnp.float32), "b": jnp.zeros((), jnp.bfloat16), "n": 0.5}
    done = fit(loss, model, constant(), optax.sgd(0.1), steps=1)
    assert [leaf.dtype for leaf in jax.tree.leaves(done.model)] == [
        "bfloat16",
        "float64",
        "float32",
    ]
    # −2 for w + b together, −1 of it for each of w, and −2 for b
    np.testing.assert_allclose(done.history[0]["gradient_norm"], np.sqrt(1 + 1 + 4), rtol=1e-2)


def test_a_skipped_window_does_not_spoil_the_carry():
    windows = Windows(SERIES, 4, 3)

    class Odd(Until):
        def __getitem__(self, position):
            batch = self.batches[position]
            return batch if position != 2 else batch | {"tokens": batch["tokens"] * np.nan}

    skipping = optax.apply_if_finite(optax.sgd(0.1), 3)
    done = fit(windowed, PARAMS, Odd(windows, 0), skipping, steps=6, carry=start(4), log_every=1)
    assert [np.isfinite(line["loss"]) for line in done.history] == [True, True, False] + 3 * [True]


def test_early_stopping_keeps_the_best():
    values = [3.0, 2.0, 2.5, np.nan, 1.5, 1.5, 1.6, 2.0]
    evaluate, seen = scripted(values)
    memory = Memory()
    options = dict(steps=100, evaluate_every=2, patience=2, checkpoints=memory)

    def run(evaluate, **more):
        return fit(over_rows, MODEL, constant(), ADAM, evaluate=evaluate, **options, **more)

    done = run(evaluate)
    assert (done.stopped, done.step, done.best_step) == ("patience", 8, 4)
    same(done.model, seen[1])
    same(done.last, seen[3])
    assert [line["evaluate/loss"] for line in done.history][:3] == [3.0, 2.0, 2.5]
    assert run(evaluate).step == 8  # it was out of patience when it was saved
    assert len(seen) == 4
    options["patience"], memory.saved = 3, {}
    done = run(scripted(values)[0])
    assert (done.stopped, done.step, done.best_step) == ("patience", 16, 10)
    memory.saved = {}
    options["steps"] = 16
    done = run(scripted([-v for v in values])[0], lowest=False)
    assert (done.stopped, done.best_step) == ("steps", 10)


def test_it_is_evaluated_at_the_end_and_a_longer_run_is_as_if_it_had_not_been():
    def run(steps, memory):
        evaluate, seen = scripted([3.0, 2.0, 1.0, 2.5, 2.6, 0.0])
        options = dict(steps=steps, evaluate_every=4, checkpoints=memory, log_every=100)
        done = fit(over_rows, MODEL, constant(), ADAM, evaluate=evaluate, **options)
        return done, seen

    memory = Memory()
    done, seen = run(10, memory)
    assert [line["step"] for line in done.history] == [4, 8, 10]
    assert (done.best_step, done.history[-1]["evaluate/loss"], len(seen)) == (10, 1.0, 3)
    same(done.model, seen[2])
    again, seen = run(10, memory)  # the checkpoint knows only of what was due
    assert (len(seen), again.best_step) == (1, 8)
    longer, whole = (run(20, m)[0] for m in (memory, Memory()))
    assert int(memory.saved[10]["best"].step) == 8 and whole.best_step != 10
    same(longer.last, whole.last)


def test_one_compilation_for_each_shape_of_whatever_seed():
    traces = []

    def loss(model, batch, key):
        traces.append(batch["xs"].shape)
        return (model["w"] - jnp.mean(batch["xs"])) ** 2

    data = {"xs": [np.ones(n) for n in [3] * 8 + [9] * 8]}
    for seed in range(2):
        batches = Batches(data, 4, padding=0.01, seed=seed)
        model = {"w": jnp.asarray(float(seed))}  # weakly typed
        done = fit(loss, model, batches, ADAM, steps=12, key=jax.random.key(seed))
    assert sorted(traces) == [(4, 3), (4, 9)]
    assert done.model["w"].dtype == model["w"].dtype

    class Loss:
        __hash__ = None

        def __call__(self, model, batch, key):
            return loss(model, batch, key)

    same(fit(Loss(), model, batches, ADAM, steps=12).model, done.model)  # it need have no hash


def test_the_log_is_lines_of_json(tmp_path):
    path = tmp_path / "runs" / "log.jsonl"

    def loss(model, batch, key):
        return over_rows(model, batch, key), {"norm": jnp.float32(2.0), "none": jnp.inf}

    done = fit(loss, MODEL, constant(), ADAM, steps=25, log=path)
    lines = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 25]
    assert lines[0].keys() >= {"loss", "gradient_norm", "norm", "steps_per_second"}
    assert "tokens_per_second" not in lines[0]
    assert lines[0]["none"] is None
    assert [line["loss"] for line in lines] == [line["loss"] for line in done.history]
    # d/dw of the mean of (w − 1)² over ten rows: at w = 0, −2/2 and −2/3 for each number
    first = fit(loss, MODEL, constant(), optax.sgd(0.0), steps=1).history[0]
    np.testing.assert_allclose(first["gradient_norm"], np.sqrt(2 * 1**2 + 3 * (2 / 3) ** 2))
    assert first["loss"] == 2.0


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    path, memory = tmp_path / "log.jsonl", Memory()
    path.write_text('{"st')  # of a run that was killed at once
    options = dict(checkpoints=memory, checkpoint_every=5, log=path, log_every=2)
    fit(over_rows, MODEL, constant(), ADAM, steps=5, **options)
    with path.open("a") as file:
        file.write('{"step": 8, "loss": 0.3}\n{"step": 10, "lo')
    fit(over_rows, MODEL, constant(), ADAM, steps=8, **options)
    steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert steps == [2, 4, 5, 6, 8]


@pytest.mark.parametrize("content", ["notes", "notes\n", "[1]\n", '{"step": 1}\nnotes\n'])
def test_a_file_that_is_no_log_is_left_alone(content, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"notes.txt is not a log of fit, line . is no record: ch"):
        fit(over_rows, MODEL, constant(), ADAM, steps=1, log=path)
    assert path.read_text() == content


def test_a_log_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "log", "/dev/full"):
        with pytest.raises(OSError, match=f"cannot write the log {path}: .*; choose another file"):
            fit(over_rows, MODEL, constant(), ADAM, steps=1, log=path)


def rows_loss(params, batch, key):
    _, ys = jaxrnn.unroll(CELL, params, batch["xs"], lengths=batch["lengths"])
    return jnp.mean(ys**2)


def test_tokens_are_counted():
    batches = Batches(ROWS | {"lengths": np.arange(12) % 6 + 1}, 4)
    last = fit(rows_loss, PARAMS, batches, optax.sgd(0.1), steps=3, log_every=1).history[-1]
    tokens = last["tokens_per_second"] / last["steps_per_second"]  # real steps of the third batch
    np.testing.assert_allclose(tokens, batches[2]["lengths"].sum(), rtol=2e-3)


@pytest.mark.parametrize("entry", ["length", "tokens"])
def test_what_only_bears_the_name_is_not_counted(entry):
    def loss(model, batch, key):
        return over_rows(model, batch["x"], key)

    x = (np.ones((20, 2)), np.ones((20, 3)))
    other = {"length": np.full(20, np.nan), "tokens": {"ids": np.ones((20, 4))}}
    batches = Batches({"x": x, entry: other[entry]}, 10)
    history = fit(loss, MODEL, batches, ADAM, steps=3).history
    assert "tokens_per_second" not in history[-1] and "steps_per_second" in history[-1]


def test_speed_is_of_training_alone(monkeypatch):
    seconds = [0.0]

    def takes_long(*_):
        seconds[0] += 100
        return {"loss": 1.0}

    class Second(Until):
        def __getitem__(self, position):
            seconds[0] += 1
            return self.batches[position]

    class Tardy(Memory):
        def save(self, step, state):
            takes_long()
            super().save(step, state)

    def loss(model, batch, key):
        takes_long()  # while it is compiled
        return over_rows(model, batch, key)

    clock = types.SimpleNamespace(perf_counter=lambda: seconds[0])
    for module in ("run", "reports"):
        monkeypatch.setattr(f"jaxrnn.train.{module}.time", clock)
    options = dict(evaluate_every=5, log_every=3, checkpoints=Tardy(), checkpoint_every=4)
    batches = Second(constant(), 0)
    done = fit(loss, MODEL, batches, ADAM, steps=12, evaluate=takes_long, **options)
    assert [line["step"] for line in done.history] == [3, 5, 6, 9, 10, 12]
    assert {line["steps_per_second"] for line in done.history} == {1.0}
    first = fit(loss, MODEL, batches, ADAM, steps=2, log_every=1).history[0]
    assert "steps_per_second" not in first  # there is nothing but the compilation


def test_a_batch_of_numpy_goes_to_one_device_as_it_is():
    batch = {"x": np.ones((4, 2))}
    assert sharding.put_rows(batch, sharding.mesh(False)) is batch
    placed = sharding.put_rows({"x": jnp.ones((4, 2))}, sharding.mesh(False))
    assert placed["x"].sharding.spec == jax.P(sharding.AXIS)


@pytest.mark.long  # the monitor takes a while to compile
def test_a_monitor_in_the_optimizer_speaks():
    batches = Batches(ROWS | {"lengths": np.arange(12) % 6 + 1}, 4)
    watch = jaxrnn.analysis.monitor(
        CELL.network, every=2, rows=2, clip=1e-9, select=lambda params: params.network
    )
    optimizer = optax.chain(watch, optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    done = fit(rows_loss, PARAMS, batches, optimizer, steps=3, log_every=1)
    last = done.history[-1]
    assert (last["monitor/measured_at"], last["monitor/clipped"]) == (3, 3)
    assert last["monitor/rate"] < 0 and len(last["monitor/exponents"]) == 1
    assert last["monitor/rate"] == float(done.optimizer_state[0].rate)


def test_an_optimizer_that_searches_along_a_line_is_told_the_loss():
    # w ← w − 5 (w − 1) alone would overshoot further each time
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=10)
    done = fit(over_rows, MODEL, constant(), optax.chain(optax.sgd(5.0), search), steps=8)
    assert done.history[-1]["loss"] < 0.1


def test_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    options = dict(steps=4, log_every=2, tensorboard=tmp_path / "board")
    fit(over_rows, MODEL, constant(), ADAM, **options)
    (events,) = (tmp_path / "board").iterdir()
    assert b"gradient_norm" in events.read_bytes()
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'jaxrnn[train]'")):
        fit(over_rows, MODEL, constant(), ADAM, **options)


def test_the_bar_is_for_terminals(capsys, monkeypatch):
    fit(over_rows, MODEL, constant(), ADAM, steps=2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fit(over_rows, MODEL, constant(), ADAM, steps=2, progress=False)
    assert capsys.readouterr().err == ""
    fit(over_rows, MODEL, constant(), ADAM, steps=2)
    shown = capsys.readouterr()
    assert "loss" in shown.err and "steps/s" in shown.err and "2/2" in shown.err
    assert shown.out == ""


def test_where_there_is_no_bar_there_is_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(progress, "FIRST", 0)
    fit(over_rows, MODEL, constant(), ADAM, steps=3, log_every=1)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"1/3 · loss 2", line)
    fit(over_rows, MODEL, constant(), ADAM, steps=3, progress=False)
    assert capsys.readouterr().err == ""
    pytest.importorskip("rich")
    assert progress._rich() is None
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert progress._rich() is not None


def test_a_run_that_goes_on_says_so(tmp_path, capsys):
    pytest.importorskip("orbax.checkpoint")
    folder = tmp_path / "run"
    options = dict(checkpoints=folder, progress=True)

    def told(steps, **more):
        fit(over_rows, MODEL, constant(), ADAM, steps=steps, **options | more)
        return capsys.readouterr().err

    assert told(2) == ""
    assert told(2) == f"{folder} is at step 2 already: nothing left to do\n"
    assert told(3, progress=False) == ""
    assert told(4) == f"goes on from step 3 of {folder}\n"
    with pytest.raises(
        ValueError, match=f"{folder} holds step 4, beyond steps=1, .*: ask for more"
    ):
        told(1)
    with pytest.raises(ValueError, match=r"'best'.*One run was given `evaluate` and the other was"):
        told(5, evaluate=lambda model: {"loss": 1.0})
    with pytest.raises(ValueError, match=r"\.carry.*One run was given `carry` and the other was"):
        carried = lambda m, b, k, c: (over_rows(m, b, k), c)  # noqa: E731
        fit(carried, MODEL, constant(), ADAM, steps=5, carry=jnp.zeros(3), checkpoints=folder)
    closed = Checkpoints(folder)
    closed.close()
    with pytest.raises(ValueError, match=f"these Checkpoints of {folder} are closed: make new"):
        told(5, checkpoints=closed)


@pytest.fixture
def without_type_checker():
    """Sentences as users meet them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


class Casts(nnx.Module):
    """A variable that becomes floating."""

    def __init__(self):
        self.w, self.calls = nnx.Param(jnp.zeros(2)), nnx.Variable(jnp.int32(0))

    def loss(self, batch, key):
        self.calls.set_value(self.calls.get_value().astype(float) + 1)
        return jnp.sum(self.w[...] ** 2)


def telling(**metrics):
    return dict(loss=lambda m, b, k: (over_rows(m, b, k), metrics))


@pytest.mark.usefixtures("without_type_checker")
@pytest.mark.parametrize(
    "change, sentence",
    [
        (dict(steps=0), "steps must be a whole number of at least 1, got 0"),
        (dict(checkpoint_every=0), "checkpoint_every must be a whole number"),
        (dict(patience=0), "patience must be a whole number of at least 1, got 0"),
        (dict(patience=3), "patience counts evaluations: pass evaluate"),
        (dict(metric="accuracy"), "metric='accuracy' needs lowest=True or lowest=False"),
        (dict(optimizer="adam"), "optimizer must be one of Optax, got a str: such as optax.adam("),
        (
            dict(optimizer=optax.adam),
            "optimizer must be one of Optax, got a function: call it: adam(",
        ),
        (
            dict(optimizer=nnx.Optimizer(Casts(), ADAM, wrt=nnx.Param)),
            "optimizer must be one of Optax, got a Optimizer",
        ),
        (dict(key=0), "key must come from jax.random.key(seed), got 0"),
        (dict(batches=[constant()[0]]), "for any position from 0 on, as Batches, Windows and Samp"),
        (dict(batches=iter(constant())), "got a generator: make Batches(data, size)"),
        (dict(batches={"x": np.ones(3)}), "got a dict: make Batches(data, size)"),
        (dict(batches=types.MappingProxyType({})), "must have at least one, got a mappingproxy of"),
        (dict(model={"n": jnp.arange(3)}), "a dict has nothing to train"),
        (dict(model={"w": MODEL, "f": [jnp.tanh]}), "model['f'][0] is a PjitFunction, expected an"),
        (
            dict(carry={"name": "h"}, loss=lambda m, b, k, c: 0.0),
            "carry['name'] is a str, expected",
        ),
        (dict(loss=lambda m, b: m), "loss is called with (model, batch, key), but takes (m, b)"),
        (dict(loss=lambda m, b, k: m[0]), "must return a scalar, or a scalar and a dict"),
        (
            dict(loss=lambda m, b, k: (0.0, {}, {})),
            "and a dict of metrics, the scalar floating; got (0",
        ),
        (dict(loss=lambda m, b, k: [m[0].sum(), {}]), "the scalar floating; got [float64[], {}]"),
        (dict(loss=lambda m, b, k: {"loss": 0.0}), "the scalar floating; got {'loss': 0.0}"),
        (dict(loss=lambda m, b, k: None), "the scalar floating; got None"),
        (dict(loss=lambda m, b, k: jnp.int32(3)), "the scalar floating; got int32[]"),
        (telling(step=0.5), "a metric may not be called 'step': fit tells of that itself"),
        (telling(**{"evaluate/loss": 0.5}), "a metric may not be called 'evaluate/loss'"),
        (telling(v=np.ones(3)), "metrics must be real scalars, but 'v' is float64[3]: reduce it"),
        (telling(v=1j), "metrics must be real scalars, but 'v' is 1j"),
        (telling(v={"a": 1.0}), "metrics must be real scalars, but 'v' is {'a': 1.0}"),
        (telling(v="high"), "metrics must be real scalars, but 'v' is 'high'"),
        (
            dict(model=Casts(), loss=Casts.loss),
            "but for their numbers: ['calls'] was int32[] and became float64[]; cast it there",
        ),
        (dict(evaluate=lambda m: {"a": 1.0}, evaluate_every=1), "must return 'loss', the metric"),
        (dict(evaluate=lambda m: 0.5), "a dict of floats, such as {'loss': 0.5}, got 0.5"),
        (dict(evaluate=lambda m: {"loss": m[1]}), "but 'loss' has shape (3,): reduce it to one"),
        (
            dict(carry=jnp.zeros(3), loss=lambda m, b, k, c: m[0].sum()),
            "with a carry the loss must return (value, carry) or (value, (carry, metrics)), the "
            "carry like the one it got, float64[3]; got float64[]",
        ),
        (
            dict(carry=jnp.zeros(3), loss=lambda m, b, k, c: (m[0].sum(), c[1:])),
            "must return a carry like the one it got, float64[3], got float64[2]",
        ),
    ],
)
def test_errors_say_what_to_do(change, sentence):
    arguments = dict(loss=over_rows, model=MODEL, batches=constant(), optimizer=optax.sgd(0.1))
    with pytest.raises((ValueError, TypeError), match=re.escape(sentence)):
        fit(**({"steps": 2} | arguments | change))
