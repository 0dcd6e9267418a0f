"""Every script has a test that runs it as a shell does."""

import re

from tests.conftest import ROOT

TESTS = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path.name != "test_every_script.py")
COMPARISONS = re.findall(r'^    "(\w+)": \w+,$', (ROOT / "scripts" / "benchmark.py").read_text(), re.MULTILINE)


def test_each_script_is_started_by_a_test():
    scripts = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
    assert len(scripts) > 10
    ways = [(f'"{name}"', f'import_module("{name.removesuffix(".py")}")') for name in scripts]
    assert [way for way in ways if way[0] not in TESTS and way[1] not in TESTS] == []


def test_each_benchmark_is_started_by_a_test():
    assert len(COMPARISONS) == 10
    ways = [(f'"benchmark.py", "{name}"', f"benchmarks.{name}") for name in COMPARISONS]
    assert [way for way in ways if way[0] not in TESTS and way[1] not in TESTS] == []
