"""`Staged` beyond the laws: what it declares, what it keeps, and where it gives way."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_close
from rows import problem

from jaxrnn import GRU, LSTM, Elman, Loop, Scan, Staged, unroll
from jaxrnn.cell import staged_step
from jaxrnn.dense import Dense, multiply
from jaxrnn.methods import choose

T = 5


class TwoCarry(NamedTuple):
    a: jax.Array
    b: jax.Array


@dataclasses.dataclass(frozen=True)
class Two:
    """A user's cell: a gate of x read twice, one added after it was changed, one not added."""

    order: tuple[int, ...] = (0, 1)

    def init(self, key, dtype=jnp.float32):
        draw = jax.random.normal
        return {
            "V": draw(key, (3, 4, 3), dtype),
            "U": draw(key, (2, 4, 4), dtype),
            "P": draw(key, (1, 4, 4), dtype),
            "bias": draw(key, (1, 4), dtype),
        }

    def initial_carry(self, params):
        return TwoCarry(jnp.zeros(4, params["V"].dtype), jnp.ones(4, params["V"].dtype))

    def stages(self, params):
        return Dense(params["V"]), (Dense(params["U"], params["bias"]), Dense(params["P"]))

    def elementwise(self, carry, from_x, *of_carry):
        first, second = (of_carry[k] for k in self.order)
        p, q = first(jnp.sin(carry.a) * carry.b, plus=(2 * from_x[0], from_x[1]))
        (r,) = second(jnp.tanh(p), plus=None)
        a = jnp.tanh(q + from_x[1] * r)
        return TwoCarry(a, 0.5 * carry.b + from_x[2]), a * p

    def step(self, params, carry, x):
        return staged_step(self, params, carry, x)


def number(cell, params, xs, method, **options):
    carry, ys = unroll(cell, params, xs, method=method, **options)
    return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves((carry, ys)))


