"""`shoal bench`: what is counted is what is done, files say what they are of, and errors are met at the door."""

import json
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from shoal.bench import ceilings, chapter
from shoal.bench.ceilings import MATRIX, MEMORY, TRANSCENDENTAL, Sizes
from shoal.bench.chapter import effective
from shoal.bench.compare import differences, matches
from shoal.bench.counting import operations
from shoal.bench.device import Cell, bound, fastest_tile, knee
from shoal.bench.machine import about, commit
from shoal.bench.turns import in_turns
from shoal.bench.words import of_machine, rounded, share
from shoal.checking.speed import Rate
from shoal.cli import main

SMALL = Sizes(side=16, beyond_caches=64, numbers=32, pairs=1)
MODEL = """
import shoal

model = shoal.Model(params={"x": shoal.real(3)}, log_density=lambda p: -0.5 * (p["x"] ** 2).sum(), name="gauss")
nowhere = shoal.Model(params={"x": shoal.real(2)}, log_density=lambda p: float("nan") * p["x"].sum())
"""


@pytest.fixture(autouse=True)
def small_ceilings(monkeypatch):
    """Ceilings that take no time: what they are is not looked at."""
    monkeypatch.setitem(ceilings.SIZES, "cpu", SMALL)


@pytest.fixture
def command(capsys):
    """Run a command line: its exit code, standard output and standard error."""
    pytest.importorskip("click")
    pytest.importorskip("rich")
    return lambda *words: (main([str(word) for word in words]), *capsys.readouterr())


@pytest.fixture
def models(tmp_path):
    path = tmp_path / "models.py"
    path.write_text(MODEL)
    return path


def target(log_density, dim):
    return shoal.Model(params={"w": shoal.real(dim)}, log_density=lambda p: log_density(p["w"])).target(np.float32)


def measured(**changes):
    """A record with two rows."""
    rows = [
        {"what": MATRIX, "chains": None, "rate": 2e9, "unit": "operations/s"},
        {"what": "draws", "chains": 64, "rate": 1e6, "unit": "gradients/s"},
    ]
    made = {
        "benchmark": "device",
        "machine": {"cpu": "one", "devices": [{"kind": "cpu"}] * 2},
        "versions": {"jax": "1"},
    }
    return {**made, "settings": {"chains": [64]}, "seed": 0, "commit": None, "rows": rows, **changes}


def written(folder, name, made):
    path = folder / name
    path.write_text(json.dumps(made))
    return path


# What is counted


@pytest.mark.parametrize(("rows", "columns"), [(40, 7), (200, 30)])
def test_operations_are_those_of_two_products(rows, columns):
    x = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    asked = operations(target(lambda w: -0.5 * jnp.sum(jnp.square(x @ w)), columns), tile=4)
    assert 4 * rows * columns <= asked.flops <= 4 * rows * columns + 6 * (rows + columns)
    assert asked.products == 4 * rows * columns
    assert asked.transcendentals == 0
    assert asked.bytes > 4 * columns
    assert asked.complete


def test_operations_of_the_founding_posterior_are_those_counted_by_hand():
    pytest.importorskip("sklearn")
    founding = shoal.examples.load("breast_cancer").target(np.float32)
    rows, columns = founding.data["x"].shape
    asked = operations(founding, tile=4)
    assert asked.products == 4 * rows * columns
    assert 1.0 < asked.flops / asked.products < 1.06
    # An exponential for each row and for each scale and the coefficients' common one.
    assert rows <= asked.transcendentals <= rows + 2 * (columns + 1)


def test_transcendental_functions_are_counted_and_loops_are_told_of():
    assert operations(target(lambda w: -jnp.sum(jnp.exp(w)), 7), tile=2).transcendentals == 7

    def in_a_loop(w):
        return jax.lax.scan(lambda total, each: (total - jnp.exp(each), None), 0.0 * w[0], w)[0]

    assert not operations(target(in_a_loop, 7), tile=2).complete


def test_products_in_loops_are_counted_as_often_as_these_turn():
    """Ten rows times a vector, forth, and as many numbers times a row, back: a multiplication and an addition each."""
    x = np.ones((10, 7), np.float32)
    by_rows = lambda w: -jnp.sum(jax.lax.scan(lambda none, row: (none, (row @ w) ** 2), None, x)[1])
    asked = operations(target(by_rows, 7), tile=2)
    assert asked.products == 4 * 10 * 7
    assert not asked.complete


