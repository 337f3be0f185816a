PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# What squawk advises for an application's migrations: install sets its timeouts itself, the tables
# of yoyo are as yoyo makes them, and what is dropped is the log's own.
STYLE := require-lock-timeout,require-statement-timeout,require-concurrent-index-creation,prefer-text-field,prefer-timestamp-tz,prefer-bigint-over-int,ban-drop-type

.DEFAULT_GOAL := help

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# What pip says of newer versions of itself is left out.
PIP := -m pip install --quiet --disable-pip-version-check

$(BIN)/auditdb: pyproject.toml requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\\]$$/p' requirements-dev.txt > $(VENV)/uv.txt
	$(BIN)/python $(PIP) --require-hashes -r $(VENV)/uv.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements-dev.txt
	$(BIN)/python $(PIP) --no-deps --no-build-isolation -e .
	@touch $@

demo: $(BIN)/auditdb ## Run the main job on an embedded PostgreSQL
	$(BIN)/auditdb demo

page: $(BIN)/auditdb ## Run the demo and show its log in a browser
	$(BIN)/auditdb demo --web

test: $(BIN)/auditdb ## Run the quick tests, or with ALL=1 every test (AUDITDB_TEST_BIN or AUDITDB_TEST_DSN: on that server)
	AUDITDB_TEST_QUICK=$(if $(ALL),,1) $(BIN)/python -m pytest -q \
		$(if $(COVERAGE),--cov=auditdb --cov-report= --cov-fail-under=0) $(if $(AUDITDB_TEST_DSN),,-n 4 --dist worksteal)

check: $(BIN)/auditdb ## Lint, type-check, and check the SQL
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/sqlfluff lint --processes 2 sql
	$(BIN)/squawk --exclude $(STYLE) sql/*.sql sql/*/*.sql
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet .github/workflows
	$(BIN)/python -m pytest -q tests/test_catalog.py tests/test_house.py

format: $(BIN)/auditdb ## Format Python and SQL
	$(BIN)/ruff format .
	$(BIN)/sqlfluff fix sql

attacks: $(BIN)/auditdb ## Run the attack suite and print attack, outcome and counts
	$(BIN)/python -m pytest tests/attacks -q -p tests.attacks.report

fuzz: $(BIN)/auditdb ## Run the long fuzz campaigns
	AUDITDB_FUZZ=100000 AUDITDB_FUZZ_STATEMENTS=10000 AUDITDB_FUZZ_CHURN=500 \
		$(BIN)/python -m pytest -q tests/fuzz tests/test_token_fuzz.py

mutants: $(BIN)/auditdb ## Break important lines one at a time: each time a test must fail
	$(BIN)/python -m tests.mutants --part $(or $(PART),1/1)

crash: $(BIN)/auditdb ## Kill server and exporter 100 times under a million transactions
	AUDITDB_CRASH_KILLS=100 AUDITDB_CRASH_TRANSACTIONS=1000000 AUDITDB_CRASH_EVENTS=1000000 \
		$(BIN)/python -m pytest -q tests/test_crash.py tests/export/test_exporter.py

tamper: $(BIN)/auditdb ## Change a sealed log 10,000 times as a superuser: each time it must be found
	AUDITDB_TAMPER=10000 $(BIN)/python -m pytest -q -s tests/evidence/test_tampering.py

bench: $(BIN)/auditdb ## Measure every chapter shortly, within 20 minutes: a report in dist/bench
	$(BIN)/python $(PIP) -e '.[bench]'
	$(BIN)/python -m benchmarks

reference: $(BIN)/auditdb ## Write what is made: docs/cli.md, kinds.md, generated.md, ocsf.md, sql.md, SQL of kinds and names, RELEASE
	$(BIN)/python -m tests.reference > docs/cli.md
	$(BIN)/python -m tests.vocabulary > sql/secrets/names.sql
	$(BIN)/python -m tests.kinds markdown > docs/kinds.md
	$(BIN)/python -m tests.kinds sql > sql/mapping/kind_rows.sql
	$(BIN)/python -m tests.generated > docs/generated.md
	$(BIN)/python -m tests.ocsf > docs/ocsf.md
	$(BIN)/python -m tests.sql_reference > docs/sql.md
	$(BIN)/python -m tests.release

docs: $(BIN)/auditdb ## Build the documentation as a site, in dist/site; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

coverage: $(BIN)/auditdb ## Demand that the runs of COVERAGE=1 make test ALL=1 ran nearly all of the Python
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered

lock: $(BIN)/auditdb ## Write requirements-dev.txt: the newest development tools, each with its hashes
	$(BIN)/uv pip compile -q pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-header --upgrade -o requirements-dev.txt

# RESOLUTION=highest takes the newest that pyproject.toml allows, which may be newer than requirements-dev.txt.
RESOLUTION ?= lowest-direct
dependencies: $(BIN)/auditdb ## Run the test suite with the lowest versions that the library allows
	$(BIN)/uv venv -q --clear --python $(BIN)/python dist/dependencies
	$(BIN)/uv pip compile -q pyproject.toml --extra alembic --extra archive --extra celery --extra django --extra embedded \
		--extra export --extra seal --extra web --resolution $(RESOLUTION) -o dist/dependencies/versions.txt
	$(BIN)/uv pip install -q --python dist/dependencies --overrides dist/dependencies/versions.txt -e '.[dev]'
	dist/dependencies/bin/python -m pytest -q -n 4 --dist worksteal

dist: $(BIN)/auditdb ## Build wheel, source distribution and bill of materials, in dist, and use them
	rm -rf dist/auditdb* dist/installed
	$(BIN)/python -m hatchling build
	$(PYTHON) -m venv dist/installed
	dist/installed/bin/python $(PIP) dist/auditdb-*.tar.gz
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-file dist/auditdb.cdx.json dist/installed
	dist/installed/bin/python $(PIP) --force-reinstall --no-deps dist/auditdb-*.whl
	dist/installed/bin/python $(PIP) 'auditdb[embedded]'
	cd dist && installed/bin/auditdb demo > /dev/null
	rm -rf dist/installed

clean: ## Remove what the other targets made
	rm -rf $(VENV) .coverage .coverage.* .mypy_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help demo page test check format attacks fuzz mutants crash tamper bench reference docs coverage lock \
	dependencies dist clean
