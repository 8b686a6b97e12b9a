"""The gated recurrent unit, in the four forms that go by its name."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_choice, draw_blocks
from jaxrnn.cells.gated import Gated, two_maps
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate


class GRUParams(NamedTuple):
    """Parameters of a `GRU`, gates in the order reset, update, candidate.

    With reset after the matrix and one bias, `b_h` holds the candidate's own bias alone.
    """

    W_x: Float[Array, "3 H I"]
    W_h: Float[Array, "3 H H"]
    b: Float[Array, "3 H"] | None
    b_h: Float[Array, "own H"] | None
    initial: "GRUCarry | None"


class GRUCarry(NamedTuple):
    """What the next step of a `GRU` needs: its output h."""

    h: Float[Array, " H"]


class GRUGates(NamedTuple):
    """Gate values of one step: r and z in (0, 1), the candidate in (−1, 1)."""

    reset: Float[Array, " H"]
    update: Float[Array, " H"]
    candidate: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class GRU(Gated):
    """Cho et al. 2014 (1406.1078), by default in the form of Chung et al. 2014 (1412.3555).

        r, z = σ(W x_t + b + U h_{t-1} + b_h)         one W, U, b, b_h for each gate
        n    = tanh(W x_t + b + U (r ⊙ h_{t-1}) + b_h)       reset="before", the default
        n    = tanh(W x_t + b + r ⊙ (U h_{t-1} + b_h))       reset="after"
        h_t  = (1 − z) ⊙ h_{t-1} + z ⊙ n              update_weighs="new", the default
        h_t  = z ⊙ h_{t-1} + (1 − z) ⊙ n              update_weighs="old"

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W, `params.W_h` the U, in the order r, z, n, which is PyTorch's.

    | form                                | reset  | update_weighs | biases |
    |-------------------------------------|--------|---------------|--------|
    | Chung et al. 2014, Haiku            | before | new           | 1      |
    | Cho et al. 2014                     | before | old           | 1      |
    | PyTorch, cuDNN, Keras (reset_after) | after  | old           | 2      |
    | Flax linen, Equinox                 | after  | old           | 1      |

    A form turns into the one that weighs the other side by negating W, U and b of z.

    biases: 0 for none; 1 for b, and with reset="after" a b_h for the candidate alone; 2 for all.
    learned_carry: whether h_0 is a parameter, `params.initial`, which starts at zero.

    Equal to: Haiku `GRU`; with reset="after" and update_weighs="old" Flax `GRUCell` and Equinox
    `GRUCell`, with biases=2 as well PyTorch `nn.GRU` and Keras `GRU`.
    """

    reset: str = "before"
    update_weighs: str = "new"

    params_type = GRUParams
    carry_type = GRUCarry

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "reset", ("before", "after"))
        check_choice(self, "update_weighs", ("new", "old"))

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> GRUParams:
        """Draws fresh parameters."""
        keeps = +1 if self.update_weighs == "old" else -1
        gates = (Gate("reset"), Gate("update", keeps=keeps), Gate("candidate"))
        blocks = draw_blocks(self, gates, key, dtype, own=1 if self.reset == "after" else 0)
        return GRUParams(*blocks, self.learned(dtype))

    def stages(self, params: GRUParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x and of the carry: of h, or of h and of r ⊙ h."""
        if self.reset == "after":
            return super().stages(params)
        return Dense(params.W_x, params.b), two_maps(params.W_h, params.b_h, first=2)

    def elementwise(
        self, carry: GRUCarry, from_x: tuple[Array, ...], *of_carry: Map
    ) -> tuple[GRUCarry, Float[Array, " H"]]:
        """The step between the dense maps."""
        _, z, n = self.gate_values(carry, from_x, *of_carry)
        h = carry.h
        h = (1 - z) * h + z * n if self.update_weighs == "new" else z * h + (1 - z) * n
        return GRUCarry(h), h

    def gate_values(self, carry: GRUCarry, from_x: tuple[Array, ...], *of_carry: Map) -> GRUGates:
        """The values of the two gates and the candidate."""
        x_r, x_z, x_n = from_x
        if self.reset == "after":
            (of_h,) = of_carry
            a_r, a_z, h_n = of_h(carry.h, plus=(x_r, x_z, None))
            r, z = jax.nn.sigmoid(a_r), jax.nn.sigmoid(a_z)
            return GRUGates(r, z, jnp.tanh(x_n + r * h_n))
        of_h, of_rh = of_carry
        a_r, a_z = of_h(carry.h, plus=(x_r, x_z))
        r, z = jax.nn.sigmoid(a_r), jax.nn.sigmoid(a_z)
        (a_n,) = of_rh(r * carry.h, plus=(x_n,))
        return GRUGates(r, z, jnp.tanh(a_n))
