# tests/battery/battery.mk: power loss and bit rot; see power.c and bitrot.c.
$(B)/battery/power: $(patsubst %,$(B)/tests/battery/%.o,power oracle disk memory) $(B)/libengine.a
	@mkdir -p $(@D)
	$(CC) -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $^ $(LIB_LIBS) -o $@
$(B)/battery/bitrot: $(patsubst %,$(B)/tests/battery/%.o,bitrot memory) $(B)/libengine.a
	@mkdir -p $(@D)
	$(CC) -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $^ $(LIB_LIBS) -o $@
.PHONY: battery-bin
battery-bin: $(B)/battery/power $(B)/battery/bitrot
