"""The command line: it starts fast, its exit codes mean what they say, and errors are paragraphs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from shoal.cli import main
from shoal.diagnostics.findings import Finding
from shoal.results.result import Result
from test_report import BAD, NOTE, result

click = pytest.importorskip("click")
pytest.importorskip("rich")

FAILED = Finding("failed", "sampling", 5.0, "Sampling failed: the disk is full.", "Free space on the disk.")
HEAVY = ["jax", "jaxlib", "numpy", "arviz", "numpyro", "pandas", "xarray", "zarr", "matplotlib", "rich", "IPython"]

MODELS = """
import numpyro
import numpyro.distributions as dist
import shoal
from shoal import Model as AModel

def density(params):
    return -0.5 * (params["x"] ** 2).sum()

model = shoal.Model(params={"x": shoal.real(2)}, log_density=density, name="gauss")
number = 3

def numpyro_model(scale=1.0):
    numpyro.sample("y", dist.Normal(0.0, scale))

def returns_model():
    return model

def returns_numpyro():
    return numpyro_model

def needs(rows):
    return model

def returns_number():
    return 3

def breaks():
    return {}["nothing"]

def nan():
    return shoal.Model(params={"x": shoal.real(2)}, log_density=lambda p: float("nan") * p["x"].sum())

def narrow():
    return shoal.Model(params={"x": shoal.real(2)}, log_density=lambda p, d: 0.0, data={"a": [float("nan")]})
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "my_models.py"
    path.write_text(MODELS)
    return path


@pytest.fixture
def shoal(capsys: pytest.CaptureFixture[str]):
    """Run a command line: its exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch):
    """Replace the sampler by one that gives a ready result; what it was asked comes back."""
    pytest.importorskip("zarr")
    from shoal import sampling

    def prepare(some: Result | BaseException) -> dict[str, object]:
        asked: dict[str, object] = {}

        def sample(model: object, **options: object) -> Result:
            asked.update(options, model=model)
            if isinstance(some, BaseException):
                raise some
            return some

        monkeypatch.setattr(sampling, "sample", sample)
        return asked

    return prepare


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A run on disk that did not converge."""
    pytest.importorskip("zarr")
    result(blocking=True).save(tmp_path / "run")
    return tmp_path / "run"


def python(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)  # pyright: ignore


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["sample", "--help"], ["bench", "device", "--help"], ["examples", "--help"], ["--version"]],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"import sys; from shoal.cli import main; assert main({arguments}) == 0; "
    seen = python("-c", code + "print(sorted(sys.modules), file=sys.stderr)")
    assert seen.returncode == 0, seen.stderr
    assert not [name for name in HEAVY if repr(name) in seen.stderr]


