"""The linear recurrent network, with a dense matrix."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.affine import AssociativeStep
from jaxrnn.cells.blocks import check_one_bias, check_sizes, draw_blocks
from jaxrnn.cells.gated import CarryH
from jaxrnn.initializers import Gate, Initializer, Uniform, Zeros


class LinearRNNParams(NamedTuple):
    """Parameters of a `LinearRNN`."""

    W_x: Float[Array, "H I"]
    W_h: Float[Array, "H H"]
    b: Float[Array, " H"] | None


class LinearRNNElement(NamedTuple):
    """What a stretch of steps does to h: h ← A h + b."""

    A: Float[Array, "H H"]
    b: Float[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class LinearRNN(AssociativeStep):
    """Linear dynamical system, as in Saxe, McClelland and Ganguli 2014 (1312.6120): no φ at all.

        h_t = W_h h_{t-1} + W_x x_t + b

    x_t has shape (input_size,); h_t, which is also the output, (hidden_size,).
    The same function as `Elman(activation="identity")`, which runs faster step by step; this one
    says that it is associative, at the price of one product of matrices for each combination.

    biases: 0 for none, 1 for b.
    input_initializer, recurrent_initializer, bias_initializer: for W_x, W_h and b.
    """

    input_size: int
    hidden_size: int
    _: dataclasses.KW_ONLY
    biases: int = 1
    input_initializer: Initializer = Uniform()
    recurrent_initializer: Initializer = Uniform()
    bias_initializer: Initializer = Zeros()

    def __post_init__(self) -> None:
        check_sizes(self)
        check_one_bias(self)

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return self.hidden_size

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> LinearRNNParams:
        """Draws fresh parameters."""
        blocks = draw_blocks(self, (Gate("candidate"),), key, dtype)
        W_x, W_h, b = jax.tree.map(lambda a: a[0], blocks[:3])
        return LinearRNNParams(W_x, W_h, b)

    def initial_carry(self, params: LinearRNNParams) -> CarryH:
        """Zeros."""
        return CarryH(jnp.zeros(self.hidden_size, params.W_h.dtype))

    def element(self, params: LinearRNNParams, x: Float[Array, " I"]) -> LinearRNNElement:
        """One step, as what it does to h."""
        b = params.W_x @ x
        return LinearRNNElement(params.W_h, b if params.b is None else b + params.b)

    def combine(self, older: LinearRNNElement, newer: LinearRNNElement) -> LinearRNNElement:
        """First one stretch, then the next."""
        return LinearRNNElement(newer.A @ older.A, newer.A @ older.b + newer.b)

    def apply(self, element: LinearRNNElement, carry: CarryH) -> CarryH:
        """The carry after a stretch of steps."""
        return CarryH(element.A @ carry.h + element.b)

    def output(
        self, params: LinearRNNParams, carry: CarryH, x: Float[Array, " I"]
    ) -> Float[Array, " H"]:
        """h_t."""
        return carry.h
