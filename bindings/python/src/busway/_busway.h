/* _busway.h: the C extension of the package `busway`, inside.
 *
 * Threads and the GIL. Everything here is guarded by the GIL but what is marked otherwise. A call of libbusway that can wait or copies much
 * runs without it; `core.inside` counts such calls, so that close waits for them (or, of a consumer, wakes them) instead of freeing what
 * they use. Consumers, queues and states belong to one thread at a time: another one gets ConcurrentUseError.
 *
 * Signals. A wait that can be repeated is cut into slices (BWPY_SLICE_MS) with a look at Python's signals between them. A call that can't
 * be repeated runs, when the main thread makes it, in a helper thread (work.c); an interrupt leaves it there to end by itself.
 *
 * Fork. `bwpy_generation` changes in a child; each object knows the one that it was made in and refuses in another.
 *
 * Memory of the log. A batch's memory is the log itself, good until the consumer's next poll. Python's views of it are counted
 * (batch.exports); while there are any, what would end the batch raises BufferError. References go view -> batch -> consumer -> bus, so
 * nothing is closed under a view. */
#ifndef BUSWAY_PY_H
#define BUSWAY_PY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <busway/busway.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <structmember.h>

/* Of any of our structs, which all begin as an object does. */
static inline void bwpy_incref(PyObject *o) { Py_INCREF(o); }
static inline void bwpy_decref(PyObject *o) { Py_DECREF(o); }
#undef Py_INCREF
#undef Py_DECREF
#define Py_INCREF(o) bwpy_incref((PyObject *)(o))
#define Py_DECREF(o) bwpy_decref((PyObject *)(o))

#define BWPY_SLICE_MS 100
#define BWPY_FOREVER INT64_C(-1)

extern unsigned bwpy_generation; /* of this process; changes in a forked child */

/* ---- error.c ---- */
extern PyObject *bwpy_closed, *bwpy_concurrent, *bwpy_released, *bwpy_forked;
/* bwpy_raise: the exception for a code; message NULL: the thread's last. Returns NULL. */
PyObject *bwpy_raise(bw_err e, const char *message);
/* bwpy_make_error: the exception object itself, for deliveries. */
PyObject *bwpy_make_error(bw_err e, const char *message);
int bwpy_error_init(PyObject *module);
PyObject *bwpy_set_errors(PyObject *self, PyObject *args);

/* ---- work.c ---- */
/* Lives on when its object goes while a helper thread is inside. */
typedef struct bwpy_core {
    _Atomic int inside; /* calls under way, of all threads */
    _Atomic int refs;
    void *handle;       /* bw_bus *, …; NULL: closed */
} bwpy_core;

typedef struct bwpy_job bwpy_job;
/* A call that can't be cut into slices. The first field of a struct of its own, from bwpy_job_new. */
struct bwpy_job {
    bwpy_job *next;
    void (*run)(bwpy_job *job);  /* without the GIL, in some thread */
    void (*drop)(bwpy_job *job); /* may be NULL; without the GIL: nobody takes the result */
    PyObject *keep;              /* what its pointers lead into: lives as long as the job */
    bwpy_core *core;             /* or NULL: counted as inside meanwhile */
    bw_err error;
    int state; /* work.c */
    char message[512];
};
void *bwpy_job_new(size_t size, void (*run)(bwpy_job *), PyObject *keep, bwpy_core *core);
/* bwpy_run: 0: the job has run (error and message are set; the caller frees it); -1: a Python exception, the job is no longer the caller's. */
int bwpy_run(bwpy_job *job);
void bwpy_job_free(bwpy_job *job);
/* bwpy_note: the job's outcome is e, with the thread's message. */
void bwpy_note(bwpy_job *job, bw_err e);
void bwpy_core_unref(bwpy_core *core);
int bwpy_work_init(void);
/* bwpy_pause: 1 ms without the GIL. */
void bwpy_pause(void);

/* A time-out in seconds (None: for ever) as the monotonic ms when it is over; BWPY_FOREVER. -1 and an exception. */
int bwpy_deadline(PyObject *seconds, int64_t *deadline);
int64_t bwpy_deadline_after(int64_t ms);
int32_t bwpy_slice(int64_t deadline); /* ms of the next slice; 0 when it is over */
bool bwpy_over(int64_t deadline);
int32_t bwpy_left(int64_t deadline);  /* ms, -1: for ever */
bool bwpy_is_main(void);

/* ---- log.c ---- */
PyObject *bwpy_set_log(PyObject *self, PyObject *handler);
void bwpy_log(void *opaque, bw_log_level level, const char *message);
/* bwpy_drain_log: hand what was logged meanwhile to Python's logging. Errors in it are unraisable. */
void bwpy_drain_log(void);
void bwpy_log_fork_lock(void);
void bwpy_log_fork_unlock(bool child);

