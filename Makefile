# The same commands that .ci/run gives the machine, for people.
.PHONY: lint types test train

lint:
	ruff check .
	ruff format --check .

types:
	mypy

test:
	python -m pytest -n 2 --dist loadfile

train:
	python -m monai.bundle run training --config_file configs/train.json
