"""The microscope: how gradients and information travel through time.

Every analysis takes the keyword options of `jaxrnn.unroll` and returns a frozen record of arrays
in natural logarithms, which works under `jax.jit` and `jax.vmap`; what does not says so.
"""

# how gradients travel back
from jaxrnn.analysis.gradients import GradientDecay as GradientDecay
from jaxrnn.analysis.gradients import gradient_decay as gradient_decay
from jaxrnn.analysis.singular import SingularValues as SingularValues
from jaxrnn.analysis.flow import GradientMap as GradientMap
from jaxrnn.analysis.flow import gradient_map as gradient_map
from jaxrnn.analysis.flow import GradientProbes as GradientProbes
from jaxrnn.analysis.flow import gradient_probes as gradient_probes
from jaxrnn.analysis.flow import LayerDecay as LayerDecay
from jaxrnn.analysis.flow import layer_decay as layer_decay
from jaxrnn.analysis.jacobians import step_jacobians as step_jacobians
from jaxrnn.analysis.loss_gradients import LossGradientDecay as LossGradientDecay
from jaxrnn.analysis.loss_gradients import loss_gradient_decay as loss_gradient_decay
from jaxrnn.analysis.products import LSTMCurves as LSTMCurves
from jaxrnn.analysis.sensitivity import InputSensitivity as InputSensitivity
from jaxrnn.analysis.sensitivity import input_decay as input_decay
from jaxrnn.analysis.sensitivity import input_sensitivity as input_sensitivity
from jaxrnn.analysis.paths import GradientPaths as GradientPaths
from jaxrnn.analysis.paths import gradient_paths as gradient_paths
from jaxrnn.analysis.paths import PathJacobians as PathJacobians
from jaxrnn.analysis.paths import path_jacobians as path_jacobians
from jaxrnn.analysis.slopes import decay_rate as decay_rate
from jaxrnn.analysis.slopes import half_life as half_life
from jaxrnn.analysis.slopes import horizon as horizon

# how differences grow
from jaxrnn.analysis.lyapunov import LyapunovSpectrum as LyapunovSpectrum
from jaxrnn.analysis.lyapunov import lyapunov_spectrum as lyapunov_spectrum
from jaxrnn.analysis.covariant import CovariantVectors as CovariantVectors
from jaxrnn.analysis.covariant import covariant_vectors as covariant_vectors
from jaxrnn.analysis.parallel import ParallelOutlook as ParallelOutlook
from jaxrnn.analysis.parallel import parallel_outlook as parallel_outlook

# what is remembered
from jaxrnn.analysis.memory import MemoryCapacity as MemoryCapacity
from jaxrnn.analysis.memory import memory_capacity as memory_capacity
from jaxrnn.analysis.memory import FisherMemory as FisherMemory
from jaxrnn.analysis.memory import fisher_memory as fisher_memory
from jaxrnn.analysis.forgetting import ForgettingCurve as ForgettingCurve
from jaxrnn.analysis.forgetting import forgetting_curve as forgetting_curve
from jaxrnn.analysis.timescales import TimeConstants as TimeConstants
from jaxrnn.analysis.timescales import time_constants as time_constants
from jaxrnn.analysis.timescales import Modes as Modes
from jaxrnn.analysis.timescales import modes as modes
from jaxrnn.analysis.timescales import keep as keep

# where the carry goes
from jaxrnn.analysis.linear import Linearization as Linearization
from jaxrnn.analysis.linear import linearize as linearize
from jaxrnn.analysis.fixed_points import FixedPoints as FixedPoints
from jaxrnn.analysis.fixed_points import fixed_points as fixed_points
from jaxrnn.analysis.speed import SpeedMinima as SpeedMinima
from jaxrnn.analysis.speed import minimize_speed as minimize_speed
from jaxrnn.analysis.projection import PrincipalComponents as PrincipalComponents
from jaxrnn.analysis.projection import principal_components as principal_components
from jaxrnn.analysis.projection import participation_ratio as participation_ratio

# what theory says, and how to begin where it says
from jaxrnn.analysis.edge import EdgeOfChaos as EdgeOfChaos
from jaxrnn.analysis.edge import edge_of_chaos as edge_of_chaos
from jaxrnn.analysis.edge import scale_recurrent as scale_recurrent
from jaxrnn.analysis import theory as theory

# while training
from jaxrnn.analysis.monitor import Monitored as Monitored
from jaxrnn.analysis.monitor import monitor as monitor
