.PHONY: check lint types test test-slow generated format benchmarks

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

benchmarks:  ## DATA=cifar10_train.parquet PHOTOS=folder [PEERS=python with lightly and lightly-train]; an hour, alone on a machine
	python benchmarks/speed/measure.py --data $(DATA) $(if $(PEERS),--peers-python $(PEERS))
	python benchmarks/views_time.py --photos $(PHOTOS)
	python benchmarks/step_pieces.py
	python benchmarks/channels_last.py
	python benchmarks/step_overhead.py --recipe disco_effb0.mocov2_cifar10
	python benchmarks/step_overhead.py
	python benchmarks/rows_scale.py
	python benchmarks/startup.py
	pytest -n 0 -m slow -s tests/test_plan_memory.py
