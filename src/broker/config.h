/* broker/config.h: the daemon's and the topics' configuration: one table each that parses, checks, prints and documents.
 *
 * The X-macro tables live in config.c; the man page and `buswayd --help-config` are generated from them. */
#ifndef BW_BROKER_CONFIG_H
#define BW_BROKER_CONFIG_H

#include "base/err.h"
#include "base/bytes.h"
#include "log/partition.h"

#include <busway/bus.h>

/* Called for each event the daemon logs. fields: "key=value" text after the event, already escaped; may be "". */
typedef void (*bw_event_fn)(void *opaque, bw_log_level level, const char *event, const char *fields);

/* One option of a [link NAME] section, as it was written. */
typedef struct bw_link_option {
    char *link, *name, *value;
} bw_link_option;

typedef struct bw_daemon_config {
    char *data_dir;
    char *runtime_dir;      /* default: <data_dir>/run */
    char **listen;          /* "ipc://…" URLs; default ipc://<runtime>/bus.sock */
    size_t listen_count;
    char **listeners; /* listeners: tcp://, for other hosts; none */
    size_t listeners_count;
    bool listeners_insecure;
    char *tls_certificate, *tls_key, *tls_client_ca;
    char tls_client_auth[12];
    char anonymous_role[8]; /* anonymous.role */
    char *listen_rep;       /* default: rep.sock beside the first listener; "none": off */
    int64_t idle_exit_ms;   /* 0: never */
    bool log_json;
    bw_log_level log_level;
    char *socket_group;     /* group that may produce and consume; default: the daemon's own */
    int32_t num_partitions;              /* num.partitions, 1 */
    bool auto_create_topics;             /* auto.create.topics.enable, true */
    uint32_t socket_request_max_bytes;   /* socket.request.max.bytes */
    int64_t retention_check_interval_ms; /* log.retention.check.interval.ms, 300000 */
    int64_t flush_interval_ms;           /* log.flush.interval.ms: background sync, 1000 */
    int32_t open_segments_max;           /* log.open.segments.max, 512 */
    int64_t transaction_max_timeout_ms;  /* transaction.max.timeout.ms, 900000 */
    int64_t transactional_id_expiration_ms;   /* transactional.id.expiration.ms, 7 days */
    int64_t transaction_checkpoint_bytes;     /* transaction.state.checkpoint.bytes, 8 MiB */
    int64_t producer_id_expiration_ms;   /* producer.id.expiration.ms, 86400000 */
    uint64_t meta_map_bytes;             /* LMDB map size, 64 MiB to start, grows by itself */
    int64_t dirty_max_bytes;             /* log.dirty.max.bytes; -1: an eighth of the memory */
    int64_t group_max_metadata_bytes;    /* group.max.metadata.bytes */
    int64_t group_min_session_ms, group_max_session_ms; /* group.min.session.timeout.ms, group.max.session.timeout.ms */
    int64_t group_initial_delay_ms;      /* group.initial.rebalance.delay.ms, 0 */
    int64_t offset_metadata_max_bytes;   /* offset.metadata.max.bytes, 4096 */
    int32_t offsets_retention_minutes;   /* offsets.retention.minutes, 10080 */
    int64_t offsets_check_interval_ms;   /* offsets.retention.check.interval.ms, 600000 */
    int32_t offsets_groups_max;          /* offsets.groups.max */
    int32_t offsets_per_group_max;       /* offsets.per.group.max */
    int64_t offsets_memory_max_bytes;    /* offsets.memory.max.bytes */
    uint64_t cleaner_dedupe_bytes;       /* log.cleaner.dedupe.buffer.size, 64 MiB */
    int64_t cleaner_io_bytes;            /* log.cleaner.io.max.bytes.per.second, -1 */
    int64_t cleaner_backoff_ms;          /* log.cleaner.backoff.ms, 15000 */
    int64_t quota_window_ms;             /* quota.window.ms, 1000 */
    int32_t max_topics, max_partitions;  /* 0: no limit, as those that follow */
    int32_t max_connections, max_connections_per_uid;
    int32_t max_groups, group_max_size;
    int64_t connection_memory_max_bytes; /* connection.memory.max.bytes, 8 MiB */
    int64_t disk_reserve_bytes;          /* space kept for commits and deletes; below it appends get no new capacity */
    /* defaults for topics: log.retention.ms & co. are given as the topic names in [topic-defaults] */
    struct bw_topic_config *topic_defaults;
    bw_link_option *link_options;        /* in the order of the file */
    size_t link_option_count;
    bw_event_fn event; /* set by the program */
    void *event_opaque;
    bool is_private;   /* started by a program that uses the folder: gives it to a daemon that asks */
    bool in_process;   /* carried by such a program itself: makes no processes */
    void (*handover)(void *opaque); /* of a private one: it was asked for; from the broker thread, must not block */
    void *handover_opaque;
} bw_daemon_config;

