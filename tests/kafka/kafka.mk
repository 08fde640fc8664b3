# kafka://: programs of the tests, and `make test-kafka`, which runs them against a real Apache Kafka (java, Maven Central once).
ifeq ($(WITH_RDKAFKA),1)
KAFKA_TEST_BIN := $(patsubst tests/%.c,$(B)/%,$(wildcard tests/kafka/test_*.c)) $(B)/kafka/kafka_mock
$(B)/kafka/kafka_mock: tests/kafka/kafka_mock.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP $(LDFLAGS_$(VARIANT)) $< -lrdkafka -o $@
$(B)/kafka/test_%: tests/kafka/test_%.c $(SUPPORT_OBJ) $(B)/libbusway.so
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests $(ALL_CFLAGS) -MMD -MP $(LDFLAGS_$(VARIANT)) $< $(SUPPORT_OBJ) -L$(B) -lbusway \
	    -Wl,-rpath,'$$ORIGIN/..' -lcmocka -ljansson -lm -o $@
integration-bin: $(KAFKA_TEST_BIN)
endif

.PHONY: test-kafka
test-kafka:
	@$(MAKE) --no-print-directory -s VARIANT=debug all integration-bin
	@tests/kafka/real.sh
