/* link/spec.h: what a link is to do: its options as a struct, as text, and as the record in LMDB. Pure.
 *
 * Options are name and value, the same in `busway link add`, in LINK_ADD, in the configuration file's [link NAME] sections and in the
 * record, which is: u8 version 1 · be16 count · count times { be16 name length · name · be32 value length · value } */
#ifndef BW_LINK_SPEC_H
#define BW_LINK_SPEC_H

#include "base/bytes.h"
#include "base/err.h"
#include "proto/message.h"

#define BW_LINK_NAME_MAX 64u
#define BW_LINK_TEXT_MAX 4096u /* bytes of one option's value */
#define BW_LINK_RECORD_VERSION 1u

typedef struct bw_pattern {
    char *text;      /* as given */
    void *regex;     /* '^…': compiled; NULL: a name */
    int32_t priority;
} bw_pattern;

typedef struct bw_patterns {
    bw_pattern *items;
    size_t count;
} bw_patterns;

typedef struct bw_link_spec {
    char name[BW_LINK_NAME_MAX + 1];
    char *url;              /* of the peer */
    bool push;              /* direction: push (from here), else pull */
    bw_link_mode mode;
    bw_patterns topics;     /* of the source: names or '^pattern's, comma-separated; priority: "topics=alarms:10,^metrics" */
    char *prefix;           /* of the target's name; NULL */
    char *rename;           /* target's name when there is exactly one topic by name; NULL */
    char *key_prefix;       /* filters; NULL */
    char *header, *header_value;
    int64_t rate;           /* bytes a second on the wire; 0: no limit */
    bw_codec codec;         /* on the wire */
    bool topic_configs;     /* they travel */
    bw_patterns groups;     /* whose committed offsets travel */
    bool follow_start;      /* mirrors: what the origin has deleted at its log's start is deleted */
    bool durable;           /* only what is on the origin's disk is copied */
    bool paused;
    bool is_static;         /* from the configuration file */
    bw_config_pair *extra;  /* options of other endpoints, as given: "kafka.…" */
    size_t extra_count;
    bw_buf text;            /* what the strings of extra lie in */
} bw_link_spec;

/* bw_link_spec_set: INVALID_ARGUMENT names the option, what is wrong and what is allowed. value NULL: the default. */
bw_err bw_link_spec_set(bw_link_spec *s, const char *name, size_t name_len, const char *value, size_t value_len);
/* bw_link_spec_check: what depends on several options; and that url, topics are there. */
bw_err bw_link_spec_check(const bw_link_spec *s);
bw_err bw_link_spec_init(bw_link_spec *s, bw_str name);
void bw_link_spec_fini(bw_link_spec *s);
/* bw_link_spec_encode: the record, appended to out. decode: bounded by len; CORRUPT, NEWER_FORMAT. */
bw_err bw_link_spec_encode(const bw_link_spec *s, bw_buf *out);
bw_err bw_link_spec_decode(bw_str name, const void *data, size_t len, bw_link_spec *out);
/* bw_link_spec_each: every option that differs from its default. */
void bw_link_spec_each(const bw_link_spec *s, void (*fn)(void *opaque, const char *name, const char *value), void *opaque);

/* bw_link_spec_is_cluster: the peer is a Kafka cluster. */
bool bw_link_spec_is_cluster(const bw_link_spec *s);
/* bw_patterns_match: *priority of the first that matches. Names of the daemon's own topics ("__…") match by name only. */
bool bw_patterns_match(const bw_patterns *p, const char *name, int32_t *priority);
/* bw_link_specs_mix: both merge into a topic of one name at one place (as far as their options say), but filter differently: a topic's name, of
 * either; else NULL. Pushes to different peers never do. */
const char *bw_link_specs_mix(const bw_link_spec *a, const bw_link_spec *b, char *out, size_t size);
/* bw_link_spec_target: the target's name of a source topic. INVALID_TOPIC: too long. */
bw_err bw_link_spec_target(const bw_link_spec *s, const char *topic, char *out, size_t size);

#endif
