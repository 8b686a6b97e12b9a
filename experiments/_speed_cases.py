"""What `speed` times: a cell, a shape, and what is asked of them."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._common import UsageError

TITLES = {"lstm": "LSTM", "gru": "GRU", "elman": "Elman"}
GATES = {"lstm": 4, "gru": 3, "elman": 1}
TASKS = ("forward", "training")
GRID = ("1x512x64x128", "32x128x64x64", "64x128x256x256", "16x256x128x512")
MEMORY_SHAPE = "64x128x256x256"  # where peak memory is judged
WIDE = 256  # H from which training is judged against the floor


class Case(NamedTuple):
    """One cell on one shape."""

    cell: str
    batch: int
    steps: int
    input_size: int
    hidden_size: int

    @property
    def shape(self) -> str:
        """BxTxIxH, as `--only` takes it."""
        return "x".join(map(str, self[1:]))

    @property
    def gates(self) -> int:
        """G, how many blocks of H rows the matrices have."""
        return GATES[self.cell]

    def inputs(self, seed: int) -> np.ndarray:
        """xs as (B, T, I), standard normal, float32."""
        size = (self.batch, self.steps, self.input_size)
        return np.random.default_rng(seed).standard_normal(size, np.float32)


def parse_shape(text: str) -> tuple[int, int, int, int]:
    """`BxTxIxH` as four numbers."""
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)x(\d+)", text)
    if found is None or "0" in found.groups():
        raise UsageError(f"--only takes shapes BxTxIxH such as {GRID[0]}, got {text!r}")
    B, T, I, H = map(int, found.groups())
    return B, T, I, H


def draw_params(init: Callable, *arguments: Any, size: int) -> Any:
    """What `init` would return, uniform in ±1/√size, as PyTorch begins; compiles nothing."""
    rng, bound = np.random.default_rng(0), size**-0.5
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(-bound, bound, leaf.shape), leaf.dtype),
        jax.eval_shape(init, *arguments),
    )
