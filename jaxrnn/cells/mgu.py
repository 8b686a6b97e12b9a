"""The minimal gated unit, and what was left of it when it was simplified further."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_choice, draw_blocks
from jaxrnn.cells.gated import CarryH, Gated, two_maps
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate


class MGUParams(NamedTuple):
    """Parameters of an `MGU`, of forget gate and candidate, where each has them, in this order.

    `b_h` is the candidate's alone if the variant is not "MGU", or with reset="after" and one bias.
    """

    W_x: Float[Array, "gates H I"]
    W_h: Float[Array, "own H H"]
    b: Float[Array, "biased H"] | None
    b_h: Float[Array, "both H"] | None
    initial: CarryH | None


class MGUGates(NamedTuple):
    """Gate values of one step: f in (0, 1), the candidate in (−1, 1)."""

    forget: Float[Array, " H"]
    candidate: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class MGU(Gated):
    """Zhou et al. 2016 (1603.09420): the GRU with one gate that both resets and updates.

        f   = σ(W x_t + b + U h_{t-1} + b_h)          variant="MGU", the default
        f   = σ(U h_{t-1} + b)                        variant="MGU1"
        f   = σ(U h_{t-1})                            variant="MGU2"
        f   = σ(b)                                    variant="MGU3"
        n   = tanh(W x_t + b + U (f ⊙ h_{t-1}) + b_h)       reset="before", the default
        n   = tanh(W x_t + b + f ⊙ (U h_{t-1} + b_h))       reset="after"
        n   = tanh(W x_t + b + U h_{t-1} + b_h)             reset="none"
        h_t = (1 − f) ⊙ h_{t-1} + f ⊙ n               forget_weighs="new", the default
        h_t = f ⊙ h_{t-1} + (1 − f) ⊙ n               forget_weighs="old"

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W, `params.W_h` the U, `params.b` the b that there are, in the order
    f, n. An initialiser given as a tuple has two members in every variant.

    variant: 1, 2 and 3 are those of Heck and Salem 2017 (1701.03452), with reset="before" only.
    forget_weighs: in the papers a larger f forgets more: f is the weight of the candidate.
    biases: 0 for none; 1 for b, and with reset="after" a b_h for the candidate alone; 2 for all,
        but in variants 1 to 3 f has no b_h.

    Equal to: Flax `MGUCell`, with forget_weighs="old" and reset="after" (its `reset_gate=True`) or
    "none".
    """

    variant: str = "MGU"
    reset: str = "before"
    forget_weighs: str = "new"

    params_type = MGUParams

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "variant", ("MGU", "MGU1", "MGU2", "MGU3"))
        check_choice(self, "reset", ("before", "after", "none"))
        check_choice(self, "forget_weighs", ("new", "old"))
        if self.variant != "MGU" and self.reset != "before":
            raise ValueError(
                f"MGU: variant {self.variant!r} goes with reset='before', got {self.reset!r}"
            )
        if self.variant == "MGU3" and self.biases == 0:
            raise ValueError("MGU: the gate of MGU3 is its bias: biases must be 1 or 2, got 0")

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> MGUParams:
        """Draws fresh parameters."""
        keeps = -1 if self.forget_weighs == "new" else +1
        gates = Gate("forget", keeps=keeps), Gate("candidate")
        own = 1 if self.reset == "after" else 0
        W_x, W_h, b, b_h = draw_blocks(self, gates, key, dtype, own)
        if self.variant != "MGU":
            W_x, b_h = W_x[1:], None if b_h is None else b_h[1:]
        if self.variant == "MGU2" and b is not None:
            b = b[1:]
        if self.variant == "MGU3":
            W_h = W_h[1:]
        return MGUParams(W_x, W_h, b, b_h, self.learned(dtype))

    def stages(self, params: MGUParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x and of the carry: of h, of h and of f ⊙ h, or of f ⊙ h alone."""
        W_x, W_h, b, b_h, _ = params
        if self.reset != "before":
            return super().stages(params)
        if self.variant == "MGU":
            return Dense(W_x, b), two_maps(W_h, b_h, first=1)
        b_f = None if b is None or self.variant == "MGU2" else b[:1]
        b_n = None if b is None else b[-1:]
        if self.variant == "MGU3" and b_f is not None:
            return Dense(W_x, b_n, tuple(b_f)), (Dense(W_h, b_h),)
        return Dense(W_x, b_n), (Dense(W_h[:1], b_f), Dense(W_h[1:], b_h))

    def gate_values(self, carry: CarryH, from_x: tuple[Array, ...], *of_carry: Map) -> MGUGates:
        """The values of the gate and the candidate."""
        if self.reset != "before":
            return self.gates_of_one_map(carry.h, from_x, *of_carry)
        if self.variant == "MGU3":
            (x_n, a_f), (of_fh,) = from_x, of_carry
        else:
            *x_f, x_n = from_x
            of_h, of_fh = of_carry
            (a_f,) = of_h(carry.h, plus=tuple(x_f) or None)
        f = jax.nn.sigmoid(a_f)
        (a_n,) = of_fh(f * carry.h, plus=(x_n,))
        return MGUGates(f, jnp.tanh(a_n))

    def gates_of_one_map(
        self, h: Float[Array, " H"], from_x: tuple[Array, ...], of_h: Map
    ) -> MGUGates:
        """The same where one map of h serves both, as nothing is reset before it."""
        x_f, x_n = from_x
        if self.reset == "none":
            a_f, a_n = of_h(h, plus=(x_f, x_n))
            return MGUGates(jax.nn.sigmoid(a_f), jnp.tanh(a_n))
        a_f, h_n = of_h(h, plus=(x_f, None))
        f = jax.nn.sigmoid(a_f)
        return MGUGates(f, jnp.tanh(x_n + f * h_n))

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], *of_carry: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        f, n = self.gate_values(carry, from_x, *of_carry)
        h = carry.h
        h = (1 - f) * h + f * n if self.forget_weighs == "new" else f * h + (1 - f) * n
        return CarryH(h), h