/* ---- args.c ---- */
/* One bytes-like argument; None: NULL. Borrowed from the object for bytes, a buffer otherwise: release it. */
typedef struct bwpy_bytes {
    const void *data;
    size_t len;
    Py_buffer view;
    bool held;
} bwpy_bytes;
int bwpy_get_bytes(PyObject *o, const char *what, bwpy_bytes *out);
static inline void bwpy_put_bytes(bwpy_bytes *b)
{
    if (b->held) PyBuffer_Release(&b->view);
    b->held = false;
}
/* Headers: None, a mapping, or an iterable of (name, value) pairs. */
typedef struct bwpy_headers {
    bw_header *items;
    size_t count;
    PyObject *keep; /* a list of all that `items` is and points into; NULL: no headers */
} bwpy_headers;
int bwpy_get_headers(PyObject *o, bwpy_headers *out);
void bwpy_put_headers(bwpy_headers *h);
/* Arguments of a METH_FASTCALL|METH_KEYWORDS function into out[0..count): NULL where not given. */
int bwpy_parse(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, const char *const *names, int count,
               int required, int positional, PyObject **out);
int bwpy_get_int32(PyObject *o, const char *what, int32_t *out);
int bwpy_get_int64(PyObject *o, const char *what, int64_t *out);
/* bwpy_text: UTF-8 of a str, valid as long as it; NULL and an exception. */
const char *bwpy_text(PyObject *o, const char *what);
PyObject *bwpy_bytes_or_none(const void *data, size_t len);
/* bwpy_headers_list: a record's headers as a list of (str, bytes or None). */
PyObject *bwpy_headers_list(const bw_record_view *record);
/* (topic, partition, offset, leader_epoch, metadata or None, error) tuples from parts, and parts from such tuples (without error). *keep
 * holds what the parts point into; PyMem_Free(*parts). None: *parts NULL. */
PyObject *bwpy_parts_list(const bw_topic_partition *parts, size_t count);
int bwpy_get_parts(PyObject *list, bw_topic_partition **parts, size_t *count, PyObject **keep);

/* ---- handle.c ---- */
typedef enum bwpy_kind { BWPY_BUS, BWPY_PRODUCER, BWPY_CONSUMER, BWPY_QUEUE, BWPY_STATE } bwpy_kind;

typedef struct bwpy_handle {
    PyObject_HEAD
    bwpy_core *core;
    bwpy_kind kind;
    bool closing;
    unsigned generation;
    unsigned long thread; /* single-threaded kinds: who is inside */
    int depth;
    struct bwpy_handle *parent; /* strong; NULL for a bus */
    struct bwpy_handle *children, *next, **before;
    PyObject *weak;
} bwpy_handle;

extern PyTypeObject *bwpy_bus_type, *bwpy_producer_type, *bwpy_consumer_type, *bwpy_queue_type, *bwpy_state_type;
extern PyTypeObject *bwpy_record_type, *bwpy_message_type, *bwpy_delivery_type;

/* bwpy_handle_new: an object of the type around a libbusway handle; its other fields are zero. */
bwpy_handle *bwpy_handle_new(PyTypeObject *type, bwpy_kind kind, bwpy_handle *parent, void *c);
/* bwpy_enter: the libbusway handle, counted as used; NULL and an exception: closed, forked, another thread is inside. */
void *bwpy_enter(bwpy_handle *h);
void bwpy_leave(bwpy_handle *h);
/* bwpy_close: by kind, children first; 0 or -1 with an exception. final: from a dealloc, does what it can. */
int bwpy_close(bwpy_handle *h, int64_t deadline);
/* bwpy_finish: what a dealloc does first: warn, close, unlink. */
void bwpy_finish(bwpy_handle *h);
void bwpy_free(PyObject *self);
PyObject *bwpy_no_pickle(PyObject *self, PyObject *unused);
PyObject *bwpy_no_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);
PyObject *bwpy_get_closed(PyObject *self, void *unused);
/* bwpy_type: a heap type from its spec, added to the module when it has a name. */
PyTypeObject *bwpy_type(PyObject *module, PyType_Spec *spec, PyTypeObject *base, const char *name);
int bwpy_handle_traverse(PyObject *self, visitproc visit, void *arg);

int bwpy_bus_init(PyObject *module);
int bwpy_producer_init(PyObject *module);
int bwpy_reserve_init(PyObject *module);
int bwpy_consumer_init(PyObject *module);
int bwpy_batch_init(PyObject *module);
int bwpy_record_init(PyObject *module);
int bwpy_queue_init(PyObject *module);
int bwpy_state_init(PyObject *module);

