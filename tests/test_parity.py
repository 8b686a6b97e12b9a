"""Aligned with independent implementations: outputs, final carries and every gradient.

Two references: a NumPy loop with its own backward pass (`oracles/numpy_loop.py`), and PyTorch,
both as stored numbers and, where it is installed, live. The measure is, per array,
max|ours − theirs| / max|theirs|.
"""

import dataclasses
import functools
import importlib.util
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import numpy_loop
from oracles.make_torch_numbers import STORED
from oracles.make_torch_numbers import answers as torch_answers
from oracles.torch_cases import CASES, Case, problem, unpack

import jaxrnn
from jaxrnn import GRU, LSTM, Bidirectional, Elman, Stack
from jaxrnn.cells import ElmanCarry, GRUCarry, LSTMCarry

DOUBLE, SINGLE = 1e-12, 1e-6
B, T, I, H = 3, 5, 3, 4

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="PyTorch is not installed: pip install 'jaxrnn[parity]'",
)


def distance(got, want) -> float:
    """max|got − want| / max|want|; infinite for a wrong shape, or anything where zero is due."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        return np.inf
    gap, size = np.abs(got - want).max(), np.abs(want).max()
    return gap / size if size else (np.inf if gap else 0.0)


def assert_close(got: dict, want: dict, tolerance: float) -> None:
    assert got.keys() == want.keys()
    far = {name: d for name in want if not (d := distance(got[name], want[name])) <= tolerance}
    assert not far


def answers_of(network, params, xs, carry, d_ys, d_carry, **options):
    """Outputs, final carry and the gradients of <ys, d_ys> + <carry, d_carry>, in one program."""

    def loss(params, xs, carry):
        final, ys = jaxrnn.unroll(network, params, xs, carry=carry, **options)
        total = jnp.vdot(ys, d_ys)
        for part, d in zip(jax.tree.leaves(final), jax.tree.leaves(d_carry), strict=True):
            total += jnp.vdot(part, d)
        return total, (ys, final)

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
    (_, (ys, final)), gradients = run(params, xs, carry)
    return ys, final, *gradients


# PyTorch


def carry_of(case, parts):
    """PyTorch's (layers · directions, B, H), as the carry of a Stack."""
    kind = {"lstm": LSTMCarry, "gru": GRUCarry}.get(case.kind, ElmanCarry)
    each = [kind(*(jnp.asarray(part[i]) for part in parts)) for i in range(len(parts[0]))]
    if case.directions == 1:
        return tuple(each)
    pairs = zip(each[::2], each[1::2], strict=True)
    return tuple(jaxrnn.BidirectionalCarry(*pair) for pair in pairs)


def parts_of(carry):
    """The inverse: one array per field of the carry, (layers · directions, B, H)."""
    is_one = lambda c: isinstance(c, ElmanCarry | GRUCarry | LSTMCarry)  # noqa: E731
    return [np.stack(field) for field in zip(*jax.tree.leaves(carry, is_leaf=is_one), strict=True)]


@functools.cache
def ours(case: Case) -> dict:
    given = problem(case)
    nonlinearity = "relu" if case.kind == "relu" else "tanh"
    stack, params = jaxrnn.convert.from_torch(given.weights, nonlinearity=nonlinearity)
    carry, d_carry = carry_of(case, given.carry), carry_of(case, given.d_carry)
    ys, final, d_params, d_xs, d_start = answers_of(
        stack, params, given.xs, carry, given.d_ys, d_carry, lengths=given.lengths
    )
    names = ("h", "c") if case.kind == "lstm" else ("h",)
    answers = {"ys": ys, "d_xs": d_xs}
    answers |= {f"{n}_T": part for n, part in zip(names, parts_of(final), strict=True)}
    answers |= {f"d_{n}_0": part for n, part in zip(names, parts_of(d_start), strict=True)}
    gradients = jaxrnn.convert.to_torch(stack, d_params)
    return answers | {f"d_{name}": gradient for name, gradient in gradients.items()}


@functools.cache
def stored(case: Case) -> dict:
    with np.load(STORED) as file:
        return unpack(case, file[str(case)])


def live(case: Case) -> dict:
    return torch_answers(case, problem(case))


