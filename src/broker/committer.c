/* broker/committer.c: see committer.h. */
#include "broker/committer.h"

#include "base/killpoint.h"

#include <stdlib.h>

#define AT_ONCE (4u << 20) /* bytes of entries in a transaction, but for a single larger commit */

/* An entry: u8 table, u8 remove, be16 key length, be32 value length, key, value. */
#define ENTRY_HEAD 8u

struct bw_committer {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wanted;
    bw_commit *first, *last; /* not begun */
    bool stop;
    _Atomic size_t backlog;
    _Atomic uint64_t transactions, commits;
};

static bw_err append(bw_commit *c, int table, bool remove, const void *key, size_t key_len, const void *value, size_t value_len)
{
    if (!key_len || key_len > BW_META_KEY_MAX || value_len > BW_VALUE_MAX)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "metadata: a key of %zu and a value of %zu bytes", key_len, value_len);
    bw_err e = bw_buf_reserve(&c->entries, ENTRY_HEAD + key_len + value_len);
    if (e) return e;
    uint8_t *p = c->entries.data + c->entries.len;
    p[0] = (uint8_t)table;
    p[1] = remove;
    bw_put_be16(p + 2, (uint16_t)key_len);
    bw_put_be32(p + 4, (uint32_t)value_len);
    memcpy(p + ENTRY_HEAD, key, key_len);
    if (value_len) memcpy(p + ENTRY_HEAD + key_len, value, value_len);
    c->entries.len += ENTRY_HEAD + key_len + value_len;
    c->count++;
    return BW_OK;
}

bw_err bw_commit_put(bw_commit *c, int table, const void *key, size_t key_len, const void *value, size_t value_len)
{
    return append(c, table, false, key, key_len, value, value_len);
}

bw_err bw_commit_remove(bw_commit *c, int table, const void *key, size_t key_len) { return append(c, table, true, key, key_len, NULL, 0); }

void bw_commit_fini(bw_commit *c)
{
    bw_buf_free(&c->entries);
    c->count = 0;
}

/* ---- the thread ---- */

/* The commits of one transaction; the last one's next is NULL. */
static bw_commit *take(bw_committer *m, size_t *entries)
{
    pthread_mutex_lock(&m->lock);
    while (!m->first && !m->stop) pthread_cond_wait(&m->wanted, &m->lock);
    bw_commit *first = m->first, *last = first;
    size_t bytes = first ? first->entries.len : 0;
    *entries = first ? first->count : 0;
    while (last && last->next && bytes + last->next->entries.len <= AT_ONCE) {
        last = last->next;
        bytes += last->entries.len;
        *entries += last->count;
    }
    if (last) {
        m->first = last->next;
        if (!m->first) m->last = NULL;
        last->next = NULL;
    }
    pthread_mutex_unlock(&m->lock);
    return first;
}

static void lay_out(const bw_commit *c, bw_meta_change *out)
{
    const uint8_t *p = c->entries.data;
    for (uint32_t i = 0; i < c->count; i++) {
        size_t key_len = bw_get_be16(p + 2), value_len = bw_get_be32(p + 4);
        out[i] = (bw_meta_change){p[0], p + ENTRY_HEAD, key_len, p[1] ? NULL : p + ENTRY_HEAD + key_len, value_len};
        p += ENTRY_HEAD + key_len + value_len;
    }
}

static void *committer_main(void *broker)
{
    bw_broker *b = broker;
    bw_committer *m = b->committer;
    size_t entries;
    for (bw_commit *first; (first = take(m, &entries));) {
        bw_meta_change *changes = malloc((entries ? entries : 1) * sizeof *changes);
        bw_err e = changes ? BW_OK : bw_fail(BW_ERR_NO_MEMORY, "no memory for %zu changes of the metadata", entries);
        size_t at = 0;
        for (bw_commit *c = first; c && !e; c = c->next) {
            lay_out(c, changes + at);
            at += c->count;
        }
        BW_KILL_POINT("commit.taken");
        if (!e) e = bw_store_change(b->store, changes, entries);
        BW_KILL_POINT("commit.stored");
        free(changes);
        atomic_fetch_add_explicit(&m->transactions, 1, memory_order_relaxed);
        first->error = e;
        if (e) first->message = strdup(bw_error_message());
        first->event = (bw_event){.kind = BW_EVENT_COMMITTED, .commit = first};
        bw_broker_push(b, &first->event);
    }
    return NULL;
}

/* ---- broker thread ---- */

static bw_err start(bw_broker *b)
{
    bw_committer *m = calloc(1, sizeof *m);
    if (!m) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the committer");
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->wanted, NULL);
    b->committer = m;
    bw_err e = bw_broker_start_thread(&m->thread, committer_main, b);
    if (e) {
        b->committer = NULL;
        bw_committer_free(m);
    }
    return e;
}

bw_err bw_committer_submit(bw_broker *b, bw_commit *c)
{
    bw_err e = b->committer ? BW_OK : start(b);
    if (e) return e;
    bw_committer *m = b->committer;
    if (m->stop) return bw_fail(BW_ERR_CLOSED, "the daemon is stopping");
    c->next = NULL;
    atomic_fetch_add_explicit(&m->backlog, c->entries.len, memory_order_relaxed);
    atomic_fetch_add_explicit(&m->commits, 1, memory_order_relaxed);
    pthread_mutex_lock(&m->lock);
    bool idle = !m->first;
    if (m->last) m->last->next = c;
    else m->first = c;
    m->last = c;
    if (idle) pthread_cond_signal(&m->wanted);
    pthread_mutex_unlock(&m->lock);
    return BW_OK;
}

size_t bw_committer_backlog(const bw_broker *b) { return b->committer ? atomic_load_explicit(&b->committer->backlog, memory_order_relaxed) : 0; }

void bw_committer_done(bw_broker *b, bw_commit *first)
{
    bw_err e = first->error;
    char *why = first->message;
    first->message = NULL;
    for (bw_commit *c = first, *next; c; c = next) {
        next = c->next;
        atomic_fetch_sub_explicit(&b->committer->backlog, c->entries.len, memory_order_relaxed);
        if (e) bw_error_set_message(e, why ? why : bw_err_text(e));
        c->done(b, c, e);
    }
    free(why);
}

void bw_committer_stop(bw_broker *b)
{
    bw_committer *m = b->committer;
    if (!m || m->stop) return;
    pthread_mutex_lock(&m->lock);
    m->stop = true;
    pthread_cond_signal(&m->wanted);
    pthread_mutex_unlock(&m->lock);
    pthread_join(m->thread, NULL);
}

void bw_committer_free(bw_committer *m)
{
    if (!m) return;
    pthread_cond_destroy(&m->wanted);
    pthread_mutex_destroy(&m->lock);
    free(m);
}
