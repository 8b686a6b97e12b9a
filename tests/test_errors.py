"""Errors at the boundary, each by its sentence: what was got, what was expected, what to do."""

import dataclasses
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from rows import problem

import jaxrnn
from jaxrnn import (
    GRU,
    LSTM,
    Bidirectional,
    Elman,
    Loop,
    Readout,
    Residual,
    Scan,
    Stack,
    Staged,
    unroll,
)
from jaxrnn.initializers import Chrono, Identity, Orthogonal, Zeros


@pytest.fixture(autouse=True)
def without_type_checker():
    """Sentences as users meet them: they have no type checker that would speak first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


CELL = LSTM(3, 4)
PARAMS, XS, CARRY = problem(CELL, (2, 5))


def says(error, *parts):
    """The error, with all these parts in its sentence, in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(map(re.escape, parts)))


# ---- xs


@pytest.mark.parametrize("shape", [(), (3,)])
def test_xs_of_too_few_axes(shape):
    with says(ValueError, f"xs has shape {shape}", "expected (*batch, T, features)"):
        unroll(CELL, PARAMS, jnp.zeros(shape))


def test_xs_of_too_few_axes_for_another_rank():
    cell = jaxrnn.as_cell(lambda p, c, x: (c, c), lambda p: p, input_rank=0)
    with says(ValueError, "xs has shape ()", "expected (*batch, T)"):
        unroll(cell, jnp.zeros(()), jnp.zeros(()))
    cell = jaxrnn.as_cell(lambda p, c, x: (c, c), lambda p: p, input_rank=2)
    with says(ValueError, "xs has shape (5, 3)", "expected (*batch, T, …, features)"):
        unroll(cell, jnp.zeros(()), jnp.zeros((5, 3)))


@pytest.mark.parametrize("cell", [CELL, Stack((CELL,)), Bidirectional(CELL)], ids=repr)
def test_xs_of_other_features(cell):
    params = problem(cell, (2, 5)).params
    with says(
        ValueError, "xs has shape (2, 5, 7): 7 features", "made for input_size=3", "axes are"
    ):
        unroll(cell, params, jnp.zeros((2, 5, 7)))


def test_xs_of_another_dtype():
    with says(ValueError, "xs has dtype float32, expected float64", "xs.astype('float64')"):
        unroll(CELL, PARAMS, XS.astype(jnp.float32))


def test_xs_without_arrays():
    with says(ValueError, "xs holds no array, so T is unknown", "pass jnp.zeros((T, 0))"):
        unroll(CELL, PARAMS, None)


def test_xs_of_leaves_of_unequal_length():
    cell = jaxrnn.as_cell(lambda p, c, x: (c, c), lambda p: p)
    xs = {"a": jnp.zeros((5, 1)), "b": jnp.zeros((4, 1))}
    with says(ValueError, "xs['b']", "= (4,)", "but xs['a'] has (5,)"):
        unroll(cell, jnp.zeros(()), xs)


# ---- carry


def test_carry_of_another_structure():
    with says(
        ValueError, "another structure than LSTM.initial_carry", "got (", "expected LSTMCarry("
    ):
        unroll(CELL, PARAMS, XS, carry=tuple(CARRY))


def test_carry_of_another_shape_says_which_field():
    with says(ValueError, "carry.c is float64[4]", "expected float64[2,4]", "one for each row"):
        unroll(CELL, PARAMS, XS, carry=CARRY._replace(c=jnp.zeros(4)))


def test_carry_of_another_dtype_says_which_field():
    with says(ValueError, "carry.h is float32[2,4]", "expected float64[2,4]"):
        unroll(CELL, PARAMS, XS, carry=CARRY._replace(h=CARRY.h.astype(jnp.float32)))


# ---- lengths and resets


@pytest.mark.parametrize(("lengths", "wrong"), [([2, 6], 6), ([-1, 5], -1)])
def test_lengths_out_of_range(lengths, wrong):
    with says(ValueError, f"lengths holds {wrong}, expected 0…5, the number of steps in xs"):
        unroll(CELL, PARAMS, XS, lengths=jnp.array(lengths))