@pytest.mark.parametrize("pairs", [1, 3])
def test_ceilings_count_what_their_loops_do(pairs, monkeypatch):
    loops = []
    monkeypatch.setattr(ceilings, "everywhere", lambda _devices, *loop: loops.append(loop))
    ceilings.matrix_product((), 16)
    ceilings.memory((), 64)
    ceilings.transcendental((), 32, pairs)
    cost = [jax.jit(body).lower(start).cost_analysis() for body, start, _ in loops]
    amounts = [amount for *_, amount in loops]
    assert amounts[0] == cost[0]["flops"] == 2 * 16**3
    body, start, amount = loops[1]
    assert amount == jax.jit(body).lower(start).compile().cost_analysis()["bytes accessed"] == 2 * 4 * 64
    assert amounts[2] == cost[2]["transcendentals"] == 2 * pairs * 32


def test_the_matrix_product_keeps_its_numbers(monkeypatch):
    """Numbers that vanish or overflow would be cheaper, or dearer, than those of draws."""
    kept = []
    monkeypatch.setattr(ceilings, "everywhere", lambda _devices, *loop: kept.append(loop))
    ceilings.matrix_product((), 16)
    body, (turn, start), _ = kept[0]
    state = (turn, start)
    for _ in range(50):
        state = body(state)
    np.testing.assert_allclose(np.linalg.norm(state[1]), np.linalg.norm(start), rtol=1e-4)


def test_a_ceiling_is_of_all_devices_and_turns_as_often_as_asked():
    turned = []

    def body(array):
        jax.debug.callback(lambda: turned.append(1))
        return array + 1

    devices = jax.local_devices()[:2]
    work = ceilings.everywhere(devices, body, np.zeros(2, np.float32), 5.0)
    assert work(3) == 5.0 * 3 * len(devices)
    jax.effects_barrier()
    assert len(turned) == 3 * len(devices)


def test_works_are_timed_in_turns():
    calls = []

    def named(name):
        def work(times):
            calls.append(name)
            time.sleep(1e-4 * times)
            return 10.0 * times

        return work

    rates = in_turns({name: named(name) for name in "ab"}, repeats=3, seconds=1e-3)
    assert calls[-6:] == ["a", "b"] * 3
    assert {name: made.shape for name, made in rates.items()} == {"a": (3,), "b": (3,)}
    assert all((made > 0).all() and (made < 10.0 / 1e-4).all() for made in rates.values())


def test_too_little_memory_is_told_of():
    def work(times):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    with pytest.raises(ValueError, match="not enough for 'draws, 64 chains': ask for fewer"):
        in_turns({Cell("draws", 64): work}, repeats=1, seconds=0.1)


# What follows


def test_the_knee_is_where_half_of_the_best_rate_is_reached():
    rate = lambda chains: Rate(chains, 1e6 * chains / (chains + 100))
    assert knee([rate(2**power) for power in range(18)]) == pytest.approx(100, rel=0.02)
    assert knee([rate(4**power) for power in range(9)]) == pytest.approx(100, rel=0.15)
    assert knee([rate(1000), rate(2000)]) == 1000


def test_a_tile_is_worth_other_draws_only_where_it_is_much_faster():
    cells = lambda fast: {Cell("tile 8", 64): np.full(3, fast), Cell("tile 32", 64): np.full(3, 1.0)}
    assert fastest_tile(cells(1.04), usual=32) == 32
    assert fastest_tile(cells(1.06), usual=32) == 8


def test_the_bound_is_the_nearest_ceiling_if_one_is_near():
    assert bound({MATRIX: 0.4, TRANSCENDENTAL: 0.3, MEMORY: 0.9}) == MATRIX  # the cache, on a CPU
    assert bound({MATRIX: float("nan"), TRANSCENDENTAL: 0.3, MEMORY: 0.9}) == TRANSCENDENTAL
    assert bound({MATRIX: 0.1, TRANSCENDENTAL: 0.1, MEMORY: float("nan")}) == "overhead"


def test_effective_draws_of_independent_ones(rng):
    draws = {"a": rng.normal(size=(8, 500)), "b": np.abs(rng.normal(size=(8, 500, 2)))}
    worst, mean = effective(draws)
    assert 0.6 * 4000 < worst <= mean < 1.4 * 4000
    sticky = {"a": draws["a"], "b": np.repeat(draws["b"][:, ::10], 10, axis=1)}
    assert effective(sticky)[0] < 0.2 * 4000
    many, mean = effective({"a": rng.normal(size=(chapter.SPREAD, 10))})
    assert 0.8 * 10 * chapter.SPREAD < many <= mean < 1.3 * 10 * chapter.SPREAD


