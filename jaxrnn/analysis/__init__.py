"""The microscope: how gradients and information travel through time.

Every analysis takes the keyword options of `jaxrnn.unroll` and returns a frozen record of arrays
in natural logarithms, which works under `jax.jit` and `jax.vmap`.
"""

from jaxrnn.analysis.gradients import GradientDecay as GradientDecay
from jaxrnn.analysis.gradients import gradient_decay as gradient_decay
from jaxrnn.analysis.jacobians import step_jacobians as step_jacobians
from jaxrnn.analysis.loss_gradients import LossGradientDecay as LossGradientDecay
from jaxrnn.analysis.loss_gradients import loss_gradient_decay as loss_gradient_decay
from jaxrnn.analysis.products import LSTMCurves as LSTMCurves
from jaxrnn.analysis.slopes import decay_rate as decay_rate
from jaxrnn.analysis.slopes import half_life as half_life
from jaxrnn.analysis.slopes import horizon as horizon
