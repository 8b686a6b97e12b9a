"""Long short-term memory whose matrices are convolutions, over one, two or three dimensions."""

import dataclasses
import math
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.cells.blocks import check_choice, check_dtype
from jaxrnn.initializers import FanIn, Gate, Initializer, Zeros, draw_gates


class ConvLSTMParams(NamedTuple):
    """Parameters of a `ConvLSTM`, gates in the order input, forget, candidate, output.

    W_p: the peepholes of input, forget and output gate, one number for each place and feature.
    """

    W_x: Float[Array, "4 *kernel C F"]
    W_h: Float[Array, "4 *kernel F F"]
    b: Float[Array, "4 F"] | None
    W_p: Float[Array, "3 *places F"] | None
    initial: "ConvLSTMCarry | None"


class ConvLSTMCarry(NamedTuple):
    """What the next step of a `ConvLSTM` needs: its output h and its cell state c, both images."""

    h: Float[Array, "*places F"]
    c: Float[Array, "*places F"]


class ConvLSTMGates(NamedTuple):
    """Gate values of one step: i, f and o in (0, 1), the candidate in (−1, 1)."""

    input: Float[Array, "*places F"]
    forget: Float[Array, "*places F"]
    candidate: Float[Array, "*places F"]
    output: Float[Array, "*places F"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ConvLSTM:
    """Shi et al. 2015 (1506.04214): the LSTM with peepholes, its matrices made convolutions (∗).

        i, f = σ(W ∗ x_t + U ∗ h_{t-1} + p ⊙ c_{t-1} + b)     one W, U, p, b for each gate
        g    = tanh(W ∗ x_t + U ∗ h_{t-1} + b)
        c_t  = f ⊙ c_{t-1} + i ⊙ g
        o    = σ(W ∗ x_t + U ∗ h_{t-1} + p ⊙ c_t + b)
        h_t  = o ⊙ tanh(c_t)

    x_t has the shape `input_shape`, (*space, channels); h_t, which is also the output, and c_t have
    `output_shape`, (*space, features). `params.W_x` stacks the W, `params.W_h` the U, as
    (*kernel, channels, features), in the order i, f, g, o; `params.W_p` the p in the order i, f, o.
    ∗ is the cross-correlation that all libraries call convolution; beyond its edge an image is 0.

    input_shape: one, two or three axes of space, then channels; fixed, as the peepholes are.
    kernel_shape: of W, one number for each axis of space.
    recurrent_kernel_shape: of U; that of W by default. A larger one follows faster motion.
    peepholes: whether there are p; without them this is the form of all libraries.
    strides, padding: of W ∗ x_t alone; "same" or "valid".
    biases: 0 or 1.
    learned_carry: whether h_0 and c_0 are parameters, `params.initial`, which start at zero.
    input_initializer, recurrent_initializer: for W and U, given each gate's kernel as a matrix
        (features, numbers that one output reads); bias_initializer: for b. p starts at zero.

    Equal to: Keras `ConvLSTM1D`, `2D`, `3D`, Flax linen `ConvLSTMCell` and Haiku `Conv1DLSTM`,
    `2D`, `3D`, all with peepholes=False. Keras orders i, f, g, o, the other two i, g, f, o, and
    they add 1 to b of f at each step.
    """

    input_shape: tuple[int, ...]
    features: int
    kernel_shape: tuple[int, ...]
    recurrent_kernel_shape: tuple[int, ...] | None = None
    peepholes: bool = True
    strides: tuple[int, ...] | None = None
    padding: str = "same"
    _: dataclasses.KW_ONLY
    biases: int = 1
    learned_carry: bool = False
    input_initializer: Initializer | tuple[Initializer, ...] = FanIn()
    recurrent_initializer: Initializer | tuple[Initializer, ...] = FanIn()
    bias_initializer: Initializer | tuple[Initializer, ...] = Zeros()

    def __post_init__(self) -> None:
        rank = len(self.input_shape) - 1 if _whole(self.input_shape) else 0
        if rank not in (1, 2, 3):
            raise ValueError(
                "ConvLSTM: input_shape must be one to three axes of space and the channels, "
                f"ints of at least 1, got {self.input_shape!r}"
            )
        for field in ("kernel_shape", "recurrent_kernel_shape", "strides"):
            value = getattr(self, field)
            if value is None and field != "kernel_shape":
                continue
            if not _whole(value) or len(value) != rank:
                raise ValueError(
                    f"ConvLSTM: {field} must have one int of at least 1 for each of the {rank} "
                    f"axes of space, got {value!r}"
                )
        if not _whole((self.features,)):
            raise ValueError(
                f"ConvLSTM: features must be an int of at least 1, got {self.features!r}"
            )
        if self.biases not in (0, 1):
            raise ValueError(f"ConvLSTM: biases must be 0 or 1, got {self.biases!r}")
        check_choice(self, "padding", ("same", "valid"))
        if not _whole(self.output_shape):
            raise ValueError(
                f"ConvLSTM: a kernel of {self.kernel_shape!r} does not fit into an image of "
                f"{self.input_shape[:-1]!r}: pass padding='same'"
            )

    @property
    def input_rank(self) -> int:
        """Trailing axes of one moment: those of space, and the channels."""
        return len(self.input_shape)

    @property
    def input_size(self) -> int:
        """Channels of one input."""
        return self.input_shape[-1]

    @property
    def output_size(self) -> int:
        """Features of one output, at each place."""
        return self.features

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one output."""
        space, steps = self.input_shape[:-1], self._strides()
        cut = self.kernel_shape if self.padding == "valid" else (1,) * len(space)
        places = (-((k - 1 - n) // s) for n, k, s in zip(space, cut, steps, strict=True))
        return (*places, self.features)

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> ConvLSTMParams:
        """Draws fresh parameters."""
        check_dtype(dtype)
        k_x, k_h, k_b = jax.random.split(key, 3)
        gates = (Gate("input", writes=+1), Gate("forget", keeps=+1))
        gates = (*gates, Gate("candidate"), Gate("output"))
        F = self.features

        def kernels(initializer, k, shape, C):
            flat = draw_gates(initializer, k, gates, (F, math.prod(shape) * C), dtype)
            return jnp.moveaxis(flat.reshape(4, F, *shape, C), 1, -1)

        W_x = kernels(self.input_initializer, k_x, self.kernel_shape, self.input_size)
        W_h = kernels(self.recurrent_initializer, k_h, self._recurrent_kernel(), F)
        b = draw_gates(self.bias_initializer, k_b, gates, (F,), dtype) if self.biases else None
        W_p = jnp.zeros((3, *self.output_shape), dtype) if self.peepholes else None
        initial = self._zeros(dtype) if self.learned_carry else None
        return ConvLSTMParams(W_x, W_h, b, W_p, initial)

    def initial_carry(self, params: ConvLSTMParams) -> ConvLSTMCarry:
        """Zeros, or `params.initial` if the carry is learned."""
        return self._zeros(params.W_h.dtype) if params.initial is None else params.initial

    def step(
        self, params: ConvLSTMParams, carry: ConvLSTMCarry, x: Float[Array, "*space C"]
    ) -> tuple[ConvLSTMCarry, Float[Array, "*places F"]]:
        """One step for one example."""
        gates = self.gates(params, carry, x)
        c = gates.forget * carry.c + gates.input * gates.candidate
        h = gates.output * jnp.tanh(c)
        return ConvLSTMCarry(h, c), h

    def gates(
        self, params: ConvLSTMParams, carry: ConvLSTMCarry, x: Float[Array, "*space C"]
    ) -> ConvLSTMGates:
        """The values of the three gates and the candidate."""
        from_x = _convolve(x, params.W_x, self._strides(), self.padding)
        from_h = _convolve(carry.h, params.W_h, (1,) * (x.ndim - 1), "same")
        a = from_x + from_h if params.b is None else from_x + from_h + params.b
        a_i, a_f, a_g, a_o = jnp.moveaxis(a, -2, 0)
        p = params.W_p
        if p is not None:
            a_i, a_f = a_i + p[0] * carry.c, a_f + p[1] * carry.c
        i, f, g = jax.nn.sigmoid(a_i), jax.nn.sigmoid(a_f), jnp.tanh(a_g)
        if p is not None:
            a_o = a_o + p[2] * (f * carry.c + i * g)
        return ConvLSTMGates(i, f, g, jax.nn.sigmoid(a_o))

    def _zeros(self, dtype: DTypeLike) -> ConvLSTMCarry:
        zeros = jnp.zeros(self.output_shape, dtype)
        return ConvLSTMCarry(zeros, zeros)

    def _strides(self) -> tuple[int, ...]:
        return (1,) * (len(self.input_shape) - 1) if self.strides is None else self.strides

    def _recurrent_kernel(self) -> tuple[int, ...]:
        shape = self.recurrent_kernel_shape
        return self.kernel_shape if shape is None else shape


def _whole(sizes: Any) -> TypeGuard[tuple[int, ...]]:
    return isinstance(sizes, tuple) and all(
        isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in sizes
    )


def _convolve(
    image: Float[Array, "*space C"],
    kernels: Float[Array, "gates *kernel C F"],
    strides: tuple[int, ...],
    padding: str,
) -> Float[Array, "*places gates F"]:
    """All gates in one convolution."""
    gates, *kernel, C, F = kernels.shape
    letters = "DHW"[-len(kernel) :]
    out = jax.lax.conv_general_dilated(
        image[None],
        jnp.moveaxis(kernels, 0, -2).reshape(*kernel, C, gates * F),
        strides,
        padding.upper(),
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
    )
    return out[0].reshape(*out.shape[1:-1], gates, F)
