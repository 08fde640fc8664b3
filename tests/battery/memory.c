/* tests/battery/memory.c: what the battery's programs share: arenas for one partition, the record of what was written. See world.h. */
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void world_die(const char *what)
{
    fprintf(stderr, "battery: %s: %s (%s)\n", what, bw_error_message(), strerror(errno));
    abort();
}

void memory_init(memory *m, const char *root, const char *name)
{
    uint8_t generation[16];
    bw_uuid topic;
    snprintf(m->path, sizeof m->path, "%.60s/%s", root, name);
    if (mkdir(m->path, 0700)) world_die(m->path);
    m->fd = open(m->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bw_os_uuid(generation);
    bw_os_uuid(topic.b);
    if (bw_mail_create(m->fd, generation, &m->mail) || bw_control_create(m->fd, generation, &topic, m->mail, 1, &m->control))
        world_die("arenas");
    m->slot = &m->control->slots[0];
    bw_control_publish(m->control, 1);
}

void memory_forget(memory *m) { memset((void *)m->slot, 0, sizeof *m->slot); }

void memory_fini(memory *m)
{
    bw_control_close(m->control);
    bw_mail_close(m->mail);
    close(m->fd);
}

/* ---- the record ---- */

batch *model_add(model *m, const uint8_t *bytes, size_t len, int64_t base, int64_t next, int32_t epoch)
{
    if (m->count == m->cap) {
        m->cap = m->cap ? 2 * m->cap : 64;
        m->batches = realloc(m->batches, m->cap * sizeof *m->batches);
        if (!m->batches) world_die("memory");
    }
    batch *b = &m->batches[m->count++];
    *b = (batch){.base = base, .next = next, .len = (uint32_t)len, .bytes = malloc(len)};
    if (!b->bytes) world_die("memory");
    memcpy(b->bytes, bytes, len);
    bw_batch_patch(b->bytes, base, epoch);
    return b;
}

void model_drop_last(model *m) { free(m->batches[--m->count].bytes); }

void model_cut(model *m, int64_t end)
{
    while (m->count && m->batches[m->count - 1].next > end) model_drop_last(m);
}

void model_free(model *m)
{
    while (m->count) model_drop_last(m);
    free(m->batches);
    *m = (model){0};
}
