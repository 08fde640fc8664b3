# What the bindings share: a group of C, Python and Go, a gateway of all three, and what their memory does. Included by the Makefile.
#
# bindings-bin builds what the tests of that need into $(B)/bindings: programs in C and Go, and the Python package (python/busway). Where a
# language is not there, the reason is left in $(B)/bindings/<language>.missing, and the tests name it and go on with the others.
BINDINGS := $(B)/bindings
BINDINGS_C := $(BINDINGS)/member-c $(BINDINGS)/memory-c
BINDINGS_PYTHON ?= /usr/bin/python3
$(BINDINGS)/member-c: bindings/demo/member.c $(B)/libbusway.so
$(BINDINGS)/memory-c: bindings/memory/memory.c $(B)/libbusway.so
$(BINDINGS_C):
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS_$(VARIANT)) $< -L$(B) -lbusway -Wl,-rpath,'$$ORIGIN/..' -o $@

.PHONY: bindings-bin bindings-python bindings-go
bindings-bin: $(BINDINGS_C) bindings-python bindings-go
integration-bin: bindings-bin

# make VARIANT=asan bindings-python: the extension under AddressSanitizer, too.
bindings-python: $(B)/libbusway.so $(B)/buswayd
	@BINDINGS=$(CURDIR)/$(BINDINGS) BUSWAY_BUILD=$(CURDIR)/$(B) PYTHON=$(BINDINGS_PYTHON) CC=$(CC) \
	    BUSWAY_CFLAGS='-O1 $(CFLAGS_$(VARIANT))' BUSWAY_LDFLAGS='$(LDFLAGS_$(VARIANT))' bindings/prepare python
bindings-go: $(B)/libbusway.so $(CURDIR)/$(B)/pkgconfig/libbusway.pc
	@BINDINGS=$(CURDIR)/$(BINDINGS) PKG_CONFIG_PATH=$(CURDIR)/$(B)/pkgconfig VARIANT=$(VARIANT) bindings/prepare go

# make demo-bindings: one member in C, one in Python, one in Go; each is killed, and the daemon. SECONDS=12
# make test-memory: RECORDS=10000000 through each language; what is the process's own may not grow behind the first tenth.
.PHONY: demo-bindings test-memory
demo-bindings: all bindings-bin
	@BW_BUILD=$(B) bindings/demo/run $(if $(SECONDS),--seconds $(SECONDS))
test-memory: all bindings-bin
	@BW_BUILD=$(B) MEMORY_RECORDS=$(or $(RECORDS),10000000) tests/integration/bindings_memory.sh

# make test-python-asan: the library and the Python extension under AddressSanitizer, driven by Python's own tests.
.PHONY: test-python-asan
test-python-asan:
	@$(MAKE) --no-print-directory -s VARIANT=asan all bindings-python
	@BUSWAY=$(CURDIR)/build/asan/busway tests/integration/bindings_asan.sh
