"""Compiled programs outlive their process, are whole or gone, and leave JAX's settings as they were."""

import os
import subprocess
import sys
from contextlib import contextmanager

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("filelock")
pytest.importorskip("platformdirs")

import shoal
from shoal import compile_cache, compiling
from shoal.compile_cache import VARIABLE, kept_programs, place, settled

HIT = "/jax/compilation_cache/cache_hits"
SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return place().folder


@contextmanager
def hits():
    """The programs that are taken from the cache meanwhile."""
    taken = []
    listen = lambda event, **facts: taken.append(event) if event == HIT else None
    jax.monitoring.register_event_listener(listen)
    try:
        yield taken
    finally:
        jax.monitoring.unregister_event_listener(listen)


def compute():
    """Compile the same program for another function, as another process would."""
    return np.asarray(jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x) + 3.0)(jnp.arange(5.0)))


def programs(folder):
    return sorted(file.name for file in folder.glob("*-cache"))


def loops(folder):
    return [name for name in programs(folder) if name.startswith("jit__advance")]


def test_what_was_compiled_is_taken_and_settings_are_left_as_they_were(folder):
    before = [getattr(jax.config, name) for name in SETTINGS]
    with kept_programs():
        first = compute()
    there = programs(folder)
    assert any(name.startswith("jit__lambda") for name in there)
    assert [getattr(jax.config, name) for name in SETTINGS] == before
    with hits() as taken:
        compute()
    assert not taken
    with kept_programs(), hits() as taken:
        second = compute()
    assert taken
    assert programs(folder) == there
    assert first.tobytes() == second.tobytes()
    assert folder.stat().st_mode & 0o077 == 0
    assert not list(folder.glob("open-*"))


def test_a_run_takes_the_programs_of_another_and_makes_the_same_draws(folder, monkeypatch):
    monkeypatch.setattr(compiling, "ready_folder", lambda: None)  # those that need not be traced: tests/test_ready.py
    model = shoal.Model(params={"x": shoal.real(3)}, log_density=lambda p: -0.5 * jnp.sum(p["x"] ** 2))
    by_hand = shoal.HMC(step_size=0.3, num_steps=5)
    asked = {"num_chains": 4, "num_samples": 20, "sampler": by_hand, "progress_bar": False}
    first = shoal.sample(model, **asked)
    there = loops(folder)
    assert there
    compiling.forget_programs()
    with hits() as taken:
        second = shoal.sample(model, **asked)
    assert len(taken) >= 4
    assert loops(folder) == there
    assert first.draws["x"].tobytes() == second.draws["x"].tobytes()


def test_runs_side_by_side_share_it(folder):
    with kept_programs():
        with kept_programs():
            pass
        compute()
    assert programs(folder)


@pytest.mark.parametrize("word", ["off", "0", "OFF"])
def test_it_can_be_switched_off(tmp_path, monkeypatch, word):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, word)
    with kept_programs():
        compute()
        assert jax.config.jax_compilation_cache_dir is None
    assert not list(tmp_path.iterdir())
    assert place().words == f"not kept: {VARIABLE}={word}"


def test_jaxs_own_settings_stay(folder, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
    try:
        with kept_programs():
            assert jax.config.jax_compilation_cache_dir == str(tmp_path / "theirs")
            assert place().folder is None
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        with kept_programs():
            assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert not folder.exists()


def test_the_usual_place_is_the_users_own(monkeypatch, tmp_path):
    import platformdirs

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)
    assert place().folder.parent == tmp_path / "shoal" / "programs"


@pytest.mark.parametrize("error", [PermissionError("no"), RuntimeError("Could not determine home directory.")])
def test_a_home_that_is_not_known_stops_nothing(monkeypatch, error):
    import platformdirs

    def fail(name):
        raise error

    monkeypatch.setenv(VARIABLE, "on")
    monkeypatch.setattr(platformdirs, "user_cache_path", fail)
    with kept_programs():
        assert jax.config.jax_compilation_cache_dir is None
    assert place() == (None, f"not kept: {error}")


def test_a_folder_that_others_may_write_to_is_not_trusted(folder):
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with kept_programs():
        assert jax.config.jax_compilation_cache_dir is None
    assert "others may write" in place().words


def test_a_disk_with_no_room_keeps_nothing(folder, monkeypatch):
    monkeypatch.setattr(compile_cache, "LEAST_ROOM", 2**62)
    with kept_programs():
        assert jax.config.jax_compilation_cache_dir is None


def test_what_is_set_meanwhile_stays(folder, tmp_path):
    try:
        with kept_programs():
            jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "theirs")
        assert jax.config.jax_compilation_cache_max_size == -1
    finally:
        jax.config.update("jax_compilation_cache_dir", None)


def test_a_passing_failure_is_no_verdict(folder, monkeypatch):
    def fail(descriptor):
        raise OSError("too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", fail)
        with kept_programs():
            assert jax.config.jax_compilation_cache_dir is None
    with kept_programs():
        assert jax.config.jax_compilation_cache_dir == str(folder)


def test_a_folder_that_cannot_be_made_stops_nothing(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    with kept_programs():
        assert compute().shape == ()


KILLED = """
import os, signal
import jax, jax.numpy as jnp
from shoal.compile_cache import kept_programs, place, settled
folder = place().folder
with kept_programs():
    jax.jit(lambda x: x + 1.0)(jnp.zeros(3))
    settled()
    jax.jit(lambda x: x * 2.0 - 1.0)(jnp.zeros(4))
    late = max(folder.glob("jit__lambda*-cache"), key=lambda file: file.stat().st_mtime_ns)
    late.write_bytes(late.read_bytes()[:20])
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_kill_cut_off_is_gone_and_the_rest_stays(folder):
    killed = subprocess.run([sys.executable, "-c", KILLED], env=os.environ, check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    before = {file.name for file in folder.glob("jit__lambda*-cache")}
    cut = {file.name for file in folder.glob("*-cache") if file.stat().st_size == 20}
    assert len(before) == 2
    assert len(cut) == 1
    with kept_programs():
        after = {file.name for file in folder.glob("jit__lambda*-cache")}
    assert after == before - cut
    assert not list(folder.glob("open-*"))


def test_the_programs_of_a_process_that_lives_stay(folder):
    with kept_programs():
        compute()
        compile_cache._clear_unfinished(folder)
        assert programs(folder)
        assert list(folder.glob("open-*"))
        settled()


def test_a_processor_whose_programs_xla_rejects_keeps_none(folder, monkeypatch):
    from jax.experimental import serialize_executable

    load = serialize_executable.deserialize_and_load

    def complain(*payload):
        os.write(2, b"E cpu_aot_loader.cc:195] Machine type used for XLA:CPU compilation doesn't match\n")
        return load(*payload)

    monkeypatch.setattr(serialize_executable, "deserialize_and_load", complain)
    with kept_programs():
        assert jax.config.jax_compilation_cache_dir is None
    assert place() == (None, f"not kept: {(folder / 'verdict').read_text()}")
    assert "44565" in place().words


def test_programs_of_another_processor_are_not_taken(folder, monkeypatch):
    monkeypatch.setattr(compile_cache.platform, "machine", lambda: "another")
    assert place().folder.name != folder.name
    assert place().folder.parent == folder.parent
