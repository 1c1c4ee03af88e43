"""A log likelihood by rows: in blocks, on several devices, and what is refused."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import shoal
from shoal.kernels import HMC as HMCKernel
from shoal.mesh import CHAINS, DATA, Placement
from shoal.models import datasets
from shoal.models.rows import ROW_BLOCK, RowSum, _added
from shoal.placing import as_begun, placement_of, targets_of
from shoal.program import Program, keep_draws
from shoal.randomness import root_key
from shoal.run import begin, enter, lowered, on_mesh
from shoal.target import Sharded

COLUMNS, CHAINS_HERE = 3, 8
ONE_BY_ONE, FOUR_BY_TWO, ALL_ROWS = {"chains": 8}, {"chains": 4, "data": 2}, {"data": 8}


def data_of(rows, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, COLUMNS))
    return {"x": x, "y": x @ np.array([1.0, -0.5, 0.2]) + rng.normal(size=rows), "group": rng.integers(0, 2, rows)}


def normal(params, rows):
    """A normal law with a level by group, an index among the rows."""
    mean = rows["x"] @ params["w"] + params["level"][rows["group"]]
    return dist.Normal(mean, params["scale"]).log_prob(rows["y"]).sum()


def plain_prior(params):
    return -0.5 * (params["w"] @ params["w"] + params["level"] @ params["level"] + jnp.log(params["scale"]) ** 2)


def model(rows, log_likelihood=normal, **more):
    params = {"w": shoal.real(COLUMNS), "level": shoal.real(2), "scale": shoal.positive()}
    return shoal.Model(params=params, log_prior=plain_prior, log_likelihood=log_likelihood, data=data_of(rows), **more)


def points(dim, count=CHAINS_HERE, dtype=np.float64):
    return 0.3 * np.random.default_rng(1).normal(size=(count, dim)).astype(dtype)


def at_points(model):
    """Value and gradient in double, where nothing but the order of a sum differs."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, jax.jit(lambda x: model.target(np.float64)(x))(points(model.dim)))


@pytest.mark.parametrize("block", [1, 7, 50, 99, 100])
def test_blocks_make_no_difference(block):
    """101 rows: with and without rows left over, one row in a block, all but one."""
    whole, cut = model(101), model(101).with_row_block(block)
    for one, other in zip(at_points(whole), at_points(cut), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-12, atol=1e-12)


def test_a_block_forgotten_is_seen():
    """What the test above must catch: rows left over that nobody adds."""
    forgetful = model(101, lambda params, rows: normal(params, jax.tree.map(lambda leaf: leaf[:100], rows)))
    value, gradient = at_points(model(101))
    assert (np.abs(at_points(forgetful)[0] - value) > 1e-3).all()
    assert np.abs(at_points(forgetful)[1] - gradient).max() > 1e-3


def test_second_derivatives_go_through_blocks():
    with jax.enable_x64(True):
        target, cut = model(101).target(np.float64), model(101).with_row_block(7).target(np.float64)
        point = points(target.dim)[0]
        hessian = lambda target: jax.jit(jax.hessian(target.log_density))(point, target.data)
        np.testing.assert_allclose(hessian(cut), hessian(target), rtol=1e-9, atol=1e-9)


def test_memory_does_not_grow_with_rows():
    """Intermediate results of a gradient, beside the data: those of a block, however many there are."""

    def memory(rows, block):
        target = model(rows).with_row_block(block).target(np.float32)
        program = jax.jit(lambda x, target: target.gradient(x)).lower(points(target.dim, 32, np.float32), target)
        return program.compile().memory_analysis().temp_size_in_bytes

    assert memory(40_000, 1000) < 1.05 * memory(10_000, 1000)
    assert memory(40_000, 40_000) > 10 * memory(40_000, 1000)  # what it is without blocks


def test_many_blocks_are_added_up_without_loss():
    """10,000 values of about a thousand: within two roundings of the sum; added as they come, off by more than ten."""
    values = np.random.default_rng(0).normal(-1000, 300, 10_000).astype(np.float32)
    exact = values.sum(dtype=float)
    rounding = np.spacing(np.float32(exact))

    @jax.jit
    def added(values):
        add = lambda total, value: (_added(total, value), None)
        return jax.lax.scan(add, (jnp.float32(0), jnp.float32(0)), values)[0][0]

    @jax.jit
    def as_they_come(values):
        return jax.lax.scan(lambda total, value: (total + value, None), jnp.float32(0), values)[0]

    assert abs(float(added(values)) - exact) <= 2 * abs(rounding)
    assert abs(float(as_they_come(values)) - exact) > 10 * abs(rounding)


