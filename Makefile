# The same commands that .ci/run gives the machine, for people.
.PHONY: lint test train constraints

lint:
	pre-commit run --all-files

test:
	python -m pytest -n 2 --dist loadfile

train:
	python -m monai.bundle run training --config_file configs/train.json

# Pins every dependency, those of dependencies too. What is pinned stays; `rm constraints.txt` first raises everything.
constraints:
	uv pip compile --quiet --all-extras --python-version 3.11 --annotation-style line \
		--custom-compile-command "make constraints" pyproject.toml -o constraints.txt
