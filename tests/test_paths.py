"""Paths through gated cells against the textbook's derivatives, and against counting all ways."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import analysis
from jaxrnn.analysis.paths import gradient_paths, path_jacobians
from jaxrnn.plot import flow as plot

B, T = 2, 6
LENGTHS = jnp.array([6, 4])
RESETS = jnp.zeros((B, T), bool).at[0, 2].set(True)
GATED = {
    "PeepholeLSTM": jaxrnn.PeepholeLSTM(2, 3),
    "CoupledLSTM": jaxrnn.CoupledLSTM(2, 3, peepholes=True),
    "GRU after": jaxrnn.GRU(2, 3, reset="after", update_weighs="old", biases=2),
    "MGU": jaxrnn.MGU(2, 3),
    "UGRNN": jaxrnn.UGRNN(2, 3),
    "JANET": jaxrnn.JANET(2, 3),
    "MinimalRNN": jaxrnn.MinimalRNN(2, 3),
    "LayerNormLSTM": jaxrnn.LayerNormLSTM(2, 3),
    "Elman": jaxrnn.Elman(2, 3),
    "minGRU": jaxrnn.MinGRU(2, 3),
    "ConvLSTM": jaxrnn.ConvLSTM((2, 1), 1, (2,)),
    "Stack": jaxrnn.Stack((jaxrnn.LSTM(2, 2), jaxrnn.GRU(2, 3))),
    "Clockwork": jaxrnn.Clockwork(2, 4, periods=(1, 2)),
    "Jordan": jaxrnn.Jordan(2, 3, 2, output_activation="tanh"),
    "RHN": jaxrnn.RHN(2, 3, depth=3, coupled=False),
    "SLSTM": jaxrnn.SLSTM(2, 4, heads=2),
}


def setup(cell, seed=0, dtype=jnp.float64):
    params = cell.init(jax.random.key(seed), dtype=dtype)
    # far from zero, so that no gate stands at its saddle and no part is small by chance
    params = jax.tree.map(lambda a: 2 * a, params)
    shape = getattr(cell, "input_shape", None) or (cell.input_size,)
    return params, jax.random.normal(jax.random.key(seed + 1), (B, T, *shape), dtype)


def lstm_parts(params, h, c, x):
    """∂(h, c)'/∂(h, c) by hand: direct, and one for each gate i, f, g, o."""
    W, U, b = (np.asarray(a) for a in (params.W_x, params.W_h, params.b))
    i, f, g, o = (W[k] @ x + U[k] @ h + b[k] for k in range(4))
    i, f, o = (1 / (1 + np.exp(-a)) for a in (i, f, o))
    g = np.tanh(g)
    new = f * c + i * g
    through = o * (1 - np.tanh(new) ** 2)
    zero = np.zeros((len(h), len(h)))

    def block(of_h, of_c, at_h=zero):
        # rows h', c'; what reaches c' goes on to h'
        return np.block([[through[:, None] * of_h + at_h, through[:, None] * of_c], [of_h, of_c]])

    output = np.diag(o * (1 - o) * np.tanh(new)) @ U[3]
    return {
        "direct": block(zero, np.diag(f)),
        "input": block(np.diag(i * (1 - i) * g) @ U[0], zero),
        "forget": block(np.diag(f * (1 - f) * c) @ U[1], zero),
        "candidate": block(np.diag(i * (1 - g**2)) @ U[2], zero),
        "output": block(zero, zero, output),
    }


def gru_parts(params, h, x):
    W, U, b = (np.asarray(a) for a in (params.W_x, params.W_h, params.b))
    r, z = (1 / (1 + np.exp(-(W[k] @ x + U[k] @ h + b[k]))) for k in range(2))
    n = np.tanh(W[2] @ x + U[2] @ (r * h) + b[2])
    slope = z * (1 - n**2)
    return {
        "direct": np.diag(1 - z),
        "reset": np.diag(slope) @ U[2] @ np.diag(h * r * (1 - r)) @ U[0],
        "update": np.diag((n - h) * z * (1 - z)) @ U[1],
        "candidate": np.diag(slope) @ U[2] @ np.diag(r),
    }