/* ---- admin.c, inspect.c: methods of Bus and functions of the module ---- */
PyObject *bwpy_admin(PyObject *self, PyObject *args);
PyObject *bwpy_redrive(PyObject *self, PyObject *args);
PyObject *bwpy_verify(PyObject *self, PyObject *args);
PyObject *bwpy_dump(PyObject *self, PyObject *args);

/* ---- producer*.c ---- */
typedef struct bwpy_told { /* a delivery that waits for its callback */
    struct bwpy_told *next;
    struct bwpy_outbox *outbox;
    PyObject *callback;
    bw_delivery delivery;
    char topic[BW_TOPIC_NAME_MAX + 1];
    char *message; /* malloc'd */
} bwpy_told;

/* What delivery callbacks, which run without the GIL, leave for Python. Guarded by its mutex; lives on as long as the library may call. */
typedef struct bwpy_outbox {
    pthread_mutex_t mutex;
    bwpy_told *head, *tail;
    _Atomic int64_t waiting;     /* in the list */
    _Atomic int64_t outstanding; /* sent asynchronously, not told yet */
    uint64_t failed;             /* of those that nobody asked about, since the last flush; the first's: */
    bw_err first;
    char message[512];
} bwpy_outbox;

typedef struct bwpy_producer {
    bwpy_handle base;
    bwpy_outbox *outbox;
    PyObject *value_serializer, *key_serializer; /* NULL: none */
    uint32_t sends;
    int busy;             /* sends in a row that could not be done at once */
    int32_t delivery_timeout_ms;
    bool queued;          /* durable or in transactions: sends are never done at once */
    int reservations;
    bool in_callback;
} bwpy_producer;

/* What a send is given, ready for libbusway. */
typedef struct bwpy_outgoing {
    const char *topic;
    int32_t partition;
    bw_record record;
    PyObject *topic_object, *value, *key; /* value and key: strong, serialised */
    bwpy_bytes value_bytes, key_bytes;
    bwpy_headers headers;
} bwpy_outgoing;
/* bwpy_outgoing_get: value, key, partition, timestamp_ms and headers may be NULL. 0, or -1 with an exception and nothing held. */
int bwpy_outgoing_get(bwpy_producer *p, PyObject *topic, PyObject *value, PyObject *key, PyObject *partition, PyObject *timestamp_ms,
                      PyObject *headers, bwpy_outgoing *out);
