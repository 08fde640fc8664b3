/* client/readonly_follow.c: a read-only bus's folder, its control data, and the thread that follows the files. See readonly.h. */
#include "client/readonly.h"

#include "log/wait.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { LOOK_BUSY_MS = 2, LOOK_IDLE_MS = 20, BUSY_FOR_MS = 200, THOROUGH_MS = 1000 };

typedef struct bw_followed {
    struct bw_followed *next;
    bw_control *control;
    bw_follow *follow;
    int32_t partition;
} bw_followed;

/* ---- the thread ---- */

/* true: something moved. */
static bool look_at_all(bw_readonly *r, bool thorough)
{
    bool any = false;
    pthread_mutex_lock(&r->mutex);
    for (bw_followed *f = r->followed; f; f = f->next) {
        bool moved = false;
        (void)bw_follow_look(f->follow, thorough, &moved); /* what fails is tried again; a reader meets it, too */
        if (!moved) continue;
        any = true;
        bw_wake(f->control, (uint32_t)f->partition, BW_WAIT_TAIL);
        bw_wake(f->control, (uint32_t)f->partition, BW_WAIT_STATE);
    }
    pthread_mutex_unlock(&r->mutex);
    return any;
}

static void *run(void *opaque)
{
    bw_readonly *r = opaque;
    int64_t thorough_at = bw_clock_mono_ms(), busy_until = thorough_at + BUSY_FOR_MS;
    while (!atomic_load(&r->stop)) {
        int64_t now = bw_clock_mono_ms();
        bool thorough = now >= thorough_at;
        if (thorough) thorough_at = now + THOROUGH_MS;
        if (look_at_all(r, thorough)) busy_until = now + BUSY_FOR_MS;
        bw_os_futex_wait(&r->stop, 0, (now < busy_until ? LOOK_BUSY_MS : LOOK_IDLE_MS) * INT64_C(1000000));
    }
    return NULL;
}

static bw_err start_thread(bw_readonly *r)
{
    if (r->thread_runs) return BW_OK;
    sigset_t all, before; /* signals are the program's business */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&r->thread, NULL, run, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) return bw_fail_errno(rc, "can't start the thread that follows the files");
    pthread_setname_np(r->thread, "busway-follow");
    r->thread_runs = true;
    return BW_OK;
}

/* ---- open, close ---- */

bw_err bw_readonly_open(bw_bus *bus)
{
    bw_readonly *r = calloc(1, sizeof *r);
    if (!r) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a bus");
    r->bus = bus;
    r->env = (bw_env){.refs = 1, .arena_fd = -1, .readonly = r};
    bw_err e = bw_datadir_open_readonly(bus->url.path, &r->env.dir);
    if (!e) e = bw_mail_private(&r->env.mail);
    if (e) {
        bw_datadir_close(r->env.dir);
        free(r);
        return e;
    }
    r->data_fd = r->env.dir->fd;
    pthread_mutex_init(&r->mutex, NULL);
    bus->readonly = r;
    return BW_OK;
}

void bw_readonly_close(bw_bus *bus)
{
    bw_readonly *r = bus->readonly;
    if (!r) return;
    if (r->thread_runs) {
        atomic_store(&r->stop, 1);
        bw_os_futex_wake(&r->stop, 1);
        pthread_join(r->thread, NULL);
    }
    bw_mail_close(r->env.mail);
    bw_datadir_close(r->env.dir);
    pthread_mutex_destroy(&r->mutex);
    free(r);
    bus->readonly = NULL;
}

/* ---- what consumers attach to ---- */

bw_err bw_readonly_attach(bw_bus *bus, bw_attach *a)
{
    bw_readonly *r = bus->readonly;
    bw_readonly_topic *topics = NULL;
    size_t count = 0;
    if (a->mode == BW_CONTROL_WRITE) return bw_readonly_refuse(bus, "writing");
    bw_err e = bw_readonly_topics(r, a->topic, &topics, &count);
    if (e) return e;
    a->id = topics[0].id;
    a->partitions = topics[0].partitions;
    free(topics);
    e = bw_control_private(&a->id, r->env.mail, &a->control);
    if (e) return e;
    a->env = &r->env;
    r->env.refs++;
    return BW_OK;
}

static bw_followed *find(const bw_readonly *r, const bw_control *control, int32_t partition)
{
    bw_followed *f = r->followed;
    while (f && (f->control != control || f->partition != partition)) f = f->next;
    return f;
}

static bw_err follow(bw_readonly *r, const bw_attach *a, int32_t partition)
{
    bw_tail_slot *slot = &a->control->slots[partition];
    if (r->next_number >= BW_BUS_PARTITIONS_MAX)
        return bw_fail(BW_ERR_LIMIT_REACHED, "more than %u partitions were read by one bus; open it anew", BW_BUS_PARTITIONS_MAX);
    bw_followed *f = calloc(1, sizeof *f);
    if (!f) return bw_fail(BW_ERR_NO_MEMORY, "no memory to follow a partition");
    atomic_store(&slot->bus_number, r->next_number);
    bw_err e = bw_follow_open(r->data_fd, a->topic, partition, slot, &f->follow);
    if (e) {
        free(f);
        return e;
    }
    r->next_number++;
    f->control = a->control;
    f->partition = partition;
    f->next = r->followed;
    r->followed = f;
    if ((uint32_t)partition >= atomic_load(&a->control->header->slots)) atomic_store(&a->control->header->slots, (uint32_t)partition + 1);
    return start_thread(r);
}

bw_err bw_readonly_part(bw_bus *bus, const bw_attach *a, int32_t partition)
{
    bw_readonly *r = bus->readonly;
    if (partition < 0 || partition >= (int32_t)BW_PARTITIONS_MAX) return bw_fail(BW_ERR_UNKNOWN_PARTITION, "there is no partition %d", partition);
    pthread_mutex_lock(&r->mutex);
    bw_err e = find(r, a->control, partition) ? BW_OK : follow(r, a, partition);
    pthread_mutex_unlock(&r->mutex);
    return e;
}

void bw_readonly_detach(bw_readonly *r, const bw_control *control)
{
    pthread_mutex_lock(&r->mutex);
    for (bw_followed **at = &r->followed; *at;) {
        bw_followed *f = *at;
        if (f->control != control) {
            at = &f->next;
            continue;
        }
        *at = f->next;
        bw_follow_close(f->follow);
        free(f);
    }
    pthread_mutex_unlock(&r->mutex);
}

void bw_readonly_refresh(bw_bus *bus, const bw_attach *a, int32_t partition)
{
    bool moved;
    pthread_mutex_lock(&bus->readonly->mutex);
    bw_followed *f = find(bus->readonly, a->control, partition);
    if (f) (void)bw_follow_look(f->follow, true, &moved);
    pthread_mutex_unlock(&bus->readonly->mutex);
}
