"""The next values of a real-valued series."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree

from jaxrnn import cell as contract
from jaxrnn.models._ends import at_last, at_the_end
from jaxrnn.models.recurrent import Recurrent
from jaxrnn.sequences import check_lengths, step_keys


class Forecaster(nnx.Module):
    """Reads a window of a series and foretells the `horizon` values after its last real step.

    output_size: O, features of one foretold value.
    horizon: how many values are foretold.
    network: any cell or network. It may be bidirectional, unless `recursive`: each direction is
        then read where it ends, as by a `Classifier`.
    recursive: False: one linear map of the last output gives all values at once. True: the map
        gives one value, which the network reads as its next input, so the series must foretell
        itself: O = I. Gradients go through the values fed back.
    """

    def __init__(
        self,
        output_size: int,
        horizon: int,
        network: Any,
        *,
        recursive: bool = False,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
    ) -> None:
        contract.check_cell(network)
        horizon, output_size = (
            contract.whole(name, value)
            for name, value in (("horizon", horizon), ("output_size", output_size))
        )
        if recursive:
            _check_recursive(network, output_size)
        self.shape, self.recursive = (horizon, output_size), recursive
        self.recurrent = Recurrent(network, rngs=rngs, dtype=dtype)
        one = jax.ShapeDtypeStruct((1, contract.size(network, "input_size")), dtype)
        width = jax.eval_shape(lambda xs: at_the_end(self.recurrent, xs, None), one).shape[-1]
        numbers = output_size if recursive else horizon * output_size
        self.linear = nnx.Linear(width, numbers, param_dtype=dtype, rngs=rngs)

    def __call__(
        self,
        xs: Float[Array, "*batch T I"],
        lengths: Int[Array, "*batch"] | Any = None,
        *,
        key: Array | None = None,
    ) -> Float[Array, "*batch horizon O"]:
        """The values foretold for the steps after the last real one of each row."""
        *batch, steps = xs.shape[:-1]
        lengths = check_lengths(lengths, tuple(batch), steps)
        if not self.recursive:
            summary = at_the_end(self.recurrent, xs, lengths, key=key)
            return self.linear(summary).reshape(*batch, *self.shape)
        carry, hs = self.recurrent(xs, lengths=lengths, key=key)
        first = jnp.full(batch, steps, jnp.int32) if lengths is None else lengths
        keys = _keys_after(key, tuple(batch), steps, first, self.shape[0] - 1)
        return _feed_back(self, carry, self.linear(at_last(hs, lengths)), keys)


@jax.jit  # called by itself, a scan is else compiled each time
def _feed_back(model: Forecaster, carry: PyTree, value: Array, keys: Array | None) -> Array:
    step: Any = model.recurrent.step
    batch = value.ndim - 1
    for _ in range(batch):
        step = jax.vmap(step)

    def turn(state: tuple, key: Array | None) -> tuple[tuple, Array]:
        carry, h = step(*state, key)
        value = model.linear(h)
        return (carry, value), value

    keys = None if keys is None else jnp.moveaxis(keys, batch, 0)
    _, later = jax.lax.scan(turn, (carry, value), keys, length=model.shape[0] - 1)
    return jnp.moveaxis(jnp.concatenate([value[None], later]), 0, batch)


def _keys_after(
    key: Array | None, batch: tuple[int, ...], steps: int, first: Array, count: int
) -> Array | None:
    """Keys of the `count` steps after the last real one of each row, as if the series went on."""
    keys = step_keys(key, 0, batch, steps + count)
    if keys is None:
        return None
    cut: Any = lambda keys, first: jax.lax.dynamic_slice_in_dim(keys, first, count)  # noqa: E731
    for _ in batch:
        cut = jax.vmap(cut)
    return cut(keys, first)


def _check_recursive(network: Any, output_size: int) -> None:
    if not contract.is_causal(network):
        raise ValueError(
            f"Forecaster: {type(network).__name__} cannot go step by step, which recursive=True "
            "needs: use a causal network, or recursive=False"
        )
    reads = contract.size(network, "input_size")
    if reads != output_size:
        raise ValueError(
            f"Forecaster: recursive=True feeds its {output_size} outputs back, but the network "
            f"reads {reads} features: make them equal, or use recursive=False"
        )
