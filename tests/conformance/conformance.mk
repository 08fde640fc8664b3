# The conformance suite's runner in C: public headers and the shared library, nothing else. Included by the Makefile.
CONFORMANCE_OBJ := $(patsubst tests/%.c,$(B)/tests/%.o,$(sort $(wildcard tests/conformance/*.c)))
$(B)/conformance/conformance: $(CONFORMANCE_OBJ) $(B)/libbusway.so
	@mkdir -p $(@D)
	$(CC) -pthread $(LDFLAGS_$(VARIANT)) $(CONFORMANCE_OBJ) -L$(B) -lbusway -Wl,-rpath,'$$ORIGIN/..' -ljansson -o $@

integration-bin: $(B)/conformance/conformance

# make conformance URL=… TRANSPORT=… ONLY=…: by hand, on any bus.
.PHONY: conformance
conformance: all $(B)/conformance/conformance
	@BUSWAYD=$(CURDIR)/$(B)/buswayd $(B)/conformance/conformance $(if $(TRANSPORT),--transport $(TRANSPORT)) $(if $(ONLY),--only '$(ONLY)') $(URL)

# make test-conformance: as a part of `make test`, alone.
.PHONY: test-conformance conformance-mutants
test-conformance: test-deps
	@TEST_ONLY='conformance' tests/run checks integration

# Every expectation of every scenario turned round, one at a time: none may pass. Minutes.
conformance-mutants: all $(B)/conformance/conformance
	@rm -rf $(B)/conformance/mutants && tests/conformance/mutate.py tests/conformance/scenarios $(B)/conformance/mutants --all
	@cp tests/conformance/capabilities.json $(B)/conformance/
	@BUSWAYD=$(CURDIR)/$(B)/buswayd $(B)/conformance/conformance --jobs 8 --scenarios $(B)/conformance/mutants >$(B)/conformance/mutants.log; \
	    tail -1 $(B)/conformance/mutants.log; ! grep -E '^ok ' $(B)/conformance/mutants.log
