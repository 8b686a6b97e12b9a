"""What a method promises beyond the numbers: memory, and compile time."""

import jax
import jax.numpy as jnp
import pytest

import jaxrnn


def _temporary_bytes(steps, method):
    cell = jaxrnn.LSTM(4, 64)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), dtype=jnp.float32))
    xs = jax.ShapeDtypeStruct((8, steps, 4), jnp.float32)

    def loss(params, xs):
        return jnp.sum(jaxrnn.unroll(cell, params, xs, method=method)[0].h)

    compiled = jax.jit(jax.grad(loss)).lower(params, xs).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.long
def test_checkpoint_takes_memory_of_the_order_of_the_root_of_t():
    # sixteen times the steps: four times what is kept, plus xs and its gradient, laid out anew
    plain = [_temporary_bytes(steps, jaxrnn.Scan()) for steps in (256, 4096)]
    root = [_temporary_bytes(steps, jaxrnn.Scan(checkpoint=True)) for steps in (256, 4096)]
    assert plain[1] > 14 * plain[0]
    assert root[1] < 8 * root[0]
    assert root[1] < plain[1] / 10
    staged = jaxrnn.Staged(checkpoint=True)
    assert _temporary_bytes(4096, staged) < 8 * _temporary_bytes(256, staged)


def test_blocks_take_less_memory_than_all_steps_at_once():
    steps = 256
    assert _temporary_bytes(steps, jaxrnn.Staged(block=16)) < 0.8 * _temporary_bytes(
        steps, jaxrnn.Staged()
    )


@pytest.mark.long
@pytest.mark.parametrize("method", [jaxrnn.Scan(checkpoint=True), jaxrnn.Staged(checkpoint=True)])
def test_a_hundred_thousand_steps_fit_into_two_gibibytes_with_checkpoints(method):
    cell = jaxrnn.LSTM(128, 128)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), dtype=jnp.float32))
    xs = jax.ShapeDtypeStruct((8, 100_000, 128), jnp.float32)

    def loss(params, xs, method):
        return jnp.mean(jnp.square(jaxrnn.unroll(cell, params, xs, method=method)[1]))

    def bytes_of(method):
        gradient = jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)
        memory = gradient.lower(params, xs, method).compile().memory_analysis()
        return (
            memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
        )

    assert bytes_of(method) <= 2 * 2**30 < bytes_of(jaxrnn.Scan())


def test_without_a_derivative_there_are_no_segments():
    cell = jaxrnn.LSTM(4, 8)
    params, xs = cell.init(jax.random.key(0)), jnp.ones((2, 100, 4), jnp.float32)

    def loops(method):
        run = jax.jit(lambda p: jaxrnn.unroll(cell, p, xs, method=method)[1])
        return run.lower(params).as_text().count("stablehlo.while")

    methods = (jaxrnn.Scan(), jaxrnn.Scan(checkpoint=True), jaxrnn.Staged(block=10))
    assert [loops(method) for method in methods] == [1, 1, 1]


def test_the_program_does_not_grow_with_t():
    cell = jaxrnn.GRU(3, 4)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), dtype=jnp.float32))
    sizes = []
    for steps in (100, 10_000):
        xs = jax.ShapeDtypeStruct((steps, 3), jnp.float32)
        lowered = jax.jit(lambda p, x: jaxrnn.unroll(cell, p, x)).lower(params, xs)
        sizes.append(len(lowered.as_text()))
    assert sizes[1] < 1.1 * sizes[0]
