/* broker/config_tables.h: the two tables of options. Columns: field, kind, name, least, most, default, choices, help. */
#ifndef BW_BROKER_CONFIG_TABLES_H
#define BW_BROKER_CONFIG_TABLES_H

#include "broker/config.h"
#include "broker/option.h"

/* clang-format off */
#define BW_DAEMON_OPTIONS(X)                                                                                                         \
    X(data_dir, TEXT, "data-dir", 0, 0, "", "a folder",                                                                              \
      "Where topics and metadata lie. One daemon owns it at a time. Required.")                                                      \
    X(runtime_dir, TEXT, "runtime-dir", 0, 0, "", "a folder",                                                                        \
      "Where the sockets lie, mode 0750, and, when it is on a tmpfs, the control data that processes share. Default: run in the "    \
      "data directory.")                                                                                                             \
    X(listen, LIST, "listen", 0, 0, "", "URLs, separated by commas: ipc:///path",                                                     \
      "Where clients connect. Default: ipc://<runtime-dir>/bus.sock.")                                                               \
    X(listeners, LIST, "listeners", 0, 0, "", "URLs, separated by commas: tls+tcp://address:port, tcp://address:port",                   \
      "Where clients of other hosts connect: no port is open unless it is named here. An address of 0.0.0.0 or [::] is each of this "    \
      "machine's; without a port 7290.")                                                                                                 \
    X(listeners_insecure, BOOL, "listeners.insecure", 0, 0, "false", NULL,                                                               \
      "Allow listeners on addresses other than loopback that are not encrypted (tcp://), or let in everybody (anonymous.role).")         \
    X(tls_certificate, TEXT, "tls.certificate", 0, 0, "", "a PEM file",                                                                  \
      "The daemon's certificate for tls+tcp:// listeners, with those between it and its CA behind it. Read again when the file is another, "\
      "and on SIGHUP.")                                                                                                                  \
    X(tls_key, TEXT, "tls.key", 0, 0, "", "a PEM file", "The key of that certificate.")                                                  \
    X(tls_client_ca, TEXT, "tls.client.ca", 0, 0, "", "a PEM file", "The CA that signs the certificates of clients.")                    \
    X(tls_client_auth, CHOICE, "tls.client.auth", 0, 0, "none", "none|requested|required",                                               \
      "Are clients asked for a certificate, or let in with one only? One that is shown and good names its user (its common name).")      \
    X(anonymous_role, CHOICE, "anonymous.role", 0, 0, "none", "none|reader|client|admin",                                             \
      "What clients of other hosts may do that do not say who they are: nothing; consume; produce and consume; everything.")        \
    X(listen_rep, TEXT, "listen-rep", 0, 0, "", "a URL, or none",                                                                    \
      "A plain nng REP endpoint that takes the same requests, one a message. Default: rep.sock beside the first ipc socket.")        \
    X(idle_exit_ms, DURATION, "idle-exit", 0, INT64_MAX / 2000000, "0", NULL,                                                        \
      "Stop after having had no connection for so long; 0: never.")                                                                  \
    X(log_json, BOOL, "log-json", 0, 0, "false", NULL, "Log events as JSON, one object a line.")                                     \
    X(log_level, LEVEL, "log-level", 0, 0, "info", NULL, "Events below this level are not logged.")                                  \
    X(socket_group, TEXT, "socket-group", 0, 0, "", "a group's name or number",                                                      \
      "Members may produce and consume. Default: the daemon's own group. Root and the daemon's user may do everything, "             \
      "everybody else nothing.")                                                                                                     \
    X(num_partitions, NUMBER, "num.partitions", 1, 16384, "1", NULL, "Partitions of a topic that is made without a number.")         \
    X(auto_create_topics, BOOL, "auto.create.topics.enable", 0, 0, "true", NULL,                                                     \
      "Make a topic when a client that allows it names one that does not exist.")                                                    \
    X(socket_request_max_bytes, SIZE, "socket.request.max.bytes", 65536, 1 << 30, "64MiB", NULL,                                     \
      "Largest request that is read; a larger one closes the connection with an error.")                                             \
    X(retention_check_interval_ms, DURATION, "log.retention.check.interval.ms", 1, INT64_MAX / 2000000, "300000", NULL,              \
      "How often retention.ms and retention.bytes are looked at.")                                                                   \
    X(flush_interval_ms, DURATION, "log.flush.interval.ms", 1, INT64_MAX / 2000000, "1000", NULL,                                    \
      "Data is synced to the disk at least so often, even when nobody waits for it.")                                                \
    X(open_segments_max, NUMBER, "log.open.segments.max", 2, 1 << 20, "512", NULL,                                                   \
      "Segment files that are kept open for writing at a time, as far as the limit of descriptors allows; partitions beyond that are "  \
      "synced, closed, and opened again when somebody writes.")                                                                      \
    X(transaction_max_timeout_ms, DURATION, "transaction.max.timeout.ms", 1, INT32_MAX, "900000", NULL,                               \
      "Longest time-out that a producer may ask for its transactions.")                                                              \
    X(transactional_id_expiration_ms, DURATION, "transactional.id.expiration.ms", 1, INT64_MAX / 2000000, "604800000", NULL,         \
      "A transactional id that has done nothing for so long, and has no transaction open, is forgotten.")                            \
    X(transaction_checkpoint_bytes, SIZE, "transaction.state.checkpoint.bytes", 4096, 1 << 30, "8MiB", NULL,                          \
      "After so much of the log of transactions their state is stored and the log before it deleted; a start reads what is left.")    \
    X(producer_id_expiration_ms, DURATION, "producer.id.expiration.ms", 1, INT64_MAX / 2000000, "86400000", NULL,                    \
      "A producer's last sequence numbers are forgotten after so long without a batch from it.")                                     \
    X(meta_map_bytes, SIZE, "meta.map.bytes", 1 << 20, INT64_C(1) << 36, "64MiB", NULL,                                              \
      "Address space for the metadata to start with; it grows by itself.")                                                           \
    X(dirty_max_bytes, SIZE, "log.dirty.max.bytes", -1, INT64_MAX / 2, "-1", NULL,                                                   \
      "Data that may be written and not yet synced, of all topics; writers wait beyond it. -1: an eighth of the memory that this "    \
      "process may use, at least 16 MiB. Lower it where clients run in containers with less memory than the daemon; 0: no limit.")    \
    X(group_max_metadata_bytes, SIZE, "group.max.metadata.bytes", 65536, INT64_C(1) << 32, "64MiB", NULL,                            \
      "Memory for the names, subscriptions, metadata and assignments of a group's members.")                                         \
    X(group_min_session_ms, DURATION, "group.min.session.timeout.ms", 1, INT32_MAX, "6000", NULL, "Least session time-out of a member.") \
    X(group_max_session_ms, DURATION, "group.max.session.timeout.ms", 1, INT32_MAX, "1800000", NULL, "Largest session time-out of a member.") \
    X(group_initial_delay_ms, DURATION, "group.initial.rebalance.delay.ms", 0, INT32_MAX, "0", NULL,                                 \
      "How long a group without members waits for more after the first has joined.")                                                 \
    X(offset_metadata_max_bytes, SIZE, "offset.metadata.max.bytes", 0, 65535, "4096", NULL, "Largest metadata of a committed offset.")  \
    X(offsets_retention_minutes, NUMBER, "offsets.retention.minutes", 1, INT32_MAX, "10080", NULL,                                   \
      "Committed offsets of a group expire so long after its last member left, or, of one that never had members, after the commit.")   \
    X(offsets_check_interval_ms, DURATION, "offsets.retention.check.interval.ms", 1, INT64_MAX / 2000000, "600000", NULL,            \
      "How often expired offsets are looked for.")                                                                                   \
    X(offsets_groups_max, NUMBER, "offsets.groups.max", 1, INT32_MAX, "100000", NULL, "Groups that may have committed offsets.")     \
    X(offsets_per_group_max, NUMBER, "offsets.per.group.max", 1, INT32_MAX, "131072", NULL, "Committed offsets of one group.")       \
    X(offsets_memory_max_bytes, SIZE, "offsets.memory.max.bytes", 65536, INT64_MAX / 2, "256MiB", NULL,                              \
      "Memory for the committed offsets of all groups, about 250 bytes each and their metadata.")                                    \
    X(quota_window_ms, DURATION, "quota.window.ms", 1, 3600000, "1000", NULL,                                                        \
      "Who uses less than his quota saves so much of it for a burst.")                                                               \
    X(max_topics, NUMBER, "max.topics", 0, INT32_MAX, "0", NULL, "Most topics; 0: no limit.")                                        \
    X(max_partitions, NUMBER, "max.partitions", 0, INT32_MAX, "0", NULL, "Most partitions of all topics together; 0: no limit.")     \
    X(max_connections, NUMBER, "max.connections", 0, INT32_MAX, "0", NULL,                                                           \
      "Most connections at a time; one more is told so and closed. 0: no limit but that of open files.")                             \
    X(max_connections_per_uid, NUMBER, "max.connections.per.uid", 0, INT32_MAX, "0", NULL,                                           \
      "Most connections of one user at a time; 0: no limit.")                                                                        \
    X(max_groups, NUMBER, "max.groups", 0, INT32_MAX, "0", NULL, "Most groups; 0: no limit.")                                        \
    X(group_max_size, NUMBER, "group.max.size", 0, INT32_MAX, "0", NULL, "Most members of a group; 0: no limit.")                    \
    X(connection_memory_max_bytes, SIZE, "connection.memory.max.bytes", 65536, 1 << 30, "8MiB", NULL,                                \
      "A connection is not read from while its requests that are not done take more.")                                               \
    X(disk_reserve_bytes, SIZE, "disk.reserve.bytes", 0, INT64_MAX / 2, "16MiB", NULL,                                               \
      "Free space that data may not take, so that metadata and deletes go on; at most a twentieth of the file system. Below it "     \
      "appends answer \"disk full\" until there is half as much again.")                                                            \
    X(cleaner_dedupe_bytes, SIZE, "log.cleaner.dedupe.buffer.size", 65536, INT64_C(1) << 40, "64MiB", NULL,                          \
      "Memory of the cleaner's map of keys, 24 bytes a key; half as much again for a moment while it grows. Keys that do not fit "     \
      "are cleaned in a further pass.")                                                                                              \
    X(cleaner_io_bytes, SIZE, "log.cleaner.io.max.bytes.per.second", -1, INT64_MAX / 2, "-1", NULL,                                  \
      "Most that the cleaner reads and writes in a second, together; -1: no limit.")                                                 \
    X(cleaner_backoff_ms, DURATION, "log.cleaner.backoff.ms", 1, INT64_MAX / 2000000, "15000", NULL,                                 \
      "How long the cleaner sleeps when there is nothing to clean.")

