/* broker/topics.c: the registry of topics, and the steps that make, change and delete one.
 *
 * Orders that survive a crash at any point:
 *   create   1 record in LMDB (synced)  2 files of each partition  3 control data, published  4 answer
 *            A crash after 1: the next start makes the folders that are missing. A failure after 1: deleted again, as below.
 *   alter    1 record in LMDB  2 new partitions' files and slots  3 configuration into the running partitions
 *   delete   1 record marked "deleting" (the promise)  2 slots marked deleted, everyone woken  3 files  4 record removed  5 answer
 *            A crash after 1: the next start goes on with 3. */
#include "broker/groups.h"
#include "broker/links.h"
#include "broker/offsets.h"
#include "broker/replica.h"

#include "base/killpoint.h"
#include "base/os.h"
#include "format/names.h"
#include "log/wait.h"

#include <stdio.h>
#include <stdlib.h>

bw_topic *bw_topic_find(bw_broker *b, bw_str name)
{
    bw_topic *t = NULL;
    if (name.len) HASH_FIND(by_name, b->topics_by_name, name.data, name.len, t);
    return t;
}

bw_err bw_topic_of(bw_broker *b, bw_str name, bool may_create, bw_topic **out)
{
    bw_topic *t = bw_topic_find(b, name);
    if (t && t->deleting) return bw_fail(BW_ERR_DELETED, "topic '%s' is being deleted", t->name);
    if (t) {
        *out = t;
        return BW_OK;
    }
    bw_err e = bw_topic_name_check(name.data, name.len);
    if (e) return e;
    if (!may_create || !b->config.auto_create_topics)
        return bw_fail(BW_ERR_UNKNOWN_TOPIC, "there is no topic '%.*s'%s", (int)name.len, name.data,
                       may_create ? "; auto.create.topics.enable is false: create it first" : "");
    return bw_topic_create_new(b, name, 0, NULL, 0, out);
}

bw_err bw_part_of(bw_broker *b, bw_str name, int32_t partition, bool may_create, bw_part **out)
{
    bw_topic *t;
    bw_err e = bw_topic_of(b, name, may_create, &t);
    if (e) return e;
    if (partition < 0 || (uint32_t)partition >= t->part_count)
        return bw_fail(BW_ERR_UNKNOWN_PARTITION, "topic '%s' has partitions 0 to %u, not %d", t->name, t->part_count - 1, partition);
    *out = t->parts[partition];
    if (atomic_load(&(*out)->stage) == BW_PART_UNOPENED)
        return bw_fail(BW_ERR_BUSY, "topic '%s' partition %d is being opened; try again", t->name, partition);
    if (!(*out)->log)
        return bw_fail(BW_ERR_IO, "topic '%s' partition %d is not open: %s", t->name, partition, (*out)->why ? (*out)->why : "see the daemon's log");
    return BW_OK;
}

/* ---- configuration ---- */

static bw_err override_set(bw_meta_config **list, size_t *count, bw_str name, bw_str value, bool has_value)
{
    size_t i = 0;
    while (i < *count && !bw_str_is(name, (*list)[i].name)) i++;
    if (!has_value) {
        if (i < *count) (*list)[i] = (*list)[--*count];
        return BW_OK;
    }
    if (name.len >= sizeof (*list)->name || value.len >= sizeof (*list)->value)
        return bw_fail(BW_ERR_INVALID_CONFIG, "%.*s: the value is too long", (int)(name.len > 60 ? 60 : name.len), name.data);
    if (i == *count) {
        if (*count == BW_META_CONFIGS_MAX) return bw_fail(BW_ERR_INVALID_CONFIG, "more than %u configurations", BW_META_CONFIGS_MAX);
        bw_meta_config *grown = realloc(*list, (*count + 1) * sizeof **list);
        if (!grown) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a topic's configuration");
        *list = grown;
        ++*count;
    }
    bw_meta_config *c = &(*list)[i];
    memset(c, 0, sizeof *c);
    memcpy(c->name, name.data, name.len);
    memcpy(c->value, value.data, value.len);
    return BW_OK;
}

