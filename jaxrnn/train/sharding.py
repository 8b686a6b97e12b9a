"""Data-parallel training: rows of the batch over all devices, the model on each of them.

JAX's own sharding does the work: arrays say where they lie, and the compiler adds the sums of
gradients across devices. The loss is that of the whole batch, as on one device, whatever it
averages over; only the order of its sums differs.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

AXIS = "batch"


def mesh(data_parallel: bool) -> Mesh:
    """All devices of all processes in one row, or the one that JAX would use."""
    devices = jax.devices() if data_parallel else list(jnp.zeros(()).devices())
    return Mesh(np.asarray(devices), (AXIS,))


def replicated(over: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(over, PartitionSpec())


def by_rows(tree: PyTree, over: Mesh) -> PyTree:
    """The sharding of each leaf of a batch or carry: its rows, the leading axis, over devices."""

    def one(leaf: Any) -> NamedSharding:
        if np.ndim(leaf) == 0:
            return replicated(over)
        if np.shape(leaf)[0] % over.size:
            raise ValueError(
                f"data_parallel shares the rows of a batch out evenly: got {np.shape(leaf)[0]} "
                f"rows for {over.size} devices; choose a multiple of {over.size} and "
                "drop_last=True"
            )
        return NamedSharding(over, PartitionSpec(AXIS))

    return jax.tree.map(one, tree)


def put(tree: PyTree, shardings: PyTree) -> PyTree:
    """Arrays, the same in every process, to where they belong; each takes what its devices need."""
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def one(leaf: Any, sharding: NamedSharding) -> jax.Array:
        if sharding.is_fully_addressable or not getattr(leaf, "is_fully_addressable", True):
            return jax.device_put(leaf, sharding)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = one(jax.random.key_data(leaf), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    # one sharding may stand for all leaves below it
    return jax.tree.map(
        lambda s, part: jax.tree.map(lambda leaf: one(leaf, s), part), shardings, tree
    )


def put_rows(batch: PyTree, over: Mesh) -> PyTree:
    """A batch to where its rows belong; to a single device, compiled code takes it by itself."""
    leaves = jax.tree.leaves(batch)
    if over.size == 1 and not any(isinstance(leaf, jax.Array) for leaf in leaves):
        return batch
    return put(batch, by_rows(batch, over))


def local(tree: PyTree) -> PyTree:
    """Replicated arrays as arrays of one device of this process."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def meet(over: Mesh) -> None:
    """Waits for the processes that share the devices, so that all see what one has written."""
    if over.is_multi_process:
        multihost_utils.sync_global_devices("jaxrnn.train")
