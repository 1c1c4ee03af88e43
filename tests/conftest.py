"""Eight CPU devices in every test, shapes checked as they are annotated, targets with trusted references."""

import os
import signal
from pathlib import Path

# A shell has what it runs in the background ignore Ctrl-C, and tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Before the first import of JAX. More devices than cores are slow but say what many devices would draw.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The user's folder of compiled programs is the user's.
os.environ.setdefault("SHOAL_COMPILE_CACHE", "off")

import jaxtyping
import numpy as np
import pytest

try:
    import beartype  # noqa: F401  (the floor environment does without it, and without the check of shapes)
except ModuleNotFoundError:
    pass
else:
    # The rooms that speak in arrays; the doors check what users bring by themselves.
    ROOMS = (
        "target",
        "randomness",
        "ensemble",
        "dynamics",
        "glm.families",
        "glm.fused",
        "kernels",
        "adaptation",
        "statistics",
        "mesh",
        "run",
    )
    jaxtyping.install_import_hook([f"shoal.{room}" for room in ROOMS], "beartype.beartype")

import jax

from shoal import compiling

TARGETS = Path(os.environ.get("SHOAL_TARGETS", Path(__file__).parents[2] / "shared" / "targets"))


@pytest.fixture(scope="session")
def targets() -> Path:
    """The folder of trusted references, `SHOAL_TARGETS`."""
    if not TARGETS.is_dir():
        pytest.skip("the folder of reference posteriors is missing: set SHOAL_TARGETS")
    return TARGETS


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Compiled programs hold memory maps, of which Linux grants a process 65,530; XLA aborts when they run out."""
    yield
    compiling.forget_programs()


# Modules about what surrounds the draws, and about tuning, which hold whatever XLA makes of a program. That it makes
# the right law of it, and the same bits on any number of devices, is the business of the others.
SOON_COMPILED = {
    "test_adaptation", "test_bench", "test_bench_peers", "test_blackjax", "test_checking", "test_cli", "test_docs",
    "test_durable", "test_energy", "test_ghmc", "test_glm", "test_handle", "test_keeping", "test_laps", "test_mams",
    "test_many", "test_meads", "test_mixed", "test_moments", "test_narrow", "test_notebook", "test_nuts",
    "test_objects", "test_parted", "test_predictive", "test_ready", "test_rows", "test_sbc", "test_store",
    "test_trajectory", "test_until", "test_visited", "test_warmup", "test_watching",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def soon_compiled(request):
    """There programs are compiled without XLA's dear passes: a third of the time of such tests. Not in validation."""
    if request.module.__name__ not in SOON_COMPILED or request.config.getoption("-m") == "slow":
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # for the processes that they start
        jax.config.update("jax_disable_most_optimizations", True)
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def rng() -> np.random.Generator:
    """Numbers that are the same whichever tests ran before."""
    return np.random.default_rng(0)


@pytest.fixture
def strict():
    """No implicit promotion of dtypes or ranks: every slip in our own code is an error."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


class CompileCounter:
    """Counts the programs that XLA compiles while it is entered."""

    def __init__(self) -> None:
        self.count = 0
        self._on = False
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration: float, **_: object) -> None:
        if self._on and event == "/jax/core/compile/backend_compile_duration":
            self.count += 1

    def __enter__(self) -> "CompileCounter":
        self.count, self._on = 0, True
        return self

    def __exit__(self, *_: object) -> None:
        self._on = False


@pytest.fixture(scope="session")
def compile_counter() -> CompileCounter:
    return CompileCounter()
