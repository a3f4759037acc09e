"""What all tests share: a clean environment and one thread a process."""

import os
import signal

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path_factory):
    """No test reads the user's own settings or runs."""
    own = [name for name in os.environ if name.startswith("OMMA_DATA_")]
    for name in (*own, "OMMA_RUNS", "APPDATA", "RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "no-user-settings"))
