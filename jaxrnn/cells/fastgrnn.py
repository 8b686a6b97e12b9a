"""A gated cell with the matrices of a plain one: gate and candidate share them."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_dtype, check_one_bias
from jaxrnn.cells.gated import CarryH, Gated
from jaxrnn.dense import Dense, Map
from jaxrnn.initializers import Gate, draw_gates


class FastGRNNParams(NamedTuple):
    """Parameters of a `FastGRNN`: one W and U, biases in the order z, n, and two logits."""

    W_x: Float[Array, "1 H I"]
    W_h: Float[Array, "1 H H"]
    b: Float[Array, "2 H"] | None
    initial: CarryH | None
    zeta: Float[Array, ""]
    nu: Float[Array, ""]


class FastGRNNGates(NamedTuple):
    """Gate values of one step: z in (0, 1), the candidate in (−1, 1)."""

    update: Float[Array, " H"]
    candidate: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class FastGRNN(Gated):
    """Kusupati et al. 2018 (1901.02358): a gate and a candidate with the same W and U.

        a   = W x_t + U h_{t-1}
        z   = σ(a + b_z)
        n   = tanh(a + b_n)
        h_t = (σ(ζ) (1 − z) + σ(ν)) ⊙ n + z ⊙ h_{t-1}

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    ζ and ν are learned numbers; they start at 1 and −4, as in the authors' EdgeML. The paper's
    low-rank and sparse W, U are not built.

    biases: 0 for none, 1 for b_z and b_n.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_bias(self)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> FastGRNNParams:
        """Draws fresh parameters."""
        check_dtype(dtype)
        k_x, k_h, k_b = jax.random.split(key, 3)
        H, shared = self.hidden_size, (Gate("shared"),)
        W_x = draw_gates(self.input_initializer, k_x, shared, (H, self.input_size), dtype)
        W_h = draw_gates(self.recurrent_initializer, k_h, shared, (H, H), dtype)
        gates = (Gate("update", keeps=+1), Gate("candidate"))
        b = draw_gates(self.bias_initializer, k_b, gates, (H,), dtype) if self.biases else None
        zeta, nu = jnp.asarray(1.0, dtype), jnp.asarray(-4.0, dtype)
        return FastGRNNParams(W_x, W_h, b, self.learned(dtype), zeta, nu)

    def stages(self, params: FastGRNNParams) -> tuple[Dense, tuple[Dense, ...]]:
        """The dense maps of x, with all that is learned beside them, and of h."""
        biases = () if params.b is None else (params.b[0], params.b[1])
        return Dense(params.W_x, None, (params.zeta, params.nu, *biases)), (Dense(params.W_h),)

    def gate_values(self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map) -> FastGRNNGates:
        """The values of the gate and the candidate."""
        x, _, _, *biases = from_x
        (a,) = of_h(carry.h, plus=(x,))
        b_z, b_n = biases or (0.0, 0.0)
        return FastGRNNGates(jax.nn.sigmoid(a + b_z), jnp.tanh(a + b_n))

    def elementwise(
        self, carry: CarryH, from_x: tuple[Array, ...], of_h: Map
    ) -> tuple[CarryH, Float[Array, " H"]]:
        """The step between the dense maps."""
        _, zeta, nu, *_ = from_x
        z, n = self.gate_values(carry, from_x, of_h)
        h = (jax.nn.sigmoid(zeta) * (1 - z) + jax.nn.sigmoid(nu)) * n + z * carry.h
        return CarryH(h), h