#define BW_TOPIC_OPTIONS(X)                                                                                                          \
    X(retention_ms, DURATION, "retention.ms", -1, INT64_MAX / 2000000, "604800000", NULL,                                            \
      "Whole segments whose newest record is older are deleted; -1: never.")                                                         \
    X(retention_bytes, SIZE, "retention.bytes", -1, INT64_MAX, "-1", NULL,                                                           \
      "Whole segments are deleted, oldest first, while the partition would still hold this much; -1: no limit.")                     \
    X(segment_bytes, SIZE, "segment.bytes", 1024, 2147483647, "1073741824", NULL, "Largest segment file.")                           \
    X(segment_ms, DURATION, "segment.ms", 1, INT64_MAX / 2000000, "604800000", NULL,                                                 \
      "A segment is closed after so long even if it is not full.")                                                                   \
    X(max_message_bytes, SIZE, "max.message.bytes", 128, 1 << 30, "1048588", NULL, "Largest record batch, as stored.")               \
    X(index_interval_bytes, SIZE, "index.interval.bytes", 64, 1 << 30, "4096", NULL,                                                 \
      "An entry in the offset and time index about every so many bytes.")                                                            \
    X(file_delete_delay_ms, DURATION, "file.delete.delay.ms", 0, INT64_MAX / 2000000, "60000", NULL,                                 \
      "A deleted segment's file stays so long, for those who still read it.")                                                        \
    X(timestamp_type, CHOICE, "message.timestamp.type", 0, 0, "CreateTime", "CreateTime|LogAppendTime",                              \
      "Whose clock a record's time is: the producer's, or the log's when the batch is appended.")                                    \
    X(compression_type, CHOICE, "compression.type", 0, 0, "producer", "producer|uncompressed|gzip|snappy|lz4|zstd",                  \
      "How batches are stored: as the producer sends them, or all with one codec.")                                                  \
    X(cleanup_policy, CHOICE, "cleanup.policy", 0, 0, "delete", "delete|compact|compact,delete",                                     \
      "What becomes of old records: delete segments by retention.ms and retention.bytes; compact: keep the last value of each key; "   \
      "or both. Records of a compacted topic need a key; a null value deletes one.")                                                  \
    X(min_cleanable_dirty_ratio, RATIO, "min.cleanable.dirty.ratio", 0, 1, "0.5", NULL,                                              \
      "A log is compacted when more than this part of it was written since the last time.")                                          \
    X(min_compaction_lag_ms, DURATION, "min.compaction.lag.ms", 0, INT64_MAX, "0", NULL,                                             \
      "A record stays at least so long, although there is a newer one with its key.")                                                \
    X(max_compaction_lag_ms, DURATION, "max.compaction.lag.ms", 1, INT64_MAX, "9223372036854775807", NULL,                           \
      "A record is looked at by the cleaner after so long at the latest.")                                                           \
    X(delete_retention_ms, DURATION, "delete.retention.ms", 0, INT64_MAX / 2, "86400000", NULL,                                      \
      "How long a null value is still there after it was compacted for the first time, for those who read from the start.")           \
    X(replicas, NUMBER, "replicas", 0, 16, "0", NULL,                                                                                \
      "Linked peers that must have a record before it counts as replicated: for acks=replicated, and for readers of what is "         \
      "replicated. 0: nobody asks.")                                                                                                  \
    X(replicas_acks, CHOICE, "replicas.acks", 0, 0, "durable", "durable|visible",                                                    \
      "When a peer has a record: durable: it is on the disk here and on the disk of as many peers as replicas says; visible: readers " \
      "there can see it, and a loss of power at all of these hosts at once can take it away.")                                        \
    X(read_limit, CHOICE, "read.limit", 0, 0, "visible", "visible|durable|replicated",                                               \
      "The least that readers of the topic get, whatever they ask for: everything that is visible, what is on the disk, or what is "   \
      "replicated; for readers that are opened from then on. Links copy what is visible.")
/* clang-format on */

extern const bw_option bw_daemon_options[];
extern const size_t bw_daemon_option_count;
extern const bw_option bw_topic_options[];
extern const size_t bw_topic_option_count;

#endif
