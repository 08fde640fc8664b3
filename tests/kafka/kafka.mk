# kafka://: programs of the tests, and `make test-kafka`, which runs everything against a real Apache Kafka (java, Maven Central once).
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

# What it needs, and no more.
.PHONY: kafka-bin
kafka-bin: all $(KAFKA_TEST_BIN) $(B)/conformance/conformance bindings-python $(CURDIR)/$(B)/pkgconfig/libbusway.pc

# make test-kafka: everything. RECORDS=1000000 KAFKA_ONLY=conformance
.PHONY: test-kafka
test-kafka:
	@.ci/deps $(BUILD_PACKAGES) $(TEST_PACKAGES) $$(command -v java >/dev/null || echo default-jre-headless) \
	    $$(command -v mvn >/dev/null || ls $${KAFKA_JARS:-build/compat/jars}/kafka_2.13-*.jar >/dev/null 2>&1 || echo maven)
	@$(MAKE) --no-print-directory -s -j2 VARIANT=debug kafka-bin
	@BW_BUILD=build/debug $(if $(RECORDS),RECORDS=$(RECORDS)) KAFKA_ONLY='$(KAFKA_ONLY)' tests/kafka/real.sh
