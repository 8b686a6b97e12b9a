"""One class for a whole sequence, by a recurrent network."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxrnn import cell as contract
from jaxrnn.models._ends import at_the_end
from jaxrnn.models._reader import Whole
from jaxrnn.models._shared import POOLS, check_pool, pool
from jaxrnn.models.recurrent import Recurrent
from jaxrnn.network._shared import width
from jaxrnn.sequences import zero_padding


class Classifier(Whole):
    """Embedding → dropout → network → dropout → linear: one class for a whole sequence.

    What is read at the end is the network's output after the last real step; if its last layer is
    `Bidirectional`, the forward direction's there and the backward direction's at step 0, merged
    as the layer says (kept apart, they are put side by side). `ys[:, -1]` would be neither. Or, by
    `pool`, what all steps come to together.

        lstm = lambda inputs: jaxrnn.Bidirectional(jaxrnn.LSTM(inputs, 256))
        network = jaxrnn.Stack((lstm(100), lstm(512)), dropout=0.5)
        model = Classifier(len(words), 2, network, dropout=0.5, rngs=nnx.Rngs(0))

    vocabulary: the number of tokens, 0 … vocabulary − 1, none of which is special, as lengths alone
        tell padding; or None for inputs that are features, `(*batch, T, features)`.
    classes: how many.
    network: any cell or network; its `input_size` is the size of a word's vector.
    dropout: rate at which single features of the words and of what is read at the end are set to
        zero. Between layers it is the `Stack`'s. Only where a key is passed.
    embedding: vectors to start from, `(vocabulary, input_size)`; drawn from N(0, 1) by default.
    frozen: whether the embedding stays as it is: it is then no `nnx.Param`.
    reverse: whether a causal network reads from the last word to the first.
    pool: "last", as said above; or "mean", "max" or "sum" of the outputs at all real steps. The
        maximum over a bidirectional LSTM is that of Conneau et al. 2017 (1705.02364).
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
        reverse: bool = False,
        pool: str = "last",
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
        check_pool(self, pool, ("last", *POOLS))
        self.reverse, self.pool = reverse, pool
        one = jax.ShapeDtypeStruct((1, features), dtype)
        given = jax.eval_shape(lambda xs: self.summary(xs, None, None), one).shape[-1]
        self.read_by(given, classes, rngs, dtype, readout)

    def summary(
        self, xs: Float[Array, "*batch T F"], lengths: Any, key: Array | None
    ) -> Float[Array, "*batch H"]:
        """What the last layer has come to when it has read everything."""
        if self.pool != "last":
            _, ys = self.recurrent(xs, lengths=lengths, reverse=self.reverse, key=key)
            # directions that are kept apart are two arrays
            return pool(jnp.concatenate(jax.tree.leaves(ys), axis=-1), lengths, self.pool)
        return at_the_end(self.recurrent, xs, lengths, reverse=self.reverse, key=key)

    def confidences(self, inputs: Any, lengths: Any = None) -> Float[Array, "*batch T classes"]:
        """Probabilities of the classes after each word: row t is what words 0 … t make of them.

        Zero at padding. A network that reads forwards alone, to the last word, gives all of them in
        one call. Of any other every prefix is run by itself, one after the other: the time of T
        calls, the memory of one.
        """
        causal = contract.is_causal(self.recurrent.network)
        if self.reverse or self.pool != "last" or not causal:
            return super().confidences(inputs, lengths)
        xs, lengths = self.inputs(inputs, lengths)
        _, ys = self.recurrent(xs, lengths=lengths)
        probabilities = jax.nn.softmax(ys if self.linear is None else self.linear(ys))
        T = xs.shape[-2]
        return probabilities if lengths is None else zero_padding(probabilities, lengths, T)
