"""The next values of a real-valued series."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree

from jaxrnn import cell as contract
from jaxrnn.models._shared import row_keys
from jaxrnn.models.recurrent import Recurrent
from jaxrnn.network._shared import fold
from jaxrnn.sequences import check_lengths, step_keys


class Forecaster(nnx.Module):
    """Reads a window of a series and foretells the `horizon` values after its last real step.

    output_size: O, features of one foretold value.
    horizon: how many values are foretold.
    network: any cell or network. It may be bidirectional, unless `recursive`.
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
        if horizon < 1:
            raise ValueError(f"Forecaster: horizon must be at least 1, got {horizon}")
        if recursive:
            _check_recursive(network, output_size)
        self.shape, self.recursive = (horizon, output_size), recursive
        self.recurrent = Recurrent(network, rngs=rngs, dtype=dtype)
        numbers = output_size if recursive else horizon * output_size
        width = contract.size(network, "output_size")
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
        carry, hs = self.recurrent(xs, lengths=lengths, key=key)
        value = self.linear(_last(hs, check_lengths(lengths, tuple(batch), steps)))
        if not self.recursive:
            return value.reshape(*batch, *self.shape)
        # apart from the keys of the window, and the same however much padding is behind it
        rows = fold(row_keys(key, batch), 1)
        keys = step_keys(rows, 0, tuple(batch), self.shape[0] - 1)
        return self._feed_back(carry, value, keys)

    def _feed_back(self, carry: PyTree, value: Array, keys: Array | None) -> Array:
        step: Any = self.recurrent.step
        batch = value.ndim - 1
        for _ in range(batch):
            step = jax.vmap(step)

        def turn(state: tuple, key: Array | None) -> tuple[tuple, Array]:
            carry, h = step(*state, key)
            value = self.linear(h)
            return (carry, value), value

        keys = None if keys is None else jnp.moveaxis(keys, batch, 0)
        _, later = jax.lax.scan(turn, (carry, value), keys, length=self.shape[0] - 1)
        return jnp.moveaxis(jnp.concatenate([value[None], later]), 0, batch)


def _last(hs: Array, lengths: Array | None) -> Array:
    """The output at the last real step; zero where there is none."""
    if lengths is None:
        return hs[..., -1, :]
    index = jnp.maximum(lengths - 1, 0)[..., None, None]
    return jnp.take_along_axis(hs, index, axis=-2)[..., 0, :]


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