def test_lengths_that_are_no_integers():
    with says(TypeError, "lengths must be integers, got float64"):
        unroll(CELL, PARAMS, XS, lengths=jnp.array([1.0, 2.0]))
    with says(TypeError, "lengths must be integers, got bool"):
        unroll(CELL, PARAMS, XS, lengths=np.ones(2, bool))


@pytest.mark.parametrize("shape", [(), (3,), (2, 5)])
def test_lengths_of_another_shape(shape):
    with says(ValueError, f"lengths has shape {shape}, expected (2,): one for each row"):
        unroll(CELL, PARAMS, XS, lengths=jnp.zeros(shape, int))


def test_resets_that_are_not_bool():
    with says(TypeError, "resets must be bool, got int64", "resets.astype(bool)"):
        unroll(CELL, PARAMS, XS, resets=jnp.zeros((2, 5), int))


@pytest.mark.parametrize("shape", [(2,), (5,), (2, 4)])
def test_resets_of_another_shape(shape):
    with says(ValueError, f"resets has shape {shape}, expected (2, 5): one for each step"):
        unroll(CELL, PARAMS, XS, resets=jnp.zeros(shape, bool))


# ---- key, start, reverse, method


def test_a_legacy_key():
    with says(TypeError, "key must come from jax.random.key(seed)", "uint32[2]", "wrap_key_data"):
        unroll(CELL, PARAMS, XS, key=jax.random.PRNGKey(0))


def test_keys_of_another_shape():
    with says(ValueError, "key has shape (3,), expected (), (2,) or (2, 5)"):
        unroll(CELL, PARAMS, XS, key=jax.random.split(jax.random.key(0), 3))


@pytest.mark.parametrize("start", [-1, 1.5, True])
def test_a_start_that_counts_no_steps(start):
    with says(ValueError, "start must be an integer of at least 0", f"got {start}"):
        unroll(CELL, PARAMS, XS, key=jax.random.key(0), start=start)


def test_a_traced_direction():
    with says(TypeError, "reverse must be True or False, got a traced", "static_argnames"):
        jax.jit(lambda xs, back: unroll(CELL, PARAMS, xs, reverse=back))(XS, True)


@pytest.mark.parametrize("method", [Scan, Loop])
def test_a_method_given_as_its_class(method):
    with says(
        TypeError, "method must be an object such as Scan()", f"got the class {method.__name__}"
    ):
        unroll(CELL, PARAMS, XS, method=method)


@pytest.mark.parametrize("method", ["scan", 3])
def test_a_method_that_is_none(method):
    with says(TypeError, "method must be an object such as Scan()", f"got {method!r}"):
        unroll(CELL, PARAMS, XS, method=method)


@dataclasses.dataclass
class Unhashable:
    """Right in all but its hash."""

    numbers: Any

    def initial_carry(self, params):
        return jnp.zeros(4)

    def step(self, params, carry, x):
        return carry, carry

    def __call__(self, *arguments, **options):
        raise AssertionError("never reached")


def test_an_unhashable_method():
    with says(TypeError, "Unhashable cannot be hashed", "frozen dataclass"):
        unroll(CELL, PARAMS, XS, method=Unhashable(1))


@pytest.mark.parametrize("field", ["unroll", "checkpoint"])
@pytest.mark.parametrize("value", [0, -2, 1.5, "2"])
def test_scan_options(field, value):
    with says(ValueError, f"Scan: {field} must be", f"got {value!r}"):
        Scan(**{field: value})


def test_scan_cannot_tell_segments_of_one_from_true():
    # 1 == True in Python: two methods of equal value share what is compiled for one of them
    with says(ValueError, "Scan: checkpoint must be", "at least 2", "got 1"):
        Scan(checkpoint=1)


def test_staged_takes_blocks_of_at_least_one_step():
    with says(ValueError, "Staged: block must be None or at least 1", "got 0"):
        Staged(block=0)


# ---- cells


def test_an_unhashable_cell():
    with says(TypeError, "Unhashable cannot be hashed", "keep arrays in params", "frozen=True"):
        unroll(Unhashable(1), None, XS)


