PYTHON ?= python3
PY := .venv/bin/python
# A .venv of an older or vanished Python, or one that was half made, is made again whatever its stamps say.
SOUND := $(PY) -Ic 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null
NEW_ENOUGH := $(PYTHON) -c 'import sys; v = sys.version_info; v < (3, 11) and sys.exit("appcadence needs Python \
3.11 or newer, and $(PYTHON) is %d.%d: name another, such as make PYTHON=python3.12" % (v[0], v[1]))'
COMMA := ,
VENV := { $(SOUND) || { $(NEW_ENOUGH) && $(PYTHON) -m venv --clear .venv; }; }

.PHONY: demo test test-all lock sbom audit fuzz lint bench reference spark docs notebooks clean
ifneq ($(shell $(SOUND) && $(PY) -Ic 'import appcadence' 2> /dev/null && echo yes),yes)
.PHONY: .venv/.core .venv/.dev
endif
# By hash, from the lock; a Python that it was not made for takes what fits it.
LOCKED := $(PY) -Ic 'import sys; sys.exit(sys.version_info >= (3, 15))'
INSTALL = if $(LOCKED); then $(PY) -m pip install -q --require-hashes -r requirements/$(1).txt \
	&& $(PY) -m pip install -q --no-build-isolation --no-deps -e .; else $(PY) -m pip install -q -e '.[$(2)]'; fi
.venv/.core: pyproject.toml requirements/use.txt
	@$(VENV)
	$(call INSTALL,use,cli$(COMMA)train) && touch $@
.venv/.dev: pyproject.toml requirements/dev.txt
	@$(VENV)
	$(call INSTALL,dev,dev) && touch .venv/.core $@

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
	$(PY) benchmarks/make_reference.py src/appcadence/models
spark: .venv/.dev
	$(PY) benchmarks/spark.py
docs: .venv/.dev
	for page in features findings api commands; do $(PY) docs/$$page.py || exit; done
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
notebooks: .venv/.dev
	$(PY) examples/save.py
# Hashes of every package, for 3.11 to 3.14: the two commands of the README (use), and the checks (dev).
lock: .venv/.dev
	for extra in 'use --extra cli --extra train' 'dev --extra dev'; do set -- $$extra; name=$$1; shift; \
		echo 'setuptools>=77' | .venv/bin/uv pip compile pyproject.toml - $$@ --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header -q -o requirements/$$name.txt || exit; done
sbom: .venv/.dev
	.venv/bin/cyclonedx-py environment .venv --pyproject pyproject.toml --gather-license-texts \
		--output-reproducible -o sbom.json
	$(PY) -c "import importlib.metadata as m; [print(d.name, d.version, d.metadata.get('License-Expression') \
		or (d.metadata.get('License') or '-').splitlines()[0], sep='\t') for d in m.distributions()]" \
		| sort -fu > licences.tsv
audit: .venv/.dev
	@.venv/bin/pip-audit --disable-pip --strict --progress-spinner off -r requirements/use.txt 2> .venv/audit.log \
		|| { tail -n 1 .venv/audit.log; echo 'Not passed: a fault stands above, or the database (pypi.org) does' \
		'not answer for a package, and then nothing is known of it.'; exit 1; } >&2
clean:
	rm -rf .venv demo site build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .numba_cache
