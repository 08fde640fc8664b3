/* broker/broker.c: start and stop. */
#include "broker/groups.h"
#include "broker/links.h"
#include "broker/offsets.h"
#include "broker/txn.h"
#include "broker/quota_admit.h"
#include "broker/users.h"

#include "base/lock.h"
#include "base/os.h"
#include "log/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define THREAD_STACK_BYTES (256 * 1024)

static bw_err find_socket_group(bw_broker *b)
{
    const char *name = b->config.socket_group;
    b->socket_gid = getegid();
    if (!name) return BW_OK;
    char *end;
    long number = strtol(name, &end, 10);
    if (*name && !*end && number >= 0) {
        b->socket_gid = number;
        return BW_OK;
    }
    struct group g, *found = NULL;
    char room[4096];
    int rc = getgrnam_r(name, &g, room, sizeof room, &found);
    if (!found) return bw_fail(BW_ERR_INVALID_CONFIG, "socket-group = '%s': there is no such group%s", name, rc ? " (look-up failed)" : "");
    b->socket_gid = found->gr_gid;
    return BW_OK;
}

bw_err bw_broker_start_thread(pthread_t *thread, void *(*fn)(void *), void *arg)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
    int rc = pthread_create(thread, &attr, fn, arg);
    pthread_attr_destroy(&attr);
    return rc ? bw_fail_errno(rc, "cannot start a thread") : BW_OK;
}

static void init_locks(bw_broker *b)
{
    bw_cond_init(&b->queue_cond);
    bw_cond_init(&b->points_cond);
    bw_cond_init(&b->cleaner_cond);
    pthread_mutex_init(&b->cleaner_lock, NULL);
    pthread_cond_init(&b->opener_cond, NULL);
    pthread_mutex_init(&b->opener_lock, NULL);
    pthread_mutex_init(&b->queue_lock, NULL);
    pthread_mutex_init(&b->parts_lock, NULL);
    pthread_mutex_init(&b->job_lock, NULL);
    pthread_cond_init(&b->job_cond, NULL);
    pthread_mutex_init(&b->points_lock, NULL);
}

static void destroy(bw_broker *b)
{
    bw_groups_free(b);
    bw_offsets_free(b);
    bw_queues_free(b);
    bw_committer_free(b->committer);
    bw_store_close(b->store);
    bw_datadir_close(b->dir);
    if (b->guard.word) bw_fork_guard_fini(&b->guard);
    bw_timers_free(&b->timers);
    bw_quotas_free(b->quotas);
    bw_users_free(b);
    bw_reactor_close(b->reactor);
    bw_buf_free(&b->payload);
    bw_buf_free(&b->scratch);
    bw_buf_free(&b->doc);
    bw_daemon_config_fini(&b->config);
    pthread_cond_destroy(&b->queue_cond);
    pthread_cond_destroy(&b->job_cond);
    pthread_cond_destroy(&b->points_cond);
    pthread_cond_destroy(&b->cleaner_cond);
    pthread_mutex_destroy(&b->cleaner_lock);
    pthread_cond_destroy(&b->opener_cond);
    pthread_mutex_destroy(&b->opener_lock);
    pthread_mutex_destroy(&b->queue_lock);
    pthread_mutex_destroy(&b->parts_lock);
    pthread_mutex_destroy(&b->job_lock);
    pthread_mutex_destroy(&b->points_lock);
    free(b);
}

/* At most a twentieth of the file system: on a small one the whole reserve would leave no room for data. */
static void set_reserve(bw_broker *b)
{
    int64_t total = bw_os_total_bytes(b->dir->fd), reserve = b->config.disk_reserve_bytes;
    if (total >= 0 && reserve > total / 20) reserve = total / 20;
    atomic_store(&b->reserve_bytes, reserve);
}

/* One big batch and some pieces must fit. */
static void set_dirty(bw_broker *b)
{
    enum { LEAST = 16 << 20, PART_OF_MEMORY = 8 };
    int64_t most = b->config.dirty_max_bytes;
    if (most < 0) most = bw_os_memory_limit() / PART_OF_MEMORY;
    else if (most == 0) return;
    b->dirty.most = most > LEAST ? most : LEAST;
}

/* The runtime folder is handed to the socket's group, which could not come to the socket otherwise; set-group-id, so that the control data
 * made in it is readable for the group too. A folder that is not the daemon's alone, like /tmp, is left as it is. */
static bw_err share_runtime(const bw_broker *b)
{
    const char *path = b->config.runtime_dir;
    struct stat st;
    if (!b->config.socket_group) return BW_OK;
    if (bw_os_mkdir(AT_FDCWD, path, 0750) && errno != EEXIST) return bw_fail_errno(errno, "cannot make runtime folder %s", path);
    if (bw_os_stat_at(AT_FDCWD, path, &st)) return bw_fail_errno(errno, "cannot stat runtime folder %s", path);
    if (!S_ISDIR(st.st_mode) || st.st_uid != b->uid || (st.st_mode & 07)) return BW_OK;
    if (bw_os_chown_at(AT_FDCWD, path, (uid_t)-1, (gid_t)b->socket_gid) || bw_os_chmod_at(AT_FDCWD, path, 02750))
        return bw_fail_errno(errno, "runtime folder %s can't be given to group %lld; the daemon must be a member of it", path,
                             (long long)b->socket_gid);
    return BW_OK;
}

