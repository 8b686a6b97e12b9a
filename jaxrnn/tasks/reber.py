"""The embedded Reber grammar: predict the next symbol of a string."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from jaxrnn.tasks.task import (
    Example,
    Stepwise,
    above_all_others,
    check_dtype,
    check_whole,
    draw_uniform,
    symbols,
)

SYMBOLS = "BTPSXVE"
# Reber's grammar: from each node, symbol and next node; 7 is behind its end
REBER = ("B1", "T2 P3", "S2 X4", "T3 V5", "X3 S6", "P4 V6", "E7")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Reber(Stepwise):
    """The next symbol of strings of the embedded Reber grammar.

    A string is B, then T or P, a whole string of Reber's grammar, the same T or P once more, and E;
    where two symbols are legal, each comes with probability 1/2. The symbol before the last needs
    the second one to be remembered over the whole inner string.

    xs (T, 7), one-hot over B T P S X V E, without the last symbol. The targets (T, 7) are the
    probabilities of the next symbol in the grammar: 1 where one is legal, 1/2 twice where two are.
    Every step of the string counts; strings have 9 … T + 1 symbols: those of the grammar, given
    that they are no longer than that.

    loss: the cross-entropy of these probabilities, in nats; a perfect answer's is not 0 but its
        entropy, ln 2 at each step where two symbols are legal. In expectation it is that of the
        symbol that came, with less noise.
    baseline: the cross-entropy of the best answer that only knows how many symbols have gone, an
        exact sum over the grammar.
    correct: at every step the outputs of the legal symbols are larger than all others, the
        criterion of Hochreiter and Schmidhuber 1997, experiment 1.

    length: T, steps of the longest string.

    Reber 1967; embedded: Cleeremans, Servan-Schreiber and McClelland 1989.
    """

    length: int = 40

    def __post_init__(self) -> None:
        check_whole(self, "length", 8, why=", as the shortest string has nine symbols")

    @property
    def input_size(self) -> int:
        """The symbols."""
        return len(SYMBOLS)

    @property
    def output_size(self) -> int:
        """The symbols."""
        return len(SYMBOLS)

    @property
    def baseline(self) -> float:
        """An exact sum over the grammar."""
        return _baseline(self.length + 1)

    def sample(self, key: Array, dtype: DTypeLike = jnp.float32) -> Example:
        """Draws one example."""
        check_dtype(self, dtype)
        emitted, following = jnp.asarray(GRAMMAR.symbols), jnp.asarray(GRAMMAR.following)
        # the first of two edges is taken with this probability, so that the string ends in time
        first = jnp.asarray(_first_edge(self.length + 1), jnp.float32)

        def write(node: Array, step: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
            chance, drawn = step
            edge = (drawn >= chance[node]).astype(jnp.int32)
            return following[node, edge], (node, emitted[node, edge])

        draws = draw_uniform(key, (self.length + 1,), jnp.float32)
        start = jnp.asarray(0, jnp.int32)
        _, (nodes, string) = jax.lax.scan(write, start, (first, draws))
        counts = string[1:] >= 0
        xs = symbols(jnp.where(counts, string[:-1], -1), self.input_size, dtype)
        targets = jnp.asarray(GRAMMAR.legal, dtype)[nodes[1:]]
        return Example(xs, targets, counts.astype(dtype), jnp.sum(counts).astype(jnp.int32))

    def _step_losses(self, outputs: Array, targets: Array) -> Array:
        return -jnp.sum(targets * jax.nn.log_softmax(outputs), -1)

    def _steps_solved(self, outputs: Array, targets: Array) -> Array:
        return above_all_others(outputs, targets > 0)


class Grammar(NamedTuple):
    """Nodes with two edges each, the same one twice where a node has only one.

    symbols, following (nodes, 2): of each edge. The last node is behind the end: it emits −1.
    legal (nodes, 7): the probabilities of the next symbol.
    """

    symbols: np.ndarray
    following: np.ndarray
    legal: np.ndarray


def _embedded() -> Grammar:
    # B, the outer choice, one copy of the inner grammar for each, what closes it, E, the end
    copies = (("T", 2), ("P", 2 + len(REBER) + 1))
    end = 3 + 2 * (len(REBER) + 1)
    edges = [[("B", 1)], list(copies)]
    for outer, offset in copies:
        for node in REBER:
            edges.append([(edge[0], offset + int(edge[1])) for edge in node.split()])
        edges.append([(outer, end - 1)])
    edges += [[("E", end)], [("", end)]]
    both = [(node * 2)[:2] for node in edges]
    emitted = np.array([[SYMBOLS.find(s) if s else -1 for s, _ in node] for node in both], np.int32)
    following = np.array([[n for _, n in node] for node in both], np.int32)
    legal = (emitted[..., None] == np.arange(len(SYMBOLS))).mean(1)
    return Grammar(emitted, following, legal)


GRAMMAR = _embedded()


def _ends_within(most: int) -> np.ndarray:
    # (most + 1, nodes): the probability of no more than m symbols from a node to the end
    within = np.zeros((most + 1, len(GRAMMAR.symbols)))
    within[0, -1] = 1
    for m in range(1, most + 1):
        within[m] = within[m - 1][GRAMMAR.following].mean(-1)
    return within


def _first_edge(most: int) -> np.ndarray:
    # (most, nodes): the probability of the first edge at each step, given the end in time
    within = _ends_within(most)
    left = within[most - 1 :: -1][:most]  # after step 0, 1, …: most − 1, most − 2, … symbols
    edges = left[:, GRAMMAR.following]
    total = edges.sum(-1)
    return np.where(total > 0, edges[..., 0] / np.where(total > 0, total, 1), 0.5)


@functools.cache
def _baseline(most: int) -> float:
    # every step of a string of n symbols weighs 1/(n − 1), as the loss is a mean over strings
    within = _ends_within(most)
    exactly = np.diff(within, axis=0, prepend=0)  # the end after just so many symbols
    move = np.zeros((within.shape[1],) * 2)
    np.add.at(move, (np.arange(len(move))[:, None], GRAMMAR.following), 0.5)
    here, loss = np.eye(len(move))[0], 0.0
    for written in range(1, most):
        here = here @ move
        totals = np.arange(written + 1, most + 1)
        weights = (exactly[1 : most - written + 1] / (totals - 1)[:, None]).sum(0)
        share = (here * weights) @ GRAMMAR.legal / within[most, 0]
        share = share[share > 0]
        loss -= float(share @ np.log(share / share.sum()))
    return loss
