# The Go binding: its tests, and its benchmark beside C. Included by the Makefile.
#
# GO=… chooses another Go.
GO ?= go
GO_PC := $(CURDIR)/$(B)/pkgconfig
GO_ENV = PKG_CONFIG_PATH=$(GO_PC) LD_LIBRARY_PATH=$(CURDIR)/$(B) BUSWAYD=$(CURDIR)/$(B)/buswayd GOFLAGS=-buildvcs=false

# The library as it lies in the build tree, for pkg-config.
$(GO_PC)/libbusway.pc: src/client/libbusway.pc.in $(B)/libbusway.so
	@mkdir -p $(@D)
	@sed -e 's|@PREFIX@|$(CURDIR)|g' -e 's|@LIBDIR@|$(CURDIR)/$(B)|g' -e 's|@INCLUDEDIR@|$(CURDIR)/include|g' -e 's|@VERSION@|$(VERSION)|g' $< > $@

.PHONY: go-env test-go bench-go
go-env: all $(GO_PC)/libbusway.pc

# make test-go: what `make test` runs of it (tests/integration/go.sh).
test-go: go-env
	@BUSWAY=$(CURDIR)/$(B)/busway BUSWAYD=$(CURDIR)/$(B)/buswayd tests/integration/go.sh

integration-bin: $(GO_PC)/libbusway.pc

# make bench-go GO_BENCH='-only trips': beside C, interleaved. Round trips are run twice: as the scheduler places the two programs, and on one
# processor, as all of bench's are: waking an idle virtual processor costs more than all that is measured.
GO_TRIPS = $(if $(findstring -only,$(GO_BENCH)),$(findstring trips,$(GO_BENCH)),trips)
bench-go: go-env
	@cd bindings/go && $(GO_ENV) $(GO) build -o $(CURDIR)/$(B)/go-bench ./bench
	@$(GO_ENV) $(B)/go-bench $(GO_BENCH)
	@$(if $(GO_TRIPS),$(GO_ENV) taskset -c 0 $(B)/go-bench $(GO_BENCH) -only trips)
