"""The quasi-recurrent network."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.affine import AffineElement, InputGated, InputGatedParams
from jaxrnn.cells.blocks import check_at_least, check_choice
from jaxrnn.initializers import Gate


class QRNNCarry(NamedTuple):
    """What the next step of a `QRNN` needs: its cell c, and the inputs before, oldest first."""

    c: Float[Array, " H"]
    inputs: Float[Array, "earlier I"]


class QRNNGates(NamedTuple):
    """Values of one step: f, o and i in (0, 1), or None; the candidate in (−1, 1)."""

    candidate: Float[Array, " H"]
    forget: Float[Array, " H"]
    output: Float[Array, " H"] | None
    input: Float[Array, " H"] | None


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class QRNN(InputGated):
    """Bradbury et al. 2017 (1611.01576): gates from a convolution over time, then pooling.

        z       = tanh(W [x_{t-k+1} … x_t] + b)
        f, o, i = σ(W [x_{t-k+1} … x_t] + b)           one W, b for each
        c_t     = f ⊙ c_{t-1} + (1 − f) ⊙ z            pooling="f" and "fo"
        c_t     = f ⊙ c_{t-1} + i ⊙ z                  pooling="ifo"
        y_t     = c_t                                  pooling="f"
        y_t     = o ⊙ c_t                              pooling="fo" and "ifo"

    x_t has shape (input_size,); c_t and the output y_t have (hidden_size,). The carry also holds
    the last k − 1 inputs, zeros before the first. `params.W_x` stacks the W in the order z, f, o, i
    as far as pooling needs them; each has k · input_size columns, oldest input first.
    Of width 1 the cell is diagonal and associative in time. Wider, it is neither, as a gate reads
    inputs that lie in the carry. The paper writes no bias; common code has one. That of Salesforce
    also swaps f and 1 − f, and stacks the newest input first.

    width: k, the steps that a gate sees.
    pooling: "f", "fo" or "ifo".
    biases: 0 for none, 1 for b.
    """

    width: int = 2
    pooling: str = "fo"

    gates_of_x = (
        Gate("candidate"),
        Gate("forget", keeps=+1),
        Gate("output"),
        Gate("input", writes=+1),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "width")
        check_choice(self, "pooling", ("f", "fo", "ifo"))

    @property
    def jacobian(self) -> str:
        """Diagonal if of width 1."""
        return "diagonal" if self.width == 1 else "dense"

    @property
    def element(self) -> Callable[..., AffineElement]:
        """element(params, x), of a cell of width 1: of any other, there is none."""
        if self.width > 1:
            raise AttributeError(
                f"a QRNN of width {self.width} is not associative in time: its gates read inputs "
                "that lie in the carry; QRNN(…, width=1) is"
            )
        return self._element

    def _element(self, params: InputGatedParams, x: Float[Array, " I"]) -> AffineElement:
        return self._pool(self._gates(params, x))

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> InputGatedParams:
        """Draws fresh parameters."""
        gates = self.gates_of_x[: 1 + len(self.pooling)]
        return InputGatedParams(*self.draw(gates, self.width * self.input_size, key, dtype))

    def initial_carry(self, params: InputGatedParams) -> QRNNCarry:
        """Zeros."""
        dtype = params.W_x.dtype
        return QRNNCarry(
            jnp.zeros(self.hidden_size, dtype), jnp.zeros((self.width - 1, self.input_size), dtype)
        )

    def apply(self, element: AffineElement, carry: QRNNCarry) -> QRNNCarry:
        """The carry after a stretch of steps, of a cell of width 1."""
        return carry._replace(c=element.a * carry.c + element.b)

    def gates(self, params: InputGatedParams, carry: QRNNCarry, x: Float[Array, " I"]) -> QRNNGates:
        """The values of the gates and the candidate in one step."""
        return self._gates(params, jnp.concatenate([carry.inputs.ravel(), x]))

    def _gates(self, params: InputGatedParams, window: Float[Array, " K"]) -> QRNNGates:
        z, *gates = self.of_x(params, window)
        gates = [jax.nn.sigmoid(gate) for gate in gates]
        return QRNNGates(jnp.tanh(z), *gates, *[None] * (3 - len(gates)))

    def _pool(self, gates: QRNNGates) -> AffineElement:
        enters = 1 - gates.forget if gates.input is None else gates.input
        return AffineElement(gates.forget, enters * gates.candidate)

    def step(
        self, params: InputGatedParams, carry: QRNNCarry, x: Float[Array, " I"]
    ) -> tuple[QRNNCarry, Float[Array, " H"]]:
        """One step for one example."""
        gates = self.gates(params, carry, x)
        c = self.apply(self._pool(gates), carry).c
        inputs = jnp.concatenate([carry.inputs, x[None]])[1:]
        return QRNNCarry(c, inputs), c if gates.output is None else gates.output * c
