"""What the tests of all converters share: runs of ours, compared with the libraries' answers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from oracles.framework_cases import B, I, T

TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


def run(network, params, xs) -> list:
    """Outputs, and the leaves of the final carry."""
    final, ys = jaxrnn.unroll(network, params, jnp.asarray(xs))
    return [np.asarray(part) for part in (ys, *jax.tree.leaves(final))]


def assert_same(got, want, dtype) -> None:
    """The same shapes, and numbers within what the dtype allows."""
    assert [part.shape for part in got] == [part.shape for part in want]
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE[dtype])


def h_before_c(answers) -> list:
    """Flax's LSTMs carry (c, h); ours (h, c)."""
    ys, *parts = answers
    return [ys, *reversed(parts)]


def random_params(network, dtype="float64", seed=0):
    """Params of the shapes of `init`, drawn from U(−0.8, 0.8)."""
    shapes = jax.eval_shape(functools.partial(network.init, dtype=dtype), jax.random.key(0))
    random = np.random.RandomState(seed)
    return jax.tree.map(lambda s: jnp.asarray(random.uniform(-0.8, 0.8, s.shape), dtype), shapes)


def inputs(dtype="float64", width=I):
    """xs, (B, T, I)."""
    return np.random.RandomState(3).uniform(-1.5, 1.5, (B, T, width)).astype(dtype)
