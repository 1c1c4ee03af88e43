"""Progress: what is shown where, how numbers read, and that a broken display never reaches the sampler."""

import io
import sys
import types

import pytest

from shoal import progress as module
from shoal.progress import ChunkReport, PlainDisplay, clock, human, notebook_page, progress


def report(phase: str = "sampling", done: int = 50, total: int = 100, **changes: object) -> ChunkReport:
    first = ChunkReport(phase, done, total, 128, 0.651, 2, 1_000_000, 2.0, 1.0213)
    return first._replace(**changes)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0"),
        (3.14159, "3.1"),
        (412, "412"),
        (999.4, "999"),
        (999.6, "1.00 k"),
        (1234, "1.23 k"),
        (99_960, "100 k"),
        (412_345, "412 k"),
        (999_600, "1.00 M"),
        (12_345_678, "12.3 M"),
        (5.2e9, "5.20 G"),
        (float("nan"), "-"),
        (float("inf"), "-"),
    ],
)
def test_counts_have_three_digits(number: float, words: str) -> None:
    assert human(number) == words


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "0:00"), (59.6, "1:00"), (75, "1:15"), (3725, "1:02:05")])
def test_durations(seconds: float, words: str) -> None:
    assert clock(seconds) == words


def test_a_log_gets_few_lines_and_the_end_of_each_phase() -> None:
    stream = io.StringIO()
    display = PlainDisplay(stream, every=3600)
    for done in range(1, 11):
        display.show(report("warmup", done, 10, r_hat=None))
    for done in range(1, 11):
        display.show(report("sampling", done, 20))
    display.close()
    lines = stream.getvalue().splitlines()
    assert [line.split()[:2] for line in lines] == [["warmup", "10/10"], ["sampling", "10/20"]]
    assert "done in 0:02" in lines[0]
    for words in (
        "128 chains",
        "acceptance 0.65",
        "divergences 2",
        "500 k gradients/s",
        "R-hat 1.021",
        "0:02 left",
    ):
        assert words in lines[1]


def test_a_phase_that_ends_early_is_told_before_the_next() -> None:
    stream = io.StringIO()
    display = PlainDisplay(stream, every=3600)
    display.show(report("warmup", 7, 10))
    display.show(report("sampling", 1, 10))
    assert stream.getvalue().startswith("warmup")
    assert "7/10" in stream.getvalue()


def test_lines_come_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    display = PlainDisplay(stream)
    for done in range(1, 100):
        now[0] = done * 0.2
        display.show(report(done=done))
    assert len(stream.getvalue().splitlines()) == 3  # 20 seconds, a line after every 5


def test_unknown_numbers_are_left_out() -> None:
    stream = io.StringIO()
    display = PlainDisplay(stream)
    display.show(report(r_hat=float("nan"), acceptance=float("nan"), seconds=0.0, done=0))
    display.close()
    assert "R-hat" not in stream.getvalue()
    assert "acceptance -" in stream.getvalue()


@pytest.mark.parametrize("width", [74, 80, 120])
def test_a_terminal_shows_both_phases_aligned(width: int) -> None:
    console = pytest.importorskip("rich.console")
    stream = io.StringIO()
    out = console.Console(file=stream, force_terminal=True, width=width, color_system=None, legacy_windows=False)
    display = module.TerminalDisplay(out)
    display.show(report("warmup", 500, 500, gradients=123_456))
    display.show(report("sampling", 400, 1000, divergences=3))
    display.close()
    plain = console.Console(file=io.StringIO(), width=width, record=True)
    plain.print(display.table())
    lines = plain.export_text().splitlines()
    assert lines[0] == "128 chains × 400 draws = 51,200 draws"
    assert all(len(line) <= width for line in lines)
    for heading, cell in (("divergent", "3"), ("gradients/s", "500 k"), ("R-hat", "1.021")):
        end = lines[1].index(heading) + len(heading)
        assert lines[3][:end].endswith(f" {cell}")
    assert lines[2].split()[:1] == ["warmup"]
    assert "400/1,000" in lines[3]


def test_a_terminal_without_rich_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", types.SimpleNamespace(isatty=lambda: True))
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert isinstance(module._pick(), PlainDisplay)


def test_a_notebook_updates_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[str] = []
    handle = types.SimpleNamespace(update=lambda page: pages.append(page))
    shown = types.SimpleNamespace(HTML=str, display=lambda page, display_id: pages.append(page) or handle)
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    with progress(True) as tell:
        tell(report("warmup", 10, 10))
        tell(report("sampling", 10, 10))
    assert "Compiling" in pages[0]
    assert 'value="10"' in pages[-1]
    assert "1.021" in pages[-1]


def test_the_notebook_page_is_balanced() -> None:
    page = notebook_page({"warmup": report("warmup"), "sampling": report()})
    for tag in ("div", "table", "tr", "td", "th", "progress", "b"):
        assert page.count(f"<{tag}>") + page.count(f"<{tag} ") == page.count(f"</{tag}>"), tag


def test_a_broken_display_never_stops_the_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        shown = 0

        def show(self, chunk: ChunkReport) -> None:
            Broken.shown += 1
            raise OSError("the terminal has gone")

        def close(self) -> None:
            raise OSError("still gone")

    monkeypatch.setattr(module, "_pick", Broken)
    with progress(True) as tell:
        tell(report())
        tell(report())
    assert Broken.shown == 1


def test_a_display_that_cannot_begin_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("no terminal")

    monkeypatch.setattr(module, "_pick", fail)
    with progress(True) as tell:
        tell(report())


def test_the_display_closes_when_the_sampler_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    display = types.SimpleNamespace(show=lambda chunk: None, close=lambda: closed.append(True))
    monkeypatch.setattr(module, "_pick", lambda: display)
    with pytest.raises(KeyboardInterrupt), progress(True):
        raise KeyboardInterrupt
    assert closed == [True]


def test_nothing_is_shown_when_not_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(False) as tell:
        tell(report(done=100))
    assert capsys.readouterr() == ("", "")