/* config and overrides: changed in place; on an error they may be half changed: the caller works on copies. */
static bw_err apply_configs(bw_broker *b, bw_topic_config *config, bw_meta_config **overrides, size_t *count, const bw_config_pair *pairs,
                            size_t pair_count)
{
    for (size_t i = 0; i < pair_count; i++) {
        const bw_config_pair *p = &pairs[i];
        bw_err e = bw_topic_config_set(config, b->config.topic_defaults, p->name.data, p->name.len, p->has_value ? p->value.data : NULL,
                                       p->value.len);
        if (!e) e = override_set(overrides, count, p->name, p->value, p->has_value);
        if (e) return e;
    }
    bw_err e = bw_topic_config_check(config);
    if (!e && config->max_message_bytes + 4096 > (int64_t)b->config.socket_request_max_bytes)
        e = bw_fail(BW_ERR_INVALID_CONFIG, "max.message.bytes = %lld does not fit into the daemon's socket.request.max.bytes = %u less 4096",
                    (long long)config->max_message_bytes, b->config.socket_request_max_bytes);
    return e;
}

void bw_topic_meta_fill(const bw_topic *t, bw_meta_topic *out)
{
    memset(out, 0, sizeof *out);
    memcpy(out->name, t->name, sizeof t->name);
    out->id = t->id;
    out->partitions = t->part_count ? t->part_count : t->wanted_parts;
    out->state = t->deleting ? BW_META_TOPIC_DELETING : BW_META_TOPIC_LIVE;
    out->created_ms = t->created_ms;
    out->configs = t->overrides;
    out->config_count = t->override_count;
}

static bw_err registry_add(bw_broker *b, bw_topic *t)
{
    HASH_ADD_KEYPTR(by_name, b->topics_by_name, t->name, strlen(t->name), t);
    if (t->not_hashed) return bw_fail(BW_ERR_NO_MEMORY, "no memory for topic '%s'", t->name);
    HASH_ADD_KEYPTR(by_id, b->topics_by_id, t->id.b, 16, t);
    if (!t->not_hashed) return BW_OK;
    HASH_DELETE(by_name, b->topics_by_name, t);
    return bw_fail(BW_ERR_NO_MEMORY, "no memory for topic '%s'", t->name);
}

void bw_topic_free(bw_broker *b, bw_topic *t)
{
    HASH_DELETE(by_name, b->topics_by_name, t);
    HASH_DELETE(by_id, b->topics_by_id, t);
    for (uint32_t i = 0; i < t->part_count; i++) bw_part_free(t->parts[i]);
    bw_control_close(t->control);
    free(t->parts);
    free(t->overrides);
    free(t->mirror);
    free(t->lead);
    free(t);
}

bw_err bw_topic_from_meta(bw_broker *b, const bw_meta_topic *m, bw_topic **out)
{
    bw_topic *t = calloc(1, sizeof *t);
    if (!t) return bw_fail(BW_ERR_NO_MEMORY, "no memory for topic '%s'", m->name);
    memcpy(t->name, m->name, sizeof t->name);
    t->id = m->id;
    t->created_ms = m->created_ms;
    t->wanted_parts = m->partitions;
    t->config = *b->config.topic_defaults;
    bw_err e = BW_OK;
    for (size_t i = 0; !e && i < m->config_count; i++) {
        const bw_meta_config *c = &m->configs[i];
        char why[700];
        if (bw_topic_config_set(&t->config, b->config.topic_defaults, c->name, strlen(c->name), c->value, strlen(c->value)))
            /* stored by a version that allowed it: the default holds; the record keeps it */
            bw_broker_event(b, BW_LOG_WARN, "topic_config_ignored", "topic=%s name=%s reason=%s", t->name, c->name,
                            bw_event_text(bw_error_message(), why, sizeof why));
        e = override_set(&t->overrides, &t->override_count, bw_str_of(c->name), bw_str_of(c->value), true);
    }
    if (!e) e = bw_mirror_load(b, t);
    if (!e) e = bw_lead_load(b, t);
    if (!e) e = registry_add(b, t);
    if (e) {
        free(t->mirror);
        free(t->lead);
        free(t->overrides);
        free(t);
        return e;
    }
    *out = t;
    return BW_OK;
}

