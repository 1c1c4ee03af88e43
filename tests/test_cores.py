"""A device of JAX for every core, unless somebody has chosen or JAX has been used; in processes of their own."""

import os
import subprocess
import sys

import pytest

SAMPLE = """
m = shoal.Model(params={"x": shoal.real(2)}, log_density=lambda p: -0.5 * (p["x"] ** 2).sum())
hmc = shoal.HMC(step_size=0.3, num_steps=2)
shoal.sample(m, sampler=hmc, num_warmup=0, num_samples=2, num_chains=CHAINS, progress_bar=False)
"""
COUNT = "import jax; print(jax.local_device_count())"
USED = "import jax.numpy as jnp; jnp.ones(3)\n"
THREE = "import shoal.cores; shoal.cores.cores = lambda: 3\nimport shoal\n"


def said(code: str, **variables: str) -> tuple[str, str]:
    """What a fresh process prints and warns of."""
    kept = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    command = [sys.executable, "-W", "always::UserWarning", "-c", code]
    done = subprocess.run(command, env=kept | variables, capture_output=True, text=True, check=True)
    return done.stdout.strip(), done.stderr


def test_first_use_of_shoal_shows_all_cores():
    assert said(THREE + "shoal.real\n" + COUNT) == ("3", "")


@pytest.mark.parametrize(
    "variables", [{"JAX_NUM_CPU_DEVICES": "2"}, {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}]
)
def test_chosen_number_stays(variables):
    assert said(THREE + "shoal.real\n" + COUNT, **variables)[0] == "2"


def test_number_set_by_config_stays():
    assert said("import jax; jax.config.update('jax_num_cpu_devices', 2)\n" + THREE + "shoal.real\n" + COUNT)[0] == "2"


@pytest.mark.parametrize(
    ("before", "chains", "variables", "warns"),
    [
        (USED, 64, {}, True),
        ("", 64, {}, False),
        (USED, 64, {"JAX_NUM_CPU_DEVICES": "1"}, False),
        (USED, 8, {}, False),  # one tile keeps one core busy, whatever the number of devices
    ],
)
def test_idle_cores_are_told_of(before, chains, variables, warns):
    words = said(before + THREE + SAMPLE.replace("CHAINS", str(chains)), **variables)[1]
    assert ("Shoal runs on 1 of 3 cores" in words and "JAX_NUM_CPU_DEVICES=3" in words) == warns, words
