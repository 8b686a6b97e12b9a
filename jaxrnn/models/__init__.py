"""Shapes of use: Flax NNX models around any cell or network, and baselines to beat.

    Recurrent, LinenRecurrent             a network inside a module of yours
    Classifier, Tagger                    one class for a sequence; one at every step
    LanguageModel, Generator, Seq2Seq     what writes, by itself, from a vector, from a sequence
    Forecaster                            the next values of a series
    BagOfWords, SharedFeedForward, PaddedFeedForward, Convolution, Transformer
                                          baselines that tell one class
    cross_entropy, decode, Generated      the loss of classes; how tokens are drawn, and come back

Loads Flax; `import jaxrnn` does not. Models are `nnx.Module`s whose trained arrays are `nnx.Param`s
and nothing else: no state of random numbers, no flags. Without a key they drop nothing. They are
called `model(xs, lengths=None, *, key=None)`, save those that write: what `LanguageModel`,
`Generator` and `Seq2Seq` read stands in their docstrings.
"""

from jaxrnn.models.bag_of_words import BagOfWords as BagOfWords
from jaxrnn.models.classifier import Classifier as Classifier
from jaxrnn.models.convolution import Convolution as Convolution
from jaxrnn.models.decoding import Generated as Generated
from jaxrnn.models.decoding import decode as decode
from jaxrnn.models.feed_forward import PaddedFeedForward as PaddedFeedForward
from jaxrnn.models.feed_forward import SharedFeedForward as SharedFeedForward
from jaxrnn.models.forecaster import Forecaster as Forecaster
from jaxrnn.models.generator import Generator as Generator
from jaxrnn.models.language_model import LanguageModel as LanguageModel
from jaxrnn.models.language_model import cross_entropy as cross_entropy
from jaxrnn.models.linen import LinenRecurrent as LinenRecurrent
from jaxrnn.models.recurrent import Recurrent as Recurrent
from jaxrnn.models.seq2seq import Seq2Seq as Seq2Seq
from jaxrnn.models.tagger import Tagger as Tagger
from jaxrnn.models.transformer import Transformer as Transformer
