"""The simple recurrent unit."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.affine import AffineElement, InputGated, at_least_float32
from jaxrnn.initializers import FanIn, Gate, Initializer


class SRUParams(NamedTuple):
    """Parameters of an `SRU`, gates in the order candidate, forget, reset (and skip).

    `b` and `v` belong to forget and reset.
    """

    W_x: Float[Array, "gates H I"]
    b: Float[Array, "2 H"] | None
    v: Float[Array, "2 H"] | None


class SRUCarry(NamedTuple):
    """What the next step of an `SRU` needs: its cell c."""

    c: Float[Array, " H"]


class SRUGates(NamedTuple):
    """Values of one step: f and r in (0, 1), the candidate any number."""

    candidate: Float[Array, " H"]
    forget: Float[Array, " H"]
    reset: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class SRU(InputGated):
    """Lei et al. 2018 (1709.02755): matrices on the side of x alone, and a highway around.

        n    = W x_t
        f, r = σ(W x_t + v ⊙ c_{t-1} + b)              one W, v, b for each gate
        c_t  = f ⊙ c_{t-1} + (1 − f) ⊙ n
        y_t  = r ⊙ c_t + (1 − r) ⊙ α s_t               s_t = x_t, or W x_t if sizes differ

    x_t has shape (input_size,); c_t and the output y_t have (hidden_size,).
    `params.W_x` stacks the W in the order n, f, r and, if sizes differ, s.

    peephole: whether there is a v. With it the gates read c, and the cell is diagonal but not
        associative in time; without, as in the paper's first version, it is both. (That version
        also puts c_t through an activation, and has no α.)
    highway_bias: where b of r begins; α = √(1 + 2 exp(highway_bias)), a constant, keeps the
        variance from layer to layer.
    biases: 0 for none, 1 for b.
    input_initializer: for the W, whose f and r it scales by √½ where there is a v, as v is.
    """

    peephole: bool = True
    highway_bias: float = 0.0
    input_initializer: Initializer | tuple[Initializer, ...] = FanIn(3**0.5)

    # a peephole looks at its own unit only
    jacobian = "diagonal"
    gates_of_x = (Gate("candidate"), Gate("forget", keeps=+1), Gate("reset"), Gate("skip"))
    carry_type = SRUCarry

    @property
    def element(self) -> Callable[..., AffineElement]:
        """element(params, x), of a cell without peephole: with it, there is none."""
        if self.peephole:
            raise AttributeError(
                "an SRU with peephole is not associative in time: its gates read the carry; "
                "SRU(…, peephole=False) is"
            )
        return self._element

    def _element(self, params: SRUParams, x: Float[Array, " I"]) -> AffineElement:
        n, f, _ = self.gates(params, None, x)
        return AffineElement(f, (1 - f) * n)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> SRUParams:
        """Draws fresh parameters: entries of W of variance 1/I, of v ½."""
        k_W, k_v = jax.random.split(key)
        H = self.hidden_size
        gates = self.gates_of_x[:3] if self.input_size == H else self.gates_of_x
        W_x, b = self.draw(gates, self.input_size, k_W, dtype)
        # a bias begins as its initialiser says, and that of r so much higher
        b = None if b is None else b[1:3].at[1].add(self.highway_bias)
        if not self.peephole:
            return SRUParams(W_x, b, None)
        bound = 1.5**0.5
        v = jax.random.uniform(k_v, (2, H), at_least_float32(dtype), -bound, bound)
        return SRUParams(W_x.at[1:3].multiply(0.5**0.5), b, v.astype(dtype))

    def gates(self, params: SRUParams, carry: SRUCarry | None, x: Float[Array, " I"]) -> SRUGates:
        """The values of the two gates and the candidate in one step."""
        n, *a = params.W_x[:3] @ x
        a = jnp.stack(a)
        a = a if params.b is None else a + params.b
        a = a if params.v is None or carry is None else a + params.v * carry.c
        return SRUGates(n, *jax.nn.sigmoid(a))

    def step(
        self, params: SRUParams, carry: SRUCarry, x: Float[Array, " I"]
    ) -> tuple[SRUCarry, Float[Array, " H"]]:
        """One step for one example."""
        n, f, r = self.gates(params, carry, x)
        c = f * carry.c + (1 - f) * n
        alpha = math.sqrt(1 + 2 * math.exp(self.highway_bias))
        skip = x if self.input_size == self.hidden_size else params.W_x[3] @ x
        return SRUCarry(c), r * c + (1 - r) * (alpha * skip)
