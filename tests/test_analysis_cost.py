"""What looking costs: that it is timed, written down and judged, not how long it takes here."""

import json

import pytest

from experiments import analysis_cost
from experiments._common import UsageError


@pytest.mark.long
@pytest.mark.usefixtures("as_a_user_runs_it")
def test_every_part_is_timed_and_those_that_claim_something_are_judged(tmp_path, capsys):
    analysis_cost.run(analysis_cost.Config(quick=True, output=tmp_path))
    record = json.loads((tmp_path / "analysis_cost.json").read_text())
    assert len(record["seconds"]) == 5 and len(record["verdicts"]) == 4
    for calls in record["seconds"].values():
        assert all(min(seconds) > 0 for seconds in calls.values())
    # a difference of some per cent is looked for in more rounds
    rounds = [len(next(iter(calls.values()))) for calls in record["seconds"].values()]
    assert rounds == [2, 2, 2, 2, 12]
    assert capsys.readouterr().out.count("Measured") == 4


@pytest.mark.parametrize(
    "config, sentence",
    [
        (analysis_cost.Config(length=5), "--length must be even, got 5"),
        (analysis_cost.Config(few=32, hidden_size=16), "--few must be less than N"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(config, sentence):
    with pytest.raises(UsageError, match=sentence):
        analysis_cost.run(config)