/* ---- create ---- */

/* Of all topics together; `more` are to come. */
static bw_err check_partitions(bw_broker *b, uint64_t more)
{
    uint64_t there = 0;
    if (!b->config.max_partitions) return BW_OK;
    for (bw_topic *t = b->topics_by_name; t; t = t->by_name.next) there += t->part_count;
    if (there + more <= (uint64_t)b->config.max_partitions) return BW_OK;
    return bw_fail(BW_ERR_LIMIT_REACHED, "there are %llu partitions, %llu more do not fit; max.partitions = %d", (unsigned long long)there,
                   (unsigned long long)more, b->config.max_partitions);
}

static bw_err check_limits(bw_broker *b, uint64_t partitions)
{
    if (b->config.max_topics && HASH_CNT(by_name, b->topics_by_name) >= (unsigned)b->config.max_topics)
        return bw_fail(BW_ERR_LIMIT_REACHED, "there are %u topics; max.topics = %d", HASH_CNT(by_name, b->topics_by_name), b->config.max_topics);
    return check_partitions(b, partitions);
}

static bw_err check_new(bw_broker *b, bw_str name, int32_t partitions)
{
    bw_err e = bw_topic_name_check(name.data, name.len);
    if (e) return e;
    char wanted[BW_TOPIC_NAME_MAX + 1];
    memcpy(wanted, name.data, name.len);
    wanted[name.len] = 0;
    bw_topic *t, *tmp;
    HASH_ITER(by_name, b->topics_by_name, t, tmp)
    {
        if (!strcmp(t->name, wanted))
            return t->deleting ? bw_fail(BW_ERR_BUSY, "topic '%s' is being deleted; try again", wanted)
                               : bw_fail(BW_ERR_TOPIC_EXISTS, "there is a topic '%s' already", wanted);
        if (bw_topic_names_collide(t->name, wanted))
            return bw_fail(BW_ERR_INVALID_TOPIC, "topic name '%s' collides with '%s': '.' and '_' are taken for the same; choose another",
                           wanted, t->name);
    }
    if (partitions < 0 || (uint32_t)partitions > BW_PARTITIONS_MAX)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "%d partitions: a topic has 1 to %u", partitions, BW_PARTITIONS_MAX);
    e = check_limits(b, (uint64_t)(partitions ? partitions : b->config.num_partitions));
    if (e) return e;
    if (!b->ready) return bw_fail(BW_ERR_BUSY, "%s", b->not_ready);
    if (atomic_load(&b->low_space))
        return bw_fail(BW_ERR_DISK_FULL, "%s has %lld bytes free, less than its reserve; free some space", b->config.data_dir,
                       (long long)atomic_load(&b->free_bytes));
    return BW_OK;
}

static bw_err make_running(bw_broker *b, bw_topic *t, uint32_t partitions)
{
    bw_err e = bw_control_create(b->arena_fd, b->dir->generation, &t->id, b->mail, partitions, &t->control);
    if (!e) e = bw_topic_open_parts(b, t, partitions, true);
    return e;
}

