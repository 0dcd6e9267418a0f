"""Run a config in a process that has none of the optional packages; behind ``--and``, again with other options.

A process each, forked before PyTorch has any threads, so that the imports, most of the time, happen once. The exit code
is that of the last one, or 9 where one before it failed.
"""

import importlib.machinery
import os
import runpy
import sys

ABSENT = ("accelerate", "bitsandbytes", "highdicom", "mlflow", "monailabel", "peft")
find = importlib.machinery.PathFinder.find_spec


def find_others(name, path=None, target=None):
    return None if name.split(".")[0] in ABSENT else find(name, path, target)


importlib.machinery.PathFinder.find_spec = find_others
import monai.bundle  # noqa: E402, F401 - without them

while "--and" in sys.argv:
    end = sys.argv.index("--and")
    if (child := os.fork()) == 0:
        sys.argv = sys.argv[:end]
        break
    if os.waitpid(child, 0)[1]:
        sys.exit(9)
    sys.argv = [sys.argv[0], *sys.argv[end + 1 :]]
runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
assert not {name.split(".")[0] for name in sys.modules} & set(ABSENT)
