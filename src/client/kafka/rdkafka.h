/* client/kafka/rdkafka.h: librdkafka's calls, loaded when they are first needed.
 *
 * libbusway does not link librdkafka: programs that never open a kafka:// URL do not load it and its TLS and SASL libraries (a few
 * milliseconds and megabytes each), and libbusway.a, buswayd and busway work the same way without a plug-in's second copy of the library's
 * inside. The header is needed to build; librdkafka.so.1 is opened by bw_rdkafka_load, and each name below is found in it then.
 * A call that is missing here does not link. */
#ifndef BW_CLIENT_KAFKA_RDKAFKA_H
#define BW_CLIENT_KAFKA_RDKAFKA_H

#include "base/err.h"

#include <librdkafka/rdkafka.h>

#define BW_RDKAFKA_CALLS(X)                                                                                                 \
    X(version_str) X(clusterid) X(err2str) X(err2name) X(new) X(destroy_flags) X(set_log_level) X(name) X(memberid) X(poll)                 \
    X(flush) X(outq_len) X(purge) X(conf_new) X(conf_destroy) X(conf_set) X(conf_set_log_cb)                                \
    X(conf_set_error_cb) X(conf_set_dr_msg_cb) X(conf_set_opaque) X(opaque) X(conf_set_events) X(conf_get)                  \
    X(mem_free) X(fatal_error) X(metadata) X(metadata_destroy) X(topic_new) X(topic_destroy) X(topic_name)                  \
    X(producev) X(headers_new) X(headers_destroy) X(header_add) X(header_get_all) X(header_cnt)                             \
    X(message_headers) X(message_timestamp) X(error_code) X(error_string) X(error_is_fatal)                                 \
    X(error_is_retriable) X(error_txn_requires_abort) X(error_destroy) X(init_transactions) X(begin_transaction)            \
    X(send_offsets_to_transaction) X(commit_transaction) X(abort_transaction) X(consumer_group_metadata)                    \
    X(consumer_group_metadata_new_with_genid) X(consumer_group_metadata_destroy)                                            \
    X(consumer_group_metadata_write) X(queue_new) X(queue_destroy) X(queue_get_consumer) X(queue_poll)                      \
    X(queue_io_event_enable) X(poll_set_consumer) X(event_type) X(event_error) X(event_error_string)                        \
    X(event_error_is_fatal) X(event_message_next) X(event_topic_partition) X(event_topic_partition_list)                    \
    X(event_opaque) X(event_destroy) X(topic_partition_list_new) X(topic_partition_list_destroy)                            \
    X(topic_partition_list_add) X(topic_partition_list_find) X(topic_partition_list_copy)                                   \
    X(topic_partition_destroy) X(assign) X(incremental_assign) X(incremental_unassign) X(assignment_lost)                   \
    X(rebalance_protocol) X(subscribe) X(unsubscribe) X(seek_partitions) X(pause_partitions)                                \
    X(resume_partitions) X(commit_queue) X(offsets_store) X(queue_get_main) X(committed) X(offsets_for_times)               \
    X(query_watermark_offsets) X(consumer_close_queue) X(consumer_closed) X(AdminOptions_new)                               \
    X(AdminOptions_destroy) X(AdminOptions_set_request_timeout) X(AdminOptions_set_operation_timeout)                       \
    X(AdminOptions_set_require_stable_offsets)                                                                              \
    X(NewTopic_new) X(NewTopic_destroy) X(NewTopic_set_config) X(CreateTopics) X(event_CreateTopics_result)                 \
    X(CreateTopics_result_topics) X(DeleteTopic_new) X(DeleteTopic_destroy) X(DeleteTopics)                                 \
    X(event_DeleteTopics_result) X(DeleteTopics_result_topics) X(topic_result_error)                                        \
    X(topic_result_error_string) X(NewPartitions_new) X(NewPartitions_destroy) X(CreatePartitions)                          \
    X(event_CreatePartitions_result) X(CreatePartitions_result_topics) X(ConfigResource_new)                                \
    X(ConfigResource_destroy) X(ConfigResource_set_config) X(ConfigResource_configs) X(ConfigResource_error)                \
    X(ConfigResource_error_string) X(ConfigResource_name) X(ConfigEntry_name) X(ConfigEntry_value)                          \
    X(ConfigEntry_source) X(ConfigEntry_is_default) X(ConfigEntry_is_sensitive) X(DescribeConfigs)                          \
    X(event_DescribeConfigs_result) X(DescribeConfigs_result_resources) X(AlterConfigs)                                     \
    X(event_AlterConfigs_result) X(AlterConfigs_result_resources) X(DeleteRecords_new) X(DeleteRecords_destroy)             \
    X(DeleteRecords) X(event_DeleteRecords_result) X(DeleteRecords_result_offsets) X(ListConsumerGroups)                    \
    X(event_ListConsumerGroups_result) X(ListConsumerGroups_result_valid) X(ConsumerGroupListing_group_id)                  \
    X(ListConsumerGroups_result_errors) X(DescribeConsumerGroups) X(event_DescribeConsumerGroups_result)                    \
    X(DescribeConsumerGroups_result_groups) X(ConsumerGroupDescription_group_id)                                            \
    X(ConsumerGroupDescription_error) X(ConsumerGroupDescription_partition_assignor)                                        \
    X(ConsumerGroupDescription_state) X(ConsumerGroupDescription_is_simple_consumer_group)                                  \
    X(ConsumerGroupDescription_member_count) X(ConsumerGroupDescription_member) X(consumer_group_state_name)                \
    X(MemberDescription_client_id) X(MemberDescription_group_instance_id) X(MemberDescription_consumer_id)                  \
    X(MemberDescription_host) X(MemberDescription_assignment) X(MemberAssignment_partitions) X(DeleteGroup_new)             \
    X(DeleteGroup_destroy) X(DeleteGroups) X(event_DeleteGroups_result) X(DeleteGroups_result_groups)                       \
    X(group_result_error) X(group_result_partitions) X(ListConsumerGroupOffsets_new)                                        \
    X(ListConsumerGroupOffsets_destroy) X(ListConsumerGroupOffsets) X(event_ListConsumerGroupOffsets_result)                \
    X(ListConsumerGroupOffsets_result_groups) X(AlterConsumerGroupOffsets_new)                                              \
    X(AlterConsumerGroupOffsets_destroy) X(AlterConsumerGroupOffsets) X(event_AlterConsumerGroupOffsets_result)             \
    X(AlterConsumerGroupOffsets_result_groups) X(DeleteConsumerGroupOffsets_new)                                            \
    X(DeleteConsumerGroupOffsets_destroy) X(DeleteConsumerGroupOffsets)                                                     \
    X(event_DeleteConsumerGroupOffsets_result) X(DeleteConsumerGroupOffsets_result_groups)

typedef struct bw_rdkafka {
#define BW_RDKAFKA_FIELD(name) __typeof__(rd_kafka_##name) *name;
    BW_RDKAFKA_CALLS(BW_RDKAFKA_FIELD)
#undef BW_RDKAFKA_FIELD
} bw_rdkafka;

/* The calls. Written once, by bw_rdkafka_load; what a linker would do at the program's start. */
extern bw_rdkafka bw_rdk;
#define RK(name) (*bw_rdk.name)

/* bw_rdkafka_load: find librdkafka, once a process. UNSUPPORTED: it is not installed, or too old; the message names the package. */
bw_err bw_rdkafka_load(void);

#endif