@pytest.mark.parametrize("ahead", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_users_declaration_gives_the_derivatives_of_the_loop(ahead):
    params, xs, _ = problem(Two(), (2, T), scale=0.3)
    resets = jnp.arange(T) == jnp.array([[2], [3]])

    def all_of_them(method):
        def f(params, xs):
            options = dict(lengths=[4, 5], resets=resets, reverse=True)
            return number(Two(), params, xs, method, **options)

        def along(params, xs):
            return jax.jvp(f, (params, xs), (params, xs))

        return jax.grad(f, (0, 1))(params, xs), along(params, xs), jax.hessian(f)(params, xs)

    assert_close(all_of_them(Staged(ahead=ahead)), all_of_them(Loop()), 1e-11)


def test_maps_out_of_order_or_left_out_are_named():
    params, xs, _ = problem(Two(), (T,))
    with pytest.raises(ValueError, match="got plus for 2 gates, expected 1"):
        unroll(Two((1, 0)), params, xs, method=Staged())

    class Twice(Two):
        def elementwise(self, carry, from_x, *of_carry):
            of_carry[0](carry.a)
            of_carry[0](carry.a)
            return carry, carry.a

    with pytest.raises(ValueError, match="out of order or more than once: call each once"):
        unroll(Twice(), params, xs, method=Staged())

    class Lazy(Two):
        def elementwise(self, carry, from_x, *of_carry):
            of_carry[0](carry.a)
            return carry, carry.a

    with pytest.raises(ValueError, match=r"called 1 of the 2 maps .* call each once"):
        unroll(Lazy(), params, xs, method=Staged())


@pytest.mark.parametrize("method", [Staged(), Staged(block=2), Scan(checkpoint=2)], ids=str)
def test_a_cell_that_closes_over_a_traced_array_is_differentiated_by_it_too(method):
    xs = problem(Elman(3, 4), (2, T)).xs

    def f(slope, method):
        cell = Elman(3, 4, lambda a: jnp.tanh(slope * a))
        return number(cell, problem(Elman(3, 4), (2, T)).params, xs, method)

    got = jax.value_and_grad(f)(jnp.asarray(0.7), method)
    assert_close(got, jax.value_and_grad(f)(jnp.asarray(0.7), Loop()))
    assert got[1] != 0


def carried_by_scans(jaxpr):
    """Shapes of all that scans hand on from step to step, at any depth."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            first = equation.params["num_consts"]
            last = first + equation.params["num_carry"]
            yield from (v.aval.shape for v in equation.invars[first:last])
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from carried_by_scans(inner)


def test_no_weight_gradient_is_added_up_step_by_step():
    params, xs, _ = problem(LSTM(3, 4), (2, T))

    def shapes(method):
        gradient = jax.grad(lambda p: number(LSTM(3, 4), p, xs, method))
        return set(carried_by_scans(jax.make_jaxpr(gradient)(params).jaxpr))

    assert params.W_h.shape in shapes(Scan())  # else the search proves nothing
    assert all(len(shape) <= 2 and max(shape) <= 4 for shape in shapes(Staged()))


@pytest.mark.parametrize(
    "cell",
    [LSTM(3, 8), *(pytest.param(c(3, 8), marks=pytest.mark.long) for c in (GRU, Elman))],
    ids=lambda c: type(c).__name__,
)
def test_mixed_precision_rounds_the_factors_and_nothing_else(cell):
    params, xs, _ = problem(cell, (4, 20), dtype=jnp.float32)
    half = Staged(compute_dtype=jnp.bfloat16)
    assert half == Staged(compute_dtype="bfloat16")

    def run(method):
        return jax.value_and_grad(lambda p, xs: number(cell, p, xs, method), (0, 1))(params, xs)

    got, want = run(half), run(Staged())
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == jnp.float32
        distance = np.abs(a - b).max() / np.abs(b).max()
        # bfloat16 has 8 bits: 2⁻⁹ for each rounding, some tens of them, and not none
        assert 1e-5 < distance < 0.05
    carry, _ = unroll(cell, params, xs, method=half)
    assert all(leaf.dtype == jnp.float32 for leaf in carry)


@pytest.mark.long
def test_an_ensemble_of_params_has_the_gradients_of_its_members():
    cell = GRU(3, 4)
    members = [problem(cell, (2, T), seed) for seed in range(3)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(m.params for m in members))
    gradient = jax.grad(lambda p: number(cell, p, members[0].xs, Staged()))
    each = [gradient(m.params) for m in members]
    assert_close(jax.vmap(gradient)(together), jax.tree.map(lambda *a: jnp.stack(a), *each))


@pytest.mark.long
def test_the_product_has_every_derivative_and_batches_on_either_side():
    random = np.random.default_rng(0)
    v, W = (jnp.asarray(random.standard_normal(shape)) for shape in ((2, 3, 4), (4, 5)))

    def plain(v, W):
        return jnp.sum(jnp.sin(v @ W))

    def ours(v, W):
        return jnp.sum(jnp.sin(multiply(v, W)))

    assert_close(jax.grad(ours, (0, 1))(v, W), jax.grad(plain, (0, 1))(v, W))
    assert_close(jax.hessian(ours, (0, 1))(v, W), jax.hessian(plain, (0, 1))(v, W))
    for axes in ((0, None), (1, None), (2, None), (None, 0), (None, 1)):
        v_, W_ = v, W
        if axes[0] == 2:
            v_, W_ = v, jnp.ones((3, 2))
        elif axes[1] is not None:
            W_ = jnp.stack([W, 2 * W, 3 * W], axis=axes[1])
        got = jax.vmap(multiply, axes)(v_, W_)
        assert_close(got, jax.vmap(jnp.matmul, axes)(v_, W_))


def chosen(cell, batch, steps=128):
    return choose(cell, jax.eval_shape(cell.init, jax.random.key(0)), (batch,), steps)


needs_cpu = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="what is chosen for a CPU, by measurements on one"
)


@needs_cpu
def test_the_default_method_looks_ahead_as_long_as_it_fits_into_the_cache():
    assert chosen(LSTM(64, 64), 1).ahead and chosen(Elman(256, 256), 64).ahead
    assert not chosen(LSTM(64, 64), 1000).ahead


@needs_cpu
def test_the_default_method_goes_in_blocks_where_memory_counts_and_time_does_not():
    for cell in (LSTM(256, 256), GRU(256, 256), Elman(256, 256)):
        assert chosen(cell, 64).block == 16
        assert chosen(cell, 1).block is None  # little to save
    assert chosen(LSTM(128, 512), 16, 256).block is None  # a block would not stay in the cache


@needs_cpu
def test_the_default_method_fills_cores_that_one_product_leaves_idle():
    assert chosen(GRU(256, 256, reset="after"), 64).unroll == 2  # 768 columns in tiles of 256
    assert chosen(GRU(256, 256), 64).unroll == chosen(LSTM(256, 256), 64).unroll == 1


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class VectorAsBias(Elman):
    """Adds a learned vector to what its map gives, where a bias is asked for."""

    def stages(self, params):
        of_x, of_carry = super().stages(params)
        return of_x._replace(vectors=(params.b,)), of_carry

    def elementwise(self, carry, from_x, of_h):
        _, vector = from_x
        (a,) = of_h(carry.h, plus=(vector,))
        return type(carry)(a), a


def test_a_vector_that_is_a_bias_is_told_so():
    cell = VectorAsBias(3, 4)
    params = cell.init(jax.random.key(0), jnp.float64)
    with pytest.raises(ValueError, match="declare that one as the bias of the map"):
        unroll(cell, params, jnp.ones((5, 3)))
