"""Cells that are dynamical systems: what their params stand for, beyond one step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_close

from jaxrnn import Elman, unroll
from jaxrnn.cells.antisymmetric import Antisymmetric
from jaxrnn.cells.cornn import CoRNN
from jaxrnn.cells.indrnn import IndRNN
from jaxrnn.cells.leaky import Leaky
from jaxrnn.cells.lem import LEM
from jaxrnn.cells.lipschitz import Lipschitz
from jaxrnn.cells.low_rank import LowRank
from jaxrnn.cells.orthogonal_rnn import OrthogonalRNN
from jaxrnn.cells.reservoir import Reservoir
from jaxrnn.cells.taugru import TauGRU
from jaxrnn.cells.unicornn import UnICORNN
from jaxrnn.cells.unitary_rnn import UnitaryRNN


def fresh(cell):
    return cell.init(jax.random.key(0), jnp.float64)


def inputs(*shape):
    return jax.random.normal(jax.random.key(1), shape)


@pytest.mark.parametrize("carries", ["potential", "rate"])
@pytest.mark.parametrize("tau", [20.0, (20.0,) * 50])
def test_noise_alone_gives_the_spread_that_is_asked_for(carries, tau):
    cell = Leaky(1, 50, "identity", carries=carries, tau=tau, noise=0.5, biases=0)
    params = fresh(cell)
    params = params._replace(W_h=jnp.zeros_like(params.W_h))
    _, ys = unroll(cell, params, jnp.zeros((4, 1500, 1)), key=jax.random.key(3))
    # Euler steps of length α make it larger by √(1 / (1 − α/2)); some 14000 independent numbers
    expected = 0.5 / (1 - 1 / 40) ** 0.5
    assert ys[:, 300:].std() == pytest.approx(expected, rel=0.03)
    assert not unroll(cell, params, jnp.zeros((4, 9, 1)))[1].any()  # no key, no noise


def test_a_rate_network_whose_step_is_its_time_constant_is_elmans():
    cell, elman = Leaky(3, 8, carries="rate", tau=1.0, biases=2), Elman(3, 8, biases=2)
    params, xs = fresh(cell), inputs(4, 30, 3)
    theirs = fresh(elman)._replace(**{k: getattr(params, k) for k in ("W_x", "W_h", "b", "b_h")})
    assert_close(unroll(cell, params, xs)[1], unroll(elman, theirs, xs)[1])


def test_a_learned_time_constant_begins_where_it_is_told_to():
    fixed, learned = Leaky(3, 8, tau=7.0), Leaky(3, 8, tau=7.0, learned_tau=True)
    xs = inputs(2, 30, 3)
    assert_close(unroll(learned, fresh(learned), xs)[1], unroll(fixed, fresh(fixed), xs)[1])


def test_signs_and_masks_hold_whatever_is_learned():
    cell = Leaky(3, 40, "relu", signs=0.8, mask=0.3)
    params, xs = fresh(cell), inputs(2, 20, 3)
    W = np.asarray(cell.connections(params))
    assert (W[:, :32] >= 0).all() and (W[:, 32:] <= 0).all()
    # 1600 draws: four standard deviations
    assert (W != 0).mean() == pytest.approx(0.3, abs=4 * (0.21 / 1600) ** 0.5)
    gradient = jax.grad(lambda p: jnp.sum(unroll(cell, p, xs)[1]))(params)
    assert not gradient.mask.any() and not gradient.W_h[params.mask == 0].any()
    given = Leaky(3, 2, mask=((0, 1), (1, 0)))
    assert (np.asarray(given.connections(fresh(given))) != 0).tolist() == [
        [False, True],
        [True, False],
    ]


def test_a_reservoir_has_its_radius_and_learns_nothing():
    cell = Reservoir(3, 60)
    params = fresh(cell)
    radius = np.abs(np.linalg.eigvals(np.asarray(params.W_h[0]))).max()
    assert radius == pytest.approx(cell.spectral_radius, rel=1e-9)
    gradient = jax.grad(lambda p: jnp.sum(unroll(cell, p, inputs(2, 9, 3))[1]))(params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))


def test_unitary_and_orthogonal_matrices_keep_norms():
    cell = UnitaryRNN(3, 32)
    h = jax.lax.complex(*jax.random.normal(jax.random.key(1), (2, 32)))
    after = cell.evolve(fresh(cell), h)
    assert jnp.linalg.norm(after) == pytest.approx(float(jnp.linalg.norm(h)), rel=1e-12)
    assert not np.allclose(after, h)
    cell = OrthogonalRNN(3, 33)
    Q = cell.matrix(fresh(cell))
    assert_close(Q @ Q.T, jnp.eye(33))


SINGULAR = [kind(3, 8) for kind in (Antisymmetric, CoRNN, IndRNN, LEM, Lipschitz, LowRank)]
SINGULAR += [OrthogonalRNN(3, 8), TauGRU(3, 8, 2), UnICORNN(3, 8), UnitaryRNN(3, 8)]


@pytest.mark.long
@pytest.mark.parametrize("cell", SINGULAR, ids=lambda cell: type(cell).__name__)
def test_gradients_are_finite_where_everything_is_zero(cell):
    xs = jnp.zeros((2, 4, 3))
    gradient = jax.grad(lambda p: jnp.sum(unroll(cell, p, xs)[1] ** 2))(fresh(cell))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Leaky(3, 4, tau=0.5), "dt must be above 0 and at most tau"),
        (lambda: Leaky(3, 4, tau=(1.0, 2.0)), "got 2 tau for 4 units"),
        (lambda: Leaky(3, 4, signs=(1, 2, 1, 1)), r"signs must be 4 numbers \+1 or -1"),
        (lambda: Leaky(3, 4, signs=2.0), "signs must be a fraction from 0 to 1, got 2.0"),
        (lambda: Leaky(3, 4, mask=((1, 1),)), "mask must have 4 rows of 4 numbers"),
        (lambda: Leaky(3, 4, mask=0.0), "mask must be a fraction above 0, got 0.0"),
        (lambda: Leaky(3, 4, carries="x"), "carries must be 'potential' or 'rate', got 'x'"),
        (lambda: Leaky(3, 4, tau=1.0, learned_tau=True), "must begin above dt"),
        (lambda: Leaky(3, 4, noise=-1.0), "noise must be at least 0, got -1.0"),
        (lambda: LowRank(3, 4, rank=5), "rank"),
        (lambda: IndRNN(3, 4, biases=2), "biases must be 0 or 1, got 2"),
        (lambda: TauGRU(3, 4, 0), "delay"),
        (lambda: OrthogonalRNN(3, 4, "mod"), "activation must be 'modrelu' or 'tanh'"),
        (lambda: Reservoir(3, 4, leak=0.0), "leak"),
    ],
)
def test_choices_that_make_no_sense(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
