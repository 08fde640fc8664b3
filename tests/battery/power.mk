# tests/battery/battery.mk: power loss and bit rot; see power.c and bitrot.c.
MEMFS_WRAPPED := fcntl fdopendir readdir closedir $(addprefix bw_os_,open open_beneath close pread pwrite fallocate ftruncate fdatasync fsync sync_dir fstat \
                 stat_at unlink link rename list_dir free_bytes mmap is_unshared is_cached)
$(B)/battery/power: $(patsubst %,$(B)/tests/battery/%.o,power oracle disk memory memfs rng) $(B)/libengine.a
	@mkdir -p $(@D)
	$(CC) -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $(MEMFS_WRAPPED:%=-Wl,--wrap=%) $^ $(LIB_LIBS) -o $@
$(B)/battery/bitrot: $(patsubst %,$(B)/tests/battery/%.o,bitrot memory rng) $(B)/libengine.a
	@mkdir -p $(@D)
	$(CC) -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $^ $(LIB_LIBS) -o $@
$(B)/battery/bitrot_meta: $(B)/tests/battery/bitrot_meta.o $(B)/libcore.a
	@mkdir -p $(@D)
	$(CC) -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $^ $(DAEMON_LIBS) -o $@
.PHONY: battery-bin
battery-bin: $(B)/battery/power $(B)/battery/bitrot $(B)/battery/bitrot_meta
