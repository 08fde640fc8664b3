/* broker/adopt.c: at start: partition folders that the store does not know become topics; deletions that were cut short are ended.
 *
 * A folder keeps the topic id of its partition.metadata; without one (logs of older Kafka) the topic gets a new id, which is written
 * there. Folders of one topic must agree on the id. Nothing is changed in folders that are not adopted; an event says why. */
#include "broker/core.h"

#include "base/os.h"
#include "format/names.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct found {
    char topic[BW_TOPIC_NAME_MAX + 1];
    int32_t partition;
} found;

typedef struct found_list {
    found *items;
    size_t count, cap;
    bool no_memory;
} found_list;

static bool on_entry(void *opaque, const char *name)
{
    found_list *l = opaque;
    found f;
    if (!bw_partition_dir_parse(name, f.topic, &f.partition)) return true;
    if (l->count == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 32;
        found *grown = realloc(l->items, cap * sizeof *grown);
        if (!grown) return l->no_memory = true, false;
        l->items = grown;
        l->cap = cap;
    }
    l->items[l->count++] = f;
    return true;
}

static int by_topic(const void *x, const void *y)
{
    const found *a = x, *b = y;
    int c = strcmp(a->topic, b->topic);
    return c ? c : (a->partition > b->partition) - (a->partition < b->partition);
}

/* NOT_FOUND: there is no such file. */
static bw_err read_topic_id(bw_broker *b, const found *f, bw_uuid *id)
{
    char folder[BW_PARTITION_DIR_MAX], path[BW_PARTITION_DIR_MAX + 32], text[256];
    bw_partition_dir_name(folder, f->topic, f->partition);
    snprintf(path, sizeof path, "%s/partition.metadata", folder);
    int fd = bw_os_open_beneath(b->dir->fd, path, O_RDONLY, 0);
    if (fd < 0) return bw_fail_errno(errno, "cannot open %s", path);
    ssize_t n = bw_os_pread(fd, text, sizeof text, 0);
    int saved = errno;
    bw_os_close(fd);
    if (n < 0) return bw_fail_errno(saved, "cannot read %s", path);
    bw_err e = bw_partition_metadata_decode(text, (size_t)n, id);
    return e ? bw_error_context(e, "%s", path) : BW_OK;
}

static bw_err write_topic_id(bw_broker *b, const found *f, const bw_uuid *id)
{
    char folder[BW_PARTITION_DIR_MAX], text[64];
    bw_partition_dir_name(folder, f->topic, f->partition);
    int dir = bw_os_open_beneath(b->dir->fd, folder, O_RDONLY | O_DIRECTORY, 0);
    if (dir < 0) return bw_fail_errno(errno, "cannot open folder %s", folder);
    size_t len = bw_partition_metadata_encode(text, id);
    int fd = bw_os_open(dir, "partition.metadata.tmp", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    bw_err e = BW_OK;
    if (fd < 0 || bw_os_pwrite(fd, text, len, 0) < 0 || bw_os_fdatasync(fd) ||
        bw_os_rename(dir, "partition.metadata.tmp", dir, "partition.metadata") || bw_os_sync_dir(dir))
        e = bw_fail_errno(errno, "cannot write partition.metadata in %s", folder);
    if (fd >= 0) bw_os_close(fd);
    bw_os_close(dir);
    return e;
}

static bw_err group_id(bw_broker *b, const found *f, size_t n, const bw_topic *known, bw_uuid *id, bool *none)
{
    bool have = known != NULL;
    *none = true;
    if (known) *id = known->id;
    for (size_t i = 0; i < n; i++) {
        bw_uuid one;
        bw_err e = read_topic_id(b, &f[i], &one);
        if (e == BW_ERR_NOT_FOUND) continue;
        if (e) return e;
        *none = false;
        if (have && !bw_uuid_equal(&one, id))
            return bw_fail(BW_ERR_CORRUPT, "folder %s-%d has another topic id than the topic's others", f[i].topic, f[i].partition);
        *id = one;
        have = true;
    }
    if (!have && bw_os_uuid(id->b)) return bw_fail(BW_ERR_IO, "no random bytes for a topic id");
    return BW_OK;
}

static bw_err check_adoptable(bw_broker *b, const found *f, size_t n, const bw_topic *known)
{
    bw_err e = bw_topic_name_check(f->topic, strlen(f->topic));
    if (e) return e;
    int32_t most = f[n - 1].partition;
    size_t there = n + (known ? known->part_count : 0);
    if ((uint32_t)most >= BW_PARTITIONS_MAX || (size_t)most > 4 * there + 64)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "partition number %d is out of proportion to the %zu folders there are", most, there);
    bw_topic *t, *tmp;
    HASH_ITER(by_name, b->topics_by_name, t, tmp)
    {
        if (t != known && bw_topic_names_collide(t->name, f->topic))
            return bw_fail(BW_ERR_INVALID_TOPIC, "topic name '%s' collides with '%s'", f->topic, t->name);
    }
    return BW_OK;
}

