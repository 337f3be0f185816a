PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What squawk advises for an application's migrations: install sets its timeouts itself, the tables
# of yoyo are as yoyo makes them, and what is dropped is the log's own.
STYLE := require-lock-timeout,require-statement-timeout,require-concurrent-index-creation,prefer-text-field,prefer-timestamp-tz,prefer-bigint-over-int,ban-drop-type

.DEFAULT_GOAL := help

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(BIN)/auditdb: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(BIN)/auditdb ## Run the main job on an embedded PostgreSQL
	$(BIN)/auditdb demo

page: $(BIN)/auditdb ## Run the demo and show its log in a browser
	$(BIN)/auditdb demo --web

test: $(BIN)/auditdb ## Run the test suite (AUDITDB_TEST_BIN or AUDITDB_TEST_DSN choose the server)
	$(BIN)/python -m pytest -q $(if $(AUDITDB_TEST_DSN),,-n 4 --dist worksteal)

check: $(BIN)/auditdb ## Lint, type-check, and check the SQL
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/sqlfluff lint --processes 2 sql
	$(BIN)/squawk --exclude $(STYLE) sql/*.sql sql/*/*.sql
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
	$(BIN)/python -m tests.mutants

crash: $(BIN)/auditdb ## Kill server and exporter 100 times under a million transactions
	AUDITDB_CRASH_KILLS=100 AUDITDB_CRASH_TRANSACTIONS=1000000 AUDITDB_CRASH_EVENTS=1000000 \
		$(BIN)/python -m pytest -q tests/test_crash.py tests/export/test_exporter.py

tamper: $(BIN)/auditdb ## Change a sealed log 10,000 times as a superuser: each time it must be found
	AUDITDB_TAMPER=10000 $(BIN)/python -m pytest -q -s tests/evidence/test_tampering.py

bench: $(BIN)/auditdb ## Measure every chapter shortly, within 20 minutes: a report in dist/bench
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
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
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

clean: ## Remove what the other targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help demo page test check format attacks fuzz mutants crash tamper bench reference docs clean
