/* client/direct.c: the direct path of a bus. See direct.h.
 *
 * Order of an attach for writing: the owner's uid is compared, writers.lock is taken shared, the daemon is told (it watches this
 * process from then on), and only then is the control data mapped. */
#include "client/bus.h"

#include "client/readonly.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WRITERS_LOCK_WAIT_MS = 2000 };

void bw_direct_init(bw_direct *d)
{
    memset(d, 0, sizeof *d);
    pthread_mutex_init(&d->mutex, NULL);
}

static void env_close(bw_env *env)
{
    bw_owners_close(env->owners);
    if (env->mail) bw_mail_close(env->mail);
    if (env->arena_fd >= 0) bw_os_close(env->arena_fd);
    if (env->dir) bw_datadir_close(env->dir);
    free(env);
}

static void env_unref(bw_env *env)
{
    if (env && --env->refs == 0) env_close(env);
}

void bw_direct_env_ref(bw_env *env, int by)
{
    if (by > 0) env->refs++;
    else env_unref(env);
}

void bw_direct_fini(bw_direct *d)
{
    env_unref(d->env);
    while (d->routes) {
        bw_route *r = d->routes;
        d->routes = r->next;
        free(r);
    }
    pthread_mutex_destroy(&d->mutex);
}

static bw_err env_fill(bw_env *env, const bw_conn_hello *h)
{
    bw_err e = bw_datadir_open_client(h->data_dir, &env->dir);
    if (e) return e;
    const char *fs = "unknown";
    struct stat st;
    if (!bw_os_fs_is_local(env->dir->fd, &fs))
        return bw_fail(BW_ERR_UNSUPPORTED, "the data directory %s lies on %s, which does not keep shared maps coherent", h->data_dir, fs);
    if (memcmp(env->dir->generation, h->generation, sizeof h->generation) != 0)
        return bw_fail(BW_ERR_RETIRED, "%s is not the daemon's data directory here (another generation)", h->data_dir);
    if (bw_os_fstat(env->dir->fd, &st) < 0) return bw_fail_errno(errno, "%s", h->data_dir);
    env->owner_uid = st.st_uid;
    memcpy(env->generation, h->generation, sizeof env->generation);
    if (!h->arena_dir[0]) return bw_fail(BW_ERR_UNSUPPORTED, "the daemon has no tmpfs for control data");
    env->arena_fd = open(h->arena_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (env->arena_fd < 0) return bw_fail_errno(errno, "the control data in %s", h->arena_dir);
    bw_arena_dir_hold(env->arena_fd);
    e = bw_mail_attach(env->arena_fd, env->generation, &env->mail);
    if (!e && bw_owners_open(env->mail, &env->owners) != BW_OK) env->owners = NULL; /* by the mutexes, then */
    return e;
}

/* Under the mutex. The environment of the generation that the daemon said last. */
static bw_err env_get(bw_bus *bus, bw_env **out)
{
    bw_direct *d = &bus->direct;
    bw_conn_hello *h = malloc(sizeof *h);
    if (!h) return bw_fail(BW_ERR_NO_MEMORY, "no memory to attach");
    pthread_mutex_lock(&bus->conn.mutex);
    *h = *bus->conn.hello;
    pthread_mutex_unlock(&bus->conn.mutex);
    bw_err e = BW_OK;
    if (d->env && (memcmp(d->env->generation, h->generation, sizeof h->generation) != 0 || d->env->mail->header->retired)) {
        env_unref(d->env);
        d->env = NULL;
    }
    if (!d->env) {
        bw_env *env = calloc(1, sizeof *env);
        if (!env) e = bw_fail(BW_ERR_NO_MEMORY, "no memory to attach");
        if (env) {
            env->refs = 1;
            env->arena_fd = -1;
            e = env_fill(env, h);
            if (e) env_close(env);
            else d->env = env;
        }
    }
    free(h);
    *out = d->env;
    return e;
}

static bw_err ask_attach(bw_bus *bus, const char *topic, bw_control_mode mode, bw_deadline deadline, bw_uuid *id, int32_t *partitions)
{
    bw_request q;
    bw_request_init(&q, BW_API_ATTACH);
    q.topic = bw_str_of(topic);
    q.for_write = mode == BW_CONTROL_WRITE;
    bw_reply reply;
    bw_err e = bw_conn_request(&bus->conn, &q, deadline, &reply);
    if (!e) {
        *id = reply.answer.topic_id;
        *partitions = reply.answer.partitions;
    }
    bw_reply_fini(&reply);
    return e;
}

bw_err bw_direct_confirm(bw_bus *bus, const bw_attach *a, bw_deadline deadline)
{
    bw_uuid id;
    int32_t partitions;
    bw_err e = ask_attach(bus, a->topic, a->mode, deadline, &id, &partitions);
    if (!e && !bw_uuid_equal(&id, &a->id)) e = bw_fail(BW_ERR_RETIRED, "topic %s was made anew", a->topic);
    return e;
}

static bw_err check_owner(uint64_t owner)
{
    if (geteuid() == owner) return BW_OK;
    return bw_fail(BW_ERR_NOT_PERMITTED, "direct write needs the data owner's uid %llu, this process has %u", (unsigned long long)owner,
                   (unsigned)geteuid());
}

static bw_err take_writers_lock(bw_env *env)
{
    bw_err e = check_owner(env->owner_uid);
    if (e) return e;
    if (env->writers == 0) {
        e = bw_datadir_lock_writers_shared(env->dir, WRITERS_LOCK_WAIT_MS);
        if (e) return bw_error_context(e, "direct write");
    }
    env->writers++;
    return BW_OK;
}

static void drop_writers_lock(bw_env *env)
{
    if (--env->writers == 0) bw_datadir_unlock_writers(env->dir);
}

static void attach_free(bw_attach *a)
{
    if (a->env->readonly) bw_readonly_detach(a->env->readonly, a->control);
    if (a->control) bw_control_close(a->control);
    if (a->mode == BW_CONTROL_WRITE) drop_writers_lock(a->env);
    env_unref(a->env);
    free(a);
}

/* The mutex is held for bookkeeping only, never while the daemon is asked. */
static bw_attach *find_attach(bw_bus *bus, const char *topic, bw_control_mode mode, const bw_uuid *id)
{
    for (bw_attach *a = bus->direct.attaches; a; a = a->next) {
        if (a->stale || a->mode != mode || strcmp(a->topic, topic) != 0 || a->control->header->retired) continue;
        if (id && !bw_uuid_equal(&a->id, id)) continue;
        bw_attach_ref(a);
        return a;
    }
    return NULL;
}

static bw_err attach_prepare(bw_bus *bus, bw_attach *a)
{
    bw_env *env = NULL;
    pthread_mutex_lock(&bus->direct.mutex);
    bw_err e = env_get(bus, &env);
    if (!e && a->mode == BW_CONTROL_WRITE) e = take_writers_lock(env);
    if (!e) {
        a->env = env;
        env->refs++;
    }
    pthread_mutex_unlock(&bus->direct.mutex);
    return e;
}

static bw_err attach_new(bw_bus *bus, const char *topic, bw_control_mode mode, bw_deadline deadline, bw_attach **out)
{
    pthread_mutex_lock(&bus->conn.mutex);
    uint64_t owner = bus->conn.hello->server_uid;
    pthread_mutex_unlock(&bus->conn.mutex);
    bw_err e = mode == BW_CONTROL_WRITE && !bus->readonly ? check_owner(owner) : BW_OK; /* the likeliest reason, said first */
    if (e) return e;
    bw_attach *a = calloc(1, sizeof *a);
    if (!a) return bw_fail(BW_ERR_NO_MEMORY, "no memory to attach");
    atomic_store(&a->refs, 1);
    a->mode = mode;
    snprintf(a->topic, sizeof a->topic, "%s", topic);
    e = bus->readonly ? bw_readonly_attach(bus, a) : attach_prepare(bus, a);
    if (e) {
        free(a);
        return e;
    }
    if (!bus->readonly) e = ask_attach(bus, topic, mode, deadline, &a->id, &a->partitions);
    if (!e && !bus->readonly) e = bw_control_attach(a->env->arena_fd, a->env->generation, &a->id, mode, a->env->mail, &a->control);
    pthread_mutex_lock(&bus->direct.mutex);
    bw_attach *other = e ? NULL : find_attach(bus, topic, mode, &a->id); /* another thread was as quick */
    if (e || other) {
        attach_free(a);
        *out = other;
    } else {
        a->next = bus->direct.attaches;
        bus->direct.attaches = a;
        *out = a;
    }
    pthread_mutex_unlock(&bus->direct.mutex);
    return e;
}

static bw_err attach_once(bw_bus *bus, const char *topic, bw_control_mode mode, bw_deadline deadline, bw_attach **out)
{
    pthread_mutex_lock(&bus->direct.mutex);
    *out = find_attach(bus, topic, mode, NULL);
    pthread_mutex_unlock(&bus->direct.mutex);
    return *out ? BW_OK : attach_new(bus, topic, mode, deadline, out);
}

bw_err bw_direct_attach(bw_bus *bus, const char *topic, bw_control_mode mode, bw_deadline deadline, bw_attach **out)
{
    if (bus->url.remote) return bw_fail(BW_ERR_UNSUPPORTED, "the daemon is on another host (%s)", bus->url.path);
    if (bus->transport == BW_TRANSPORT_IPC) return bw_fail(BW_ERR_UNSUPPORTED, "transport=ipc was asked for");
    bw_err e = bw_bus_connect(bus, true, deadline);
    if (e) return e;
    e = attach_once(bus, topic, mode, deadline, out);
    if (e != BW_ERR_NOT_CONNECTED) return e;
    e = bw_bus_connect(bus, true, deadline);
    return e ? e : attach_once(bus, topic, mode, deadline, out);
}

static void attach_last_gone(bw_bus *bus, bw_attach *a)
{
    bool other = false; /* the daemon keeps one entry a topic, for reading and writing */
    for (bw_attach **at = &bus->direct.attaches; *at;) {
        if (*at == a) {
            *at = a->next;
            continue;
        }
        other |= strcmp((*at)->topic, a->topic) == 0;
        at = &(*at)->next;
    }
    bw_request q;
    bw_request_init(&q, BW_API_DETACH);
    q.topic = bw_str_of(a->topic);
    if (!other && bw_conn_is_up(&bus->conn)) bw_conn_tell(&bus->conn, &q); /* the answer is of no interest */
    attach_free(a);
}

void bw_direct_release(bw_bus *bus, bw_attach *a)
{
    if (!a) return;
    uint32_t refs = atomic_load_explicit(&a->refs, memory_order_relaxed);
    while (refs > 1)
        if (atomic_compare_exchange_weak_explicit(&a->refs, &refs, refs - 1, memory_order_acq_rel, memory_order_relaxed)) return;
    pthread_mutex_lock(&bus->direct.mutex);
    if (atomic_fetch_sub(&a->refs, 1) == 1) attach_last_gone(bus, a);
    pthread_mutex_unlock(&bus->direct.mutex);
}

void bw_direct_mark_stale(bw_bus *bus, bw_attach *a)
{
    pthread_mutex_lock(&bus->direct.mutex);
    a->stale = true;
    pthread_mutex_unlock(&bus->direct.mutex);
}

bool bw_direct_may_fall_back(const bw_bus *bus, bw_err e)
{
    if (bus->transport == BW_TRANSPORT_DIRECT || bus->readonly) return false;
    switch (e) {
    case BW_ERR_UNKNOWN_TOPIC:
    case BW_ERR_INVALID_TOPIC:
    case BW_ERR_UNKNOWN_PARTITION:
    case BW_ERR_NO_COORDINATOR:
    case BW_ERR_NOT_CONNECTED:
    case BW_ERR_FORKED:
    case BW_ERR_DELETED:
        return false;
    default:
        return true;
    }
}

static void send_report(bw_bus *bus, const bw_route *r)
{
    bw_request q;
    bw_request_init(&q, BW_API_REPORT);
    q.topic = bw_str_of(r->topic);
    q.transport = bw_str_of(r->direct ? "direct" : bw_bus_socket_kind(bus));
    q.reason = bw_str_of(r->reason);
    bw_conn_tell(&bus->conn, &q);
}

void bw_direct_note(bw_bus *bus, const char *topic, bool for_write, const char *reason)
{
    pthread_mutex_lock(&bus->direct.mutex);
    bw_route *r = bus->direct.routes;
    while (r && (r->for_write != for_write || strcmp(r->topic, topic) != 0)) r = r->next;
    bool news = !r || r->direct != !reason || strncmp(r->reason, reason ? reason : "", sizeof r->reason - 1) != 0;
    if (!r && (r = calloc(1, sizeof *r))) {
        r->next = bus->direct.routes;
        bus->direct.routes = r;
        r->for_write = for_write;
        snprintf(r->topic, sizeof r->topic, "%s", topic);
    }
    if (r && news) {
        r->direct = !reason;
        snprintf(r->reason, sizeof r->reason, "%s", reason ? reason : "");
        send_report(bus, r);
    }
    pthread_mutex_unlock(&bus->direct.mutex);
    if (news && reason && bus->transport != BW_TRANSPORT_IPC)
        bw_bus_log(bus, BW_LOG_INFO, "topic %s: %s through the socket: %s", topic, for_write ? "writing" : "reading", reason);
}

void bw_direct_rejoin(bw_bus *bus)
{
    pthread_mutex_lock(&bus->direct.mutex);
    for (bw_attach *a = bus->direct.attaches; a; a = a->next) {
        bw_request q;
        bw_request_init(&q, BW_API_ATTACH);
        q.topic = bw_str_of(a->topic);
        q.for_write = a->mode == BW_CONTROL_WRITE;
        if (!a->stale) bw_conn_tell(&bus->conn, &q);
    }
    for (bw_route *r = bus->direct.routes; r; r = r->next) send_report(bus, r);
    pthread_mutex_unlock(&bus->direct.mutex);
}
