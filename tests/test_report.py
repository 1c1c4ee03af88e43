"""The report: one file that stands alone, says the verdict first, and survives every kind of run."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from shoal.diagnostics.findings import Finding
from shoal.report.numbers import aligned, error_of, estimate, ratio
from shoal.report.overview import Row, overview, variables, worst_first
from shoal.results.result import Gradients, Result, Timing

BAD = Finding("r_hat", "tau", 1.3, "Superchains disagree about <tau>.", "Warm up longer & look again.")
NOTE = Finding("starts redrawn", "starts", 2.0, "Two starts were redrawn.", "", blocking=False)


def result(chains: int = 32, length: int = 60, blocking: bool = False, **changes: object) -> Result:
    rng = np.random.default_rng(0)
    shape = (chains, length)
    fields: dict[str, object] = {
        "draws": {"beta": rng.normal(size=(*shape, 3)), "tau": rng.gamma(2.0, size=shape)},
        "sample_stats": {
            "acceptance_rate": rng.uniform(0.5, 1, shape),
            "diverging": rng.uniform(size=shape) < 0.01,
            "energy_error": rng.normal(size=shape),
            "n_steps": rng.integers(1, 30, shape),
            "step_size": np.full(shape, 0.1),
            "lp": rng.normal(size=shape),
        },
        "superchain": np.arange(chains) % max(chains // 4, 1),
        "parameters": ("tau", "beta"),
        "dims": {"beta": ("column",)},
        "coords": {"column": ["radius", "<b>texture</b>", "area"]},
        "timing": Timing(3.0, 2.0, 1.0),
        "gradients": Gradients(100_000, 412_345),
        "tuning": {"step_size": np.array(0.1), "metric.scale": np.ones(4)},
        "settings": {"model": "toy", "dim": 4, "sampler": "chees", "precision": "float32", "num_warmup": 50},
        "versions": {"shoal": "0.1.0", "jax": "0.12"},
        "judged": (BAD, NOTE) if blocking else (NOTE,),
    }
    return Result(**{**fields, **changes})  # pyright: ignore


class Page(HTMLParser):
    """What a page names, says and draws."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            value = value or ""
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                self.references.append(value)
            self.references += re.findall(r"url\(([^)]*)\)", value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.references += re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", data)  # pyright: ignore
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def write(tmp_path: Path):
    pytest.importorskip("matplotlib")
    from shoal.report import write

    def written(some: Result) -> str:
        return write(some, tmp_path / "report.html").read_text(encoding="utf-8")

    return written


@pytest.fixture(scope="module")
def good() -> str:
    """The page of an ordinary run that converged."""
    pytest.importorskip("matplotlib")
    from shoal.report.page import page

    return page(result())


@pytest.fixture(scope="module")
def bad() -> str:
    """The page of a run with a finding that blocks."""
    pytest.importorskip("matplotlib")
    from shoal.report.page import page

    return page(result(blocking=True))


def test_it_stands_alone_and_is_well_formed(good: str) -> None:
    page = Page(good)
    assert page.open == []
    assert page.references
    for reference in page.references:
        assert reference.startswith(("#", "data:image/png;base64,")), reference[:80]
    assert "http" not in re.sub(r"base64,[^\"]*", "", good)
    assert not {"link", "iframe", "object", "img"} & set(page.tags)
    assert len(good) < 1_500_000


def test_it_says_the_verdict_first_and_every_finding(good: str, bad: str) -> None:
    said = Page(bad).text
    assert said.index("Not converged, for one reason.") < said.index("chains × draws")
    assert BAD.words in said
    assert BAD.remedy in said
    assert NOTE.words in said
    said = Page(good).text
    assert "Converged: at least" in said
    assert "412 k" in said
    for heading in ("Summary", "Every number", "How the chains moved", "Settings", "Tuned to", "Versions"):
        assert heading in said


def test_names_are_escaped(write) -> None:
    text = write(result(settings={"model": "<script>alert(1)</script>"}))
    assert "<script>alert" not in text
    assert "<b>texture" not in text
    assert "beta[<b>texture</b>]" in Page(text).text


def test_the_table_has_a_row_for_every_number_and_can_be_sorted(good: str) -> None:
    body = good[good.index("<tbody>") : good.index("</tbody>")]
    assert body.count("<tr>") == 4
    assert sorted(re.findall(r'<th scope="row" data-v="(\d+)"', body)) == ["0", "1", "2", "3"]


def test_very_many_numbers_are_cut_to_the_worst(write) -> None:
    rng = np.random.default_rng(1)
    text = write(result(16, 20, draws={"x": rng.normal(size=(16, 20, 700))}, parameters=("x",), dims={}, coords={}))
    assert text[text.index("<tbody>") : text.index("</tbody>")].count("<tr>") == 500
    assert "200 more" in text


@pytest.mark.parametrize(
    "some",
    [
        lambda: result(4, 8),
        lambda: result(600, 5, superchain=np.arange(600)),
        lambda: result(draws={"c": np.zeros((32, 60))}, parameters=("c",)),
        lambda: result(draws={"n": np.full((32, 60), np.nan)}, parameters=("n",)),
        lambda: result(sample_stats={}, timing=Timing(), gradients=Gradients(), tuning={}, settings={}, versions={}),
        lambda: result(interrupted=True, blocking=True),
        lambda: result(sample_stats={"energy_error": np.full((32, 60), np.inf), "lp": np.full((32, 60), np.nan)}),
        lambda: result(draws={}, sample_stats={}, parameters=(), judged=(BAD,)),
    ],
    ids=["four chains", "many superchains", "constant", "nan", "bare", "interrupted", "not finite", "empty"],
)
def test_every_kind_of_run_has_a_page(write, some) -> None:
    assert Page(write(some())).open == []


def test_the_users_settings_of_matplotlib_stay(write) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    before = dict(matplotlib.rcParams)
    write(result(1, 8))
    assert dict(matplotlib.rcParams) == before


def test_a_failure_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shoal import report

    (tmp_path / "report.html").write_text("before")
    monkeypatch.setattr("shoal.report.page.page", lambda some: "after")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        report.write(result(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_without_matplotlib_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from shoal.report import write

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"shoal report needs the package 'matplotlib'.*shoal\[report\]"):
        write(result(), tmp_path / "report.html")


def test_the_worst_come_first_and_constants_last() -> None:
    nan = float("nan")
    good = Row("good", "x", 0, 0.0, 1.0, 0.1, 5000.0, 4000.0, 1.0)
    poor = Row("poor", "x", 1, 0.0, 1.0, 0.1, 5000.0, 90.0, 1.0)
    lost = Row("lost", "x", 2, nan, nan, nan, nan, nan, nan)
    constant = Row("constant", "x", 3, 2.0, 0.0, 0.0, nan, nan, nan)
    assert [row.label for row in worst_first([constant, good, lost, poor])] == [
        "lost",
        "poor",
        "good",
        "constant",
    ]


def test_rows_follow_the_model() -> None:
    some = result()
    assert variables(some) == ["tau", "beta"]
    assert [row.label for row in overview(some).rows] == [
        "tau",
        "beta[radius]",
        "beta[<b>texture</b>]",
        "beta[area]",
    ]


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (0.12345, 0.0021, "0.1235"),
        (123.456, 5.6, "123.5"),
        (12345.6, 56.0, "12,346"),
        (3.0, float("nan"), "3.000"),
        (0.0, 0.0, "0.0"),
        (2.5e9, 1e6, "2.5e+09"),
        (float("nan"), 1.0, "-"),
    ],
)
def test_estimates_end_where_their_error_begins(value: float, error: float, words: str) -> None:
    assert estimate(value, error) == words


def test_numbers_stand_under_each_other() -> None:
    assert aligned(["1.25", "10.5", "300", "-"]) == ["1.25", "10.5 ", "300   ", "-   "]
    assert aligned(["12,817", "9"]) == ["12,817", "9"]
    assert [ratio(1.00049), ratio(1234.5), error_of(0.00213), error_of(3e-9)] == [
        "1.000",
        "1.23e+03",
        "0.0021",
        "3.0e-09",
    ]
