"""The networks of `chaos_transition`: exponents and variances over gains, and what theory says."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

import jaxrnn
from jaxrnn import analysis
from jaxrnn.analysis.edge import scale_recurrent
from jaxrnn.analysis.theory import critical_gain, mean_field
from jaxrnn.initializers import Identity, Normal

KINDS = {"elman": jaxrnn.Elman, "gru": jaxrnn.GRU, "lstm": jaxrnn.LSTM}
LABELS = {"elman": "Elman", "gru": "GRU", "lstm": "LSTM"}
LEVEL = 0.005  # nats per step: what is nearer to 0 is neither chaos nor decay
# a single direction loses nothing between two QRs
INTERVAL = 10


class Draw(NamedTuple):
    """One network at gain 1, its unit noise and where it starts."""

    params: Any
    carry: Any
    noise: jax.Array


def network(kind: str, size: int) -> Any:
    """A cell whose recurrent maps have entries N(0, 1/N), without biases.

    Elman's gets noise of its own in every unit, as the mean field has it. Gates share one noise,
    through maps N(0, 1/N), which leaves them nearly independent of each other.
    """
    of_x = Identity() if kind == "elman" else Normal(1.0)
    options = dict(biases=0, input_initializer=of_x, recurrent_initializer=Normal(1.0))
    return KINDS[kind](size, size, **options)


@functools.partial(jax.jit, static_argnums=(0, 1))
def draw(cell: Any, steps: int, key: jax.Array) -> Draw:
    """A network; started away from h = 0, which without input would never be left."""
    of_params, of_carry, of_noise = jax.random.split(key, 3)
    params = cell.init(of_params, dtype=jnp.float32)

    def somewhere(leaf):
        return jnp.tanh(jax.random.normal(of_carry, leaf.shape, leaf.dtype))

    carry = jax.tree.map(somewhere, cell.initial_carry(params))
    return Draw(params, carry, jax.random.normal(of_noise, (steps, cell.input_size), jnp.float32))


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, None, 0, None))
def look(cell: Any, burn_in: int, of: Draw, gain: jax.Array, scale: jax.Array) -> dict:
    """λ₁, and for Elman's network the variance q of its pre-activations."""
    params, xs = scale_recurrent(of.params, gain), scale * of.noise
    spectrum = analysis.lyapunov_spectrum(
        cell, params, xs, carry=of.carry, exponents=1, burn_in=burn_in, interval=INTERVAL
    )
    found = dict(exponent=spectrum.exponents[0])
    if isinstance(cell, jaxrnn.Elman):
        befores, _ = jaxrnn.trajectory(cell, params, xs[:-1], carry=of.carry)
        gates = jax.vmap(cell.gates, in_axes=(None, 0, 0))(params, befores, xs[1:])
        found["q"] = jnp.mean(gates.pre_activation[burn_in:] ** 2)
    return found


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, None, 0, None))
def look_back(cell: Any, burn_in: int, of: Draw, gain: jax.Array, scale: jax.Array) -> dict:
    """λ₁, and the rate of the gradient back through the same steps."""
    params, xs = scale_recurrent(of.params, gain), scale * of.noise
    carry, _ = jaxrnn.unroll(cell, params, xs[:burn_in], carry=of.carry)
    # the Frobenius norm, which is that of a random direction but for a constant
    decay = analysis.gradient_decay(cell, params, xs[burn_in:], carry=carry, spectral="none")
    return look(cell, burn_in, of, gain[None], scale) | dict(rate=decay.rate)


def sweep(
    kind: str,
    size: int,
    gains: Sequence[float],
    variances: Sequence[float],
    config: Any,
    advance: Callable[[float, str], None],
    back: bool = False,
) -> dict:
    """All gains and input variances, for every seed, with what theory says of them.

    Arrays are (variances, gains, seeds). Networks and noise of a seed are the same at every gain
    and variance, but for their scale.
    """
    cell = network(kind, size)
    steps = config.burn_in + (config.lag if back else config.length)
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    draws = [draw(cell, steps, key) for key in keys]
    scaled = jnp.asarray(gains, jnp.float32)
    rows = []
    for variance, of in itertools.product(variances, draws):
        scale = jnp.asarray(math.sqrt(variance), jnp.float32)
        found = (look_back if back else look)(cell, config.burn_in, of, scaled, scale)
        rows.append({name: np.asarray(a).reshape(len(gains)) for name, a in found.items()})
        advance(work(size, gains, (variance,), back), f"{LABELS[kind]}, {size} units")
    shape = (len(variances), config.seeds, len(gains))
    names = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    arrays = {name: a.reshape(shape).swapaxes(1, 2) for name, a in names.items()}
    about: dict[str, Any] = dict(kind=kind, label=LABELS[kind], size=size)
    about |= dict(gains=gains, variances=variances, critical_gain=zero_gain(kind))
    if kind == "elman":
        radii = [np.abs(np.linalg.eigvals(np.asarray(of.params.W_h))).max() for of in draws]
        about |= dict(log_radius=np.log(radii), theory=theory(gains, variances))
    return about | arrays


def work(size: int, gains: Sequence[float], variances: Sequence[float], back: bool = False) -> int:
    """How much there is to do, for the progress bar."""
    return len(gains) * len(variances) * size**2 * (size // 8 if back else 1)


def zero_gain(kind: str) -> float:
    """The gain at which h = 0 loses its stability without input."""
    return float(critical_gain(network(kind, 1)))


def theory(gains: Any, variances: Any) -> dict:
    """Exponents and variances of the mean field, (variances, gains), and its critical gains."""
    with jax.enable_x64(True):
        field = mean_field(jnp.asarray(gains)[None], jnp.asarray(variances)[:, None])
        exponent, q = np.asarray(field.exponent), np.asarray(field.q)
    return dict(exponent=exponent, q=q, edge=[theory_edge(v) for v in variances])


def theory_edge(variance: float) -> float:
    """The gain at which the exponent of the mean field is 0."""
    if variance == 0:
        return 1.0

    def exponent(gain: float) -> float:
        return float(mean_field(gain, variance).exponent)

    with jax.enable_x64(True):
        root: Any = optimize.brentq(exponent, 0.5, 10 + 10 * variance)
    return float(root)


def edges(gains: Sequence[float], exponents: np.ndarray, level: float = 0.0) -> np.ndarray:
    """Where exponents `(gains, seeds)` rise above the level for good, on straight lines.

    NaN for a seed that ends below it, or was never there.
    """
    found = []
    for values in np.asarray(exponents, float).T:
        under = np.flatnonzero(values <= level)
        if len(under) == 0 or under[-1] == len(gains) - 1:
            found.append(math.nan)
            continue
        i = under[-1]
        share = (level - values[i]) / (values[i + 1] - values[i])
        found.append(gains[i] + share * (gains[i + 1] - gains[i]))
    return np.array(found)


def onsets(row: dict) -> np.ndarray:
    """The measured edges of chaos, (variances, seeds).

    Without input λ₁ is 0 wherever there is a cycle, and the sign of what was measured is noise:
    chaos is then what is above LEVEL.
    """
    exponents = np.asarray(row["exponent"], float)
    levels = [LEVEL if variance == 0 else 0.0 for variance in row["variances"]]
    pairs = zip(exponents, levels, strict=True)
    return np.stack([edges(row["gains"], of, level) for of, level in pairs])


def distances(row: dict) -> np.ndarray:
    """Exponents minus those of the mean field, (variances, gains, seeds)."""
    exponents = np.asarray(row["exponent"], float)
    return exponents - np.asarray(row["theory"]["exponent"], float)[..., None]
