import os
from importlib import import_module

import pytest

from tests import processes


@pytest.mark.parametrize("name", processes.PRELOADED)
def test_what_is_imported_beforehand_is_there(name):
    """The server of processes passes over what it cannot import, and all of them would wait for it again."""
    import_module(name)


def test_a_process_has_arguments_folder_environment_and_exit_code_of_its_own(tmp_path):
    code = "import os, sys; print(sys.argv[1:], os.getcwd(), os.environ['A'], 'HOME' in os.environ); sys.exit(3)"
    done = processes.run(["-c", code, "--b", 4], tmp_path, env={"A": "a"})
    assert (done.returncode, done.stdout, done.stderr) == (3, f"['--b', '4'] {tmp_path} a False\n", "")


def test_it_has_imported_them_and_nothing_of_this_process(tmp_path):
    code = "import sys; print('monai.bundle' in sys.modules, '_pytest' in sys.modules)"
    assert processes.run(["-c", code], tmp_path, check=True).stdout == "True False\n"


def test_an_error_is_told_as_python_tells_it(tmp_path):
    done = processes.run(["-c", "raise ValueError('wrong')"], tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "Traceback (most recent call last):"
    assert done.stderr.splitlines()[-1] == "ValueError: wrong"


def test_it_may_lead_a_session(tmp_path):
    out = tmp_path / "out"
    process = processes.start(["-c", "import os; print(os.getsid(0))"], out, out, session=True)
    process.join()
    assert int(out.read_text()) == process.pid != os.getsid(0)
