"""Training: `fit`, the batches it is made on, and what keeps a run alive.

    fit -> Fit               the loop, over any Optax optimizer; may raise NotFiniteError
    Batches                  examples, sequences of unequal lengths among them
    Windows, Samples         continuous text; fresh examples of a task
    Prefetched               the same batches, made ahead of time
    Checkpoints              what a killed run goes on from; may raise CheckpointError

Needs the extra `train` for checkpoints, Grain, TensorBoard and the bar on the terminal.
"""

from jaxrnn.train.batches import Batches as Batches
from jaxrnn.train.checkpoints import CheckpointError as CheckpointError
from jaxrnn.train.checkpoints import Checkpoints as Checkpoints
from jaxrnn.train.fit import fit as fit
from jaxrnn.train.run import Fit as Fit
from jaxrnn.train.run import NotFiniteError as NotFiniteError
from jaxrnn.train.sources import Prefetched as Prefetched
from jaxrnn.train.sources import Samples as Samples
from jaxrnn.train.sources import Windows as Windows
