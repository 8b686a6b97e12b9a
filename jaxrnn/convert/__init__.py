"""Weights of other libraries as ours, and ours as theirs; none of those libraries is needed."""

from jaxrnn.convert.torch import from_torch as from_torch
from jaxrnn.convert.torch import to_torch as to_torch
