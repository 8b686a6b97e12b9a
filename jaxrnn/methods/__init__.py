"""Ways through time: one file per method, all on the lowered form of `lowered.py`."""

from jaxrnn.methods.associative import Associative as Associative
from jaxrnn.methods.choice import choose as choose
from jaxrnn.methods.cudnn import CuDNN as CuDNN
from jaxrnn.methods.kernel import Kernel as Kernel
from jaxrnn.methods.loop import Loop as Loop
from jaxrnn.methods.lowered import Method as Method
from jaxrnn.methods.lowered import Moment as Moment
from jaxrnn.methods.newton import Newton as Newton
from jaxrnn.methods.scan import Scan as Scan
from jaxrnn.methods.staged import Staged as Staged
