"""Checkpoints: what comes back, what is told of damage, and runs that are really killed."""

import itertools
import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from killed import train

from jaxrnn.cells import LSTM
from jaxrnn.train.checkpoints import CheckpointError, Checkpoints


class Carry(NamedTuple):
    h: jax.Array
    c: jax.Array


def state(scale=1.0):
    return {"W": scale * jnp.arange(6.0).reshape(2, 3), "b": jnp.full(3, scale)}


def same(a, b):
    """Equal structure, types, dtypes and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(x) is type(y)
        if hasattr(x, "dtype"):
            assert x.dtype == y.dtype
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def saved(folder, *steps, keep=3):
    """A folder with checkpoints of `state(step)`."""
    with Checkpoints(folder, keep=keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, state(float(step)))
    return Path(folder)


def restored(folder, template=None):
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore(state() if template is None else template)


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def files(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


# what comes back


def everything():
    """A tree with all that a training state may hold."""
    module = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    params = LSTM(2, 3).init(jax.random.key(0))
    return {
        "params": params,
        "optimizer": optax.adam(1e-3).init(params),
        "carry": Carry(jnp.ones((2, 3), jnp.bfloat16), jnp.arange(3, dtype=jnp.complex64) * 1j),
        "double": jnp.array([np.pi, -0.0, np.nan, np.inf], jnp.float64),
        "keys": (jax.random.key(7), jax.random.split(jax.random.key(8, impl="rbg"), 2)),
        "nnx": nnx.state(module),
        "module": module,
        "a/b.c": (jnp.zeros((0, 4)), jnp.array(True), np.arange(3, dtype=np.int8), None),
        "numbers": [3, 2.5, True, np.float64(1 / 3)],
    }


def other_numbers(leaf):
    """A leaf of the same kind that holds something else."""
    if not hasattr(leaf, "dtype"):
        return type(leaf)(0)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        zeros = jnp.zeros_like(jax.random.key_data(leaf))
        return jax.random.wrap_key_data(zeros, impl=jax.random.key_impl(leaf))
    if isinstance(leaf, np.generic):
        return leaf * 0
    zeros = np.zeros(leaf.shape, leaf.dtype)
    return zeros if isinstance(leaf, np.ndarray) else jnp.asarray(zeros)


def test_everything_comes_back_as_what_it_was(tmp_path):
    tree = everything()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(12, tree)
        step, back = checkpoints.restore(jax.tree.map(other_numbers, tree))
    assert step == 12
    same(back, tree)
    assert isinstance(back["carry"], Carry)
    assert jax.random.bits(back["keys"][0]) == jax.random.bits(jax.random.key(7))


def test_a_template_of_shapes_is_enough(tmp_path):
    tree = {"key": jax.random.split(jax.random.key(3)), "carry": Carry(jnp.ones(2), jnp.zeros(3))}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree)
        _, back = checkpoints.restore(jax.eval_shape(lambda: tree))
    same(back, tree)


def test_an_empty_folder_has_none(tmp_path):
    assert restored(tmp_path / "new") is None


def test_the_state_is_copied_before_save_returns(tmp_path):
    # the next step is given the buffers, and a NumPy array is written to
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    x, y = jnp.zeros(1_000_000), np.zeros(1_000_000)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, (x, y))
        y[:] = 1
        for _ in range(20):
            x = step(x)
        _, back = checkpoints.restore((x, y))
    assert not back[0].any() and not back[1].any()


def test_arrays_go_back_to_where_the_template_lies(tmp_path):
    device = jax.devices()[0]
    mesh = jax.sharding.Mesh(np.array([device]), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    tree = jax.device_put((jnp.arange(4.0), jax.random.split(jax.random.key(0), 4)), sharding)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, tree)
        _, back = checkpoints.restore(tree)
    same(back, tree)
    assert [leaf.sharding for leaf in back] == [sharding, sharding]


# which ones stay


def test_the_newest_is_restored_and_the_last_few_are_kept(tmp_path):
    saved(tmp_path, 5, 10, 15, 100, keep=2)
    assert names(tmp_path) == ["step_00000015", "step_00000100"]
    step, back = restored(tmp_path)
    assert step == 100
    same(back, state(100.0))


def test_the_same_step_again_replaces(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(5, state(1.0))
        checkpoints.save(5, state(2.0))
        step, back = checkpoints.restore(state())
    assert (step, names(tmp_path)) == (5, ["step_00000005"])
    same(back, state(2.0))


def test_an_older_step_than_the_newest_is_refused(tmp_path):
    saved(tmp_path, 10)
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(ValueError, match="already holds a checkpoint of step 10, newer than step 5"),
    ):
        checkpoints.save(5, state())


def test_older_ones_stay_until_a_newer_one_is_sound(tmp_path, monkeypatch):
    saved(tmp_path, 1, 2, keep=2)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        monkeypatch.setattr(
            "jaxrnn.train.checkpoints._write_manifest",
            lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")),
        )
        checkpoints.save(3, state())
        with pytest.raises(CheckpointError, match=r"step 3 could not be written .*Input/output"):
            checkpoints.wait()
        assert names(tmp_path) == ["step_00000001", "step_00000002"]
        monkeypatch.undo()
        checkpoints.save(4, state())
    assert names(tmp_path) == ["step_00000002", "step_00000004"]


def test_what_a_killed_run_left_is_removed_at_the_next_start(tmp_path):
    saved(tmp_path, 1)
    for name in ("step_00000002.partial", "step_00000002.partial.orbax-checkpoint-tmp"):
        shutil.copytree(tmp_path / "step_00000001", tmp_path / name)
    saved(tmp_path, 3)
    assert names(tmp_path) == ["step_00000001", "step_00000003"]


def test_killed_while_a_checkpoint_made_way_for_a_better_one(tmp_path):
    saved(tmp_path, 1, 2, keep=1)
    os.replace(tmp_path / "step_00000002", tmp_path / "step_00000002.old")
    shutil.copytree(tmp_path / "step_00000002.old", tmp_path / "step_00000002.partial")
    same(restored(tmp_path), (2, state(2.0)))
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(2, state(3.0))
    assert names(tmp_path) == ["step_00000002"]
    same(restored(tmp_path), (2, state(3.0)))
    os.replace(tmp_path / "step_00000002", tmp_path / "step_00000002.old")
    saved(tmp_path, 4, keep=1)
    assert names(tmp_path) == ["step_00000004"]


# damage


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("harm", [flip_a_bit, truncate, Path.unlink])
def test_whatever_file_is_harmed_the_one_before_is_used(harm, tmp_path):
    sound = saved(tmp_path / "sound", 1, 2)
    inside = [path.relative_to(sound) for path in files(sound / "step_00000002")]
    assert len(inside) > 4 and any(path.name == "manifest.json" for path in inside)
    for path in inside:
        shutil.rmtree(tmp_path / "harmed", ignore_errors=True)
        shutil.copytree(sound, tmp_path / "harmed")
        harm(tmp_path / "harmed" / path)
        name = path.relative_to("step_00000002").as_posix()
        with pytest.warns(UserWarning, match="is damaged") as told:
            step, back = restored(tmp_path / "harmed")
        assert len(told) == 1 and f"step_00000002 is damaged ({name} " in str(told[0].message)
        assert step == 1
        same(back, state(1.0))


def test_if_all_are_damaged_all_are_told_and_there_is_none(tmp_path):
    saved(tmp_path, 1, 2)
    for path in tmp_path.glob("step_*/manifest.json"):
        path.unlink()
    with pytest.warns(UserWarning) as told:
        assert restored(tmp_path) is None
    assert len(told) == 2


def test_damaged_ones_do_not_count_and_make_way(tmp_path):
    saved(tmp_path, 1, 2, 3)
    truncate(tmp_path / "step_00000003" / "manifest.json")
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        with pytest.warns(UserWarning, match="manifest.json has changed"):
            checkpoints.restore(state())
        checkpoints.save(3, state(4.0))
    assert names(tmp_path) == ["step_00000002", "step_00000003"]
    same(restored(tmp_path), (3, state(4.0)))


@pytest.mark.parametrize("where", ["pathlib.Path.read_bytes", "hashlib.file_digest"])
def test_what_cannot_be_read_now_is_not_damaged(where, tmp_path, monkeypatch):
    saved(tmp_path, 1, 2, keep=2)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(where, refuse)
    with (
        Checkpoints(tmp_path, keep=2) as checkpoints,
        pytest.raises(CheckpointError, match=r"cannot read .*step_00000002: Permission denied; me"),
    ):
        checkpoints.restore(state())
    monkeypatch.undo()
    assert restored(tmp_path)[0] == 2


def test_nothing_is_pickled(tmp_path):
    saved(tmp_path, 1)
    for path in files(tmp_path):
        content = path.read_bytes()
        assert not content.startswith(b"\x80") and b"cnumpy" not in content, path


# errors


def test_a_template_that_does_not_fit_names_the_leaf(tmp_path):
    saved(tmp_path, 1)
    for template, sentence in [
        (state() | {"b": jnp.zeros(4)}, r"state\['b'\] is float64\[3\] .* float64\[4\] in the"),
        (state() | {"b": jnp.zeros(3, jnp.float32)}, r"float64\[3\] .* and float32\[3\]"),
        (state() | {"more": jnp.zeros(1)}, r"state\['more'\] is not in the checkpoint"),
        ({"W": state()["W"]}, r"state\['b'\] is float64\[3\] .* and not in the template"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            restored(tmp_path, template)


def test_what_is_no_array_is_refused_by_name(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(TypeError, match=r"\['name'\] is str"):
        checkpoints.save(1, {"name": "LSTM"})


def test_keep_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="keep must be a whole number of at least 1, got 0"):
        Checkpoints(tmp_path, keep=0)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot make the folder .*file/inside .*: Not"):
        Checkpoints(tmp_path / "file" / "inside")


def test_closed_ones_say_that_they_are(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.close()
    with pytest.raises(ValueError, match=r"these Checkpoints of .* are closed: make new ones of"):
        checkpoints.save(1, state())
    with pytest.raises(ValueError, match="are closed"):
        checkpoints.restore(state())


def test_a_folder_that_goes_away(tmp_path):
    checkpoints = Checkpoints(tmp_path / "folder")
    (tmp_path / "folder").rmdir()
    (tmp_path / "folder").touch()
    checkpoints.save(1, state())
    with pytest.raises(CheckpointError, match=r"step 1 could not be written to .*folder"):
        checkpoints.wait()
    checkpoints.close()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system takes root, and a system that lets it")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_error_and_harms_nothing(small_disk, caplog):
    checkpoints = Checkpoints(small_disk)
    checkpoints.save(1, state(1.0))
    noise = np.random.default_rng(0).normal(size=250_000)  # 2 MB that cannot be compressed
    checkpoints.save(2, {"noise": noise})
    with pytest.raises(CheckpointError, match="No space left on device; those") as told:
        checkpoints.save(3, state(3.0))
    assert str(told.value).startswith("the checkpoint of step 2 could not be written to ")
    assert not caplog.records  # nothing but the error
    assert names(small_disk) == ["step_00000001"]
    checkpoints.save(3, state(3.0))  # there is space again
    same(checkpoints.restore(state()), (3, state(3.0)))
    checkpoints.close()


def test_a_read_only_disk_is_one_error(small_disk):
    saved(small_disk, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    same(restored(small_disk), (1, state(1.0)))
    with pytest.raises(CheckpointError, match=r"step 2 could not be written .*Read-only"):
        saved(small_disk, 2)


LIMITED = """
import resource, signal, sys
import numpy as np
from jaxrnn.train.checkpoints import CheckpointError, Checkpoints
checkpoints = Checkpoints(sys.argv[1])
checkpoints.save(1, np.ones(3))
checkpoints.wait()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
checkpoints.save(2, np.random.default_rng(0).normal(size=100_000))
try:
    checkpoints.wait()
