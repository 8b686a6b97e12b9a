"""`save` and `load`: what comes back, what is refused, and that nothing is left half-written."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import jaxrnn
from jaxrnn import GRU, LSTM, Bidirectional, Elman, Readout, Residual, Stack
from jaxrnn import initializers as init

NESTED = Readout(
    Stack(
        (
            Bidirectional(LSTM(3, 4, learned_carry=True), GRU(3, 2, reset="after")),
            Residual(Elman(6, 5, jax.nn.silu, biases=2), projection=True),
            Stack((GRU(5, 5, biases=0, update_weighs="old"), Residual(Elman(5, 5, "relu")))),
        ),
        dropout=0.25,
    ),
    output_size=2,
)

NETWORKS = {
    "elman": Elman(3, 4),
    "no-bias": LSTM(3, 4, biases=0),
    "learned": GRU(3, 4, learned_carry=True),
    "function": Elman(3, 4, jnp.sin),
    "initialisers": LSTM(
        3,
        4,
        recurrent_initializer=init.Orthogonal(0.9),
        bias_initializer=(init.Zeros(), init.ForgetBias(2.0), init.Zeros(), init.Chrono(50.0)),
    ),
    "nested": NESTED,
    "no-readout-bias": Readout(GRU(3, 4), 1, bias=False, initializer=init.Normal(2.0)),
}


def numbered(network, dtype="float32"):
    """Params like those of `init`, every number another, without compiling random draws."""
    shapes = jax.eval_shape(lambda key: network.init(key, dtype=dtype), jax.random.key(0))
    leaves, treedef = jax.tree.flatten(shapes)
    random = np.random.RandomState(0)
    return treedef.unflatten([jnp.asarray(random.randn(*s.shape), dtype) for s in leaves])


@pytest.mark.parametrize("name", NETWORKS)
def test_what_comes_back_is_equal_and_computes_the_same(tmp_path, name):
    network = NETWORKS[name]
    params = numbered(network, jnp.float64)
    jaxrnn.save(tmp_path / "n.safetensors", network, params)
    again, params_again = jaxrnn.load(tmp_path / "n.safetensors")
    assert again == network and hash(again) == hash(network)
    xs = jax.random.normal(jax.random.key(2), (2, 5, 3), jnp.float64)
    want = jaxrnn.unroll(network, params, xs)
    got = jaxrnn.unroll(again, params_again, xs)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_dtypes_stay(tmp_path, dtype):
    network = Stack((LSTM(3, 4), GRU(4, 2, learned_carry=True)))
    params = numbered(network, dtype)
    jaxrnn.save(tmp_path / "n", network, params)
    _, again = jaxrnn.load(tmp_path / "n")
    for got, want in zip(jax.tree.leaves(again), jax.tree.leaves(params), strict=True):
        assert isinstance(got, jax.Array) and got.dtype == want.dtype == jnp.dtype(dtype)
        np.testing.assert_array_equal(np.asarray(got), np.asarray(want))


def test_file_can_be_read_by_hand(tmp_path):
    params = numbered(NESTED)
    jaxrnn.save(tmp_path / "n", NESTED, params)
    tensors = load_file(tmp_path / "n")
    np.testing.assert_array_equal(tensors["W"], np.asarray(params.W))
    np.testing.assert_array_equal(
        tensors["network.0.forward.initial.c"], np.asarray(params.network[0].forward.initial.c)
    )
    assert "network.2.0.b" not in tensors
    record = _record(tmp_path / "n")
    assert record["network"]["network"]["layers"][1]["layer"]["activation"] == {
        "function": "jax.nn.silu"
    }


def test_every_public_class_and_named_activation_has_a_place_in_the_table():
    from jaxrnn.save import _CLASSES, _FUNCTIONS

    public = {
        name
        for module in (jaxrnn, init)
        for name, value in vars(module).items()
        if isinstance(value, type) and dataclasses.is_dataclass(value)
    }
    methods = {"Loop", "Scan", "Staged", "Kernel", "CuDNN", "Associative", "Newton"}
    methods |= {"UnrollReport"}  # a record, not a part of a network
    assert {"Elman", "LSTM", "GRU", "Stack", "Uniform"} <= public - methods <= _CLASSES.keys()
    assert set(jaxrnn.cells.elman.ACTIVATIONS.values()) <= set(_FUNCTIONS.values())


@dataclasses.dataclass(frozen=True)
class LSTM2(LSTM):
    """A user's own cell."""


LSTM2.__name__ = "LSTM"  # not even under our name


def wobble(a):
    return jnp.tanh(a) + 0.1 * a


def test_user_classes_and_functions_are_refused_with_the_cure(tmp_path):
    with pytest.raises(TypeError, match=r"cannot save test_save\.LSTM2: .*Save the params alone"):
        cell = LSTM2(3, 4)
        jaxrnn.save(tmp_path / "n", Stack((cell,)), (numbered(cell),))
    cell = Elman(3, 4, wobble)
    with pytest.raises(TypeError, match=r"the function test_save\.wobble: .*only these: jax\.num"):
        jaxrnn.save(tmp_path / "n", cell, numbered(cell))
    assert list(tmp_path.iterdir()) == []


