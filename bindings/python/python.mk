# The Python binding: built with each Python that there is, tested; measured. Included by the Makefile.

# Debian's own, and the newest that is on the path (or given: PYTHONS=...).
PYTHONS ?= /usr/bin/python3 $(firstword $(foreach v,14 13 12,$(shell command -v python3.$(v) >/dev/null 2>&1 && python3.$(v) -c '' 2>/dev/null && echo python3.$(v))))
PYTEST_ARGS ?=

.PHONY: test-python bench-python
test-python: all
	@PYTHONS='$(PYTHONS)' PYTEST_ARGS='$(PYTEST_ARGS)' bindings/python/tests/run
bench-python: all
	@bindings/python/bench/run $(BENCH_ARGS)
