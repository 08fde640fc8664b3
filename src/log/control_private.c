/* log/control_private.c: control data in private memory: for who reads files without a coordinator (follow.h). Its layout is that of
 * the shared files, so that readers, mailboxes and wake-ups work as they do there; nothing of it is seen by another process. */
#include "log/follow.h"

#include "base/os.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

static void *private_pages(size_t bytes)
{
    void *p = bw_os_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

bw_err bw_mail_private(bw_mail **out)
{
    bw_mail *m = calloc(1, sizeof *m);
    size_t bytes = BW_CONTROL_HEADER_BYTES + (size_t)BW_MAILBOXES * BW_MAILBOX_STRIDE;
    void *map = m ? private_pages(bytes) : NULL;
    if (!map) {
        free(m);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for mailboxes");
    }
    m->header = map;
    m->base = (uint8_t *)map + BW_CONTROL_HEADER_BYTES;
    m->map_bytes = bytes;
    m->header->magic = BW_CONTROL_MAGIC;
    m->header->kind = BW_CONTROL_MAIL;
    atomic_store(&m->header->slots, BW_MAILBOXES);
    *out = m;
    return BW_OK;
}

bw_err bw_control_private(const bw_uuid *topic, bw_mail *mail, bw_control **out)
{
    bw_control *c = calloc(1, sizeof *c);
    if (!c) return bw_fail(BW_ERR_NO_MEMORY, "no memory for control data");
    c->mail = mail;
    c->mode = BW_CONTROL_READ;
    c->tail_bytes = c->wait_bytes = BW_CONTROL_HEADER_BYTES + (size_t)BW_PARTITIONS_MAX * BW_SLOT_BYTES;
    c->tail_map = private_pages(c->tail_bytes);
    c->wait_map = private_pages(c->wait_bytes);
    if (!c->tail_map || !c->wait_map) {
        bw_control_close(c);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for control data");
    }
    c->header = c->tail_map;
    c->header->magic = BW_CONTROL_MAGIC;
    c->header->kind = BW_CONTROL_TAIL;
    c->header->topic_id = *topic;
    c->slots = (bw_tail_slot *)(void *)((uint8_t *)c->tail_map + BW_CONTROL_HEADER_BYTES);
    c->waits = (bw_wait_slot *)(void *)((uint8_t *)c->wait_map + BW_CONTROL_HEADER_BYTES);
    *out = c;
    return BW_OK;
}
