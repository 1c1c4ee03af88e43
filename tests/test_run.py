"""What draws depend on: the seed, the number of the draw and the chain; not chunks, resuming, chains or devices."""

from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import shoal
from shoal import kernels
from shoal.adaptation import Chain, ChEES, DiagonalMetric, During, Fixed, StepSize
from shoal.dynamics.integrators import LEAPFROG
from shoal.dynamics.metrics import Diagonal
from shoal.mesh import Placement
from shoal.program import Program, keep_draws
from shoal.randomness import root_key, van_der_corput
from shoal.run import _advance, advance, begin, drive, enter, frozen
from shoal.statistics import Health, Moments
from shoal.target import Target

DIM = 6


def log_density(z, data):
    """A logistic regression with a scale that is learned: skewed, and the data are arguments."""
    x, y = data
    logits = x @ (jnp.exp(z[0]) * z[1:])
    return -0.5 * jnp.sum(z * z) + jnp.sum(y * logits - jnp.logaddexp(0.0, logits))


def constrain(z, data):
    return {"scale": jnp.exp(z[0]), "beta": z[1:]}


def some_data(seed: int, dtype: type = np.float32):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, DIM - 1))
    y = rng.random(40) < 1 / (1 + np.exp(-x[:, 0]))
    return jnp.asarray(x, dtype), jnp.asarray(y, dtype)


def some_target(seed: int = 0, dtype: type = np.float32) -> Target:
    return Target(log_density, constrain, some_data(seed, dtype), DIM)


KERNEL = kernels.JitteredHMC(max_steps=30)
LEARNING = Chain((StepSize(), During(0.05, 0.9, DiagonalMetric()), During(0.1, 0.9, ChEES())))


