"""Run configs/inference.json in a process that has none of the optional packages."""

import importlib.machinery
import runpy
import sys

ABSENT = ("accelerate", "bitsandbytes", "highdicom", "mlflow", "monailabel", "peft")
find = importlib.machinery.PathFinder.find_spec


def find_others(name, path=None, target=None):
    return None if name.split(".")[0] in ABSENT else find(name, path, target)


importlib.machinery.PathFinder.find_spec = find_others
runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
assert not {name.split(".")[0] for name in sys.modules} & set(ABSENT)
