"""Other libraries' answers to `framework_cases`; as a script, writes them to framework_numbers.npz.

cd tests && python -m oracles.make_framework_numbers

Every runner takes something that the library runs, and inputs (B, T, I), and returns outputs and
the parts of the final carry, in the library's order.
"""

import functools
import os

import numpy as np

from oracles.framework_cases import CASES, STORED, B, H, I, P, stored

os.environ.setdefault("KERAS_BACKEND", "jax")


def run_torch(module, xs):
    """A module of PyTorch with batch_first."""
    import torch

    torch.set_num_threads(1)
    ys, final = module(torch.from_numpy(xs))
    return [part.detach().numpy() for part in (ys, *final)]


def run_keras(layer, xs):
    """A layer of Keras with return_sequences and return_state."""
    import jax

    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):  # Keras's code needs it
        return [np.asarray(part) for part in layer(xs.astype("float32"))]


def scanned(step, carry, xs):
    """(carry, x) -> (carry, y) over time, with carries (B, …) and xs (B, T, I)."""
    import jax

    carry, ys = jax.jit(lambda carry, xs: jax.lax.scan(step, carry, xs))(carry, xs.swapaxes(0, 1))
    return [np.asarray(part) for part in (ys.swapaxes(0, 1), *jax.tree.leaves(carry))]


def zeros_like(carry, xs):
    """The first carry in the dtype of xs."""
    import jax

    return jax.tree.map(lambda part: np.zeros(part.shape, xs.dtype), carry)


def run_linen(module, params, xs):
    """A cell of Flax linen."""
    import jax

    carry = zeros_like(module.initialize_carry(jax.random.key(0), (len(xs), I)), xs)
    return scanned(lambda c, x: module.apply({"params": params}, c, x), carry, xs)


def run_nnx(module, xs):
    """A cell of Flax NNX."""
    from flax import nnx

    graph, state = nnx.split(module)
    carry = zeros_like(module.initialize_carry((len(xs), I), nnx.Rngs(0)), xs)
    return scanned(lambda c, x: nnx.merge(graph, state)(c, x), carry, xs)


def run_haiku(make_core, params, xs):
    """A core of Haiku."""
    import haiku as hk
    import jax

    core = hk.without_apply_rng(hk.transform(lambda x, s: make_core()(x, s)))
    first = hk.without_apply_rng(hk.transform(lambda: make_core().initial_state(len(xs))))
    carry = jax.tree.map(lambda part: np.zeros(part.shape, xs.dtype), first.apply({}))
    return scanned(lambda s, x: core.apply(params, x, s)[::-1], carry, xs)


def run_equinox(module, xs):
    """A cell of Equinox."""
    import jax

    def step(carry, x):
        carry = jax.vmap(module)(x, carry)
        return carry, jax.tree.leaves(carry)[0]

    zeros = np.zeros((len(xs), module.hidden_size), xs.dtype)
    return scanned(step, zeros if hasattr(module, "bias_n") else (zeros, zeros), xs)


def torch_module(name, weights):
    """An nn.LSTM with proj_size."""
    import torch

    options = dict(num_layers=2, proj_size=P, bidirectional=True, batch_first=True)
    module = torch.nn.LSTM(I, H, **options).double()
    module.load_state_dict({key: torch.from_numpy(array) for key, array in weights.items()})
    return module


def keras_layer(kind, use_bias=True, both=False, units=H, **options):
    """A layer of Keras, built."""
    import jax
    import keras

    returns = dict(return_sequences=True, return_state=True)
    layer = getattr(keras.layers, kind)(units, use_bias=use_bias, **returns, **options)
    if both:
        layer = keras.layers.Bidirectional(layer)
    with jax.numpy_dtype_promotion("standard"):
        layer.build((None, None, I))
    return layer


KERAS = {
    "keras-simple": dict(kind="SimpleRNN"),
    "keras-simple-none": dict(kind="SimpleRNN", use_bias=False, activation="relu"),
    "keras-lstm": dict(kind="LSTM"),
    "keras-lstm-none": dict(kind="LSTM", use_bias=False),
    "keras-lstm-both": dict(kind="LSTM", both=True),
    "keras-gru-after": dict(kind="GRU"),
    "keras-gru-after-none": dict(kind="GRU", use_bias=False),
    "keras-gru-before": dict(kind="GRU", reset_after=False),
    "keras-gru-before-none": dict(kind="GRU", reset_after=False, use_bias=False),
    "keras-gru-both": dict(kind="GRU", both=True),
}


