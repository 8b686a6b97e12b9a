"""A complex recurrent network whose matrix is unitary, as a product of cheap unitary ones."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float

from jaxrnn.cells.affine import as_complex
from jaxrnn.cells.blocks import check_dtype, check_one_bias, check_sizes
from jaxrnn.initializers import Between, FanIn, Gate, Initializer, Zeros, draw_gates


class UnitaryParams(NamedTuple):
    """Parameters of a `UnitaryRNN`; an axis of two holds real and imaginary parts."""

    W_x: Float[Array, "2 H I"]
    angles: Float[Array, "3 H"]
    reflections: Float[Array, "2 2 H"]
    b: Float[Array, " H"] | None
    initial: Float[Array, "2 H"] | None


class UnitaryCarry(NamedTuple):
    """What the next step of a `UnitaryRNN` needs: h, complex."""

    h: Complex[Array, " H"]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class UnitaryRNN:
    """Arjovsky, Shah and Bengio 2016 (1511.06464): the unitary evolution network.

        a   = D_3 R_2 F⁻¹ D_2 Π R_1 F D_1 h_{t-1} + V x_t
        h_t = (|a| + b) a / |a|  where |a| + b ≥ 0, else 0
        y_t = (Re h_t, Im h_t)

    D = diag(e^{iθ}), R = I − 2 v v* / |v|², F the Fourier transform, Π a fixed permutation. x_t has
    shape (input_size,); h_t is complex, (hidden_size,); y_t, which the paper's readout reads, is
    real, (2 · hidden_size,). `params.angles` holds the θ of D_1, D_2, D_3, `params.reflections` the
    v of R_1, R_2, `params.W_x` V. The carry is complex64 unless params are float64.

    seed: what Π is drawn from.
    biases: 0 for none, which makes the network linear, 1 for b.
    learned_carry: whether h_0 is a parameter, as in the paper; it starts small and random.
    input_initializer, bias_initializer: for both parts of V, and for b.
    """

    input_size: int
    hidden_size: int
    _: dataclasses.KW_ONLY
    seed: int = 0
    biases: int = 1
    learned_carry: bool = False
    input_initializer: Initializer | tuple[Initializer, ...] = FanIn()
    bias_initializer: Initializer | tuple[Initializer, ...] = Zeros()

    def __post_init__(self) -> None:
        check_sizes(self)
        check_one_bias(self)

    @property
    def output_size(self) -> int:
        """Features of one output."""
        return 2 * self.hidden_size

    def init(self, key: Array, dtype: DTypeLike = jnp.float32) -> UnitaryParams:
        """Draws fresh parameters."""
        check_dtype(dtype)
        k_x, k_b, k_angles, k_reflections, k_h = jax.random.split(key, 5)
        H, parts = self.hidden_size, (Gate("real"), Gate("imaginary"))
        W_x = draw_gates(self.input_initializer, k_x, parts, (H, self.input_size), dtype)
        angles = Between(-math.pi, math.pi)(k_angles, (Gate("angle"),) * 3, (H,), dtype)
        reflections = Between(-1.0, 1.0)(k_reflections, parts, (2, H), dtype)
        b = None
        if self.biases:
            (b,) = draw_gates(self.bias_initializer, k_b, (Gate("modulus"),), (H,), dtype)
        bound = (1.5 / H) ** 0.5
        initial = Between(-bound, bound)(k_h, parts, (H,), dtype) if self.learned_carry else None
        return UnitaryParams(W_x, angles, reflections, b, initial)

    def initial_carry(self, params: UnitaryParams) -> UnitaryCarry:
        """Zeros, or `params.initial` if the carry is learned."""
        if params.initial is None:
            zeros = jnp.zeros(self.hidden_size, params.angles.dtype)
            return UnitaryCarry(as_complex(zeros, zeros))
        return UnitaryCarry(as_complex(*params.initial))

    def evolve(self, params: UnitaryParams, h: Complex[Array, " H"]) -> Complex[Array, " H"]:
        """The unitary matrix times h."""
        turn_1, turn_2, turn_3 = (as_complex(jnp.cos(a), jnp.sin(a)) for a in params.angles)
        v_1, v_2 = (as_complex(*v) for v in jnp.swapaxes(params.reflections, 0, 1))
        h = reflect(v_1, jnp.fft.fft(turn_1 * h))
        h = reflect(v_2, jnp.fft.ifft(turn_2 * h[self.permutation()]))
        return turn_3 * h

    def permutation(self) -> np.ndarray:
        """Π: entry i of Π h is entry permutation[i] of h."""
        # the legacy generator, because NumPy promises that its stream never changes
        return np.random.RandomState(self.seed).permutation(self.hidden_size)

    def step(
        self, params: UnitaryParams, carry: UnitaryCarry, x: Float[Array, " I"]
    ) -> tuple[UnitaryCarry, Float[Array, " outputs"]]:
        """One step for one example."""
        a = self.evolve(params, carry.h) + as_complex(*(W @ x for W in params.W_x))
        h = a if params.b is None else modrelu(a, params.b.astype(a.real.dtype))
        return UnitaryCarry(h), jnp.concatenate([h.real, h.imag]).astype(params.W_x.dtype)


def reflect(v: Complex[Array, " H"], h: Complex[Array, " H"]) -> Complex[Array, " H"]:
    """h mirrored at the plane that v is normal to."""
    return h - v * (2 * jnp.vdot(v, h) / jnp.vdot(v, v))


def modrelu(a: Complex[Array, " H"], b: Float[Array, " H"]) -> Complex[Array, " H"]:
    """b added to the modulus of a, and nothing left of a where that is negative."""
    modulus = jnp.abs(a)
    factor = jnp.where(modulus + b >= 0, 1 + b / jnp.where(modulus > 0, modulus, 1), 0)
    return jax.lax.complex(factor * a.real, factor * a.imag)