@pytest.mark.parametrize("rows", [16, 101])
@pytest.mark.parametrize("block", [5, ROW_BLOCK])
def test_devices_that_share_the_rows(rows, block):
    """The same value and gradient inside a program of all devices and outside, with and without rows left over."""
    whole = model(rows)
    cut = whole.with_row_block(block)
    with jax.enable_x64(True):
        plain = whole.target(np.float64)
        placement = Placement.of(CHAINS_HERE, 4, jax.devices()[:4], shards=2)
        assert placement.layout.mesh.shape == {CHAINS: 2, DATA: 2}
        _, shared = targets_of(cut, np.float64, False, placement)
        assert isinstance(shared.data, Sharded)
        assert {leaf.shape[0] for leaf in jax.tree.leaves(shared.data.shards)} == {2}
        position = placement.place(points(plain.dim), split=True)
        everywhere, chains = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(CHAINS)
        inside = on_mesh(lambda both: both[0](both[1]), placement.layout.mesh, (everywhere, chains), chains)
        wanted = jax.jit(lambda x: plain(x))(points(plain.dim))
        for made in (
            jax.jit(lambda *both: inside(both))(shared, position),
            jax.jit(lambda t, x: t(x))(shared, position),
        ):
            for one, other in zip(wanted, made, strict=True):
                np.testing.assert_allclose(np.asarray(other), np.asarray(one), rtol=1e-12, atol=1e-12)


def test_deterministic_quantities_see_all_rows():
    made = model(101, deterministic=lambda params, data: {"mean": (data["x"] @ params["w"]).mean()})
    drawn = [sampled(made, mesh, num_samples=3) for mesh in (ONE_BY_ONE, FOUR_BY_TWO)]
    for result in drawn:
        wanted = (made.data["x"] @ np.asarray(result.draws["w"], float)[..., None]).mean((-2, -1))
        np.testing.assert_allclose(result.draws["mean"], wanted, rtol=1e-4, atol=1e-5)


def sampled(model, mesh, **more):
    start = points(model.dim, 64, np.float32)
    settings = {"num_chains": 64, "num_warmup": 0, "tile": 8, "num_samples": 20, "initial_positions": start} | more
    return shoal.sample(
        model, sampler=shoal.HMC(step_size=0.02, num_steps=5), mesh=mesh, progress_bar=False, **settings
    )


WIDTH = 2.0


def exact_model():
    """A normal law of known scale, whose posterior is known exactly, and exact draws of it to begin at."""
    data = data_of(200)
    both = {"x": data["x"], "y": data["y"]}
    precision = data["x"].T @ data["x"] + np.eye(COLUMNS) / WIDTH**2
    mean, covariance = np.linalg.solve(precision, data["x"].T @ data["y"]), np.linalg.inv(precision)
    made = shoal.Model(
        params={"w": shoal.real(COLUMNS)},
        log_prior=lambda params: dist.Normal(0.0, WIDTH).log_prob(params["w"]).sum(),
        log_likelihood=lambda params, rows: dist.Normal(rows["x"] @ params["w"], 1.0).log_prob(rows["y"]).sum(),
        data=both,
    )
    return made, mean, covariance


def z_scores(mesh, model, mean, covariance, chains=256):
    """Of means and second moments over chains that begin at exact draws, after 10 draws of each."""
    start = np.random.default_rng(5).multivariate_normal(mean, covariance, chains).astype(np.float32)
    # The distinct starts of an exact law: every chain is a sample of it at every draw.
    result = shoal.sample(
        model,
        num_chains=chains,
        num_warmup=0,
        num_samples=10,
        tile=32,
        sampler=shoal.HMC(step_size=0.04, num_steps=4),
        initial_positions=start,
        mesh=mesh,
        seed=3,
        progress_bar=False,
    )
    last = (np.asarray(result.draws["w"])[:, -1] - mean) / np.sqrt(np.diag(covariance))
    return np.concatenate([last.mean(0) * chains**0.5, (np.square(last).mean(0) - 1) * (chains / 2) ** 0.5])


@pytest.mark.parametrize("mesh", [ONE_BY_ONE, FOUR_BY_TWO, ALL_ROWS], ids=str)
def test_every_mesh_gives_the_same_posterior(mesh):
    """18 z-scores in all, none beyond 4.2: by chance once in 2,000 seeds."""
    model, mean, covariance = exact_model()
    assert np.abs(z_scores(mesh, model, mean, covariance)).max() < 4.2


