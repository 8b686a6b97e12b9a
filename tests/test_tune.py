"""`tune` measures what it says and returns one of its candidates."""

import jax.numpy as jnp
import pytest
from rows import Noisy

from jaxrnn import GRU, LSTM, Scan, Stack, Staged, tune


@pytest.mark.parametrize("gradient", [pytest.param(True, marks=pytest.mark.long), False])
def test_the_method_returned_is_the_fastest_of_those_measured(gradient, capsys):
    network = Stack((LSTM(2, 3), GRU(3, 3)))
    methods = (Scan(), Staged())
    tuning = tune(network, (2, 4), gradient=gradient, methods=methods, rounds=2)
    assert set(tuning.milliseconds) == set(tuning.megabytes) == set(methods)
    assert tuning.milliseconds[tuning.method] == min(tuning.milliseconds.values()) > 0
    assert str(tuning.method) in capsys.readouterr().out


@pytest.mark.long
def test_less_memory_is_had_by_another_method():
    methods = (Staged(), Staged(checkpoint=True))
    options = dict(methods=methods, rounds=1, report=None)
    free = tune(LSTM(3, 8), (64,), **options)
    few, many = sorted(free.megabytes.values())
    assert few == free.megabytes[Staged(checkpoint=True)] < many
    assert tune(LSTM(3, 8), (64,), megabytes=few, **options).method == Staged(checkpoint=True)
    with pytest.raises(ValueError, match=r"no method keeps within 0 MB; the leanest, Staged"):
        tune(LSTM(3, 8), (64,), megabytes=0, **options)


def test_inputs_may_be_given():
    options = dict(methods=(Scan(),), rounds=1, report=None, dtype=jnp.float64)
    tuning = tune(Noisy(), (2,), xs=jnp.ones((2, 3)), **options)
    assert tuning.method == Scan()
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        tune(Noisy(), (2,), rounds=0)