def test_a_frozen_cell_with_an_array_in_a_field():
    @dataclasses.dataclass(frozen=True)
    class WithArray(Unhashable.__base__):
        W: Any
        initial_carry = Unhashable.initial_carry
        step = Unhashable.step

    with says(TypeError, "WithArray cannot be hashed", "keep arrays in params"):
        unroll(WithArray(jnp.zeros(3)), None, XS)


def test_a_class_in_the_place_of_a_cell():
    with says(TypeError, "got the class LSTM, expected an instance: LSTM(…)"):
        unroll(LSTM, PARAMS, XS)


def test_a_cell_without_its_methods():
    with says(TypeError, "function has no method initial_carry and no method step", "a cell has"):
        unroll(lambda x: x, PARAMS, XS)


def test_a_cell_without_a_step():
    class Stepless:
        def initial_carry(self, params):
            return 0

    with says(TypeError, "Stepless has no method step: a cell has", "step(params, carry, x)"):
        unroll(Stepless(), PARAMS, XS)


def wrong_step(change):
    return jaxrnn.as_cell(lambda p, c, x: (change(c), x), lambda p: jnp.zeros(4, jnp.float32))


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda c: c[:3], "float32[3]"),
        (lambda c: c.astype(jnp.float64), "float64[4]"),
        (lambda c: (c, c), "(float32[4], float32[4])"),
    ],
    ids=["shape", "dtype", "structure"],
)
def test_a_step_that_changes_its_carry(change, got):
    with says(
        ValueError,
        "FunctionCell.step must return a carry like the one it got",
        f"got {got}",
        "expected float32[4]",
    ):
        unroll(wrong_step(change), None, XS)


def test_a_step_that_returns_no_pair():
    cell = jaxrnn.as_cell(lambda p, c, x: c, lambda p: jnp.zeros(4))
    with says(TypeError, "FunctionCell.step must return (carry, y), got float64[4]"):
        unroll(cell, None, XS)


def test_as_cell_without_init():
    with says(ValueError, "made by as_cell without init", "make params yourself"):
        jaxrnn.as_cell(lambda p, c, x: (c, c), lambda p: p).init(jax.random.key(0))


@pytest.mark.parametrize("cell", [Elman, LSTM, GRU])
@pytest.mark.parametrize("size", [0, -1, 2.0, "4", True])
def test_bad_sizes(cell, size):
    with says(
        ValueError, f"{cell.__name__}: hidden_size must be an int of at least 1, got {size!r}"
    ):
        cell(3, size)
    if size != 0 or size is True:  # no input at all is allowed
        with says(ValueError, f"{cell.__name__}: input_size must be an int of at least 0"):
            cell(size, 4)


@pytest.mark.parametrize("cell", [Elman, LSTM, GRU])
def test_bad_biases(cell):
    with says(ValueError, f"{cell.__name__}: biases must be 0, 1 or 2, got 3"):
        cell(3, 4, biases=3)


def test_unknown_choices():
    with says(ValueError, "Elman: activation must be one of 'tanh', 'relu'", "got 'sigmoid'"):
        Elman(3, 4, "sigmoid")
    with says(ValueError, "GRU: reset must be 'before' or 'after', got 'never'"):
        GRU(3, 4, reset="never")
    with says(ValueError, "GRU: update_weighs must be 'new' or 'old', got 'z'"):
        GRU(3, 4, update_weighs="z")


def test_a_dtype_that_is_not_floating():
    with says(ValueError, "params must have a floating dtype, got int32"):
        CELL.init(jax.random.key(0), dtype=jnp.int32)


def test_float64_without_x64():
    code = "import jax, jaxrnn; jaxrnn.GRU(3, 4).init(jax.random.key(0), dtype='float64')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ValueError: got dtype float64, but JAX is set to 32 bits" in run.stderr
    assert "jax.config.update('jax_enable_x64', True)" in run.stderr


# ---- initialisers