typedef struct bw_topic_config {
    int64_t retention_ms;         /* 604800000 */
    int64_t retention_bytes;      /* -1 */
    int64_t segment_bytes;        /* 1073741824 */
    int64_t segment_ms;           /* 604800000 */
    int64_t max_message_bytes;    /* 1048588 */
    int64_t index_interval_bytes; /* 4096 */
    int64_t file_delete_delay_ms; /* 60000 */
    char timestamp_type[16];      /* CreateTime | LogAppendTime */
    char compression_type[16];    /* producer | uncompressed | gzip | snappy | lz4 | zstd */
    char cleanup_policy[16];      /* delete | compact | compact,delete */
    double min_cleanable_dirty_ratio; /* 0.5 */
    int64_t min_compaction_lag_ms;    /* 0 */
    int64_t max_compaction_lag_ms;    /* INT64_MAX: never */
    int64_t delete_retention_ms;      /* 86400000 */
    int32_t replicas;                 /* 0 */
    char replicas_acks[16];           /* durable | visible */
    char read_limit[16];              /* visible | durable | replicated */
} bw_topic_config;

void bw_daemon_config_init(bw_daemon_config *c);
void bw_daemon_config_fini(bw_daemon_config *c);
/* bw_daemon_config_load: an ini file; INVALID_CONFIG names file, line, key, what is allowed. */
bw_err bw_daemon_config_load(bw_daemon_config *c, const char *path);
/* bw_daemon_config_parse: the same for text in memory; name stands for the file in messages. */
bw_err bw_daemon_config_parse(bw_daemon_config *c, const char *name, const char *text, size_t len);
/* bw_daemon_config_copy: to needs no init; NO_MEMORY leaves nothing to free. */
bw_err bw_daemon_config_copy(bw_daemon_config *to, const bw_daemon_config *from);
/* bw_daemon_config_set: one option by its name (command line: --set name=value). */
bw_err bw_daemon_config_set(bw_daemon_config *c, const char *name, const char *value);
/* bw_daemon_config_check: what depends on several options. */
bw_err bw_daemon_config_check(bw_daemon_config *c);
/* bw_daemon_config_link: one option of a link, as text. INVALID_CONFIG: given twice, too many. */
bw_err bw_daemon_config_link(bw_daemon_config *c, const char *link, const char *name, const char *value);
void bw_daemon_config_links_fini(bw_daemon_config *c);
/* bw_daemon_config_reference: the reference as mdoc/roff-free plain text, or as the body of a man page. */
bw_err bw_daemon_config_reference(bw_buf *out, bool man);

static inline bool bw_topic_config_compacts(const bw_topic_config *c) { return c->cleanup_policy[0] == 'c'; }
void bw_topic_config_init(bw_topic_config *c);
/* bw_topic_config_set: Kafka's topic names ("retention.ms"). value NULL: back to `defaults`. */
bw_err bw_topic_config_set(bw_topic_config *c, const bw_topic_config *defaults, const char *name, size_t name_len,
                           const char *value, size_t value_len);
bw_err bw_topic_config_check(const bw_topic_config *c);
/* bw_topic_config_read_limit: the least that readers of the topic get (bw_reader_limit). */
bw_reader_limit bw_topic_config_read_limit(const bw_topic_config *c);
void bw_topic_config_partition(const bw_topic_config *c, bw_partition_config *out);
/* bw_topic_config_each: name, value as text, is it the default? */
void bw_topic_config_each(const bw_topic_config *c, const bw_topic_config *defaults,
                          void (*fn)(void *opaque, const char *name, const char *value, bool is_default), void *opaque);

#endif
