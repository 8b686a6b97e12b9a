"""Leaky rate units in continuous time, as computational neuroscience simulates and trains them."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_choice, draw_blocks
from jaxrnn.cells.elman import ACTIVATIONS
from jaxrnn.cells.gated import Gated
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate


class LeakyParams(NamedTuple):
    """Parameters of a `Leaky`; a field the cell does without is None.

    `W_h` is what is learned, `Leaky.connections` what acts. `mask` is fixed: its gradient is zero.
    """

    W_x: Float[Array, "H I"]
    W_h: Float[Array, "H H"]
    b: Float[Array, " H"] | None
    b_h: Float[Array, " H"] | None
    initial: "LeakyCarry | None"
    leak: Float[Array, " H"] | None
    mask: Float[Array, "H H"] | None


class LeakyCarry(NamedTuple):
    """What the next step of leaky units needs: their potentials, or their rates."""

    h: Float[Array, " H"]


class LeakyGates(NamedTuple):
    """What one step of leaky units computes on its way: the sum of all that drives them."""

    drive: Float[Array, " H"]


@dataclasses.dataclass(frozen=True)
class LeakyUnits(Gated):
    """The common part of `Leaky` and `LowRank`, which write `init` and `stages`.

    activation: φ, "tanh", "relu", "identity", "logistic", or a function defined in a module.
    carries: "potential" for φ outside of the sum, "rate" for φ around it.
    dt: Δt, in the unit of tau.
    tau: τ, one number for all units or a tuple with one for each; at least Δt.
    learned_tau: whether τ is learned: α = σ(`params.leak`), which starts at Δt/τ and stays below 1.
    noise: σ, the standard deviation that its noise alone would give a potential whose τ is long.
        Drawn from the key of the step; without a key there is none.
    """

    activation: str | Callable[[Array], Array] = "tanh"
    _: dataclasses.KW_ONLY
    carries: str = "potential"
    dt: float = 1.0
    tau: float | tuple[float, ...] = 10.0
    learned_tau: bool = False
    noise: float = 0.0

    gates_of_x = (Gate("drive"),)
    carry_type = LeakyCarry

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if not callable(self.activation):
            check_choice(self, "activation", tuple(ACTIVATIONS))
        check_choice(self, "carries", ("potential", "rate"))
        if isinstance(self.tau, tuple) and len(self.tau) != self.hidden_size:
            raise ValueError(f"{name}: got {len(self.tau)} tau for {self.hidden_size} units")
        shortest = min(self.tau) if isinstance(self.tau, tuple) else self.tau
        if not 0 < self.dt <= shortest:
            raise ValueError(
                f"{name}: dt must be above 0 and at most tau, got dt={self.dt!r} and tau={shortest}"
            )
        if self.learned_tau and self.dt == shortest:
            raise ValueError(f"{name}: a learned tau must begin above dt, got {shortest} for both")
        if self.noise < 0:
            raise ValueError(f"{name}: noise must be at least 0, got {self.noise!r}")

    @property
    def random(self) -> bool:
        """Whether `step` takes a key."""
        return self.noise > 0

    def phi(self, a: Array) -> Array:
        """The rate that a potential stands for."""
        phi = self.activation if callable(self.activation) else ACTIVATIONS[self.activation]
        return phi(a)

    def first_leak(self, dtype: DTypeLike) -> Array | None:
        """What `params.leak` starts as, or None if τ is not learned."""
        if not self.learned_tau:
            return None
        taus = self.tau if isinstance(self.tau, tuple) else (self.tau,) * self.hidden_size
        return jnp.asarray([-math.log(tau / self.dt - 1) for tau in taus], dtype)

    @property
    def common_alpha(self) -> float | None:
        """α = Δt/τ where it is one fixed number for all units."""
        if self.learned_tau or isinstance(self.tau, tuple):
            return None
        return self.dt / self.tau

    def alpha(self, params: Any) -> float | Array:
        """α = Δt/τ, one number or one for each unit."""
        if self.learned_tau:
            return jax.nn.sigmoid(params.leak)
        if isinstance(self.tau, tuple):
            return jnp.asarray([self.dt / tau for tau in self.tau], params.W_x.dtype)
        return self.dt / self.tau

    def map_of_x(self, params: Any) -> Dense:
        """W_x x + b, and α behind it if the units differ in it."""
        W_x, b = jax.tree.map(lambda a: a[None], (params.W_x, params.b))
        alpha = self.alpha(params)
        return Dense(W_x, b, (alpha,) if isinstance(alpha, jax.Array) else ())

    def step(
        self, params: Any, carry: LeakyCarry, x: Float[Array, " I"], key: Array | None = None
    ) -> tuple[LeakyCarry, Float[Array, " H"]]:
        """One step for one example, with noise if there is a key."""
        of_x, of_carry = self.stages(params)
        drive, *alpha = of_x(x)
        if self.random and key is not None:
            size = self.noise * (2 / self.alpha(params)) ** 0.5
            drive = drive + size * jax.random.normal(key, drive.shape, drive.dtype)
        return self.elementwise(carry, (drive, *alpha), *of_carry)

    def gate_values(self, carry: LeakyCarry, from_x: tuple[Array, ...], *of_carry: Map) -> Any:
        """The sum s of all that drives the units."""
        (of_h,) = of_carry
        return LeakyGates(*of_h(self.rates(carry), plus=from_x[:1]))

    def rates(self, carry: LeakyCarry) -> Float[Array, " H"]:
        """What the units send to each other, and the output after a step."""
        return self.phi(carry.h) if self.carries == "potential" else carry.h

    def elementwise(
        self, carry: LeakyCarry, from_x: tuple[Array, ...], *of_carry: Map
    ) -> tuple[LeakyCarry, Float[Array, " H"]]:
        """The step between the dense maps."""
        drive = self.gate_values(carry, from_x, *of_carry).drive
        alpha = from_x[1] if self.common_alpha is None else self.common_alpha
        towards = drive if self.carries == "potential" else self.phi(drive)
        carry = LeakyCarry((1 - alpha) * carry.h + alpha * towards)
        return carry, self.rates(carry)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Leaky(LeakyUnits):
    """Amari 1972, Wilson and Cowan 1972: rate units that leak, trained as in Song et al. 2016.

        s_t = W r_{t-1} + b_h + W_x x_t + b + √(2/α) σ ξ_t          ξ_t ~ N(0, 1), α = Δt/τ
        v_t = (1 − α) v_{t-1} + α s_t,     r_t = φ(v_t)             carries="potential", the default
        r_t = (1 − α) r_{t-1} + α φ(s_t)                            carries="rate"

    These are Euler steps of τ dv/dt = −v + W φ(v) + W_x x + b and of τ dr/dt = −r + φ(W r + W_x x
    + b). The noise, √(2α) σ ξ_t once it has passed α, is that of Song, Yang and Wang 2016 and, for
    rates, of Yang et al. 2019. x_t has shape (input_size,); the carry, which is v or r, and the
    output, which is r, have (hidden_size,). With α = 1 and carries="rate" this is `Elman`.

    signs: Dale's law, W = |W_h| diag(sign): +1 or −1 for each unit, or the fraction of excitatory
        units, which then come first. The inhibitory columns begin larger, so that rows balance.
    mask: which connections there are: H rows of H numbers, above 0 where unit j reaches unit i; or
        the fraction of them, drawn in `init` and kept in `params.mask`, where a large mask of your
        own belongs too: a tuple is read through at every call.
    """

    signs: tuple[int, ...] | float | None = None
    mask: tuple[tuple[int, ...], ...] | float | None = None

    params_type = LeakyParams

    def __post_init__(self) -> None:
        super().__post_init__()
        H = self.hidden_size
        if isinstance(self.signs, tuple):
            if len(self.signs) != H or set(self.signs) - {-1, 1}:
                raise ValueError(f"Leaky: signs must be {H} numbers +1 or -1, got {self.signs!r}")
        elif self.signs is not None and not 0 <= self.signs <= 1:
            raise ValueError(f"Leaky: signs must be a fraction from 0 to 1, got {self.signs!r}")
        if isinstance(self.mask, tuple):
            if [len(row) for row in self.mask] != [H] * H:
                raise ValueError(f"Leaky: mask must have {H} rows of {H} numbers, one of each unit")
        elif self.mask is not None and not 0 < self.mask <= 1:
            raise ValueError(f"Leaky: mask must be a fraction above 0, got {self.mask!r}")

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> LeakyParams:
        """Draws fresh parameters."""
        k_blocks, k_mask = jax.random.split(key)
        blocks = draw_blocks(self, self.gates_of_x, k_blocks, dtype)
        W_x, W_h, b, b_h = jax.tree.map(lambda a: a[0], blocks)
        signs = self.unit_signs()
        if signs is not None and len(set(signs)) == 2:
            ratio = signs.count(1) / signs.count(-1)
            W_h = W_h * jnp.asarray([1 if sign > 0 else ratio for sign in signs], dtype)
        mask = self.drawn_mask(k_mask, dtype)
        return LeakyParams(W_x, W_h, b, b_h, self.learned(dtype), self.first_leak(dtype), mask)

    def unit_signs(self) -> tuple[int, ...] | None:
        """+1 for each excitatory unit, −1 for each inhibitory one; None without Dale's law."""
        if self.signs is None or isinstance(self.signs, tuple):
            return self.signs
        excitatory = round(self.signs * self.hidden_size)
        return (1,) * excitatory + (-1,) * (self.hidden_size - excitatory)

    def drawn_mask(self, key: Array, dtype: DTypeLike) -> Float[Array, "H H"] | None:
        """What `params.mask` starts as, or None if the mask is not drawn."""
        if self.mask is None or isinstance(self.mask, tuple):
            return None
        shape = (self.hidden_size, self.hidden_size)
        return jax.random.bernoulli(key, self.mask, shape).astype(dtype)

    def connections(self, params: LeakyParams) -> Float[Array, "H H"]:
        """W, the matrix that acts: W_h under Dale's law and the mask."""
        W, signs = params.W_h, self.unit_signs()
        if signs is not None:
            W = jnp.abs(W) * jnp.asarray(signs, W.dtype)
        if self.mask is None:
            return W
        mask = jnp.asarray(self.mask if params.mask is None else params.mask)
        # a comparison rather than a product: whatever weight decay does to the mask, it stays one
        return jnp.where(mask > 0, W, 0)

    def stages(self, params: LeakyParams) -> tuple[Dense, tuple[Dense]]:
        """The dense maps of x and of the rates."""
        W, b_h = jax.tree.map(lambda a: a[None], (self.connections(params), params.b_h))
        return self.map_of_x(params), (Dense(W, b_h),)