except CheckpointError as error:
    print(error)
print(checkpoints.restore(np.ones(3)))
"""


def test_files_that_may_not_grow_are_one_error(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=True
    )
    error, back = run.stdout.strip().splitlines()
    assert "step 2 could not be written" in error and "File too large" in error
    assert back == "(1, array([1., 1., 1.]))"


# runs that are killed

TRAINING = """
import hashlib, os, signal, sys, time
import jax, jax.numpy as jnp, numpy as np, optax
from jaxrnn.train import checkpoints as module

folder, steps, fatal = sys.argv[1], int(sys.argv[2]), sys.argv[3]
optimizer = optax.adam(0.01)
data = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)


@jax.grad
def gradient(params, xs, key):
    xs = jnp.where(jax.random.bernoulli(key, 0.9, xs.shape), xs, 0)
    return jnp.mean((jnp.tanh(xs @ params["W"]) @ params["V"] - xs.sum(-1)) ** 2)


@jax.jit
def train_step(state, xs, step):
    params, moments = state
    key = jax.random.fold_in(jax.random.key(1), step)
    updates, moments = optimizer.update(gradient(params, xs, key), moments)
    return optax.apply_updates(params, updates), moments


def die(name, before):
    # killed exactly before or after a call of this function, at the second save
    function, calls = getattr(module, name), []

    def fatal_call(*arguments):
        calls.append(arguments)
        if before and len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        function(*arguments)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, name, fatal_call)


