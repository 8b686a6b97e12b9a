"""Dense maps of vectors, as cells declare them and as XLA multiplies them fastest."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

# what an element-wise part calls: a `Dense`, or what a method puts in its place
Map = Callable[..., tuple[Array, ...]]


class Dense(NamedTuple):
    """v ↦ W v + b for every gate at once; called, it returns one array for each gate.

    W: one matrix for each gate. b: their biases; a shorter `b` belongs to the last gates.
    vectors: of the map of x alone: learned arrays that the element-wise part needs as they are,
        such as peepholes. They come behind the gates; what is added to a gate is a bias instead.
    """

    W: Float[Array, "gates H K"]
    b: Float[Array, "own H"] | None = None
    vectors: tuple[Array, ...] = ()

    def __call__(
        self, v: Float[Array, " K"], plus: tuple[Array | None, ...] | None = None
    ) -> tuple[Array, ...]:
        """W v + b + plus, gate by gate; `plus` has one array, or None, for each gate."""
        return add_gates(tuple(add_bias(self.W @ v, self.b)), plus) + self.vectors


def add_bias(sums: Float[Array, "gates H"], b: Float[Array, "own H"] | None) -> Array:
    """Adds b to the last gates, which it belongs to."""
    if b is None:
        return sums
    return sums + jnp.pad(b, ((len(sums) - len(b), 0), (0, 0)))


def add_gates(gates: tuple[Array, ...], plus: tuple[Array | None, ...] | None) -> tuple[Array, ...]:
    """gates + plus, where there is one."""
    if plus is None:
        return gates
    if len(plus) != len(gates):
        raise ValueError(f"got plus for {len(plus)} gates, expected {len(gates)}, one for each")
    return tuple(g if p is None else g + p for g, p in zip(gates, plus, strict=True))


def multiply(
    v: Float[Array, "*lead K"], W: Float[Array, "K N"], compute_dtype: Any = None
) -> Float[Array, "*lead N"]:
    """v W in one product over all leading axes, `vmap`'s among them; so is its gradient.

    The gradient of W comes as vᵀ δ, the smaller factor transposed, whatever surrounds it: left to
    itself, XLA on a CPU transposes the larger one and then runs at half the speed of the machine.

    compute_dtype: what both factors are rounded to first; sums stay in the dtype they came in.
    """
    how = _Precision(
        None if compute_dtype is None else jnp.dtype(compute_dtype).name,
        jax.config.jax_default_matmul_precision,  # pyright: ignore[reportAttributeAccessIssue]
    )
    return multiply_p.bind(v, W, how=how)


class _Precision(NamedTuple):
    """How a product is computed; read when it is traced, as JAX's own products are."""

    compute_dtype: str | None
    precision: str | None


def _product(v: Array, W: Array, dimensions: Any, how: _Precision) -> Array:
    wide = v.dtype
    if how.compute_dtype is not None:
        v, W = v.astype(how.compute_dtype), W.astype(how.compute_dtype)
    return jax.lax.dot_general(
        v, W, (dimensions, ((), ())), precision=how.precision, preferred_element_type=wide
    )


def _forward(v: Array, W: Array, *, how: _Precision) -> Array:
    return _product(v, W, ((v.ndim - 1,), (0,)), how)


def _jvp(primals: tuple, tangents: tuple, *, how: _Precision) -> tuple[Any, Any]:
    (v, W), (dv, dW) = primals, tangents
    terms = []
    if type(dv) is not ad.Zero:
        terms.append(multiply_p.bind(dv, W, how=how))
    if type(dW) is not ad.Zero:
        terms.append(multiply_p.bind(v, dW, how=how))
    return multiply_p.bind(v, W, how=how), sum(terms[1:], terms[0])


def _transpose(ct: Any, v: Any, W: Any, *, how: _Precision) -> tuple[Any, Any]:
    if type(ct) is ad.Zero:
        return None, None
    if ad.is_undefined_primal(v):
        return _product(ct, W, ((ct.ndim - 1,), (1,)), how), None
    lead = tuple(range(ct.ndim - 1))
    # the first barrier keeps XLA from transposing v long before it is needed, which takes memory
    v, ct = jax.lax.optimization_barrier((v, ct))
    # the barrier keeps XLA from merging a transposition behind it into the product
    return None, jax.lax.optimization_barrier(_product(v, ct, (lead, lead), how))


def _batch(arrays: tuple, axes: tuple, *, how: _Precision) -> tuple[Array, int]:
    (v, W), (of_v, of_W) = arrays, axes
    if of_W is not None:
        return jax.vmap(lambda v, W: _forward(v, W, how=how), (of_v, of_W))(v, W), 0
    if of_v == v.ndim - 1:
        v, of_v = jnp.moveaxis(v, of_v, 0), 0
    return multiply_p.bind(v, W, how=how), of_v


def _shape(v: Any, W: Any, *, how: _Precision) -> ShapedArray:
    return ShapedArray((*v.shape[:-1], W.shape[-1]), v.dtype)


multiply_p = Primitive("multiply")
multiply_p.def_impl(_forward)
multiply_p.def_abstract_eval(_shape)
mlir.register_lowering(multiply_p, mlir.lower_fun(_forward, multiple_results=False))
ad.primitive_jvps[multiply_p] = _jvp
ad.primitive_transposes[multiply_p] = _transpose
batching.primitive_batchers[multiply_p] = _batch