def test_a_sum_over_devices_left_out_is_seen(monkeypatch):
    """What the test above must catch: each device samples the posterior of its own rows."""
    model, mean, covariance = exact_model()
    monkeypatch.setattr(RowSum, "_of_shards", _own_rows_alone)
    assert np.abs(z_scores(FOUR_BY_TWO, model, mean, covariance)).max() > 4.2


def _own_rows_alone(self, params, data):
    return jax.value_and_grad(self._of_blocks)(params, jax.tree.map(lambda leaf: leaf[0], data.shards))


@pytest.mark.parametrize(("mesh", "sums"), [(ONE_BY_ONE, 0), (FOUR_BY_TWO, 2), (ALL_ROWS, 2)], ids=str)
def test_devices_talk_once_per_gradient(mesh, sums):
    """Sampling by HMC has two evaluations: a gradient in the loop of its steps, and value and gradient at the end."""
    made = model(101)
    placement, kernel = placement_of(64, 8, mesh, {}), HMCKernel()
    _, target = targets_of(made, np.float32, False, placement)
    program = Program(target, kernel, keep=keep_draws)
    tuning = kernel.tuning(target.dim, np.float32)
    run = enter(
        program, begin(program, placement, root_key(0), points(target.dim, 64, np.float32), tuning), placement, 1
    )
    traced = lowered(program, run, placement, 4)
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    text = traced.compile().as_text()
    jax.config.update("jax_disable_most_optimizations", before)
    found = re.findall(r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", text)
    assert found == ["all-reduce"] * sums


def test_a_run_goes_on_with_its_shards(tmp_path):
    """As many devices share the rows as before, bit by bit, on another number of parts of the chains too."""
    made = model(101)
    whole = sampled(made, {"chains": 2, "data": 2}, num_samples=20)
    sampled(made, FOUR_BY_TWO, num_samples=8, out=tmp_path / "run")
    longer = shoal.resume(tmp_path / "run", made, num_samples=20, progress_bar=False)
    assert longer.settings["data_shards"] == whole.settings["data_shards"] == 2
    for name in whole.draws:
        np.testing.assert_array_equal(longer.draws[name], whole.draws[name])
    with pytest.raises(ValueError, match="data_shards is not there any more"):
        sampled(made, ONE_BY_ONE, num_samples=30, out=tmp_path / "run")


def test_a_run_goes_on_with_its_blocks(tmp_path):
    made = model(101)
    whole = sampled(made, None, num_samples=12, row_block=10)
    sampled(made, None, num_samples=6, row_block=10, out=tmp_path / "run")
    longer = shoal.resume(tmp_path / "run", made, num_samples=12, progress_bar=False)
    assert longer.settings["row_block"] == whole.settings["row_block"] == 10
    assert "row_block" not in sampled(made, None, num_samples=2).settings
    for name in whole.draws:
        np.testing.assert_array_equal(longer.draws[name], whole.draws[name])


@pytest.mark.parametrize(
    ("mesh", "words"),
    [
        ({"rows": 2}, "expected how many parts"),
        (8, "expected how many parts"),
        ({"chains": 0}, "whole number, at least 1"),
        ({"data": 16}, "asks for 1 .chains. x 16 .data. devices, but JAX shows 8"),
        ({"chains": 8, "data": 2}, "asks for 8 .chains. x 2 .data. devices, but JAX shows 8"),
        ({"data": 200}, "the data have 101 rows"),
    ],
)
def test_meshes_that_cannot_be(mesh, words):
    with pytest.raises(ValueError, match=words):
        sampled(model(101), mesh)


def test_a_log_density_without_rows_is_not_split():
    whole = shoal.Model(params={"x": shoal.real()}, log_density=lambda params: -(params["x"] ** 2))
    for more in ({"mesh": {"data": 2}}, {"row_block": 100}):
        with pytest.raises(ValueError, match=r"not known as (a sum over rows|one)"):
            shoal.sample(whole, **more)


@pytest.mark.parametrize(
    "log_likelihood",
    [
        lambda params, rows: normal(params, rows) / len(rows["y"]),
        lambda params, rows: normal(params, rows) + plain_prior(params),
        lambda params, rows: normal(params, rows | {"y": rows["y"] - rows["y"].mean()}),
    ],
    ids=["mean", "prior", "centred"],
)
def test_what_is_no_sum_over_rows_is_not_cut(log_likelihood):
    made = model(101, log_likelihood)
    # Where the prior and its gradient are zero, too.
    start = np.zeros((64, made.dim), np.float32)
    for more in ({"mesh": FOUR_BY_TWO}, {"mesh": None, "row_block": 50}):
        with pytest.raises(ValueError, match="must be the sum over the rows"):
            sampled(made, initial_positions=start, **more)
    with pytest.raises(ValueError, match="must be the sum over the rows"):
        made.with_row_block(50).check()


def test_many_data_sets_are_looked_at_too():
    made = model(101, lambda params, rows: normal(params, rows) + plain_prior(params)).with_row_block(50)
    with pytest.raises(ValueError, match="must be the sum over the rows"):
        shoal.sample_many(made, [made.data])


def test_a_term_of_all_rows_is_refused_where_rows_are_cut():
    x = data_of(ROW_BLOCK + 1)["x"]
    with pytest.raises(ValueError, match="log_likelihood"):
        model(ROW_BLOCK + 1, lambda params, rows: jnp.sum((rows["y"] - x @ params["w"]) ** 2))


def test_rows_at_once_are_no_more_than_asked_for():
    """Blocks, what is left over, and shards of a mesh: no call has more rows, and none has none."""
    seen = set()

    def counting(params, rows):
        seen.add(len(rows["y"]))
        return normal(params, rows)

    made = model(101, counting)
    for block in (1, 3, 7, 60):
        cut = made.with_row_block(block)
        _, shared = targets_of(cut, np.float32, False, Placement.of(8, 4, jax.devices()[:4], shards=2))
        for target in (cut.target(np.float32), shared):
            seen.clear()
            jax.clear_caches()
            jax.jit(lambda x, target: target(x)).lower(points(made.dim, 8, np.float32), target)
            assert 0 < min(seen) <= max(seen) <= block


def test_a_run_of_all_rows_at_once_goes_on(tmp_path):
    """More rows at once than the default, and a run of a version that knew no blocks, which recorded none."""
    made = model(ROW_BLOCK + 10)
    settings = {"num_chains": 8, "initial_positions": points(made.dim, 8, np.float32)}
    sampled(made, None, row_block=20_000, num_samples=2, out=tmp_path / "run", **settings)
    longer = shoal.resume(tmp_path / "run", made, num_samples=4, progress_bar=False)
    whole = sampled(made, None, row_block=20_000, num_samples=4, **settings)
    np.testing.assert_array_equal(longer.draws["w"], whole.draws["w"])
    assert as_begun(made, None, {"tile": 32}).compiled.row_block == made.number_of_rows
    assert as_begun(made, None, {"tile": 32, "row_block": 50}).compiled.row_block == 50
    assert as_begun(made, None, {}) is made


def test_what_the_command_line_finds_a_model_by_goes_along():
    made = model(101)
    made.origin = "somewhere.py:model"
    assert made.with_row_block(50).origin == made.origin


def test_devices_that_share_rows_compute_in_a_fixed_order():
    with pytest.raises(ValueError, match="come to the same bits"):
        sampled(model(101), FOUR_BY_TWO, deterministic=False)


def test_a_term_in_single_is_cut_in_double():
    made = model(101, lambda params, rows: normal(params, rows).astype(jnp.float32)).with_row_block(50)
    with jax.enable_x64(True):
        assert np.isfinite(jax.jit(lambda x: made.target(np.float64)(x))(points(made.dim))[0]).all()


def test_data_are_the_models_own():
    """Also of views that cannot be written to, of arrays that can, wherever they lie in memory."""
    for first in range(0, 64, 4):
        room = np.zeros(128, np.uint8)
        x = room[first : first + 24].view(np.float32).reshape(2, 3)
        view = x.view()
        view.flags.writeable = False
        for given in (x, view):
            x[0, 0] = 0.0
            read = datasets.read({"x": given})["x"]
            x[0, 0] = 100.0
            assert read[0, 0] == 0.0
            with pytest.raises(ValueError, match="read-only"):
                read[0, 0] = 1.0
            assert datasets.read(read) is read
    counts = {"n": np.arange(5)}
    made = shoal.Model(params={"x": shoal.real()}, log_density=lambda p, data: p["x"] * data["n"].sum(), data=counts)
    assert not made.with_data(n=np.arange(5) + 1).data["n"].flags.writeable


def test_data_that_are_mapped_into_memory_are_not_copied(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(1000, dtype=np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    read = datasets.read(mapped)
    assert np.shares_memory(read, mapped)
    device = datasets.cast(read, np.float32)
    assert np.shares_memory(np.asarray(device), mapped)
    both = Placement.of(64, 8, jax.devices()[:2]).place(device, split=False)
    assert all(np.shares_memory(np.asarray(shard.data), mapped) for shard in both.addressable_shards)
