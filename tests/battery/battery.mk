# tests/battery/battery.mk: `make battery` (SECONDS=60 or HOURS=…, SEED=1): power cuts page by page, and bit rot.
BATTERY_POWER_OBJ := $(patsubst %,$(B)/tests/battery/%.o,power oracle disk)
$(B)/battery/power: $(BATTERY_POWER_OBJ) $(B)/libengine.a
	@mkdir -p $(@D)
	$(CC) -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $^ $(LIB_LIBS) -o $@
