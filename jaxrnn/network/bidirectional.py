"""Both directions of time at once."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from jaxrnn.network._shared import Composite, fold
from jaxrnn.unroll import unroll


class BidirectionalParams(NamedTuple):
    """Parameters of the two directions."""

    forward: Any
    backward: Any


class BidirectionalCarry(NamedTuple):
    """Carries of the two directions; the final backward one is that after step 0."""

    forward: Any
    backward: Any


class BidirectionalOutputs(NamedTuple):
    """Outputs of the two directions, where they are kept apart (`merge=None`)."""

    forward: Any
    backward: Any


MERGES: dict[str | None, Callable[[Array, Array], Array]] = {
    "concatenate": lambda y, z: jnp.concatenate([y, z], axis=-1),
    "sum": lambda y, z: y + z,
    "average": lambda y, z: (y + z) / 2,
}


class BothWays(Composite):
    """What networks of a `forward` and a `backward` member share."""

    forward: Any
    backward: Any

    @property
    def causal(self) -> bool:
        """Never: the backward direction needs the future."""
        return False

    def check_inputs(self) -> None:
        """Raises if the two directions were made for unlike inputs."""
        reads = [getattr(cell, "input_size", None) for cell in self.members]
        if all(isinstance(size, int) for size in reads) and reads[0] != reads[1]:
            raise ValueError(
                f"{type(self).__name__}: the forward {type(self.forward).__name__} reads "
                f"{reads[0]} features, the backward {type(self.backward).__name__} {reads[1]}: "
                "both read the same xs, make them equal"
            )

    def check_outputs(self, what: str) -> None:
        """Raises if the two directions give unequally many features."""
        gives = [getattr(cell, "output_size", None) for cell in self.members]
        if all(isinstance(size, int) for size in gives) and gives[0] != gives[1]:
            raise ValueError(
                f"{type(self).__name__}: {what} needs equally many outputs, but the forward "
                f"{type(self.forward).__name__} gives {gives[0]} features, the backward "
                f"{type(self.backward).__name__} {gives[1]}"
            )

    @property
    def members(self) -> tuple[Any, ...]:
        """The two directions."""
        return self.forward, self.backward

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> BidirectionalParams:
        """Draws fresh parameters for both directions."""
        k_forward, k_backward = jax.random.split(key)
        return BidirectionalParams(
            self.forward.init(k_forward, dtype=dtype), self.backward.init(k_backward, dtype=dtype)
        )

    def initial_carry(self, params: BidirectionalParams) -> BidirectionalCarry:
        """The initial carries of both directions."""
        return BidirectionalCarry(
            self.forward.initial_carry(params.forward),
            self.backward.initial_carry(params.backward),
        )

    def step(self, params: Any, carry: Any, x: Any, key: Array | None = None) -> tuple[Any, Any]:
        """Always an error: the backward direction cannot know the future."""
        raise TypeError(
            f"{type(self).__name__} cannot go step by step: its backward direction needs the "
            "future. Use jaxrnn.unroll on the whole sequence, or a causal network"
        )

    def both(
        self,
        params: BidirectionalParams,
        xs: PyTree,
        *,
        verb: Callable,
        carry: BidirectionalCarry | None = None,
        reverse: bool = False,
        key: Array | None = None,
        **options: Any,
    ) -> tuple[BidirectionalCarry, BidirectionalOutputs]:
        """The outputs of both directions, side by side."""
        if reverse:
            raise ValueError(
                f"{type(self).__name__} goes both ways already: reverse=True has no meaning here; "
                "flip xs if the sequence itself runs backwards"
            )
        there, back = (None, None) if carry is None else carry
        k_there, k_back = fold(key, 0), fold(key, 1)
        there, ys = verb(self.forward, params.forward, xs, carry=there, key=k_there, **options)
        back, zs = verb(
            self.backward, params.backward, xs, carry=back, reverse=True, key=k_back, **options
        )
        return BidirectionalCarry(there, back), BidirectionalOutputs(ys, zs)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Bidirectional(BothWays):
    """Two independent cells, one in each direction, their outputs side by side (2H features).

    Schuster and Paliwal 1997. The backward direction starts at the last *real* step, so its final
    carry is that of its output at the *first* step. Cannot stream: it needs the future.

    backward: the cell of the other direction; the same kind as `forward` by default, with
        parameters of its own.
    merge: what becomes of the two outputs: "concatenate", forward first; "sum"; "average"; or None,
        which keeps them apart: ys is then `BidirectionalOutputs(forward, backward)`.
    """

    forward: Any
    backward: Any = None
    merge: str | None = "concatenate"

    def __post_init__(self) -> None:
        if self.backward is None:
            object.__setattr__(self, "backward", self.forward)
        if self.merge is not None and self.merge not in MERGES:
            names = ", ".join(map(repr, MERGES))
            raise ValueError(f"Bidirectional: merge must be {names} or None, got {self.merge!r}")
        self.check_inputs()
        if self.merge in ("sum", "average"):
            self.check_outputs(f"merge={self.merge!r}")

    @property
    def output_size(self) -> Any:
        """Features of one output; a pair if the two outputs are kept apart."""
        there, back = self.forward.output_size, self.backward.output_size
        if self.merge is None:
            return there, back
        return there + back if self.merge == "concatenate" else there

    def unroll(
        self,
        params: BidirectionalParams,
        xs: PyTree,
        *,
        verb: Callable = unroll,
        **options: Any,
    ) -> tuple[BidirectionalCarry, PyTree]:
        """Both directions through the whole sequence; options as for `jaxrnn.unroll`."""
        carry, ys = self.both(params, xs, verb=verb, **options)
        if self.merge is None:
            return carry, ys
        return carry, jax.tree.map(MERGES[self.merge], *ys)
