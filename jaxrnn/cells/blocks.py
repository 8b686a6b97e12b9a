"""What cells made of gates share: stacked blocks, drawn and checked."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.initializers import Gates, draw_gates


class Blocks(NamedTuple):
    """The parameters of all gates, gate by gate along the first axis."""

    W_x: Float[Array, "gates H I"]
    W_h: Float[Array, "gates H H"]
    b: Float[Array, "gates H"] | None
    b_h: Float[Array, "own H"] | None


def draw_blocks(
    cell: Any,
    gates: Gates,
    key: Array,
    dtype: DTypeLike,
    own: int = 0,
    of_carry: Gates | None = None,
) -> Blocks:
    """Draws the blocks of a cell with the initialisers it names.

    `gates` read x, and the carry too unless `of_carry` names those that do. `own` is the number of
    gates, counted from the last, that keep a bias of their own on the side of the carry although
    `cell.biases` is 1.
    """
    check_dtype(dtype)
    H, biases = cell.hidden_size, cell.biases
    k_x, k_h, k_b, k_b_h = jax.random.split(key, 4)
    W_x = draw_gates(cell.input_initializer, k_x, gates, (H, cell.input_size), dtype)
    of_carry = gates if of_carry is None else of_carry
    W_h = draw_gates(cell.recurrent_initializer, k_h, of_carry, (H, H), dtype)
    b = draw_gates(cell.bias_initializer, k_b, gates, (H,), dtype) if biases > 0 else None
    b_h = None
    if biases == 2 or (biases == 1 and own):
        b_h = draw_gates(cell.recurrent_bias_initializer, k_b_h, of_carry, (H,), dtype)
        b_h = b_h if biases == 2 else b_h[-own:]
    return Blocks(W_x, W_h, b, b_h)


def draw_input(
    cell: Any, key: Array, dtype: DTypeLike
) -> tuple[Float[Array, "H I"], Float[Array, " H"] | None]:
    """W_x and b of a cell with one gate, whose map of the carry is no stack of blocks."""
    check_dtype(dtype)
    k_x, k_b = jax.random.split(key)
    H, gates = cell.hidden_size, cell.gates_of_x
    (W_x,) = draw_gates(cell.input_initializer, k_x, gates, (H, cell.input_size), dtype)
    if cell.biases == 0:
        return W_x, None
    (b,) = draw_gates(cell.bias_initializer, k_b, gates, (H,), dtype)
    return W_x, b


def check_sizes(cell: Any) -> None:
    """Raises if a size or the number of biases makes no sense."""
    name = type(cell).__name__
    for field in ("input_size", "hidden_size"):
        size = getattr(cell, field)
        least = 0 if field == "input_size" else 1
        if isinstance(size, bool) or not isinstance(size, int) or size < least:
            raise ValueError(f"{name}: {field} must be an int of at least {least}, got {size!r}")
    if cell.biases not in (0, 1, 2):
        raise ValueError(f"{name}: biases must be 0, 1 or 2, got {cell.biases!r}")


def check_one_bias(cell: Any) -> None:
    """Raises if a cell with no use for a second bias is asked for one."""
    if cell.biases == 2:
        name = type(cell).__name__
        raise ValueError(f"{name}: biases must be 0 or 1, got 2: it has no b_h")


def check_at_least(cell: Any, least: int, *fields: str) -> None:
    """Raises if a field is not an int of at least `least`."""
    for field in fields:
        size = getattr(cell, field)
        if isinstance(size, bool) or not isinstance(size, int) or size < least:
            raise ValueError(
                f"{type(cell).__name__}: {field} must be an int of at least {least}, got {size!r}"
            )


def check_divides(cell: Any, part: str, whole: str) -> None:
    """Raises if one field is not a divisor of the other."""
    check_at_least(cell, 1, part)
    if getattr(cell, whole) % getattr(cell, part):
        raise ValueError(
            f"{type(cell).__name__}: {whole} must be a multiple of {part}, got "
            f"{getattr(cell, whole)} and {getattr(cell, part)}"
        )


def check_choice(cell: Any, field: str, choices: tuple[str, ...]) -> None:
    """Raises if a field is not one of the named options."""
    if getattr(cell, field) not in choices:
        wanted = " or ".join(repr(choice) for choice in choices)
        raise ValueError(
            f"{type(cell).__name__}: {field} must be {wanted}, got {getattr(cell, field)!r}"
        )


def check_dtype(dtype: DTypeLike) -> None:
    """Raises if JAX would silently make something else of `dtype`."""
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"params must have a floating dtype, got {jnp.dtype(dtype).name}")
    if jax.dtypes.canonicalize_dtype(dtype) != jnp.dtype(dtype):
        raise ValueError(
            "got dtype float64, but JAX is set to 32 bits: "
            "call jax.config.update('jax_enable_x64', True) first"
        )