static void say_repair(bw_broker *b)
{
    const bw_store_repair *r = bw_store_repair_get(b->store);
    char what[1000];
    if (r->repaired)
        bw_broker_event(b, r->damaged ? BW_LOG_ERROR : BW_LOG_WARN, "metadata_repaired", "what=%s", bw_event_text(r->what, what, sizeof what));
}

/* Programs that come to the folder find this daemon by it, wherever its socket is. */
static bw_err say_holder(bw_broker *b)
{
    const char *socket = "";
    for (size_t i = 0; i < b->config.listen_count && !*socket; i++)
        if (strncmp(b->config.listen[i], "ipc:///", 7) == 0) socket = b->config.listen[i] + 6;
    return bw_datadir_say_holder(b->dir, b->config.is_private, socket);
}

static void say_file_system(bw_broker *b)
{
    const char *name;
    char text[64];
    if (!bw_os_fs_is_local(b->dir->fd, &name))
        bw_broker_event(b, BW_LOG_WARN, "file_system", "name=%s what=\"it may not keep shared maps coherent: all clients use the socket\"",
                        bw_event_text(name, text, sizeof text));
}

static bw_err start(bw_broker *b)
{
    bw_err e = find_socket_group(b);
    if (!e && bw_fork_guard_init(&b->guard)) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for the fork guard");
    if (!e) e = bw_datadir_open_coordinator(b->config.data_dir, true, &b->dir);
    if (!e) say_file_system(b);
    if (!e) set_reserve(b);
    set_dirty(b);
    if (!e) e = say_holder(b);
    if (!e) e = (b->config.in_process ? bw_store_open_alone : bw_store_open)(b->dir->path, b->config.meta_map_bytes, &b->store);
    if (!e) say_repair(b);
    if (!e) e = bw_origin_load(b);
    if (!e) e = bw_quota_load(b);
    if (!e) e = bw_users_load(b);
    if (!e) e = share_runtime(b);
    if (!e) e = bw_offsets_load(b);
    if (!e) e = bw_broker_bring_up(b);
    if (!e && !(e = bw_broker_start_thread(&b->broker_thread, bw_broker_thread_main, b))) b->broker_running = true;
    if (!e && !(e = bw_broker_start_thread(&b->socket_thread, bw_broker_socket_main, b))) b->socket_running = true;
    return e;
}

bw_err bw_broker_start(const bw_daemon_config *config, bw_broker **out)
{
    *out = NULL;
    bw_broker *b = calloc(1, sizeof *b);
    if (!b) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the broker");
    bw_err e = bw_daemon_config_copy(&b->config, config);
    if (e) {
        free(b);
        return e;
    }
    if ((e = bw_reactor_open(&b->reactor))) {
        bw_daemon_config_fini(&b->config);
        free(b);
        return e;
    }
    init_locks(b);
    b->arena_fd = -1;
    b->tick.fire = bw_broker_on_tick;
    b->uid = geteuid();
    b->started_mono_ms = bw_clock_mono_ms();
    b->started_wall_ms = bw_clock_wall_ms();
    atomic_store(&b->idle_since_ms, b->started_mono_ms);
    if ((e = start(b))) {
        char why[1024];
        snprintf(why, sizeof why, "%s", bw_error_message());
        bw_broker_stop(b);
        return bw_error_set_message(e, why);
    }
    *out = b;
    return BW_OK;
}

/* What came after the broker thread's end: requests are let go unanswered, so that `consumed` and `gone` come for everything. */
static void drain(bw_broker *b)
{
    bw_groups_free(b); /* its members are not dead because the daemon ends */
    bw_opener_drop_ops(b);
    while (b->queue) {
        bw_event *e = b->queue;
        b->queue = e->next;
        if (!b->queue) b->queue_last = NULL;
        if (e->kind == BW_EVENT_REQUEST) {
            bw_session_ref(e->session);
            bw_op_finish(e->op, NULL);
        } else bw_session_dispatch(b, e);
    }
    while (b->sessions) {
        bw_event closing = {.kind = BW_EVENT_CLOSED, .session = b->sessions};
        bw_session_dispatch(b, &closing);
    }
}

void bw_broker_stop(bw_broker *b)
{
    if (!b) return;
    atomic_store(&b->stopping, true);
    if (b->broker_running) {
        bw_broker_wake(b);
        pthread_join(b->broker_thread, NULL);
    }
    if (b->socket_running) {
        bw_reactor_wake(b->reactor);
        pthread_join(b->socket_thread, NULL);
    }
    b->draining = true;
    bw_cleaner_stop(b);
    bw_opener_stop(b);
    bw_auth_stop(b);
    bw_worker_stop(b); /* its outcomes are in the queue, as the committer's */
    bw_committer_stop(b);
    bw_keeper_stop(b);
    drain(b);
    bw_txns_stop(b);
    if (b->store && b->dir) bw_broker_take_down(b);
    destroy(b);
}
