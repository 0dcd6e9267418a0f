"""Puts the configs and the model card, which lie beside the package as a bundle wants them, into the wheel.

Everything else stands in pyproject.toml, which cannot join found packages with folders elsewhere.
"""

from setuptools import find_packages, setup

BESIDE = ("configs", "configs/experiments", "configs/prompts", "configs/tokenizer_tiny", "docs")
BUNDLE = {f"cleft_bundle.bundle.{folder.replace('/', '.')}": folder for folder in BESIDE}

setup(packages=[*find_packages(include=["cleft_bundle*"]), *BUNDLE], package_dir=BUNDLE)
