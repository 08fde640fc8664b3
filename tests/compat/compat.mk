# Busway's segments, made by hand and by a bus, before Apache Kafka's own tools; and Kafka's classes making today what lies in kafka-3.9/.
# Needs java, and Maven Central once; says so when it is skipped.
.PHONY: compat
compat:
	@$(MAKE) --no-print-directory -s VARIANT=release all
	@tests/compat/run.sh $$(tests/compat/bus.sh build/compat/bus)