void bwpy_outgoing_put(bwpy_outgoing *o);
int bwpy_get_partition(PyObject *o, int32_t *out);
/* bwpy_flush: what is under way, in slices; 0, or -1 with an exception. No callbacks are run. The producer is entered. */
int bwpy_flush(bw_producer *handle, int64_t deadline);
PyObject *bwpy_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
/* The same, always queued: never waits but for room. */
PyObject *bwpy_queue_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *bwpy_try_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *bwpy_send_sync(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *bwpy_send_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *bwpy_reserve(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *bwpy_transaction(PyObject *self, PyObject *args);
PyObject *bwpy_last_sequence(PyObject *self, PyObject *args);
/* bwpy_delivered: run the callbacks that wait; how many, or -1 with what the first failing one raised. */
int bwpy_delivered(bwpy_producer *p);
/* bwpy_serialize: o by the serialiser (NULL: as it is): a new reference. */
PyObject *bwpy_serialize(PyObject *serializer, PyObject *o);
PyObject *bwpy_delivery_make(const char *topic, const bw_delivery *d, PyObject *error);

/* ---- record.c ---- */
typedef struct bwpy_record { /* a copy; owns everything */
    PyObject_HEAD
    PyObject *topic, *key, *value, *headers; /* headers NULL: none */
    long long offset, timestamp_ms;
    int partition, timestamp_type, leader_epoch;
    int deliveries;        /* messages of a queue */
    PyObject *queue;       /* messages of a queue: whom to acknowledge to; else NULL */
    const char *c_topic;   /* the same: libbusway's name, valid while the queue is open */
} bwpy_record;
PyObject *bwpy_record_make(PyTypeObject *type, PyObject *topic, int32_t partition, int32_t leader_epoch, int timestamp_type,
                           const bw_record_view *v, PyObject *value_deserializer, PyObject *key_deserializer);

/* ---- state.c ---- */
struct bwpy_txn;
typedef struct bwpy_state {
    bwpy_handle base;          /* parent: the consumer */
    struct bwpy_txn *txns;     /* open ones; not counted */
} bwpy_state;
/* bwpy_close_state: in the calling thread: what is open in it is aborted. */
void bwpy_close_state(bwpy_handle *h);

/* ---- consumer*.c ---- */
typedef struct bwpy_batch bwpy_batch;
typedef struct bwpy_consumer {
    bwpy_handle base;
    bw_batch info;            /* the present batch and its records: all decoded at once */
    bw_record_view *records;
    int32_t capacity, count, at; /* at: the next one to give */
    bool corrupt;             /* what follows the decoded ones is: told when they were given */
    bool state_txn;           /* the present batch belongs to a state transaction: not to be given by iteration */
    bwpy_batch *batch;        /* the Python object of it: borrowed; NULL: there is none */
    PyObject *topic;          /* str of topic_name, made when it is wanted: bwpy_topic */
    char topic_name[BW_TOPIC_NAME_MAX + 1]; /* of the present batch */
    bool topic_changed;
    PyObject *value_deserializer, *key_deserializer;
    PyObject *on_rebalance;   /* or NULL */
    int64_t iter_timeout_ms;  /* consumer_timeout_ms: iteration ends when nothing came for so long; -1: never */
    PyObject *raised_type, *raised, *raised_trace; /* by a callback, to be raised when the call returns */
    PyThreadState *saved;     /* while inside without the GIL */
    bool in_callback;
    bool has_state;
} bwpy_consumer;

struct bwpy_batch {
    PyObject_HEAD
    bwpy_consumer *consumer;  /* strong; NULL: released */
    PyObject *topic;
    bw_batch info;
    const bw_record_view *records;
    int32_t count;
    int exports;
    unsigned generation;
    PyObject *columns[4];     /* made once, kept */
};

/* Without the GIL: around calls of libbusway that may run callbacks of this consumer. */
#define BWPY_CONSUMER_BEGIN(c) (c)->saved = PyEval_SaveThread()
#define BWPY_CONSUMER_END(c)               \
    do {                                   \
        PyThreadState *back_ = (c)->saved; \
        (c)->saved = NULL;                 \
        PyEval_RestoreThread(back_);       \
    } while (0)
/* bwpy_saved: for a callback: the thread's state, taken: what the callback calls saves its own. */
static inline PyThreadState *bwpy_saved(bwpy_consumer *c)
{
    PyThreadState *saved = c->saved;
    c->saved = NULL;
    return saved;
}
/* bwpy_retire: the present batch ends here; records of it that were not given come again. -1 and BufferError while it has views. */
int bwpy_retire(bwpy_consumer *c, bw_consumer *handle);
/* bwpy_fetch: the next batch into the consumer: 1; 0 when the time is over; -1 with an exception. The consumer is entered. */
int bwpy_fetch(bwpy_consumer *c, bw_consumer *handle, int64_t deadline);
/* bwpy_topic: the present batch's topic, borrowed. */
PyObject *bwpy_topic(bwpy_consumer *c);
/* bwpy_take: a batch that libbusway gave becomes the present one. No GIL needed; false: memory is short. */
bool bwpy_take(bwpy_consumer *c, const bw_batch *batch);
PyObject *bwpy_batch_make(bwpy_consumer *c);
/* bwpy_raise_poll: the error of a poll as the exception, which says the partition that it is about, where the library does. */
void bwpy_raise_poll(bwpy_consumer *c, bw_err e, const bw_batch *batch);
/* bwpy_callback_error: what a callback raised becomes the exception: -1; 0: there was none. */
int bwpy_callback_error(bwpy_consumer *c);
void bwpy_on_rebalance(bw_consumer *consumer, bw_rebalance event, const bw_topic_partition *parts, size_t count, void *opaque);
PyObject *bwpy_commit(PyObject *self, PyObject *args);
PyObject *bwpy_commit_async(PyObject *self, PyObject *args);
PyObject *bwpy_committed(PyObject *self, PyObject *args);
/* bwpy_given_offset: the present batch's next record that was not given, when it is of this partition; else -1. */
int64_t bwpy_given_offset(const bwpy_consumer *c, const char *topic, int32_t partition);
PyObject *bwpy_assignment(PyObject *self, PyObject *unused);
PyObject *bwpy_subscription(PyObject *self, PyObject *unused);
PyObject *bwpy_group_metadata(PyObject *self, PyObject *unused);
PyObject *bwpy_subscribe(PyObject *self, PyObject *topics);
PyObject *bwpy_unsubscribe(PyObject *self, PyObject *unused);
PyObject *bwpy_place(PyObject *self, PyObject *args);
PyObject *bwpy_gather_into(PyObject *self, PyObject *args);
bool bwpy_batch_ok(bwpy_batch *b); /* else an exception */

#endif
