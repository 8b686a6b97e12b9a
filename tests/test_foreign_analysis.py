"""The microscope over cells of other libraries and of users: it sees what it sees in ours."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from analysis_rows import ROWS, analyses_of_cells, assert_close

import jaxrnn
from jaxrnn.convert import from_equinox, from_linen, to_equinox, to_linen

I, H, T = 2, 4, 5
GRU = jaxrnn.GRU(I, H, reset="after", update_weighs="old", biases=2)


class Plain:
    """A user's GRU: three methods, nothing inherited, nothing declared."""

    input_size = I

    def init(self, key, dtype=jnp.float32):
        return GRU.init(key, dtype)

    def initial_carry(self, params):
        return {"h": jnp.zeros(H, params.W_x.dtype)}

    def step(self, params, carry, x):
        h = carry["h"]
        of_x, of_h = params.W_x @ x + params.b, params.W_h @ h + params.b_h
        r, z = jax.nn.sigmoid(of_x[:2] + of_h[:2])
        h = (1 - z) * jnp.tanh(of_x[2] + r * of_h[2]) + z * h
        return {"h": h}, h


@functools.cache
def ours():
    """Our GRU with the weights of linen's, which has biases of its own way."""
    numbers = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: GRU.init(key, jnp.float64), jax.random.key(0))
    params = jax.tree.map(lambda s: jnp.asarray(numbers.uniform(-0.8, 0.8, s.shape)), shapes)
    return from_linen(nn.GRUCell(H), to_linen(GRU, params))


def linen():
    module = nn.GRUCell(H, param_dtype="float64")
    return from_linen(module, to_linen(*ours()), I, native=False)


def equinox():
    pytest.importorskip("equinox", reason="equinox is not installed: pip install 'jaxrnn[peers]'")
    return from_equinox(to_equinox(*ours()), native=False)


def plain():
    _, params = ours()
    zeros = jnp.zeros((3, H))
    b_h = zeros if params.b_h is None else jnp.zeros((3, H)).at[-len(params.b_h) :].set(params.b_h)
    return Plain(), params._replace(b=zeros if params.b is None else params.b, b_h=b_h)


FOREIGN = {"linen": linen, "equinox": equinox, "plain": plain}
XS = jnp.asarray(np.random.default_rng(1).normal(size=(T, I)))


@functools.cache
def of_ours(name):
    cell, params = ours()
    return ROWS[name].call(cell, params, XS)


def test_every_analysis_is_in_the_table():
    assert set(ROWS) == analyses_of_cells()


# compiling is what costs: the plain run sees a few
SHOWN = [("linearize", "linen"), ("loss_gradient_decay", "plain"), ("forgetting_curve", "linen")]
PAIRS = [
    pytest.param(name, library, marks=() if (name, library) in SHOWN else pytest.mark.long)
    for name, row in ROWS.items()
    for library in FOREIGN
    if row.asks is None
]


@pytest.mark.parametrize("name, library", PAIRS)
def test_a_foreign_cell_shows_what_ours_shows(name, library):
    cell, params = FOREIGN[library]()
    assert type(cell) is not type(ours()[0])
    assert_close(ROWS[name].call(cell, params, XS), of_ours(name), atol=1e-10)


@pytest.mark.parametrize("library", FOREIGN)
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.asks is not None])
def test_what_lives_on_a_declaration_asks_for_it(name, library):
    cell, params = FOREIGN[library]()
    row = ROWS[name]
    if name == "keep":
        assert row.call(cell, params, XS) is None
        return
    with pytest.raises(TypeError, match=row.asks.format(type(cell).__name__)):
        row.call(cell, params, XS)


def test_a_cell_that_says_what_it_keeps_needs_no_gates():
    _, params = plain()
    got = ROWS["time_constants"].call(Keeping(), params, XS)
    assert_close(got, of_ours("time_constants"), atol=1e-12)


class Keeping(Plain):
    """The same GRU, which also says what it keeps."""

    def keep(self, params, carry, x):
        of_h = params.W_h[1] @ carry["h"] + params.b_h[1]
        return jax.nn.sigmoid(params.W_x[1] @ x + params.b[1] + of_h)