bw_err bw_topic_create_new(bw_broker *b, bw_str name, int32_t partitions, const bw_config_pair *configs, size_t count, bw_topic **out)
{
    bw_err e = check_new(b, name, partitions);
    if (e) return e;
    bw_meta_topic m = {.created_ms = bw_clock_wall_ms()};
    memcpy(m.name, name.data, name.len);
    m.partitions = (uint32_t)(partitions ? partitions : b->config.num_partitions);
    bw_topic_config config = *b->config.topic_defaults;
    e = apply_configs(b, &config, &m.configs, &m.config_count, configs, count);
    if (!e && bw_os_uuid(m.id.b)) e = bw_fail(BW_ERR_IO, "no random bytes for a topic id");
    if (!e) e = bw_store_topic_put(b->store, &m);
    BW_KILL_POINT("topic.stored");
    bw_topic *t = NULL;
    if (!e && (e = bw_topic_from_meta(b, &m, &t))) bw_store_topic_remove(b->store, m.name);
    free(m.configs);
    if (e) return e;
    if ((e = make_running(b, t, m.partitions))) {
        char why[512];
        snprintf(why, sizeof why, "%s", bw_error_message());
        bw_topic_delete_start(b, t, NULL);
        return bw_fail(e, "cannot make topic '%.*s': %s", (int)name.len, name.data, why);
    }
    BW_KILL_POINT("topic.running");
    char id[23];
    bw_uuid_base64(&t->id, id);
    if (bw_topic_config_compacts(&t->config)) bw_cleaner_want(b);
    bw_broker_event(b, BW_LOG_INFO, "topic_created", "topic=%s id=%s partitions=%u", t->name, id, t->part_count);
    bw_groups_topic_created(b, t);
    bw_link_topics_changed(b);
    *out = t;
    return BW_OK;
}

/* ---- alter ---- */

bw_err bw_topic_alter_config(bw_broker *b, bw_topic *t, int32_t partitions, const bw_config_pair *configs, size_t count)
{
    if (!b->ready) return bw_fail(BW_ERR_BUSY, "%s", b->not_ready);
    if (partitions && (partitions < (int32_t)t->part_count || (uint32_t)partitions > BW_PARTITIONS_MAX))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "topic '%s' has %u partitions; their number can only grow, up to %u", t->name, t->part_count,
                       BW_PARTITIONS_MAX);
    bw_err over = partitions ? check_partitions(b, (uint32_t)partitions - t->part_count) : BW_OK;
    if (over) return over;
    bw_topic_config config = t->config;
    size_t n = t->override_count;
    bw_meta_config *overrides = malloc((n + 1) * sizeof *overrides);
    if (!overrides) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a topic's configuration");
    if (n) memcpy(overrides, t->overrides, n * sizeof *overrides);
    bw_err e = apply_configs(b, &config, &overrides, &n, configs, count);
    bw_meta_topic m;
    bw_topic_meta_fill(t, &m);
    m.configs = overrides;
    m.config_count = n;
    if (partitions) m.partitions = (uint32_t)partitions;
    if (!e) e = bw_store_topic_put(b->store, &m);
    if (e) {
        free(overrides);
        return e;
    }
    BW_KILL_POINT("topic.altered");
    free(t->overrides);
    t->overrides = overrides;
    t->override_count = n;
    t->config = config;
    bw_partition_config pc;
    bw_topic_config_partition(&config, &pc);
    pc.mirror = t->mirror != NULL;
    pc.dirty = b->dirty.most ? &b->dirty : NULL;
    pc.disk_reserve_bytes = atomic_load(&b->reserve_bytes);
    for (uint32_t i = 0; !e && i < t->part_count; i++)
        if (t->parts[i]->log) e = bw_partition_set_config(t->parts[i]->log, &pc);
    if (!e && m.partitions > t->part_count) {
        e = bw_topic_open_parts(b, t, m.partitions, true);
        bw_queue_topic_grew(b, t);
    }
    if (bw_topic_config_compacts(&config)) bw_cleaner_want(b);
    if (!e && partitions) bw_groups_topic_grown(b, t);
    bw_link_topics_changed(b);
    if (!e) bw_broker_event(b, BW_LOG_INFO, "topic_altered", "topic=%s partitions=%u", t->name, t->part_count);
    return e;
}

