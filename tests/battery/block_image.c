/* tests/battery/block_image.c: which writes a power cut leaves on the disk.
 *
 * Writes before the last flush are there; of those since any subset may be, each whole, or by pages of 4 KiB, or torn by sectors
 * of 512 bytes; a later one may be there without an earlier one. One exception: the file system's own superblocks (ext4's and its
 * journal's) are written whole or not at all, as ext4 itself asks of a disk. */
#include "block.h"

#include <string.h>

enum { MODE_NONE, MODE_ALL, MODE_WRITES, MODE_PAGES, MODE_TORN, MODE_ONE, MODE_ALL_BUT_ONE, MODE_LAST, MODES };
static const char *const mode_names[MODES] = {"none", "all",      "some writes", "some pages",
                                              "torn", "only one", "all but one", "the last ones"};

const char *image_mode_name(int mode) { return mode_names[mode]; }

uint64_t image_cut(rng *r, const block_log *log)
{
    uint64_t n = log->count, at = 1 + rng_next(r) % n;
    if (rng_chance(r, 2)) return at;
    for (uint64_t i = 0; i < 400 && at < n && log->writes[at].len; i++) at++; /* before the flush, or a little behind */
    at += rng_below(r, 2) ? 0 : rng_below(r, 8);
    if (at >= 2 && rng_chance(r, 3)) at -= 1 + rng_below(r, 2);
    return at < 1 ? 1 : at > n ? n : at;
}

static void apply(const block_log *log, const block_write *w, uint8_t *bytes)
{
    memcpy(bytes + w->at, log->data + w->data, w->len);
}

void image_apply_flushed(const block_log *log, uint64_t cut, uint64_t *from, uint8_t *bytes, uint8_t *also)
{
    uint64_t last = *from;
    for (uint64_t i = *from; i < cut; i++)
        if (log->writes[i].len == 0) last = i + 1;
    for (uint64_t i = *from; i < last; i++) {
        if (log->writes[i].len == 0) continue;
        apply(log, &log->writes[i], bytes);
        if (also) apply(log, &log->writes[i], also);
    }
    *from = last;
}

static bool is_superblock(const block_log *log, const block_write *w)
{
    static const uint8_t journal[4] = {0xc0, 0x3b, 0x39, 0x98};
    const uint8_t *data = log->data + w->data;
    if (w->at <= 1024 && w->at + w->len >= 2048) return true; /* ext4's */
    return w->len >= 8 && memcmp(data, journal, 4) == 0 && data[7] >= 3 && data[7] <= 4;
}

static void apply_part(const block_log *log, const block_write *w, uint32_t unit, rng *r, uint32_t likely, uint8_t *bytes)
{
    for (uint32_t at = 0; at < w->len; at += unit) {
        uint32_t n = w->len - at < unit ? w->len - at : unit;
        if (rng_below(r, 4) < likely) memcpy(bytes + w->at + at, log->data + w->data + at, n);
    }
}

void image_apply_subset(const block_log *log, image_choice *c, rng *r, uint8_t *bytes, uint8_t *touched)
{
    c->mode = (int)rng_below(r, MODES);
    uint32_t likely = 1 + rng_below(r, 3); /* of 4 */
    uint64_t n = c->cut - c->flushed, one = c->flushed + (n ? rng_next(r) % n : 0);
    for (uint64_t i = c->flushed; i < c->cut; i++) {
        const block_write *w = &log->writes[i];
        bool whole = is_superblock(log, w), in = rng_below(r, 4) < likely;
        if (c->mode == MODE_NONE) in = false;
        if (c->mode == MODE_ALL) in = true;
        if (c->mode == MODE_ONE) in = i == one;
        if (c->mode == MODE_ALL_BUT_ONE) in = i != one;
        if (c->mode == MODE_LAST) in = i >= one;
        bool torn = c->mode == MODE_TORN && !whole && rng_chance(r, 3);
        if (torn)
            apply_part(log, w, DISK_SECTOR, r, likely, bytes);
        else if (c->mode == MODE_PAGES && !whole)
            apply_part(log, w, BLOCK_PAGE, r, likely, bytes);
        else if (in)
            apply(log, w, bytes);
        else
            continue;
        c->applied++;
        c->torn += torn;
        memset(touched + w->at / BLOCK_PAGE, 1, (w->at + w->len + BLOCK_PAGE - 1) / BLOCK_PAGE - w->at / BLOCK_PAGE);
    }
}
