"""What every test runs under: 64 bits, strict promotion, shapes in signatures checked."""

import hypothesis
import jax
from jaxtyping import install_import_hook

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
