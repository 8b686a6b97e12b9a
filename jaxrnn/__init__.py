"""jaxrnn: every recurrence as a pure function, one `unroll`, and a microscope for gradients."""

# the contract: what a cell is
from jaxrnn.cell import Cell as Cell
from jaxrnn.cell import Network as Network
from jaxrnn.cell import as_cell as as_cell

# how parameters begin
from jaxrnn import initializers as initializers

# cells
from jaxrnn.cells import Elman as Elman
from jaxrnn.cells import ElmanCarry as ElmanCarry
from jaxrnn.cells import ElmanParams as ElmanParams
from jaxrnn.cells import LSTM as LSTM
from jaxrnn.cells import LSTMCarry as LSTMCarry
from jaxrnn.cells import LSTMParams as LSTMParams
from jaxrnn.cells import GRU as GRU
from jaxrnn.cells import GRUCarry as GRUCarry
from jaxrnn.cells import GRUParams as GRUParams

# how big they are
from jaxrnn.sizes import carry_bytes as carry_bytes
from jaxrnn.sizes import carry_size as carry_size
from jaxrnn.sizes import count_parameters as count_parameters
from jaxrnn.cell import flatten_carry as flatten_carry
from jaxrnn.sizes import step_flops as step_flops

# through time, and the methods that take them there
from jaxrnn.unroll import trajectory as trajectory
from jaxrnn.unroll import unroll as unroll
from jaxrnn.unroll import UnrollReport as UnrollReport
from jaxrnn.unroll import unroll_report as unroll_report
from jaxrnn.methods import Loop as Loop
from jaxrnn.methods import Scan as Scan
from jaxrnn.methods import Staged as Staged
from jaxrnn.methods import Associative as Associative
from jaxrnn.methods import Newton as Newton
from jaxrnn.methods import Kernel as Kernel
from jaxrnn.methods import CuDNN as CuDNN

# networks from cells
from jaxrnn.network import Bidirectional as Bidirectional
from jaxrnn.network import BidirectionalCarry as BidirectionalCarry
from jaxrnn.network import BidirectionalParams as BidirectionalParams
from jaxrnn.network import Readout as Readout
from jaxrnn.network import ReadoutParams as ReadoutParams
from jaxrnn.network import Residual as Residual
from jaxrnn.network import ResidualParams as ResidualParams
from jaxrnn.network import Stack as Stack

# the fastest method for a machine
from jaxrnn.tune import tune as tune

# to a file and back, and from other libraries
from jaxrnn.save import load as load
from jaxrnn.save import save as save
from jaxrnn import convert as convert

# the microscope
from jaxrnn import analysis as analysis
