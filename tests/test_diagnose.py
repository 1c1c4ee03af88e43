"""`shoal diagnose`, and the pictures of a report that go with findings."""

import json
from pathlib import Path

import numpy as np
import pytest

from shoal.cli import main
from shoal.diagnostics.verdict import judge
from shoal.report.overview import overview
from shoal.report.suspects import suspects, where_to_look, worst_suspects
from shoal.results.folds import Folds
from shoal.results.moments import COORDINATES, Moments
from shoal.results.result import Result
from shoal.results.store import Header, ZarrDraws
from simulated import result
from test_report import Page
from test_trouble import both_ends, cauchy, healthy, neck, random_walk, stretch, two_modes

pytest.importorskip("click")
pytest.importorskip("rich")


def run_of(make, **changes: object) -> Result:
    draws, statistics, ids = make()
    return result(
        draws=draws, sample_stats=statistics, superchain=ids, parameters=("tau", "theta"), dims={}, coords={}, **changes
    )


def kept_moments(make) -> Result:
    """The same run, of which moments are kept."""
    draws, statistics, ids = make()
    folds = Folds.of(draws, statistics, ids)
    folds.update(draws, statistics)
    return Result(draws={}, sample_stats={}, superchain=ids, parameters=("tau", "theta"), moments=Moments(folds))


