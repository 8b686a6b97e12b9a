"""Weights and cells of other libraries as ours, and ours as theirs.

`from_…` takes what the library has, a module, a layer or bare arrays, and returns a cell (or
network) and its params; `to_…` returns what the library loads. Where a library's cell computes what
one of ours does, it becomes ours; any other becomes a foreign cell, which every method and analysis
takes as well. The libraries are imported when one of these functions is called that needs them.
"""

from jaxrnn.convert.equinox import from_equinox as from_equinox
from jaxrnn.convert.equinox import to_equinox as to_equinox
from jaxrnn.convert.haiku import from_haiku as from_haiku
from jaxrnn.convert.haiku import to_haiku as to_haiku
from jaxrnn.convert.keras import from_keras as from_keras
from jaxrnn.convert.keras import to_keras as to_keras
from jaxrnn.convert.linen import from_linen as from_linen
from jaxrnn.convert.linen import to_linen as to_linen
from jaxrnn.convert.nnx import from_nnx as from_nnx
from jaxrnn.convert.nnx import to_nnx as to_nnx
from jaxrnn.convert.torch import from_torch as from_torch
from jaxrnn.convert.torch import to_torch as to_torch
