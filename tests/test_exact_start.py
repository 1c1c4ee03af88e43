"""Every exact kernel leaves a target invariant: chains that begin at exact draws remain exact draws.

Chains are independent, so the standard error of a mean over them is exact: no tolerance is chosen and no
effective sample size estimated. A check fails by chance with probability 5.7e-7 (|z| > 5); there are about
1,000, so one seed in 1,700 would fail. The seeds are fixed.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from exact import EXACT, gamma_dirichlet_log_prior, with_x64, worst_z
from mutants import MUTANTS, without_jacobian
from shoal import kernels
from shoal.dynamics.integrators import MCLACHLAN, OMELYAN
from shoal.dynamics.metrics import Diagonal
from shoal.mesh import Placement
from shoal.program import Program
from shoal.randomness import root_key
from shoal.run import advance, begin, enter

CHAINS, DRAWS = 16_384, 6

SCALE = {  # not ones, so that a metric used in two ways shows; not equal, so that axes cannot be confused
    "skewed": [0.7, 0.9, 1.2, 1.5],
    "correlated": [0.3, 0.2, 0.25, 0.35, 0.22],
    "heavy-tailed": [0.8, 1.0, 1.3],
    "constrained": [0.4, 0.5, 0.6, 0.55],
}


def tuned(kernel, dim: int, name: str, dtype: type):
    """Long steps, so that about one proposal in five is rejected and the acceptance matters."""
    metric = Diagonal(jnp.asarray(SCALE[name], dtype))
    step = jnp.asarray(0.85, dtype)
    if isinstance(kernel, kernels.HMC):
        return type(kernel).Tuning(step, jnp.asarray(3, jnp.int32), metric)
    if isinstance(kernel, kernels.GHMC):
        return kernel.Tuning(step, jnp.asarray(0.5, dtype), metric)
    if isinstance(kernel, kernels.NUTS):
        return kernel.Tuning(step, metric)
    longest, shortest = jnp.asarray(3.5, dtype), jnp.asarray(0.2, dtype)
    return kernels.JitteredHMC.Tuning(step, longest, shortest, metric, kernel.integrator.as_arrays(dtype))


def run_from_exact_draws(kernel, name: str, dtype: type, target=None, draws: int = DRAWS):
    """Positions after some draws, and the mean acceptance."""
    exact = EXACT[name]
    with with_x64(dtype):
        target = exact.target(dtype) if target is None else target
        start = exact.draw(np.random.default_rng(5), CHAINS).astype(dtype)
        placement = Placement.of(CHAINS, 2048)
        program = Program(target, kernel)
        run = begin(program, placement, root_key(11), start, tuned(kernel, target.dim, name, dtype))
        run = enter(program, run, placement, draws)
        sweeps = max(1, draws // kernel.draws_per_sweep)
        run, _ = advance(program, run, jnp.asarray(sweeps, jnp.int32), placement, sweeps)
        moved = np.asarray(run.ensemble.position)[:CHAINS]
        assert moved.dtype == dtype
        return moved, float(np.mean(moved != start))


KERNELS = {name: getattr(kernels, name)() for name in kernels.__all__ if name != "Kernel"} | {
    "McLachlan": kernels.JitteredHMC(integrator=MCLACHLAN),
    "Omelyan": kernels.JitteredHMC(integrator=OMELYAN),
}


def test_exact_draws_are_exact():
    for name, exact in EXACT.items():
        z, where, _ = worst_z(exact, exact.draw(np.random.default_rng(5), CHAINS))
        assert z < 5, f"{name}: {where} off by {z:.1f} standard errors"


# Double precision is the same law by the same kernels: one of them in every run of the suite, the others when there is
# time.
IN_BOTH = "JitteredHMC"


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize(
    ("kernel", "dtype"),
    [
        pytest.param(
            kernel, dtype, marks=[pytest.mark.slow] * (dtype is np.float64 and of != IN_BOTH), id=f"{of}-{word}"
        )
        for of, kernel in KERNELS.items()
        if kernel.exact
        for word, dtype in (("float32", np.float32), ("float64", np.float64))
    ],
)
def test_kernel_leaves_target_invariant(kernel, name, dtype):
    x, moved = run_from_exact_draws(kernel, name, dtype)
    assert moved > 0.9
    z, where, _ = worst_z(EXACT[name], x)
    assert z < 5, f"{where} off by {z:.1f} standard errors"


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_mutant_is_caught(mutant):
    caught = {name: worst_z(EXACT[name], run_from_exact_draws(mutant(), name, np.float32)[0]) for name in EXACT}
    assert any(z > 5 for z, *_ in caught.values()), caught


def test_mutant_base_is_correct():
    """What the mutants are made from is right: they are caught for their mistake alone."""
    from mutants import Mutant

    for name in EXACT:
        z, where, _ = worst_z(EXACT[name], run_from_exact_draws(Mutant(), name, np.float32)[0])
        assert z < 5, f"{name}: {where} off by {z:.1f} standard errors"


def test_missing_jacobian_is_caught():
    target = without_jacobian(EXACT["constrained"].target(np.float32), gamma_dirichlet_log_prior)
    x, _ = run_from_exact_draws(kernels.HMC(), "constrained", np.float32, target)
    z, where, _ = worst_z(EXACT["constrained"], x)
    assert z > 5, f"{where} off by only {z:.1f} standard errors"