/* ---- delete ---- */

static void delete_run(bw_broker *b, bw_job *job)
{
    bw_topic *t = job->topic;
    bw_err e = BW_OK;
    for (uint32_t i = 0; i < t->part_count; i++) {
        bw_part *p = t->parts[i];
        while (atomic_load(&p->users) > 1) { /* the keeper is at it */
            struct timespec nap = {0, 1000000};
            nanosleep(&nap, NULL);
        }
        bw_recovery_point ignored;
        if (p->log) bw_partition_close(p->log, false, &ignored);
        p->log = NULL;
        bw_err one = bw_partition_delete_files(b->dir->fd, t->name, (int32_t)i);
        BW_KILL_POINT("topic.deleting");
        if (one && one != BW_ERR_NOT_FOUND && !e) {
            e = one;
            bw_job_set_error(job, e);
        }
    }
    bw_control_remove(b->arena_fd, &t->id);
    if (e) return; /* stays marked; the next start tries again */
    if ((e = bw_store_topic_remove(b->store, t->name))) bw_job_set_error(job, e);
    BW_KILL_POINT("topic.deleted");
}

static void delete_done(bw_broker *b, bw_job *job)
{
    char why[600];
    if (job->error)
        bw_broker_event(b, BW_LOG_ERROR, "topic_delete_unfinished", "topic=%s reason=%s", job->topic->name,
                        bw_event_text(job->message, why, sizeof why));
    else bw_broker_event(b, BW_LOG_INFO, "topic_deleted", "topic=%s", job->topic->name);
    bw_topic_free(b, job->topic);
    if (job->op && job->error) {
        bw_error_set_message(job->error, job->message);
        bw_op_fail(job->op, job->error);
    } else if (job->op) bw_op_ok(job->op);
    free(job);
}

bw_err bw_topic_delete_start(bw_broker *b, bw_topic *t, bw_op *op)
{
    bw_job *job = calloc(1, sizeof *job);
    if (!job) return bw_fail(BW_ERR_NO_MEMORY, "no memory to delete topic '%s'", t->name);
    bw_meta_topic m;
    bw_topic_meta_fill(t, &m);
    m.state = BW_META_TOPIC_DELETING;
    bw_err e = bw_store_topic_put(b->store, &m);
    if (e) {
        free(job);
        return e;
    }
    BW_KILL_POINT("topic.promised");
    t->deleting = true;
    bw_topic_forget_links(b, t);
    bw_lead_forget(b, t);
    bw_queue_forget_topic(b, t);
    for (uint32_t i = 0; i < t->part_count; i++) {
        bw_part *p = t->parts[i];
        atomic_store(&t->control->slots[i].state, BW_SLOT_DELETED);
        bw_wake(t->control, i, BW_WAIT_TAIL);
        bw_wake(t->control, i, BW_WAIT_STATE);
        bw_fail(BW_ERR_DELETED, "topic '%s' was deleted", t->name);
        bw_produce_fail_all(b, p, BW_ERR_DELETED);
        bw_part_serve(b, p); /* fetches and subscriptions get DELETED */
        bw_fetch_end_part(b, p);
        bw_fail(BW_ERR_DELETED, "topic '%s' was deleted", t->name);
        bw_sub_end_part(p, BW_ERR_DELETED);
        bw_tap_end_part(b, p);
        bw_part_stop_io(b, p);
        bw_part_remove(b, p);
        bw_opener_release(b, p); /* what waited for it is told */
    }
    bw_groups_topic_deleted(b, t);
    bw_offsets_topic_deleted(b, t);
    bw_attach_forget_topic(b, &t->id);
    *job = (bw_job){.run = delete_run, .done = delete_done, .op = op, .topic = t};
    return bw_worker_submit(b, job);
}