def test_numbers_and_machines_in_words():
    assert [rounded(value) for value in (1_423_289.0, 12.345, 0.5)] == ["1,420,000", "12.3", "0.5"]
    assert [share(value) for value in (0.453, 0.0151, None)] == ["45%", "1.5%", "-"]
    gpu = {"backend": "gpu", "cores": 8, "cpu": "", "devices": [{"kind": "H200"}] * 2}
    assert of_machine({"machine": gpu}) == "2 × H200"
    assert of_machine({"machine": {**gpu, "backend": "cpu", "cpu": "some"}}) == "2 of 8 cores (some)"


# What it was measured on


def test_about_says_what_was_measured_on():
    made = about(3)
    assert made["seed"] == 3
    assert set(made["machine"]) == {"cpu", "system", "cores", "memory_bytes", "backend", "devices"}
    assert set(made["versions"]) == {"shoal", "jax", "jaxlib", "numpyro", "numpy", "python"}
    assert len(made["machine"]["devices"]) == jax.local_device_count()
    json.dumps(made, allow_nan=False)


def test_the_commit_is_that_of_the_checkout(tmp_path):
    git = lambda *words: subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)
    assert commit(tmp_path) is None
    try:
        git("init", "-q")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("git is missing")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false", "commit", "-qm", "m")
    made = commit(tmp_path)
    assert made is not None
    assert len(made) == 40
    (tmp_path / "file").write_text("two")
    assert commit(tmp_path) == f"{made}-dirty"
    inside = tmp_path / "site-packages"
    inside.mkdir()
    assert commit(inside) is None


# The commands


def test_device_writes_what_it_measured(command, models, tmp_path):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "new" / "out"
    options = ["--chains", "16,4", "--tiles", "2", "--repeats", 2, "--seconds", 0.001, "--out", folder]
    code, out, err = command("bench", "device", f"{models}:model", *options)
    assert code == 0, err
    made = json.loads((folder / "device.json").read_text())
    assert (folder / "device.png").read_bytes().startswith(b"\x89PNG")
    assert made["benchmark"] == "device"
    assert made["settings"]["chains"] == [4, 16]
    assert made["settings"]["tiles"] == [2, 16]
    assert made["settings"]["target"] == "gauss"
    cells = [(row["what"], row["chains"]) for row in made["rows"]]
    limits = [(MATRIX, None), (MEMORY, None), (TRANSCENDENTAL, None)]
    assert cells == [*limits, ("draws", 4), ("draws", 16), ("tile 2", 16), ("tile 16", 16), ("one device", 16)]
    assert all(row["least"] <= row["rate"] <= row["most"] for row in made["rows"])
    shares = [row["shares"] for row in made["rows"] if row["what"] == "draws"]
    assert all(set(share) == {MATRIX, MEMORY, TRANSCENDENTAL} for share in shares)
    assert {"machine", "versions", "seed", "commit", "date", "operations", "bound", "knee"} <= set(made)
    assert {"recommended_chains", "recommended_tile", "all_devices_to_one"} <= set(made)
    assert "gradients/s" in out
    assert max(map(len, out.splitlines())) <= 100 + len(str(folder))


def test_device_prints_json_alone(command, models):
    options = ["--chains", "4", "--tiles", "4", "--repeats", 1, "--seconds", 0.001, "--json"]
    code, out, _ = command("bench", "device", f"{models}:model", *options)
    assert code == 0
    assert json.loads(out)["recommended_chains"] is None


