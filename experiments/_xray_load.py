"""What `xray` looks at: a network from a file or from the user's own code, inputs, and text."""

import functools
import importlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from experiments import _decay_weights as weights
from experiments import _text as texts
from experiments._common import UsageError, user_errors
from jaxrnn.cell import check_cell, is_causal, params_dtype
from jaxrnn.convert import from_torch
from jaxrnn.save import read_tensors


class Inputs(NamedTuple):
    """Windows of inputs `(W, T, I)`, the token of each step where there is text, and words."""

    xs: np.ndarray
    tokens: list[list[str]] | None
    said: str


class Subject(NamedTuple):
    """A network to look into.

    parts: causal parts, the one to look at first; none of a plain function.
    function: xs `(W, T, I)` -> ys, the whole; end: the output that is differentiated, see
        `input_sensitivity`.
    facts: words about it, for the page.
    """

    name: str
    parts: list[weights.Part]
    function: Callable[[Any], Any]
    end: int | None
    inputs: Inputs
    facts: dict[str, str]


class Source(NamedTuple):
    """A network as it was given: cell and params, or a function, and perhaps how to embed text."""

    name: str
    network: tuple[Any, Any] | None
    function: Callable[[Any], Any] | None
    encode: Callable[[str], Any] | None


def load(config: Any) -> Subject:
    """Reads everything that the user passed in, or says in one line what does not fit."""
    if (config.weights is None) == (config.function is None):
        raise UsageError(
            "name one network: --weights FILE.safetensors, or --function module:name of your own"
        )
    source = _from_file(config) if config.function is None else _from_code(config.function)
    inputs = _inputs(config, source)
    if source.network is None:
        return _plain_function(source, inputs)
    return _network(source.name, *source.network, inputs)


# ---- the network


def _from_file(config: Any) -> Source:
    path = config.weights
    try:
        with user_errors():
            network = _read(path, config.prefix, config.nonlinearity)
    except OSError as error:
        raise UsageError(f"cannot read the weights {path}: {error.strerror or error}") from None
    name = f"{describe_network(network[0])}, from {path.name}"
    return Source(name, _single_precision(network), None, _embedding(config))


def _read(path: Path, prefix: str, nonlinearity: str) -> tuple[Any, Any]:
    # a pickle is refused, unread, by from_torch
    if path.suffix == ".safetensors" and "jaxrnn" in read_tensors(path)[1]:
        return jaxrnn.load(path)
    return from_torch(path, prefix=prefix, nonlinearity=nonlinearity)


