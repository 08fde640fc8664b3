# tests/arm64/arm64.mk: a build for arm64 and its tests under qemu-user; see README.md. Variant arm64 is the debug build, cross-compiled.
ARM64_PACKAGES := gcc-aarch64-linux-gnu qemu-user
ARM64_SYSROOT := $(CURDIR)/build/arm64/sysroot
CFLAGS_arm64 := -O1 -g -DBW_TESTING
ifeq ($(VARIANT),arm64)
CC := aarch64-linux-gnu-gcc --sysroot=$(ARM64_SYSROOT)
endif

.PHONY: test-arm64 arm64-bin
test-arm64:
	@.ci/deps $(BUILD_PACKAGES) $(ARM64_PACKAGES)
	@tests/arm64/sysroot $(filter-out gcc,$(BUILD_PACKAGES)) libcmocka-dev librdkafka-dev
	@CRASH_KILLS=$(or $(KILLS),40) CRASH_SEED=$(or $(SEED),1) tests/run arm64

arm64-bin: build/arm64/guest.so build/arm64/host.so build/arm64/bin/busway build/arm64/bin/buswayd unit-bin crash-bin
build/arm64/guest.so: tests/arm64/guest.c tests/arm64/robust.h
	@mkdir -p $(@D)
	aarch64-linux-gnu-gcc --sysroot=$(ARM64_SYSROOT) -std=c11 $(WARN) -D_GNU_SOURCE -O2 -fPIC -shared $< -o $@
build/arm64/host.so: tests/arm64/host.c tests/arm64/robust.h
	@mkdir -p $(@D)
	gcc -std=c11 $(WARN) -D_GNU_SOURCE -O2 -fPIC -shared $< -o $@
# What a shell on this machine can start.
build/arm64/bin/%: build/arm64/%
	@mkdir -p $(@D)
	@printf '#!/bin/sh\nexec %s %s "$$@"\n' $(CURDIR)/tests/arm64/exec $(CURDIR)/$< >$@ && chmod +x $@