def positions(chains: int, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(1).uniform(-2, 2, (chains, DIM)).astype(dtype)


def warmed_and_sampled(placement: Placement, chunks=(30,), samples: int = 12):
    """All that a run with pooled adaptation makes: draws, tuning, state."""
    target, n = some_target(), placement.num_chains
    warm = Program(target, KERNEL, LEARNING, {"health": Health()})
    run = begin(warm, placement, root_key(3), positions(n), KERNEL.tuning(DIM, np.float32))
    run = enter(warm, run, placement, 30)
    for sweeps in chunks:
        run, _ = advance(warm, run, jnp.int32(sweeps), placement, 1)
    assert int(run.step) == 30
    run = eqx.tree_at(lambda r: r.tuning, run, frozen(warm, run, placement))
    sampling = Program(target, KERNEL, Fixed(), {"health": Health(), "moments": Moments()}, keep_draws)
    run, kept = advance(sampling, enter(sampling, run, placement, samples), jnp.int32(samples), placement, samples)
    kept = jax.tree.map(lambda leaf: np.asarray(leaf)[:, placement.rows], kept)
    per_chain = jax.tree.map(lambda leaf: np.asarray(leaf)[placement.rows], (run.ensemble, run.statistics))
    return kept, per_chain, jax.tree.map(np.asarray, run.tuning)


def assert_bitwise_equal(one, other):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


@pytest.fixture(scope="module")
def alone():
    return warmed_and_sampled(Placement.of(256, 32, jax.devices()[:1]))


@pytest.mark.parametrize("num_devices", [2, pytest.param(4, marks=pytest.mark.slow), 8])
def test_devices_change_no_draw(alone, num_devices):
    assert_bitwise_equal(warmed_and_sampled(Placement.of(256, 32, jax.devices()[:num_devices])), alone)


@pytest.mark.parametrize(
    "example",
    [
        "eight_schools",
        pytest.param("diabetes", marks=pytest.mark.slow),
        pytest.param("stochastic_volatility", marks=pytest.mark.slow),
        pytest.param("gaussian_process", marks=pytest.mark.slow),
    ],
)
def test_devices_change_no_draw_of_the_examples(example):
    """Models that users write, divisions and all: XLA treats one device and many unlike where it is let."""
    target = shoal.examples.load(example).target(np.float32)
    start = 0.1 * np.random.default_rng(0).normal(size=(128, target.dim)).astype(np.float32)

    def draws(num_devices: int):
        placement = Placement.of(128, 32, jax.devices()[:num_devices])
        program = Program(target, KERNEL, LEARNING, keep=keep_draws)
        run = begin(program, placement, root_key(1), start, KERNEL.tuning(target.dim, np.float32))
        run, kept = advance(program, enter(program, run, placement, 12), jnp.int32(12), placement, 12)
        return jax.tree.map(np.asarray, (kept, run.tuning))

    one = draws(1)
    assert np.isfinite(one[0]["stats"]["lp"]).all()
    for num_devices in (2, 4):
        assert_bitwise_equal(draws(num_devices), one)


@pytest.mark.parametrize(
    ("platform", "chains", "devices", "tile", "used"),
    [
        ("cpu", 256, 8, 32, 8),  # that of the tests above
        ("cpu", 20, 8, 20, 1),
        ("gpu", 128, 1, 128, 1),
        ("gpu", 4096, 4, 1024, 4),
        ("gpu", 20_000, 1, 10_000, 1),  # not 16,384 and as many again to fill up the rest
        ("gpu", 100_000, 2, 12_500, 2),
    ],
)
def test_default_tile(platform, chains, devices, tile, used):
    placement = Placement.of(chains, devices=[SimpleNamespace(platform=platform)] * devices)
    assert (placement.layout.tile, len(placement.layout.devices)) == (tile, used)


@pytest.mark.parametrize("devices", [1, *(pytest.param(many, marks=pytest.mark.slow) for many in (2, 4)), 3])
def test_few_chains_in_the_rows_of_many_draw_the_same(devices):
    """Scouts run the program of all chains; on no device do they wait for a tile that another could take."""
    many = Placement.of(128, 32, jax.devices()[:devices])
    few = many.part(48)
    assert (few.layout, few.num_padded) == (many.layout, many.num_padded)
    chain = few.chain_numbers()
    np.testing.assert_array_equal(chain[few.rows], np.arange(48))
    assert (chain >= 0).sum() == 48
    tiles = (chain.reshape(devices, -1, 32) >= 0).any(-1)
    assert tiles.sum(1).max() == -(-2 // devices)
    assert (np.diff(tiles.astype(int), axis=1) <= 0).all()  # those that are turned come first

    alone = warmed_and_sampled(Placement.of(48, 32, jax.devices()[:1]))
    assert_bitwise_equal(warmed_and_sampled(few), alone)


@pytest.mark.parametrize("draws", [slice(0, 5), slice(2, 9, 3), slice(4, 4)])
@pytest.mark.parametrize(
    ("placement", "spec"),
    [
        (Placement.of(128, 32, jax.devices()[:1]), P()),
        (Placement.of(100, 32, jax.devices()[:2]), P(None, "chains")),
        (Placement.of(128, 32, jax.devices()[:2]).part(40), P(None, "chains")),  # some rows between them are of none
        (Placement.of(64, 32, jax.devices()[:4], shards=2), P(None, "chains")),
        (Placement.of(64, 32, jax.devices()[:4], parts=2), P(None, "chains", "parameters")),
    ],
    ids=["one device", "padded", "part", "copies", "parameters"],
)
def test_what_is_kept_comes_to_the_host(placement, spec, draws):
    kept = np.random.default_rng(0).normal(size=(12, placement.num_padded, 6)).astype(np.float32)
    found = placement.fetched(jax.device_put(kept, NamedSharding(placement.layout.mesh, spec)), draws)
    np.testing.assert_array_equal(found, kept[draws][:, placement.rows].swapaxes(0, 1))
    assert found.flags.c_contiguous
    assert found.base is None, "it holds more than the chains"


def test_a_few_among_very_many_have_rows_of_their_own():
    many = Placement.of(1024, 32, jax.devices()[:2])
    assert many.part(256).num_padded == 1024
    assert many.part(64).num_padded == 64
    one = Placement.of(1024, 32, jax.devices()[:1])
    assert one.part(64).layout != one.layout  # which says what is compiled already


@pytest.mark.parametrize("few", [30, 32, 64])
def test_tile_of_a_part_does_not_depend_on_the_devices(few):
    """Nor does, then, any draw of a warmup."""
    for chains, tile in ((128, 32), (256, 64), (512, 32)):
        parts = [Placement.of(chains, tile, jax.devices()[:devices]).part(few) for devices in (1, 2, 3, 4, 8)]
        assert len({part.layout.tile for part in parts}) == 1


def test_on_accelerators_a_part_has_a_tile_of_its_own():
    many = Placement.of(128, devices=[SimpleNamespace(platform="gpu")])
    assert (many.part(64).layout.tile, many.part(64).num_padded) == (64, 64)


def test_chunks_change_no_draw(alone):
    chunks = warmed_and_sampled(Placement.of(256, 32, jax.devices()[:1]), chunks=(1, 7, 13, 9))
    assert_bitwise_equal(chunks, alone)


def test_devices_change_no_draw_of_chains_that_fill_no_tile():
    one = warmed_and_sampled(Placement.of(100, 16, jax.devices()[:1]))
    assert_bitwise_equal(warmed_and_sampled(Placement.of(100, 16, jax.devices()[:4])), one)


def test_pooled_sums_with_another_order_would_show(alone):
    """The comparison can fail: another tile adds in another order, and the tuning differs in the last bits."""
    other = warmed_and_sampled(Placement.of(256, 16, jax.devices()[:1]))
    assert not np.array_equal(other[2].metric.scale, alone[2].metric.scale)


def sampling_run(chains: int, tuning, devices: int = 1):
    placement = Placement.of(chains, 16, jax.devices()[:devices])
    program = Program(some_target(), KERNEL, Fixed(), {"moments": Moments()}, keep_draws)
    run = begin(program, placement, root_key(9), positions(512)[:chains], tuning)
    return program, enter(program, run, placement, 200), placement


def fixed_tuning(dtype: type = np.float32):
    metric = Diagonal(jnp.full(DIM, 0.3, dtype))
    step, longest, shortest = (jnp.asarray(size, dtype) for size in (0.5, 2.0, 0.0))
    return KERNEL.Tuning(step, longest, shortest, metric, LEAPFROG.as_arrays(dtype))


def sampled(chains: int, draws: int, devices: int = 1):
    program, run, placement = sampling_run(chains, fixed_tuning(), devices)
    _, kept = advance(program, run, jnp.int32(draws), placement, draws)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:, :chains], kept)


