"""Cells and layers of Flax NNX as ours, and our params as their modules.

nnx keeps kernels (I, H), one for each gate in `LSTMCell`, side by side in the others, in the order
i, f, g, o and r, z, n. Its LSTM has biases on the side of the carry, its GRU on the side of x; in
Flax 0.12 the GRU lacks the candidate's own, without which it cannot hold every GRU.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from jaxrnn.cell import params_dtype
from jaxrnn.cells import GRU, LSTM, Elman
from jaxrnn.cells.blocks import Blocks
from jaxrnn.convert.foreign import ForeignCell, checked, moment_of, shape_of
from jaxrnn.convert.layout import (
    KINDS,
    activation_name,
    activation_of,
    both_ways,
    candidate_apart,
    check_forwards,
    check_reset,
    exported,
    flatten,
    from_columns,
    nest,
    one_bias,
    ours,
    read,
    stack_of,
    to_columns,
)
from jaxrnn.network import Bidirectional, Stack


def from_nnx(
    module: Any,
    input_size: Any = None,
    native: bool = True,
    step: Callable[[Any, Any, Any], tuple[Any, Any]] | None = None,
    initial_carry: Callable[[Any], Any] | None = None,
    init: Callable[[Array], Any] | None = None,
) -> tuple[Any, Any]:
    """A cell of Flax NNX, or any nnx module that is called like one, as a cell of ours.

    `SimpleCell`, `LSTMCell`, `OptimizedLSTMCell` and `GRUCell` with their usual activations become
    *our* cell, with the weights laid out as ours: the fast ways through time, `gates`, `save`.
    Everything else stays what it is, as an `NNXCell`, whose params are the `nnx.State` of its
    `nnx.Param`s: `nnx.update(module, params)` puts them back. `nnx.RNN(cell)` gives its cell,
    `nnx.Bidirectional` a `Bidirectional`, a list of modules a `Stack`.

    Args:
        module: `module(carry, x) -> (carry, y)`.
        input_size: features of one x, its shape, or one x; by default `module.in_features`.
        native: False for the module itself, even where it is one of ours.
        step: (module, carry, x) -> (carry, y), a function defined once, if the module is called
            in another way.
        initial_carry: module -> carry, instead of `module.initialize_carry` with `nnx.Rngs(0)`.
        init: key -> a fresh module, for `cell.init`; without it, an `NNXCell` cannot draw params.

    Raises:
        ValueError: the module has a variable that is no `nnx.Param`, or an array of a wrong shape.
    """
    from flax import nnx

    def inner(module: Any, params: None = None, width: Any = None) -> tuple[Any, Any]:
        reads = input_size if width is None else width
        return from_nnx(module, reads, native, step, initial_carry, init)

    if isinstance(module, list | tuple):
        return stack_of(module, None, inner)
    if type(module) is nnx.Bidirectional and step is None:
        if module.merge_fn is not nnx.Bidirectional.merge_fn:
            raise ValueError(
                f"nnx.Bidirectional with merge_fn={module.merge_fn!r}: a Bidirectional of ours "
                "puts the outputs side by side. Convert the cells by themselves"
            )
        layers: tuple[Any, Any] = (module.forward_rnn, module.backward_rnn)
        return both_ways(*(inner(layer.cell) for layer in layers))
    if type(module) is nnx.RNN and step is None:
        check_forwards(module.reverse, "nnx.RNN with reverse=True")
        return inner(module.cell)
    name = type(module).__name__
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    for path, variable in nnx.to_flat_state(rest):
        raise ValueError(
            f"{'.'.join(map(str, path))} of {name} is an nnx.{type(variable).__name__}: a cell has "
            "nothing but nnx.Param, which its step does not change. Leave out what draws noise or "
            "keeps statistics"
        )
    if native and step is None and not initial_carry and _is_ours(module, params, nnx):
        return _read(module, params)
    input_size = getattr(module, "in_features", None) if input_size is None else input_size
    cell = NNXCell(
        graph=graph,
        moment=moment_of(input_size, f"the nnx module {name}"),
        step_function=step,
        initial_carry_function=initial_carry,
        init_function=init,
    )
    return checked(cell, params), params


def to_nnx(network: Any, params: PyTree) -> Any:
    """The nnx module that computes what `network` computes: `carry, y = module(carry, x)`.

    An Elman gives an `nnx.SimpleCell`, an LSTM an `nnx.LSTMCell`, a GRU an `nnx.GRUCell`, an
    `NNXCell` its own module. To load the weights into a module that there is, say
    `nnx.update(module, nnx.state(to_nnx(network, params)))`. A `Bidirectional` gives an
    `nnx.Bidirectional`, a `Stack` a tuple with one entry per layer.

    Raises:
        ValueError, TypeError: nnx has no such cell.
    """
    from flax import nnx

    if isinstance(network, NNXCell):
        return network.module(params)
    if isinstance(network, Stack):
        return tuple(to_nnx(*pair) for pair in zip(network.layers, params, strict=True))
    if isinstance(network, Bidirectional):
        forward, backward = (
            nnx.RNN(to_nnx(cell, p), rngs=False)
            for cell, p in zip((network.forward, network.backward), params, strict=True)
        )
        return nnx.Bidirectional(forward, backward)
    blocks = exported(network, params, "Flax NNX", KINDS)
    if isinstance(network, GRU):
        check_reset(network, "Flax NNX", "after")
    graph, state = nnx.split(nnx.eval_shape(lambda: _fresh(network, blocks.W_x.dtype, nnx)))
    nnx.replace_by_pure_dict(state, nest(_arrays_of(network, blocks), "."))
    return nnx.merge(graph, state)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class NNXCell(ForeignCell):
    """A module of Flax NNX as a cell: params are the state of its `nnx.Param`s."""

    graph: Any
    init_function: Callable[[Array], Any] | None = None

    def module(self, params: PyTree) -> Any:
        """The module with these params."""
        from flax import nnx

        return nnx.merge(self.graph, params)

    def draw(self, key: Array, dtype: DTypeLike) -> PyTree:
        """The params of a fresh module."""
        from flax import nnx

        if self.init_function is None:
            raise ValueError(
                "an nnx module draws its params when it is made: pass from_nnx(…, init=function "
                "of a key that returns a fresh module)"
            )
        return nnx.split(self.init_function(key), nnx.Param, ...)[1]

    def first_carry(self, params: PyTree) -> PyTree:
        """The first carry of the module."""
        from flax import nnx

        module = self.module(params)
        if self.initial_carry_function is not None:
            return self.initial_carry_function(module)
        if not hasattr(module, "initialize_carry"):
            raise ValueError(
                f"{type(module).__name__} has no initialize_carry(input_shape, rngs): pass "
                "initial_carry=, a function of the module"
            )
        return module.initialize_carry(shape_of(self), nnx.Rngs(0))

    def step(self, params: PyTree, carry: PyTree, x: Any) -> tuple[PyTree, Any]:
        """One step for one example."""
        module = self.module(params)
        if self.step_function is not None:
            return self.step_function(module, carry, x)
        return module(carry, x)


def _is_ours(module: Any, params: Any, nnx: Any) -> bool:
    if type(module) not in (nnx.SimpleCell, nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell):
        return False
    if module.carry_init not in (None, nnx.initializers.zeros_init()):
        return False
    if module.dtype is not None and jnp.dtype(module.dtype) != params_dtype(params):
        return False  # computes in another precision
    if type(module) is nnx.SimpleCell:
        return not module.residual
    return module.gate_fn is jax.nn.sigmoid and module.activation_fn is jnp.tanh


def _read(module: Any, params: Any) -> tuple[Any, Any]:
    """Our cell and params, of a module that computes what one of ours does."""
    from flax import nnx

    found = flatten(nnx.to_pure_dict(params), ".")
    kind, I, H = type(module).__name__, module.in_features, module.hidden_features
    owner = f"nnx.{kind}({I}, {H})"
    if kind == "LSTMCell":
        shapes = {f"{g}.kernel": (I, H) for g in ("ii", "if_", "ig", "io")}
        shapes |= {f"h{g}.kernel": (H, H) for g in "ifgo"} | {f"h{g}.bias": (H,) for g in "ifgo"}
        a = read(found, shapes, owner)
        W_x = jnp.stack([a[f"{g}.kernel"].T for g in ("ii", "if_", "ig", "io")])
        W_h = jnp.stack([a[f"h{g}.kernel"].T for g in "ifgo"])
        b = jnp.stack([a[f"h{g}.bias"] for g in "ifgo"])
        return ours(LSTM(I, H), W_x, W_h, b)
    gates = {"SimpleCell": 1, "GRUCell": 3, "OptimizedLSTMCell": 4}[kind]
    side = "dense_h" if gates == 4 else "dense_i"
    shapes = {"dense_i.kernel": (I, gates * H), "dense_h.kernel": (H, gates * H)}
    shapes |= {f"{side}.bias": (gates * H,)}
    a = read(found, shapes, owner)
    W_x, W_h = from_columns(a["dense_i.kernel"], gates), from_columns(a["dense_h.kernel"], gates)
    b = a[f"{side}.bias"].reshape(gates, H)
    if kind == "SimpleCell":
        cell = Elman(I, H, activation=activation_name(module.activation_fn))
        return ours(cell, W_x, W_h, b)
    if kind == "OptimizedLSTMCell":
        return ours(LSTM(I, H), W_x, W_h, b)
    # nnx lacks the candidate's own bias
    cell = GRU(I, H, reset="after", update_weighs="old")
    return ours(cell, W_x, W_h, b, jnp.zeros((1, H), b.dtype))


def _fresh(cell: Any, dtype: Any, nnx: Any) -> Any:
    sizes, options = (cell.input_size, cell.hidden_size), {"rngs": nnx.Rngs(0)}
    options |= {"param_dtype": dtype, "dtype": dtype}
    if isinstance(cell, Elman):
        return nnx.SimpleCell(*sizes, activation_fn=activation_of(cell), **options)
    return (nnx.GRUCell if isinstance(cell, GRU) else nnx.LSTMCell)(*sizes, **options)


def _arrays_of(cell: Any, blocks: Blocks) -> dict[str, Array]:
    if isinstance(cell, LSTM):
        arrays = {f"h{g}.bias": b for g, b in zip("ifgo", one_bias(blocks), strict=True)}
        of_x = zip(("ii", "if_", "ig", "io"), blocks.W_x, strict=True)
        arrays |= {f"{g}.kernel": W.T for g, W in of_x}
        return arrays | {f"h{g}.kernel": W.T for g, W in zip("ifgo", blocks.W_h, strict=True)}
    b = one_bias(blocks)
    if isinstance(cell, GRU):
        b, b_n = candidate_apart(blocks)
        if isinstance(b_n, Tracer) or np.any(np.asarray(b_n)):
            raise ValueError(
                "nnx.GRUCell has no bias of the candidate's own, inside of what r multiplies "
                "(b_hn; linen's GRUCell has it), and params.b_h of this GRU is not zero there"
            )
    kernels = {"dense_i.kernel": to_columns(blocks.W_x), "dense_h.kernel": to_columns(blocks.W_h)}
    return kernels | {"dense_i.bias": b.ravel()}
