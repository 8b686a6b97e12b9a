"""Networks against the same written in plain Python, row by row and step by step.

Nothing here but the cells' own steps and NumPy: no `where`, `scan` or `vmap` of ours.
"""

import functools
import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from oracle import assert_close, assert_same, situation
from rows import Noisy, Tokens, problem
from test_errors import says

import jaxrnn
from jaxrnn import GRU, LSTM, Elman, LSTMCarry, trajectory, unroll
from jaxrnn import cell as contract
from jaxrnn.network import (
    Bidirectional,
    BidirectionalCarry,
    BidirectionalOutputs,
    Delay,
    DropConnect,
    FastSlow,
    FastSlowCarry,
    MaskedCarry,
    Normalized,
    Pooled,
    Readout,
    Residual,
    SeedCarry,
    Stack,
    VariationalDropout,
    Zoneout,
)

I, H = 3, 4
B, T = 4, 6
LENGTHS = (6, 4, 1, 0)
RESETS = np.zeros((B, T), bool)
RESETS[0, [2, 3]] = RESETS[1, 1] = RESETS[2, 0] = True
GIVEN = situation(LENGTHS, RESETS, 5)
OPTIONS = dict(lengths=GIVEN.lengths, resets=GIVEN.resets, key=GIVEN.keys)


