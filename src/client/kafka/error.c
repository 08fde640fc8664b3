/* client/kafka/error.c: librdkafka's and Kafka's errors by Busway's names. Every message ends with what librdkafka said. */
#include "client/kafka/kafka.h"

#include <limits.h>
#include <stdarg.h>
#include <string.h>

typedef struct pair {
    rd_kafka_resp_err_t from;
    bw_err to;
} pair;

#define R(name) RD_KAFKA_RESP_ERR_##name

static const pair pairs[] = {
    {R(NO_ERROR), BW_OK},
    {R(_TIMED_OUT), BW_ERR_TIMED_OUT},
    {R(_MSG_TIMED_OUT), BW_ERR_TIMED_OUT},
    {R(_TIMED_OUT_QUEUE), BW_ERR_TIMED_OUT},
    {R(REQUEST_TIMED_OUT), BW_ERR_TIMED_OUT},
    {R(NOT_ENOUGH_REPLICAS), BW_ERR_TIMED_OUT},
    {R(NOT_ENOUGH_REPLICAS_AFTER_APPEND), BW_ERR_TIMED_OUT},
    {R(_QUEUE_FULL), BW_ERR_QUEUE_FULL},
    {R(_TRANSPORT), BW_ERR_NOT_CONNECTED},
    {R(_ALL_BROKERS_DOWN), BW_ERR_NOT_CONNECTED},
    {R(NETWORK_EXCEPTION), BW_ERR_NOT_CONNECTED},
    {R(_RESOLVE), BW_ERR_NO_COORDINATOR},
    {R(_WAIT_COORD), BW_ERR_NO_COORDINATOR},
    {R(BROKER_NOT_AVAILABLE), BW_ERR_NO_COORDINATOR},
    {R(LEADER_NOT_AVAILABLE), BW_ERR_NO_COORDINATOR},
    {R(NOT_LEADER_FOR_PARTITION), BW_ERR_NO_COORDINATOR},
    {R(COORDINATOR_LOAD_IN_PROGRESS), BW_ERR_NO_COORDINATOR},
    {R(COORDINATOR_NOT_AVAILABLE), BW_ERR_NO_COORDINATOR},
    {R(NOT_COORDINATOR), BW_ERR_NO_COORDINATOR},
    {R(NOT_CONTROLLER), BW_ERR_NO_COORDINATOR},
    {R(_UNKNOWN_TOPIC), BW_ERR_UNKNOWN_TOPIC},
    {R(UNKNOWN_TOPIC_OR_PART), BW_ERR_UNKNOWN_TOPIC},
    {(rd_kafka_resp_err_t)100, BW_ERR_UNKNOWN_TOPIC}, /* UNKNOWN_TOPIC_ID, which old headers do not name */
    {R(_UNKNOWN_PARTITION), BW_ERR_UNKNOWN_PARTITION},
    {R(TOPIC_ALREADY_EXISTS), BW_ERR_TOPIC_EXISTS},
    {R(TOPIC_EXCEPTION), BW_ERR_INVALID_TOPIC},
    {R(INVALID_PARTITIONS), BW_ERR_INVALID_CONFIG},
    {R(INVALID_REPLICATION_FACTOR), BW_ERR_INVALID_CONFIG},
    {R(INVALID_CONFIG), BW_ERR_INVALID_CONFIG},
    {R(POLICY_VIOLATION), BW_ERR_INVALID_CONFIG},
    {R(MSG_SIZE_TOO_LARGE), BW_ERR_RECORD_TOO_LARGE},
    {R(RECORD_LIST_TOO_LARGE), BW_ERR_RECORD_TOO_LARGE},
    {R(OFFSET_OUT_OF_RANGE), BW_ERR_OFFSET_OUT_OF_RANGE},
    {R(_AUTHENTICATION), BW_ERR_NOT_PERMITTED},
    {R(_SSL), BW_ERR_NOT_PERMITTED},
    {R(SASL_AUTHENTICATION_FAILED), BW_ERR_NOT_PERMITTED},
    {R(TOPIC_AUTHORIZATION_FAILED), BW_ERR_NOT_PERMITTED},
    {R(GROUP_AUTHORIZATION_FAILED), BW_ERR_NOT_PERMITTED},
    {R(CLUSTER_AUTHORIZATION_FAILED), BW_ERR_NOT_PERMITTED},
    {R(TRANSACTIONAL_ID_AUTHORIZATION_FAILED), BW_ERR_NOT_PERMITTED},
    {R(OUT_OF_ORDER_SEQUENCE_NUMBER), BW_ERR_OUT_OF_ORDER_SEQUENCE},
    {R(INVALID_PRODUCER_EPOCH), BW_ERR_INVALID_PRODUCER_EPOCH},
    {R(UNKNOWN_PRODUCER_ID), BW_ERR_UNKNOWN_PRODUCER_ID},
    {R(INVALID_PRODUCER_ID_MAPPING), BW_ERR_INVALID_PRODUCER_ID_MAPPING},
    {R(INVALID_TXN_STATE), BW_ERR_INVALID_TXN_STATE},
    {R(_STATE), BW_ERR_INVALID_TXN_STATE},
    {R(INVALID_TRANSACTION_TIMEOUT), BW_ERR_INVALID_TRANSACTION_TIMEOUT},
    {R(CONCURRENT_TRANSACTIONS), BW_ERR_CONCURRENT_TRANSACTIONS},
    {R(PRODUCER_FENCED), BW_ERR_PRODUCER_FENCED},
    {R(_FENCED), BW_ERR_PRODUCER_FENCED},
    {R(TRANSACTION_COORDINATOR_FENCED), BW_ERR_PRODUCER_FENCED},
    {R(_PURGE_QUEUE), BW_ERR_TRANSACTION_ABORTABLE},
    {R(_PURGE_INFLIGHT), BW_ERR_TRANSACTION_ABORTABLE},
    {R(ILLEGAL_GENERATION), BW_ERR_ILLEGAL_GENERATION},
    {R(INCONSISTENT_GROUP_PROTOCOL), BW_ERR_INCONSISTENT_GROUP_PROTOCOL},
    {R(UNKNOWN_MEMBER_ID), BW_ERR_UNKNOWN_MEMBER_ID},
    {R(INVALID_SESSION_TIMEOUT), BW_ERR_INVALID_SESSION_TIMEOUT},
    {R(REBALANCE_IN_PROGRESS), BW_ERR_REBALANCE_IN_PROGRESS},
    {R(MEMBER_ID_REQUIRED), BW_ERR_MEMBER_ID_REQUIRED},
    {R(FENCED_INSTANCE_ID), BW_ERR_FENCED_INSTANCE_ID},
    {R(_MAX_POLL_EXCEEDED), BW_ERR_FENCED_MEMBER_EPOCH},
    {R(_ASSIGNMENT_LOST), BW_ERR_FENCED_MEMBER_EPOCH},
    {R(GROUP_MAX_SIZE_REACHED), BW_ERR_GROUP_MAX_SIZE_REACHED},
    {R(GROUP_ID_NOT_FOUND), BW_ERR_GROUP_ID_NOT_FOUND},
    {R(GROUP_SUBSCRIBED_TO_TOPIC), BW_ERR_NON_EMPTY_GROUP},
    {R(NON_EMPTY_GROUP), BW_ERR_NON_EMPTY_GROUP},
    {R(INVALID_GROUP_ID), BW_ERR_INVALID_GROUP_ID},
    {R(OFFSET_METADATA_TOO_LARGE), BW_ERR_OFFSET_METADATA_TOO_LARGE},
    {R(INVALID_COMMIT_OFFSET_SIZE), BW_ERR_INVALID_COMMIT_OFFSET},
    {R(_NO_OFFSET), BW_ERR_NO_OFFSET},
    {R(_AUTO_OFFSET_RESET), BW_ERR_OFFSET_OUT_OF_RANGE},
    {R(INVALID_RECORD), BW_ERR_INVALID_RECORD},
    {R(INVALID_TIMESTAMP), BW_ERR_INVALID_RECORD},
    {R(INVALID_MSG), BW_ERR_CORRUPT},
    {R(_BAD_MSG), BW_ERR_CORRUPT},
    {R(_BAD_COMPRESSION), BW_ERR_CORRUPT},
    {R(UNSUPPORTED_COMPRESSION_TYPE), BW_ERR_UNKNOWN_CODEC},
    {R(UNSUPPORTED_VERSION), BW_ERR_UNSUPPORTED_VERSION},
    {R(_UNSUPPORTED_FEATURE), BW_ERR_UNSUPPORTED},
    {R(_NOT_IMPLEMENTED), BW_ERR_UNSUPPORTED},
    {R(SECURITY_DISABLED), BW_ERR_UNSUPPORTED},
    {R(_INVALID_ARG), BW_ERR_INVALID_ARGUMENT},
    {R(INVALID_REQUEST), BW_ERR_INVALID_ARGUMENT},
    {R(INVALID_REQUIRED_ACKS), BW_ERR_INVALID_ARGUMENT},
    {R(_DESTROY), BW_ERR_CLOSED},
    {R(KAFKA_STORAGE_ERROR), BW_ERR_IO},
    {R(THROTTLING_QUOTA_EXCEEDED), BW_ERR_THROTTLED},
    {R(_CRIT_SYS_RESOURCE), BW_ERR_NO_MEMORY},
};