def in_chunks(chunk: int, draws: int, break_after: int | None = None):
    """Draws by `drive` with at most `chunk` at once; with a break, the run leaves for the host and comes back."""
    program, run, placement = sampling_run(32, fixed_tuning())
    kept, done = [], 0
    while done < draws:
        until = draws if break_after is None or done >= break_after else break_after
        for part in drive(program, run, placement, until - done, chunk):
            kept.append(jax.tree.map(lambda leaf, n=part.draws: np.asarray(leaf)[:n], part.kept))
            run = part.run
        done = until
        run = there_and_back(run)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *kept), jax.tree.map(np.asarray, run.statistics)


def there_and_back(run):
    """The run as plain NumPy arrays, and a run made of them: what a checkpoint does."""
    is_key = lambda leaf: jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    leaves, structure = jax.tree.flatten(run)
    saved = [np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in leaves]
    back = [
        jax.random.wrap_key_data(jnp.asarray(new), impl="threefry2x32") if is_key(old) else jnp.asarray(new)
        for old, new in zip(leaves, saved, strict=True)
    ]
    return jax.tree.unflatten(structure, back)


def test_chunk_of_50_or_200_is_the_same():
    assert_bitwise_equal(in_chunks(50, 200), in_chunks(200, 200))


def test_saved_and_resumed_is_straight_through():
    assert_bitwise_equal(in_chunks(200, 200, break_after=70), in_chunks(200, 200))


def test_first_64_of_512_chains_are_the_run_of_64():
    few, many = sampled(64, 20), sampled(512, 20)
    assert_bitwise_equal(jax.tree.map(lambda leaf: leaf[:, :64], many), few)


def test_another_seed_or_chain_draws_otherwise():
    draws = sampled(64, 20)["values"]["beta"]
    assert len({draws[-1, chain].tobytes() for chain in range(64)}) == 64


def test_new_data_compile_nothing(compile_counter):
    program, run, placement = sampling_run(32, fixed_tuning())
    jax.block_until_ready(advance(program, run, jnp.int32(5), placement, 10))
    swapped = eqx.tree_at(lambda p: p.target.data, program, some_data(7))
    with compile_counter:
        jax.block_until_ready(advance(swapped, run, jnp.int32(10), placement, 10))
    assert compile_counter.count == 0


