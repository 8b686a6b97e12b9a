"""Any cell or network as a module of Flax NNX."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Int, PyTree

from jaxrnn import cell as contract
from jaxrnn.methods import Method
from jaxrnn.unroll import unroll


class Recurrent(nnx.Module):
    """A cell or network with its params, one `nnx.Param` at each leaf of the params tree.

    So it goes into any NNX model: `nnx.Optimizer`, `nnx.jit`, `nnx.split` and `nnx.value_and_grad`
    see named arrays, and `jax.jit` and `jax.grad` take the module for the pytree that it is.

    network: the cell or network, static.
    method: how it is unrolled, as for `jaxrnn.unroll`; may be set at any time, also inside other
        models: `model.recurrent.method = jaxrnn.Staged(compute_dtype="bfloat16")`.
    params: the leaves by their field paths, as in files: `"0.forward.W_x"`. A leaf that is neither
        real nor complex, which no gradient can reach, is an `nnx.Variable` that is no `nnx.Param`.
    """

    def __init__(
        self,
        network: Any,
        *,
        method: Method | None = None,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
    ) -> None:
        contract.check_cell(network)
        self.network, self.method = network, method
        leaves, self.structure = jax.tree.flatten(network.init(rngs.params(), dtype=dtype))
        # by name and not as the tree itself: a tree may hold variables of its own, or None
        names = _names(self.structure)
        self.params = nnx.data({n: _variable(a) for n, a in zip(names, leaves, strict=True)})

    @property
    def tree(self) -> PyTree:
        """The params as `network` knows them, for `jaxrnn.analysis` and `jaxrnn.save`."""
        return self.structure.unflatten([self.params[n][...] for n in _names(self.structure)])

    def set_tree(self, params: PyTree) -> None:
        """Puts in other params, for instance those that `load` or `convert` returned."""
        new, now = (jax.tree.map(jnp.asarray, tree) for tree in (params, self.tree))
        same = jax.tree.structure(new) == self.structure and all(
            a.shape == b.shape and a.dtype == b.dtype
            for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(now), strict=True)
        )
        if not same:
            raise ValueError(
                f"set_tree: these are not params of {type(self.network).__name__} as it was made: "
                f"got {contract.describe(new)}, expected {contract.describe(now)}; another dtype "
                "is converted by jax.tree.map(lambda a: a.astype(…), params)"
            )
        for name, leaf in zip(_names(self.structure), jax.tree.leaves(new), strict=True):
            self.params[name][...] = leaf

    def __call__(
        self,
        xs: PyTree,
        *,
        carry: PyTree | None = None,
        lengths: Int[Array, "*batch"] | Any = None,
        resets: Bool[Array, "*batch T"] | Any = None,
        reverse: bool = False,
        key: Array | None = None,
        start: int | Array = 0,
    ) -> tuple[PyTree, PyTree]:
        """`jaxrnn.unroll` over `xs`, `(*batch, T, features)`: the final carry, and ys."""
        return unroll(
            self.network,
            self.tree,
            xs,
            carry=carry,
            lengths=lengths,
            resets=resets,
            reverse=reverse,
            method=self.method,
            key=key,
            start=start,
        )

    def step(self, carry: PyTree, x: Any, key: Array | None = None) -> tuple[PyTree, Any]:
        """One step for one example; `jax.vmap` it for a batch. An error if it needs the future."""
        return contract.step(self.network, self.tree, carry, x, key)

    def initial_carry(self) -> PyTree:
        """What the first step of one example starts from."""
        return self.network.initial_carry(self.tree)


def _names(structure: Any) -> list[str]:
    """The field path of each leaf."""
    whole = structure.unflatten([0] * structure.num_leaves)
    paths = jax.tree_util.tree_leaves_with_path(whole)
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]


def _variable(leaf: Any) -> nnx.Variable:
    inexact = jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    return (nnx.Param if inexact else nnx.Variable)(jnp.asarray(leaf))
