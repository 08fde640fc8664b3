/* _busway.h: the C extension of the package `busway`, inside.
 *
 * Threads and the GIL. Everything here is guarded by the GIL but what is marked otherwise. A call of libbusway that can wait or copies much
 * runs without it; `core.inside` counts such calls, so that close waits for them (or, of a consumer, wakes them) instead of freeing what they
 * use. Consumers, queues and states belong to one thread at a time: another one gets ConcurrentUseError.
 *
 * Signals. A wait that can be repeated is cut into slices (BWPY_SLICE_MS) with a look at Python's signals between them. A call that can't be
 * repeated runs, when the main thread makes it, in a helper thread (work.c); an interrupt leaves it there to end by itself.
 *
 * Fork. `bwpy_generation` changes in a child; each object knows the one that it was made in and refuses in another.
 *
 * Memory of the log. A batch's memory is the log itself, good until the consumer's next poll. Python's views of it are counted
 * (batch.exports); while there are any, what would end the batch raises BufferError. */
#ifndef BUSWAY_PY_H
#define BUSWAY_PY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <busway/busway.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define BWPY_SLICE_MS 100
#define BWPY_FOREVER INT64_C(-1)

extern unsigned bwpy_generation; /* of this process; changes in a forked child */

/* ---- error.c ---- */
extern PyObject *bwpy_error, *bwpy_closed, *bwpy_concurrent, *bwpy_released, *bwpy_forked;
/* bwpy_raise: the exception for a code; message NULL: the thread's last. Returns NULL. */
PyObject *bwpy_raise(bw_err e, const char *message);
/* bwpy_make_error: the exception object itself, for deliveries. */
PyObject *bwpy_make_error(bw_err e, const char *message);
int bwpy_error_init(PyObject *module);
PyObject *bwpy_set_errors(PyObject *self, PyObject *args);

/* ---- work.c ---- */
typedef struct bwpy_job bwpy_job;
/* A call that can't be cut into slices. Embedded as first field; malloc'd; freed by `end`, which runs once, without the GIL, in whichever
 * thread: when abandoned is true nobody takes the result. */
struct bwpy_job {
    bwpy_job *next;
    void (*run)(bwpy_job *job);
    void (*end)(bwpy_job *job, bool abandoned);
    bw_err error;
    char message[512];
    int state; /* work.c */
};
/* bwpy_run: 0: the job has run (error, message are set; the caller calls end); -1: a Python exception, the job is no longer the caller's. */
int bwpy_run(bwpy_job *job);
/* bwpy_fail_job: note e and the thread's message. */
void bwpy_note(bwpy_job *job, bw_err e);
int bwpy_work_init(void);
PyObject *bwpy_set_log(PyObject *self, PyObject *handler);
void bwpy_log(void *opaque, bw_log_level level, const char *message);
/* bwpy_drain_log: hand what was logged meanwhile to Python's logging. Errors in it are unraisable. */
void bwpy_drain_log(void);
bool bwpy_is_main(void);

/* A time-out in seconds (None: for ever) as the monotonic ms when it is over; BWPY_FOREVER. -1 and an exception: error set. */
int bwpy_deadline(PyObject *seconds, int64_t *deadline);
int32_t bwpy_slice(int64_t deadline); /* ms of the next slice; 0 when it is over */
bool bwpy_over(int64_t deadline);
int32_t bwpy_left(int64_t deadline);  /* ms, -1: for ever */

/* ---- arguments (args.c) ---- */
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
    PyObject *keep; /* a list of pairs of (bytes, bytes or None) that `items` points into */
} bwpy_headers;
int bwpy_get_headers(PyObject *o, bwpy_headers *out);
void bwpy_put_headers(bwpy_headers *h);
/* Keyword arguments of a METH_FASTCALL|METH_KEYWORDS function into out[0..count): NULL where not given. required of them must be. */
int bwpy_parse(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, const char *const *names, int count,
               int required, int positional, PyObject **out);
int bwpy_get_int32(PyObject *o, const char *what, int32_t *out);
int bwpy_get_int64(PyObject *o, const char *what, int64_t *out);
/* bwpy_topic: UTF-8 of a str, valid as long as it; NULL and an exception. */
const char *bwpy_text(PyObject *o, const char *what);
PyObject *bwpy_bytes_or_none(const void *data, size_t len, bool null);
/* bwpy_headers_list: a record's headers as a list of (str, bytes or None). */
PyObject *bwpy_headers_list(const bw_record_view *record);

/* ---- handles ---- */
typedef enum bwpy_kind { BWPY_BUS, BWPY_PRODUCER, BWPY_CONSUMER, BWPY_QUEUE, BWPY_STATE } bwpy_kind;

