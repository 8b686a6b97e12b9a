"""`python -m experiments` lists every experiment, and imports none of them."""

import ast
import subprocess
import sys
from pathlib import Path

import experiments.__main__ as listing

FOLDER = Path(listing.__file__).parent


def test_lists_every_experiment_with_its_first_sentence():
    listed = listing.experiments()
    modules = {p.stem for p in FOLDER.glob("*.py") if not p.stem.startswith("_")}
    assert set(listed) == modules and "gradient_decay" in modules
    for name, sentence in listed.items():
        docstring = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text("utf-8")))
        assert docstring is not None and sentence
        assert " ".join(docstring.split()).startswith(sentence)


def test_the_command_prints_the_list_without_loading_jax():
    program = (
        "import runpy, sys; runpy.run_module('experiments', run_name='__main__'); "
        "sys.exit('jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", cwd=FOLDER.parent
    )
    assert done.returncode == 0, done.stderr
    for name, sentence in listing.experiments().items():
        assert name in done.stdout and sentence[:30] in done.stdout
