"""The energy of draws is the Hamiltonian of the state that became them, and E-BFMI is what ArviZ makes of it."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from exact import CORRELATED, HEAVY_TAILED
from shoal.diagnostics import energy as module
from shoal.diagnostics import verdict
from shoal.diagnostics.energy import fraction, partners
from shoal.diagnostics.verdict import judge
from shoal.kernels import GHMC, HMC, MAMS, NUTS, JitteredHMC, Microcanonical
from shoal.kernels.hmc import ACCEPTANCE, MOMENTUM
from shoal.randomness import Stream, root_key
from shoal.results.draws import Header, MemoryDraws
from simulated import ar1, result, sample_stats

CHAINS = 4096

# ------------------------------------------------------------------------------------------- what kernels tell


class OfTheProposal(HMC):
    """A mutant: the energy of the proposal, taken or not."""

    def step(self, keys, ensemble, tuning, target):
        after, info = super().step(keys, ensemble, tuning, target)
        accepted = keys.uniform(ACCEPTANCE, np.float32) < info.acceptance_rate
        return after, dataclasses.replace(info, energy=info.energy + jnp.where(accepted, 0.0, info.energy_error))


def steps(kernel, exact=CORRELATED, **changes):
    """A draw of every chain from exact draws, not made yet: before, after, what is told, the fresh momenta."""
    target, start = exact.target(np.float32), exact.draw(np.random.default_rng(3), CHAINS)
    tuning = dataclasses.replace(kernel.tuning(target.dim, np.float32), **changes)

    def draw(start):
        keys = Stream(root_key(5), jnp.arange(CHAINS, dtype=jnp.int32)).draw(jnp.int32(0))
        before = kernel.init(start, target)
        return before, *kernel.step(keys, before, tuning, target), keys.normal(MOMENTUM, target.dim, np.float32)

    return draw, jnp.asarray(start, jnp.float32)


HAND = {"step_size": jnp.float32(0.4), "num_steps": jnp.int32(5)}
KERNELS = {
    "hmc": (HMC(), HAND),
    "jittered": (JitteredHMC(), {"step_size": jnp.float32(0.35), "trajectory": jnp.float32(2.0)}),
    "nuts": (NUTS(), {"step_size": jnp.float32(0.3)}),
    "mutant": (OfTheProposal(), HAND),
}


@functools.cache
def drawn(name: str):
    kernel, changes = KERNELS[name]
    draw, start = steps(kernel, **changes)
    return jax.tree.map(lambda leaf: np.asarray(leaf, float), jax.jit(draw)(start))


def kinetic(momentum: np.ndarray) -> np.ndarray:
    return 0.5 * (momentum**2).sum(axis=1)


def test_energy_of_hmc_is_that_of_the_end_or_where_it_was_rejected_of_the_start():
    before, after, info, fresh = drawn("hmc")
    accepted = (after.position != before.position).any(axis=1)
    assert 0.1 < accepted.mean() < 0.9
    momentum = np.where(accepted[:, None], info.momentum, fresh)
    np.testing.assert_allclose(info.energy, kinetic(momentum) - after.log_density, rtol=1e-5, atol=1e-5)
    # It changes along the trajectory by its error, and by nothing where the draw is the start.
    began = kinetic(fresh) - before.log_density
    np.testing.assert_allclose(info.energy - began, np.where(accepted, info.energy_error, 0.0), rtol=1e-3, atol=1e-4)


def test_energy_of_nuts_is_that_of_the_leaf_that_was_drawn():
    _, after, info, _ = drawn("nuts")
    np.testing.assert_allclose(info.energy, kinetic(info.momentum) - after.log_density, rtol=1e-4, atol=1e-4)
    assert np.ptp(info.num_steps) > 0


def off(name: str) -> float:
    """By how many standard errors the kinetic energy is not half a chi-squared, or goes with the log density."""
    _, after, info, _ = drawn(name)
    moving, potential = info.energy + after.log_density - 2.5, -after.log_density - 2.5
    zero = [moving, moving**2 - 2.5, moving * potential]
    return max(abs(x.mean()) / x.std() * len(x) ** 0.5 for x in zero)


@pytest.mark.parametrize("name", ["hmc", "jittered", "nuts"])
def test_kinetic_energy_of_draws_has_its_law_and_is_independent_of_where_they_are(name):
    assert off(name) < 5


def test_energy_of_rejected_proposals_would_show():
    assert off("mutant") > 5


@pytest.mark.parametrize("kernel", [GHMC(), MAMS(), Microcanonical()], ids=["ghmc", "mams", "microcanonical"])
def test_kernels_without_fresh_momenta_tell_none(kernel):
    assert jax.eval_shape(*steps(kernel))[2].energy is None


# ------------------------------------------------------------------------------------------- E-BFMI


def log_density(params):
    return HEAVY.log_density(params["x"], None)


HEAVY = HEAVY_TAILED.target(np.float32)


@pytest.fixture(scope="module")
def run():
    model = shoal.Model(params={"x": shoal.real(3)}, log_density=log_density)
    sampler = shoal.HMC(step_size=0.25, num_steps=8)
    start = {"x": HEAVY_TAILED.draw(np.random.default_rng(0), 32)}
    run = {"num_chains": 32, "num_samples": 1500, "num_warmup": 0, "progress_bar": False}
    return shoal.sample(model, sampler=sampler, initial_positions=start, **run)


def test_e_bfmi_is_that_of_arviz(run):
    arviz = pytest.importorskip("arviz_stats", reason="ArviZ is not installed")
    theirs = np.asarray(arviz.bfmi(run.to_datatree())["energy"])
    ours = fraction(run.sample_stats["energy"], run.sample_stats["lp"])
    # Its law is known: 3 degrees of freedom, and the variance of the log density of Student's t.
    expected = 1 / (0.5 + 2.25 * (np.pi**2 / 6 - (np.pi**2 / 2 - 4)))
    assert abs(np.log(ours.value / expected)) < 5 * ours.error
    # Chain by chain ArviZ's divides by a variance that is too small by what a chain has not seen.
    assert abs(theirs.mean() - ours.value) < 5 * theirs.std() / 32**0.5 + 0.02
    assert not ours.low


def test_draws_need_not_follow_on_each_other(run):
    energy, lp = run.sample_stats["energy"], run.sample_stats["lp"]
    whole, thin = fraction(energy, lp), fraction(energy[:, ::10], lp[:, ::10])
    assert abs(np.log(thin.value / whole.value)) < 5 * np.hypot(thin.error, whole.error)


def simulated(seed: int, chains: int, draws: int, dim: int, rho: float = 0.0):
    """Energies and log densities of normal draws."""
    rng = np.random.default_rng(seed)
    lp = -0.5 * (ar1(rng, chains, draws, (dim,), rho) ** 2).sum(axis=2)
    return 0.5 * rng.chisquare(dim, lp.shape) - lp, lp


@pytest.mark.parametrize("rho", [0.0, 0.99])
@pytest.mark.parametrize(("chains", "draws"), [(4, 200), (16, 4), (16, 50), (1024, 4)])
@pytest.mark.parametrize("dim", [1, 5])
def test_normal_targets_give_no_alarm(dim, chains, draws, rho):
    assert not any(fraction(*simulated(seed, chains, draws, dim, rho)).low for seed in range(20))


def test_what_is_not_known_gives_no_alarm(monkeypatch):
    """One chain in the tail makes the spread: of 16 chains that is no evidence."""
    energy, lp = simulated(0, 16, 50, 2)
    far = np.zeros_like(lp)
    far[3, 10:] = 30.0
    found = fraction(energy + far, lp - far)
    assert found.value < 0.1
    assert not found.low
    monkeypatch.setattr(module, "SURELY", np.inf)
    assert fraction(energy + far, lp - far).low


def wandering(chains: int = 16):
    """Energies that spread far more than momenta change them, in all chains alike."""
    energy, lp = simulated(0, chains, 50, 3)
    far = np.where(np.arange(50) % 2, 30.0, 0.0)
    return energy + far, lp - far


def test_energies_of_which_nothing_can_be_said(monkeypatch):
    energy, lp = wandering()
    assert fraction(energy, lp).low
    assert not fraction(energy[:3], lp[:3]).low
    assert not fraction(energy[:, :0], lp[:, :0]).low
    assert not fraction(np.full_like(energy, 2.0), np.full_like(lp, -2.0)).low
    assert not fraction(np.where(lp == lp[3, 4], np.nan, energy), lp).low
    # A log density whose rounding alone spreads as much.
    energy, lp = (x.astype(np.float32) for x in (energy + 1e8, lp - 1e8))
    assert not fraction(energy, lp).low
    monkeypatch.setattr(module, "ROUNDING", 0.0)
    assert fraction(energy, lp).low


def test_the_quantities_that_go_with_the_energy_are_named_by_their_numbers():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 100, 4)).astype(np.float32)
    energy = 3 * x[..., 2] + np.abs(x[..., 0]) * 4 + rng.standard_normal((64, 100))
    found = partners({"a": x[..., 3], "x": x}, energy)
    assert [(p.name, p.quantity, p.far) for p in found] == [("x", 2, False), ("x", 0, True)]
    assert found[0].correlation > 0.6


# ------------------------------------------------------------------------------------------- the finding

IDS = np.repeat(np.arange(8), 8)


def normal_run(**changes):
    energy, lp = simulated(0, 64, 100, 3)
    return {"x": np.random.default_rng(1).standard_normal(lp.shape)}, {**sample_stats(lp, float), "energy": energy}, IDS


def modes():
    """Two modes of different height, between which no chain goes."""
    draws, stats, ids = normal_run()
    off = np.where(ids < 4, 0.0, 40.0)[:, None]
    return draws, {**stats, "lp": stats["lp"] - off, "energy": stats["energy"] + off}, ids


def on_their_way():
    """All chains arrive from afar."""
    draws, stats, ids = normal_run()
    off = 60.0 * np.exp(-np.arange(100) / 20.0)
    return draws, {**stats, "lp": stats["lp"] - off, "energy": stats["energy"] + off}, ids


@pytest.mark.parametrize("make", [modes, on_their_way])
def test_chains_that_are_elsewhere_are_no_matter_of_the_energy(make, monkeypatch):
    draws, stats, ids = make()
    found = {finding.kind for finding in judge(draws, stats, ids)}
    assert found & {"r_hat", "drift"}
    assert "energy" not in found
    assert fraction(stats["energy"], stats["lp"]).low
    monkeypatch.setattr(verdict, "_shifts_energy", lambda finding: False)
    assert "energy" in {finding.kind for finding in judge(draws, stats, ids)}


def test_a_run_that_tells_no_energy_is_judged_without():
    draws, stats, ids = normal_run()
    assert judge(draws, stats, ids) == judge(draws, {k: v for k, v in stats.items() if k != "energy"}, ids) == ()


# ------------------------------------------------------------------------------------------- what is kept and shown


def test_a_run_on_disk_that_was_begun_without_energy_goes_on_without(tmp_path):
    pytest.importorskip("zarr", reason="Zarr is not installed")
    from shoal.results.zarr_draws import ZarrDraws

    header = Header(superchain=IDS)
    draws, stats, _ = normal_run()
    older = {name: stat for name, stat in stats.items() if name != "energy"}
    ZarrDraws(tmp_path / "run", 200, header).append(draws, older)
    disk, memory = ZarrDraws.reopened(tmp_path / "run", 200, header), MemoryDraws(200, header)
    disk.append(draws, stats)
    for _ in range(2):
        memory.append(draws, older)
    disk.finish(result(64, 5, draws=disk.draws, sample_stats=disk.sample_stats, superchain=IDS))
    loaded = shoal.load(tmp_path / "run")
    assert list(loaded.sample_stats) == list(older)
    np.testing.assert_array_equal(loaded.sample_stats["lp"], memory.sample_stats["lp"])
    assert not ZarrDraws.reopened(tmp_path / "run", 200, header).clear_damage()


def test_the_report_and_diagnose_show_it(run, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    pytest.importorskip("zarr", reason="Zarr is not installed")
    from shoal.cli import main
    from shoal.report.page import page

    first = lambda group: {name: values[:, :50] for name, values in group.items()}
    short, old = dataclasses.replace(run, draws=first(run.draws), sample_stats=first(run.sample_stats)), result(8, 20)
    text, number = page(short), fraction(short.sample_stats["energy"], short.sample_stats["lp"]).value
    assert "<h2>The energy</h2>" in text
    assert f"E-BFMI {number:.2f}" in text
    assert "<h2>The energy</h2>" not in page(old)
    for some, told in ((short, True), (old, False)):
        some.save(tmp_path / str(told))
        main(["diagnose", str(tmp_path / str(told)), "--json"])
        said = json.loads(capsys.readouterr().out)["e_bfmi"]
        assert said == (pytest.approx(number) if told else None)
