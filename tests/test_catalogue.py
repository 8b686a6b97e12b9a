"""The catalogue: every cell, with what can be counted counted."""

import subprocess
import sys
from pathlib import Path

import pytest
from rows import PAPERS

import jaxrnn
from jaxrnn import catalogue

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_readme_shows_the_catalogue_of_the_code():
    assert catalogue.table() in README, "python -m jaxrnn --markdown prints the new one"


def test_every_cell_has_a_row_in_the_laws_and_a_name_at_the_top():
    classic = {"Elman", "LSTM", "GRU"}
    tested = {type(row.cell).__name__ for row in PAPERS.values()}
    assert catalogue.classes().keys() == tested | classic
    for name, kind in catalogue.classes().items():
        assert getattr(jaxrnn, name) is kind


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        (jaxrnn.LSTM, "4d² + 4dm + 4d"),
        (jaxrnn.GRU, "3d² + 3dm + 3d"),
        (jaxrnn.Elman, "d² + dm + d"),
        (jaxrnn.PeepholeLSTM, "4d² + 4dm + 7d"),
        (jaxrnn.MinGRU, "2dm + 2d"),
        (jaxrnn.OrthogonalRNN, "0.5d² + dm + 0.5d"),
        (jaxrnn.SRU, "–"),  # one matrix more where the widths differ: no polynomial
    ],
)
def test_parameters_are_counted_as_a_formula(kind, formula):
    assert catalogue.formula(kind) == formula


def test_the_command_line_prints_the_table_one_cell_or_one_sentence():
    def run(*arguments):
        command = [sys.executable, "-m", "jaxrnn", *arguments]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")

    everything, lstm, wrong = run(), run("lstm"), run("LSTN")
    assert all(name in everything.stdout for name in catalogue.classes())
    assert "LSTM = PyTorch `nn.LSTM` with biases=2; Keras `LSTM`" in everything.stdout
    assert "c_t     = f ⊙ c_{t-1} + i ⊙ g" in lstm.stdout and "W_x (4, d, m)" in lstm.stdout
    assert wrong.returncode == 2 and "no cell is called 'LSTN': there are ATR, " in wrong.stderr