/* Lives on when its object goes while a helper thread is inside. */
typedef struct bwpy_core {
    _Atomic int inside; /* calls under way, of all threads */
    _Atomic int refs;
    void *handle;       /* bw_bus *, …; NULL: closed */
} bwpy_core;

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

extern PyTypeObject *bwpy_bus_type, *bwpy_producer_type, *bwpy_consumer_type, *bwpy_batch_type, *bwpy_view_type, *bwpy_record_type,
    *bwpy_delivery_type, *bwpy_queue_type, *bwpy_message_type, *bwpy_state_type, *bwpy_txn_type, *bwpy_reservation_type,
    *bwpy_column_type, *bwpy_batch_iter_type;

bwpy_handle *bwpy_handle_new(PyTypeObject *type, bwpy_kind kind, bwpy_handle *parent, void *c);
/* bwpy_enter: the libbusway handle, counted as used; NULL and an exception: closed, forked, another thread is inside. */
void *bwpy_enter(bwpy_handle *h);
void bwpy_leave(bwpy_handle *h);
/* bwpy_shut: no new calls; waits until nobody is inside. The libbusway handle to be closed, or NULL: closed before (no exception), or an
 * exception (interrupted). */
void *bwpy_shut(bwpy_handle *h, void (*wake)(void *handle));
void bwpy_handle_unlink(bwpy_handle *h);
/* bwpy_handle_fini: from a dealloc: out of the tree, memory given back. */
void bwpy_handle_fini(bwpy_handle *h);
/* bwpy_close: by kind; 0 or -1 with an exception. */
int bwpy_close(bwpy_handle *h, int64_t deadline);
int bwpy_close_producer(bwpy_handle *h, int64_t deadline);
int bwpy_close_consumer(bwpy_handle *h);
int bwpy_close_queue(bwpy_handle *h);
int bwpy_close_state(bwpy_handle *h);
bool bwpy_has_exports(bwpy_handle *h);
PyObject *bwpy_no_pickle(PyObject *self, PyObject *unused);
void bwpy_warn_unclosed(PyObject *self);
/* bwpy_type: a heap type from its spec, added to the module. */
PyTypeObject *bwpy_type(PyObject *module, PyType_Spec *spec, const char *name);
void bwpy_free(PyObject *self);

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
PyObject *bwpy_group_offsets(PyObject *self, PyObject *args);
PyObject *bwpy_redrive(PyObject *self, PyObject *args);
PyObject *bwpy_verify(PyObject *self, PyObject *args);
PyObject *bwpy_dump(PyObject *self, PyObject *args);

/* ---- producer ---- */
typedef struct bwpy_told { /* a delivery that waits for its callback */
    struct bwpy_told *next;
    PyObject *callback;
    bw_delivery delivery;
    char topic[BW_TOPIC_NAME_MAX + 1];
    char *message;
} bwpy_told;

/* What delivery callbacks, which run without the GIL, leave for Python. Guarded by its mutex; lives on as core does. */
typedef struct bwpy_outbox {
    pthread_mutex_t mutex;
    bwpy_told *head, *tail;
    _Atomic uint64_t failed; /* of those that nobody asked about; the first's: */
    bw_err first;
    char message[512];
} bwpy_outbox;

typedef struct bwpy_producer {
    bwpy_handle base;
    bwpy_outbox *outbox;
    PyObject *value_serializer, *key_serializer; /* NULL: none */
    PyObject *last_topic;       /* the topic whose partitions are known: no look-up */
    uint32_t sends;
    uint32_t reservations;
    uint64_t taken_back;        /* failures that flush has raised */
} bwpy_producer;