@pytest.mark.parametrize("command", [(), ("sample",), ("resume",), ("diagnose",), ("export",), ("bench",)])
def test_help_shows_examples_line_by_line(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "\\b" not in shown
    assert any(line.strip().startswith(" ".join(["shoal", *command])) for line in shown.splitlines()[4:])


def test_help_answers_in_half_a_second() -> None:
    def once() -> float:
        begin = time.perf_counter()
        assert python("-m", "shoal", "--help").returncode == 0
        return time.perf_counter() - begin

    once()  # Writes the byte code.
    # The fastest of some: the machine may be busy with other tests.
    assert min(once() for _ in range(5)) < 0.5


def test_examples_need_no_jax() -> None:
    seen = python("-X", "importtime", "-m", "shoal", "examples", "--json")
    names = {line.rpartition("|")[2].strip() for line in seen.stderr.splitlines()}
    assert not names & {"jax", "numpy", "numpyro", "sklearn"}
    assert {"name", "dim", "difficulty", "words"} == set(json.loads(seen.stdout)[0])


def test_examples(shoal) -> None:
    code, out, _ = shoal("examples")
    assert code == 0
    assert "breast_cancer" in out
    assert "61" in out


def test_doctor(shoal) -> None:
    code, out, _ = shoal("doctor")
    assert code == 0
    for word in ("Versions", "Devices", "Precision", "jax", "backend", "memory", "threefry"):
        assert word in out
    code, out, _ = shoal("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["jax"]["backend"] == "cpu"
    assert found["versions"]["jax"]
    assert found["machine"]["cores"] >= 1


def test_doctor_names_what_is_missing(shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    from shoal import doctor

    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "arviz" else real(name))
    code, out, _ = shoal("doctor")
    assert code == 0
    assert 'pip install "shoal[diagnostics]"' in " ".join(out.split())


def test_doctor_reports_a_jax_that_does_not_start(shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    def fail() -> None:
        raise RuntimeError("no driver")

    monkeypatch.setattr(jax, "local_devices", fail)
    code, out, _ = shoal("doctor")
    assert code == 0
    assert "no driver" in out


@pytest.mark.parametrize(
    ("some", "expected"),
    [
        (result(), 0),
        (result(blocking=True), 3),
        (result(interrupted=True), 130),
        (result(interrupted=True, blocking=True), 130),
        (result(interrupted=True, notes=(FAILED,), judged=(FAILED,)), 1),
        (result(notes=(FAILED,), judged=(FAILED,)), 1),
        (ValueError("beta: the log density is NaN at every start."), 1),
        (RuntimeError("out of memory"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=[
        "converged",
        "not converged",
        "interrupted",
        "interrupted early",
        "cut short",
        "unfinished",
        "model",
        "failure",
        "no draws",
    ],
)
def test_exit_codes(shoal, sampled, tmp_path: Path, some: Result | BaseException, expected: int) -> None:
    sampled(some)
    code, _, err = shoal("sample", "eight_schools", "--out", tmp_path / "run")
    assert code == expected
    assert "Traceback" not in err


@pytest.mark.parametrize("options", [[], ["--quiet"], ["--json"]])
def test_a_failure_is_told(shoal, sampled, tmp_path: Path, options: list[str]) -> None:
    sampled(result(interrupted=True, notes=(FAILED,), judged=(FAILED,)))
    code, out, err = shoal("sample", "eight_schools", "--out", tmp_path / "run", *options)
    assert code == 1
    assert f"{FAILED.words} {FAILED.remedy}" in " ".join((err if options else out).split())


def test_the_closing_block(shoal, sampled, tmp_path: Path) -> None:
    sampled(result(blocking=True))
    _, out, _ = shoal("sample", "eight_schools", "--out", tmp_path / "run")
    lines = out.splitlines()
    assert lines[1] == "Not converged, for one reason."
    said = " ".join(out.split())
    for words in (
        BAD.words,
        BAD.remedy,
        NOTE.words,
        "compile 3 s, warmup 2 s, sampling 1 s",
        "412 k per second",
    ):
        assert words in said
    assert lines[-1] == f"next        shoal report {tmp_path / 'run'}"


def test_not_precise_enough_is_told_apart(shoal, sampled, tmp_path: Path) -> None:
    few = Finding("ess", "tau", 90.0, "tau has 90 effective draws.", "Ask for more draws.")
    sampled(result(judged=(few,)))
    code, out, _ = shoal("sample", "eight_schools", "--out", tmp_path / "run")
    assert code == 3
    assert "Not precise enough yet" in out


def test_options_arrive(shoal, sampled, models: Path, tmp_path: Path) -> None:
    asked = sampled(result())
    options = "--num-chains 64 --num-warmup 0 --num-samples 7 --seed 5 --precision float64 --tile 8 --save-warmup"
    hmc = "--sampler hmc --set step_size=0.03 --set num_steps=20"
    code, _, _ = shoal(
        "sample", f"{models}:model", "--out", tmp_path / "run", *options.split(), *hmc.split(), "--no-progress"
    )
    assert code == 0
    expected = {
        "num_chains": 64,
        "num_warmup": 0,
        "num_samples": 7,
        "seed": 5,
        "precision": "float64",
        "tile": 8,
        "save_warmup": True,
    }
    assert {name: asked[name] for name in expected} == expected
    assert asked["progress_bar"] is False
    assert asked["sampler"].settings()["num_steps"] == 20  # pyright: ignore
    assert asked["out"] == tmp_path / "run"


def test_json_and_quiet(shoal, sampled, tmp_path: Path) -> None:
    broken = {"tau": np.full((32, 60), np.nan), "x": np.random.default_rng(0).normal(size=(32, 60))}
    sampled(result(draws=broken, parameters=("tau", "x"), blocking=True))
    code, out, err = shoal("sample", "eight_schools", "--out", tmp_path / "run", "--json", "--no-progress")
    found = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert code == 3
    assert found["converged"] is False
    assert found["summary"]["tau"]["mean"] is None
    assert found["findings"][0]["remedy"] == BAD.remedy
    assert found["gradients_per_second"] == 412_345
    assert BAD.remedy in " ".join(err.split())
    code, out, err = shoal("sample", "eight_schools", "--out", tmp_path / "run", "--quiet")
    assert (code, out) == (3, "")
    assert BAD.remedy in " ".join(err.split())
    sampled(result())
    assert shoal("sample", "eight_schools", "--out", tmp_path / "run", "--quiet") == (0, "", "")


def test_draws_are_kept_without_asking(shoal, sampled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = sampled(result())
    shoal("sample", "eight_schools")
    assert Path(asked["out"]).resolve() == Path("runs/eight_schools").resolve()
    Path("runs/eight_schools").mkdir(parents=True)
    shoal("sample", "eight_schools")
    assert Path(asked["out"]).resolve() == Path("runs/eight_schools-2").resolve()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("sample", "Missing argument 'TARGET'"),
        ("sample brest_cancer", "Did you mean breast_cancer?"),
        ("sample nothing_like_it", "The examples are breast_cancer"),
        ("sample eight_schools --num-chains 0", "0 is not in the range x>=1"),
        ("sample eight_schools --num-samples -3", "-3 is not in the range"),
        ("sample eight_schools --precision half", "'half' is not one of"),
        ("sample eight_schools --sampler nut", "there are 'auto', 'chees', 'hmc'"),
        ("sample eight_schools --sampler hmc", "step_size"),
        ("sample eight_schools --set target=0.9", "target_accept"),
        ("sample eight_schools --set target_accept=2", "target_accept=2"),
        ("sample eight_schools --set target_accept", "expected FIELD=VALUE"),
        ("sample eight_schools --set max_steps=5 --set max_steps=6", "given twice"),
        ("sample eight_schools --num-warmup 0", "is tuned in warmup"),
        ("sample eight_schools --out FILE", "is a file"),
        ("sample eight_schools --out FILE/below", "cannot be written"),
        ("sample eight_schools --out RUN", "already holds a run"),
        ("sample nowhere.py:model", "There is no file 'nowhere.py'"),
        ("sample MODELS", "Say which object"),
        ("sample MODELS:modle", "Did you mean model?"),
        ("sample MODELS:number", "is no model: it is or gives int"),
        ("sample MODELS:returns_number", "is no model: it is or gives int"),
        ("sample MODELS:needs", "needs arguments (rows)"),
        ("summary nowhere", "does not exist"),
        ("summary EMPTY", "does not hold a run"),
        ("report EMPTY", "does not hold a run"),
        ("report RUN --out nowhere/report.html", "does not exist"),
        ("conquer", "No such command 'conquer'"),
    ],
)
def test_usage(shoal, sampled, models: Path, saved: Path, tmp_path: Path, arguments: str, words: str) -> None:
    sampled(result())
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    names = {"MODELS": models, "FILE": tmp_path / "file", "EMPTY": tmp_path / "empty", "RUN": saved}
    for name, path in names.items():
        arguments = arguments.replace(name, str(path))
    code, out, err = shoal(*arguments.split())
    assert (code, out) == (2, "")
    assert words in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("breaks", "failed when called in line 29: KeyError: 'nothing'"),
        ("narrow", "NaN"),
    ],
)
def test_models_that_fail_exit_with_one(shoal, models: Path, tmp_path: Path, target: str, words: str) -> None:
    pytest.importorskip("zarr")
    code, _, err = shoal("sample", f"{models}:{target}", "--out", tmp_path / "run")
    assert code == 1
    assert words in " ".join(err.split())
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_file_that_fails_says_where(shoal, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import os\n\nmodel = os.nothing\n")
    code, _, err = shoal("sample", f"{tmp_path / 'broken.py'}:model", "--out", tmp_path / "run")
    assert code == 1
    assert "in line 3: AttributeError" in " ".join(err.split())
    (tmp_path / "broken.py").write_text("model = (\n")
    code, _, err = shoal("sample", f"{tmp_path / 'broken.py'}:model", "--out", tmp_path / "run")
    assert code == 1
    assert "SyntaxError" in err


@pytest.mark.parametrize("target", ["model", "returns_model", "numpyro_model", "returns_numpyro"])
def test_targets(shoal, sampled, models: Path, tmp_path: Path, target: str) -> None:
    from shoal import Model

    asked = sampled(result())
    code, _, err = shoal("sample", f"{models}:{target}", "--out", tmp_path / "run")
    assert code == 0, err
    assert isinstance(asked["model"], Model)
    assert asked["model"].dim == (1 if "numpyro" in target else 2)


def test_tracebacks_come_when_asked(
    shoal, sampled, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled(RuntimeError("out of memory"))
    code, _, err = shoal("sample", "eight_schools", "--out", tmp_path / "run")
    assert code == 1
    assert "Error: RuntimeError: out of memory" in err
    assert "--debug" in err
    with pytest.raises(RuntimeError, match="out of memory"):
        main(["sample", "eight_schools", "--out", str(tmp_path / "run"), "--debug"])
    monkeypatch.setenv("SHOAL_DEBUG", "1")
    with pytest.raises(click.ClickException, match="KeyError: 'nothing'"):
        main(["sample", f"{models}:breaks", "--out", str(tmp_path / "run")])


def test_summary(shoal, saved: Path) -> None:
    code, out, _ = shoal("summary", saved)
    assert code == 3
    assert out.startswith("Not converged")
    assert "beta[radius]" in out
    code, out, _ = shoal("summary", saved, "--limit", 2)
    assert "2 more" in out
    code, out, _ = shoal("summary", saved, "--all")
    assert out.index("tau") < out.index("beta[radius]") < out.index("beta[area]")
    code, out, _ = shoal("summary", saved, "--json")
    assert code == 3
    assert set(json.loads(out)["summary"]["tau"]) == {
        "mean",
        "sd",
        "mcse_mean",
        "ess_bulk",
        "ess_tail",
        "r_hat",
    }


def test_report(shoal, saved: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    code, out, _ = shoal("report", saved)
    assert code == 0
    assert (saved / "report.html").read_text().startswith("<!doctype html>")
    assert "report.html" in out


def test_an_absent_package_is_named(shoal, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = shoal("report", saved)
    assert code == 1
    assert 'pip install "shoal[report]"' in " ".join(err.split())


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_keep_the_draws(models: Path, tmp_path: Path, number: int, expected: int) -> None:
    pytest.importorskip("zarr")
    out = tmp_path / "run"
    # A draw takes its time, so that there are not too many.
    slow = "--num-chains 16 --num-samples 3000 --sampler hmc --set step_size=0.01 --set num_steps=30000"
    # A shell that runs the tests in the background ignores interrupts, and its children inherit that.
    heed = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('shoal', run_name='__main__')"
    )
    command = [sys.executable, "-c", heed, "sample", f"{models}:model", "--out", str(out), *slow.split()]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(1200):
            if _committed(out) or process.poll() is not None:
                break
            time.sleep(0.1)
        assert process.poll() is None, process.communicate()
        process.send_signal(number)
        said, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == expected, err
    assert "Interrupted after" in said
    from shoal import load

    kept = load(out)
    assert kept.interrupted
    assert kept.num_draws == np.asarray(kept.draws["x"]).shape[1] > 0


def _committed(out: Path) -> bool:
    return any((out / "checkpoints").glob("draws-*.npz"))


def test_a_second_signal_is_not_swallowed(shoal, sampled, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After the first SIGTERM the default handler is back."""
    from shoal import sampling

    seen: list[object] = []

    def sample(model: object, **options: object) -> Result:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except KeyboardInterrupt:
            seen.append(signal.getsignal(signal.SIGTERM))
        return result(interrupted=True)

    monkeypatch.setattr(sampling, "sample", sample)
    before = signal.getsignal(signal.SIGTERM)
    code, _, _ = shoal("sample", "eight_schools", "--out", tmp_path / "run", "--quiet")
    assert code == 143
    assert seen == [signal.SIG_DFL]
    assert signal.getsignal(signal.SIGTERM) == before
