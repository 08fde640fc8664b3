# tests/battery/faults.mk: system calls that fail; see faults.c.
$(B)/battery/faults: $(patsubst %,$(B)/tests/battery/%.o,faults faults_client) $(B)/libbusway.so
	@mkdir -p $(@D)
	$(CC) -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $(filter %.o,$^) -L$(B) -lbusway -Wl,-rpath,'$$ORIGIN/..' -o $@
.PHONY: battery-bin
battery-bin: $(B)/battery/faults
