import dataclasses
import json
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import psutil
import pytest

from cleft_bundle.experiments.plan import Job
from cleft_bundle.experiments.running import Runner, duration
from tests import processes


@dataclasses.dataclass(frozen=True)
class Script(Job):
    """A run that is a line of Python."""

    @property
    def arguments(self):
        return ["-c", self.run]


def plan_of(folder, **scripts):
    jobs = {}
    for name, (code, *needs) in scripts.items():
        jobs[name] = Script(name, 0, code, (), {"a": name}, name, folder / name, tuple(needs), "row")
    return SimpleNamespace(jobs=jobs, places=SimpleNamespace(root=folder))


@pytest.fixture
def make_plan(tmp_path):
    return partial(plan_of, tmp_path)


def test_runs_wait_for_those_they_need_and_are_done_once(make_plan, tmp_path):
    code = "import os; open('order', 'a').write(os.path.basename('{}') + ' ')"
    plan = make_plan(a=(code.format("a"),), b=(code.format("b"), "a"), c=(code.format("c"), "a"))
    told = []
    assert Runner(plan, tell=told.append).run() == {}
    assert (tmp_path / "order").read_text() == "a b c "
    assert [line.split(":")[0] for line in told] == [f"[{n}/3] row, {name}, seed 0" for n, name in enumerate("abc", 1)]
    assert told[0].endswith(" left")
    assert not told[-1].endswith(" left")
    assert json.loads((tmp_path / "b" / "settings.json").read_text()) == {"a": "b"}
    (tmp_path / "b" / "done.json").unlink()
    (tmp_path / "b" / "left behind").write_text("x")
    assert Runner(plan, tell=told.append).run() == {}
    assert (tmp_path / "order").read_text() == "a b c b "
    assert not (tmp_path / "b" / "left behind").exists()
    assert told[3].startswith("2 of 3 runs are done already")


def test_a_run_that_fails_takes_only_those_with_it_that_need_it(make_plan, tmp_path):
    wrong = "import sys; print('error: epochs: expected more\\nlast'); sys.exit(1)"
    plan = make_plan(
        a=(wrong,), b=("pass", "a"), c=("pass", "b"), d=("pass",), e=("import os; os.kill(os.getpid(), 9)",)
    )
    failed = Runner(plan, tell=list).run()
    assert sorted(failed) == ["a", "b", "c", "e"]
    assert failed["a"] == f"row, a, seed 0: exit code 1, epochs: expected more; see {tmp_path / 'a' / 'log.txt'}"
    assert failed["b"] == "row, b, seed 0: needs row, a, seed 0, which has failed"
    assert failed["e"].startswith("row, e, seed 0: ended by signal 9; see ")
    assert plan.jobs["d"].cost() is not None
    assert plan.jobs["a"].cost() is None


def test_runs_side_by_side_share_the_cores(make_plan, monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    # each waits until the other one has begun
    code = (
        "import os, time, pathlib\nopen('{0}.begun', 'w').write(os.environ['OMP_NUM_THREADS'])\n"
        "end = time.monotonic() + 60\n"
        "while not pathlib.Path('{1}.begun').exists() and time.monotonic() < end: time.sleep(.01)\n"
        "assert pathlib.Path('{1}.begun').exists()"
    )
    plan = make_plan(a=(code.format("a", "b"),), b=(code.format("b", "a"),))
    assert Runner(plan, at_once=2, tell=list).run() == {}
    assert (tmp_path / "a.begun").read_text() == "3"


def test_memory_and_time_are_those_of_the_run_itself(make_plan):
    held = bytearray(
        1200 * 2**20
    )  # Linux counts the memory of a process that starts another one as the other one's too
    busy = "import time\nwhile time.process_time() < 1.5: pass"
    plan = make_plan(
        small=("pass",), large=("x = bytearray(1500 * 2**20)",), busy=(busy,), idle=("import time; time.sleep(2)",)
    )
    assert Runner(plan, tell=list).run() == {}
    assert held
    small, large, busy, idle = (plan.jobs[name].cost() for name in ("small", "large", "busy", "idle"))
    assert 1500 * 2**20 < large["peak_memory_bytes"] < 2000 * 2**20
    assert small["peak_memory_bytes"] < 200 * 2**20
    assert busy["cpu_seconds"] > 1.5 > idle["cpu_seconds"]


def test_a_run_ends_with_the_command_that_has_started_it(root, tmp_path):
    run = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(600)"
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.experiments.test_running import Runner, plan_of\n"
        "Runner(plan_of(Path(sys.argv[1]), a=(sys.argv[2],)), tell=list).run()"
    )
    command = processes.start(["-c", code, tmp_path, run], tmp_path / "said", tmp_path / "said", cwd=root)
    place = tmp_path / "pid"
    try:
        assert _within(60, lambda: place.is_file() and place.read_text())
        process = psutil.Process(int(place.read_text()))
    finally:
        command.kill()
        command.join()
    assert _within(60, lambda: not process.is_running())
    assert not (tmp_path / "a" / "done.json").exists()


def _within(seconds, happens):
    end = time.monotonic() + seconds
    while not (happened := happens()) and time.monotonic() < end:
        time.sleep(0.05)
    return happened


def test_what_a_run_goes_on_from_is_removed_once_it_has_ended(make_plan, tmp_path):
    code = "import pathlib; pathlib.Path('a/models/checkpoints').mkdir(parents=True); open('a/models/cleft.pt', 'w')"
    Runner(make_plan(a=(code,)), tell=list).run()
    assert [path.name for path in (tmp_path / "a" / "models").iterdir()] == ["cleft.pt"]


def test_a_run_that_was_left_alone_is_not_swept_away(make_plan, tmp_path):
    (tmp_path / "a" / "eval").mkdir(parents=True)
    code = "import sys, time; from cleft_bundle.locks import FolderLock; lock = FolderLock(sys.argv[1], 'other'); "
    code += "lock.acquire(); print(1, flush=True); time.sleep(600)"
    words = [sys.executable, "-c", code, str(tmp_path / "a" / "eval")]
    other = subprocess.Popen(words, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline()
        failed = Runner(make_plan(a=("pass",)), tell=list).run()
        assert "is in use by run other" in failed["a"]
    finally:
        other.kill()
        other.wait()
    assert Runner(make_plan(a=("pass",)), tell=list).run() == {}


@pytest.mark.parametrize(("seconds", "said"), [(40.4, "40 s"), (312, "5.2 min"), (11400, "3 h 10 min")])
def test_duration(seconds, said):
    assert duration(seconds) == said
