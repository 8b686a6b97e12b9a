"""Checkpoints that a killed run goes on from, and that tell when they are damaged.

A checkpoint is a folder `step_00000100`. Orbax writes it under another name; then the sha256 of
each of its files is written to `manifest.json` inside, and the folder is renamed. So whatever bears
the name of a checkpoint is whole, and a file that has changed since does not have its hash.
"""

import concurrent.futures
import hashlib
import importlib.metadata
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxrnn.cell import whole

_MANIFEST = "manifest.json"
_PARTIAL = ".partial"  # not whole yet, or about to be removed
_OLD = ".old"  # makes way for a checkpoint of the same step


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; those written before are as they were."""


class Checkpoints:
    """The checkpoints of one run in one folder, written in the background.

        with Checkpoints("runs/first", keep=3) as checkpoints:
            step, state = checkpoints.restore(template=state) or (0, state)
            while step < steps:
                state, step = train_step(state, step), step + 1
                if step % 100 == 0:
                    checkpoints.save(step, state)

    `state` is any tree of arrays: NamedTuples, dataclasses, `nnx.State`, modules; typed random
    keys, bfloat16 and complex leaves, Python numbers. Only arrays are stored, under the names of
    their paths, never code; what holds them comes from the template. In a run of several
    processes all call the same methods on a folder that all see: process 0 writes, and what is
    saved must be whole there (on this process, or replicated).

    Args:
        folder: made if it is not there.
        keep: how many sound checkpoints stay; older ones go once a newer one is sound.

    Raises:
        ValueError: keep is below 1.
        CheckpointError: the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 3) -> None:
        self.folder, self._keep = Path(folder).absolute(), whole("keep", keep)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"cannot make the folder {self.folder} for checkpoints: {error.strerror}"
            ) from None
        self._damaged: set[int] = set()
        self._clean = self._closed = False
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._writing: concurrent.futures.Future | None = None

    def save(self, step: int, state: PyTree) -> None:
        """Copies the state and returns; it is written in the background.

        Waits for the save before it, so that at most one copy of the state is held. A checkpoint
        of the same step is replaced.

        Raises:
            CheckpointError: the save *before* this one failed (full disk, folder not writable).
            ValueError: the folder holds a newer checkpoint, or this was closed.
            TypeError: a leaf is not an array.
        """
        self._check_open()
        self.wait()
        if jax.process_index() != 0:
            return
        newer = [s for s in _steps(self.folder) if s > step and s not in self._damaged]
        if newer:
            raise ValueError(
                f"{self.folder} already holds a checkpoint of step {newer[-1]}, newer than step "
                f"{step}: restore it first, or choose another folder"
            )
        leaves = _named(state)
        described = {name: _describe(name, leaf) for name, leaf in leaves.items()}
        data = jax.device_get({name: _data(leaf) for name, leaf in leaves.items()})
        # copied: NumPy arrays may be written to, and on a CPU the others are views of buffers,
        # which the next step could not be given while they are held
        arrays = {name: np.array(a) for name, a in data.items() if np.size(a)}
        self._writing = self._pool.submit(self._write, step, arrays, described)

    def wait(self) -> None:
        """Waits until what was saved is on the disk; raises `CheckpointError` if it is not."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def restore(self, template: PyTree) -> tuple[int, PyTree] | None:
        """The newest sound checkpoint: `(step, state)`, or None if there is none.

        Args:
            template: a state like the one saved, of arrays or `jax.ShapeDtypeStruct`s: gives
                structure, types and sharding; its numbers do not matter.

        Damaged checkpoints are told by `warnings.warn`, and the one before is used.

        Raises:
            ValueError: the template has other leaves, shapes or dtypes than what was saved, or
                this was closed.
            CheckpointError: a checkpoint cannot be read, and nothing says that it is damaged.
        """
        self._check_open()
        self.wait()
        step = self._newest_sound()
        if jax.process_count() > 1:
            _agree(-1 if step is None else step, self.folder)
        if step is None:
            return None
        path = _place(self.folder, step)
        wanted = _named(template)
        _check_fit(path, json.loads((path / _MANIFEST).read_text())["leaves"], wanted)
        try:
            arrays = _read(path, {name: _shape(leaf) for name, leaf in wanted.items()})
        except Exception as error:
            raise CheckpointError(f"cannot read the checkpoint {path}: {_reason(error)}") from error
        leaves = [_like(leaf, arrays[name]) for name, leaf in wanted.items()]
        return step, jax.tree.unflatten(jax.tree.structure(template), leaves)

    def close(self) -> None:
        """Waits as `wait` does, and ends the thread that writes."""
        self._closed = True
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(
                f"these Checkpoints of {self.folder} are closed: make new ones of that folder"
            )

    def _newest_sound(self) -> int | None:
        for step in reversed(_steps(self.folder)):
            path = _place(self.folder, step)
            damage = _damage(path, step)
            if damage is None:
                return step
            self._damaged.add(step)
            warnings.warn(
                f"the checkpoint {path} is damaged ({damage}) and is passed over: "
                "the one before it is used, if there is one",
                stacklevel=3,
            )
        return None

    def _write(self, step: int, arrays: dict[str, np.ndarray], described: dict[str, str]) -> None:
        path = _path(self.folder, step)
        partial = path.with_name(path.name + _PARTIAL)
        try:
            # not before the first save: a folder may be read while another process writes to it
            if not self._clean:
                _clean_up(self.folder)
                self._clean = True
            _with_orbax(lambda orbax, args: orbax.save(partial, args.StandardSave(arrays)))
            _write_manifest(partial, step, described)
            _publish(partial, path)
            self._damaged.discard(step)
            self._prune()
        except Exception as error:
            for rest in self.folder.glob(partial.name + "*"):
                shutil.rmtree(rest, ignore_errors=True)
            raise CheckpointError(
                f"the checkpoint of step {step} could not be written to {self.folder}: "
                f"{_reason(error)}; those written before are as they were"
            ) from error

    def _prune(self) -> None:
        steps = _steps(self.folder)
        kept = [s for s in steps if s not in self._damaged][-self._keep :]
        for step in sorted(set(steps) - set(kept)):
            path = _place(self.folder, step)
            # renamed first: half a checkpoint must not bear the name of one
            gone = path.with_name(path.name + _PARTIAL)
            os.replace(path, gone)
            shutil.rmtree(gone, ignore_errors=True)


def _path(folder: Path, step: int) -> Path:
    return folder / f"step_{step:08d}"


def _old(path: Path) -> Path:
    return path.with_name(path.name + _OLD)


def _place(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies: it is the old one that made way for one that is not."""
    path = _path(folder, step)
    return path if path.exists() or not _old(path).exists() else _old(path)


