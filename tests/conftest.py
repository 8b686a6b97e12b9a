"""What every test runs under: 64 bits, strict promotion, shapes in signatures checked."""

import itertools
import os
from pathlib import Path

import hypothesis
import jax
import pytest
from jaxtyping import install_import_hook

# most of a test is compiling, and this halves it; the same operations, in machine code that is less
# polished. `.ci/run` sets XLA_FLAGS to nothing for the long run and for other libraries
LIGHT = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ.setdefault("XLA_FLAGS", LIGHT)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")

# beartype checks every annotation of the library, in the tests only; before its first import
_hook = install_import_hook("jaxrnn", "typecheck.check")

# the same examples on every machine; no deadline, because the first example compiles
hypothesis.settings.register_profile(
    "jaxrnn",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=5,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("jaxrnn")


MAPS = Path("/proc/self/maps")
_tests = itertools.count()


@pytest.fixture(autouse=True)
def forget_compiled_programs():
    """Each keeps memory mappings, of which Linux gives a process 65530: thousands are too many."""
    yield
    # looked at now and then, as counting them takes a while
    if next(_tests) % 25 == 0 and MAPS.exists() and MAPS.read_bytes().count(b"\n") > 35_000:
        jax.clear_caches()


@pytest.fixture
def as_a_user_runs_it():
    """In float32, and with JAX's own promotion, which Optax's Adam needs: in all threads."""
    names = ("jax_numpy_dtype_promotion", "jax_enable_x64")
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in zip(names, ("standard", False), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