def test_advance_under_vmap_is_one_run_per_data_set():
    """Many posteriors at once are one more batch axis."""
    with jax.enable_x64(True):
        placement = Placement.of(16, 8, jax.devices()[:1])

        def one(seed):
            target = some_target(seed, np.float64)
            program = Program(target, KERNEL, Fixed(), {"moments": Moments()}, keep_draws)
            start = positions(16, np.float64) + 0.1 * seed
            run = begin(program, placement, root_key(seed), start, fixed_tuning(np.float64))
            return program, enter(program, run, placement, 20)

        singles = [one(seed) for seed in range(3)]
        dynamic, static = zip(*(eqx.partition(single, eqx.is_array) for single in singles), strict=True)
        stacked = eqx.combine(jax.tree.map(lambda *leaves: jnp.stack(leaves), *dynamic), static[0])
        sweeps = jnp.int32(20)
        together = eqx.filter_vmap(
            lambda pair: eqx.filter(advance(*pair, sweeps, placement, 20), eqx.is_array),
            in_axes=(eqx.if_array(0),),
        )(stacked)
        for i, single in enumerate(singles):
            apart = eqx.filter(advance(*single, sweeps, placement, 20), eqx.is_array)
            for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(apart), strict=True):
                if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
                    a, b = jax.random.key_data(a), jax.random.key_data(b)
                np.testing.assert_allclose(np.asarray(a)[i], np.asarray(b), rtol=0, atol=1e-8)


def test_nothing_in_our_own_code_promotes_silently(strict):
    placement = Placement.of(8, 4, jax.devices()[:2])
    program = Program(quadratic_target(), KERNEL, LEARNING, {"health": Health(), "moments": Moments()}, keep_draws)
    run = begin(program, placement, root_key(0), positions(8), KERNEL.tuning(DIM, np.float32))
    run = enter(program, run, placement, 4)
    run, _ = advance(program, run, jnp.int32(4), placement, 4)
    assert np.isfinite(np.asarray(run.ensemble.position)).all()


def quadratic_target() -> Target:
    return Target(lambda z, data: -0.5 * jnp.sum(z * z), lambda z, data: {"z": z}, None, DIM)


def test_gradients_are_counted():
    """As many as the target is asked for: one per leapfrog step and chain."""
    draws = sampled(32, 20)
    halton = np.array([[van_der_corput(jnp.int32(i), base, np.float32) for base in (2, 3)] for i in range(20)])
    longest, length = (1.0 - 0.5 * halton[:, 1]) * 0.5, halton[:, 0] * 2.0
    steps = np.clip(np.ceil(length / longest), 1, 30)
    step_size = np.clip(length / steps, longest / 2, longest)
    np.testing.assert_allclose(draws["stats"]["step_size"], np.repeat(step_size[:, None], 32, 1), rtol=1e-6)
    np.testing.assert_array_equal(draws["stats"]["n_steps"], np.repeat(steps[:, None], 32, 1))


def test_van_der_corput():
    first = [[float(van_der_corput(jnp.int32(i), base, np.float32)) for i in range(7)] for base in (2, 3)]
    assert first[0] == [1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8, 3 / 8, 7 / 8]
    np.testing.assert_allclose(first[1], np.array([3, 6, 1, 4, 7, 2, 5]) / 9, rtol=1e-6)


def wall(z, data):
    return jnp.where(jnp.sum(z) > 0.5, jnp.nan, -0.5 * jnp.sum(z * z))


def test_proposals_that_are_not_finite_are_rejected_and_reported():
    placement = Placement.of(64, 16)
    program = Program(Target(wall, lambda z, data: {"z": z}, None, DIM), KERNEL, Fixed(), {}, keep_draws)
    run = begin(program, placement, root_key(0), -np.ones((64, DIM), np.float32), fixed_tuning())
    run, kept = advance(program, enter(program, run, placement, 50), jnp.int32(50), placement, 50)
    z, stats = np.asarray(kept["values"]["z"]), jax.tree.map(np.asarray, kept["stats"])
    assert np.isfinite(z).all()
    assert z.sum(-1).max() <= 0.5 + 1e-5
    assert stats["diverging"].any()
    np.testing.assert_array_equal(np.isinf(stats["energy_error"]), stats["diverging"])


def test_sampling_program_has_no_communication():
    program, run, placement = sampling_run(128, fixed_tuning(), devices=8)
    lowered = eqx.filter_jit(_advance.__wrapped__).lower(program, run, jnp.int32(2), placement.layout, 10)
    text = lowered.compile().compiled.as_text()
    assert not [word for word in ("all-reduce", "all-gather", "all-to-all", "permute") if f" {word}(" in text]