/* f: the folders of one topic that the store does not know, ascending. */
static bw_err adopt_group(bw_broker *b, const found *f, size_t n)
{
    bw_topic *known = bw_topic_find(b, bw_str_of(f->topic)), *same_id = NULL;
    bw_uuid id;
    bool none;
    bw_err e = check_adoptable(b, f, n, known);
    if (!e) e = group_id(b, f, n, known, &id, &none);
    if (e) return e;
    if (!known) HASH_FIND(by_id, b->topics_by_id, id.b, 16, same_id);
    if (same_id) return bw_fail(BW_ERR_TOPIC_EXISTS, "its topic id is that of topic '%s'", same_id->name);
    for (size_t i = 0; none && i < n; i++)
        if ((e = write_topic_id(b, &f[i], &id))) return e;
    bw_meta_topic m = {.partitions = 0};
    if (known) bw_topic_meta_fill(known, &m);
    else {
        memcpy(m.name, f->topic, sizeof m.name);
        m.id = id;
        m.created_ms = bw_clock_wall_ms();
    }
    m.partitions = (uint32_t)f[n - 1].partition + 1;
    if ((e = bw_store_topic_put(b->store, &m))) return e;
    bw_topic *t = known;
    if (!t && (e = bw_topic_from_meta(b, &m, &t))) return e;
    t->wanted_parts = m.partitions;
    char text[23];
    bw_uuid_base64(&id, text);
    bw_broker_event(b, BW_LOG_INFO, "topic_adopted", "topic=%s id=%s partitions=%u folders=%zu", t->name, text, m.partitions, n);
    return BW_OK;
}

static void adopt_all(bw_broker *b, const found_list *l)
{
    for (size_t i = 0, n; i < l->count; i += n) {
        const bw_topic *known = bw_topic_find(b, bw_str_of(l->items[i].topic));
        size_t first = i;
        for (n = 1; i + n < l->count && !strcmp(l->items[i].topic, l->items[i + n].topic); n++) {}
        while (known && first < i + n && (uint32_t)l->items[first].partition < known->wanted_parts) first++;
        if (first == i + n) continue;
        bw_err e = adopt_group(b, &l->items[first], i + n - first);
        char why[700];
        if (e)
            bw_broker_event(b, BW_LOG_WARN, "folder_not_adopted", "topic=%s reason=%s", l->items[i].topic,
                            bw_event_text(bw_error_message(), why, sizeof why));
    }
}

bw_err bw_broker_adopt(bw_broker *b)
{
    found_list l = {0};
    bw_err e = BW_OK;
    if (bw_os_list_dir(b->dir->fd, on_entry, &l)) e = bw_fail_errno(errno, "cannot list the data directory %s", b->dir->path);
    else if (l.no_memory) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for the data directory's list");
    else {
        if (l.count) qsort(l.items, l.count, sizeof *l.items, by_topic);
        adopt_all(b, &l);
    }
    free(l.items);
    return e;
}

bw_err bw_broker_finish_deletes(bw_broker *b, bw_meta_topic *topics, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (topics[i].state != BW_META_TOPIC_DELETING) continue;
        for (uint32_t p = 0; p < topics[i].partitions; p++) {
            bw_err e = bw_partition_delete_files(b->dir->fd, topics[i].name, (int32_t)p);
            if (e && e != BW_ERR_NOT_FOUND) return bw_error_context(e, "topic '%s' is to be deleted", topics[i].name);
        }
        bw_err e = bw_store_topic_remove(b->store, topics[i].name);
        if (e) return e;
        bw_broker_event(b, BW_LOG_INFO, "topic_deleted", "topic=%s resumed=true", topics[i].name);
    }
    return BW_OK;
}
