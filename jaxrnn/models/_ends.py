"""What a network has come to when it has read a whole sequence, whichever way it reads."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrnn import cell as contract
from jaxrnn.models.recurrent import Recurrent
from jaxrnn.network import Bidirectional, Delay, Pooled, Stack
from jaxrnn.network.bidirectional import MERGES
from jaxrnn.unroll import unroll


def at_the_end(
    recurrent: Recurrent,
    xs: Float[Array, "*batch T F"],
    lengths: Any,
    *,
    reverse: bool = False,
    key: Array | None = None,
) -> Float[Array, "*batch H"]:
    """The output after the last real step; of a last layer of two directions each one's end.

    Zero for a row without any step.
    """
    network, merge = both_ends(recurrent.network)
    _, ys = unroll(
        network,
        recurrent.tree,
        xs,
        lengths=lengths,
        reverse=reverse,
        method=recurrent.method,
        key=key,
    )
    if merge:
        return merge(at_last(ys.forward, lengths), at_first(ys.backward))
    return at_first(ys) if reverse else at_last(ys, lengths)


def both_ends(network: Any) -> tuple[Any, Callable[[Array, Array], Array] | None]:
    """The network with the directions of its last layer kept apart, and what merges their ends.

    None if the last layer has one direction, or is a `Delay`, which knows the future by waiting.
    """
    if isinstance(network, Stack):
        last, merge = both_ends(network.layers[-1])
        return dataclasses.replace(network, layers=(*network.layers[:-1], last)), merge
    if isinstance(network, Bidirectional):
        return dataclasses.replace(network, merge=None), MERGES[network.merge or "concatenate"]
    if isinstance(network, Pooled):
        apart = Bidirectional(network.forward, network.backward, merge=None)
        return apart, network.opinion
    if not contract.is_causal(network) and not isinstance(network, Delay):
        raise ValueError(
            f"where {type(network).__name__} ends is not known, as it reads both ways: let its "
            "last layer be a Bidirectional, with what you put around it around its cells; a "
            "Classifier may also pool over all steps: pool='mean' or 'max'"
        )
    return network, None


def at_last(ys: Float[Array, "*batch T H"], lengths: Any) -> Float[Array, "*batch H"]:
    """The output of each row's last real step; zero for a row without any."""
    if lengths is None or ys.shape[-2] == 0:
        return at_first(ys[..., ::-1, :])
    # where there is no real step, outputs are zero everywhere
    last = jnp.maximum(lengths - 1, 0)[..., None, None]
    return jnp.take_along_axis(ys, last, axis=-2)[..., 0, :]


def at_first(ys: Float[Array, "*batch T H"]) -> Float[Array, "*batch H"]:
    """The output of step 0; zero if there is none."""
    return ys[..., 0, :] if ys.shape[-2] else jnp.zeros(ys.shape[:-2] + ys.shape[-1:], ys.dtype)
