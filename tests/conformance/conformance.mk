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
