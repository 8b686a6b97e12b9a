"""Tasks that ask for memory: examples as pure functions of a key, losses, exact baselines.

    task = tasks.Adding(length=200)
    batch = jax.vmap(task.sample)(jax.random.split(key, 64))  # xs (64, 200, 2), targets, weights
    task.loss(outputs, batch), task.correct(outputs, batch), task.baseline

`outputs` are `(*batch, T, task.output_size)`: logits for classes, else the numbers themselves.
`baseline` is the least loss of an answer that does not look at xs and knows only the step.
"""

from jaxrnn.tasks.adding import Adding as Adding
from jaxrnn.tasks.context_integration import ContextIntegration as ContextIntegration
from jaxrnn.tasks.copying import Copying as Copying
from jaxrnn.tasks.delayed_recall import DelayedRecall as DelayedRecall
from jaxrnn.tasks.flip_flop import FlipFlop as FlipFlop
from jaxrnn.tasks.multiplication import Multiplication as Multiplication
from jaxrnn.tasks.parity import Parity as Parity
from jaxrnn.tasks.perceptual_integration import PerceptualIntegration as PerceptualIntegration
from jaxrnn.tasks.reber import Reber as Reber
from jaxrnn.tasks.selective_copying import SelectiveCopying as SelectiveCopying
from jaxrnn.tasks.sine_generator import SineGenerator as SineGenerator
from jaxrnn.tasks.task import Example as Example
from jaxrnn.tasks.task import Task as Task
from jaxrnn.tasks.temporal_order import TemporalOrder as TemporalOrder
