"""One class at every step."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn.models._reader import Reader
from jaxrnn.models._shared import drop_steps, row_keys
from jaxrnn.models.recurrent import Recurrent
from jaxrnn.network._shared import fold, width
from jaxrnn.sequences import zero_padding


class Tagger(Reader):
    """Embedding → dropout → network → dropout → linear, at every step: many to many in step.

    A causal network tags a word by what came before, a `Bidirectional` one by what follows too, a
    `Delay` by the next few.

    vocabulary: the number of tokens; None for inputs that are features, `(*batch, T, features)`.
    classes: how many tags.
    network: any cell or network; its `input_size` is the size of a word's vector.
    dropout: rate at which single features of the words and of the network's outputs are set to
        zero, anew at every step. Between layers it is the `Stack`'s. Only where a key is passed.
    embedding: vectors to start from, `(vocabulary, input_size)`; drawn from N(0, 1) by default.
    frozen: whether the embedding stays as it is: it is then no `nnx.Param`.
    readout: False if the network's outputs are the logits themselves, as those of
        `Pooled(Readout(cell, classes))` are; then neither the second dropout nor a linear map.
    """

    def __init__(
        self,
        vocabulary: int | None,
        classes: int,
        network: Any,
        *,
        dropout: float = 0.0,
        embedding: Any = None,
        frozen: bool = False,
        readout: bool = True,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
    ) -> None:
        features = width(self, network, "input_size")
        super().__init__(
            vocabulary,
            features,
            dropout=dropout,
            embedding=embedding,
            frozen=frozen,
            rngs=rngs,
            dtype=dtype,
        )
        self.recurrent = Recurrent(network, rngs=rngs, dtype=dtype)
        given = width(self, network, "output_size")
        self.read_by(given, classes, rngs, dtype, readout)

    def __call__(
        self, inputs: Any, lengths: Any = None, *, key: Array | None = None
    ) -> Float[Array, "*batch T classes"]:
        """Logits at every step, zero at padding; arguments as for `Classifier`."""
        xs, lengths = self.inputs(inputs, lengths)
        rows = row_keys(key, xs.shape[:-2])
        xs = drop_steps(xs, self.dropout, fold(rows, 0))
        _, ys = self.recurrent(xs, lengths=lengths, key=fold(rows, 1))
        if self.linear is not None:
            ys = self.linear(drop_steps(ys, self.dropout, fold(rows, 2)))
        return ys if lengths is None else zero_padding(ys, lengths, xs.shape[-2])