def test_params_of_another_network_are_refused(tmp_path):
    params = numbered(LSTM(3, 4))
    with pytest.raises(ValueError, match=r"params W_x: got float32\[4, 4, 3\], expected any float"):
        jaxrnn.save(tmp_path / "n", LSTM(3, 5), params)
    with pytest.raises(ValueError, match=r"another structure than LSTM\.init"):
        jaxrnn.save(tmp_path / "n", LSTM(3, 4, biases=0), params)
    integers = params._replace(b=params.b.astype(jnp.int32))
    with pytest.raises(ValueError, match=r"params b: got int32\[4, 4\], expected any float"):
        jaxrnn.save(tmp_path / "n", LSTM(3, 4), integers)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    cell = GRU(2, 2)
    params = numbered(cell)
    jaxrnn.save(tmp_path / "n", cell, params)
    before = (tmp_path / "n").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        jaxrnn.save(tmp_path / "n", cell, jax.tree.map(jnp.zeros_like, params))
    assert [path.name for path in tmp_path.iterdir()] == ["n"]
    assert (tmp_path / "n").read_bytes() == before


def test_saving_over_a_file_replaces_it(tmp_path):
    jaxrnn.save(tmp_path / "n", GRU(2, 2), numbered(GRU(2, 2)))
    jaxrnn.save(tmp_path / "n", LSTM(2, 3), numbered(LSTM(2, 3)))
    assert jaxrnn.load(tmp_path / "n")[0] == LSTM(2, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["n"]


def _saved(path):
    cell = LSTM(3, 4)
    jaxrnn.save(path, cell, numbered(cell))
    return load_file(path), _record(path)


def _record(path):
    with safe_open(path, framework="np") as file:
        return json.loads(file.metadata()["jaxrnn"])


def _rewrite(path, tensors, record):
    save_file(tensors, path, {"jaxrnn": json.dumps(record)})


def test_foreign_files_are_named_as_such(tmp_path):
    path = tmp_path / "n"
    path.write_bytes(b"PK\x03\x04 this is a zip, as PyTorch writes it")
    with pytest.raises(ValueError, match="not a safetensors file"):
        jaxrnn.load(path)
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"not written by jaxrnn\.save .*from_torch"):
        jaxrnn.load(path)
    with pytest.raises(FileNotFoundError):
        jaxrnn.load(tmp_path / "absent")


def test_newer_formats_and_unknown_classes_say_update(tmp_path):
    path = tmp_path / "n"
    tensors, record = _saved(path)
    _rewrite(path, tensors, record | {"format": 2})
    with pytest.raises(ValueError, match="has format 2, expected 1: update jaxrnn"):
        jaxrnn.load(path)
    _rewrite(path, tensors, record | {"network": {"class": "os.system", "command": "true"}})
    with pytest.raises(ValueError, match=r"unknown class 'os\.system'"):
        jaxrnn.load(path)
    _rewrite(path, tensors, record | {"network": record["network"] | {"peepholes": True}})
    with pytest.raises(ValueError, match="LSTM has no field 'peepholes': update jaxrnn"):
        jaxrnn.load(path)
    _rewrite(path, tensors, record | {"network": record["network"] | {"hidden_size": 0}})
    with pytest.raises(ValueError, match="hidden_size must be an int of at least 1"):
        jaxrnn.load(path)
    _rewrite(path, tensors, record | {"network": {"function": "jax.nn.relu"}})
    with pytest.raises(ValueError, match="cannot rebuild the network"):
        jaxrnn.load(path)


def test_tensors_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "n"
    tensors, record = _saved(path)
    without = {name: array for name, array in tensors.items() if name != "b"}
    _rewrite(path, without | {"bias": tensors["b"]}, record)
    with pytest.raises(ValueError, match=r"missing: \['b'\], not expected: \['bias'\]"):
        jaxrnn.load(path)
    _rewrite(path, tensors | {"W_h": tensors["W_h"][:, :3]}, record)
    with pytest.raises(ValueError, match=r"tensor W_h: got float32\[4, 3, 4\], expected any float"):
        jaxrnn.load(path)
    _rewrite(path, tensors | {"b": tensors["b"].astype(np.int32)}, record)
    with pytest.raises(ValueError, match=r"tensor b: got int32\[4, 4\], expected any float"):
        jaxrnn.load(path)


def test_a_single_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "n"
    _saved(path)
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged or edited"):
        jaxrnn.load(path)


def test_float64_files_need_64_bits(tmp_path):
    cell = GRU(2, 2)
    jaxrnn.save(tmp_path / "n", cell, numbered(cell, jnp.float64))
    with jax.enable_x64(False), pytest.raises(ValueError, match="jax_enable_x64"):
        jaxrnn.load(tmp_path / "n")


def test_import_is_light():
    code = "import sys, jaxrnn; jaxrnn.convert.from_torch; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(shown.stdout.split())
    assert "jaxrnn.convert" in loaded
    assert not loaded & {"flax", "optax", "safetensors", "torch"}