PyObject *bwpy_send_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *bwpy_reserve(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *bwpy_txn_call(PyObject *self, PyObject *args);
PyObject *bwpy_last_sequence(PyObject *self, PyObject *args);
/* bwpy_delivered: run the callbacks that wait; 0, or -1 with what the first failing one raised. *ran may be NULL. */
int bwpy_delivered(bwpy_producer *p, int *ran);
/* bwpy_serialize: o by the serialiser (NULL: as it is): a new reference. */
PyObject *bwpy_serialize(PyObject *serializer, PyObject *o);

/* ---- records ---- */
typedef struct bwpy_record { /* a copy; owns everything */
    PyObject_HEAD
    PyObject *topic, *key, *value, *headers; /* headers NULL: none */
    int64_t offset, timestamp_ms;
    int32_t partition, timestamp_type, leader_epoch;
    int32_t deliveries;    /* messages of a queue */
    PyObject *queue;       /* messages of a queue: whom to acknowledge to; else NULL */
} bwpy_record;
PyObject *bwpy_record_make(PyTypeObject *type, PyObject *topic, int32_t partition, int32_t leader_epoch, int timestamp_type,
                           const bw_record_view *v, PyObject *value_deserializer, PyObject *key_deserializer);
PyObject *bwpy_delivery_make(const char *topic, int32_t partition, int64_t offset, int64_t timestamp_ms, PyObject *error);

/* ---- consumer ---- */
typedef struct bwpy_batch bwpy_batch;
typedef struct bwpy_consumer {
    bwpy_handle base;
    bw_batch info;            /* the present batch and its records: all decoded at once */
    bw_record_view *records;
    int32_t capacity, count, at; /* at: the next one to give */
    bwpy_batch *batch;        /* the Python object of it: strong; NULL: none was made */
    PyObject *topic;          /* str of info.topic */
    char topic_name[BW_TOPIC_NAME_MAX + 1];
    PyObject *value_deserializer, *key_deserializer;
    PyObject *on_rebalance;   /* or NULL */
    PyObject *commit_callbacks; /* a deque-like list: callbacks of commits under way, oldest first */
    PyObject *raised_type, *raised, *raised_trace; /* by a callback, to be raised when the call returns */
    PyThreadState *saved;     /* while inside without the GIL */
    bool polled;              /* a batch came with an exception of a callback: it is given next */
    bool has_state;
    struct bwpy_state *state;
} bwpy_consumer;

struct bwpy_batch {
    PyObject_HEAD
    bwpy_consumer *consumer;  /* not counted; NULL: released, or the consumer is gone */
    PyObject *topic;
    bw_batch info;
    const bw_record_view *records;
    int32_t count;
    Py_ssize_t exports;
    unsigned generation;
    PyObject *columns[5];     /* made once, kept */
    void *orphan;             /* a bw_consumer * to be closed after the last view */
    PyObject *orphan_bus;
};

/* Without the GIL: bwpy_begin/bwpy_end around calls of libbusway that may run callbacks of this consumer. */
#define BWPY_CONSUMER_BEGIN(c) (c)->saved = PyEval_SaveThread()
#define BWPY_CONSUMER_END(c)            \
    do {                                \
        PyThreadState *back_ = (c)->saved; \
        (c)->saved = NULL;              \
        PyEval_RestoreThread(back_);    \
    } while (0)
/* bwpy_retire: the present batch ends here. -1 and BufferError while it has views. */
int bwpy_retire(bwpy_consumer *c);
/* bwpy_fetch: the next batch into the consumer: 1; 0 when the time is over; -1 with an exception. The consumer is entered. */
int bwpy_fetch(bwpy_consumer *c, bw_consumer *handle, int64_t deadline);
/* bwpy_take: a batch that another call of libbusway gave (state mode) becomes the present one. */
int bwpy_take(bwpy_consumer *c, bw_batch *batch);
PyObject *bwpy_batch_make(bwpy_consumer *c);
/* bwpy_callback_error: what a callback raised becomes the exception; -1 if there was one. */
int bwpy_callback_error(bwpy_consumer *c);
void bwpy_on_rebalance(bw_consumer *consumer, bw_rebalance event, const bw_topic_partition *parts, size_t count, void *opaque);
PyObject *bwpy_parts_list(const bw_topic_partition *parts, size_t count);
/* bwpy_get_parts: a list of (topic, partition, offset, leader_epoch, metadata) tuples; *keep holds the strings. */
int bwpy_get_parts(PyObject *list, bw_topic_partition **parts, size_t *count, PyObject **keep);
bool bwpy_batch_ok(bwpy_batch *b); /* else an exception */

extern PyMethodDef bwpy_group_methods_commit, bwpy_group_methods_commit_async, bwpy_group_methods_committed;
PyObject *bwpy_commit(PyObject *self, PyObject *args);
PyObject *bwpy_commit_async(PyObject *self, PyObject *args);
PyObject *bwpy_committed(PyObject *self, PyObject *args);
PyObject *bwpy_assignment(PyObject *self, PyObject *unused);
PyObject *bwpy_subscription(PyObject *self, PyObject *unused);
PyObject *bwpy_group_metadata(PyObject *self, PyObject *unused);
PyObject *bwpy_gather_into(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *bwpy_batch_gather(PyObject *self, PyObject *args);
PyObject *bwpy_batch_binary_view(PyObject *self, PyObject *unused);
/* bwpy_column: an object with a buffer of its own: count items of size; *data to be filled. */
PyObject *bwpy_column(const char *format, Py_ssize_t item, Py_ssize_t count, void **data);

#endif
