# Busway. `make help` lists the targets. Everything that is built lies under build/.
#
# Sources, tests and fuzzers are discovered, not registered:
#   src/<layer>/**/*.c               one object each, per variant (build/<variant>/obj)
#   tests/unit/<layer>/test_*.c      one program each (cmocka), linked with the whole core
#   tests/integration/test_*.c       one program each (cmocka), linked with the shared library only
#   tests/integration/*.sh           executable scripts; they find the programs through $BUSWAY and $BUSWAYD
#   tests/support/*.c                helpers that the test programs share
#   tests/crash/*.c, tests/tsan/*.c  the crash suite; writers and readers as threads on one mapping
#   tests/fuzz/fuzz_*.c              one libFuzzer program each (clang)
# Variants: release (default), debug (kill points and fault seam compiled in: -DBW_TESTING), asan, tsan, fuzz.

# Debian packages, the one list. Nothing else is needed; `make deps` installs what is missing.
# librdkafka-dev is optional: without it (or with WITH_RDKAFKA=) kafka:// URLs say that it was not there.
BUILD_PACKAGES := gcc libc6-dev libnng-dev liblmdb-dev libmsgpack-dev libisal-dev liblz4-dev libzstd-dev libsnappy-dev \
                  zlib1g-dev libmbedtls-dev libjansson-dev libinih-dev uthash-dev libxxhash-dev
TEST_PACKAGES := python3 python3-dev python3-venv python3-setuptools python3-wheel python3-pytest python3-numpy mypy librdkafka-dev golang-go pkg-config libcmocka-dev clang libclang-rt-14-dev spin libfuse3-dev e2fsprogs

VERSION := $(shell sed -n 's/.*BW_VERSION_STRING "\(.*\)"/\1/p' include/busway/version.h)
SOVERSION := $(firstword $(subst ., ,$(VERSION)))
VARIANT ?= release
PREFIX ?= /usr/local
DESTDIR ?=
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DATADIR ?= $(PREFIX)/share
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
B := build/$(VARIANT)

CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
CLANG ?= clang
WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
CPPFLAGS += -D_GNU_SOURCE -Isrc -Iinclude
CFLAGS_release := -O2 -g
CFLAGS_debug := -O1 -g -DBW_TESTING
CFLAGS_asan := -O1 -g -DBW_TESTING -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
CFLAGS_tsan := -O1 -g -DBW_TESTING -fsanitize=thread -fno-omit-frame-pointer
CFLAGS_fuzz := -O1 -g -DBW_TESTING -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LDFLAGS_asan := -fsanitize=address,undefined
LDFLAGS_tsan := -fsanitize=thread
LDFLAGS_fuzz := -fsanitize=fuzzer,address,undefined
ifneq ($(filter tsan fuzz,$(VARIANT)),)
CC := $(CLANG)
endif
# The sanitizer runtimes of clang are not linked into shared objects, so only there may symbols stay open.
NO_UNDEFINED := $(if $(filter tsan fuzz,$(VARIANT)),,-Wl,--no-undefined)
ALL_CFLAGS = -std=c11 $(WARN) -fvisibility=hidden -fPIC -pthread $(CFLAGS_$(VARIANT)) $(CFLAGS)

# kafka:// is built when librdkafka's header is there; the library itself is loaded at the first kafka:// URL.
WITH_RDKAFKA ?= $(if $(wildcard /usr/include/librdkafka/rdkafka.h /usr/local/include/librdkafka/rdkafka.h),1)
ifeq ($(WITH_RDKAFKA),1)
$(B)/obj/client/backend.o: CPPFLAGS += -DBW_WITH_RDKAFKA
NOT_BUILT :=
else
NOT_BUILT := src/client/kafka/%
endif

