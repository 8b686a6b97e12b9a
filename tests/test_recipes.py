"""What people do with an unroll, each as the README tells it."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from oracle import assert_close
from rows import problem

import jaxrnn
from jaxrnn import GRU, LSTM, models, train, unroll

B, T = 3, 9
README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_an_actor_that_steps_and_a_learner_that_unrolls_see_the_same():
    cell = LSTM(3, 4, learned_carry=True)
    params, xs, _ = problem(cell, (B, T))
    done = np.random.default_rng(0).random((T, B)) < 0.3  # after step t, the episode is over

    # the actor: all environments at once, one step at a time
    initial = jax.tree.map(lambda a: jnp.broadcast_to(a, (B, *a.shape)), cell.initial_carry(params))
    act = jax.jit(jax.vmap(cell.step, (None, 0, 0)))
    carry, seen = initial, []
    for t in range(T):
        carry, y = act(params, carry, xs[:, t])
        seen.append(y)
        over = done[t][:, None]
        carry = jax.tree.map(lambda a, b, over=over: jnp.where(over, a, b), initial, carry)

    # the learner: the whole batch; an episode begins at t if the one before ended at t − 1
    resets = jnp.concatenate([jnp.zeros((B, 1), bool), jnp.asarray(done.T[:, :-1])], axis=1)
    _, ys = unroll(cell, params, xs, resets=resets)
    assert_close(ys, jnp.stack(seen, axis=1), 1e-14)


def test_burn_in_warms_the_carry_up_and_sends_no_gradient_back():
    cell = GRU(3, 4)
    params, xs, stored = problem(cell, (B, T))

    def loss(params, xs):
        carry, _ = unroll(cell, params, xs[:, :4], carry=stored)
        _, ys = unroll(cell, params, xs[:, 4:], carry=jax.lax.stop_gradient(carry))
        return jnp.sum(ys**2)

    gradient = jax.grad(loss, 1)(params, xs)
    assert not gradient[:, :4].any() and gradient[:, 4:].all()


def test_data_with_time_first_are_never_transposed():
    cell = GRU(3, 4)
    params, xs, _ = problem(cell, (T, B))

    @jax.jit
    def run(params, xs):
        carry, ys = unroll(cell, params, xs.swapaxes(0, 1))
        return carry, ys.swapaxes(0, 1)

    carry, ys = run(params, xs)
    assert ys.shape == (T, B, 4)
    expected = jax.vmap(lambda xs: unroll(cell, params, xs), 1, (0, 1))(xs)
    assert_close((carry, ys), expected)
    program = run.lower(params, xs).compile().as_text()
    transposed = re.findall(r"= \w+(\[.*?\])\S* (?:transpose|copy)\(", program)
    assert not {f"[{T},{B},3]", f"[{B},{T},3]", f"[{T},{B},4]", f"[{B},{T},4]"} & set(transposed)


def test_carries_stored_with_the_data_start_its_pieces():
    cell = LSTM(3, 4)
    params, xs, _ = problem(cell, (B, T))
    carries, ys = jaxrnn.trajectory(cell, params, xs)
    stored = jax.tree.map(lambda a: a[:, 3], carries)  # the carry after step 3, before step 4
    _, again = unroll(cell, params, xs[:, 4:], carry=stored)
    assert_close(again, ys[:, 4:])


def test_a_learned_initial_carry_learns_from_every_episode():
    cell = LSTM(3, 4, learned_carry=True)
    params, xs, _ = problem(cell, (T,))

    def loss(params, resets):
        return jnp.sum(unroll(cell, params, xs, resets=resets)[1][4:])

    begins = jnp.arange(T) == 4
    gradient = jax.grad(loss)(params, begins).initial
    # what counts came after the reset: as if the episode had been alone
    alone = jax.grad(lambda p: jnp.sum(unroll(cell, p, xs[4:])[1]))(params).initial
    assert_close(gradient, alone)
    assert all(leaf.all() for leaf in jax.tree.leaves(gradient))


def test_a_step_is_exported_and_runs_without_the_library():
    cell = LSTM(3, 4)
    params = cell.init(jax.random.key(0), jnp.float32)
    carry, x = cell.initial_carry(params), jnp.ones(3, jnp.float32)

    # a file knows arrays, not our classes: leaves in, leaves out
    leaves, structure = jax.tree.flatten((params, carry, x))

    def step(*leaves):
        return jax.tree.leaves(cell.step(*structure.unflatten(leaves)))

    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    content = jax.export.export(jax.jit(step))(*shapes).serialize()
    again = jax.export.deserialize(content).call(*leaves)
    assert_close(again, jax.tree.leaves(cell.step(params, carry, x)), 1e-6)


def test_a_classifier_of_pytorch_becomes_ours_and_is_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (recipe,) = (s for s in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "tree)" in s)
    draw = np.random.default_rng(0)
    shapes = {
        "embedding.weight": (7, 3),
        **{f"lstm.weight_{of}_l0": (16, n) for of, n in (("ih", 3), ("hh", 4))},
        **{f"lstm.bias_{of}_l0": (16,) for of in ("ih", "hh")},
        "linear.weight": (2, 4),
        "linear.bias": (2,),
    }
    weights = {name: draw.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    names = dict(jax=jax, jnp=jnp, jaxrnn=jaxrnn, models=models, nnx=nnx, train=train)
    exec(recipe, names | dict(weights=weights), found := {})
    model, words = found["model"], np.array([[1, 6, 0], [2, 2, 5]])
    inner = {name.removeprefix("lstm."): w for name, w in weights.items() if "lstm" in name}
    network, params = jaxrnn.convert.from_torch(inner)
    xs = jnp.asarray(weights["embedding.weight"])[words]
    last = unroll(network, params, xs)[1][:, -1]
    assert_close(model(words), last @ weights["linear.weight"].T + weights["linear.bias"], 1e-6)
    assert found["step"] == 0
