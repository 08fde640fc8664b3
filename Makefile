# Busway. `make help` lists the targets. Everything that is built lies under build/.
#
# Sources, tests and fuzzers are discovered, not registered:
#   src/<layer>/**/*.c          one object each, per variant (build/<variant>/obj)
#   tests/unit/<layer>/test_*.c one program each (cmocka), linked with the whole core
#   tests/fuzz/fuzz_*.c         one libFuzzer program each (clang)
# Variants: release (default), debug (kill points and fault seam compiled in: -DBW_TESTING), asan, tsan, fuzz.

VERSION := $(shell sed -n 's/.*BW_VERSION_STRING "\(.*\)"/\1/p' include/busway/version.h)
SOVERSION := $(firstword $(subst ., ,$(VERSION)))
VARIANT ?= release
PREFIX ?= /usr/local
DESTDIR ?=
B := build/$(VARIANT)

CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
CLANG ?= clang
PKGS := liblz4 libzstd zlib
DAEMON_PKGS := lmdb
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
ALL_CFLAGS = -std=c11 $(WARN) -fvisibility=hidden -fPIC -pthread $(CFLAGS_$(VARIANT)) $(CFLAGS)

LIB_LIBS := -llz4 -lzstd -lsnappy -lz -lisal -ljansson
DAEMON_LIBS := $(LIB_LIBS) -lnng -llmdb -linih
LIB_LAYERS := base format log proto client
DAEMON_LAYERS := base format log meta proto transport broker listen daemon
layer_src = $(foreach l,$(1),$(shell find src/$(l) -name '*.c' 2>/dev/null | sort))
obj = $(patsubst src/%.c,$(B)/obj/%.o,$(1))
LIB_OBJ := $(call obj,$(call layer_src,$(LIB_LAYERS)))
DAEMON_MAIN := src/daemon/main.c
DAEMON_OBJ := $(call obj,$(filter-out $(DAEMON_MAIN),$(call layer_src,$(DAEMON_LAYERS))))
CLI_OBJ := $(call obj,$(call layer_src,cli))
CORE_OBJ := $(sort $(LIB_OBJ) $(DAEMON_OBJ))
UNIT_SRC := $(shell find tests/unit -name 'test_*.c' 2>/dev/null | sort)
UNIT_BIN := $(patsubst tests/unit/%.c,$(B)/unit/%,$(UNIT_SRC))
FUZZ_SRC := $(shell find tests/fuzz -name 'fuzz_*.c' 2>/dev/null | sort)
FUZZ_BIN := $(patsubst tests/fuzz/%.c,build/fuzz/bin/%,$(FUZZ_SRC))

.PHONY: all
all: $(B)/libbusway.a $(B)/libbusway.so $(B)/buswayd $(B)/busway

$(B)/obj/%.o: src/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(B)/libbusway.a: $(LIB_OBJ)
	@mkdir -p $(@D)
	@rm -f $@
	ar rcs $@ $^

$(B)/libbusway.so: $(LIB_OBJ)
	@mkdir -p $(@D)
	$(CC) -shared -Wl,-soname,libbusway.so.$(SOVERSION) -Wl,--no-undefined -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $^ $(LIB_LIBS) -o $@.$(VERSION)
	ln -sf libbusway.so.$(VERSION) $(B)/libbusway.so.$(SOVERSION)
	ln -sf libbusway.so.$(SOVERSION) $@

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
	$(CC) $(CPPFLAGS) -Itests $(ALL_CFLAGS) -MMD -MP $(LDFLAGS_$(VARIANT)) $< $(B)/libcore.a $(DAEMON_LIBS) -lcmocka -lm -o $@

.PHONY: unit-bin
unit-bin: $(UNIT_BIN)

-include $(shell find build -name '*.d' 2>/dev/null)