def at(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def by_hand(step, initial, xs, carry, first=None, reverse=False):
    """Every row of GIVEN: step(carry, x, key, key of the episode's first step) -> (carry, y).

    first: the key of the first step, for each row, where an episode has begun before.
    """
    rows, step = [], jax.jit(step)
    for b in range(B):
        c, seed, ys = at(carry, b), None if first is None else first[b], {}
        for t in reversed(range(LENGTHS[b])) if reverse else range(LENGTHS[b]):
            begins = t + 1 < LENGTHS[b] and RESETS[b, t + 1] if reverse else RESETS[b, t]
            if begins:
                c, seed = initial, None
            seed = GIVEN.keys[b, t] if seed is None else seed
            c, ys[t] = step(c, at(xs, (b, t)), GIVEN.keys[b, t], seed)
        rows.append((c, ys))
    shape = next(jnp.shape(y) for _, ys in rows for y in ys.values())
    ys = [[ys.get(t, jnp.zeros(shape)) for t in range(T)] for _, ys in rows]
    return stacked([c for c, _ in rows]), jnp.stack([jnp.stack(row) for row in ys])


def undrawn(layer):
    """What a masked network starts from, for each row."""
    return MaskedCarry(layer, SeedCarry(jnp.zeros((B, 2), jnp.uint32), jnp.zeros(B, bool)))


def masks(first, part, rate, shape):
    """What an episode multiplies with, from the key of its first step."""
    bits = jax.random.bits(jax.random.fold_in(first, 1), (2,), jnp.uint32)
    key = jax.random.fold_in(jax.random.wrap_key_data(bits, impl="threefry2x32"), part)
    return kept(key, 1 - rate, shape)


def kept(key, probability, shape):
    """1/probability, or zero."""
    return jax.random.bernoulli(key, probability, shape).astype(jnp.float64) / probability


def logistic(a):
    return 1 / (1 + jnp.exp(-a))


def lstm(params, carry, x, m_h=1.0, M=1.0):
    W_h = params.W_h * M
    a = [params.W_x[k] @ x + params.b[k] + W_h[k] @ (m_h * carry.h) for k in range(4)]
    c = logistic(a[1]) * carry.c + logistic(a[0]) * jnp.tanh(a[2])
    h = logistic(a[3]) * jnp.tanh(c)
    return LSTMCarry(h, c), h


def gru(params, carry, x, m_h):
    (W_r, W_z, W_n), (U_r, U_z, U_n), b = params.W_x, params.W_h, params.b
    h = carry.h
    r = logistic(W_r @ x + b[0] + U_r @ (m_h * h))
    z = logistic(W_z @ x + b[1] + U_z @ (m_h * h))
    n = jnp.tanh(W_n @ x + b[2] + U_n @ (m_h * r * h))
    h = (1 - z) * h + z * n  # the h that leaks is whole
    return carry._replace(h=h), h


# ---- both directions


@pytest.mark.parametrize(
    "merge",
    [
        pytest.param(m, marks=pytest.mark.long if m == "average" else ())
        for m in ("concatenate", "sum", "average", None)
    ],
)
def test_directions_are_merged(merge):
    network = Bidirectional(LSTM(I, H), Noisy(), merge=merge)
    params, xs, carry = problem(network, (B, T))
    options = dict(lengths=GIVEN.lengths, resets=GIVEN.resets)
    k = [jax.vmap(jax.vmap(lambda k, i=i: jax.random.fold_in(k, i)))(GIVEN.keys) for i in (0, 1)]
    there, ys = unroll(LSTM(I, H), params.forward, xs, carry=carry.forward, key=k[0], **options)
    back, zs = unroll(
        Noisy(), params.backward, xs, carry=carry.backward, key=k[1], reverse=True, **options
    )
    want = {
        "concatenate": jnp.concatenate([ys, zs], axis=-1),
        "sum": ys + zs,
        "average": (ys + zs) / 2,
        None: BidirectionalOutputs(ys, zs),
    }[merge]
    got = unroll(network, params, xs, carry=carry, **OPTIONS)
    assert_close(got, (BidirectionalCarry(there, back), want))
    sizes = {"concatenate": 2 * H, None: (H, H)}
    assert network.output_size == sizes.get(merge, H)


@pytest.mark.parametrize("pool", ["linear", "logarithmic"])
def test_opinions_are_pooled(pool):
    network = Pooled(Readout(LSTM(I, H), 3), Readout(Elman(I, 2), 3), pool)
    params, xs, carry = problem(network, (B, T))
    options = dict(lengths=GIVEN.lengths, resets=GIVEN.resets)
    _, there = unroll(network.forward, params.forward, xs, carry=carry.forward, **options)
    _, back = unroll(
        network.backward, params.backward, xs, carry=carry.backward, reverse=True, **options
    )
    p, q = np.exp(there), np.exp(back)
    p, q = (np.asarray(a / a.sum(axis=-1, keepdims=True)) for a in (p, q))
    both = (p + q) / 2 if pool == "linear" else np.sqrt(p * q)
    want = np.log(both / both.sum(axis=-1, keepdims=True))
    want[np.arange(T) >= np.array(LENGTHS)[:, None]] = 0
    _, got = unroll(network, params, xs, carry=carry, **options)
    assert_close(got, jnp.asarray(want))
    assert network.output_size == 3


# ---- noise


@pytest.mark.parametrize("reverse", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize(("kind", "paper"), [(LSTM, lstm), (GRU, gru)], ids=["lstm", "gru"])
def test_variational_dropout(kind, paper, reverse):
    cell = kind(I, H)
    network = VariationalDropout(cell, 0.3, 0.4, 0.2)
    params, xs, carry = problem(network, (B, T))

    def step(carry, x, key, first):
        m_h = masks(first, 2, 0.4, (H,))
        carry, y = paper(params, carry, x * masks(first, 0, 0.3, (I,)), m_h)
        return carry, y * masks(first, 1, 0.2, (H,))

    want = by_hand(step, cell.initial_carry(params), xs, carry.layer, reverse=reverse)
    started = undrawn(carry.layer)
    got, ys = unroll(network, params, xs, carry=started, reverse=reverse, **OPTIONS)
    assert_close((got.layer, ys), want)
    # a row without a step draws nothing
    assert_same(got.seed.drawn, jnp.array([True, True, True, False]))


def test_variational_dropout_masks_the_carry_of_a_cell_without_stages():
    cell = Plainer()
    network = VariationalDropout(cell, recurrent_rate=0.4)
    params, xs, carry = problem(network, (B, T))

    def step(carry, x, key, first):
        return cell.step(params, LSTMCarry(carry.h * masks(first, 2, 0.4, (H,)), carry.c), x)

    want = by_hand(step, cell.initial_carry(params), xs, carry.layer)
    got, ys = unroll(network, params, xs, carry=undrawn(carry.layer), **OPTIONS)
    assert_close((got.layer, ys), want)


class Plainer:
    """An LSTM of somebody else."""

    input_size, output_size = I, H

    def init(self, key, dtype=jnp.float32):
        return LSTM(I, H).init(key, dtype)

    def initial_carry(self, params):
        return LSTM(I, H).initial_carry(params)

    def step(self, params, carry, x):
        return lstm(params, carry, x)


@pytest.mark.parametrize("reverse", [False, pytest.param(True, marks=pytest.mark.long)])
def test_drop_connect(reverse):
    cell = LSTM(I, H, learned_carry=True)
    network = DropConnect(cell, 0.4)
    params, xs, carry = problem(network, (B, T))
    place = [path[-1].name for path, _ in jax.tree_util.tree_leaves_with_path(params)].index("W_h")

    def step(carry, x, key, first):
        return lstm(params, carry, x, M=masks(first, place, 0.4, (4, H, H)))

    want = by_hand(step, params.initial, xs, carry.layer, reverse=reverse)
    started = undrawn(carry.layer)
    got, ys = unroll(network, params, xs, carry=started, reverse=reverse, **OPTIONS)
    assert_close((got.layer, ys), want)


def test_drop_connect_of_one_mask_for_a_batch():
    network = DropConnect(Stack((LSTM(I, 30), GRU(30, 40))), 0.3)
    params = problem(network, (2, T)).params
    dropped = network.drop(params, jax.random.key(0))
    for old, new in zip(params, dropped, strict=True):
        assert_same(new._replace(W_h=old.W_h), old)
        left = np.asarray(new.W_h != 0)
        assert_close(new.W_h[left], old.W_h[left] / 0.7)
        assert abs(left.mean() - 0.7) < 5 * math.sqrt(0.3 * 0.7 / left.size)
    assert_same(network.drop(params, None), params)


@pytest.mark.parametrize("reverse", [False, True])
def test_zoneout_keeps_at_random(reverse):
    cell = LSTM(I, H, learned_carry=True)
    network = Zoneout(cell, (("h", 0.3), ("c", 0.6)))
    params, xs, carry = problem(network, (B, T))

    def step(before, x, key, first):
        after, _ = lstm(params, before, x)
        own = jax.random.fold_in(key, 1)
        draws = [
            jax.random.bernoulli(jax.random.fold_in(own, i), rate, (H,))
            for i, rate in enumerate((0.3, 0.6))
        ]
        h = jnp.where(draws[0], before.h, after.h)
        return LSTMCarry(h, jnp.where(draws[1], before.c, after.c)), h

    want = by_hand(step, params.initial, xs, carry, reverse=reverse)
    assert_close(unroll(network, params, xs, carry=carry, reverse=reverse, **OPTIONS), want)


def test_zoneout_without_a_key_keeps_on_average():
    network = Zoneout(LSTM(I, H), (("c", 0.25),))
    params, xs, carry = problem(network, (B, T))

    def step(before, x, key, first):
        after, h = lstm(params, before, x)
        return LSTMCarry(h, 0.25 * before.c + 0.75 * after.c), h

    want = by_hand(step, network.initial_carry(params), xs, carry)
    options = dict(lengths=GIVEN.lengths, resets=GIVEN.resets)
    assert_close(unroll(network, params, xs, carry=carry, **options), want)


def test_zoneout_at_one_rate_and_with_an_output_that_is_not_carried():
    params, xs, carry = problem(Elman(I, H), (B, T))
    one = unroll(Zoneout(Elman(I, H), 0.3), params, xs, carry=carry, key=GIVEN.keys)
    named = unroll(Zoneout(Elman(I, H), (("h", 0.3),)), params, xs, carry=carry, key=GIVEN.keys)
    assert_same(one, named)
    raw, ys = unroll(Zoneout(Elman(I, H), 0.3, None), params, xs, carry=carry, key=GIVEN.keys)
    assert_same(raw, one[0])
    assert 0.15 < np.mean(ys != one[1]) < 0.45
    # an integer in the carry goes on counting
    params, xs, carry = problem(Tokens(), (B, T))
    after, _ = unroll(Zoneout(Tokens(), 0.9), params, xs, carry=carry, key=GIVEN.keys)
    assert_same(after["seen"], carry["seen"] + T)


PASS_ON = Elman(I, I, "identity", biases=0)
EYE = PASS_ON.init(jax.random.key(0), jnp.float64)._replace(W_x=jnp.eye(I), W_h=jnp.zeros((I, I)))


def test_a_mask_is_constant_in_time_new_at_a_reset_and_of_the_right_rate():
    network = VariationalDropout(PASS_ON, 0.25)
    rows, cut = 1000, 3
    xs = jnp.ones((rows, T, I))
    resets = jnp.zeros((rows, T), bool).at[:, cut].set(True)
    _, ys = unroll(network, EYE, xs, key=jax.random.key(1), resets=resets)
    assert set(np.unique(ys)) == {0.0, 1 / 0.75}
    for piece in (ys[:, :cut], ys[:, cut:]):
        assert_same(piece, jnp.broadcast_to(piece[:, :1], piece.shape))
    first, second = ys[:, 0], ys[:, cut]
    for mask in (first, second):
        assert abs(mask.mean() - 1) < 5 * math.sqrt(0.25 / 0.75 / mask.size)
    # independent: rows, entries and episodes are equal as often as chance has it
    alike = 0.25**2 + 0.75**2
    for a, b in ((first, second), (first[1:], first[:-1]), (first[:, 1:], first[:, :-1])):
        assert abs(np.mean(a == b) - alike) < 5 * math.sqrt(alike * (1 - alike) / a.size)
    # without the reset the mask of the first step stays
    _, whole = unroll(network, EYE, xs, key=jax.random.key(1))
    assert_same(whole[:, :cut], ys[:, :cut])
    assert_same(whole[:, cut], first)


def test_keys_of_any_kind_draw_masks():
    network = VariationalDropout(PASS_ON, 0.5)
    carries = [
        unroll(network, EYE, jnp.ones((T, I)), key=jax.random.key(0, impl=kind))[0]
        for kind in ("threefry2x32", "rbg")
    ]
    assert jax.tree.map(jnp.shape, carries[0]) == jax.tree.map(jnp.shape, carries[1])


MASKED = [
    VariationalDropout(LSTM(I, H, learned_carry=True), 0.3, 0.3, 0.3),
    VariationalDropout(Noisy(), 0.3),
    DropConnect(LSTM(I, H), 0.4),
]
CAUSAL = [
    *MASKED,
    Zoneout(VariationalDropout(LSTM(I, H), 0.2), 0.4),
    Normalized(LSTM(I, H)),
    FastSlow((Elman(I, H), Elman(H, H), Elman(0, H)), Noisy(H), 0.3),
    Stack((VariationalDropout(LSTM(I, H), 0.3, 0.3), Residual(Zoneout(GRU(H, H), 0.3))), 0.3),
]


# compiling is what costs: one of each kind at once, the others in the long run
@pytest.mark.parametrize(
    "network",
    [n if i == 0 else pytest.param(n, marks=pytest.mark.long) for i, n in enumerate(CAUSAL)],
    ids=lambda n: type(n).__name__,
)
def test_streaming_equals_the_whole(network):
    params, xs, carry = problem(network, (2, T))
    key = jax.random.key(11)
    whole = trajectory(network, params, xs, carry=carry, key=key)
    last, ys = unroll(network, params, xs, carry=carry, key=key)
    assert_close((at(whole[0], np.s_[:, -1]), whole[1]), (last, ys))
    step = jax.jit(functools.partial(contract.step, network))
    for b in range(2):
        c, row = at(carry, b), jax.random.fold_in(key, b)
        for t in range(T):
            c, y = step(params, c, xs[b, t], jax.random.fold_in(row, t))
            assert_close((c, y), at(whole, (b, t)))
    # in pieces that say where they begin
    middle, first = unroll(network, params, xs[:, :2], carry=carry, key=key)
    got, second = unroll(network, params, xs[:, 2:], carry=middle, key=key, start=2)
    assert_close((got, jnp.concatenate([first, second], axis=1)), (last, ys))


@pytest.mark.parametrize("network", MASKED[::2], ids=lambda n: type(n).__name__)
def test_without_a_key_nothing_is_dropped(network):
    params, xs, carry = problem(network, (B, T))
    options = dict(lengths=GIVEN.lengths, resets=GIVEN.resets)
    for reverse in (False, True):
        want = unroll(network.layer, params, xs, carry=carry.layer, reverse=reverse, **options)
        got, ys = unroll(network, params, xs, carry=carry, reverse=reverse, **options)
        assert_close((got.layer, ys), want)
    stepped, y = network.step(params, at(carry, 0), xs[0, 0])
    assert_close((stepped.layer, y), network.layer.step(params, at(carry.layer, 0), xs[0, 0]))


# ---- composition


def test_fast_slow():
    fast = (LSTM(I, H, learned_carry=True), LSTM(5, H), LSTM(0, H), LSTM(2, H))
    network = FastSlow(fast, GRU(H, 5), dropout=0.3)
    params, xs, carry = problem(network, (B, T))

    def step(carry, x, key, first):
        F = [lambda c, x, i=i: fast[i].step(params.fast[i], c, x) for i in range(4)]
        (c, y), total = F[0](carry.fast, x), 5
        slow, y = network.slow.step(params.slow, carry.slow, y * dropped(key, total + 1, H))
        c, y = F[1](c, y * dropped(key, total, 5))
        c, y = F[2](c, jnp.zeros(0))
        c, y = F[3](c, jnp.zeros(2))
        return FastSlowCarry(c, slow), y

    def dropped(key, number, size):
        return kept(jax.random.fold_in(key, number), 0.7, (size,))

    initial = FastSlowCarry(params.fast[0].initial, network.slow.initial_carry(params.slow))
    want = by_hand(step, initial, xs, carry)
    assert_close(unroll(network, params, xs, carry=carry, **OPTIONS), want)
    assert network.output_size == H and network.input_size == I


@pytest.mark.parametrize("centre", [True, False])
def test_normalized(centre):
    network = Normalized(LSTM(I, H), centre, 0.01)
    params, xs, carry = problem(network, (B, T))
    options = dict(carry=carry, lengths=GIVEN.lengths, resets=GIVEN.resets)
    after, ys = unroll(network.layer, params.layer, xs, **options)
    ys = np.array(ys)
    for b, t in np.ndindex(B, T):
        y = ys[b, t].copy()
        if centre:
            y = params.gain * (y - y.mean()) / np.sqrt(y.var() + 0.01) + params.bias
        else:
            y = params.gain * y / np.sqrt(np.mean(y**2) + 0.01)
        ys[b, t] = y if t < LENGTHS[b] else 0.0
    assert_close(unroll(network, params, xs, **options), (after, jnp.asarray(ys)))
    drawn = network.init(jax.random.key(0), jnp.bfloat16)
    assert (drawn.gain == 1).all() and (drawn.bias is None) == (not centre)
    _, y = network.step(drawn, network.initial_carry(drawn), jnp.ones(I, jnp.bfloat16))
    assert y.dtype == jnp.bfloat16


def episodes(length, resets):
    """(first, one behind the last) of every episode of a row."""
    starts = [t for t in range(length) if t == 0 or resets[t]]
    return list(zip(starts, [*starts[1:], length], strict=True)) if length else []


BOTH = (False, True)
DELAYS = [(M, resets, reverse) for M in (1, 2, 7) for resets in BOTH for reverse in BOTH]
QUICK_DELAYS = [(1, False, True), (2, True, False), (7, False, False)]


@pytest.mark.parametrize(
    ("steps", "with_resets", "reverse"),
    [d if d in QUICK_DELAYS else pytest.param(*d, marks=pytest.mark.long) for d in DELAYS],
)
def test_delay(steps, with_resets, reverse):
    layer = LSTM(I, H, learned_carry=True)
    network, step = Delay(layer, steps), jax.jit(layer.step)
    params, xs, carry = problem(network, (B, T))
    resets = RESETS if with_resets else np.zeros_like(RESETS)
    want, final = np.zeros((B, T, H)), []
    for b in range(B):
        c, spans = at(carry, b), episodes(LENGTHS[b], resets[b])
        for first, end in reversed(spans) if reverse else spans:
            begun_before = end == LENGTHS[b] if reverse else not resets[b, first]
            c, out = c if begun_before else params.initial, []
            order = [*range(first, end)][:: -1 if reverse else 1]
            for t in order:
                c, y = step(params, c, xs[b, t])
                out.append(y)
            beyond = c
            for _ in range(steps):
                beyond, y = step(params, beyond, jnp.zeros(I))
                out.append(y)
            for place, t in enumerate(order):
                want[b, t] = out[place + steps]
        final.append(c)
    options = dict(lengths=GIVEN.lengths, resets=jnp.asarray(resets) if with_resets else None)
    got = unroll(network, params, xs, carry=carry, reverse=reverse, **options)
    assert_close(got, (stacked(final), jnp.asarray(want)))
    every, ys = trajectory(network, params, xs, carry=carry, reverse=reverse, **options)
    one, _ = trajectory(layer, params, xs, carry=carry, reverse=reverse, **options)
    assert_close((every, ys), (one, got[1]))
    # no value crosses a reset or comes out of padding
    spoilt = xs.at[1, 4:].set(jnp.nan)
    if with_resets:
        spoilt = spoilt.at[0, slice(3, None) if reverse else slice(0, 3)].set(jnp.nan)
    _, ys = unroll(network, params, spoilt, carry=carry, reverse=reverse, **options)
    clean = np.s_[:3] if reverse else np.s_[3:]
    assert_same(ys[1:], got[1][1:])
    if with_resets:
        assert_same(ys[0, clean], got[1][0, clean])


@pytest.mark.long
@pytest.mark.parametrize(
    "layer", [Noisy(), VariationalDropout(LSTM(I, H), 0.3, 0.3)], ids=["cell", "mask"]
)
def test_delay_hands_noise_to_its_layer(layer):
    network = Delay(layer, 2)
    params, xs, carry = problem(network, (2, T))
    key = jax.random.key(3)
    rows = [jax.random.fold_in(key, b) for b in range(2)]
    keys = stacked([jnp.stack([jax.random.fold_in(row, t) for t in range(T)]) for row in rows])
    own = jax.vmap(jax.vmap(lambda k: jax.random.fold_in(k, 0)))(keys)
    after, ys = unroll(layer, params, xs, carry=carry, key=own)
    never = jnp.zeros((2, T), bool)
    for resets in (None, never):
        got = unroll(network, params, xs, carry=carry, key=key, resets=resets)
        assert_close((got[0], got[1][:, :-2]), (after, ys[:, 2:]))
    assert_close(got, unroll(network, params, xs, carry=carry, key=key))
    _, single = unroll(network, params, xs[0], carry=at(carry, 0), key=rows[0])
    assert_close(single, got[1][0])


@pytest.mark.long
def test_networks_of_networks():
    network = Readout(
        Stack(
            (
                VariationalDropout(Bidirectional(Zoneout(Elman(I, H), 0.2), merge="sum"), 0.2),
                Delay(Normalized(DropConnect(Elman(H, H), 0.2)), 2),
                FastSlow((Elman(H, 2), Elman(2, 2)), Elman(2, 2)),
            )
        ),
        2,
    )
    params, xs, carry = problem(network, (B, T))

    @jax.jit
    def run(xs):
        def loss(params):
            ys = unroll(network, params, xs, carry=carry, **OPTIONS)[1]
            return jnp.sum(ys**2), ys

        return jax.grad(loss, has_aux=True)(params)

    padding = np.arange(T) >= np.array(LENGTHS)[:, None]
    clean = run(xs)
    assert_same(run(jnp.where(padding[..., None], jnp.nan, xs)), clean)
    assert not clean[1][padding].any() and clean[1].any()


@pytest.mark.parametrize(
    "network",
    [
        FastSlow((Elman(I, H), Elman(5, H)), Elman(H, 5), 0.3),
        Zoneout(LSTM(I, H), (("h", 0.3), ("c", 0.6))),
        Pooled(Readout(LSTM(I, H), 3), pool="logarithmic"),
        *(
            pytest.param(network, marks=pytest.mark.long)
            for network in (
                *CAUSAL[:1],
                *CAUSAL[2:5],
                Delay(LSTM(I, H), 2),
                Bidirectional(LSTM(I, H), merge=None),
            )
        ),
    ],
    ids=lambda n: type(n).__name__,
)
def test_networks_are_saved_and_loaded(network, tmp_path):
    params = network.init(jax.random.key(0))
    jaxrnn.save(tmp_path / "file", network, params)
    again, loaded = jaxrnn.load(tmp_path / "file")
    assert again == network and hash(again) == hash(network)
    assert_same(loaded, params)


def test_a_seed_is_no_part_of_the_flattened_carry():
    _, _, carry = problem(MASKED[0], (T,))
    vector, back = jaxrnn.flatten_carry(carry)
    assert vector.size == 2 * H  # the seed is held constant and not counted
    assert_same(back(vector), carry)


# ---- errors


@pytest.fixture
def without_type_checker():
    """Sentences as users meet them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("without_type_checker")
class TestErrors:
    """By their sentences."""

    def test_merges(self):
        with says(ValueError, "merge must be 'concatenate', 'sum', 'average' or None, got 'mean'"):
            Bidirectional(LSTM(I, H), merge="mean")
        with says(ValueError, "merge='sum' needs equally many", "LSTM gives 4", "GRU 5"):
            Bidirectional(LSTM(I, H), GRU(I, 5), merge="sum")
        apart = Bidirectional(LSTM(I, H), merge=None)
        with says(ValueError, "Readout needs one number", "output_size of Bidirectional is (4, 4)"):
            Readout(apart, 2).init(jax.random.key(0))
        with says(ValueError, "Pooled: pool must be 'linear' or 'logarithmic', got 'mean'"):
            Pooled(LSTM(I, H), pool="mean")
        with says(ValueError, "Pooled: pooling needs equally many outputs"):
            Pooled(LSTM(I, H), LSTM(I, 2))
        with says(ValueError, "Pooled: the forward LSTM reads 3 features, the backward LSTM 2"):
            Pooled(LSTM(I, H), LSTM(2, H))

    @pytest.mark.parametrize("rate", [1.0, -0.1, True, "0.5"])
    def test_rates(self, rate):
        for field in ("input_rate", "recurrent_rate", "output_rate"):
            with says(ValueError, f"VariationalDropout: {field} must be in [0, 1), got {rate!r}"):
                VariationalDropout(LSTM(I, H), **{field: rate})
        with says(ValueError, f"DropConnect: rate must be in [0, 1), got {rate!r}"):
            DropConnect(LSTM(I, H), rate)
        with says(ValueError, f"Zoneout: rates must be in [0, 1), got {rate!r}"):
            Zoneout(LSTM(I, H), rate)
        with says(ValueError, f"Zoneout: the rate of 'c' must be in [0, 1), got {rate!r}"):
            Zoneout(LSTM(I, H), (("c", rate),))
        with says(ValueError, f"FastSlow: dropout must be in [0, 1), got {rate!r}"):
            FastSlow((Elman(I, H), Elman(2, H)), Elman(H, 2), rate)

    def test_what_cannot_be_masked(self):
        with says(ValueError, "VariationalDropout: recurrent_rate needs a cell, got a network"):
            VariationalDropout(Stack((LSTM(I, H),)), recurrent_rate=0.2)
        network = VariationalDropout(Noisy(), recurrent_rate=0.2)
        params, xs, _ = problem(network, (T,))
        with says(
            ValueError, "a cell with stages, or a carry with a field h; Noisy has float64[4]"
        ):
            unroll(network, params, xs)
        network = DropConnect(LSTM(I, H), 0.2, weights=("U",))
        params, xs, _ = problem(network, (T,))
        with says(ValueError, "params of LSTM have no field 'U', but 'W_h', 'W_x', 'b'"):
            unroll(network, params, xs)
        with says(ValueError, "DropConnect: weights must be a tuple of names, got 'W_h'"):
            DropConnect(LSTM(I, H), 0.2, weights="W_h")
        both = Bidirectional(LSTM(I, H))
        with says(ValueError, "DropConnect: Bidirectional cannot go step by step"):
            DropConnect(both, 0.2)
        with says(ValueError, "Zoneout: Bidirectional cannot go step by step"):
            Zoneout(both, 0.2)

    def test_zoneout_of_no_field(self):
        for network in (Zoneout(LSTM(I, H), (("s", 0.1),)), Zoneout(LSTM(I, H), 0.1, "s")):
            params, xs, _ = problem(network, (T,))
            with says(ValueError, "the carry of LSTM has no field 's', but 'h', 'c'"):
                unroll(network, params, xs)
        with says(ValueError, "Zoneout: rates must be a number or pairs", "got (0.1, 0.5)"):
            Zoneout(LSTM(I, H), (0.1, 0.5))

    def test_fast_slow_that_does_not_fit(self):
        with says(ValueError, "fast must be a tuple of at least two cells"):
            FastSlow((LSTM(I, H),), LSTM(H, 2))
        with says(
            ValueError, "FastSlow: LSTM gives 4 features", "GRU that reads them", "input_size=5"
        ):
            FastSlow((LSTM(I, H), LSTM(2, H)), GRU(5, 2))
        with says(ValueError, "FastSlow: Bidirectional cannot go step by step"):
            FastSlow((LSTM(I, H), LSTM(8, H)), Bidirectional(LSTM(H, H)))
        network = FastSlow((LSTM(I, H), GRU(2, H)), GRU(H, 2))
        params, xs, carry = problem(network, (T,))
        with says(
            ValueError, "the fast GRU has the carry GRUCarry(", "first fast cell hands it LSTM"
        ):
            unroll(network, params, xs, carry=carry)

    def test_delay(self):
        for steps in (0, -1, 1.0, True):
            with says(ValueError, f"Delay: steps must be an int of at least 1, got {steps!r}"):
                Delay(LSTM(I, H), steps)
        with says(ValueError, "Delay: Bidirectional cannot go step by step, and needs no delay"):
            Delay(Bidirectional(LSTM(I, H)), 2)
        network = Delay(LSTM(I, H), 2)
        params, xs, carry = problem(network, (T,))
        with says(TypeError, "Delay cannot go step by step", "2 steps ago", "at t + 2"):
            Stack((network,)).step((params,), (carry,), xs[0])
        pooled = Pooled(LSTM(I, H))
        with says(TypeError, "Pooled cannot go step by step: its backward direction needs"):
            pooled.step(None, None, xs[0])
        params, xs, _ = problem(pooled, (T,))
        with says(ValueError, "Pooled goes both ways already: reverse=True has no meaning"):
            unroll(pooled, params, xs, reverse=True)

    def test_normalized(self):
        with says(ValueError, "Normalized: epsilon must be positive, got 0"):
            Normalized(LSTM(I, H), epsilon=0)
