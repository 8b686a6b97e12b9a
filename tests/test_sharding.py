"""Data-parallel training is the training of one device: many devices, and many processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrnn
from jaxrnn.train import sharding
from jaxrnn.train.batches import Batches
from jaxrnn.train.checkpoints import Checkpoints
from jaxrnn.train.fit import fit
from jaxrnn.train.sources import Windows

CELL = jaxrnn.Readout(jaxrnn.Elman(3, 8), 3)
RNG = np.random.default_rng(0)
SERIES = RNG.normal(size=(1000, 3)).astype(np.float32)
LENGTHS = RNG.integers(1, 12, 64)


def with_lengths(params, batch, key):
    """A mean over real steps: not the mean of what each device would find for its rows."""
    _, ys = jaxrnn.unroll(CELL, params, batch["xs"], lengths=batch["lengths"])
    real = jnp.arange(ys.shape[1]) < batch["lengths"][:, None]
    return jnp.sum(jnp.where(real, jnp.sum((ys - 1) ** 2, -1), 0)) / jnp.sum(real)


def with_carry(params, batch, key, carry):
    noise = jax.random.normal(key, batch["tokens"].shape, jnp.float32) / 10
    carry, ys = jaxrnn.unroll(CELL, params, batch["tokens"] + noise, carry=carry)
    return jnp.mean((ys - batch["targets"]) ** 2), carry


def train(folder, data_parallel):
    """Ten steps each, with lengths and with a carry, the second interrupted in the middle."""
    params = CELL.init(jax.random.key(0))
    options = dict(data_parallel=data_parallel, progress=False)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01))
    data = {"xs": [SERIES[i : i + n] for i, n in enumerate(LENGTHS)]}
    rows = Batches(data, 8, drop_last=True, padding=1)
    first = fit(with_lengths, params, rows, optimizer, steps=10, **options)

    def evaluate(model):  # with numbers of this process
        return {"loss": jnp.sum(model.W * jnp.ones(model.W.shape, model.W.dtype))}

    carry = jax.tree.map(lambda a: jnp.zeros((8, *a.shape), a.dtype), CELL.initial_carry(params))
    options |= dict(carry=carry, key=jax.random.key(1), evaluate=evaluate)
    windows = Windows(SERIES, 8, 20)
    for steps in (5, 10):
        with Checkpoints(folder) as checkpoints:
            options["checkpoints"] = checkpoints
            second = fit(with_carry, params, windows, optimizer, steps=steps, **options)
    return jax.tree.map(np.array, (first.model, second.last)), first.history[-1]["loss"]


def run_processes(folder, count, devices):
    """Ten steps in other processes, each with so many devices; what each of them came to."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = f"--xla_force_host_platform_device_count={devices}"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "error"}
    command = [sys.executable, __file__, str(folder), str(count), str(port)]
    running = [
        subprocess.Popen([*command, str(i)], env=env, stdout=-1, stderr=-2, text=True)
        for i in range(count)
    ]
    try:
        said = [process.communicate(timeout=300)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert not any(process.returncode for process in running), "\n".join(said)
    return [np.load(folder / f"{i}.npz") for i in range(count)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one device comes to."""
    pytest.importorskip("orbax.checkpoint")
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        return train(tmp_path_factory.mktemp("alone"), data_parallel=False)


@pytest.mark.long  # processes that import and compile
@pytest.mark.parametrize("processes, devices", [(1, 4), (2, 2)])
def test_many_devices_train_as_one_does(processes, devices, alone, tmp_path):
    alone, loss = alone
    for found in run_processes(tmp_path, processes, devices):
        assert found["devices"] == processes * devices
        np.testing.assert_allclose(found["loss"], loss, rtol=1e-6)
        for i, leaf in enumerate(jax.tree.leaves(alone)):
            np.testing.assert_allclose(found[str(i)], leaf, rtol=0, atol=1e-6)
        before = jax.tree.leaves(CELL.init(jax.random.key(0)))
        assert max(np.abs(found[str(i)] - a).max() for i, a in enumerate(before)) > 0.01
    assert json.loads((tmp_path / "0.json").read_text()) == {"rows": [8 // (processes * devices)]}


def test_one_device_is_no_special_case():
    params = CELL.init(jax.random.key(0))
    windows = Windows(SERIES, 8, 20)

    def loss(params, batch, key):
        return jnp.mean(jaxrnn.unroll(CELL, params, batch["tokens"])[1] ** 2)

    optimizer = optax.sgd(0.1)
    a, b = (
        fit(loss, params, windows, optimizer, steps=3, data_parallel=flag).model
        for flag in (False, True)
    )
    assert all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def work(folder, count, port, index):
    """One process of several."""
    if int(count) > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"localhost:{port}", int(count), int(index))
    model, loss = train(Path(folder) / "checkpoints", data_parallel=True)
    with pytest.raises(ValueError, match=r"got 6 rows for 4 devices; choose a multiple of 4"):
        sharding.by_rows({"xs": np.zeros((6, 2))}, sharding.mesh(True))
    leaves = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(model))}
    devices = len(jax.devices())
    np.savez(Path(folder) / f"{index}.npz", loss=loss, devices=devices, **leaves)
    batch = Windows(SERIES, 8, 20)[0]
    placed = sharding.put(batch, sharding.by_rows(batch, sharding.mesh(True)))
    rows = {shard.data.shape[0] for shard in placed["tokens"].addressable_shards}
    (Path(folder) / f"{index}.json").write_text(json.dumps({"rows": sorted(rows)}))


if __name__ == "__main__":
    work(*sys.argv[1:])