def test_chapter_measures_tuned_samplers_beside_what_was_published(command, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    gauss = shoal.Model(params={"x": shoal.real(2)}, log_density=lambda p: -0.5 * (p["x"] ** 2).sum(), name="gauss")
    monkeypatch.setattr("shoal.cli.targets.resolve", lambda text: gauss)
    monkeypatch.setattr(chapter, "CHAINS", (4, 64, 256))
    monkeypatch.setattr(chapter, "WARMUP", 50)
    monkeypatch.setattr(chapter, "MOST", 20)
    monkeypatch.setattr(chapter, "SAMPLERS", {"HMC": shoal.ChEES()})
    code, out, err = command("bench", "chapter", "--max-chains", 64, "--out", tmp_path)
    assert code == 0, err
    made = json.loads((tmp_path / "chapter.json").read_text())
    assert [(row["what"], row["chains"], row["draws"]) for row in made["rows"]] == [("HMC", 4, 20), ("HMC", 64, 20)]
    assert all(0 < row["ess_worst"] <= row["ess_mean"] for row in made["rows"])
    assert made["rows"][0]["rate"] == pytest.approx(made["rows"][0]["ess_worst"] / made["rows"][0]["seconds"])
    assert {"10,017", "3,731"} <= set(out.split())
    assert "could not be confirmed" in " ".join(out.split())
    assert (tmp_path / "chapter.png").exists()


def test_the_cpu_beside_an_accelerator_is_measured_by_another_process(monkeypatch):
    asked = {}

    def run(words, **options):
        asked.update(options, words=words)
        return subprocess.CompletedProcess(words, 0, stdout=json.dumps({"rows": [1]}))

    monkeypatch.setattr(subprocess, "run", run)
    assert chapter.on_cpu(3, 64) == [1]
    assert asked["words"][1:] == ["-m", "shoal", "bench", "chapter", "--json", "--seed", "3", "--max-chains", "64"]
    assert asked["env"]["JAX_PLATFORMS"] == "cpu"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["device", "breast_cancr"], "Did you mean breast_cancer"),
        (["device", "eight_schools", "--chains", "0"], "expected whole numbers from 1 on"),
        (["device", "eight_schools", "--chains", "4,x"], "expected whole numbers from 1 on"),
        (["device", "eight_schools", "--tiles", ""], "expected whole numbers from 1 on"),
        (["device", "eight_schools", "--repeats", "0"], "--repeats"),
        (["chapter", "--max-chains", "0"], "--max-chains"),
        (["compare", "one.json"], "B.json"),
        (["--compare", "one.json", "two.json"], "'one.json' cannot be read"),
        (["--compare", "a", "b", "device"], "--compare stands alone"),
    ],
)
def test_what_cannot_be_is_refused_at_the_door(command, words, said):
    code, _, err = command("bench", *words)
    assert code == 2
    assert said in " ".join(err.split())


def test_a_place_that_cannot_be_written_is_refused_before_measuring(command, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("in the way")
    for name in ("device", "chapter", "peers"):
        code, _, err = command("bench", name, "--out", tmp_path / "file" / "below")
        assert code == 2
        assert "cannot be written" in " ".join(err.split())


def test_a_model_that_cannot_be_sampled_is_told_of(command, models):
    code, _, err = command("bench", "device", f"{models}:nowhere", "--chains", "4")
    assert code == 2
    assert "cannot be sampled" in " ".join(err.split())


# Comparing


def test_rows_of_two_files_are_matched_by_what_and_chains():
    after = measured()
    after["rows"] = [{**after["rows"][1], "rate": 2.5e6}, {**after["rows"][1], "chains": 128}]
    assert [(match.what, match.chains, match.ratio) for match in matches(measured(), after)] == [("draws", 64, 2.5)]


def test_what_differs_is_told_and_what_does_not_is_not():
    after = measured(versions={"jax": "2"}, settings={"chains": [64], "tile": 8}, commit="abc")
    after["machine"] = {"cpu": "one", "devices": [{"kind": "cpu"}]}
    assert [tuple(difference) for difference in differences(measured(), after)] == [
        ("machine: devices", "2 × cpu", "cpu"),
        ("versions: jax", "1", "2"),
        ("settings: tile", "-", "8"),
        ("commit", "-", "abc"),
    ]
    assert differences(measured(), measured()) == []


@pytest.mark.parametrize("words", [["compare"], ["--compare"]])
def test_compare_prints_ratios_and_differences(command, tmp_path, words):
    after = measured(seed=1)
    after["rows"][1]["rate"] = 3e6
    files = written(tmp_path, "a.json", measured()), written(tmp_path, "b.json", after)
    code, out, _ = command("bench", *words, *files)
    assert code == 0
    assert "draws gradients/s 64 1,000,000 3,000,000 3.00" in " ".join(out.split())
    assert "seed 0 1" in " ".join(out.split())
    _, out, _ = command("bench", *words, files[0], files[0])
    assert "are the same" in " ".join(out.split())


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (measured(benchmark="chapter"), "first file is of shoal bench device, the second of shoal bench chapter"),
        (measured(rows=[]), "share no row"),
        ({"rows": []}, "is JSON, but no benchmark"),
        ([1], "is JSON, but no benchmark"),
    ],
)
def test_files_that_cannot_be_compared_are_refused_in_words(command, tmp_path, other, said):
    code, _, err = command(
        "bench", "--compare", written(tmp_path, "a.json", measured()), written(tmp_path, "b.json", other)
    )
    assert code == 2
    assert said in " ".join(err.split())


def test_a_file_that_is_no_json_is_refused_in_words(command, tmp_path):
    (tmp_path / "b.json").write_text("no")
    code, _, err = command("bench", "--compare", written(tmp_path, "a.json", measured()), tmp_path / "b.json")
    assert code == 2
    assert "is not JSON" in " ".join(err.split())
