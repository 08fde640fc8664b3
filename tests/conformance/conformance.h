/* conformance.h: the C runner of the conformance suite (README.md says what the data means). Public API and jansson only.
 *
 * A verb is a function that does one step and gives its result as JSON, or the error that the library gave. What is wrong with the scenario
 * itself (an unknown handle, a text where a number belongs) goes to broken(), which fails it whatever it expects. */
#ifndef BW_TESTS_CONFORMANCE_H
#define BW_TESTS_CONFORMANCE_H

#include <busway/busway.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PATIENCE_MS = 10000 };

typedef enum kind { KIND_BUS, KIND_PRODUCER, KIND_CONSUMER, KIND_QUEUE, KIND_STATE, KIND_TXN, KIND_MESSAGES } kind;

typedef struct world world;

typedef struct handle {
    struct handle *next; /* the one that was opened before it */
    world *world;
    kind kind;
    char name[64];
    void *object;        /* bw_bus, bw_producer, …; NULL for messages */
    json_t *inbox;       /* consumer: records read and not yet given to the scenario */
    json_t *told;        /* consumer: rebalance events; producer: outcomes of asynchronous sends, null: not known yet */
    json_t *outcomes;    /* consumer: of asynchronous commits */
    json_t *reached;     /* consumer: {"topic/partition": the last offset that came} */
    bool commits_revoked;
    bw_message *messages;
    size_t count;
} handle;

struct world {
    const char *url;
    char dir[512];          /* "" when the bus has no folder here */
    bw_transport transport;
    json_t *can;            /* {"capability": true} */
    json_t *vars;
    handle *handles;        /* the newest first */
    void **scratch;         /* of the step that runs */
    size_t scratch_count, scratch_room;
    bool is_broken;
    char why[2048];         /* why the scenario failed */
};

/* ---- value.c: the data ---- */
json_t *value_expand(const json_t *v);                                   /* generate and repeat; a new reference */
json_t *value_substitute(const world *w, const json_t *v);               /* $name and the like; a new reference */
bool value_matches(const json_t *seen, const json_t *wanted, char *why, size_t room);
json_t *value_at(json_t *v, const char *path);                           /* borrowed; NULL: not there */
json_t *value_bytes(const void *bytes, size_t len);                      /* NULL: null */

/* ---- world.c: handles, arguments, memory of a step ---- */
void broken(world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void *scratch(world *w, size_t bytes);                                   /* zeroed, until the step is done */
void scratch_free(world *w);
handle *handle_add(world *w, kind k, const char *name, void *object);
handle *handle_find(world *w, kind k, const char *name);                 /* broken and NULL when there is none */
handle *handle_on(world *w, json_t *step, kind k);                       /* by "on", or the kind's own name */
void handle_close(world *w, handle *h, bw_err *error);                   /* and forget */
const char *kind_name(kind k);                                           /* the name of a handle that bears none */
const char *name_made(json_t *step, kind k);                             /* by "as" */

const char *arg_text(world *w, json_t *step, const char *name);          /* must be there */
const char *arg_text_or(json_t *step, const char *name, const char *other);
int64_t arg_int(json_t *step, const char *name, int64_t other);
int32_t arg_timeout(json_t *step, int32_t other);
int32_t arg_partition(json_t *step);                                     /* BW_PARTITION_ANY when not given */
int64_t arg_offset(world *w, json_t *v, int64_t other);
void arg_bytes(world *w, json_t *v, const void **bytes, size_t *len);
bw_record arg_record(world *w, json_t *v);
bw_topic_partition *arg_parts(world *w, json_t *list, size_t *count);
json_t *seen_offset(int64_t offset);
json_t *seen_error(bw_err e);                                            /* null or the name */
json_t *seen_record(const bw_batch *b, const bw_record_view *r);
json_t *seen_headers(const bw_record_view *r);
bw_err seen_json(world *w, bw_err e, char *text, json_t **result);       /* a document of the library; frees it */
bw_transport transport_named(const char *name);                          /* NULL, unknown: auto */
bw_err error_named(const char *name);                                    /* BW_OK for "OK"; -1 when there is none such */
int64_t clock_ms(void);
int64_t wall_ms(void);

/* ---- verbs ---- */
typedef bw_err (*verb_fn)(world *w, json_t *step, json_t **result);
typedef struct verb { const char *name; verb_fn run; } verb;
extern const verb bus_verbs[], producer_verbs[], consumer_verbs[], group_verbs[], queue_verbs[], state_verbs[]; /* end with {NULL, NULL} */
bw_err consumer_pump(world *w, handle *h, int32_t timeout_ms);           /* one poll into the inbox; also runs its callbacks */

#endif
