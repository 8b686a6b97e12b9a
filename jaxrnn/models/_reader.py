"""What reads words or features, and what tells one class from a whole sequence of them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn import cell as contract
from jaxrnn.models._shared import Inputs, check_tokens, drop_steps, row_keys
from jaxrnn.network._shared import check_rate, drop, fold
from jaxrnn.sequences import zero_padding


class Reader(nnx.Module):
    """What reads words or features: their vectors, dropout, and a linear map at the end.

    dropout: rate at which single features are set to zero before and after what reads them, the
        rest scaled by 1/(1 − rate). Only where a key is passed.
    embedding, frozen: as for `Inputs`.
    """

    linear: nnx.Linear | None

    def __init__(
        self,
        vocabulary: int | None,
        features: int,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        dropout: float = 0.0,
        embedding: Any = None,
        frozen: bool = False,
    ) -> None:
        check_rate(self, "dropout", dropout)
        self.dropout = dropout
        self.inputs = Inputs(
            vocabulary, features, embedding=embedding, frozen=frozen, rngs=rngs, dtype=dtype
        )

    def read_by(
        self, width: int, classes: int, rngs: nnx.Rngs, dtype: DTypeLike, readout: bool = True
    ) -> None:
        """Makes the linear map from vectors of this width to logits; none if they are logits."""
        classes = contract.whole("classes", classes)
        if readout:
            self.linear = nnx.Linear(width, classes, param_dtype=dtype, rngs=rngs)
            return
        self.linear = None
        if width != classes:
            raise ValueError(
                f"{type(self).__name__}: readout=False takes the network's {width} outputs for the "
                f"logits of {classes} classes: put a Readout around its cells"
            )


class Whole(Reader):
    """What tells one class from a whole sequence: embedding → dropout → summary → dropout → linear.

    A model names its `summary` of a sequence, one vector, and ends its `__init__` with `read_by`.
    """

    def summary(
        self, xs: Float[Array, "*batch T F"], lengths: Any, key: Array | None
    ) -> Float[Array, "*batch H"]:
        """One vector for each sequence of vectors; `key` is one for each row."""
        raise NotImplementedError(f"{type(self).__name__} must say what it makes of a sequence")

    def __call__(
        self, inputs: Any, lengths: Any = None, *, key: Array | None = None
    ) -> Float[Array, "*batch classes"]:
        """Logits of the classes.

        Args:
            inputs: integer tokens, `(*batch, T)`, or, if the model was made with vocabulary=None,
                floating features, `(*batch, T, features)`.
            lengths: `(*batch,)`, 0…T: how many steps of each row are real; all by default. What is
                behind changes nothing, not even NaN.
            key: one, or one for each row, for dropout; without it nothing is dropped.
        """
        xs, lengths = self.inputs(inputs, lengths)
        return self.logits(xs, lengths, key)

    def logits(
        self, xs: Float[Array, "*batch T F"], lengths: Any, key: Array | None = None
    ) -> Float[Array, "*batch classes"]:
        """Logits from the vectors of words, in place of the words."""
        self._check_dtype(xs)
        rows = row_keys(key, xs.shape[:-2])
        xs = drop_steps(xs, self.dropout, fold(rows, 0))
        summary = self.summary(xs, lengths, fold(rows, 1))
        if self.linear is None:
            return summary
        return self.linear(drop(summary, self.dropout, fold(rows, 2)))

    def confidences(self, inputs: Any, lengths: Any = None) -> Float[Array, "*batch T classes"]:
        """Probabilities of the classes after each word: row t is what words 0 … t make of them.

        Zero at padding. Every prefix is run by itself, one after the other: the time of T calls,
        the memory of one. A `Classifier` that reads forwards needs one call alone.
        """
        xs, lengths = self.inputs(inputs, lengths)
        return _confidences(self, xs, lengths)

    def shares(
        self, inputs: Any, lengths: Any = None, *, label: Any = None, by: str = "gradient"
    ) -> Float[Array, "*batch T"]:
        """What each word contributed to ln p(label | all words), in nats; zero at padding.

        Args:
            inputs, lengths: as for a call.
            label: int `(*batch,)`, the classes asked about, or one for all; by default the most
                probable ones.
            by: "gradient": x_t · ∂ ln p / ∂x_t, x_t the vector of the word: one backward pass.
                "leave_one_out": ln p with all words less ln p with all but this one, the words
                after it moved up: T + 1 calls.
        """
        if by not in ("gradient", "leave_one_out"):
            raise ValueError(f"by must be 'gradient' or 'leave_one_out', got {by!r}")
        xs, lengths = self.inputs(inputs, lengths)
        if label is not None:
            label = jnp.broadcast_to(jnp.asarray(label), xs.shape[:-2])
            classes = jax.eval_shape(self.logits, xs, lengths).shape[-1]
            check_tokens(label, classes, "label")
        return _shares(self, xs, lengths, label, by)

    def _check_dtype(self, xs: Array) -> None:
        # a linear map would quietly go to the wider of two; networks raise by themselves
        expected = xs.dtype if self.linear is None else self.linear.kernel.dtype
        if xs.dtype != expected:
            raise ValueError(
                f"got features of {xs.dtype}, expected {expected}, the dtype of the params: "
                f"convert one of them, e.g. xs.astype({expected.name!r})"
            )


# compiled here, for what is called by itself is else compiled each time


@jax.jit
def _confidences(model: Whole, xs: Array, lengths: Array | None) -> Array:
    T = xs.shape[-2]
    lengths = jnp.full(xs.shape[:-2], T, jnp.int32) if lengths is None else lengths

    def after(words: Array) -> Array:
        return model.logits(xs, jnp.minimum(words, lengths))

    logits = jax.lax.map(after, 1 + jnp.arange(T, dtype=jnp.int32))
    return zero_padding(jax.nn.softmax(jnp.moveaxis(logits, 0, -2)), lengths, T)


@functools.partial(jax.jit, static_argnames="by")
def _shares(model: Whole, xs: Array, lengths: Array | None, label: Array | None, by: str) -> Array:
    T = xs.shape[-2]
    lengths = jnp.full(xs.shape[:-2], T, jnp.int32) if lengths is None else lengths
    label = model.logits(xs, lengths).argmax(-1) if label is None else label

    def log_probability(xs: Array, lengths: Array) -> Array:
        logs = jax.nn.log_softmax(model.logits(xs, lengths))
        return jnp.take_along_axis(logs, label[..., None], -1)[..., 0]

    if by == "gradient":
        slope = jax.grad(lambda xs: log_probability(xs, lengths).sum())(xs)
        return (xs * slope).sum(-1)

    def without(t: Array) -> Array:
        others = jnp.arange(T, dtype=jnp.int32)
        others = jnp.minimum(jnp.where(others < t, others, others + 1), T - 1)
        return log_probability(xs[..., others, :], jnp.maximum(lengths - 1, 0))

    less = jax.lax.map(without, jnp.arange(T, dtype=jnp.int32))
    whole = log_probability(xs, lengths)
    return zero_padding(whole[..., None] - jnp.moveaxis(less, 0, -1), lengths, T)