if fatal != "-":
    name, when = fatal.split()
    die(name, when == "before")
params = {"W": jax.random.normal(jax.random.key(0), (8, 64)), "V": jnp.ones(64)}
state = params, optimizer.init(params)
with module.Checkpoints(folder, keep=2) as checkpoints:
    step, state = checkpoints.restore(state) or (0, state)
    print("from", step, flush=True)
    while step < steps:
        order = np.random.default_rng(step // 4).permutation(16).reshape(4, 4)
        state = train_step(state, data[order[step % 4]], step)
        step += 1
        if step % 3 == 0:
            checkpoints.save(step, state)
            print("saving", step, flush=True)
digest = hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(state)))
print("done", digest.hexdigest(), flush=True)
"""


@pytest.mark.long
def test_a_run_killed_at_any_moment_ends_bit_for_bit_the_same(tmp_path):
    steps, moments = 120, random.Random(1)
    _, expected = train(TRAINING, tmp_path / "whole", steps)
    assert expected.startswith("done ")
    folder, begins = tmp_path / "killed", []
    # at the moments that matter most, and then at any: a save takes about 0.1 s
    for fatal in ("_write_manifest before", "_write_manifest after", "_publish after"):
        began, last = train(TRAINING, folder, steps, fatal=fatal)
        begins.append(began)
        assert not last.startswith("done")
    for _ in range(4):
        kill = dict(kill_at=moments.randint(3, 6), after=moments.uniform(0, 0.15))
        began, last = train(TRAINING, folder, steps, **kill)
        begins.append(began)
        assert not last.startswith("done")
    began, last = train(TRAINING, folder, steps)
    assert last == expected
    # each went on from where the one before was killed
    begins.append(began)
    assert begins[:4] == [0, 3, 6, 12]
    assert all(b - a >= 6 for a, b in itertools.pairwise(begins[3:]))
    assert names(folder) == ["step_00000117", "step_00000120"]


PROCESS = """
import sys
import jax, numpy as np
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{sys.argv[2]}", 2, int(sys.argv[3]))
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxrnn.train.checkpoints import Checkpoints

whole = NamedSharding(Mesh(np.array(jax.devices()), ("rows",)), PartitionSpec())


def state(number):
    array = jax.make_array_from_callback((3,), whole, lambda index: np.full(3, number)[index])
    return array, jax.jit(lambda: jax.random.key(int(number)), out_shardings=whole)()


with Checkpoints(sys.argv[1]) as checkpoints:
    assert checkpoints.restore(state(0.0)) is None
    checkpoints.save(5, state(2.0))
    checkpoints.wait()
    multihost_utils.sync_global_devices("written")
    step, (array, key) = checkpoints.restore(state(0.0))
    assert array.sharding == key.sharding == whole
    print(step, np.asarray(array), np.asarray(jax.random.key_data(key)))
"""


@pytest.mark.long
def test_of_two_processes_one_writes_and_both_restore(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    commands = [[sys.executable, "-c", PROCESS, str(tmp_path), port, i] for i in "01"]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running = [subprocess.Popen(command, **pipes) for command in commands]
    for process in running:
        said, complaint = process.communicate(timeout=100)
        assert process.returncode == 0, complaint
        assert said.splitlines()[-1] == "5 [2. 2. 2.] [0 2]"
    assert names(tmp_path) == ["step_00000005"]