def linen_module(name, dtype="float64"):
    """A cell of Flax linen."""
    import flax.linen as nn

    kind, options = {
        "linen-simple": (nn.SimpleCell, {"activation_fn": nn.relu}),
        "linen-lstm": (nn.LSTMCell, {}),
        "linen-optimized": (nn.OptimizedLSTMCell, {}),
        "linen-gru": (nn.GRUCell, {}),
        "linen-mgu": (nn.MGUCell, {}),
        "linen-mgu-no-reset": (nn.MGUCell, {"reset_gate": False}),
    }[name]
    return kind(H, param_dtype=dtype, **options)


def nnx_module(name, weights):
    """A cell of Flax NNX."""
    from flax import nnx

    kind = {
        "nnx-simple": nnx.SimpleCell,
        "nnx-lstm": nnx.LSTMCell,
        "nnx-optimized": nnx.OptimizedLSTMCell,
        "nnx-gru": nnx.GRUCell,
    }[name]
    dtype = next(iter(weights.values())).dtype
    options = dict(dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))
    zeros = nnx.initializers.zeros_init()  # orthogonal matrices are not drawn in 16 bits
    module = kind(I, H, recurrent_kernel_init=zeros, **options)
    for key, array in weights.items():
        layer, kernel_or_bias = key.split(".")
        getattr(getattr(module, layer), kernel_or_bias)[...] = array
    return module


def haiku_core(name):
    """A function that makes a core of Haiku."""
    import haiku as hk

    return {
        "haiku-lstm": lambda: hk.LSTM(H),
        "haiku-gru": lambda: hk.GRU(H),
        "haiku-vanilla": lambda: hk.VanillaRNN(H),
        "haiku-vanilla-one-bias": lambda: hk.VanillaRNN(H, double_bias=False),
    }[name]


def equinox_module(name, weights):
    """A cell of Equinox."""
    import equinox as eqx
    import jax

    kind = eqx.nn.GRUCell if "gru" in name else eqx.nn.LSTMCell
    dtype = weights["weight_ih"].dtype
    module = kind(I, H, use_bias="bias" in weights, dtype=dtype, key=jax.random.key(0))
    arrays = [jax.numpy.asarray(array) for array in weights.values()]
    return eqx.tree_at(lambda m: [getattr(m, key) for key in weights], module, arrays)


def nested(weights, separator="/"):
    """{"ii/kernel": …} as {"ii": {"kernel": …}}."""
    out = {}
    for key, array in weights.items():
        outer, inner = key.rsplit(separator, 1)
        out.setdefault(outer, {})[inner] = array
    return out


@functools.cache
def live(name) -> list:
    """Outputs and the parts of the final carry, computed in float64, but by Keras in float32.

    On JAX, Keras rounds every product to 32 bits.
    """
    case = CASES[name]
    weights, xs = case.weights(), case.xs()
    library = name.split("-")[0]
    if library == "torch":
        return run_torch(torch_module(name, weights), xs)
    if library == "keras":
        layer = keras_layer(**KERAS[name])
        layer.set_weights(list(weights.values()))
        return run_keras(layer, xs)
    if library == "linen":
        return run_linen(linen_module(name), nested(weights), xs)
    if library == "nnx":
        return run_nnx(nnx_module(name, weights), xs)
    if library == "haiku":
        return run_haiku(haiku_core(name), nested(weights), xs)
    return run_equinox(equinox_module(name, weights), xs)


if __name__ == "__main__":
    import jax

    jax.config.update("jax_enable_x64", True)
    answers = {f"{name}.{n}": part for name in CASES for n, part in enumerate(live(name))}
    for name, part in answers.items():
        assert part.dtype == ("float32" if name.startswith("keras") else "float64"), name
        assert B in part.shape, name
    np.savez_compressed(STORED, **answers)
    for name in CASES:
        assert [part.shape for part in stored(name)] == [part.shape for part in live(name)]
    print(f"{STORED.name}: {len(CASES)} cases, {STORED.stat().st_size // 1000} kB")
