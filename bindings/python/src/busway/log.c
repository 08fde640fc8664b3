/* log.c: the library's messages on their way to Python's logging.
 *
 * The log callback may come from any thread at any time, also while the interpreter ends: it writes to a ring under a mutex of its own and
 * asks for a pending call; the ring is emptied with the GIL. What does not fit is counted and told. */
#include "_busway.h"

#include <stdio.h>
#include <string.h>

enum { RING = 128, TEXT = 400 };

static struct { int level; char text[TEXT]; } ring[RING];
static unsigned ring_from, ring_count, ring_lost;
static bool ring_pending;
static pthread_mutex_t ring_mutex = PTHREAD_MUTEX_INITIALIZER;
static PyObject *log_handler;

static int drain_later(void *unused)
{
    (void)unused;
    bwpy_drain_log();
    return 0;
}

void bwpy_log(void *opaque, bw_log_level level, const char *message)
{
    (void)opaque;
    pthread_mutex_lock(&ring_mutex);
    bool ask = !ring_pending && Py_IsInitialized();
    if (ring_count < RING) {
        unsigned at = (ring_from + ring_count++) % RING;
        ring[at].level = (int)level;
        snprintf(ring[at].text, TEXT, "%s", message);
    } else {
        ring_lost++;
    }
    if (ask) ring_pending = true;
    pthread_mutex_unlock(&ring_mutex);
    if (ask && Py_AddPendingCall(drain_later, NULL) != 0) { /* their queue is full: the next message, or call, tries again */
        pthread_mutex_lock(&ring_mutex);
        ring_pending = false;
        pthread_mutex_unlock(&ring_mutex);
    }
}

void bwpy_drain_log(void)
{
    static bool draining; /* guarded by the GIL */
    if (draining || (!ring_count && !ring_lost)) return;
    draining = true;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    for (;;) {
        char text[TEXT];
        int level = BW_LOG_WARN;
        pthread_mutex_lock(&ring_mutex);
        ring_pending = false;
        bool have = ring_count > 0 || ring_lost > 0;
        if (ring_count > 0) {
            level = ring[ring_from].level;
            memcpy(text, ring[ring_from].text, TEXT);
            ring_from = (ring_from + 1) % RING;
            ring_count--;
        } else if (ring_lost > 0) {
            snprintf(text, TEXT, "%u messages came too fast and are lost", ring_lost);
            ring_lost = 0;
        }
        pthread_mutex_unlock(&ring_mutex);
        if (!have) break;
        if (!log_handler) continue;
        PyObject *line = PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
        PyObject *r = line ? PyObject_CallFunction(log_handler, "iO", level, line) : NULL;
        Py_XDECREF(line);
        if (r) Py_DECREF(r);
        else PyErr_WriteUnraisable(log_handler);
    }
    PyErr_Restore(type, value, trace);
    draining = false;
}

PyObject *bwpy_set_log(PyObject *self, PyObject *handler)
{
    (void)self;
    PyObject *old = log_handler;
    log_handler = handler == Py_None ? NULL : handler;
    Py_XINCREF(log_handler);
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

void bwpy_log_fork_lock(void) { pthread_mutex_lock(&ring_mutex); }

void bwpy_log_fork_unlock(bool child)
{
    if (!child) {
        pthread_mutex_unlock(&ring_mutex);
        return;
    }
    pthread_mutex_init(&ring_mutex, NULL);
    ring_count = ring_lost = 0;
    ring_pending = false;
}
