"""Cells of other libraries on which these are the reference, and their inputs.

The inputs come from `numpy.random.RandomState`, whose stream NumPy has promised never to change,
so that only the libraries' answers need to be stored. Names and shapes are theirs.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

B, T, I, H, P = 2, 6, 3, 4, 2
STORED = Path(__file__).with_name("framework_numbers.npz")


class Case(NamedTuple):
    """One cell or layer of a library by the names and shapes of its arrays."""

    seed: int
    shapes: dict

    def weights(self, dtype="float64") -> dict:
        """The same numbers on every machine; those of 32 bits are exact in 64."""
        random = np.random.RandomState(self.seed)
        draws = {key: random.uniform(-0.8, 0.8, shape) for key, shape in self.shapes.items()}
        return {key: array.astype("float32").astype(dtype) for key, array in draws.items()}

    def xs(self, dtype="float64") -> np.ndarray:
        """Inputs, (B, T, I)."""
        random = np.random.RandomState(1000 + self.seed)
        return random.uniform(-1.5, 1.5, (B, T, I)).astype("float32").astype(dtype)


def keras(gates, bias):
    """kernel, recurrent_kernel and, if it has a shape, bias."""
    shapes = {"kernel": (I, gates * H), "recurrent_kernel": (H, gates * H)}
    return shapes | ({"bias": bias} if bias else {})


def both(shapes):
    """The same for two directions."""
    return {
        f"{side}/{key}": shape for side in ("forward", "backward") for key, shape in shapes.items()
    }


def linen(gates, biased):
    """One kernel for each gate, by name."""
    shapes = {f"i{g}/kernel": (I, H) for g in gates} | {f"h{g}/kernel": (H, H) for g in gates}
    return shapes | {f"{name}/bias": (H,) for name in biased}


def haiku_linear(name, bias=True):
    """The two Linear modules of a VanillaRNN."""
    shapes = {f"{name}/linear/w": (I, H), f"{name}/linear/b": (H,), f"{name}/linear_1/w": (H, H)}
    return shapes | ({f"{name}/linear_1/b": (H,)} if bias else {})


def projection():
    """An nn.LSTM of two layers, in both directions, with proj_size."""
    shapes = {}
    for layer, width in enumerate((I, 2 * P)):
        for end in (f"l{layer}", f"l{layer}_reverse"):
            shapes |= {f"weight_ih_{end}": (4 * H, width), f"weight_hh_{end}": (4 * H, P)}
            shapes |= {f"weight_hr_{end}": (P, H)}
            shapes |= {f"bias_ih_{end}": (4 * H,), f"bias_hh_{end}": (4 * H,)}
    return shapes


LSTM_BIASED, GRU_BIASED = ("hi", "hf", "hg", "ho"), ("ir", "iz", "in", "hn")
SHAPES = {
    "torch-projection": projection(),
    "keras-simple": keras(1, (H,)),
    "keras-simple-none": keras(1, None),
    "keras-lstm": keras(4, (4 * H,)),
    "keras-lstm-none": keras(4, None),
    "keras-lstm-both": both(keras(4, (4 * H,))),
    "keras-gru-after": keras(3, (2, 3 * H)),
    "keras-gru-after-none": keras(3, None),
    "keras-gru-before": keras(3, (3 * H,)),
    "keras-gru-before-none": keras(3, None),
    "keras-gru-both": both(keras(3, (2, 3 * H))),
    "linen-simple": linen(("",), ("i",)),
    "linen-lstm": linen("ifgo", LSTM_BIASED),
    "linen-optimized": linen("ifgo", LSTM_BIASED),
    "linen-gru": linen("rzn", GRU_BIASED),
    "linen-mgu": linen("fn", ("if", "in", "hn")),
    "linen-mgu-no-reset": linen("fn", ("if", "in")),
    "nnx-simple": {"dense_i.kernel": (I, H), "dense_i.bias": (H,), "dense_h.kernel": (H, H)},
    "nnx-lstm": {
        **{f"{name}.kernel": (I, H) for name in ("ii", "if_", "ig", "io")},
        **{f"{name}.kernel": (H, H) for name in LSTM_BIASED},
        **{f"{name}.bias": (H,) for name in LSTM_BIASED},
    },
    "nnx-optimized": {
        "dense_i.kernel": (I, 4 * H),
        "dense_h.kernel": (H, 4 * H),
        "dense_h.bias": (4 * H,),
    },
    "nnx-gru": {
        "dense_i.kernel": (I, 3 * H),
        "dense_i.bias": (3 * H,),
        "dense_h.kernel": (H, 3 * H),
    },
    "haiku-lstm": {"lstm/linear/w": (I + H, 4 * H), "lstm/linear/b": (4 * H,)},
    "haiku-gru": {"gru/w_i": (I, 3 * H), "gru/w_h": (H, 3 * H), "gru/b": (3 * H,)},
    "haiku-vanilla": haiku_linear("vanilla_rnn"),
    "haiku-vanilla-one-bias": haiku_linear("vanilla_rnn", bias=False),
    "equinox-lstm": {"weight_ih": (4 * H, I), "weight_hh": (4 * H, H), "bias": (4 * H,)},
    "equinox-lstm-none": {"weight_ih": (4 * H, I), "weight_hh": (4 * H, H)},
    "equinox-gru": {
        "weight_ih": (3 * H, I),
        "weight_hh": (3 * H, H),
        "bias": (3 * H,),
        "bias_n": (H,),
    },
    "equinox-gru-none": {"weight_ih": (3 * H, I), "weight_hh": (3 * H, H)},
}
CASES = {name: Case(seed, shapes) for seed, (name, shapes) in enumerate(SHAPES.items())}


def of(library) -> list:
    """The names of one library's cases."""
    return [name for name in CASES if name.startswith(f"{library}-")]


def stored(name) -> list:
    """Outputs and the parts of the final carry, from the file; float32 for Keras, else float64."""
    with np.load(STORED) as file:
        return [file[key] for key in sorted(file) if key.rpartition(".")[0] == name]