LIB_LIBS := -lmbedtls -lmbedx509 -lmbedcrypto -llz4 -lzstd -lsnappy -lz -lisal -ljansson -llmdb
DAEMON_LIBS := $(LIB_LIBS) -lnng -linih -lcrypt
LIB_LAYERS := base format log proto state client
DAEMON_LAYERS := base format log meta proto transport broker listen state client link daemon
layer_src = $(filter-out $(NOT_BUILT),$(foreach l,$(1),$(shell find src/$(l) -name '*.c' 2>/dev/null | sort)))
obj = $(patsubst src/%.c,$(B)/obj/%.o,$(1))
# Of transport/ the library takes what knows no nng.
LIB_OBJ := $(call obj,$(call layer_src,$(LIB_LAYERS)) src/transport/resolve.c src/transport/tcp.c src/transport/tls.c)
DAEMON_MAIN := src/daemon/main.c
DAEMON_OBJ := $(call obj,$(filter-out $(DAEMON_MAIN),$(call layer_src,$(DAEMON_LAYERS))))
CLI_OBJ := $(call obj,$(call layer_src,cli))
CORE_OBJ := $(sort $(LIB_OBJ) $(DAEMON_OBJ))
UNIT_SRC := $(shell find tests/unit -name 'test_*.c' 2>/dev/null | sort)
UNIT_BIN := $(patsubst tests/unit/%.c,$(B)/unit/%,$(UNIT_SRC))
FUZZ_SRC := $(shell find tests/fuzz -name 'fuzz_*.c' 2>/dev/null | sort)
FUZZ_BIN := $(patsubst tests/fuzz/%.c,build/fuzz/bin/%,$(FUZZ_SRC))

