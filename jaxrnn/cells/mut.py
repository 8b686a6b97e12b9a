"""The three cells that an evolutionary search bred from the gated recurrent unit."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.gated import CarryH, Gated, GatedParams, two_maps
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate

_UPDATE, _RESET, _CANDIDATE = Gate("update", keeps=-1), Gate("reset"), Gate("candidate")


class MUTGates(NamedTuple):
    """Gate values of one step: z and r in (0, 1), the candidate in (−1, 1)."""

    update: Float[Array, " H"]
    reset: Float[Array, " H"]
    candidate: Float[Array, " H"]


@dataclasses.dataclass(frozen=True)
class _Mutated(Gated):
    """What the three share: the GRU's gates, and its mean of the old and the new."""

    gates_of_x = (_UPDATE, _RESET, _CANDIDATE)

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], *of_carry: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        z, _, n = self.gate_values(carry, from_x, *of_carry)
        h = (1 - z) * carry.h + z * n
        return CarryH(h), h


@dataclasses.dataclass(frozen=True)
class _Bare(_Mutated):
    """The two whose paper adds x_t somewhere without a matrix: to the gate of number `bare`."""

    project_input: bool = True

    bare: ClassVar[int]

    def __post_init__(self) -> None:
        super().__post_init__()
        I, H = self.input_size, self.hidden_size
        if not self.project_input and I != H:
            raise ValueError(
                f"{type(self).__name__}: project_input=False adds x as it is, so input_size must "
                f"be hidden_size, got {I} and {H}"
            )

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> GatedParams:
        """Draws fresh parameters."""
        params = super().init(key, dtype)
        if self.project_input:
            return params
        return params._replace(W_x=jnp.delete(params.W_x, self.bare, axis=0))

    def matrices_of_x(self, params: GatedParams) -> Float[Array, "3 H I"]:
        """The W, with the identity in the place of the one that the paper does without."""
        k, W = self.bare, params.W_x
        if self.project_input:
            return W
        bare = jnp.eye(self.hidden_size, dtype=W.dtype)[None]
        return jnp.concatenate([W[:k], bare, W[k:]])


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class MUT1(_Bare):
    """Jozefowicz, Zaremba and Sutskever 2015 (ICML): the first of three mutated GRUs.

        z   = σ(W x_t + b)
        r   = σ(W x_t + b + U h_{t-1} + b_h)
        n   = tanh(tanh(W x_t) + U (r ⊙ h_{t-1}) + b + b_h)
        h_t = (1 − z) ⊙ h_{t-1} + z ⊙ n

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W in the order z, r, n; `params.W_h` the U of r, n.

    project_input: whether n has a W. The paper adds tanh(x_t) as it is, for which input and carry
        must be of one size: project_input=False.
    """

    gates_of_carry = (_RESET, _CANDIDATE)
    bare = 2

    def stages(self, params: GatedParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x, of h, and of r ⊙ h, with the candidate's b behind its inner tanh."""
        of_h, of_rh = two_maps(params.W_h, params.b_h, first=1)
        b = params.b
        if b is not None:
            of_rh = of_rh._replace(b=b[2:] if of_rh.b is None else b[2:] + of_rh.b)
            b = jnp.pad(b[:2], ((0, 1), (0, 0)))
        return Dense(self.matrices_of_x(params), b), (of_h, of_rh)

    def gate_values(
        self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map, of_rh: Map
    ) -> MUTGates:
        """The values of the two gates and the candidate."""
        x_z, x_r, x_n = from_x
        (r,) = of_h(carry.h, plus=(x_r,))
        r = jax.nn.sigmoid(r)
        (n,) = of_rh(r * carry.h, plus=(jnp.tanh(x_n),))
        return MUTGates(jax.nn.sigmoid(x_z), r, jnp.tanh(n))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class MUT2(_Bare):
    """Jozefowicz, Zaremba and Sutskever 2015 (ICML): the second of three mutated GRUs.

        z   = σ(W x_t + b + U h_{t-1} + b_h)
        r   = σ(x_t + b + U h_{t-1} + b_h)                project_input=False, as in the paper
        r   = σ(W x_t + b + U h_{t-1} + b_h)              project_input=True, the default
        n   = tanh(W x_t + b + U (r ⊙ h_{t-1}) + b_h)
        h_t = (1 − z) ⊙ h_{t-1} + z ⊙ n

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W, `params.W_h` the U, in the order z, r, n.

    project_input: whether r has a W. Without, input and carry must be of one size; with it, this
        is `GRU` in its default form, up to the order of the gates.
    """

    bare = 1

    def stages(self, params: GatedParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x, of h, and of r ⊙ h."""
        of_x = Dense(self.matrices_of_x(params), params.b)
        return of_x, two_maps(params.W_h, params.b_h, first=2)

    def gate_values(
        self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map, of_rh: Map
    ) -> MUTGates:
        """The values of the two gates and the candidate."""
        x_z, x_r, x_n = from_x
        z, r = map(jax.nn.sigmoid, of_h(carry.h, plus=(x_z, x_r)))
        (n,) = of_rh(r * carry.h, plus=(x_n,))
        return MUTGates(z, r, jnp.tanh(n))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class MUT3(_Mutated):
    """Jozefowicz, Zaremba and Sutskever 2015 (ICML): the third of three mutated GRUs.

        z   = σ(W x_t + b + U tanh(h_{t-1}) + b_h)
        r   = σ(W x_t + b + U h_{t-1} + b_h)
        n   = tanh(W x_t + b + U (r ⊙ h_{t-1}) + b_h)
        h_t = (1 − z) ⊙ h_{t-1} + z ⊙ n

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    `params.W_x` stacks the W, `params.W_h` the U, in the order z, r, n.
    """

    def stages(self, params: GatedParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x, of tanh(h), of h, and of r ⊙ h."""
        of_tanh, rest = two_maps(params.W_h, params.b_h, first=1)
        return Dense(params.W_x, params.b), (of_tanh, *two_maps(rest.W, rest.b, first=1))

    def gate_values(
        self, carry: CarryH, from_x: tuple[Array, ...], of_tanh: Map, of_h: Map, of_rh: Map
    ) -> MUTGates:
        """The values of the two gates and the candidate."""
        x_z, x_r, x_n = from_x
        (z,) = of_tanh(jnp.tanh(carry.h), plus=(x_z,))
        (r,) = of_h(carry.h, plus=(x_r,))
        z, r = jax.nn.sigmoid(z), jax.nn.sigmoid(r)
        (n,) = of_rh(r * carry.h, plus=(x_n,))
        return MUTGates(z, r, jnp.tanh(n))
