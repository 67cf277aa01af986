PY := .venv/bin/python

.PHONY: demo test test-all fuzz lint bench reference spark docs clean
.venv/.core: pyproject.toml
	python3 -m venv .venv && .venv/bin/pip install -q -e '.[cli,train]' && touch $@
.venv/.dev: pyproject.toml
	python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev]' && touch .venv/.core $@

demo: .venv/.core
	rm -rf demo && .venv/bin/appcadence demo --out demo
test: .venv/.dev
	HYPOTHESIS_PROFILE=short $(PY) -m pytest -n 2 --dist loadfile -m "not (slow or network or spark or browser)"
test-all: .venv/.dev
	$(PY) -m pytest -n 2 --dist loadfile
fuzz: .venv/.dev
	PYTHONPATH=tests $(PY) -m fuzz.run $(N)
lint: .venv/.dev
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/codespell && .venv/bin/mypy \
		&& .venv/bin/lint-imports
bench: .venv/.core
	$(PY) benchmarks/features.py && $(PY) benchmarks/cadence_power.py && $(PY) benchmarks/transplant.py
reference: .venv/.core
	$(PY) -m appcadence.training.reference_model src/appcadence/models/shipped
	$(PY) -m appcadence.training.weekly_reference src/appcadence/models/weekly_reference.json
spark: .venv/.dev
	$(PY) benchmarks/spark.py
docs: .venv/.core
	$(PY) docs/features.py && $(PY) docs/findings.py && $(PY) docs/api.py
clean:
	rm -rf .venv demo build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .numba_cache