REFERENCES = [pytest.param(stored, id="stored"), pytest.param(live, id="live", marks=needs_torch)]


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.long if c.layers > 1 else ()) for c in CASES],
    ids=str,
)
def test_pytorch(case, reference):
    answers = ours(case)
    assert_close(answers, reference(case), DOUBLE)
    for row, length in enumerate(problem(case).lengths):
        assert not np.any(answers["ys"][row, length:])


# the NumPy loop


def weights_of(params) -> numpy_loop.Weights:
    """Params of a cell, gate by gate, with zeros for the biases it does without."""
    gates = (lambda p: np.asarray(p)[None]) if params.W_x.ndim == 2 else np.asarray
    W, U = gates(params.W_x), gates(params.W_h)
    b, d = np.zeros((2, *W.shape[:2]), W.dtype)
    if params.b is not None:
        b[:] = gates(params.b)
    if params.b_h is not None:
        own = gates(params.b_h)
        d[len(d) - len(own) :] = own
    return numpy_loop.Weights(W, U, b, d)


def only_what_is_there(gradients: numpy_loop.Weights, params):
    """The loop's gradients for the params that exist, in their shapes."""
    return {
        name: gradient[len(gradient) - np.size(param) // gradient[0].size :].reshape(param.shape)
        for name, gradient, param in zip(
            ("W_x", "W_h", "b", "b_h"), gradients, params, strict=False
        )
        if param is not None
    }


def directions_of(tree) -> list:
    """[layer][direction] of params or a carry of a Stack."""
    both = (jaxrnn.BidirectionalParams, jaxrnn.BidirectionalCarry)
    return [list(layer) if isinstance(layer, both) else [layer] for layer in tree]


def flat(tree, what: str) -> dict:
    return {
        f"{what} {layer}.{side}.{name}": array
        for layer, sides in enumerate(directions_of(tree))
        for side, one in enumerate(sides)
        for name, array in one._asdict().items()
        if array is not None
    }


def random_like(tree, seed, scale, dtype):
    leaves, treedef = jax.tree.flatten(tree)
    random = np.random.RandomState(seed)
    draws = [jnp.asarray(random.uniform(-scale, scale, np.shape(leaf)), dtype) for leaf in leaves]
    return treedef.unflatten(draws)


def _shapes(network, dtype):
    return jax.eval_shape(lambda key: network.init(key, dtype=dtype), jax.random.key(0))


def compare_with_loop(kind, stack, sizes, lengths=None, dtype="float64") -> dict:
    """Distances between ours, in `dtype`, and the NumPy loop in float64, for every array."""
    batch, steps = sizes
    scale = 0.8 if stack.layers[0].output_size < 10 else 1 / np.sqrt(stack.layers[0].output_size)
    params = random_like(_shapes(stack, dtype), 0, scale, dtype)
    carry = jax.eval_shape(stack.initial_carry, params)
    carry = jax.tree.map(lambda leaf: np.zeros((batch, *leaf.shape)), carry)
    carry, d_carry = random_like(carry, 1, 1.0, dtype), random_like(carry, 2, 1.0, dtype)
    xs = random_like(np.zeros((batch, steps, stack.input_size)), 3, 1.5, dtype)
    d_ys = random_like(np.zeros((batch, steps, stack.output_size)), 4, 1.0, dtype)
    ys, final, d_params, d_xs, d_start = answers_of(
        stack, params, xs, carry, d_ys, d_carry, lengths=lengths
    )
    double = functools.partial(jax.tree.map, lambda leaf: np.asarray(leaf, np.float64))
    want = numpy_loop.run(
        kind,
        [[weights_of(one) for one in sides] for sides in directions_of(double(params))],
        double(xs),
        directions_of(double(carry)),
        [steps] * batch if lengths is None else lengths,
        double(d_ys),
        directions_of(double(d_carry)),
    )
    got = {"ys": ys, "d_xs": d_xs, **flat(final, "carry"), **flat(d_start, "d_carry")}
    got |= flat(d_params, "d_params")
    expected = {"ys": want.ys, "d_xs": want.d_xs}
    for layer, sides in enumerate(directions_of(params)):
        for side, one in enumerate(sides):
            at = f"{layer}.{side}"
            names = ("h", "c") if kind == "lstm" else ("h",)
            for name, after, before in zip(
                names, want.carry[layer][side], want.d_carry[layer][side], strict=True
            ):
                expected |= {f"carry {at}.{name}": after, f"d_carry {at}.{name}": before}
            for name, gradient in only_what_is_there(want.d_weights[layer][side], one).items():
                expected[f"d_params {at}.{name}"] = gradient
    assert got.keys() == expected.keys()
    return {name: distance(got[name], expected[name]) for name in expected}


FORMS = {
    **{name: functools.partial(Elman, activation=name) for name in numpy_loop.PHI},
    "lstm": LSTM,
    **{
        f"gru-{reset}-{weighs}": functools.partial(GRU, reset=reset, update_weighs=weighs)
        for reset, weighs in itertools.product(("before", "after"), ("new", "old"))
    },
}


# the plain run shows these
SHOWN = ("lstm", "gru-after-old")


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k in SHOWN else pytest.mark.long) for k in FORMS]
)
def test_numpy_loop_for_every_form_in_both_directions(kind):
    cell = FORMS[kind]
    widths = (I, 2 * H, 2 * H)
    layers = (Bidirectional(cell(width, H, biases=n)) for n, width in enumerate(widths))
    far = compare_with_loop(kind, Stack(tuple(layers)), (B, T))
    assert all(d <= DOUBLE for d in far.values()), far


