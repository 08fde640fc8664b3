# tests/embedded/embedded.mk: dir: buses under kills and races; see README.md.
EMBEDDED_SRC := $(sort $(wildcard tests/embedded/*.c))
$(B)/embedded/embedded: $(EMBEDDED_SRC:tests/%.c=$(B)/tests/%.o) $(B)/libbusway.so
	@mkdir -p $(@D)
	$(CC) -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $(filter %.o,$^) -L$(B) -lbusway -Wl,-rpath,'$$ORIGIN/..' -o $@
.PHONY: embedded-bin embedded-kills bench-embedded
embedded-bin: $(B)/embedded/embedded
embedded-kills: all embedded-bin
	@BUSWAYD=$(abspath $(B)/buswayd) $(B)/embedded/embedded kills $(or $(KILLS),1000) $(or $(SEED),1)
# What is asked of dir: buses, measured in one run: KILLS=1000 SEED=1.
bench-embedded: all embedded-bin
	@BUSWAYD=$(abspath $(B)/buswayd) $(B)/embedded/embedded figures $(or $(KILLS),1000) $(or $(SEED),1)
