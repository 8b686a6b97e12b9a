"""What the README shows is what happens."""

import re
from pathlib import Path

import jax

import jaxrnn
from jaxrnn import analysis, initializers

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_ten_lines_run():
    ten_lines = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    names: dict = {}
    with jax.enable_x64(False):  # the tests run in 64 bits, a newcomer in 32
        exec(ten_lines.replace("(16, 200, 8)", "(2, 20, 8)"), names)
    assert names["ys"].shape == (2, 20, 64)
    assert names["carry"].c.shape == (2, 64)
    assert names["decay"].log_spectral_norm.shape == (2, 20)


def test_the_table_of_methods_networks_and_analyses_is_not_out_of_date():
    for row, module in (
        ("cells", jaxrnn), ("initialisers", initializers), ("through time", jaxrnn),
        ("methods", jaxrnn), ("networks", jaxrnn), ("files", jaxrnn), ("analysis", analysis),
    ):  # fmt: skip
        (text,) = re.findall(rf"^\| {row} \| (.*) \|$", README, re.MULTILINE)
        for name in re.findall(r"`([A-Za-z_.]+)[`(]", text):
            place = module
            for part in name.removeprefix("jaxrnn.").removeprefix("analysis.").split("."):
                if part in ("lengths", "resets", "reverse", "key", "initializers"):
                    continue  # an option, or the module itself
                place = getattr(place, part)
