"""`fit`, killed and started again: it ends bit for bit as if it had not been."""

import random

import pytest
from killed import train

TRAINING = """
import hashlib, os, signal, sys
import jax, jax.numpy as jnp, numpy as np, optax
import jaxrnn
from jaxrnn.train.batches import Batches
from jaxrnn.train.checkpoints import Checkpoints
from jaxrnn.train.fit import fit

folder, steps = sys.argv[1], int(sys.argv[2])
cell = jaxrnn.GRU(2, 4)
data = np.random.default_rng(0).normal(size=(20, 5, 2)).astype(np.float32)


def loss(params, xs, key, carry):
    kept = jnp.where(jax.random.bernoulli(key, 0.8, xs.shape), xs, 0)
    carry, ys = jaxrnn.unroll(cell, params, kept, carry=carry)
    return jnp.mean((ys.sum(-1) - xs.sum(-1)) ** 2), carry


class Telling(Checkpoints):
    # says what it does

    def restore(self, template):
        found = super().restore(template)
        print("from", 0 if found is None else found[0], flush=True)
        return found

    def save(self, step, state):
        super().save(step, state)
        print("saving", step, flush=True)


params = cell.init(jax.random.key(0))
carry = jax.tree.map(lambda x: jnp.zeros((4, *x.shape), x.dtype), cell.initial_carry(params))
probe = jax.jit(lambda params: jnp.mean(jaxrnn.unroll(cell, params, data[:4])[1] ** 2))
with Telling(folder) as checkpoints:
    trained = fit(
        loss, params, Batches(data, 4),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01)),
        steps=steps, key=jax.random.key(1), carry=carry, progress=False,
        evaluate=lambda params: {"loss": probe(params)}, evaluate_every=7, lowest=False,
        checkpoints=checkpoints, checkpoint_every=3,
    )
whole = trained.model, trained.last, trained.optimizer_state, trained.carry, trained.best_step
digest = hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(whole)))
print("done", digest.hexdigest(), trained.step, flush=True)
"""


@pytest.mark.long
def test_shuffled_batches_noise_and_carry_go_on_bit_for_bit(tmp_path):
    steps, moments = 90, random.Random(2)
    _, expected = train(TRAINING, tmp_path / "whole", steps)
    assert expected.startswith("done ") and expected.endswith(" 90")
    began = -1
    for _ in range(3):
        kill = dict(kill_at=moments.randint(3, 7), after=moments.uniform(0, 0.15))
        before, (began, last) = began, train(TRAINING, tmp_path / "killed", steps, **kill)
        assert not last.startswith("done") and began > before
    began, last = train(TRAINING, tmp_path / "killed", steps)
    assert began > before and last == expected
