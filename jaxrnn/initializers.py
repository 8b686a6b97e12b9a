"""How parameters begin: frozen dataclasses, called once per stacked array of gates.

An initialiser is called as `initializer(key, gates, shape, dtype)` and returns an array of shape
`(len(gates), *shape)`: one block per gate, each drawn as if it were alone. `shape` is `(H, I)` for
the map of the input, `(H, H)` for the map of the carry, `(H,)` for a bias. A cell accepts, in the
place of one initialiser, a tuple with one for each gate.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cell import at_least_float32


class Gate(NamedTuple):
    """A gate by name, and what it does to the past when its value goes up.

    `keeps`: +1 if a larger value keeps more of the carry (a forget gate), −1 if it keeps less.
    `writes`: +1 if a larger value lets more of the candidate in, where another gate does the
    keeping (the input gate of an LSTM).
    """

    name: str
    keeps: int = 0
    writes: int = 0


Gates = tuple[Gate, ...]
Shape = tuple[int, ...]
Initializer = Callable[[Array, Gates, Shape, DTypeLike], Array]
Blocks = Float[Array, "gates *shape"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Zeros:
    """All zeros."""

    def __call__(self, key: Array, gates: Gates, shape: Shape, dtype: DTypeLike) -> Blocks:
        """Returns the blocks of all gates."""
        return jnp.zeros((len(gates), *shape), dtype)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Uniform:
    """U(−s, s) with s = scale/√H, PyTorch's default for recurrent layers at scale 1.

    A square block then has spectral radius about scale/√3 and spectral norm about twice that.
    """

    scale: float = 1.0

    def __call__(self, key: Array, gates: Gates, shape: Shape, dtype: DTypeLike) -> Blocks:
        """Returns the blocks of all gates."""
        bound = self.scale / shape[0] ** 0.5
        return _wide(jax.random.uniform, key, (len(gates), *shape), dtype, -bound, bound)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Between:
    """U(low, high), whatever the shape."""

    low: float
    high: float

    def __call__(self, key: Array, gates: Gates, shape: Shape, dtype: DTypeLike) -> Blocks:
        """Returns the blocks of all gates."""
        return _wide(jax.random.uniform, key, (len(gates), *shape), dtype, self.low, self.high)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class FanIn:
    """U(−s, s) with s = scale/√fan_in, PyTorch's default for linear layers at scale 1."""

    scale: float = 1.0

    def __call__(self, key: Array, gates: Gates, shape: Shape, dtype: DTypeLike) -> Blocks:
        """Returns the blocks of all gates."""
        bound = self.scale / max(1, shape[-1]) ** 0.5
        return _wide(jax.random.uniform, key, (len(gates), *shape), dtype, -bound, bound)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Normal:
    """N(0, gain²/fan_in): with gain g on the recurrent map, the random network of rate theory."""

    gain: float = 1.0

    def __call__(self, key: Array, gates: Gates, shape: Shape, dtype: DTypeLike) -> Blocks:
        """Returns the blocks of all gates."""
        scale = self.gain / max(1, shape[-1]) ** 0.5
        wide = at_least_float32(dtype)
        return (scale * jax.random.normal(key, (len(gates), *shape), wide)).astype(dtype)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Orthogonal:
    """gain times an orthogonal matrix, drawn for each gate alone (Saxe et al. 2014, 1312.6120).

    One orthogonal (H, 3H) matrix cut in three, as some libraries draw it, is *not* three of these.
    """

    gain: float = 1.0

    def __call__(self, key: Array, gates: Gates, shape: Shape, dtype: DTypeLike) -> Blocks:
        """Returns the blocks of all gates."""
        if len(shape) != 2:
            raise ValueError(f"Orthogonal draws matrices, got a block of shape {shape}: use Zeros")
        draw = jax.nn.initializers.orthogonal(self.gain)
        keys = jax.random.split(key, len(gates))
        return jnp.stack([draw(k, shape, at_least_float32(dtype)) for k in keys]).astype(dtype)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Rotations:
    """Rotations of units in pairs by angles from U(−π, π), as logarithms: entries (0, 1), (2, 3) …

    What Henaff, Szlam and LeCun 2016 (1602.06662) begin with, and expRNN for the copying task.
    """

    def __call__(self, key: Array, gates: Gates, shape: Shape, dtype: DTypeLike) -> Blocks:
        """Returns the blocks of all gates."""
        even = jnp.arange(0, shape[0] - 1, 2, dtype=jnp.int32)
        angles = Between(-math.pi, math.pi)(key, gates, even.shape, dtype)
        return jnp.zeros((len(gates), *shape), dtype).at[:, even, even + 1].set(angles)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Identity:
    """scale times the identity: with relu, the IRNN of Le, Jaitly and Hinton 2015 (1504.00941)."""

    scale: float = 1.0

    def __call__(self, key: Array, gates: Gates, shape: Shape, dtype: DTypeLike) -> Blocks:
        """Returns the blocks of all gates."""
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError(f"Identity needs a square block, got shape {shape}")
        return jnp.broadcast_to(self.scale * jnp.eye(shape[0], dtype=dtype), (len(gates), *shape))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ForgetBias:
    """`value` added where a gate keeps the past; everything else comes from `rest`.

    LSTM: on the forget gate (Gers et al. 2000; Jozefowicz et al. 2015). GRU: on the update gate,
    with the sign that keeps.
    """

    value: float = 1.0
    rest: Initializer = Uniform()

    def __call__(self, key: Array, gates: Gates, shape: Shape, dtype: DTypeLike) -> Blocks:
        """Returns the blocks of all gates."""
        wide = at_least_float32(dtype)
        keeps = _signs([gate.keeps for gate in gates], shape, wide)
        return (self.rest(key, gates, shape, wide) + self.value * keeps).astype(dtype)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Chrono:
    """Time constants spread evenly up to `longest` steps (Tallec and Ollivier 2018, 1804.11188).

    b = ln u, u ~ U(1, longest − 1), on the gate that keeps; −b on the one that writes; else zero.
    """

    longest: float

    def __post_init__(self) -> None:
        if self.longest <= 2:
            raise ValueError(f"Chrono needs longest > 2 steps, got {self.longest}")

    def __call__(self, key: Array, gates: Gates, shape: Shape, dtype: DTypeLike) -> Blocks:
        """Returns the blocks of all gates."""
        # the same draw serves both gates, so that what is kept and what is let in add up to one
        wide = at_least_float32(dtype)
        bias = jnp.log(jax.random.uniform(key, shape, wide, 1.0, self.longest - 1.0))
        signs = _signs([gate.keeps - gate.writes for gate in gates], shape, wide)
        return (bias * signs).astype(dtype)


