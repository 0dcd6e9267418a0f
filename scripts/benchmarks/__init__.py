"""The comparisons of ``scripts/benchmark.py``, a module each."""
