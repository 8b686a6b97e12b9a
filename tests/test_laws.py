"""The laws of an unroll, over every cell and every method.

Every pair of cell and method is compiled once, by `everything`, and all laws ask that one function.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracle import (
    Situation,
    assert_close,
    assert_same,
    by_hand,
    network_by_hand,
    see,
    seen_by_hand,
    situation,
    weighted_sum,
)
from rows import BIDIRECTIONAL, CELLS, METHODS, PAPERS, STACK, Noisy, Stepping, problem

import jaxrnn
from jaxrnn import GRU, LSTM, Elman, Loop, Newton, Scan, Stack, trajectory, unroll
from jaxrnn import cell as contract
from jaxrnn.methods.associative import is_associative

B = T = 5  # a prime; as many rows as steps, so that one reset for each row visits every position
NONE = np.zeros((B, T), bool)
EVERYWHERE = np.eye(T, dtype=bool)
WHOLE = [T] * B
ALL_LENGTHS = [0, 1, 2, 4, 5]

# cells whose params, carry, xs or ys are unlike; they meet every method
FEW = ("lstm", "elman-learned", "user-tokens")
# of the cells that have a paper in NumPy, those that are unlike in what they declare or carry: the
# plain run shows the laws on them, the long run on all
SHOWN = ("clockwork", "lru", "mlstm", "conv-lstm-1d-learned")
# further forms of the oldest cells and networks: their numbers stand beside PyTorch and NumPy in
# test_parity, the laws on them are for the long run
FORMS = (
    "elman-function",
    "elman-identity-no-bias",
    "elman-logistic",
    "elman-relu-two-biases",
    "gru-after-new-learned",
    "gru-after-old-no-bias",
    "gru-before-old-two-biases",
    "lstm-no-bias",
    "lstm-two-biases-learned",
    "residual-feed-back",
    "stack-stepping",
    "variational-dropout",
)
# of the laws that compile more, the plain run shows these
THOROUGH = ("lstm", "elman-tanh", "user-tokens", "stack", "mlstm")
# one row of each kind; the other forms of a kind meet fewer laws
FIRST = {(type(row.cell), is_associative(row.cell)): n for n, row in reversed(PAPERS.items())}


def methods_of(name):
    """The methods that a cell meets: its default first, then what the long run adds."""
    cell = CELLS[name]
    parallel = "associative" if is_associative(cell) else "newton"
    if name in PAPERS:
        return ["staged", parallel] if name in FIRST.values() else ["staged"]
    # for a cell without stages, Staged is the same program as Scan
    of_stages = ["staged-checkpoint", "staged-blocks"] if hasattr(cell, "stages") else []
    if name in FEW:
        rest = [m for m in METHODS if not m.startswith("staged") and m != "associative"]
        return ["staged", *of_stages, *rest]
    return ["staged", parallel, *(of_stages[:1] or ["scan-checkpoint"])]


def _is_quick(name, method):
    left_out = (*PAPERS, *FORMS, "drop-connect", "zoneout", "fast-slow")
    if name == "lstm":
        return method in ("staged", "newton")
    return method == "staged" and (name not in left_out or name in SHOWN)


def _pairs(thorough=False):
    for name in CELLS:
        for method in methods_of(name):
            in_paper = name in PAPERS and (method != "staged" or name not in FIRST.values())
            if thorough and in_paper:
                continue
            quick = _is_quick(name, method) and (not thorough or name in THOROUGH)
            marks = [] if quick else [pytest.mark.long]
            pair = (CELLS[name], METHODS[method])
            yield pytest.param(pair, id=f"{name}/{method}", marks=marks)


@pytest.fixture(scope="module", params=_pairs())
def pair(request):
    """A cell and a method; of module scope, so that all laws of a pair run on one worker."""
    return request.param


@pytest.fixture(params=_pairs(thorough=True))
def thorough_pair(request):
    """The same for laws that compile more: without other forms and methods of cells from papers."""
    return request.param


@functools.cache
def everything(cell, method):
    """Values and gradients in both directions, compiled once."""

    @jax.jit
    def both(params, xs, carry, given):
        options = dict(lengths=given.lengths, resets=given.resets, key=given.keys, method=method)
        return tuple(
            see(
                lambda p, xs, c, r=reverse: unroll(cell, p, xs, carry=c, reverse=r, **options),
                params,
                xs,
                carry,
            )
            for reverse in (False, True)
        )

    return both


@functools.lru_cache(maxsize=64)
def wanted(cell, seed, scale, lengths, resets):
    """What the oracle gives in both directions; the methods of a cell share it."""
    given = situation(lengths, np.reshape(resets, (B, T)), seed)
    return tuple(
        seen_by_hand(cell, *problem(cell, (B, T), seed, scale), given, reverse)
        for reverse in (False, True)
    )


def at(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def poisoned(xs, where):
    """xs with NaN at `where`, of shape (B, T)."""

    def poison(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return jnp.where(where.reshape(B, T, *(1,) * (leaf.ndim - 2)), jnp.nan, leaf)

    return jax.tree.map(poison, xs)


lengths_of_rows = st.lists(st.integers(0, T), min_size=B, max_size=B).map(tuple)
resets_of_rows = st.lists(st.booleans(), min_size=B * T, max_size=B * T).map(tuple)


@settings(max_examples=5)
@example(seed=1, scale=0.5, lengths=tuple(WHOLE), resets=tuple(NONE.ravel().tolist()))
@example(seed=2, scale=0.5, lengths=tuple(WHOLE), resets=tuple(EVERYWHERE.ravel().tolist()))
@example(seed=3, scale=0.5, lengths=tuple(ALL_LENGTHS), resets=(True,) * B * T)
@given(
    seed=st.integers(0, 99),
    scale=st.floats(0.1, 0.6),
    lengths=lengths_of_rows,
    resets=resets_of_rows,
)
def test_equals_the_python_loop_in_values_and_gradients(pair, seed, scale, lengths, resets):
    given = situation(lengths, np.reshape(resets, (B, T)), seed)
    got = everything(*pair)(*problem(pair[0], (B, T), seed, scale), given)
    assert_close(got, wanted(pair[0], seed, scale, lengths, resets))


def test_padding_changes_nothing_not_even_nan(pair):
    params, xs, carry = problem(pair[0], (B, T))
    given = situation(ALL_LENGTHS, np.roll(EVERYWHERE, 1, axis=0))
    padding = np.arange(T) >= np.array(ALL_LENGTHS)[:, None]
    clean = everything(*pair)(params, xs, carry, given)
    spoilt = everything(*pair)(params, poisoned(xs, padding), carry, given)
    assert_same(spoilt, clean)
    for seen in clean:
        for leaf in jax.tree.leaves((seen.ys, seen.gradients.xs)):
            assert not leaf[padding].any()


def test_length_zero_returns_the_carry_it_got(pair):
    params, xs, carry = problem(pair[0], (B, T))
    for seen in everything(*pair)(params, xs, carry, situation([0] * B, EVERYWHERE)):
        assert_same(seen.carry, carry)
        assert not any(leaf.any() for leaf in jax.tree.leaves(seen.gradients.params))


def test_prefix_then_suffix_is_the_whole(pair):
    params, xs, carry = problem(pair[0], (B, T))
    given = situation(WHOLE, EVERYWHERE)
    whole, _ = everything(*pair)(params, xs, carry, given)
    for cut in (1, 3):
        # the pieces are rows of other lengths, so that nothing has to be compiled anew
        first, _ = everything(*pair)(
            params, xs, carry, given._replace(lengths=jnp.full(B, cut, jnp.int32))
        )
        roll = functools.partial(jnp.roll, shift=-cut, axis=1)
        rest = Situation(
            jnp.full(B, T - cut, jnp.int32),
            roll(given.resets),
            given.keys[:, (np.arange(T) + cut) % T],
        )
        second, _ = everything(*pair)(params, jax.tree.map(roll, xs), first.carry, rest)
        ys = jax.tree.map(
            lambda a, b, cut=cut: jnp.concatenate([a[:, :cut], b[:, : T - cut]], axis=1),
            first.ys,
            second.ys,
        )
        assert_close((second.carry, ys), (whole.carry, whole.ys))


def test_reverse_is_flipping_by_hand(pair):
    params, xs, carry = problem(pair[0], (B, T))
    given = situation(WHOLE, NONE)
    _, reverse = everything(*pair)(params, xs, carry, given)
    flip = functools.partial(jnp.flip, axis=1)
    given = given._replace(keys=given.keys[:, ::-1])
    flipped, _ = everything(*pair)(params, jax.tree.map(flip, xs), carry, given)
    assert_close(reverse.carry, flipped.carry)
    assert_close(reverse.ys, jax.tree.map(flip, flipped.ys))


def test_nan_before_a_reset_does_not_cross_it(pair):
    params, xs, carry = problem(pair[0], (B, T))
    resets = NONE.copy()
    resets[:, 2] = True
    given = situation([5, 5, 5, 4, 3], resets)
    clean = everything(*pair)(params, xs, carry, given)
    earlier = np.broadcast_to(np.arange(T) < 2, (B, T))
    # Newton falls back on a row with a NaN: the scan's numbers, which differ by rounding
    same = functools.partial(assert_close, rounding=1e-13) if pair[1] == Newton() else assert_same
    # forwards the later episode is untouched, backwards the earlier one
    for direction, spoilt, kept in ((0, earlier, slice(2, None)), (1, ~earlier, slice(None, 2))):
        got = everything(*pair)(params, poisoned(xs, spoilt), carry, given)[direction]
        want = clean[direction]
        same(got.carry, want.carry)
        for a, b in ((got.ys, want.ys), (got.gradients.xs, want.gradients.xs)):
            same(at(a, np.s_[:, kept]), at(b, np.s_[:, kept]))


def test_a_reset_begins_with_the_initial_carry_not_the_one_passed_in(pair):
    params, xs, carry = problem(pair[0], (B, T))
    first = NONE.copy()
    first[:, 0] = True
    forward, reverse = everything(*pair)(params, xs, carry, situation(WHOLE, first))
    assert not any(leaf.any() for leaf in jax.tree.leaves(forward.gradients.carry))
    # backwards, nothing comes before step 0
    _, without = everything(*pair)(params, xs, carry, situation(WHOLE, NONE))
    assert_same(reverse, without)


@pytest.mark.parametrize("name", [n for n in CELLS if "learned" in n and n not in PAPERS])
def test_a_learned_carry_gets_its_gradient_through_resets(name):
    cell, method = CELLS[name], METHODS["scan"]
    params, xs, carry = problem(cell, (B, T))
    resets = NONE.copy()
    resets[:, 2] = True
    # a carry was passed in, so that a reset is the only way to the learned one
    for flags, reached in ((resets, True), (NONE, False)):
        for seen in everything(cell, method)(params, xs, carry, situation(WHOLE, flags)):
            for leaf in jax.tree.leaves(seen.gradients.params.initial):
                assert leaf.all() if reached else not leaf.any()


@functools.cache
def pieces(cell, method):
    """One row, nothing but values: as it is, padded, trimmed, and in two pieces."""

    @jax.jit
    def run(params, xs, carry, keys):
        options = dict(method=method)
        trimmed = unroll(cell, params, at(xs, np.s_[:4]), key=keys[:4], **options)
        return dict(
            every=trajectory(cell, params, xs, carry=carry, key=keys, **options),
            trimmed=trimmed,
            padded=unroll(cell, params, xs, key=keys, lengths=4, **options),
            rest=unroll(cell, params, at(xs, np.s_[4:]), carry=trimmed[0], key=keys[4:], **options),
            none=unroll(cell, params, at(xs, np.s_[:0]), carry=carry, key=keys[:0], **options),
        )

    return run


def test_pieces_of_every_length_fit_together(thorough_pair):
    cell, method = thorough_pair
    params, xs, carry = problem(cell, (T,), seed=4)
    keys = jax.random.split(jax.random.key(5), T)
    got = pieces(cell, method)(params, xs, carry, keys)
    step = jax.jit(functools.partial(contract.step, cell))

    def walk(carry):
        carries, ys = [], []
        for t in range(T):
            carry, y = step(params, carry, at(xs, t), keys[t])
            carries.append(carry)
            ys.append(y)
        return jax.tree.map(lambda *a: jnp.stack(a), *carries), jax.tree.map(
            lambda *a: jnp.stack(a), *ys
        )

    carries, ys = walk(carry)
    assert_close(got["every"], (carries, ys))
    assert_same(got["none"], (carry, at(ys, np.s_[:0])))  # T = 0
    # without a carry, a sequence starts from the initial one
    carries, ys = walk(cell.initial_carry(params))
    assert_close(got["trimmed"], (at(carries, 3), at(ys, np.s_[:4])))
    assert_close(got["rest"], (at(carries, -1), at(ys, np.s_[4:])))  # T = 1
    carry, ys = got["padded"]
    assert_close((carry, at(ys, np.s_[:4])), got["trimmed"], 1e-14)
    assert not any(leaf[4:].any() for leaf in jax.tree.leaves(ys))


@pytest.mark.parametrize("name", ["elman-tanh", "lstm", "gru-before-new", "user-tokens"])
def test_more_padding_changes_no_bit(name):
    # of one and the same step, that is: without lengths XLA contracts a multiply and an add
    # elsewhere, and the last bit may differ
    cell = CELLS[name]
    params, xs, carry = problem(cell, (B, T))
    short = [0, 1, 2, 3, 3]
    carry_padded, padded = unroll(cell, params, xs, carry=carry, lengths=short)
    carry_trimmed, trimmed = unroll(cell, params, at(xs, np.s_[:, :3]), carry=carry, lengths=short)
    assert_same((carry_padded, at(padded, np.s_[:, :3])), (carry_trimmed, trimmed))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64])
def test_carry_keeps_structure_shape_and_dtype(pair, dtype):
    cell, method = pair
    params, xs, carry = problem(cell, (2, 3), dtype=dtype)
    given = situation([2, 3], np.ones((2, 3)))

    def run(params, xs, carry):
        return unroll(
            cell,
            params,
            xs,
            carry=carry,
            lengths=given.lengths,
            resets=given.resets,
            key=given.keys,
            method=method,
        )

    after, ys = jax.eval_shape(run, params, xs, carry)
    assert after == jax.eval_shape(lambda c: c, carry)
    for y in jax.tree.leaves(ys):
        assert y.shape[:2] == (2, 3)
        assert y.dtype in (dtype, jnp.bool_)


@pytest.mark.long
@pytest.mark.parametrize(
    ("dtype", "rounding"), [(jnp.float32, 3e-6), (jnp.bfloat16, 0.1)], ids=["float32", "bfloat16"]
)
def test_short_dtypes_give_the_float64_values_to_rounding(thorough_pair, dtype, rounding):
    cell, method = thorough_pair
    params, xs, carry = problem(cell, (B, T), dtype=dtype)
    given = situation(ALL_LENGTHS, EVERYWHERE)
    # noise drawn in another dtype is other noise, so these go without a key
    options = dict(lengths=given.lengths, resets=given.resets, method=method)
    got = unroll(cell, params, xs, carry=carry, **options)

    def wide(a):
        if jnp.issubdtype(a.dtype, jnp.complexfloating):
            return a.astype(jnp.complex128)
        return a.astype(jnp.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a

    def widen(tree):
        return jax.tree.map(wide, tree)

    want = unroll(cell, widen(params), widen(xs), carry=widen(carry), **options)
    assert_close(widen(got), want, rounding)


ONE_OF_EACH_KIND = (
    "elman-tanh",
    "lstm",
    "gru-before-new",
    "gru-after-old-two-biases",
    "user-tokens",
    "stack",
    "residual-feed-back",
)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_product_of_step_jacobians_is_the_jacobian_of_the_unroll(name):
    _jacobians_multiply(CELLS[name], METHODS["scan"])


@pytest.mark.long
def test_product_of_step_jacobians_with_every_method(thorough_pair):
    _jacobians_multiply(*thorough_pair)


def _jacobians_multiply(cell, method):
    params, xs, carry = problem(cell, (T,), seed=10)
    keys = jax.random.split(jax.random.key(7), T)
    flat, back = jaxrnn.flatten_carry(carry)

    @jax.jit
    def both(flat):
        def last(flat):
            after, _ = unroll(cell, params, xs, carry=back(flat), key=keys, method=method)
            return jaxrnn.flatten_carry(after)[0]

        def factor(before, x, key):
            # its own `back`: integers of the carry, such as a counter, are those of this step
            flat, back = jaxrnn.flatten_carry(before)

            def one(flat):
                after, _ = contract.step(cell, params, back(flat), x, key)
                return jaxrnn.flatten_carry(after)[0]

            return jax.jacfwd(one)(flat)

        carries, _ = trajectory(cell, params, xs, carry=back(flat), key=keys, method=method)
        before = jax.tree.map(lambda c, cs: jnp.concatenate([c[None], cs[:-1]]), carry, carries)
        return jax.jacrev(last)(flat), jax.vmap(factor)(before, xs, keys)

    whole, factors = both(flat)
    product = np.eye(flat.size)
    for J in np.asarray(factors):
        product = J @ product  # the newest on the left
    assert np.abs(product).max() > 1e-9  # a product of zeros would prove nothing
    assert_close(whole, jnp.asarray(product))


@pytest.mark.parametrize("name", ["lstm-two-biases-learned", "user-tokens", "user-noisy"])
def test_batch_axes_are_vmap(name):
    cell = CELLS[name]
    params, xs, carry = problem(cell, (2, 3, T))
    keys = jax.random.split(jax.random.key(1), (2, 3))
    lengths = jnp.array([[0, 1, 2], [3, 4, 5]], jnp.int32)
    resets = jax.random.bernoulli(jax.random.key(2), 0.4, (2, 3, T))

    def one(xs, carry, length, resets, key):
        return unroll(cell, params, xs, carry=carry, lengths=length, resets=resets, key=key)

    nested = one(xs, carry, lengths, resets, keys)
    assert_close(jax.vmap(jax.vmap(one))(xs, carry, lengths, resets, keys), nested)
    for i, j in np.ndindex(2, 3):
        row = at((xs, carry, lengths, resets, keys), (i, j))
        assert_close(one(*row), at(nested, (i, j)))


def test_an_ensemble_is_vmap_over_params():
    cell = LSTM(3, 4)
    problems = [problem(cell, (2, T), seed) for seed in range(3)]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(p.params for p in problems))
    _, together = jax.vmap(lambda p: unroll(cell, p, problems[0].xs))(params)
    for i, p in enumerate(problems):
        assert_close(together[i], unroll(cell, p.params, problems[0].xs)[1])


SMALL = LSTM(3, 2, learned_carry=True)


def derivatives(f, params, direction):
    """Forwards, backwards, and forwards over backwards."""
    gradient, along = jax.jvp(jax.grad(f), (params,), (direction,))
    return dict(forward=jax.jvp(f, (params,), (direction,))[1], grad=gradient, hessian=along)


@functools.cache
def small_problem():
    params, xs, carry = problem(SMALL, (2, 3))
    direction = problem(SMALL, (2, 3), seed=9).params
    given = situation([3, 2], [[0, 1, 0], [0, 0, 0]])

    def by_python(params):
        return weighted_sum(by_hand(SMALL, params, xs, carry, given)) ** 2

    return params, xs, carry, direction, given, derivatives(by_python, params, direction)


def _methods(quick):
    return [pytest.param(m, marks=() if m in quick else pytest.mark.long) for m in METHODS]


@pytest.mark.parametrize("method", _methods(quick=("staged",)))
def test_every_derivative_of_jax_works(method):
    params, xs, carry, direction, given, want = small_problem()

    def number(params, carry, given):
        options = dict(lengths=given.lengths, resets=given.resets, method=METHODS[method])
        return weighted_sum(unroll(SMALL, params, xs, carry=carry, **options)) ** 2

    def all_of_them(carry, given):
        return derivatives(lambda p: number(p, carry, given), params, direction)

    # under vmap within vmap, with traced lengths, resets and carry
    once_each = jax.tree.map(lambda a: jnp.stack([a])[None], (carry, given))
    nested = jax.jit(jax.vmap(jax.vmap(all_of_them)))(*once_each)
    assert_close(at(nested, (0, 0)), want, 1e-11)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.long if n == "deep" else ()) for n in BIDIRECTIONAL]
)
def test_lengths_resets_and_noise_in_networks_of_both_directions(name):
    network = BIDIRECTIONAL[name]
    params, xs, carry = problem(network, (B, T), seed=8)
    resets = jax.random.bernoulli(jax.random.key(3), 0.3, (B, T))
    given = situation(ALL_LENGTHS, resets)
    padding = np.arange(T) >= np.array(ALL_LENGTHS)[:, None]

    @jax.jit
    def ours(params, xs, carry):
        options = dict(lengths=given.lengths, resets=given.resets, key=given.keys)
        return see(lambda p, xs, c: unroll(network, p, xs, carry=c, **options), params, xs, carry)

    want = see(lambda p, xs, c: network_by_hand(network, p, xs, c, given), params, xs, carry)
    assert_close(ours(params, xs, carry), want)
    assert_same(ours(params, poisoned(xs, padding), carry), ours(params, xs, carry))


@pytest.mark.parametrize(
    "cell",
    [Noisy(), *(pytest.param(n, marks=pytest.mark.long) for n in (STACK, Stepping(STACK)))],
    ids=["cell", "stack", "step"],
)
def test_noise_belongs_to_the_row_and_the_step(cell):
    params, xs, carry = problem(cell, (2, T))
    key = jax.random.key(11)
    rows = jnp.stack([jax.random.fold_in(key, b) for b in range(2)])
    steps = jnp.stack([jnp.stack([jax.random.fold_in(row, t) for t in range(T)]) for row in rows])
    whole = unroll(cell, params, xs, carry=carry, key=key)
    assert_same(unroll(cell, params, xs, carry=carry, key=rows), whole)
    assert_same(unroll(cell, params, xs, carry=carry, key=steps), whole)
    # one step at a time, as in streaming
    for b in range(2):
        c = at(carry, b)
        for t in range(T):
            c, y = contract.step(cell, params, c, xs[b, t], jax.random.fold_in(rows[b], t))
            assert_close(y, whole[1][b, t])
    # in pieces that say where they begin
    middle, first = unroll(cell, params, xs[:, :2], carry=carry, key=key)
    last, second = unroll(cell, params, xs[:, 2:], carry=middle, key=key, start=2)
    assert_close((last, jnp.concatenate([first, second], axis=1)), whole)
    # equal rows draw different noise, and no key means none
    twice = xs[:1].repeat(2, axis=0)
    _, ys = unroll(cell, params, twice, key=key)
    assert not np.array_equal(ys[0], ys[1])
    _, ys = unroll(cell, params, twice)
    assert_same(ys[0], ys[1])


def test_row_keys_count_rows_of_nested_batch_axes_one_after_the_other():
    params, xs, _ = problem(Noisy(), (6, T))
    key = jax.random.key(0)
    _, flat = unroll(Noisy(), params, xs, key=key)
    _, nested = unroll(Noisy(), params, xs.reshape(2, 3, *xs.shape[1:]), key=key)
    assert_same(nested.reshape(flat.shape), flat)


def test_dropout_is_between_layers_and_keeps_the_mean():
    pass_on = Elman(3, 3, "identity", biases=0)
    eye, zero = jnp.eye(3), jnp.zeros((3, 3))
    params = pass_on.init(jax.random.key(0), jnp.float64)._replace(W_x=eye, W_h=zero)
    xs = jnp.ones((4, 1000, 3))
    _, ys = unroll(Stack((pass_on, pass_on), 0.25), (params,) * 2, xs, key=jax.random.key(1))
    assert set(np.unique(ys)) == {0.0, 1 / 0.75}
    # 12000 draws: five standard deviations of the mean
    assert abs(ys.mean() - 1) < 5 * math.sqrt(0.25 / 0.75 / ys.size)
    # after the last layer nothing is dropped, and one layer has nothing between
    _, ys = unroll(Stack((pass_on,), 0.25), (params,), xs, key=jax.random.key(1))
    assert_same(ys, xs)


@pytest.mark.parametrize("name", [name for name in CELLS if name != "user-plain"])
def test_a_rebuilt_cell_is_the_same_cell(name):
    cell = CELLS[name]
    again = rebuilt(cell)
    assert again is not cell
    assert again == cell and hash(again) == hash(cell)


def rebuilt(value):
    """The same dataclass made once more, and all that it is made of."""
    if isinstance(value, tuple):
        return tuple(map(rebuilt, value))
    if not dataclasses.is_dataclass(value):
        return value
    fields = dataclasses.fields(value)
    return type(value)(**{field.name: rebuilt(getattr(value, field.name)) for field in fields})


TRACES = []


@dataclasses.dataclass(frozen=True)
class Counted:
    """Counts how often its step is traced."""

    size: int

    def initial_carry(self, params):
        return jnp.zeros(self.size)

    def step(self, params, carry, x):
        TRACES.append(self.size)
        return carry * params + x, carry


@pytest.mark.parametrize("method", METHODS)
def test_a_rebuilt_cell_is_not_traced_again(method):
    def run(size):
        return unroll(Counted(size), jnp.ones(()), jnp.ones((T, size)), method=again(method))

    def again(method):
        return dataclasses.replace(METHODS[method])

    run(2)
    before = len(TRACES)
    for _ in range(3):
        run(2)
    assert len(TRACES) == before
    run(3)  # else the counter proves nothing
    assert len(TRACES) > before


def test_cells_and_methods_pass_through_jit_as_arguments():
    compiled = jax.jit(unroll)
    params, xs, _ = problem(GRU(3, 4), (2, T))
    for _ in range(3):
        compiled(GRU(3, 4), params, xs, method=Scan(unroll=3))
    assert compiled._cache_size() == 1


def test_traced_lengths_are_clipped():
    cell = Elman(3, 4)
    params, xs, _ = problem(cell, (2, T))
    # of a dtype too short for T as well
    for dtype in (jnp.int64, jnp.int8):
        got = jax.jit(lambda n: unroll(cell, params, xs, lengths=n))(jnp.array([-3, 99], dtype))
        assert_same(got, unroll(cell, params, xs, lengths=[0, T]))


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.int64, jnp.uint8])
def test_lengths_may_have_any_integer_dtype(dtype):
    cell = Elman(3, 4)
    params, xs, _ = problem(cell, (2, T))
    want = unroll(cell, params, xs, lengths=[2, 3], method=Loop())
    got = unroll(cell, params, xs, lengths=jnp.array([2, 3], dtype), method=Loop())
    assert_same(got, want)
