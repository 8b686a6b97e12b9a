"""A model in two parts: what is trained, and the rest."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import PyTree


@dataclasses.dataclass(frozen=True)
class Tree:
    """How a tree of arrays comes apart: floating and complex leaves are trained."""

    def split(self, model: PyTree) -> tuple[PyTree, PyTree]:
        """The leaves that are trained and the others, None at those of the other part."""

        def part(trained: bool) -> PyTree:
            return jax.tree.map(lambda leaf: leaf if _is_inexact(leaf) is trained else None, model)

        return part(True), part(False)

    def merge(self, trained: PyTree, rest: PyTree) -> PyTree:
        """Both parts together again."""

        def one(mine: Any, other: Any) -> Any:
            return other if mine is None else mine

        return jax.tree.map(one, trained, rest, is_leaf=lambda leaf: leaf is None)


@dataclasses.dataclass(frozen=True)
class Module:
    """How an NNX module comes apart: floating and complex leaves in `nnx.Param` are trained."""

    graph: nnx.GraphDef

    def split(self, model: PyTree) -> tuple[PyTree, PyTree]:
        """The states of what is trained and of all other variables, both of plain arrays."""
        _, trained, rest = nnx.split(model, _is_trained, ...)
        return nnx.as_pure(trained), nnx.as_pure(rest)

    def merge(self, trained: PyTree, rest: PyTree) -> PyTree:
        """A module of both."""
        return nnx.merge(self.graph, trained, rest)


def check_arrays(name: str, tree: PyTree) -> None:
    """Raises `TypeError` at the first leaf that is neither an array nor a number."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, (bool, int, float, complex)):
            raise TypeError(
                f"{name}{jax.tree_util.keystr(path)} is a {type(leaf).__name__}, expected an array "
                "or a number: leave it out, the loss may close over it"
            )


def parts_of(model: PyTree) -> Tree | Module:
    """How a model comes apart."""
    leaves = jax.tree.leaves(model, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    in_variables = any(isinstance(leaf, nnx.Variable) for leaf in leaves)
    parts = Module(nnx.split(model, _is_trained, ...)[0]) if in_variables else Tree()
    if not jax.tree.leaves(parts.split(model)[0]):
        raise ValueError(
            f"a {type(model).__name__} has nothing to train: expected a tree with floating arrays, "
            "or an NNX module with these in nnx.Param"
        )
    return parts


def _is_inexact(leaf: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))


def _is_trained(path: Any, value: Any) -> bool:
    return isinstance(value, nnx.Param) and _is_inexact(value.get_value())
