"""Parameters that devices share: their order, what each device has, the same posterior, and what is refused."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.sharding import PartitionSpec

import shoal
from shoal.compiling import forget_programs
from shoal.examples import neural_network
from shoal.kernels import HMC as HMCKernel
from shoal.mesh import CHAINS
from shoal.models.layout import Layout, Slot
from shoal.models.parted import Parted
from shoal.placing import in_parts, placement_of, targets_of
from shoal.program import Program, keep_draws
from shoal.randomness import Keys, root_key
from shoal.run import advance, begin, enter, lowered, on_mesh, sweeps_as_array
from shoal.target import PARAMETERS

ALL_IN_EIGHT, TWO_BY_FOUR = {"chains": 1, "parameters": 8}, {"chains": 2, "parameters": 4}
BOTH = {"chains": 2, "data": 2, "parameters": 2}

SLOTS = tuple(
    Slot(name, shape, shape)
    for name, shape in {"w": (9, 8), "level": (), "b": (64,), "odd": (5, 3), "cube": (2, 8, 8), "few": (8,)}.items()
)


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_a_vector_in_parts_is_the_same_parameters(parts):
    plain, parted = Layout(SLOTS), Parted(SLOTS, parts)
    vector = np.arange(plain.dim, dtype=np.float32) + 1
    there = parted.in_order(vector)
    assert parted.dim % parts == 0
    assert 0 <= parted.num_spare == parted.dim - plain.dim < parts
    assert sorted(there) == [*[0.0] * parted.num_spare, *vector]
    apart = parted.split(jnp.asarray(there))
    for name, value in plain.split(vector).items():
        np.testing.assert_array_equal(apart[name], value)
    np.testing.assert_array_equal(parted.join(apart), there)
    np.testing.assert_array_equal(parted.plain(there), vector)
    np.testing.assert_array_equal(parted.spare(jnp.asarray(there)), np.zeros(parted.num_spare))
    labels, parameters = parted.coordinates(), parted.parameters()
    assert [labels[np.flatnonzero(there == value)[0]] for value in vector] == list(plain.coordinates())
    assert [parameters[np.flatnonzero(there == value)[0]] for value in vector] == list(plain.parameters())


def test_each_device_has_its_part_of_every_array():
    """Columns of `w`, entries of `b`, slices along the last of the two long axes of `cube`; `few` are not split."""
    parted = Parted(SLOTS, 4)
    labels = np.array(parted.coordinates()).reshape(4, -1)
    for device in range(4):
        own = (2 * device, 2 * device + 1)
        assert {f"w[{row}, {column}]" for row in range(9) for column in own} <= set(labels[device])
        assert {f"b[{entry}]" for entry in range(16 * device, 16 * device + 16)} <= set(labels[device])
        assert {f"cube[{i}, {j}, {k}]" for i in range(2) for j in range(8) for k in own} <= set(labels[device])


def network(**more):
    return neural_network.model(**{"num_hidden": 64, "num_rows": 40} | more)


def from_numpyro():
    """The same by NumPyro, with a site that no number of devices divides."""

    def sites(x, y):
        w = numpyro.sample("w", dist.Normal(0, 1).expand((x.shape[1], 32)))
        shares = numpyro.sample("shares", dist.Dirichlet(jnp.ones(4)))
        noise = numpyro.sample("noise", dist.HalfNormal(0.5))
        numpyro.sample("y", dist.Normal(jnp.tanh(x @ w).sum(-1) * shares[0], noise), obs=y)

    data = network().data
    return shoal.from_numpyro(sites, data["x"], data["y"])


@pytest.mark.parametrize(
    ("build", "mesh"),
    [
        pytest.param(network, ALL_IN_EIGHT, id="eight"),
        pytest.param(network, TWO_BY_FOUR, id="two by four"),
        pytest.param(network, BOTH, id="rows too"),
        pytest.param(from_numpyro, ALL_IN_EIGHT, id="numpyro"),
    ],
)
def test_log_density_and_gradient_are_the_same(build, mesh):
    """In double, inside a program of all devices, but for the law of the spare coordinates."""
    made = build()
    with jax.enable_x64(True):
        placement, parted = placement_of(16, 4, mesh, {}), in_parts(made, mesh["parameters"])
        _, target = targets_of(parted, np.float64, False, placement)
        plain = 0.3 * np.random.default_rng(0).normal(size=(16, made.dim))
        position = parted.layout.in_order(plain)
        everywhere, chains = PartitionSpec(), PartitionSpec(CHAINS)
        inside = on_mesh(lambda both: both[0](both[1]), placement.layout.mesh, (everywhere, chains), chains)
        found = jax.jit(lambda *both: inside(both))(target, placement.place(position, split=True))
        value, gradient = (np.asarray(part) for part in found)
        wanted, slope = (np.asarray(part) for part in jax.jit(made.target(np.float64).__call__)(plain))
        np.testing.assert_allclose(value, wanted, rtol=1e-11)
        np.testing.assert_allclose(gradient, parted.layout.in_order(slope), rtol=1e-9, atol=1e-9)
        # One unit of a spare coordinate: half a unit of log density, none of the model's.
        spare = np.flatnonzero(np.array(parted.coordinates) == "spare[0]")
        if spare.size:
            position[:, spare] = 1.0
            level, _ = jax.jit(target.__call__)(position)
            np.testing.assert_allclose(level, wanted - 0.5, rtol=1e-11)
            np.testing.assert_allclose(target.of_model(level, jnp.asarray(position)), wanted, rtol=1e-11)
            for name, value in parted.constrain(position).items():
                np.testing.assert_allclose(value, made.constrain(plain)[name], rtol=1e-12)


def begun(made, mesh, chains=64, tile=8):
    placement, parted = placement_of(chains, tile, mesh, {}), in_parts(made, mesh["parameters"])
    _, target = targets_of(parted, np.float32, False, placement)
    kernel = HMCKernel()
    program = Program(target, kernel, keep=keep_draws)
    tuning = kernel.tuning(target.dim, np.float32)
    tuning = eqx.tree_at(lambda t: (t.step_size, t.num_steps), tuning, (jnp.float32(0.01), jnp.int32(5)))
    start = 0.1 * np.random.default_rng(0).normal(size=(chains, target.dim)).astype(np.float32)
    run = enter(program, begin(program, placement, root_key(0), start, tuning), placement, 10)
    return program, run, placement


def compiled_text(program, run, placement):
    traced = lowered(program, run, placement, 4)
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        return traced.compile()
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def test_weights_never_leave_their_devices():
    """A gradient takes one sum, of the network's output over its units; what is gathered are a few other numbers."""
    hidden, rows = 64, 40
    program, run, placement = begun(network(num_hidden=hidden, num_rows=rows), ALL_IN_EIGHT)
    text = compiled_text(program, run, placement).as_text()
    moved = re.findall(r"= (\S+) (all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", text)
    sizes = [np.prod([int(n) for n in re.search(r"\[(.*?)\]", shape)[1].split(",")]) for shape, _ in moved]
    assert {kind for _, kind in moved} == {"all-gather"}
    # The metric, once a chunk, and in each evaluation the noise and seven spare coordinates of 8 chains.
    assert sorted(set(sizes)) == [64, program.target.dim]
    inner = [line for line in text.splitlines() if re.search(r"= \S+ all-reduce(-start)?\(", line)]
    of_rows = [line for line in inner if f"[8,{rows}]" in line or f"[{rows},8]" in line]
    assert len(of_rows) == 1
    assert "while/body/while/body/while/body" in of_rows[0]


