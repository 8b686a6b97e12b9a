"""Networks from cells: over depth and direction, with noise, a readout or a delay; one per file.

A network has the three methods of a cell, if it is causal, and `unroll`; so networks nest, and
whatever takes a cell takes a network. Each of them is written with the public verb alone.
"""

from jaxrnn.network._masked import MaskedCarry as MaskedCarry
from jaxrnn.network._masked import SeedCarry as SeedCarry
from jaxrnn.network.bidirectional import Bidirectional as Bidirectional
from jaxrnn.network.bidirectional import BidirectionalCarry as BidirectionalCarry
from jaxrnn.network.bidirectional import BidirectionalOutputs as BidirectionalOutputs
from jaxrnn.network.bidirectional import BidirectionalParams as BidirectionalParams
from jaxrnn.network.delay import Delay as Delay
from jaxrnn.network.drop_connect import DropConnect as DropConnect
from jaxrnn.network.fast_slow import FastSlow as FastSlow
from jaxrnn.network.fast_slow import FastSlowCarry as FastSlowCarry
from jaxrnn.network.fast_slow import FastSlowParams as FastSlowParams
from jaxrnn.network.normalized import Normalized as Normalized
from jaxrnn.network.normalized import NormalizedParams as NormalizedParams
from jaxrnn.network.pooled import Pooled as Pooled
from jaxrnn.network.readout import Readout as Readout
from jaxrnn.network.readout import ReadoutParams as ReadoutParams
from jaxrnn.network.residual import Residual as Residual
from jaxrnn.network.residual import ResidualParams as ResidualParams
from jaxrnn.network.stack import Stack as Stack
from jaxrnn.network.variational_dropout import VariationalDropout as VariationalDropout
from jaxrnn.network.zoneout import Zoneout as Zoneout
