"""Every analysis that takes a cell, in one call each: a new analysis is a new row."""

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import analysis

KEY = jax.random.key(5)


def without(record, *names):
    """The fields of a record that can be compared, by their names."""
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    return {name: value for name, value in fields.items() if name not in names}


class Row(NamedTuple):
    """How an analysis is called, `call(cell, params, xs, **options)`, and what it asks of a cell.

    asks: what it says to a cell that has none of the declarations it lives on; None if the three
        methods of a cell are enough.
    options: whether it takes the keyword options of `jaxrnn.unroll`.
    """

    call: Callable[..., Any]
    asks: str | None = None
    options: bool = True


def layers(cell, params, xs, **options):
    """A stack as it is, any other cell as a stack of one."""
    if not isinstance(cell, jaxrnn.Stack):
        cell, params = jaxrnn.Stack((cell,)), (params,)
    return analysis.layer_decay(cell, params, xs, **options)


def probes(cell, params, xs, **options):
    # as many as there are directions: each row of a batch draws its own, and all are exact
    return analysis.gradient_probes(cell, params, xs, KEY, probes=4, **options)


def loss(ys):
    return jnp.sum(jnp.sin(ys[-1])) + jnp.sum(ys[1] ** 2)


def loss_gradients(cell, params, xs, **options):
    return analysis.loss_gradient_decay(cell, params, xs, loss, **options)


def forgetting(cell, params, xs, **options):
    return analysis.forgetting_curve(cell, params, xs, xs.at[..., 1, :].add(1.0), **options)


def capacity(cell, params, xs):
    return analysis.memory_capacity(cell, params, lags=3, steps=40, burn_in=5, key=KEY)


def first_moment(xs):
    return xs.reshape(-1, xs.shape[-1])[0]


def some_carries(cell, params, count=3):
    """Away from the initial one, and from each other."""
    numbers = np.random.default_rng(0)

    def draw(leaf):
        return jnp.asarray(0.5 * numbers.standard_normal((count, *leaf.shape)), leaf.dtype)

    return jax.tree.map(draw, cell.initial_carry(params))


def linearize(cell, params, xs):
    return analysis.linearize(cell, params, some_carries(cell, params), first_moment(xs))


def keep(cell, params, xs):
    carry = jax.tree.map(lambda a: a[0], some_carries(cell, params))
    return analysis.keep(cell, params, carry, first_moment(xs))


def fixed_points(cell, params, xs):
    carries = some_carries(cell, params)
    options = dict(candidates=carries, steps=20, newton_steps=30)
    return analysis.fixed_points(cell, params, first_moment(xs), **options)


def minimize_speed(cell, params, xs):
    carries = some_carries(cell, params)
    options = dict(steps=20, newton_steps=30)
    found = analysis.minimize_speed(cell, params, first_moment(xs), carries, **options)
    return without(found, "slopes")  # at q = 0, the direction of a rounding error


def scale_matrices(params, gain):
    """Square matrices, and what stacks them, are those of the carry: xs have another width."""

    def one(leaf):
        square = leaf.ndim >= 2 and (
            leaf.shape[-1] == leaf.shape[-2] or leaf.shape[-2] == 3 * leaf.shape[-1]
        )
        return leaf * jnp.asarray(gain, leaf.dtype) if square else leaf

    return jax.tree.map(one, params)


def edge(cell, params, xs, **options):
    options = dict(scale=scale_matrices, tried=3, halvings=3, highest=2.0, **options)
    found = analysis.edge_of_chaos(cell, params, xs, **options)
    return without(found, "params")  # each library lays out its own


def monitored(cell, params, xs, **options):
    """What a monitor knows after the first update, by a gradient of zeros."""
    single = xs.ndim == 2
    xs, options = jax.tree.map(lambda a: a[None] if single else a, (xs, options))
    link = analysis.monitor(cell, every=2, exponents=2)
    zeros = jax.tree.map(jnp.zeros_like, params)
    found = link.update(zeros, link.init(params), params, xs=xs, **options)[1]
    return without(found, "time_constant")  # NaN, where no gate is known to keep


def critical_gain(cell, params, xs):
    return analysis.theory.critical_gain(cell)


NO_GATES = r"{} shows no gates: its step must call self\.gates\(params, carry, x\)"
ROWS = {
    "step_jacobians": Row(analysis.step_jacobians),
    "gradient_decay": Row(partial(analysis.gradient_decay, spectral="none", singular_values=2)),
    "gradient_map": Row(partial(analysis.gradient_map, ends=2)),
    "gradient_probes": Row(probes),
    "layer_decay": Row(layers),
    "loss_gradient_decay": Row(loss_gradients),
    "input_decay": Row(analysis.input_decay),
    "gradient_paths": Row(analysis.gradient_paths, NO_GATES),
    "path_jacobians": Row(analysis.path_jacobians, NO_GATES),
    "lyapunov_spectrum": Row(partial(analysis.lyapunov_spectrum, burn_in=1)),
    "covariant_vectors": Row(partial(analysis.covariant_vectors, burn_in=1, settle=0)),
    "parallel_outlook": Row(analysis.parallel_outlook),
    "memory_capacity": Row(capacity, options=False),
    "fisher_memory": Row(analysis.fisher_memory),
    "forgetting_curve": Row(forgetting),
    "time_constants": Row(analysis.time_constants, "{} has no keep gate: give it a method keep"),
    "keep": Row(keep, "None", options=False),
    "linearize": Row(linearize, options=False),
    "fixed_points": Row(fixed_points, options=False),
    "minimize_speed": Row(minimize_speed, options=False),
    "edge_of_chaos": Row(edge),
    "monitor": Row(monitored),
    "theory.critical_gain": Row(critical_gain, "no closed form for .*{}", options=False),
    "theory.determinant_split": Row(
        analysis.theory.determinant_split, "which {} does not have: pass an Elman"
    ),
}


def analyses_of_cells():
    """The public functions of the microscope whose first argument is a cell."""
    names = {}
    for prefix, module in (("", analysis), ("theory.", analysis.theory)):
        for name, value in vars(module).items():
            own = getattr(value, "__module__", "").startswith(module.__name__)
            if inspect.isfunction(value) and own and not name.startswith("_"):
                names[prefix + name] = next(iter(inspect.signature(value).parameters), None)
    return {name for name, first in names.items() if first == "cell"}


def assert_close(got, want, atol, rtol=0.0):
    """Two records of one kind with the same numbers, neither of them NaN."""
    assert type(got) is type(want)
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert jnp.shape(a) == jnp.shape(b) and not np.any(np.isnan(a))
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
