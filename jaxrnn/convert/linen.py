"""Cells and layers of Flax linen as ours, and our params as theirs.

linen keeps one kernel (I, H) for each gate, by name. Its LSTM has biases on the side of the carry,
its GRU on the side of x, beside the candidate's own; it resets after the matrix and lets z weigh
the old side.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from jaxrnn.cell import params_dtype
from jaxrnn.cells import GRU, LSTM, Elman
from jaxrnn.cells.mgu import MGU
from jaxrnn.convert.foreign import ForeignCell, checked, moment_of, shape_of
from jaxrnn.convert.layout import (
    PARAMS,
    activation_name,
    both_ways,
    candidate_apart,
    check_forwards,
    check_reset,
    exported,
    flatten,
    nest,
    one_bias,
    ours,
    read,
    rows,
    stack_of,
)
from jaxrnn.network import Bidirectional, Stack

# gates in our order, and the maps that have a bias, beside the candidate's own
_PARTS = {
    "SimpleCell": (("",), ("i",)),
    "LSTMCell": ("ifgo", ("hi", "hf", "hg", "ho")),
    "OptimizedLSTMCell": ("ifgo", ("hi", "hf", "hg", "ho")),
    "GRUCell": ("rzn", ("ir", "iz", "in")),
    "MGUCell": ("fn", ("if", "in")),
}


def from_linen(
    module: Any,
    params: Any = None,
    input_size: Any = None,
    native: bool = True,
    step: Callable[[Any, Any, Any], tuple[Any, Any]] | None = None,
    initial_carry: Callable[[Any], Any] | None = None,
) -> tuple[Any, Any]:
    """A cell of Flax linen, or any linen module that is called like one, as a cell of ours.

    `SimpleCell`, `LSTMCell`, `OptimizedLSTMCell`, `GRUCell` and `MGUCell` with their usual
    activations become *our* cell, with the weights laid out as ours: the fast ways through time,
    `gates`, `save`. Everything else stays what it is, as a `LinenCell`, with its own params and
    carry. `nn.RNN(cell)` gives its cell, `nn.Bidirectional` a `Bidirectional`, a list a `Stack`.
    Traced params are fine: gradients reach the params of linen.

    Args:
        module: an unbound module; `module(carry, x) -> (carry, y)`.
        params: its variables or their collection "params"; None to draw them by `cell.init`, which
            for a cell of ours uses our initialisers. A list of modules has a list of them.
        input_size: features of one x, its shape, or one x. Read off the params of a cell of ours;
            others need it.
        native: False for the module itself, even where it is one of ours.
        step: (module, carry, x) -> (carry, y), a function defined once, if the module is called
            in another way.
        initial_carry: module -> carry, instead of `module.initialize_carry`, whose key is
            `jax.random.key(0)`.

    Raises:
        ValueError: an array is missing, not known here or of the wrong shape; there are variables
            that are not params.
    """
    import flax.linen as nn

    def inner(module: Any, params: Any, width: Any = None) -> tuple[Any, Any]:
        reads = input_size if width is None else width
        return from_linen(module, params, reads, native, step, initial_carry)

    if isinstance(module, list | tuple):
        return stack_of(module, params, inner)
    params = None if params is None else _collection(params)
    if type(module) is nn.Bidirectional and step is None:
        _check_merge(module, nn)
        names = ("forward_rnn", "backward_rnn")
        cells = [getattr(module, name).cell for name in names]
        each = [_inside(_inside(params, name, module), "cell", module) for name in names]
        return both_ways(*map(inner, cells, each))
    if type(module) is nn.RNN and step is None:
        check_forwards(module.reverse, "nn.RNN with reverse=True")
        return inner(module.cell, _inside(params, "cell", module))
    if native and step is None and not initial_carry and _is_ours(module, params, nn):
        return _read(module, params, input_size)
    what = f"the linen module {type(module).__name__}"
    cell = LinenCell(
        module=module,
        moment=moment_of(input_size, what),
        step_function=step,
        initial_carry_function=initial_carry,
    )
    return checked(cell, params), params


def to_linen(network: Any, params: PyTree) -> Any:
    """The params of the linen module that computes what `network` computes.

    Use them by `module.apply({"params": p}, carry, x)`, with `nn.SimpleCell`, `nn.LSTMCell`,
    `nn.OptimizedLSTMCell`, `nn.GRUCell` or `nn.MGUCell` of the same features (and activation).
    linen has one bias for each gate: two are added up, none are zeros. A `Bidirectional` gives the
    params of `nn.Bidirectional(nn.RNN(…), nn.RNN(…))`, a `Stack` a tuple with one entry per layer.

    Raises:
        ValueError, TypeError: linen has no such cell.
    """
    if isinstance(network, LinenCell):
        return params
    if isinstance(network, Stack):
        return tuple(to_linen(*pair) for pair in zip(network.layers, params, strict=True))
    if isinstance(network, Bidirectional):
        return {
            "forward_rnn": {"cell": to_linen(network.forward, params.forward)},
            "backward_rnn": {"cell": to_linen(network.backward, params.backward)},
        }
    blocks = exported(network, params, "Flax linen", tuple(PARAMS))
    if isinstance(network, GRU):
        check_reset(network, "Flax linen", "after")
    b, b_n = one_bias(blocks), None
    if not isinstance(network, LSTM | Elman) and network.reset == "after":
        b, b_n = candidate_apart(blocks)
    kind = {Elman: "SimpleCell", GRU: "GRUCell", LSTM: "LSTMCell", MGU: "MGUCell"}[type(network)]
    gates, biased = _PARTS[kind]
    arrays = {f"i{g}/kernel": W.T for g, W in zip(gates, blocks.W_x, strict=True)}
    arrays |= {f"h{g}/kernel": W.T for g, W in zip(gates, blocks.W_h, strict=True)}
    arrays |= {f"{name}/bias": one for name, one in zip(biased, b, strict=True)}
    return nest(arrays if b_n is None else arrays | {"hn/bias": b_n})


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class LinenCell(ForeignCell):
    """A module of Flax linen as a cell: params are its collection "params", the carry its own."""

    module: Any

    def draw(self, key: Array, dtype: DTypeLike) -> PyTree:
        """Params as linen draws them."""
        carry = jax.tree.map(jnp.zeros_like, self._carry())
        variables = self.module.init(key, carry, self.zeros(jnp.float32), method=self.step_function)
        return _collection(variables)

    def first_carry(self, params: PyTree) -> PyTree:
        """The first carry of the module."""
        return self._carry()

    def step(self, params: PyTree, carry: PyTree, x: Any) -> tuple[PyTree, Any]:
        """One step for one example."""
        return self.module.apply({"params": params}, carry, x, method=self.step_function)

    def _carry(self) -> PyTree:
        if self.initial_carry_function is not None:
            return self.initial_carry_function(self.module)
        if not hasattr(self.module, "initialize_carry"):
            raise ValueError(
                f"{type(self.module).__name__} has no initialize_carry(key, input_shape): pass "
                "initial_carry=, a function of the module"
            )
        return self.module.initialize_carry(jax.random.key(0), shape_of(self))


def _collection(variables: Any) -> Any:
    # variables are {"params": …}, maybe with other collections beside it
    if not isinstance(variables, Mapping) or "params" not in variables:
        return variables
    if others := [name for name in variables if name != "params"]:
        raise ValueError(
            f"the variables have a collection {others[0]!r}: a cell has nothing but params, which "
            "it does not change. Take that part out of the module, or out of its step"
        )
    return variables["params"]


def _inside(params: Any, name: str, module: Any) -> Any:
    if params is None:
        return None
    if name not in params:
        raise ValueError(
            f"{name} is missing in the params of nn.{type(module).__name__}: found "
            f"{', '.join(params) or 'nothing'}"
        )
    return params[name]


def _check_merge(module: Any, nn: Any) -> None:
    if module.merge_fn is not nn.Bidirectional.__dataclass_fields__["merge_fn"].default:
        raise ValueError(
            f"nn.Bidirectional with merge_fn={module.merge_fn!r}: a Bidirectional of ours puts the "
            "outputs side by side. Convert forward_rnn.cell and backward_rnn.cell by themselves"
        )


def _is_ours(module: Any, params: Any, nn: Any) -> bool:
    """Whether the module computes what a cell of ours computes."""
    kinds = (nn.SimpleCell, nn.LSTMCell, nn.OptimizedLSTMCell, nn.GRUCell, nn.MGUCell)
    if type(module) not in kinds or module.carry_init is not nn.initializers.zeros_init():
        return False
    dtype = module.param_dtype if params is None else params_dtype(params)
    if module.dtype is not None and (dtype is None or jnp.dtype(module.dtype) != dtype):
        return False  # computes in another precision
    if type(module) is nn.SimpleCell:
        return not module.residual
    return module.gate_fn is jax.nn.sigmoid and module.activation_fn is jnp.tanh


def _ours(module: Any, I: int) -> Any:
    """The cell of ours that computes what the module computes."""
    H, kind = module.features, type(module).__name__
    if kind == "SimpleCell":
        return Elman(I, H, activation=activation_name(module.activation_fn))
    if kind == "GRUCell":
        return GRU(I, H, reset="after", update_weighs="old")
    if kind == "MGUCell":
        reset = "after" if module.reset_gate else "none"
        return MGU(I, H, reset=reset, forget_weighs="old")
    return LSTM(I, H)


def _read(module: Any, params: Any, input_size: Any) -> tuple[Any, Any]:
    """Our cell and params, of a module that computes what one of ours does."""
    from flax.core import meta

    kind, H = type(module).__name__, module.features
    if params is None:
        moment = moment_of(input_size, f"nn.{kind} without params")
        return _ours(module, moment.shape[-1]), None
    gates, biased = _PARTS[kind]
    own = ("hn",) if kind == "GRUCell" or (kind == "MGUCell" and module.reset_gate) else ()
    owner, found = f"nn.{kind}(features={H})", flatten(meta.unbox(params))
    I = rows(found, f"i{gates[0]}/kernel", owner)
    shapes: dict[str, tuple[int, ...]] = {f"i{g}/kernel": (I, H) for g in gates}
    shapes |= {f"h{g}/kernel": (H, H) for g in gates}
    arrays = read(found, shapes | {f"{name}/bias": (H,) for name in (*biased, *own)}, owner)
    W_x = jnp.stack([arrays[f"i{g}/kernel"].T for g in gates])
    W_h = jnp.stack([arrays[f"h{g}/kernel"].T for g in gates])
    b = jnp.stack([arrays[f"{name}/bias"] for name in biased])
    return ours(_ours(module, I), W_x, W_h, b, arrays["hn/bias"][None] if own else None)
