"""jaxrnn: every recurrence as a pure function, one `unroll`, and a microscope for gradients."""

# the contract: what a cell is
from jaxrnn.cell import Cell as Cell
from jaxrnn.cell import Network as Network
from jaxrnn.cell import as_cell as as_cell

# how parameters begin
from jaxrnn import initializers as initializers

# cells: the classic ones, then all others; their params and carries are in `jaxrnn.cells`
from jaxrnn import cells as cells
from jaxrnn.cells import Elman as Elman
from jaxrnn.cells import ElmanCarry as ElmanCarry
from jaxrnn.cells import ElmanParams as ElmanParams
from jaxrnn.cells import LSTM as LSTM
from jaxrnn.cells import LSTMCarry as LSTMCarry
from jaxrnn.cells import LSTMParams as LSTMParams
from jaxrnn.cells import GRU as GRU
from jaxrnn.cells import GRUCarry as GRUCarry
from jaxrnn.cells import GRUParams as GRUParams
from jaxrnn.cells import Antisymmetric as Antisymmetric
from jaxrnn.cells import ATR as ATR
from jaxrnn.cells import BR as BR
from jaxrnn.cells import CFN as CFN
from jaxrnn.cells import Clockwork as Clockwork
from jaxrnn.cells import ConvLSTM as ConvLSTM
from jaxrnn.cells import CoRNN as CoRNN
from jaxrnn.cells import CoupledLSTM as CoupledLSTM
from jaxrnn.cells import DeltaNet as DeltaNet
from jaxrnn.cells import FastGRNN as FastGRNN
from jaxrnn.cells import FastRNN as FastRNN
from jaxrnn.cells import GatedAntisymmetric as GatedAntisymmetric
from jaxrnn.cells import GatedDeltaNet as GatedDeltaNet
from jaxrnn.cells import IndRNN as IndRNN
from jaxrnn.cells import JANET as JANET
from jaxrnn.cells import Jordan as Jordan
from jaxrnn.cells import LayerNormLSTM as LayerNormLSTM
from jaxrnn.cells import Leaky as Leaky
from jaxrnn.cells import LEM as LEM
from jaxrnn.cells import LightRU as LightRU
from jaxrnn.cells import LiGRU as LiGRU
from jaxrnn.cells import LinearAttention as LinearAttention
from jaxrnn.cells import LinearRNN as LinearRNN
from jaxrnn.cells import Lipschitz as Lipschitz
from jaxrnn.cells import LowRank as LowRank
from jaxrnn.cells import LRU as LRU
from jaxrnn.cells import MGU as MGU
from jaxrnn.cells import MinGRU as MinGRU
from jaxrnn.cells import MinimalRNN as MinimalRNN
from jaxrnn.cells import MinLSTM as MinLSTM
from jaxrnn.cells import MLSTM as MLSTM
from jaxrnn.cells import MultiplicativeLSTM as MultiplicativeLSTM
from jaxrnn.cells import MUT1 as MUT1
from jaxrnn.cells import MUT2 as MUT2
from jaxrnn.cells import MUT3 as MUT3
from jaxrnn.cells import NAS as NAS
from jaxrnn.cells import NBR as NBR
from jaxrnn.cells import OrthogonalRNN as OrthogonalRNN
from jaxrnn.cells import PeepholeLSTM as PeepholeLSTM
from jaxrnn.cells import ProjectionLSTM as ProjectionLSTM
from jaxrnn.cells import QRNN as QRNN
from jaxrnn.cells import RAN as RAN
from jaxrnn.cells import Reservoir as Reservoir
from jaxrnn.cells import RGLRU as RGLRU
from jaxrnn.cells import RHN as RHN
from jaxrnn.cells import S4D as S4D
from jaxrnn.cells import S5 as S5
from jaxrnn.cells import SCRN as SCRN
from jaxrnn.cells import SelectiveSSM as SelectiveSSM
from jaxrnn.cells import SGRN as SGRN
from jaxrnn.cells import SLSTM as SLSTM
from jaxrnn.cells import SRU as SRU
from jaxrnn.cells import STAR as STAR
from jaxrnn.cells import TauGRU as TauGRU
from jaxrnn.cells import TGRU as TGRU
from jaxrnn.cells import TLSTM as TLSTM
from jaxrnn.cells import TRNN as TRNN
from jaxrnn.cells import UGRNN as UGRNN
from jaxrnn.cells import UnICORNN as UnICORNN
from jaxrnn.cells import UnitaryRNN as UnitaryRNN
from jaxrnn.cells import WMCLSTM as WMCLSTM

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
from jaxrnn.network import BidirectionalOutputs as BidirectionalOutputs
from jaxrnn.network import BidirectionalParams as BidirectionalParams
from jaxrnn.network import Readout as Readout
from jaxrnn.network import ReadoutParams as ReadoutParams
from jaxrnn.network import Residual as Residual
from jaxrnn.network import ResidualParams as ResidualParams
from jaxrnn.network import Stack as Stack
from jaxrnn.network import Normalized as Normalized
from jaxrnn.network import VariationalDropout as VariationalDropout
from jaxrnn.network import DropConnect as DropConnect
from jaxrnn.network import Zoneout as Zoneout
from jaxrnn.network import Delay as Delay
from jaxrnn.network import FastSlow as FastSlow
from jaxrnn.network import Pooled as Pooled

# long sequences in windows
from jaxrnn.truncated import truncated as truncated

# the fastest method for a machine
from jaxrnn.tune import tune as tune

# to a file and back, and from other libraries
from jaxrnn.save import load as load
from jaxrnn.save import save as save
from jaxrnn import convert as convert

# the microscope
from jaxrnn import analysis as analysis

# tasks that ask for memory
from jaxrnn import tasks as tasks
