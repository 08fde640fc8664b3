# tests/mutants/mutants.mk: seeded bugs, each caught by a named test; see README.md.
.PHONY: mutants
mutants: test-deps
	@tests/mutants/run.py $(if $(PICK),--pick $(PICK)) $(if $(SEED),--seed $(SEED)) $(if $(JSON),--json $(JSON)) $(if $(PICK)$(MUTANT),,--progress build/mutants.json) --lanes $(or $(LANES),2) $(MUTANT)