@pytest.mark.parametrize(
    "kind",
    [
        "lstm",
        *(
            pytest.param(k, marks=pytest.mark.long)
            for k in ("relu", "gru-before-new", "gru-after-old")
        ),
    ],
)
def test_numpy_loop_for_deep_networks_on_padded_rows(kind):
    cell = functools.partial(FORMS[kind], biases=2)
    network = Stack((cell(I, H), Bidirectional(cell(H, 2)), cell(4, 3)))
    far = compare_with_loop(kind, network, (4, T), lengths=np.array([3, 0, T, 1]))
    assert all(d <= DOUBLE for d in far.values()), far


@pytest.mark.parametrize("kind", ["tanh", "relu", "lstm", "gru-before-new", "gru-after-old"])
def test_float32_is_within_1e_6_of_the_float64_loop(kind):
    network = Stack((FORMS[kind](16, 32, biases=2),))
    far = compare_with_loop(kind, network, (2, 50), dtype="float32")
    assert all(d <= SINGLE for d in far.values()), far


@needs_torch
@pytest.mark.long
@pytest.mark.parametrize("kind", ["tanh", "relu", "lstm", "gru"])
@pytest.mark.parametrize("sizes", [(2, 8, 100, 64, 128), (1, 4, 400, 128, 256)], ids=str)
def test_float32_is_no_further_from_float64_than_three_times_pytorch(kind, sizes):
    layers, *rest = sizes
    case = Case(kind, layers, True, 2, 32, *rest)
    exact = torch_answers(case, problem(case), bits=64)
    theirs, mine = live(case), ours(case)
    far = {
        name: (distance(mine[name], want), distance(theirs[name], want))
        for name, want in exact.items()
    }
    assert all(us <= 3 * them for us, them in far.values()), far


# out again, by way of PyTorch's layers

EXPORTS = {
    "elman-one-bias": (Elman(I, H), "tanh"),
    "elman-relu-function": (Elman(I, H, jax.nn.relu, biases=0), "relu"),
    "lstm-one-bias": (LSTM(I, H), "lstm"),
    "gru-one-bias": (GRU(I, H, reset="after", update_weighs="old"), "gru"),
    "gru-weighs-new": (GRU(I, H, reset="after", biases=2), "gru"),
    "gru-weighs-new-one-bias": (GRU(I, H, reset="after"), "gru"),
}


@needs_torch
@pytest.mark.parametrize("name", EXPORTS)
def test_pytorch_computes_what_we_export(name):
    cell, kind = EXPORTS[name]
    network = Stack((Bidirectional(cell), Bidirectional(_wider(cell))), dropout=0.5)
    params = random_like(_shapes(network, "float64"), 0, 0.8, "float64")
    case = Case(kind, 2, cell.biases > 0, 2)
    given = problem(case)
    final, ys = jax.jit(functools.partial(jaxrnn.unroll, network))(
        params, given.xs, carry=carry_of(case, given.carry), lengths=given.lengths
    )
    exported = jaxrnn.convert.to_torch(network, params)
    theirs = torch_answers(case, given._replace(weights=exported))
    assert distance(ys, theirs["ys"]) <= DOUBLE
    assert distance(parts_of(final)[0], theirs["h_T"]) <= DOUBLE


def _wider(cell):
    return dataclasses.replace(cell, input_size=2 * H)
