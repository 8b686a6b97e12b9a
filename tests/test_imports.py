"""How the library hangs together: imports run one way, and `import jaxrnn` loads little."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import jaxrnn

ROOT = Path(jaxrnn.__file__).parent.parent

# a module may import those of its own rank and of lower ones; of its own without a circle
RANKS = [
    ("jaxrnn.cell", "jaxrnn.dense", "jaxrnn.initializers"),
    ("jaxrnn.cells", "jaxrnn.methods"),
    ("jaxrnn.sizes", "jaxrnn.sequences"),
    ("jaxrnn.unroll",),
    ("jaxrnn.network",),
    (
        "jaxrnn.truncated",
        "jaxrnn.save",
        "jaxrnn.tune",
        "jaxrnn.catalogue",
        "jaxrnn.__main__",
        "jaxrnn.analysis",
        "jaxrnn.models",
        "jaxrnn.tasks",
    ),
    ("jaxrnn.train",),
    ("experiments",),
]
# leaves: they may import anything below experiments, and nothing imports them but experiments
LEAVES = ("jaxrnn.convert", "jaxrnn.plot")


def modules():
    """Every module by name, with its file."""
    for folder in ("jaxrnn", "experiments"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


FILES = dict(modules())


def imports(name):
    """The modules of ours that a module names in its imports, at whatever depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import in line {node.lineno}"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in FILES else node.module)
    return {module for module in found if module in FILES} - {name}


GRAPH = {name: imports(name) for name in FILES}


def rank(name):
    for number, members in enumerate(RANKS):
        if any(name == m or name.startswith(m + ".") for m in members):
            return number
    return None


def is_leaf(name):
    return any(name == leaf or name.startswith(leaf + ".") for leaf in LEAVES)


@pytest.mark.parametrize("name", [name for name in FILES if name != "jaxrnn"])
def test_every_module_has_its_place(name):
    assert is_leaf(name) or rank(name) is not None, f"give {name} a rank in this test"


@pytest.mark.parametrize("name", FILES)
def test_no_arrow_points_upwards(name):
    for other in GRAPH[name] - {"jaxrnn"}:
        if name.startswith("experiments"):
            continue
        assert not other.startswith("experiments"), f"{name} imports {other}"
        if name == "jaxrnn":  # the table of contents
            continue
        if is_leaf(other):
            assert is_leaf(name), f"{name} imports the leaf {other}"
        elif not is_leaf(name):
            assert rank(other) <= rank(name), f"{name} imports {other} from above"


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("jaxrnn.")])
def test_no_module_of_the_library_imports_its_table_of_contents(name):
    # `from jaxrnn import initializers` is a module; `from jaxrnn import LSTM` would be a circle
    assert "jaxrnn" not in GRAPH[name] or is_leaf(name)


def test_no_imports_in_a_circle():
    done = set()

    def visit(name, path):
        assert name not in path, " → ".join([*path, name])
        if name not in done:
            for other in sorted(GRAPH[name]):
                visit(other, [*path, name])
            done.add(name)

    for name in FILES:
        visit(name, [])


def test_the_walk_sees_what_it_should():
    # else all of the above would hold of nothing
    assert "jaxrnn.unroll" in GRAPH["jaxrnn.network.stack"]
    assert "jaxrnn.cells.gated" in GRAPH["jaxrnn.cells.lstm"]
    assert {"jaxrnn.cells", "jaxrnn.initializers"} <= GRAPH["jaxrnn"]


def test_import_loads_none_of_the_heavy_libraries():
    heavy = ("flax", "optax", "matplotlib", "torch", "orbax", "safetensors", "rich", "tyro")
    code = f"import sys, jaxrnn; print([m for m in {heavy!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def public(module):
    return [name for name in vars(module) if not name.startswith("_")]


def documented():
    """Every public class and function defined in the library, and every method of these."""
    for name in FILES:
        if name.startswith("jaxrnn"):
            tree = ast.parse(FILES[name].read_text())
            yield pytest.param(tree, id=name)
            for node in _public(tree):
                yield pytest.param(node, id=f"{name}.{node.name}")
                for inner in _public(node) if isinstance(node, ast.ClassDef) else ():
                    yield pytest.param(inner, id=f"{name}.{node.name}.{inner.name}")


def _public(node):
    kinds = (ast.ClassDef, ast.FunctionDef)
    return [n for n in node.body if isinstance(n, kinds) and not n.name.startswith("_")]


def test_everything_public_has_a_docstring():
    assert not [entry.id for entry in documented() if not ast.get_docstring(*entry.values)]


def test_every_name_in_the_table_of_contents_is_ours_and_explained():
    for name in public(jaxrnn):
        value = getattr(jaxrnn, name)
        if inspect.ismodule(value):
            # `jaxtyping` is put there by the hook that checks shapes in the tests
            assert value.__name__.startswith("jaxrnn.") or value.__name__ == "jaxtyping", name
            continue
        assert value.__module__.startswith("jaxrnn."), name
        assert inspect.getdoc(value), name