@pytest.mark.parametrize("name", ["LSTM", pytest.param("GRU", marks=pytest.mark.long)])
def test_parts_of_a_step_are_the_textbook_s(name):
    cell = getattr(jaxrnn, name)(2, 3)
    params, xs = setup(cell)
    by_gate = path_jacobians(cell, params, xs, by="gate")
    by_kind = path_jacobians(cell, params, xs)
    assert by_kind.names == ("direct", "gates", "candidate")
    start = jax.tree.map(lambda a: jnp.zeros((B, 1, *a.shape)), cell.initial_carry(params))
    carries = jaxrnn.trajectory(cell, params, xs)[0]
    before = jax.tree.map(lambda s, a: np.concatenate([s, a[:, :-1]], 1), start, carries)
    for b, t in itertools.product(range(B), range(T)):
        carry = [np.asarray(a[b, t]) for a in before]
        make = lstm_parts if name == "LSTM" else gru_parts
        expected = make(params, *carry, np.asarray(xs[b, t]))
        assert set(by_gate.names) == set(expected)
        for got, path in zip(by_gate.jacobians[b, t], by_gate.names, strict=True):
            np.testing.assert_allclose(got, expected[path], rtol=0, atol=1e-14, err_msg=path)
        gates = sum(v for k, v in expected.items() if k not in ("direct", "candidate"))
        np.testing.assert_allclose(by_kind.jacobians[b, t, 1], gates, rtol=0, atol=1e-14)
        np.testing.assert_allclose(
            by_kind.jacobians[b, t, 2], expected["candidate"], rtol=0, atol=1e-14
        )


def test_peepholes_of_the_output_gate_are_its_own_path():
    # h' = o(c') tanh(c'): the way c → c' → o → h', with f fixed, goes through o
    cell = GATED["PeepholeLSTM"]
    params, xs = setup(cell)
    paths = path_jacobians(cell, params, xs, by="gate")
    part = dict(zip(paths.names, np.moveaxis(np.asarray(paths.jacobians), 2, 0), strict=True))
    carries = jaxrnn.trajectory(cell, params, xs)[0]
    t, b = 3, 1
    before = jax.tree.map(lambda a: a[b, t - 1], carries)
    f, o = (getattr(cell.gates(params, before, xs[b, t]), g) for g in ("forget", "output"))
    c = carries.c[b, t]
    at_c = o * (1 - o) * params.peepholes[2] * f * jnp.tanh(c)
    np.testing.assert_allclose(part["output"][b, t, :3, 3:], np.diag(at_c), rtol=0, atol=1e-14)
    direct = o * (1 - jnp.tanh(c) ** 2) * f
    np.testing.assert_allclose(part["direct"][b, t, :3, 3:], np.diag(direct), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("CoupledLSTM", "Stack") else pytest.mark.long)
        for name in GATED
    ],
)
def test_parts_add_up_to_the_jacobian(name):
    cell = GATED[name]
    params, xs = setup(cell)
    options = dict(lengths=LENGTHS, resets=RESETS)
    paths = path_jacobians(cell, params, xs, by="gate", **options)
    whole = analysis.step_jacobians(cell, params, xs, **options)
    np.testing.assert_allclose(paths.jacobians.sum(-3), whole, rtol=0, atol=1e-13)
    parts = dict(zip(paths.names, np.abs(paths.jacobians).max((0, 1, 3, 4)), strict=True))
    if name == "Elman":
        # direct at padding alone, where the carry is held
        assert set(parts) == {"direct", "pre_activation"} and parts["direct"] == 1
    if name == "minGRU":
        assert set(parts) == {"direct"} or parts["candidate"] == 0
    if name == "CoupledLSTM":
        assert parts["forget"] == 0 < parts["input"]  # f is made of i, which comes first
    if name == "MinimalRNN":
        assert parts["candidate"] == 0 < parts["update"]
    if name == "Stack":
        assert {"0.forget", "1.reset"} < set(parts)
    if name == "Jordan":
        assert set(parts) == {"direct", "hidden"} and parts["direct"] == 1
    if name in BY_HAND:
        BY_HAND[name](cell, params, xs, paths)


