"""One file per cell: its equations, its params, its carry, and a frozen dataclass."""

from jaxrnn.cells.elman import Elman as Elman
from jaxrnn.cells.elman import ElmanCarry as ElmanCarry
from jaxrnn.cells.elman import ElmanGates as ElmanGates
from jaxrnn.cells.elman import ElmanParams as ElmanParams
from jaxrnn.cells.gru import GRU as GRU
from jaxrnn.cells.gru import GRUCarry as GRUCarry
from jaxrnn.cells.gru import GRUGates as GRUGates
from jaxrnn.cells.gru import GRUParams as GRUParams
from jaxrnn.cells.lstm import LSTM as LSTM
from jaxrnn.cells.lstm import LSTMCarry as LSTMCarry
from jaxrnn.cells.lstm import LSTMGates as LSTMGates
from jaxrnn.cells.lstm import LSTMParams as LSTMParams
