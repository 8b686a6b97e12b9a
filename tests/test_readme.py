"""What the README shows is what happens."""

import collections
import re
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from oracle import assert_close
from rows import problem

import jaxrnn
from jaxrnn import analysis, initializers, models, tasks, train
from jaxrnn.dense import Dense
from jaxrnn.methods.stages import find_routes

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_ten_lines_run():
    ten_lines = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    names: dict = {}
    with jax.enable_x64(False):  # the tests run in 64 bits, a newcomer in 32
        exec(ten_lines.replace("(16, 200, 8)", "(2, 20, 8)"), names)
    assert names["ys"].shape == (2, 20, 64)
    assert names["carry"].c.shape == (2, 64)
    assert names["decay"].log_spectral_norm.shape == (2, 20)


def test_the_table_of_methods_networks_and_analyses_is_not_out_of_date():
    for row, module in (
        ("cells", jaxrnn), ("initialisers", initializers), ("through time", jaxrnn),
        ("methods", jaxrnn), ("networks", jaxrnn), ("files", jaxrnn), ("analysis", analysis),
        ("tasks", tasks), ("models", models), ("training", train),
    ):  # fmt: skip
        (text,) = re.findall(rf"^\| {row} \| (.*) \|$", README, re.MULTILINE)
        for name in re.findall(r"`([A-Za-z_.]+)[`(]", text):
            place = module
            for part in re.sub(r"^(jaxrnn|analysis|tasks|models|train)\.", "", name).split("."):
                if part in ("lengths", "resets", "reverse", "key", "initializers"):
                    continue  # an option, or the module itself
                place = getattr(place, part)


def test_the_microscope_answers():
    (snippet,) = (s for s in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "paths" in s)
    cell = jaxrnn.LSTM(2, 3)
    params, xs, _ = problem(cell, (2, 30), dtype=jnp.float32)
    names = dict(jax=jax, jaxrnn=jaxrnn, cell=cell, params=params, xs=xs)
    exec(snippet, names)
    assert names["taus"].shape == (2, 3) and names["spectrum"].exponents.shape == (2, 4)
    assert names["memory"].capacity.shape == (12,) and len(names["points"].kinds) > 0


def learning(word, **names):
    """The one snippet of the README that has this word, run as a newcomer would."""
    (snippet,) = (s for s in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if word in s)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        exec(snippet, names)
    return names


def test_twenty_lines_learn_real_digits(capsys):
    names = learning("load_digits")
    assert (names["predicted"] == names["labels"][1500:]).mean() > 0.85
    assert float(capsys.readouterr().out) > 0.85


@pytest.mark.long
def test_sentences_of_unequal_length_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    sentences = [draw.choice(list("abcdef"), draw.integers(1, 6)).tolist() for _ in range(120)]
    # which of two words comes first, that neither bag nor length tells
    sentences = [[*"xy", *s] if i % 2 else [*"yx", *s] for i, s in enumerate(sentences)]
    names = dict(sentences=sentences, labels=np.arange(120) % 2)
    names = learning("set().union", jax=jax, jaxrnn=jaxrnn, np=np, nnx=nnx, optax=optax,
                     models=models, train=train, **names)  # fmt: skip
    assert names["evaluate"](names["trained"].model)["accuracy"] > 0.9
    assert names["trained"].stopped in ("patience", "steps")


@pytest.mark.long
def test_a_sequence_comes_out_reversed():
    names = learning("Seq2Seq(", jax=jax, jnp=jnp, jaxrnn=jaxrnn, nnx=nnx, optax=optax,
                     models=models, train=train)  # fmt: skip
    assert names["trained"].history[-1]["loss"] < 0.1


@pytest.mark.long
def test_the_adding_problem_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = learning("tasks.Adding(", jax=jax, jaxrnn=jaxrnn, optax=optax, train=train)
    assert (tmp_path / "adding.jsonl").exists() and names["trained"].step == 300


def test_the_cell_that_declares_its_stages_runs_the_fast_way():
    (snippet,) = (s for s in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "stages" in s)
    Params = collections.namedtuple("Params", "W_x b W_h")
    Carry = collections.namedtuple("Carry", "h")
    names = dict(jax=jax, jnp=jnp, jaxrnn=jaxrnn, Dense=Dense, Carry=Carry)
    exec(snippet, names)
    draw = np.random.default_rng(0).standard_normal
    params = Params(*(jnp.asarray(draw(shape)) for shape in ((2, 4, 3), (2, 4), (2, 4, 4))))
    names["Cell"].initial_carry = lambda self, params: Carry(jnp.zeros(4))
    cell = names["Cell"]()

    def gradient(method):
        def loss(params):
            _, ys = jaxrnn.unroll(cell, params, jnp.ones((2, 5, 3)), method=method)
            return jnp.sum(jnp.sin(ys))

        return jax.grad(loss)(params)

    assert find_routes(cell, params, Carry(jnp.zeros(4))) is not None
    assert_close(gradient(jaxrnn.Staged()), gradient(jaxrnn.Loop()))


def test_the_skeleton_to_copy_is_a_cell_that_goes_the_fast_way():
    path = Path(__file__).parent.parent / "docs" / "skeleton_cell.py"
    cell = runpy.run_path(str(path))["Skeleton"](3, 4)
    params, xs, carry = problem(cell, (2, 5))

    def gradient(method):
        def loss(params, xs):
            last, ys = jaxrnn.unroll(cell, params, xs, carry=carry, method=method)
            return jnp.sum(jnp.sin(ys)) + jnp.sum(last.h)

        return jax.grad(loss, (0, 1))(params, xs)

    assert find_routes(cell, params, cell.initial_carry(params)) is not None
    assert_close(gradient(None), gradient(jaxrnn.Loop()))
    fresh = cell.init(jax.random.key(0), jnp.float64)
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, params)