bw_err bw_kafka_error(rd_kafka_resp_err_t error)
{
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        if (pairs[i].from == error) return pairs[i].to;
    return BW_ERR_INTERNAL;
}

static bw_err fail_with(bw_err e, rd_kafka_resp_err_t error, const char *text, const char *format, va_list args)
{
    char what[640];
    vsnprintf(what, sizeof what, format, args);
    return bw_fail(e, "%s: %s (librdkafka: %s)", what, text && *text ? text : RK(err2str)(error), RK(err2name)(error));
}

bw_err bw_kafka_fail(rd_kafka_resp_err_t error, const char *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bw_err e = fail_with(bw_kafka_error(error), error, text, format, args);
    va_end(args);
    return e;
}

bw_err bw_kafka_fail_object(rd_kafka_error_t *error, const char *format, ...)
{
    if (!error) return BW_OK;
    va_list args;
    va_start(args, format);
    bw_err e = fail_with(bw_kafka_error(RK(error_code)(error)), RK(error_code)(error), RK(error_string)(error), format, args);
    va_end(args);
    RK(error_destroy)(error);
    return e;
}

bw_err bw_kafka_fail_wait(bw_kbus *k, rd_kafka_resp_err_t error, const char *what)
{
    char text[sizeof k->trouble.text];
    pthread_mutex_lock(&k->trouble.mutex);
    memcpy(text, k->trouble.text, sizeof text);
    rd_kafka_resp_err_t reason = k->trouble.error;
    pthread_mutex_unlock(&k->trouble.mutex);
    bool waited = error == R(_TRANSPORT) || error == R(_TIMED_OUT) || error == R(_ALL_BROKERS_DOWN);
    if (!waited || !*text) return bw_kafka_fail(error, NULL, "%s", what);
    return bw_kafka_fail(reason ? reason : error, text, "%s", what);
}

int bw_kafka_left_ms(bw_deadline deadline)
{
    if (deadline == BW_DEADLINE_NEVER) return -1;
    int64_t ms = (bw_deadline_left_ns(deadline) + 999999) / 1000000;
    return ms > INT_MAX ? INT_MAX : (int)ms;
}