def _steps(folder: Path) -> list[int]:
    """The steps of all checkpoints, sound or not, oldest first."""
    names = (path.name.removeprefix("step_") for path in folder.glob("step_*"))
    numbers = {name.removesuffix(_OLD) for name in names}
    return sorted(int(number) for number in numbers if number.isdecimal())


def _clean_up(folder: Path) -> None:
    """Removes what a killed run left half-written, or half-removed."""
    for partial in folder.glob(f"step_*{_PARTIAL}*"):
        shutil.rmtree(partial, ignore_errors=True)
    for old in folder.glob("step_*" + _OLD):
        if old.with_suffix("").exists():
            shutil.rmtree(old, ignore_errors=True)


def _publish(partial: Path, path: Path) -> None:
    """Gives a whole checkpoint its name; one of the same step makes way."""
    if path.exists():
        os.replace(path, _old(path))
    os.replace(partial, path)
    shutil.rmtree(_old(path), ignore_errors=True)


def _write_manifest(folder: Path, step: int, leaves: dict[str, str]) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {path.relative_to(folder).as_posix(): _file_hash(path, flush=True) for path in files}
    record = {
        "step": step,
        "jaxrnn": importlib.metadata.version("jaxrnn"),
        "leaves": leaves,
        "sha256": hashes,
    }
    text = json.dumps({**record, "self": _text_hash(record)}, indent=1)
    with open(folder / _MANIFEST, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _damage(folder: Path, step: int) -> str | None:
    """What is wrong with a checkpoint, in a few words that name the file; None if it is sound.

    What cannot be read at the moment may be sound: that is a `CheckpointError`, not damage.
    """
    name = _MANIFEST
    try:
        record = json.loads((folder / name).read_bytes())
        own = record.pop("self")
        if own != _text_hash(record) or record["step"] != step:
            return f"{name} has changed since it was written"
        for name, expected in record["sha256"].items():
            if _file_hash(folder / name) != expected:
                return f"{name} does not have the hash it was written with"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        raise CheckpointError(
            f"cannot read {name} of the checkpoint {folder}: {_reason(error)}; mend that, or "
            "choose another folder"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{name} has changed since it was written"
    return None


def _file_hash(path: Path, flush: bool = False) -> str:
    with open(path, "rb") as file:
        if flush:  # on the disk before anything older is removed
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text_hash(record: dict) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _named(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by path, written as Python would: `state['params'].W_x`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {f"state{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    if _is_key(leaf):
        return jax.eval_shape(jax.random.key_data, leaf)
    # by NumPy: with 64 bits switched off JAX would make 32 of them
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _describe(name: str, leaf: Any) -> str:
    if not hasattr(leaf, "dtype"):
        if not isinstance(leaf, (bool, int, float, complex)):
            raise TypeError(
                f"a checkpoint holds arrays, but {name} is {type(leaf).__name__}: "
                "leave it out of the state"
            )
        leaf = np.asarray(leaf)
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _check_fit(path: Path, saved: dict[str, str], template: dict[str, Any]) -> None:
    wanted = {name: _describe(name, leaf) for name, leaf in template.items()}
    for name in [*wanted, *saved]:
        if saved.get(name) != wanted.get(name):
            raise ValueError(
                f"{path} does not fit the template: {name} is {saved.get(name, 'not')} in the "
                f"checkpoint and {wanted.get(name, 'not')} in the template; restore with the sizes "
                "and the optimizer that were saved, or choose another folder"
            )


def _with_orbax(use: Callable[[Any, Any], Any]) -> Any:
    """`use(checkpointer, orbax.checkpoint.args)`; this process reads and writes by itself."""
    import orbax.checkpoint as ocp

    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=here, active_processes={here})
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    logger = logging.getLogger("absl")
    logger.addFilter(_not_from_orbax)
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            return use(checkpointer, ocp.args)
    finally:
        logger.removeFilter(_not_from_orbax)


def _not_from_orbax(record: logging.LogRecord) -> bool:
    # each of its threads prints the whole way to an error that is raised anyway
    return "orbax" not in record.pathname


def _read(path: Path, wanted: dict[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
    # Orbax stores no empty arrays
    filled = {name: leaf for name, leaf in wanted.items() if leaf.size}
    arrays = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in wanted.items()}
    return arrays | _with_orbax(
        lambda orbax, args: orbax.restore(path, args.StandardRestore(filled))
    )


def _like(leaf: Any, array: np.ndarray) -> Any:
    """The array as what the leaf of the template is: a key, a Python number, where it lies."""
    if not hasattr(leaf, "dtype"):
        return type(leaf)(array.item())
    if isinstance(leaf, np.ndarray | np.generic):
        return array[()] if isinstance(leaf, np.generic) else array
    sharding = leaf.sharding if getattr(leaf, "committed", True) else None
    if sharding is None:
        placed = jnp.asarray(array)
    else:  # each process fills in the parts that lie with it
        placed = jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
    return jax.random.wrap_key_data(placed, impl=_key_impl(leaf)) if _is_key(leaf) else placed


def _key_impl(leaf: Any) -> Any:
    # only an array or a tracer tells, a ShapeDtypeStruct does not
    found: list[Any] = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), leaf)
    return found[0]


def _agree(step: int, folder: Path) -> None:
    from jax.experimental import multihost_utils

    multihost_utils.assert_equal(
        np.int32(step), f"the processes found different checkpoints: do all of them see {folder}?"
    )


def _reason(error: BaseException) -> str:
    """What went wrong in one line: what the operating system calls it, if it said so."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    number = re.search(r"os_error_code='(\d+)'", str(error))  # as TensorStore writes it
    return os.strerror(int(number[1])) if number else " ".join(str(error).split())
