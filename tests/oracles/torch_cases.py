"""The cases on which PyTorch's layers are the reference, and their inputs.

The inputs come from `numpy.random.RandomState`, whose stream NumPy has promised never to change,
so that only PyTorch's answers need to be stored. Names and shapes are PyTorch's.
"""

import itertools
from typing import NamedTuple

import numpy as np

GATES = {"tanh": 1, "relu": 1, "gru": 3, "lstm": 4}


class Case(NamedTuple):
    """One module of PyTorch and the sizes of its problem; `bits` of its floats."""

    kind: str
    layers: int
    bias: bool
    directions: int
    bits: int = 64
    B: int = 3
    T: int = 5
    I: int = 3
    H: int = 4

    def __str__(self):
        return (
            f"{self.kind}-{self.layers}-{'bias' if self.bias else 'none'}-"
            f"{'both' if self.directions == 2 else 'one'}"
        )


CASES = [Case(*choice) for choice in itertools.product(GATES, (1, 2, 3), (True, False), (1, 2))]


class Problem(NamedTuple):
    """What a module is given: weights by name, inputs, carries, and fixed cotangents."""

    weights: dict
    xs: np.ndarray  # (B, T, I)
    lengths: np.ndarray  # (B,), 1…T
    carry: tuple  # h_0 and, for an LSTM, c_0: (layers · directions, B, H)
    d_ys: np.ndarray  # (B, T, directions · H)
    d_carry: tuple


def problem(case: Case) -> Problem:
    """The same numbers on every machine; those of 32 bits are exact in 64."""
    seed = 1000 * CASES.index(case) if case in CASES else 7
    random = np.random.RandomState(seed)

    def draw(*shape, scale=1.0):
        return random.uniform(-scale, scale, shape).astype(f"float{case.bits}")

    B, T, I, H, D = case.B, case.T, case.I, case.H, case.directions
    scale = 0.7 if H < 10 else 1 / np.sqrt(H)
    weights = {name: draw(*shape, scale=scale) for name, shape in weight_shapes(case).items()}
    carries = 2 if case.kind == "lstm" else 1
    lengths = np.maximum(1, T - 3 * np.arange(B)[::-1] % T)
    return Problem(
        weights,
        draw(B, T, I, scale=1.5),
        lengths,
        tuple(draw(case.layers * D, B, H) for _ in range(carries)),
        draw(B, T, D * H),
        tuple(draw(case.layers * D, B, H) for _ in range(carries)),
    )


def weight_shapes(case: Case) -> dict:
    """Names and shapes as PyTorch documents them."""
    shapes = {}
    rows = GATES[case.kind] * case.H
    for layer in range(case.layers):
        width = case.I if layer == 0 else case.directions * case.H
        for end in (f"l{layer}", f"l{layer}_reverse")[: case.directions]:
            shapes[f"weight_ih_{end}"] = (rows, width)
            shapes[f"weight_hh_{end}"] = (rows, case.H)
            if case.bias:
                shapes[f"bias_ih_{end}"] = shapes[f"bias_hh_{end}"] = (rows,)
    return shapes


def answer_shapes(case: Case) -> dict:
    """What is compared: outputs, final carries, and gradients, in the order they are stored."""
    carry = (case.layers * case.directions, case.B, case.H)
    names = ("h", "c") if case.kind == "lstm" else ("h",)
    return {
        "ys": (case.B, case.T, case.directions * case.H),
        **{f"{name}_T": carry for name in names},
        "d_xs": (case.B, case.T, case.I),
        **{f"d_{name}_0": carry for name in names},
        **{f"d_{name}": shape for name, shape in weight_shapes(case).items()},
    }


def pack(answers: dict) -> np.ndarray:
    """All answers of a case as one vector."""
    return np.concatenate([np.ravel(array) for array in answers.values()])


def unpack(case: Case, vector: np.ndarray) -> dict:
    """What `pack` packed."""
    answers, position = {}, 0
    for name, shape in answer_shapes(case).items():
        size = int(np.prod(shape))
        answers[name] = vector[position : position + size].reshape(shape)
        position += size
    assert position == vector.size
    return answers
