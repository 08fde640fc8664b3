# What the bindings share: a group of C, Python and Go, and what their memory does. Included by the Makefile.
DEMO_BINDINGS := $(B)/bindings/member $(B)/bindings/memory
$(B)/bindings/member: bindings/demo/member.c $(B)/libbusway.so
$(B)/bindings/memory: bindings/memory/memory.c $(B)/libbusway.so
$(DEMO_BINDINGS):
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS_$(VARIANT)) $< -L$(B) -lbusway -Wl,-rpath,'$$ORIGIN/..' -o $@
integration-bin: $(DEMO_BINDINGS)

# make demo-bindings: one member in C, one in Python, one in Go; each is killed, and the daemon.
.PHONY: demo-bindings test-memory
demo-bindings: all go-env $(DEMO_BINDINGS)
	@BW_BUILD=$(CURDIR)/$(B) bindings/demo/run.sh $(if $(SECONDS),--seconds $(SECONDS))

# make test-memory: RECORDS=10000000 through each of them; what is the process's own may not grow behind the first tenth.
test-memory: all go-env $(DEMO_BINDINGS)
	@BW_BUILD=$(CURDIR)/$(B) MEMORY_RECORDS=$(or $(RECORDS),10000000) tests/integration/memory.sh