def test_each_device_has_an_eighth():
    """Of positions, momenta and gradients: less than a third of the memory that a device takes with whole ones."""
    made = network(num_hidden=512)
    program, run, placement = begun(made, ALL_IN_EIGHT)
    for array in (run.ensemble.position, run.ensemble.gradient):
        assert {shard.data.shape for shard in array.addressable_shards} == {(64, array.shape[1] // 8)}
    whole = begun(made, {"chains": 1, "parameters": 1})
    memory = lambda begun: compiled_text(*begun).memory_analysis()
    one, eight = memory(whole), memory((program, run, placement))
    assert eight.temp_size_in_bytes < 0.3 * one.temp_size_in_bytes
    assert eight.argument_size_in_bytes < 0.3 * one.argument_size_in_bytes


def test_devices_agree_about_every_chain():
    """What several of them compute each by itself, such as whether a draw is accepted, is the same bits on all."""
    program, run, placement = begun(network(), TWO_BY_FOUR)
    run, kept = advance(program, run, sweeps_as_array(10), placement, 10)
    assert 0.1 < float(kept["stats"]["acceptance_rate"].mean()) < 0.999999
    shares = {}
    for shard in run.ensemble.log_density.addressable_shards:
        shares.setdefault(str(shard.index), []).append(np.asarray(shard.data))
    assert [len(several) for several in shares.values()] == [4, 4]
    for several in shares.values():
        assert all(np.array_equal(several[0], other) for other in several)


# A posterior that is known


COLUMNS, OUTPUTS, WIDTH = 3, 24, 2.0


def exact_model(rows=50):
    """Regressions of several outputs at once, with a level for all, whose posterior is known exactly."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, COLUMNS))
    y = x @ rng.normal(size=(COLUMNS, OUTPUTS)) + 0.5 + rng.normal(size=(rows, OUTPUTS))
    made = shoal.Model(
        params={"w": shoal.real((COLUMNS, OUTPUTS)), "level": shoal.real()},
        log_prior=lambda p: dist.Normal(0, WIDTH).log_prob(jnp.append(p["w"], p["level"])).sum(),
        log_likelihood=lambda p, d: dist.Normal(d["x"] @ p["w"] + p["level"], 1).log_prob(d["y"]).sum(),
        data={"x": x, "y": y},
    )
    design = np.zeros((rows * OUTPUTS, COLUMNS * OUTPUTS + 1))
    for output in range(OUTPUTS):
        design[output::OUTPUTS, output : COLUMNS * OUTPUTS : OUTPUTS] = x
    design[:, -1] = 1
    precision = design.T @ design + np.eye(made.dim) / WIDTH**2
    return made, np.linalg.solve(precision, design.T @ y.reshape(-1)), np.linalg.inv(precision)


def z_scores(mesh, sampler, chains=256):
    """Of means and second moments of chains that begin at draws of the exact law, ten draws later."""
    made, mean, covariance = exact_model()
    start = np.random.default_rng(5).multivariate_normal(mean, covariance, chains).astype(np.float32)
    # Chains that begin at draws of the law are draws of it at any time.
    result = shoal.sample(
        made, num_chains=chains, num_warmup=0, num_samples=10, tile=32, sampler=sampler, initial_positions=start,
        mesh=mesh, seed=3, progress_bar=False,
    )  # fmt: skip
    draws = {name: np.asarray(value)[:, -1].reshape(chains, -1) for name, value in result.draws.items()}
    white = lambda rows: np.linalg.solve(np.linalg.cholesky(covariance), (rows - mean).T).T
    last = white(np.hstack([draws["w"], draws["level"]]))
    assert (np.abs(last - white(start)).max(0) > 0.5).all()  # they have moved
    products = last.T @ last / chains - np.eye(made.dim)
    among = np.triu_indices(made.dim, 1)
    return np.concatenate(
        [last.mean(0) * chains**0.5, np.diag(products) * (chains / 2) ** 0.5, products[among] * chains**0.5]
    )


BY_HAND = shoal.HMC(step_size=0.06, num_steps=4)


@pytest.mark.parametrize("mesh", [ALL_IN_EIGHT, TWO_BY_FOUR, BOTH], ids=str)
def test_every_mesh_gives_the_same_posterior(mesh):
    """8,322 z-scores in all, none beyond 6.5: by chance once in a million seeds, were products normal as means are."""
    assert np.abs(z_scores(mesh, BY_HAND)).max() < 6.5


def test_momenta_that_devices_draw_alike_are_seen(monkeypatch):
    """What the test above must catch: each device draws the momenta of its own coordinates, from the same key."""
    normal = Keys.normal

    def alike(self, use, size, dtype):
        return jnp.tile(normal(self, use, size // 8, dtype), 8)

    monkeypatch.setattr(Keys, "normal", alike)
    forget_programs()
    assert np.abs(z_scores(ALL_IN_EIGHT, BY_HAND)).max() > 6.5
    forget_programs()


def sampled(made, mesh, **more):
    settings = {"num_chains": 32, "num_warmup": 0, "tile": 8, "num_samples": 20, "seed": 2} | more
    sampler = settings.pop("sampler", shoal.HMC(step_size=0.05, num_steps=4))
    return shoal.sample(made, sampler=sampler, mesh=mesh, progress_bar=False, **settings)


@pytest.mark.slow
def test_a_run_that_ends_by_itself_says_the_same():
    """Burn-in, race and verdict: six standard errors of the exact answer, and Stein's identities as they should be."""
    made, mean, covariance = exact_model()
    result = shoal.sample(
        made,
        num_chains=32,
        mesh=TWO_BY_FOUR,
        until=shoal.Until(ess=500, max_samples=300),
        save_warmup=True,
        seed=1,
        progress_bar=False,
    )
    assert result.converged
    assert result.num_draws < 300
    assert result.settings["parameter_parts"] == 4
    table = result.summary()
    order = [*(f"w[{row}, {column}]" for row in range(COLUMNS) for column in range(OUTPUTS)), "level"]
    found, error = (table.loc[order, column].to_numpy() for column in ("mean", "mcse_mean"))
    assert (np.abs(found - mean) < 6 * error).all()
    assert (error < 0.1 * np.sqrt(np.diag(covariance))).all()
    # Log densities of the warmup are the model's, too.
    draws = {name: np.asarray(value, float)[:, -1] for name, value in result.warmup_draws.items()}
    with jax.enable_x64(True):
        level = jax.jit(made.target(np.float64).__call__)(made.unconstrain(draws))[0]
    np.testing.assert_allclose(result.warmup_sample_stats["lp"][:, -1], level, rtol=1e-5)


def walk():
    """A random walk along a vector: neighbours are told from device to device, in one program of all groups."""
    return shoal.Model(
        params={"x": shoal.real(32)},
        log_density=lambda p: -0.5 * (p["x"][0] ** 2 + jnp.sum(jnp.square(jnp.diff(p["x"])))),
        name="walk",
    )


@pytest.mark.parametrize("chains", [24, 16])
def test_groups_with_fewer_chains_come_to_the_end_with_the_others(chains):
    """Three tiles, of which one group has two and the other one; they waited for each other forever."""
    result = sampled(walk(), {"chains": 2, "parameters": 4}, num_chains=chains, num_samples=5)
    assert np.isfinite(result.draws["x"]).all()


def test_groups_that_would_wait_for_each_other_are_refused():
    """Trees of unequal depth, and a loop of the user's; one group by itself has nobody to wait for."""
    blackjax = pytest.importorskip("blackjax")

    def looping(params):
        smaller = jax.lax.while_loop(lambda x: x > 1, lambda x: x / 2, jax.lax.stop_gradient(params["x"][0]))
        return -0.5 * jnp.sum(jnp.square(params["x"])) + 0 * smaller

    uneven = shoal.Model(params={"x": shoal.real(32)}, log_density=looping)
    with pytest.raises(ValueError, match=r"'nuts' chains do unequal work.*\"chains\": 1, \"parameters\": 4"):
        sampled(walk(), TWO_BY_FOUR, sampler="nuts", num_warmup=50)
    with pytest.raises(ValueError, match="turns as often as its values say"):
        sampled(uneven, TWO_BY_FOUR)
    by_coordinate = shoal.from_blackjax(
        blackjax.hmc, step_size=0.1, num_integration_steps=3, inverse_mass_matrix=np.ones(32)
    )
    with pytest.raises(ValueError, match="settings of BlackJAX may be by coordinate"):
        sampled(walk(), {"chains": 1, "parameters": 4}, sampler=by_coordinate)
    short = shoal.NUTS(max_tree_depth=2)
    for made, sampler, num_warmup in ((uneven, BY_HAND, 0), (walk(), short, 3)):
        alone = {"chains": 1, "parameters": 4}
        result = sampled(made, alone, sampler=sampler, num_warmup=num_warmup, num_samples=2, num_chains=8)
        assert np.isfinite(result.draws["x"]).all()


def two_modes():
    """Weights that say nothing, and a level with two modes, in each of which half of the chains begin."""
    made = shoal.Model(
        params={"w": shoal.real((3, 24)), "level": shoal.real()},
        log_density=lambda p: (
            -0.5 * jnp.sum(p["w"] ** 2) + jnp.logaddexp(-0.5 * (p["level"] - 8) ** 2, -0.5 * (p["level"] + 8) ** 2)
        ),
    )
    start = {"w": np.zeros((64, 3, 24)), "level": np.repeat([-8.0, 8.0], 32)}
    return made, start | {"w": np.random.default_rng(0).normal(size=(64, 3, 24))}


def test_what_is_not_kept_is_known_by_its_name():
    """Moments by coordinate are in the order of the parameters: that of the level says that there are two modes."""
    made, start = two_modes()
    settings = {"num_chains": 64, "num_samples": 100, "initial_positions": start, "keep": ["w"]}
    for mesh in (None, TWO_BY_FOUR):
        result = sampled(made, mesh, sampler=shoal.HMC(step_size=0.3, num_steps=5), **settings)
        assert not result.converged
        assert ("unkept", "level") in [(finding.kind, finding.where) for finding in result.findings]


def test_nothing_kept_has_the_names_of_the_parameters():
    made, mean, covariance = exact_model()
    start = np.random.default_rng(5).multivariate_normal(mean, covariance, 32).astype(np.float32)
    result = sampled(made, TWO_BY_FOUR, keep="none", initial_positions=start, num_samples=100)
    table = result.summary()
    labels = [label for label in table.index if label.startswith("unconstrained")]
    assert len(labels) == made.dim
    found = table.loc[[f"unconstrained[{name}]" for name in made.coordinates], "mean"].to_numpy()
    assert np.abs((found - mean) / np.sqrt(np.diag(covariance))).max() < 1


def test_a_run_from_given_starts_goes_on(tmp_path):
    """Of coordinates of which none is spare."""
    made = walk()
    start = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    whole = sampled(made, {"chains": 1, "parameters": 4}, initial_positions=start, num_samples=12)
    sampled(made, {"chains": 1, "parameters": 4}, initial_positions=start, num_samples=5, out=tmp_path / "run")
    longer = shoal.resume(tmp_path / "run", made, num_samples=12, progress_bar=False)
    np.testing.assert_array_equal(longer.draws["x"], whole.draws["x"])


def test_starts_may_be_given_either_way():
    made, mean, covariance = exact_model()
    start = np.random.default_rng(5).multivariate_normal(mean, covariance, 32).astype(np.float32)
    one = sampled(made, TWO_BY_FOUR, initial_positions=start, num_samples=3)
    other = sampled(made, TWO_BY_FOUR, initial_positions=made.constrain(start), num_samples=3)
    for name in one.draws:
        np.testing.assert_array_equal(one.draws[name], other.draws[name])
    for wrong in (start[:, :7], np.zeros((32, 76), np.float32), start[:31]):
        with pytest.raises(ValueError, match=r"expected one row per chain.*\(32, 73\)"):
            sampled(made, TWO_BY_FOUR, initial_positions=wrong)


def test_a_run_goes_on_with_its_parts(tmp_path):
    """Bit by bit, on another number of parts of the chains too."""
    made, _, _ = exact_model()
    whole = sampled(made, {"chains": 1, "parameters": 4}, num_samples=20)
    sampled(made, TWO_BY_FOUR, num_samples=8, out=tmp_path / "run")
    longer = shoal.resume(tmp_path / "run", made, num_samples=20, progress_bar=False)
    assert longer.settings["parameter_parts"] == whole.settings["parameter_parts"] == 4
    for name in whole.draws:
        np.testing.assert_array_equal(longer.draws[name], whole.draws[name])
    with pytest.raises(ValueError, match="parameter_parts"):
        sampled(made, ALL_IN_EIGHT, num_samples=30, out=tmp_path / "run")


def test_a_tuning_belongs_to_its_parts():
    made = walk()
    tuned = sampled(made, TWO_BY_FOUR, sampler="chees", num_warmup=10, num_samples=2)
    given = {"sampler": "chees", "num_warmup": None, "num_samples": 2}
    again = sampled(made, {"chains": 1, "parameters": 4}, tuning=tuned.tuning, **given)
    assert again.settings["tuning_given"]
    for mesh in (None, ALL_IN_EIGHT):
        with pytest.raises(ValueError, match="were in 4 parts"):
            sampled(made, mesh, tuning=tuned.tuning, **given)
    plain = {name: array for name, array in tuned.tuning.items() if name != "parameter_parts"}
    assert len(plain) == len(tuned.tuning) - 1
    with pytest.raises(ValueError, match="were in one part,"):
        sampled(made, TWO_BY_FOUR, tuning=plain, **given)


@pytest.mark.parametrize(
    ("mesh", "more", "words"),
    [
        ({"chains": 4, "parameters": 4}, {}, "asks for 4 .chains. x 4 .parameters. devices, but JAX shows 8"),
        ({"parameters": 74}, {}, "has 73 unconstrained coordinates"),
        (TWO_BY_FOUR, {"deterministic": False}, "share the coordinates of the same chains"),
        ({"parameters": 0}, {}, "whole number, at least 1"),
    ],
)
def test_meshes_that_cannot_be(mesh, more, words):
    with pytest.raises(ValueError, match=words):
        sampled(exact_model()[0], mesh, **more)


def test_the_axis_has_the_name_that_users_give():
    assert PARAMETERS in placement_of(8, 4, TWO_BY_FOUR, {}).layout.mesh.axis_names
