#!/usr/bin/env bash
# busway migrate to a real Kafka and back; see tests/integration/migrate.sh. Run by real.sh, with $KAFKA_URL.
exec "$(dirname "$0")/../integration/migrate.sh"
