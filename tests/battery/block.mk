# tests/battery/block.mk: block-level power loss; see block.h. Where libfuse 3 is missing the script skips and says so.
FUSE_HEADER := $(wildcard /usr/include/fuse3/fuse_lowlevel.h)
$(B)/battery/block: $(patsubst %,$(B)/tests/battery/%.o,block block_disk block_image block_oracle block_scene block_try rng) $(B)/libcore.a
	@mkdir -p $(@D)
	$(CC) -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $^ $(DAEMON_LIBS) -lmsgpackc -lfuse3 -o $@
.PHONY: battery-bin
battery-bin: $(if $(FUSE_HEADER),$(B)/battery/block)
