"""`python -m experiments.speed`: the whole path without peers, verdicts for and against, peers."""

import importlib
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from experiments import _common as common
from experiments import _speed_clock as clock
from experiments import _speed_figure as figure
from experiments import _speed_floor as floor
from experiments import _speed_grid as grid
from experiments import _speed_peers as peers
from experiments import _speed_report as report
from experiments import _speed_stream as stream
from experiments import _speed_tables as tables
from experiments import speed
from experiments._speed_cases import GRID, TASKS, TITLES, Case, parse_shape

ROUNDS = 5


@pytest.fixture(autouse=True)
def newcomer():
    """32 bits and ordinary promotion, as whoever runs the experiment has it."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


# ---- an artificial result: ours takes 1, peers and floor what is said


def contender(name, kind, factor, size=None):
    noise = 1 + 0.02 * np.random.default_rng(0).standard_normal(ROUNDS)  # the machine's, in rounds
    compiling = None if kind == "other" else 0.5
    return {
        "name": name, "kind": kind, "seconds": list(factor * noise), "left_out": None,
        "compile_seconds": compiling, "bytes": size, "threads": None,
    }  # fmt: skip


def artificial_points(torch=1.4, linen=2.0, products=0.8, checkpoint=(1.2, 0.4), ours_bytes=90):
    points = []
    for shape in GRID:
        for cell in TITLES:
            for task in TASKS:
                case = Case(cell, *parse_shape(shape))
                contenders = [
                    contender("ours", "ours", 1.0, ours_bytes),
                    contender(
                        grid.CHECKPOINT, "variant", checkpoint[0], checkpoint[1] * ours_bytes
                    ),
                    contender("PyTorch", "other", torch),
                    contender("Flax linen", "jax", linen, 100),
                    contender("Keras", "jax", 1.7 * linen, 120),
                    contender(floor.NAME, "floor", products, 10),
                ]
                point = {**case._asdict(), "shape": shape, "task": task, "operations": 10**9}
                points.append({**point, "contenders": contenders})
    return points


def artificial_streaming(share=0.3):
    seconds = {"ours": [share] * ROUNDS, "PyTorch" + stream.CELLS: [1.0] * ROUNDS}
    return {"size": 64, "steps": 10, "layers": 2, "seconds": seconds, "waiting": seconds}


def holds(points, streaming=None):
    return [v["holds"] for v in report.verdicts(points, streaming or artificial_streaming())]


def test_every_verdict_can_come_out_for_us():
    assert holds(artificial_points()) == [True] * 6


@pytest.mark.parametrize(
    "change, against",
    [
        (dict(torch=0.9), {0, 1}),
        (dict(torch=1.2), {1}),
        (dict(linen=1.5, torch=1.4), {1}),
        (dict(products=0.6), {2}),
        (dict(ours_bytes=101), {3}),
        (dict(checkpoint=(1.2, 0.6)), {4}),
        (dict(checkpoint=(1.5, 0.4)), {4}),
    ],
)
def test_every_verdict_can_come_out_against_us(change, against):
    assert {i for i, held in enumerate(holds(artificial_points(**change))) if not held} == against


def test_streaming_can_come_out_against_us_and_a_slow_point_is_named():
    assert holds(artificial_points(), artificial_streaming(0.5))[-1] is False
    points = artificial_points()
    slow = next(p for p in points if p["cell"] == "gru" and p["task"] == "training")
    slow["contenders"][2]["seconds"] = [0.5] * ROUNDS
    verdict = report.verdicts(points, None)[0]
    assert not verdict["holds"] and "GRU 1x512x64x128 training" in verdict["measured"]
    assert "23 of 24 points hold" in verdict["measured"]


def test_what_was_not_measured_is_no_verdict():
    found = report.verdicts([], None)
    assert [v["holds"] for v in found] == [None] * 6


def test_the_best_peer_is_the_one_of_smallest_median_and_ratios_are_taken_within_rounds():
    (point, *_) = artificial_points()
    # twice as slow a machine in some rounds: ratios do not see it
    busy = np.array([1, 2, 1, 2, 1.0])
    for c, factor in zip(point["contenders"], (1, 1, 3, 2, 4, 0.5), strict=True):
        c["seconds"] = list(factor * busy)
    found = report.summary(point)
    assert found["best_peer"] == "Flax linen" and found["best_jax_peer"] == "Flax linen"
    assert found["peer_over_ours"] == pytest.approx([2, 2, 2])
    assert found["ours_over_floor"] == pytest.approx([2, 2, 2])
    assert report.geometric_mean([found, found], "peer_over_ours") == pytest.approx(2)


def test_the_tables_and_the_figure_of_a_whole_result(tmp_path, capsys):
    points = artificial_points()
    points[3]["contenders"][4] |= {"seconds": [], "left_out": 11.3}
    curve = {"batch": 1, "input_size": 64, "hidden_size": 64, "axis": "steps", "steps": [128, 256]}
    curve["seconds"] = {name: [[1e-5] * 3, [2e-5] * 3] for name in ("ours", "PyTorch", "Keras")}
    result = {
        "config": {"rounds": ROUNDS, "limit": 8.0}, "points": points, "warnings": ["busy"],
        "machine": {**common.machine(), "processor": "P", "load_before": 0, "load_after": 1.5},
        "streaming": artificial_streaming(), "curves": [curve], "peers": ["torch", "keras"],
        "ways": [
            {"way": "elman", "steps": 64, "size": 4, "what": what, "turns": 7, "fell_back": False,
             "seconds": {"scan": [2e-3] * 3, "parallel": [1e-3] * 3}}
            for what in ("forward", "training")
        ],
        "means": report.means([report.summary(p) for p in points]),
        "verdicts": report.verdicts(points, artificial_streaming()),
    }  # fmt: skip
    tables.print_all(result)
    shown = " ".join(capsys.readouterr().out.split())
    assert "11 times slower than the fastest; the limit is 8" in shown
    assert "Elman, N = 4 2 / 2 (7)" in shown
    assert shown.count("Holds: ") == 6 and "Note: busy" in shown and "GRU: reset after" in shown
    assert "the best peer: 1.40, the best JAX peer: 2.00" in shown
    figure.draw(result, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 20_000


# ---- the floor


@pytest.mark.parametrize("cell", TITLES)
def test_operations_of_the_floor_are_those_of_the_cell_but_for_its_elements(cell):
    case = Case(cell, 3, 7, 32, 48)
    ours = grid.our_cell(case)
    params = ours.init(jax.random.key(0))
    whole = 3 * 7 * jaxrnn.step_flops(ours, params, jnp.zeros(32))
    least = floor.operations(case, "forward")
    assert least <= whole <= 1.1 * least
    # a training step: the products of the way back, and as many again for the gradients of W and U
    assert 2 * least < floor.operations(case, "training") < 3 * least


def test_the_floor_multiplies_what_it_says_and_xla_drops_none_of_it():
    case = Case("lstm", 3, 7, 5, 4)
    matrices, sequences = floor.draw(case, 0)
    assert [m.shape for m in matrices] == [(5, 16), (4, 16), (16, 4)]
    program = jax.jit(floor.training).lower(matrices, sequences).compile()
    last, back, dW, dU = program(matrices, sequences)
    W, U, V = map(np.asarray, matrices)
    xs, hs, deltas = map(np.asarray, sequences)
    h = hs[0]
    for x in xs:
        h = (x @ W + h @ U)[:, :4]
    np.testing.assert_allclose(last, h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(back, (deltas @ V).sum(0), rtol=1e-4, atol=1e-4)
    for found, v in ((dW, xs), (dU, hs)):
        wanted = np.einsum("tbi,tbg->ig", v, deltas)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    products = [line for line in program.as_text().splitlines() if " dot(" in line]
    shapes = sorted(line.split("= ")[1].split("{")[0] for line in products)
    assert shapes == ["f32[3,16]", "f32[3,16]", "f32[3,4]", "f32[4,16]", "f32[5,16]"]


# ---- taking time


def test_every_contender_runs_once_a_round_in_an_order_drawn_anew(monkeypatch):
    monkeypatch.setattr(clock, "SETTLE", 0)
    calls, rounds = [], []
    found = clock.in_rounds(
        [lambda: calls.append("a"), lambda: calls.append("b"), lambda: calls.append("c")],
        [1.0, 1.0, clock.SHORTEST / 2.5],
        6,
        np.random.default_rng(0),
        lambda: rounds.append(len(calls)),
    )
    assert rounds == [5, 10, 15, 20, 25, 30]  # a, b once; c, which is short, three times in a row
    assert all(sorted(calls[i : i + 5]) == ["a", "b", "c", "c", "c"] for i in range(0, 30, 5))
    assert len({tuple(calls[i : i + 5]) for i in range(0, 30, 5)}) > 1
    assert [len(t) for t in found] == [6, 6, 6] and min(map(min, found)) > 0


def test_a_short_call_settles_first_and_a_long_one_on_its_way(monkeypatch):
    monkeypatch.setattr(clock, "SETTLE", 0.005)
    calls = []
    clock.settle(lambda: calls.append(clock.time.sleep(0.002)), 0.002)
    assert 1 <= len(calls) <= 3
    clock.settle(lambda: calls.append("long"), 2 * clock.LONG)
    assert "long" not in calls


def test_who_is_far_too_slow_is_left_out_but_never_ours(monkeypatch):
    monkeypatch.setattr(clock, "SETTLE", 0)
    taken = {"ours": 0.02, "slow": 0.03, "fast": 0.001, "floor": 0.02}

    def waits(name):
        kind = {"ours": "ours", "floor": "floor"}.get(name, "jax")
        return clock.Runner(name, kind, lambda: clock.time.sleep(taken[name]))

    found = grid._race([waits(n) for n in taken], 2, 8.0, np.random.default_rng(0), lambda: None)
    out = {c["name"]: c["left_out"] for c in found}
    assert out["ours"] is None and out["fast"] is None and out["floor"] is None
    assert out["slow"] > 8 and not found[1]["seconds"]


# ---- end to end


@pytest.mark.long
def test_without_peers_it_runs_to_the_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = speed.run(
        speed.Config(rounds=2, cells=("elman",), only=("2x8x4x4",), output=tmp_path, quick=True)
    )
    shown = capsys.readouterr().out
    assert "PyTorch: not installed: pip install 'torch'" in shown
    assert (
        "Not measured: at every point" in shown
        and "Elman 2x8x4x4 training" in shown
        and "Table 8" in shown
    )
    record = json.loads((tmp_path / "speed.json").read_text())
    assert record["peers"] == [] and set(record["missing"]) == {"torch", "linen"}
    names = [c["name"] for c in record["points"][1]["contenders"]]
    assert names == ["ours", grid.BATCH_FIRST, grid.CHECKPOINT, floor.NAME]
    assert all(len(c["seconds"]) == 2 for p in record["points"] for c in p["contenders"])
    assert len(record["curves"]) == 2
    assert record["streaming"]["seconds"].keys() == {"ours", stream.EMPTY}
    assert {point["way"] for point in record["ways"]} == {"lru", "elman"}
    assert not any(point["fell_back"] for point in record["ways"])
    assert (tmp_path / "speed.png").stat().st_size > 20_000
    again = speed.run(speed.Config(redraw=tmp_path / "speed.json", output=tmp_path / "again"))
    assert again == result and (tmp_path / "again" / "speed.png").exists()
    assert not (tmp_path / "again" / "speed.json").exists()


@pytest.mark.parametrize(
    "options, sentence",
    [
        (dict(only=("1x2x3",)), "--only takes shapes BxTxIxH such as 1x512x64x128, got '1x2x3'"),
        (dict(only=("1x0x3x4",)), "--only takes shapes"),
        (dict(peers=("jax",)), "unknown 'jax': --peers takes torch, linen"),
        (dict(cells=("lstm", "lstm")), "--cells takes each of lstm, gru, elman once"),
        (dict(rounds=0), "--rounds must be at least 1"),
    ],
)
def test_bad_input_is_one_line(options, sentence, tmp_path):
    with pytest.raises(common.UsageError, match=sentence):
        speed.run(speed.Config(output=tmp_path, **options))


def test_a_busy_machine_is_warned_about(monkeypatch, capsys):
    monkeypatch.setattr(speed.head, "load", lambda: 0.75)
    (warning,) = speed.head.print_header(speed.head.machine([]), {})
    assert "load average was 0.75" in warning and warning in capsys.readouterr().out.replace(
        "\n", ""
    )
    monkeypatch.setattr(speed.head, "load", lambda: 0.25)
    assert speed.head.print_header(speed.head.machine([]), {}) == []


# ---- peers


@pytest.fixture(params=peers.PEERS)
def peer(request):
    """Every peer that is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries' own, on import
        why = peers.missing(peers.PEERS[request.param])
    if why:
        pytest.skip(why)
    return peers.PEERS[request.param]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cell", TITLES)
