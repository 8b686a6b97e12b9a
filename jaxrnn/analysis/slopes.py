"""What a curve of log-norms over lag comes down to: rate, half-life, horizon."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def decay_rate(
    log_norm: Float[Array, "*batch T"],
    lags: Int[Array, " T"],
    count: Int[Array, "*batch"] | int | None = None,
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Least-squares slope of ln-norm over lag, in nats per step, and its R².

    A straight line with intercept through the finite values at lags from count/10 to count, count
    being T by default. Fewer than two such values: (−inf, 0). It is the mean rate over these lags,
    not a Lyapunov exponent, which is a limit.
    """
    count = jnp.asarray(lags.shape[0] if count is None else count)[..., None]
    used = jnp.isfinite(log_norm) & (10 * lags >= count) & (lags <= count)
    number = jnp.sum(used, axis=-1, keepdims=True)
    weight = used.astype(log_norm.dtype) / jnp.maximum(number, 1).astype(log_norm.dtype)

    def centred(a):
        a = jnp.where(used, a, 0)
        return jnp.where(used, a - jnp.sum(weight * a, axis=-1, keepdims=True), 0)

    x, y = centred(lags.astype(log_norm.dtype)), centred(log_norm)
    xx, xy, yy = (jnp.sum(weight * p, axis=-1) for p in (x * x, x * y, y * y))
    slope = xy / jnp.where(xx > 0, xx, 1)
    # a perfectly flat curve is perfectly fitted
    r_squared = jnp.where(yy > 0, slope * xy / jnp.where(yy > 0, yy, 1), 1)
    enough = number[..., 0] >= 2
    return jnp.where(enough, slope, -jnp.inf), jnp.where(enough, jnp.clip(r_squared, 0, 1), 0)


def half_life(rate: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Steps after which a norm that decays at `rate` nats per step has halved; inf if it grows."""
    falls = rate < 0
    return jnp.where(falls, math.log(2) / jnp.where(falls, -rate, 1), jnp.inf)


def horizon(
    log_norm: Float[Array, "*batch T"],
    lags: Int[Array, " T"],
    threshold: float = 1e-6,
    count: Int[Array, "*batch"] | int | None = None,
) -> Float[Array, "*batch"]:
    """The first lag, up to count, at which the norm is under `threshold`; inf if there is none."""
    count = jnp.asarray(lags.shape[0] if count is None else count)[..., None]
    under = (log_norm < math.log(threshold)) & (lags <= count)
    candidates = jnp.where(under, lags.astype(log_norm.dtype), jnp.inf)
    return jnp.min(candidates, axis=-1, initial=jnp.inf)