@pytest.fixture
def diagnose(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Save a run and have it diagnosed: exit code and what is printed."""
    pytest.importorskip("zarr")
    monkeypatch.setenv("COLUMNS", "100")

    def run(some: Result, *options: str) -> tuple[int, str]:
        some.save(tmp_path / "run")
        code = main(["diagnose", str(tmp_path / "run"), *options])
        return code, capsys.readouterr().out

    return run


def test_the_verdict_comes_first_then_findings_then_numbers_then_where_to_look(diagnose) -> None:
    some = run_of(two_modes)
    code, out = diagnose(some)
    assert code == 3
    lines = out.splitlines()
    assert lines[0] == "Not converged, for one reason."
    assert lines[2] == "! r hat  tau"
    said = " ".join(out.split())
    (finding,) = some.findings
    places = [said.index(words) for words in (finding.words, finding.remedy, "nested R-hat ESS bulk", "tau 1.484")]
    assert places == sorted(places)
    assert lines[-2].split(None, 1) == ["r_hat", 'result.draws["tau"][:, :]']
    assert lines[-1].startswith("pictures    shoal report ")


def test_a_run_that_converged(diagnose) -> None:
    code, out = diagnose(run_of(healthy), "--limit", "2")
    assert code == 0
    assert out.startswith("Converged: at least ")
    assert "3 more: shoal diagnose" in out
    assert "look " not in out


def test_what_is_not_in_the_way_is_said_so(diagnose) -> None:
    code, out = diagnose(run_of(cauchy))
    assert code == 0
    assert "· heavy tail  tau  does not stand in the way" in out


def test_an_interrupted_run(diagnose) -> None:
    code, out = diagnose(run_of(two_modes, interrupted=True))
    assert code == 3
    assert out.startswith("Interrupted after 400 draws of each chain, and not converged")


def test_a_run_that_is_under_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("zarr")
    draws, statistics, ids = two_modes()
    disk = ZarrDraws(tmp_path / "run", 400, Header(superchain=ids, parameters=("tau", "theta")))
    part = slice(0, 100)
    disk.append(*({name: array[:, part] for name, array in group.items()} for group in (draws, statistics)))
    assert main(["diagnose", str(tmp_path / "run")]) == 3
    said = capsys.readouterr().out
    assert said.startswith("Interrupted after 100 draws of each chain")
    assert "12 around 0 and 4 around 6" in " ".join(said.split())


def test_json(diagnose) -> None:
    some = run_of(random_walk)
    code, out = diagnose(some, "--json", "--limit", "3")
    found = json.loads(out)
    assert code == 3
    assert found["converged"] is False
    assert [finding["kind"] for finding in found["findings"]] == [finding.kind for finding in some.findings]
    first = found["worst"][0]
    assert len(found["worst"]) == 3
    assert first["parameter"] == "theta[0]"
    assert first["r_hat_nested"] > 1.01
    assert first["drift"] > 0.1
    assert found["worst"][2]["drift"] == 0
    assert first["mcse_over_sd"] == pytest.approx(first["mcse_mean"] / some.draws["theta"][..., 0].std(), rel=1e-3)
    assert {"kind": "improper", "where": "theta[0]", "code": 'result.draws["theta"][:, :, 0]'} in found["look"]


@pytest.mark.parametrize("make", [neck, two_modes, random_walk, lambda: stretch(120, (5, 9))])
def test_the_code_that_is_shown_has_the_draws(make) -> None:
    for some in (run_of(make), kept_moments(make)):
        looks = where_to_look(some, overview(some))
        assert looks
        for look in looks:
            found = eval(look.code, {"result": some})
            assert np.shape(found)[0] > 0


def test_a_stretch_is_shown_by_its_chains() -> None:
    some = run_of(lambda: stretch(120, (5, 9)))
    (look,) = where_to_look(some, overview(some))
    assert look.code == 'result.sample_stats["lp"][[5, 9]]'


@pytest.mark.parametrize("make", [healthy, two_modes, neck])
def test_runs_that_keep_moments_are_diagnosed_alike(diagnose, make) -> None:
    code, _ = diagnose(kept_moments(make))
    assert code == (3 if any(finding.blocking for finding in judge(*make())) else 0)
    every, some = run_of(make), kept_moments(make)
    nested = [[suspect.nested for suspect in suspects(run, overview(run))] for run in (every, some)]
    np.testing.assert_array_equal(*nested)


def test_a_run_that_keeps_next_to_nothing() -> None:
    _, statistics, ids = healthy()
    folds = Folds.of({}, statistics, ids)
    folds.update({}, statistics)
    columns = ("mean", "sd", "mcse_mean", "ess_bulk", "ess_tail", "r_hat")
    coordinates = {name: np.array([1.0, 2.0]) for name in columns}
    some = Result(draws={}, sample_stats={}, superchain=ids, moments=Moments(folds, coordinates), judged=())
    seen = overview(some)
    found = worst_suspects(suspects(some, seen), seen)
    assert [suspect.row.variable for suspect in found] == [COORDINATES, COORDINATES]
    assert np.isnan([suspect.nested for suspect in found]).all()
    assert where_to_look(some, seen) == []


def test_a_run_at_a_url(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    fsspec = pytest.importorskip("fsspec")
    run_of(two_modes).save(tmp_path / "run")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "run"), "/diagnosed/run", recursive=True)
    try:
        assert main(["diagnose", "memory://diagnosed/run"]) == 3
        said = capsys.readouterr().out
        assert said.startswith("Not converged")
        assert "pictures    shoal report memory://diagnosed/run" in said
    finally:
        memory.rm("/diagnosed", recursive=True)


def test_no_run_is_the_callers_to_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(tmp_path)]) == 2
    assert "Error" in capsys.readouterr().err


# Pictures


@pytest.fixture
def page():
    pytest.importorskip("matplotlib")
    from shoal.report.page import page

    return page


def test_what_findings_name_is_drawn_first(page) -> None:
    some = run_of(two_modes)
    text = page(some)
    assert 'aria-label="Paths, ranks, means of tau, ' in text
    assert 'aria-label="Nested R-hat and effective draws of tau, ' in text
    assert "Where it diverges" not in Page(text).text
    assert Page(text).open == []


@pytest.mark.parametrize("make", [run_of, kept_moments], ids=["draws", "moments"])
def test_where_it_diverges_is_drawn(page, make) -> None:
    text = page(make(neck))
    assert 'aria-label="Divergent draws by tau and log density"' in text
    assert 'aria-label="Paths, ranks, means of tau, ' in text
    assert "Where it diverges" in Page(text).text
    assert "http" not in text.replace("data:image/png", "")


def test_two_numbers_that_tell_are_drawn_against_each_other() -> None:
    pytest.importorskip("matplotlib")
    from shoal.report.course import telling

    some = run_of(both_ends)
    lower = some.draws["theta"][..., 2] < -2
    some.sample_stats["diverging"][...] = lower & (some.draws["tau"] > 0.7)
    assert [axis.label for axis in telling(some)] == ["theta[2]", "tau"]
    np.testing.assert_array_equal(telling(some)[0].values, some.draws["theta"][..., 2])
    assert telling(run_of(healthy)) == []
    # There is nothing else to draw it against.
    lone = run_of(neck)
    lone.sample_stats["lp"][0, 0] = np.nan
    assert telling(lone) == []


def test_numbers_along_the_run_end_with_those_of_the_verdict() -> None:
    pytest.importorskip("matplotlib")
    from shoal.report.course import along

    some = run_of(random_walk)
    seen = along(some.draws["theta"][..., 0], some.superchain)
    every = {suspect.row.label: suspect for suspect in suspects(some, overview(some))}
    assert seen.draws[0] == 8
    assert seen.draws[-1] == 400
    assert np.diff(np.log(seen.draws)).std() < 0.05
    assert seen.nested[-1] == every["theta[0]"].nested
    # A walk is worth less the longer it is.
    assert seen.ess[-1] < seen.ess.max() / 2
    assert len(along(some.draws["tau"][:, :3], some.superchain).draws) == 1