def draw_gates(
    initializer: Initializer | tuple[Initializer, ...],
    key: Array,
    gates: Gates,
    shape: Shape,
    dtype: DTypeLike,
) -> Blocks:
    """Blocks of all gates, from one initialiser or from a tuple with one for each gate."""
    if not isinstance(initializer, tuple):
        return initializer(key, gates, shape, dtype)
    if len(initializer) != len(gates):
        names = ", ".join(gate.name for gate in gates)
        raise ValueError(f"got {len(initializer)} initialisers for {len(gates)} gates ({names})")
    keys = jax.random.split(key, len(gates))
    blocks = [
        draw(k, (g,), shape, dtype) for draw, k, g in zip(initializer, keys, gates, strict=True)
    ]
    return jnp.concatenate(blocks)


def _signs(signs: list[int], shape: Shape, dtype: DTypeLike) -> Array:
    return jnp.asarray(signs, dtype).reshape(len(signs), *(1,) * len(shape))


def _wide(
    draw: Callable[..., Array],
    key: Array,
    shape: Shape,
    dtype: DTypeLike,
    *limits: float,
) -> Array:
    # drawn in at least float32, so that bfloat16 parameters are the rounded float32 ones
    return draw(key, shape, at_least_float32(dtype), *limits).astype(dtype)
