"""Figures from result records. Computes nothing; imported by name, because it needs matplotlib.

A function for each record of `jaxrnn.analysis`, `plot.NAME(record, axes=None) -> axes`; without
axes it makes a figure of its own: `plot.NAME(record).figure.savefig(…)`. Curves of log-norms over
lag are drawn on a linear axis of logarithms, so that 1e-500 is as good a value as any; powers of
ten stand at the left, natural logarithms at the right.
"""

from jaxrnn.plot.axes import COLOURS as COLOURS
from jaxrnn.plot.axes import FLOAT32_ZERO as FLOAT32_ZERO
from jaxrnn.plot.axes import LN10 as LN10
from jaxrnn.plot.axes import Curve as Curve
from jaxrnn.plot.axes import curve as curve
from jaxrnn.plot.axes import float32_zero as float32_zero
from jaxrnn.plot.axes import label_ends as label_ends
from jaxrnn.plot.axes import lag_axis as lag_axis
from jaxrnn.plot.axes import limits as limits
from jaxrnn.plot.axes import new_axes as new_axes
from jaxrnn.plot.axes import power_axis as power_axis
from jaxrnn.plot.axes import power_of_ten as power_of_ten
from jaxrnn.plot.axes import spread as spread
from jaxrnn.plot.axes import threshold_line as threshold_line
from jaxrnn.plot.axes import with_lag_zero as with_lag_zero
from jaxrnn.plot.flow import gradient_map as gradient_map
from jaxrnn.plot.flow import gradient_paths as gradient_paths
from jaxrnn.plot.flow import gradient_probes as gradient_probes
from jaxrnn.plot.flow import input_sensitivity as input_sensitivity
from jaxrnn.plot.flow import layer_decay as layer_decay
from jaxrnn.plot.flow import singular_values as singular_values
from jaxrnn.plot.gradients import gradient_decay as gradient_decay
from jaxrnn.plot.lyapunov import covariant_vectors as covariant_vectors
from jaxrnn.plot.lyapunov import lyapunov_convergence as lyapunov_convergence
from jaxrnn.plot.lyapunov import lyapunov_spectrum as lyapunov_spectrum
from jaxrnn.plot.lyapunov import parallel_outlook as parallel_outlook
from jaxrnn.plot.memory import determinant_split as determinant_split
from jaxrnn.plot.memory import edge_of_chaos as edge_of_chaos
from jaxrnn.plot.memory import fisher_memory as fisher_memory
from jaxrnn.plot.memory import forgetting_curve as forgetting_curve
from jaxrnn.plot.memory import mean_field as mean_field
from jaxrnn.plot.memory import memory_capacity as memory_capacity
from jaxrnn.plot.memory import spectral_bounds as spectral_bounds
from jaxrnn.plot.monitor import monitored as monitored
from jaxrnn.plot.state_space import eigenvalues as eigenvalues
from jaxrnn.plot.state_space import fixed_points as fixed_points
from jaxrnn.plot.state_space import principal_components as principal_components
from jaxrnn.plot.state_space import time_constants as time_constants
from jaxrnn.plot.tasks import task_example as task_example
from jaxrnn.plot.text import MISSING as MISSING
from jaxrnn.plot.text import coloured_text as coloured_text
from jaxrnn.plot.text import drawable as drawable
from jaxrnn.plot.text import families_for as families_for