SUPPORT_OBJ := $(patsubst tests/%.c,$(B)/tests/%.o,$(wildcard tests/support/*.c))
INTEGRATION_SRC := $(sort $(wildcard tests/integration/test_*.c))
INTEGRATION_BIN := $(patsubst tests/integration/%.c,$(B)/integration/%,$(INTEGRATION_SRC))
CRASH_SRC := $(sort $(wildcard tests/crash/*.c))
CRASH_BIN := $(if $(CRASH_SRC),$(B)/crash/crash)
TSAN_SRC := $(sort $(wildcard tests/tsan/test_*.c))
TSAN_BIN := $(patsubst tests/tsan/%.c,$(B)/tsan/%,$(TSAN_SRC))

.PHONY: all
all: $(B)/libbusway.a $(B)/libbusway.so $(B)/libbusway-coordinator.so $(B)/buswayd $(B)/busway

$(B)/obj/%.o: src/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(B)/libbusway.a: $(LIB_OBJ)
	@mkdir -p $(@D)
	@rm -f $@
	ar rcs $@ $^

$(B)/libbusway.so: $(LIB_OBJ)
	@mkdir -p $(@D)
	$(CC) -shared -Wl,-soname,libbusway.so.$(SOVERSION) $(NO_UNDEFINED) -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $^ $(LIB_LIBS) -o $@.$(VERSION)
	ln -sf libbusway.so.$(VERSION) $(B)/libbusway.so.$(SOVERSION)
	ln -sf libbusway.so.$(SOVERSION) $@

# The daemon without its main, for programs that carry it themselves (dir:…?coordinator=self); libbusway loads it when it is asked for.
COORDINATOR_LAYERS := base format log meta proto transport broker listen
COORDINATOR_OBJ := $(call obj,$(call layer_src,$(COORDINATOR_LAYERS))) $(call obj,src/daemon/coordinator.c)
$(B)/libbusway-coordinator.so: $(COORDINATOR_OBJ) src/daemon/coordinator.map
	@mkdir -p $(@D)
	$(CC) -shared -Wl,-soname,libbusway-coordinator.so.$(SOVERSION) -Wl,--version-script=src/daemon/coordinator.map $(NO_UNDEFINED) \
	    -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $(COORDINATOR_OBJ) $(DAEMON_LIBS) -o $@.$(VERSION)
	ln -sf libbusway-coordinator.so.$(VERSION) $(B)/libbusway-coordinator.so.$(SOVERSION)
	ln -sf libbusway-coordinator.so.$(SOVERSION) $@

$(B)/libcore.a: $(CORE_OBJ)
	@mkdir -p $(@D)
	@rm -f $@
	ar rcs $@ $^

$(B)/buswayd: $(call obj,$(DAEMON_MAIN)) $(DAEMON_OBJ)
	$(CC) -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $^ $(DAEMON_LIBS) -o $@

$(B)/busway: $(CLI_OBJ) $(B)/libbusway.a
	$(CC) -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $(CLI_OBJ) $(B)/libbusway.a $(LIB_LIBS) -o $@

$(B)/unit/%: tests/unit/%.c $(B)/libcore.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests $(ALL_CFLAGS) -MMD -MP $(LDFLAGS_$(VARIANT)) $< $(B)/libcore.a $(DAEMON_LIBS) -lmsgpackc -lcmocka -lm -o $@

.SECONDARY:
.PHONY: unit-bin integration-bin crash-bin tsan-bin fuzz-bin
unit-bin: $(UNIT_BIN)

$(B)/tests/%.o: tests/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests $(ALL_CFLAGS) -MMD -MP -c $< -o $@

# Integration tests see the public headers and the exported symbols, nothing else.
$(B)/integration/%: tests/integration/%.c $(SUPPORT_OBJ) $(B)/libbusway.so
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests $(ALL_CFLAGS) -MMD -MP $(LDFLAGS_$(VARIANT)) $< $(SUPPORT_OBJ) -L$(B) -lbusway \
	    -Wl,-rpath,'$$ORIGIN/..' -lcmocka -ljansson -lm -o $@
integration-bin: $(INTEGRATION_BIN)

$(B)/crash/crash: $(patsubst tests/%.c,$(B)/tests/%.o,$(CRASH_SRC)) $(B)/libbusway.so
	@mkdir -p $(@D)
	$(CC) -pthread $(LDFLAGS_$(VARIANT)) $(filter %.o,$^) -L$(B) -lbusway -Wl,-rpath,'$$ORIGIN/..' -lm -o $@
crash-bin: $(CRASH_BIN)

# The engine alone: base, format, log.
$(B)/libengine.a: $(call obj,$(call layer_src,base format log))
	@mkdir -p $(@D)
	@rm -f $@
	ar rcs $@ $^

# Writers and readers as threads on one mapping; and the same with append.c's release stores relaxed, which must be reported.
TSAN_WRAP := -Wl,--wrap=bw_os_mmap,--wrap=bw_os_munmap,--wrap=pthread_mutex_clocklock
TSAN_LINK = $(CC) $(CPPFLAGS) -Itests $(ALL_CFLAGS) $(LDFLAGS_$(VARIANT)) $(TSAN_WRAP) $(filter %.c %.o %.a,$^) $(LIB_LIBS) -lm -o $@
$(B)/tsan/%: tests/tsan/%.c $(B)/libengine.a
	@mkdir -p $(@D)
	$(TSAN_LINK)
$(B)/tsan/seeded_append.o: src/log/append.c tests/tsan/seed_race.h
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -include tests/tsan/seed_race.h -c $< -o $@
$(B)/tsan/test_mapping_seeded: tests/tsan/test_mapping.c $(B)/tsan/seeded_append.o $(B)/libengine.a
	$(TSAN_LINK)
# A week of a bad line, and deaths of both sides, for longer than make test takes.
link-week: integration-bin
	BUSWAYD=$(B)/buswayd BUSWAY_TEST_TRANSPORT=ipc LINK_WEEK_S=$(or $(WEEK_S),120) LINK_SEED=$(or $(SEED),7) $(B)/integration/test_link_line
	BUSWAYD=$(B)/buswayd LINK_KILLS=$(or $(KILLS),1000) LINK_SEED=$(or $(SEED),7) $(B)/integration/test_link_kills
.PHONY: link-week

tsan-bin: $(TSAN_BIN) $(B)/tsan/test_mapping_seeded

build/fuzz/bin/%: tests/fuzz/%.c build/fuzz/libcore.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests $(ALL_CFLAGS) -MMD -MP $(LDFLAGS_fuzz) $< build/fuzz/libcore.a $(DAEMON_LIBS) -lm -o $@
fuzz-bin: $(FUZZ_BIN)

# -- targets for people ------------------------------------------------------------------------------------------------

.PHONY: battery
.PHONY: help deps test-deps test check asan tsan fuzz crash model install uninstall clean
help:
	@echo 'make                 build the library, buswayd and busway in build/release (VARIANT=debug|asan|tsan for others)'
	@echo 'make deps            install the Debian packages that the build needs and that are missing (root or sudo)'
	@echo 'make demo            build, then watch this machine'"'"'s own events go through a bus'
	@echo 'make test            every test; ends with "N passed, N failed"'
	@echo 'make bench           rates and round trips beside the bare limit of the same run; build/bench.json'
	@echo 'make bench-embedded  what is asked of dir: buses, beside the scheduler'"'"'s own gaps: KILLS=1000 SEED=1'
	@echo 'make bench-peers     the same work by Aeron, Chronicle Queue, iceoryx2, ZeroMQ, nng, Kafka, Redis, NATS; a table and plots'
	@echo 'make bench-mirror    one differing batch in a mirror of MIRROR_GB (10) gigabytes is found and mended: seconds, and bytes sent'
	@echo 'make test-go         the Go binding: vet, tests, the race detector, with each Go that is here'
	@echo 'make check           the build checks alone: layers, exports, headers, sizes, system calls'
	@echo 'make asan|tsan       the tests under AddressSanitizer + UBSan, the races under ThreadSanitizer'
	@echo 'make fuzz            every decoder and its bound of memory: SECONDS_EACH=60'
	@echo 'make crash           the crash suite: KILLS=3000 SEED=1; one that was interrupted goes on where it was'
	@echo 'make test-arm64      a cross build and its unit and crash tests under qemu-user: KILLS=40 SEED=1'
	@echo 'make faults          every call site that a trace shows, the libraries'"'"' too, fails once and for ever: SEED=1'
	@echo 'make battery         all that tries to break a bus, within HOURS=1, and goes on where the last run ended: SEED=1 PART=name,…'
	@echo 'make mutants         seeded bugs, each to be caught by a named test: MUTANT=name PICK=3 SEED=1 LANES=2'
	@echo 'make model           the Promela model and its seeded bugs'
	@echo 'make test-conformance  the scenarios that C, Python and Go share, in C; make conformance URL=… on any bus'
	@echo 'make demo-bindings   one group with a member in C, one in Python, one in Go; each is killed, and the daemon: SECONDS=12'
	@echo 'make test-memory     records through C, Python and Go; memory may not grow: RECORDS=10000000'
	@echo 'make test-python-asan  the library and the Python extension under AddressSanitizer, driven by Python'"'"'s tests'
	@echo 'make test-kafka      kafka://, links and migrate on a real Kafka 3.9, and the conformance suite in C, Python, Go on it: RECORDS=1000000'
	@echo 'make WITH_RDKAFKA= B=build/plain   a build without librdkafka: kafka:// says so'
	@echo 'make compat          segments made here before Kafka 3.9'"'"'s own tools (java, Maven Central)'
	@echo 'make install         DESTDIR= PREFIX=/usr/local'
	@echo 'make clean           remove build/'

deps:
	@.ci/deps $(BUILD_PACKAGES)
test-deps:
	@.ci/deps $(BUILD_PACKAGES) $(TEST_PACKAGES)

test: test-deps
	@tests/run
check: all
	@BW_BUILD=$(B) tests/run checks
asan tsan fuzz model: test-deps
	@FUZZ_SECONDS=$(or $(SECONDS_EACH),$${FUZZ_SECONDS:-60}) tests/run $@
crash: test-deps
	@CRASH_KILLS=$(or $(KILLS),$${CRASH_KILLS:-3000}) CRASH_SEED=$(or $(SEED),$${CRASH_SEED:-1}) \
	    CRASH_PROGRESS=$${CRASH_PROGRESS:-$(CURDIR)/build/crash.$(or $(SEED),1).progress} tests/run crash
battery: test-deps
	@tests/battery/long.py --hours $(or $(HOURS),1) --seed $(or $(SEED),1) $(if $(PART),--only $(PART))

clean:
	rm -rf build

install: all
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR)/busway $(DESTDIR)$(UNITDIR) \
	    $(DESTDIR)$(SYSUSERSDIR)
	install -m 644 include/busway/*.h $(DESTDIR)$(INCLUDEDIR)/busway
	install -m 755 $(B)/busway $(B)/buswayd $(DESTDIR)$(BINDIR)
	install -m 644 $(B)/libbusway.a $(DESTDIR)$(LIBDIR)
	install -m 755 $(B)/libbusway.so.$(VERSION) $(DESTDIR)$(LIBDIR)
	install -m 755 $(B)/libbusway-coordinator.so.$(VERSION) $(DESTDIR)$(LIBDIR)
	ln -sf libbusway-coordinator.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libbusway-coordinator.so.$(SOVERSION)
	ln -sf libbusway.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libbusway.so.$(SOVERSION)
	ln -sf libbusway.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/libbusway.so
	sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@LIBDIR@|$(LIBDIR)|g' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|g' -e 's|@VERSION@|$(VERSION)|g' \
	    src/client/libbusway.pc.in > $(DESTDIR)$(LIBDIR)/pkgconfig/libbusway.pc
	sed -e 's|@BINDIR@|$(BINDIR)|g' src/daemon/buswayd.service > $(DESTDIR)$(UNITDIR)/buswayd.service
	install -m 644 src/daemon/buswayd.sysusers $(DESTDIR)$(SYSUSERSDIR)/busway.conf
	for m in $$(find src $(B)/man -path '*/man/*.[1-8]'); do \
	    d=$(DESTDIR)$(DATADIR)/man/man$${m##*.}; install -d $$d && install -m 644 $$m $$d || exit 1; done
	for c in $$(find src/cli -name 'busway.bash'); do \
	    d=$(DESTDIR)$(DATADIR)/bash-completion/completions; install -d $$d && install -m 644 $$c $$d/busway || exit 1; done
	for c in $$(find src/cli -name '_busway'); do \
	    d=$(DESTDIR)$(DATADIR)/zsh/site-functions; install -d $$d && install -m 644 $$c $$d || exit 1; done
	for c in $$(find src/cli -name 'busway.fish'); do \
	    d=$(DESTDIR)$(DATADIR)/fish/vendor_completions.d; install -d $$d && install -m 644 $$c $$d || exit 1; done

uninstall:
	rm -rf $(DESTDIR)$(INCLUDEDIR)/busway
	rm -f $(DESTDIR)$(BINDIR)/busway $(DESTDIR)$(BINDIR)/buswayd $(DESTDIR)$(LIBDIR)/libbusway.* $(DESTDIR)$(LIBDIR)/libbusway-coordinator.* \
	    $(DESTDIR)$(LIBDIR)/pkgconfig/libbusway.pc $(DESTDIR)$(UNITDIR)/buswayd.service $(DESTDIR)$(SYSUSERSDIR)/busway.conf \
	    $(DESTDIR)$(DATADIR)/man/man?/busway*.[1-8] $(DESTDIR)$(DATADIR)/bash-completion/completions/busway \
	    $(DESTDIR)$(DATADIR)/zsh/site-functions/_busway $(DESTDIR)$(DATADIR)/fish/vendor_completions.d/busway.fish

# The benchmark and the demonstration bring their own rules.
-include $(wildcard bench/*.mk src/*/*.mk tests/*/*.mk bindings/*/*.mk)

-include $(shell find build -name '*.d' 2>/dev/null)