def clockwork_by_hand(cell, params, xs, paths):
    # row 1 is 4 steps long and without resets: the slow units tick at 0 and 2
    keeps, ticks, candidate = np.moveaxis(np.asarray(paths.jacobians)[1], 1, 0)[:3]
    W_h = np.array(params.W_h)
    W_h[2:, :2] = 0
    h = np.asarray(jaxrnn.trajectory(cell, params, xs)[0].h)[1]
    assert paths.names == ("direct", "ticks", "candidate") and not ticks.any()
    np.testing.assert_array_equal(keeps[1], np.diag([0, 0, 1, 1]))
    np.testing.assert_array_equal(keeps[2], np.zeros((4, 4)))
    np.testing.assert_allclose(candidate[2], (1 - h[2] ** 2)[:, None] * W_h, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(candidate[1, 2:], np.zeros((2, 4)))


def rhn_by_hand(cell, params, xs, paths):
    # straight on through all layers is the product of their carry gates, and a way that meets a
    # gate of the first layer belongs to that one, whatever it meets in the next
    h = jaxrnn.trajectory(cell, params, xs)[0].h[1, 1]
    gates = cell.gates(params, jaxrnn.cells.CarryH(h), xs[1, 2])
    t, c, n = (np.asarray(a) for a in (gates.transform, gates.carry, gates.candidate))
    part = dict(zip(paths.names, np.asarray(paths.jacobians)[1, 2], strict=True))
    np.testing.assert_allclose(part["direct"], np.diag(c.prod(0)), rtol=0, atol=1e-14)
    U, h = np.asarray(params.W_h), np.asarray(h)
    s, reached, candidate = h, np.eye(3), np.zeros((3, 3))
    after = [np.eye(3)]
    for l in (2, 1):  # what a change of s_l makes of h_t, through everything
        s_l = h
        for k in range(l):
            s_l = n[k] * t[k] + s_l * c[k]
        slopes = (
            (t[l] * (1 - n[l] ** 2))[:, None] * U[l, 0]
            + (n[l] * t[l] * (1 - t[l]))[:, None] * U[l, 1]
            + (s_l * c[l] * (1 - c[l]))[:, None] * U[l, 2]
            + np.diag(c[l])
        )
        after.insert(0, after[0] @ slopes)
    for l in range(3):
        candidate += after[l] @ ((t[l] * (1 - n[l] ** 2))[:, None] * U[l, 0]) @ reached
        reached = np.diag(c[l]) @ reached
        s = n[l] * t[l] + s * c[l]
    np.testing.assert_allclose(part["candidate"], candidate, rtol=0, atol=1e-14)


def slstm_by_hand(cell, params, xs, paths):
    # in c exp(m), which is what the equations call c, the direct part is f, whatever m does
    t, b = 3, 1
    carries = jaxrnn.trajectory(cell, params, xs)[0]
    before = jax.tree.map(lambda a: a[b, t - 1], carries)
    direct = np.asarray(paths.jacobians)[b, t, paths.names.index("direct")].reshape(4, 4, 4, 4)
    f = np.asarray(cell.gates(params, before, xs[b, t]).forget)
    for field in (1, 2):
        np.testing.assert_allclose(direct[field, :, field], np.diag(f), rtol=0, atol=1e-14)
    # from m: c' exp(m') and n' exp(m') change by f c exp(m), and so c' by f c − c' ∂m'/∂m
    of_m = direct[3, :, 3]
    for field, name in ((1, "c"), (2, "n")):
        old, new = (np.asarray(getattr(a, name)) for a in (before, carries))
        expected = np.diag(f * old) - new[b, t][:, None] * of_m
        np.testing.assert_allclose(direct[field, :, 3], expected, rtol=0, atol=1e-14)
    assert not direct[1:, :, 0].any()  # h is read by the gates alone


BY_HAND = {"Clockwork": clockwork_by_hand, "RHN": rhn_by_hand, "SLSTM": slstm_by_hand}


def ways(jacobians, lag):
    """Products over `lag` steps by their newest path that is not direct, one word at a time."""
    p, N = jacobians.shape[1:3]
    parts, alone = np.zeros((p, N, N)), np.zeros((p, N, N))
    for word in itertools.product(range(p), repeat=lag):
        product = np.eye(N)
        for back, path in enumerate(word):
            product = product @ jacobians[-1 - back, path]
        parts[next((path for path in word if path), 0)] += product
        if len(set(word)) == 1:
            alone[word[0]] += product
    return parts, alone


def log_norms(matrices):
    norms = np.linalg.norm(matrices, axis=(-2, -1))
    return np.log(norms, where=norms > 0, out=np.full(norms.shape, -np.inf))


@pytest.mark.long
def test_parts_of_a_lag_are_counted_by_their_last_touch():
    cell = jaxrnn.LSTM(2, 3)
    params, xs = setup(cell)
    options = dict(lengths=LENGTHS, resets=RESETS)
    paths = gradient_paths(cell, params, xs, **options)
    jacobians = np.asarray(path_jacobians(cell, params, xs, **options).jacobians)
    for b in range(B):
        for lag in range(1, int(LENGTHS[b]) + 1):
            row = jacobians[b, : LENGTHS[b]]
            parts, alone = ways(row, lag)
            whole = parts.sum(0)
            np.testing.assert_allclose(
                paths.log_part_norm[b, :, lag - 1], log_norms(parts), rtol=0, atol=1e-12
            )
            np.testing.assert_allclose(
                paths.log_product_norm[b, :, lag - 1], log_norms(alone), rtol=0, atol=1e-12
            )
            share = np.sum(parts * whole, (1, 2)) / max(np.sum(whole * whole), 1e-300)
            np.testing.assert_allclose(paths.share[b, :, lag - 1], share, rtol=0, atol=1e-12)
    decay = analysis.gradient_decay(cell, params, xs, spectral="none", **options)
    np.testing.assert_allclose(paths.log_norm, decay.log_frobenius_norm, rtol=0, atol=1e-12)
    assert np.all(paths.log_part_norm[1, :, 4:] == -np.inf)
    assert np.all(paths.share[0, :, 4:] == 0)
    names = {text.get_text() for text in plot.gradient_paths(paths).texts}
    assert {"whole", "direct", "gates", "candidate"} <= names
    nested = jax.jit(
        jax.vmap(lambda x, n, r: gradient_paths(cell, params, x, lengths=n, resets=r))
    )(xs, LENGTHS, RESETS)
    assert nested.names == paths.names
    np.testing.assert_allclose(nested.share, paths.share, rtol=0, atol=1e-12)


class MixedGates(NamedTuple):
    keep: jax.Array
    candidate: jax.Array


class Mixed:
    """h' = 0.9 h + 0.1 (a h): every Jacobian is 0.9 directly and 0.1 a by the candidate."""

    def init(self, key, dtype=jnp.float32):
        return jnp.asarray(-5.0, dtype)

    def initial_carry(self, params):
        return jnp.ones_like(params)

    def gates(self, params, carry, x):
        return MixedGates(0.9 + 0 * x[0], params * carry)

    def step(self, params, carry, x):
        keep, candidate = self.gates(params, carry, x)
        carry = keep * carry + (1 - keep) * candidate
        return carry, carry


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_hundred_thousand_steps(dtype):
    # the whole falls as 0.4^k, the direct part as 0.9^k, and the rest cancels it to the last digit
    cell, k = Mixed(), np.arange(1, 100_001)
    paths = gradient_paths(cell, cell.init(None, dtype), jnp.zeros((100_000, 1), dtype))
    exact = k * np.log(0.4), k * np.log(0.9), k * np.log(0.9) + np.log1p(-((0.4 / 0.9) ** k))
    rtol = 1e-6 if dtype == jnp.float32 else 1e-12
    np.testing.assert_allclose(paths.log_norm, exact[0], rtol)
    np.testing.assert_allclose(paths.log_part_norm[0], exact[1], rtol)
    np.testing.assert_allclose(paths.log_part_norm[2], exact[2], rtol)
    np.testing.assert_allclose(paths.log_product_norm[2], k * np.log(0.5), rtol)
    assert np.all(paths.log_part_norm[1] == -np.inf) and not np.any(np.isnan(paths.share))
    np.testing.assert_allclose(paths.share[:, :10].sum(0), 1, rtol=0, atol=1e-3)
    np.testing.assert_allclose(paths.share[0, :10], (0.9 / 0.4) ** k[:10], rtol=1e-5)


class Lagged(Mixed):
    """A user's cell whose step takes its gates in the body of a scan, jitted."""

    def step(self, params, carry, x):
        @jax.jit
        def inner(carry):
            keep, candidate = self.gates(params, carry, x)
            return keep * carry + (1 - keep) * candidate

        carry, _ = jax.lax.scan(lambda carry, _: (inner(carry), None), carry, None, length=2)
        return carry, carry


class Mapped(Mixed):
    """A user's cell that takes its gates where their values cannot be seen from outside."""

    def step(self, params, carry, x):
        keep, candidate = jax.vmap(lambda x: self.gates(params, carry, x))(x[None])
        carry = keep[0] * carry + (1 - keep[0]) * candidate[0]
        return carry, carry


def test_gates_within_jit_and_scan_are_seen_and_those_within_vmap_ask_for_a_change():
    params, xs = jnp.asarray(-5.0), jnp.zeros((2, 1))
    parts = path_jacobians(Lagged(), params, xs).jacobians[..., 0, 0]
    # two inner steps: 0.9² directly; the gate is constant; (0.9 − 0.5)² in all
    np.testing.assert_allclose(parts, [[0.81, 0, 0.16 - 0.81]] * 2, rtol=0, atol=1e-15)
    with pytest.raises(TypeError, match=r"Mapped calls its gates within jax\.vmap, jax\.lax\.cond"):
        path_jacobians(Mapped(), params, xs)


class Silent(Mixed):
    """Declares gates, but its step does not call them."""

    def step(self, params, carry, x):
        return params * carry, carry


def test_what_has_no_gates_is_told_so():
    params, xs = jnp.asarray(1.0), jnp.zeros((4, 1))
    with pytest.raises(TypeError, match=r"Silent shows no gates: its step must call self\.gates"):
        gradient_paths(Silent(), params, xs)
    with pytest.raises(ValueError, match="by must be 'kind' or 'gate', got 'all'"):
        path_jacobians(Mixed(), params, xs, by="all")
    empty = gradient_paths(Mixed(), params, xs[:0])
    assert empty.log_part_norm.shape == (3, 0) and empty.share.shape == (3, 0)
