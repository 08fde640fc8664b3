# tests/battery/faults.mk: calls that fail; see faults.c. `make faults`: every call site that the trace shows, once and for ever; one that was
# interrupted goes on where it was.
$(B)/battery/faults: $(patsubst %,$(B)/tests/battery/%.o,faults faults_case faults_client) $(B)/libbusway.so
	@mkdir -p $(@D)
	$(CC) -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS) $(filter %.o,$^) -L$(B) -lbusway -Wl,-rpath,'$$ORIGIN/..' -o $@
# It takes the C library's names: neither builtins nor sanitizers.
$(B)/battery/libcallshim.so: tests/battery/callshim.c tests/battery/sites.h
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests -std=c11 $(WARN) -O1 -g -fPIC -shared -fno-builtin -pthread $< -o $@
.PHONY: battery-bin faults
battery-bin: $(B)/battery/faults $(B)/battery/libcallshim.so
faults: test-deps
	@FAULTS_LANES=$${FAULTS_LANES:-4} FAULTS_PROGRESS=$(CURDIR)/build/faults.progress BATTERY_SECONDS=0 BATTERY_SEED=$(or $(SEED),1) TEST_LIMIT_FACTOR=$${TEST_LIMIT_FACTOR:-1000} \
	    TEST_ONLY=battery/faults tests/run battery
