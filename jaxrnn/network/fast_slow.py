"""Several fast micro-steps and one slow one for each input."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from jaxrnn import cell as contract
from jaxrnn.network._shared import Composite, check_causal, check_rate, drop, fold, width
from jaxrnn.unroll import unroll


class FastSlowParams(NamedTuple):
    """Parameters of the fast cells, in their order, and of the slow one."""

    fast: tuple[Any, ...]
    slow: Any


class FastSlowCarry(NamedTuple):
    """The one carry that all fast cells hand on, and that of the slow cell."""

    fast: Any
    slow: Any


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class FastSlow(Composite):
    """Mujika, Meier and Steger 2017 (1705.08639): fast cells F_1 … F_k and a slow cell S.

        h^F1_t = F_1(h^Fk_{t-1}, x_t)
        h^S_t  = S(h^S_{t-1}, h^F1_t)
        h^F2_t = F_2(h^F1_t, h^S_t)
        h^Fi_t = F_i(h^F(i−1)_t)                   3 ≤ i ≤ k, without an input
        y_t    = h^Fk_t

    The first argument of each cell is its carry (of an LSTM, h and c), the second its input. The
    fast cells hand *one* carry on among them, each with params of its own, so that k of them go k
    steps for one input; the slow cell lies on the shortest path through time.

    fast: F_1 … F_k, k ≥ 2, whose carries are alike. F_1 reads x, F_2 the slow cell's output, all
        others nothing: make them with input_size=0. (Else they read zeros.)
    slow: S, which reads the output of F_1.
    dropout: rate at which single outputs are set to zero between F_1 and S and between S and F_2,
        anew at every step, as in the paper, the rest scaled by 1/(1 − rate). Only with a key.
    """

    fast: tuple[Any, ...]
    slow: Any
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.fast, tuple) or len(self.fast) < 2:
            raise ValueError(
                f"FastSlow: fast must be a tuple of at least two cells, got {self.fast!r}"
            )
        check_rate(self, "dropout", self.dropout)
        for member in self.members:
            check_causal(self, member, "but each of its members must")
        first, second = self.fast[:2]
        for below, above in ((first, self.slow), (self.slow, second)):
            out, into = width(self, below, "output_size"), width(self, above, "input_size")
            if out != into:
                raise ValueError(
                    f"FastSlow: {type(below).__name__} gives {out} features, but the "
                    f"{type(above).__name__} that reads them was made for input_size={into}"
                )

    @property
    def members(self) -> tuple[Any, ...]:
        """The fast cells and the slow one."""
        return *self.fast, self.slow

    @property
    def output_size(self) -> int:
        """Features of one output, those of the last fast cell."""
        return self.fast[-1].output_size

    @property
    def random(self) -> bool:
        """Whether `step` takes a key."""
        return self.dropout > 0 or super().random

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> FastSlowParams:
        """Draws fresh parameters."""
        *keys, last = jax.random.split(key, len(self.members))
        fast = (cell.init(k, dtype=dtype) for cell, k in zip(self.fast, keys, strict=True))
        return FastSlowParams(tuple(fast), self.slow.init(last, dtype=dtype))

    def initial_carry(self, params: FastSlowParams) -> FastSlowCarry:
        """The initial carries of F_1, which is the first to read it, and of S."""
        return FastSlowCarry(
            self.fast[0].initial_carry(params.fast[0]), self.slow.initial_carry(params.slow)
        )

    def step(
        self, params: FastSlowParams, carry: FastSlowCarry, x: Any, key: Array | None = None
    ) -> tuple[FastSlowCarry, Array]:
        """One step of the slow cell for one example, one of each fast cell."""
        k = [fold(key, i) for i in range(len(self.members) + 2)]
        fast, y = contract.step(self.fast[0], params.fast[0], carry.fast, x, k[0])
        y = drop(y, self.dropout, k[-1])
        slow, y = contract.step(self.slow, params.slow, carry.slow, y, k[1])
        y = drop(y, self.dropout, k[-2])
        fast, y = contract.step(self.fast[1], params.fast[1], fast, y, k[2])
        for i, (cell, p) in enumerate(zip(self.fast[2:], params.fast[2:], strict=True)):
            nothing = jnp.zeros(contract.size(cell, "input_size"), y.dtype)
            fast, y = contract.step(cell, p, fast, nothing, k[3 + i])
        return FastSlowCarry(fast, slow), y

    def unroll(
        self, params: FastSlowParams, xs: PyTree, *, verb: Callable = unroll, **options: Any
    ) -> tuple[FastSlowCarry, PyTree]:
        """Step by step through the whole sequence; options as for `jaxrnn.unroll`."""
        first, *others = (
            contract.describe(jax.eval_shape(cell.initial_carry, p))
            for cell, p in zip(self.fast, params.fast, strict=True)
        )
        for cell, carry in zip(self.fast[1:], others, strict=True):
            if carry != first:
                raise ValueError(
                    f"FastSlow: the fast {type(cell).__name__} has the carry {carry}, but the "
                    f"first fast cell hands it {first}"
                )
        return super().unroll(params, xs, verb=verb, **options)