def _single_precision(network: tuple[Any, Any]) -> tuple[Any, Any]:
    def single(leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            return jnp.asarray(leaf, jnp.complex64)
        return jnp.asarray(leaf, jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return network[0], jax.tree.map(single, network[1])


def _embedding(config: Any) -> Callable[[str], Any] | None:
    # an embedding that lies in the same file, and the tokens that its rows stand for
    if config.embedding is None and config.alphabet is None:
        return None
    if config.embedding is None or config.alphabet is None:
        raise UsageError("--embedding (a name in the file) and --alphabet belong together")
    tensors = read_tensors(config.weights)[0]
    if config.embedding not in tensors or tensors[config.embedding].ndim != 2:
        names = ", ".join(k for k, v in tensors.items() if v.ndim == 2)
        raise UsageError(f"{config.weights} holds no matrix {config.embedding!r}: it has {names}")
    rows = tensors[config.embedding]
    number = {token: i for i, token in enumerate(_alphabet(config.alphabet, len(rows)))}

    def encode(text: str) -> Any:
        unknown = sorted(set(text) - set(number))
        if unknown:
            raise UsageError(f"the alphabet {config.alphabet} lacks {unknown[0]!r} of the text")
        return rows[[number[character] for character in text]]

    return encode


def _alphabet(path: Path, size: int) -> list[str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the alphabet {path}: {error.strerror}") from None
    except ValueError:
        found = []
    fits = isinstance(found, list) and all(isinstance(token, str) for token in found)
    if not fits or len(found) != size:
        raise UsageError(
            f"the alphabet {path} must be a JSON list of {size} characters, one for each row of "
            "the embedding, in their order"
        )
    return found


def _from_code(reference: str) -> Source:
    """The user's own object: a function of xs, or what gives `(cell, params)`, or the pair."""
    module, _, name = reference.partition(":")
    if not module or not name:
        raise UsageError(f"--function takes module:name, got {reference!r}")
    try:
        found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
        made = found() if callable(found) and not _takes_argument(found) else found
    except Exception as error:  # her code may raise anything
        raise UsageError(f"--function {reference}: {type(error).__name__}: {error}") from error
    if isinstance(made, tuple) and len(made) in (2, 3):
        with user_errors():
            check_cell(made[0])
        encode = made[2] if len(made) == 3 else None
        name = f"{describe_network(made[0])}, from {reference}"
        return Source(name, (made[0], jax.tree.map(jnp.asarray, made[1])), None, encode)
    if callable(made):
        return Source(reference, None, made, None)
    raise UsageError(
        f"--function {reference} is {type(made).__name__}: expected f(xs) -> ys, or a function "
        "without arguments that returns (cell, params), or (cell, params, encode) with "
        "encode(text) -> xs"
    )


def _takes_argument(function: Callable) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = any(p.kind in kinds and p.default is p.empty for p in parameters)
    return needed or any(p.kind == p.VAR_POSITIONAL for p in parameters)


def describe_network(network: Any) -> str:
    """A network in a few words: "LSTM, H = 64, 2 layers"; the lowest layer first."""
    if isinstance(network, jaxrnn.Readout):
        return describe_network(network.network) + " with a readout"
    if isinstance(network, jaxrnn.Bidirectional):
        return describe_network(network.forward) + ", both directions"
    if isinstance(network, jaxrnn.Stack):
        layers = network.layers
        names = list(dict.fromkeys(map(describe_network, layers)))
        alike = len(names) == 1 and len(layers) > 1
        return ", under ".join(names) + (f", {len(layers)} layers" if alike else "")
    size = getattr(network, "hidden_size", None)
    return type(network).__name__ + (f", H = {size}" if size else "")


def _network(name: str, network: Any, params: Any, inputs: Inputs) -> Subject:
    dtype = params_dtype(params) or jnp.float32
    xs = jnp.asarray(inputs.xs, dtype)

    def function(xs: Any) -> Any:
        return jaxrnn.unroll(network, params, xs)[1]

    end = -1 if is_causal(network) else xs.shape[1] // 2
    ys = _outputs(function, xs)
    if ys.shape[:2] != xs.shape[:2]:
        end = None
    facts = {"network": name, "carry": "the initial one at the start of every window"}
    facts["parameters"] = f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,}"
    parts = _parts(network, params, xs)
    return Subject(name, parts, function, end, inputs._replace(xs=np.asarray(xs)), facts)


def _parts(network: Any, params: Any, xs: jax.Array) -> list[weights.Part]:
    inner, p = network, params
    while isinstance(inner, jaxrnn.Readout):
        inner, p = inner.network, p.network
    if isinstance(inner, jaxrnn.Bidirectional):
        inner, p = jaxrnn.Stack((inner,)), (p,)
    layers = inner.layers if isinstance(inner, jaxrnn.Stack) else ()
    if layers and all(is_causal(c) or isinstance(c, jaxrnn.Bidirectional) for c in layers):
        one = jax.tree.map(lambda a: a[None], p)
        found = weights.split(weights.Loaded(inner, one, np.asarray(xs), {}), one, 1)
        return [part._replace(params=_first(part.params), xs=part.xs[0]) for part in found]
    if not is_causal(inner):
        return []
    return [weights.Part(type(inner).__name__, inner, p, xs)]


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda a: a[0], tree)


def _plain_function(source: Source, inputs: Inputs) -> Subject:
    """A function of many sequences at once; one that takes only a single one is mapped."""
    assert source.function is not None
    ways, said = (source.function, jax.vmap(source.function)), []
    found = [_tried(way, inputs.xs[:2], said) for way in ways]
    shape = list(inputs.xs.shape)
    many, one = found
    if many is not None and one is not None and not np.allclose(many, one, rtol=1e-2, atol=1e-5):
        raise UsageError(
            f"{source.name} takes xs {shape} and single sequences {shape[1:]}, but computes "
            "something else of them: let it refuse what it is not meant for, e.g. assert "
            "xs.ndim == 3"
        )
    for function, ys in zip(ways, found, strict=True):
        if ys is not None:
            end = -1 if ys.shape[1:2] == inputs.xs.shape[1:2] else None
            facts = {"function": source.name, "output": f"{ys.dtype}{list(ys.shape[1:])}"}
            return Subject(source.name, [], function, end, inputs, facts)
    raise UsageError(f"{source.name} did not take xs of shape {shape}: {said[0]}")


def _tried(function: Callable, xs: np.ndarray, said: list[str]) -> np.ndarray | None:
    """The outputs, or None, with a reason in `said`, if they cannot be those of the rows of xs."""
    try:
        ys = function(jnp.asarray(xs))
    except Exception as error:  # her code may raise anything
        said.append(f"{type(error).__name__}: {error}")
        return None
    if getattr(ys, "shape", ())[:1] == xs.shape[:1]:
        return np.asarray(ys)
    said.append(f"of {list(xs.shape)} it made {jax.tree.map(np.shape, ys)}")
    return None


def _outputs(function: Callable, xs: jax.Array) -> Any:
    with user_errors():
        ys = jax.eval_shape(function, xs)
    if not hasattr(ys, "shape"):
        raise UsageError("the network's output is a tree of arrays: a single one is expected")
    return ys


# ---- the inputs


def _inputs(config: Any, source: Source) -> Inputs:
    text = None if config.text is None else texts.read_text(config.text, config.encoding)
    features = _features(config, source)
    if config.inputs is not None:
        xs = weights.read_inputs(config.inputs, features or _last_axis(config.inputs))
        said = f"{xs.shape[-1]} features from {config.inputs.name}"
        tokens = None if text is None else _tokens(text, xs.shape[:2])
    elif text is not None and source.encode is not None:
        xs, tokens = _encoded(source.encode, text.characters, features), [list(text.characters)]
        said = f"{xs.shape[-1]} features of the characters of {text.name}"
    elif text is not None:
        raise UsageError(
            "--text needs to know what the network reads: give --inputs with a row for each "
            "character or word, or --embedding and --alphabet, or (cell, params, encode)"
        )
    else:
        return _random_inputs(config, features)
    xs, tokens = cut(xs.astype(np.float32), tokens, config.windows, config.length)
    rms = np.sqrt(np.mean(np.square(xs, dtype=np.float64)))
    return Inputs(xs, tokens, f"{said}, root mean square {rms:.3g}")


def _features(config: Any, source: Source) -> int | None:
    size = getattr(source.network[0], "input_size", None) if source.network else None
    if isinstance(size, int):
        return size
    if config.features is None and config.inputs is None and config.text is None:
        raise UsageError(
            f"{source.name} does not tell how many features it reads: give --inputs xs.npy, or "
            "--features I for random ones"
        )
    return config.features


def _random_inputs(config: Any, features: int | None) -> Inputs:
    assert features is not None
    draw = np.random.default_rng(config.seed)
    xs = draw.normal(size=(config.windows, config.length, features)).astype(np.float32)
    said = f"{features} random features, independent, standard normal: not your data"
    return Inputs(xs, None, said)


def _last_axis(path: Path) -> int:
    # of a file that `read_inputs` will check
    try:
        return np.load(path, allow_pickle=False, mmap_mode="r").shape[-1]
    except (OSError, ValueError, EOFError, IndexError):
        return 0


def _encoded(encode: Callable, text: str, features: int | None) -> np.ndarray:
    try:
        xs = np.asarray(encode(text))
    except UsageError:
        raise
    except Exception as error:  # her code may raise anything
        raise UsageError(f"encode(text) raised {type(error).__name__}: {error}") from error
    wanted = (len(text), features or xs.shape[-1])
    if xs.shape != wanted or len(text) < 10:
        raise UsageError(f"encode(text) gave the shape {xs.shape}, expected {wanted}, T ≥ 10")
    return xs[None]


def _tokens(read: texts.Text, shape: tuple[int, ...]) -> list[list[str]]:
    """One character, line or word for each step."""
    rows, steps = shape
    text = read.characters
    for tokens in (list(text), list(text.removesuffix("\n")), text.splitlines(), text.split()):
        if len(tokens) == rows * steps:
            return [tokens[i * steps : (i + 1) * steps] for i in range(rows)]
    raise UsageError(
        f"the text {read.name} has {len(text)} characters and {len(text.split())} words, the "
        f"inputs {rows * steps} steps: one character, line or word for each step is expected"
    )


def cut(
    xs: np.ndarray, tokens: list[list[str]] | None, windows: int, length: int
) -> tuple[np.ndarray, list[list[str]] | None]:
    """At most `windows` windows of at most `length` steps, spread evenly, that do not overlap."""
    rows, steps = xs.shape[:2]
    length = min(length, steps)
    each = min(-(-windows // rows), steps // length)
    starts = [(r, int(s)) for r in range(rows) for s in texts.evenly_spaced(steps, each, length)]
    chosen = [
        starts[i] for i in np.linspace(0, len(starts) - 1, min(windows, len(starts))).astype(int)
    ]
    windowed = np.stack([xs[r, s : s + length] for r, s in chosen])
    named = None if tokens is None else [tokens[r][s : s + length] for r, s in chosen]
    return windowed, named
