import json
import os
import signal
import subprocess
import sys

import pytest

from cleft_bundle.errors import BundleError
from cleft_bundle.locks import HOLDER, FolderLock

HOLD = """
import sys, time
from cleft_bundle.locks import FolderLock
lock = FolderLock(sys.argv[1], "train_a")
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other_process(tmp_path):
    """A process that holds the lock of a folder."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, env=os.environ)
    assert holder.stdout.readline() == b"held\n"
    yield holder
    holder.kill()
    holder.wait()


def test_a_folder_in_use_names_the_run_and_a_killed_run_leaves_no_lock(tmp_path, other_process):
    with pytest.raises(BundleError, match=f"is in use by run train_a .process {other_process.pid} on "):
        FolderLock(tmp_path, "train_b").acquire()
    assert json.loads((tmp_path / HOLDER).read_text())["run"] == "train_a"
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    lock = FolderLock(tmp_path, "train_b")
    lock.acquire()
    assert json.loads((tmp_path / HOLDER).read_text())["run"] == "train_b"
    lock.release()
    assert not (tmp_path / HOLDER).exists()


def test_runs_of_one_process_follow_each_other(tmp_path):
    first, second = FolderLock(tmp_path, "first"), FolderLock(tmp_path / "." / "", "second")
    first.acquire()
    second.acquire()
    assert json.loads((tmp_path / HOLDER).read_text())["run"] == "second"
    second.release()
    second.release()


def test_a_missing_folder_is_made(tmp_path):
    lock = FolderLock(tmp_path / "a" / "b", "run")
    lock.acquire()
    assert (tmp_path / "a" / "b").is_dir()
    lock.release()
