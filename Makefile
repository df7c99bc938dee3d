.PHONY: check lint types test test-slow generated format

check: lint types generated test  ## all that CI runs, but for the wheel

lint:
	ruff check .
	ruff format --check .

format:
	ruff check --fix .
	ruff format .

types:
	mypy

generated:  ## model cards and the README's table against the catalog
	disco-zoo card --all --check

test:
	pytest

test-slow:
	pytest -m "slow or not slow"
