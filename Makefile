.PHONY: check docs lint types layers test test-slow coverage generated format benchmarks benchmarks-accuracy

check: lint types layers generated test  ## all that CI runs, but for the wheel

lint:
	ruff check .
	ruff format --check .

docs:  ## the site, into build/site: pip install "disco-zoo[docs]"
	mkdocs build --strict

format:
	ruff check --fix .
	ruff format .

types:
	mypy

layers:  ## which room may import from which, see pyproject.toml
	lint-imports --no-logo

generated:  ## model cards and the table of docs/zoo.md against the catalog
	disco-zoo card --all --check

test:
	pytest

test-slow:
	pytest -m "slow or not slow"

coverage:  ## share of the package's lines that the tests run, other processes that they start among them
	pytest --cov --cov-report=term:skip-covered

TYPE = Type: make $@ DATA=cifar10_train.parquet

benchmarks:  ## all speeds: DATA=cifar10_train.parquet PHOTOS=folder [PEERS=python with lightly and lightly-train]; two hours, alone on a machine
	@$(if $(and $(DATA),$(PHOTOS)),:,echo "$(TYPE) PHOTOS=folder [PEERS=peers/bin/python]" >&2; exit 2)
	python benchmarks/speed/measure.py --data $(DATA) $(if $(PEERS),--peers-python $(PEERS))
	python benchmarks/teacher_profile.py --data $(DATA)
	python benchmarks/views_time.py --photos $(PHOTOS)
	python benchmarks/step_pieces.py
	python benchmarks/channels_last.py
	python benchmarks/step_overhead.py --recipe disco_effb0.mocov2_cifar10
	python benchmarks/step_overhead.py --recipe disco_effb0.mocov2_cifar10 --workers 1
	python benchmarks/step_overhead.py
	python benchmarks/step_overhead.py --workers 1
	python benchmarks/rows_scale.py
	python benchmarks/startup.py
	python benchmarks/plan_memory.py
	pytest -n 0 -m slow -s tests/plan/test_memory.py tests/data/webdataset/test_rows_memory.py

CACHE_VIEWS = $(addprefix benchmarks/cache_views/,no_cache.yaml views_16.yaml views_8.yaml views_4.yaml views_2.yaml)

benchmarks-accuracy:  ## kNN and linear by views of a teacher's cache: DATA=cifar10_train.parquet; 1.6 hours on two cores
	@$(if $(DATA),:,echo "$(TYPE)" >&2; exit 2)
	disco-zoo compare $(CACHE_VIEWS) --data $(DATA) --seeds 0,1,2 --timing-rounds 0 --jobs 2 --workers 0 --out runs/cache_views \
	  --report benchmarks/cache_views