def test_every_peer_that_is_installed_gives_outputs_and_gradients(peer, cell):
    case = Case(cell, 3, 6, 5, 4)
    model = peer.build(case, case.inputs(0))
    if model is None:
        assert (peer.title, cell) == ("Equinox", "elman")
        return
    if peer.kind == "other":
        ys = model.runner("", peer.kind, "forward").call()[0]
        loss, gradients = model.runner("", peer.kind, "training").call()
        assert loss.item() == pytest.approx(ys.square().mean().item())
    else:
        ys = model.runner("", peer.kind, "forward").call()
        # traced and not compiled: that takes a second each
        _, gradients = jax.eval_shape(model.function("training"), model.params, model.xs)
    assert tuple(ys.shape) == ((3, 6, 4) if peer.title == "Keras" else (6, 3, 4))
    ys = np.asarray(ys)
    assert ys.dtype == np.float32 and 0 < np.abs(ys).max() <= 1
    # W, U and one bias or two
    size = sum(int(np.prod(g.shape)) for g in jax.tree.leaves(gradients))
    assert 4 * case.gates * (5 + 4 + 1) <= size <= 4 * case.gates * (5 + 4 + 2)


@pytest.mark.filterwarnings("ignore")
def test_every_peer_that_streams_does(peer):
    builders = stream.BUILDERS.get(
        next(name for name, known in peers.PEERS.items() if known is peer), {}
    )
    xs = np.random.default_rng(0).standard_normal((3, 4), np.float32)
    for build in builders.values():
        last = build(xs)(True)
        if peer.kind == "jax":
            assert last.reshape(-1).shape == (4,) and 0 < np.abs(last).max() < 1


def test_ours_is_the_network_of_pytorch():
    pytest.importorskip("torch", reason="needs PyTorch, in the extra 'parity'")
    for cell in TITLES:
        found = grid.agreement(cell)
        assert found["holds"] and max(found["outputs"], found["gradients"]) < 1e-6


def test_other_parameters_are_another_network_and_warned_about(monkeypatch, capsys):
    found = speed.head.print_agreement({"gru": {"outputs": 0.1, "gradients": 0, "holds": False}})
    assert "GRU on parameters copied from PyTorch: outputs within 1.0e-01" in found[0]
    assert "not the same network" in found[0] and capsys.readouterr().out
