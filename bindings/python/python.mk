# The Python binding: built with each Python that there is, tested; measured. Included by the Makefile.

# PYTHONS: Debian's own, and the newest that is here. PYTEST_ARGS: '-k wild'.
.PHONY: test-python bench-python
test-python: all
	@PYTHONS='$(PYTHONS)' PYTEST_ARGS='$(PYTEST_ARGS)' bindings/python/tests/run
bench-python: all
	@bindings/python/bench/run $(BENCH_ARGS)