def test_initializers_that_do_not_fit():
    key = jax.random.key(0)
    with says(ValueError, "Orthogonal draws matrices, got a block of shape (4,)", "Zeros"):
        LSTM(3, 4, bias_initializer=Orthogonal()).init(key)
    with says(ValueError, "Identity needs a square block, got shape (4, 3)"):
        LSTM(3, 4, input_initializer=Identity()).init(key)
    with says(ValueError, "got 2 initialisers for 3 gates (reset, update, candidate)"):
        GRU(3, 4, bias_initializer=(Zeros(), Zeros())).init(key)
    with says(ValueError, "Chrono needs longest > 2 steps, got 2"):
        Chrono(2)


# ---- networks


def test_residual_of_unequal_widths():
    with says(ValueError, "Residual: LSTM maps 3 features to 4", "projection=True"):
        Residual(LSTM(3, 4))


def test_residual_that_feeds_back():
    with says(ValueError, "Residual: feed_back=True needs a cell, got a network"):
        Residual(Stack((LSTM(4, 4),)), feed_back=True)
    plain = Sized(jaxrnn.as_cell(lambda p, c, x: (c, c), lambda p: jnp.zeros(4)))
    params = jaxrnn.ResidualParams(None, None)
    with says(ValueError, "Residual: feed_back=True needs a carry with a field h", "float64[4]"):
        unroll(Residual(plain, feed_back=True), params, jnp.zeros((5, 4)))


@dataclasses.dataclass(frozen=True)
class Sized:
    """A cell with sizes."""

    cell: Any
    input_size: int = 4
    output_size: int = 4

    def initial_carry(self, params):
        return self.cell.initial_carry(params)

    def step(self, params, carry, x):
        return self.cell.step(params, carry, x)


@pytest.mark.parametrize(
    "network", [Residual, lambda cell: Readout(cell, 2).init(jax.random.key(0))]
)
def test_a_cell_without_sizes_in_a_network_that_needs_them(network):
    cell = jaxrnn.as_cell(lambda p, c, x: (c, c), lambda p: p, lambda key, dtype: None)
    with says(AttributeError, "FunctionCell has no", "_size, which the network", "give the cell"):
        network(cell)


def test_a_stack_that_does_not_fit():
    with says(ValueError, "Stack: LSTM gives 4 features", "GRU above it was made for input_size=5"):
        Stack((LSTM(3, 4), GRU(5, 4)))
    with says(ValueError, "Bidirectional gives 8 features", "made for input_size=4"):
        Stack((Bidirectional(LSTM(3, 4), GRU(3, 4)), GRU(4, 4)))


@pytest.mark.parametrize("layers", [(), [LSTM(3, 4)], LSTM(3, 4)])
def test_a_stack_of_no_tuple(layers):
    with says(ValueError, "Stack: layers must be a tuple of cells, got"):
        Stack(layers)


@pytest.mark.parametrize("rate", [1.0, -0.1, 2])
def test_dropout_out_of_range(rate):
    with says(ValueError, f"Stack: dropout must be in [0, 1), got {rate!r}"):
        Stack((LSTM(3, 4),), dropout=rate)


@pytest.mark.parametrize("size", [0, 2.0, None])
def test_readout_of_no_size(size):
    with says(ValueError, f"Readout: output_size must be an int of at least 1, got {size!r}"):
        Readout(LSTM(3, 4), size)


def test_directions_of_unlike_inputs():
    with says(ValueError, "Bidirectional: the forward LSTM reads 3 features", "GRU 5"):
        Bidirectional(LSTM(3, 4), GRU(5, 4))


def test_bidirectional_cannot_be_reversed_again():
    network = Bidirectional(CELL)
    params = problem(network, (2, 5)).params
    with says(ValueError, "goes both ways already: reverse=True has no meaning", "flip xs"):
        unroll(network, params, XS, reverse=True)


@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: Stack((n,)), lambda n: Readout(n, 2)])
def test_bidirectional_cannot_step(wrap):
    network = wrap(Bidirectional(CELL))
    params, xs, _ = problem(network, (5,))
    with says(TypeError, "Bidirectional cannot go step by step", "Use jaxrnn.unroll"):
        network.step(params, network.initial_carry(params), xs[0])
