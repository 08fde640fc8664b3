/* meta/pages.c: see pages.h. The walk keeps its own stack, as deep as a tree can be; every page is looked at once at most, because one that
 * is met twice is an error. */
#include "meta/pages.h"

#include "base/bytes.h"

#include <stdlib.h>

enum {
    BRANCH = 1, LEAF = 2, OVERFLOW = 4, META = 8,
    NODE_BIG = 1, NODE_TREE = 2,
    PAGE_HEADER = 16, NODE_HEADER = 8, TREE_BYTES = 48, META_BYTES = 136, DEPTH_MAX = 32, TREES_MAX = 16,
    KEY_MAX = 511, INTEGER_KEY = 8,
    UNWRITTEN_MAX = 1 << 17, /* pages of one transaction */
};
#define MAP_MAX (UINT64_C(1) << 40)
#define NO_PAGE UINT64_MAX

static uint16_t get16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static uint32_t get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static uint64_t get64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }

typedef struct tree {
    uint32_t pad;
    uint16_t flags, depth;
    uint64_t branches, leaves, overflows, entries, root;
} tree;

typedef struct slice {
    const uint8_t *at;
    size_t len;
} slice;

typedef struct walk {
    const uint8_t *file;
    size_t page_bytes;
    uint64_t pages;   /* that may be in use: last page + 1; free ones at the end were perhaps never written */
    uint64_t written; /* that the file has */
    uint64_t transaction;
    uint8_t *used; /* a bit a page */
    tree trees[TREES_MAX];
    uint32_t tree_count;
} walk;

static bw_err odd(const char *what, uint64_t page)
{
    return bw_fail(BW_ERR_CORRUPT, "%s, page %llu", what, (unsigned long long)page);
}

static tree get_tree(const uint8_t *p)
{
    return (tree){get32(p), get16(p + 4), get16(p + 6), get64(p + 8), get64(p + 16), get64(p + 24), get64(p + 32), get64(p + 40)};
}

static const uint8_t *page_at(const walk *w, uint64_t number) { return w->file + number * w->page_bytes; }

/* Each page is one thing only. */
static bw_err take_page(walk *w, uint64_t number)
{
    if (number < 2 || number >= w->pages) return odd("a page is not in the file", number);
    if (w->used[number / 8] & 1u << number % 8) return odd("a page is used twice", number);
    w->used[number / 8] |= (uint8_t)(1u << number % 8);
    return BW_OK;
}

static bw_err take_written(walk *w, uint64_t number)
{
    return number >= w->written ? odd("a page is not in the file", number) : take_page(w, number);
}

/* ---- a page's inside ---- */

static size_t node_count(const uint8_t *page) { return (size_t)(get16(page + 12) - PAGE_HEADER) / 2; }
static const uint8_t *node_at(const uint8_t *page, size_t i) { return page + get16(page + PAGE_HEADER + 2 * i); }
static slice node_key(const uint8_t *node) { return (slice){node + NODE_HEADER, get16(node + 6)}; }
static uint64_t node_data_len(const uint8_t *node) { return get16(node) | (uint64_t)get16(node + 2) << 16; }
static uint64_t node_child(const uint8_t *node) { return node_data_len(node) | (uint64_t)get16(node + 4) << 32; }

/* Header and nodes: everything is within the page, and the nodes fill what they should. */
static bw_err check_page(const walk *w, uint64_t number, uint16_t kind)
{
    const uint8_t *page = page_at(w, number);
    size_t lower = get16(page + 12), upper = get16(page + 14), filled = 0;
    if (get64(page) != number) return odd("a page says another number", number);
    if (get16(page + 10) != kind) return odd("a page is of another kind", number);
    if (lower < PAGE_HEADER || lower % 2 || upper < lower || upper > w->page_bytes || upper % 2) return odd("a page's limits are odd", number);
    for (size_t i = 0; i < node_count(page); i++) {
        size_t at = get16(page + PAGE_HEADER + 2 * i);
        if (at < upper || at % 2 || at + NODE_HEADER > w->page_bytes) return odd("a node lies outside its page", number);
        const uint8_t *node = page + at;
        uint64_t len = NODE_HEADER + (uint64_t)get16(node + 6);
        if (kind == LEAF) len += get16(node + 4) & NODE_BIG ? 8 : node_data_len(node);
        if (len > w->page_bytes - at) return odd("a node is longer than its page", number);
        filled += (size_t)(len + 1) & ~(size_t)1;
    }
    if (filled != w->page_bytes - upper) return odd("a page's nodes do not fill it", number);
    return BW_OK;
}

static int compare(bool integers, slice a, slice b)
{
    if (integers) {
        uint64_t x = get64(a.at), y = get64(b.at);
        return (x > y) - (x < y);
    }
    int c = memcmp(a.at, b.at, a.len < b.len ? a.len : b.len);
    return c ? c : (a.len > b.len) - (a.len < b.len);
}

/* ---- leaves ---- */

static bw_err take_overflow(walk *w, const uint8_t *node, uint64_t number, slice *data, tree *seen)
{
    uint64_t first = get64(node + NODE_HEADER + get16(node + 6)), pages = (PAGE_HEADER + data->len - 1) / w->page_bytes + 1;
    if (data->len < 1 || first < 2 || first >= w->written || pages > w->written - first) return odd("an overflow page is not in the file", number);
    const uint8_t *page = page_at(w, first);
    if (get64(page) != first || get16(page + 10) != OVERFLOW || get32(page + 12) != pages) return odd("an overflow page is none", first);
    bw_err e = BW_OK;
    for (uint64_t i = 0; !e && i < pages; i++) e = take_page(w, first + i);
    data->at = page + PAGE_HEADER;
    seen->overflows += pages;
    return e;
}

static bw_err take_free_list(walk *w, slice key, slice data, uint64_t number)
{
    if (key.len != 8 || get64(key.at) > w->transaction) return odd("the free list has an odd key", number);
    uint64_t count = data.len >= 8 ? get64(data.at) : UINT64_MAX;
    if (count > data.len / 8 - 1) return odd("the free list is cut", number);
    bw_err e = BW_OK;
    uint64_t before = NO_PAGE;
    for (uint64_t i = 1; !e && i <= count; i++) {
        uint64_t page = get64(data.at + 8 * i);
        if (page >= before) e = odd("the free list is not in order", number);
        if (!e) e = take_page(w, page);
        before = page;
    }
    return e;
}

static bw_err take_leaf(walk *w, uint64_t number, bool is_free, bool is_main, tree *seen)
{
    const uint8_t *page = page_at(w, number);
    bw_err e = BW_OK;
    for (size_t i = 0; !e && i < node_count(page); i++) {
        const uint8_t *node = node_at(page, i);
        uint16_t flags = get16(node + 4);
        slice key = node_key(node), data = {key.at + key.len, (size_t)node_data_len(node)};
        if (!key.len || key.len > KEY_MAX || (flags & ~(is_main ? NODE_BIG | NODE_TREE : NODE_BIG)) || flags == (NODE_BIG | NODE_TREE))
            e = odd("a node is odd", number);
        if (!e && flags & NODE_BIG) e = take_overflow(w, node, number, &data, seen);
        if (!e && flags & NODE_TREE) {
            if (data.len != TREE_BYTES || w->tree_count == TREES_MAX) e = odd("a tree's description is odd", number);
            else w->trees[w->tree_count++] = get_tree(data.at);
        }
        if (!e && is_free) e = take_free_list(w, key, data, number);
        seen->entries++;
    }
    return e;
}

/* ---- trees ---- */

typedef struct level {
    uint64_t number;
    size_t next;         /* child */
    slice from, to;      /* keys of this page: from <= key < to; at NULL: no limit */
} level;

static bw_err check_keys(const walk *w, const level *l, bool leaf, bool integers)
{
    const uint8_t *page = page_at(w, l->number);
    size_t count = node_count(page), first = leaf ? 0 : 1; /* a branch's first key is not used */
    for (size_t i = first; i < count; i++) {
        slice key = node_key(node_at(page, i));
        if (integers && key.len != 8) return odd("a key has an odd length", l->number);
        if (l->from.at && compare(integers, key, l->from) < 0) return odd("a key is before its branch", l->number);
        if (l->to.at && compare(integers, key, l->to) >= 0) return odd("a key is behind its branch", l->number);
        if (i > first && compare(integers, node_key(node_at(page, i - 1)), key) >= 0) return odd("keys are out of order", l->number);
    }
    return BW_OK;
}

static bw_err enter(walk *w, const tree *t, level *l, bool leaf, tree *seen)
{
    bw_err e = take_written(w, l->number);
    if (!e) e = check_page(w, l->number, leaf ? LEAF : BRANCH);
    if (!e && node_count(page_at(w, l->number)) < (leaf ? 1 : 2)) e = odd("a page is empty", l->number);
    if (!e) e = check_keys(w, l, leaf, t->flags == INTEGER_KEY);
    if (leaf) seen->leaves++;
    else seen->branches++;
    return e;
}

/* Down to the next child of the branch at `l`. */
static void child_of(const walk *w, level *l, level *child)
{
    const uint8_t *page = page_at(w, l->number);
    size_t i = l->next++;
    *child = (level){.number = node_child(node_at(page, i)), .from = l->from, .to = l->to};
    if (i > 0) child->from = node_key(node_at(page, i));
    if (i + 1 < node_count(page)) child->to = node_key(node_at(page, i + 1));
}

static bw_err check_tree(walk *w, const tree *t, bool is_free, bool is_main)
{
    if (t->root == NO_PAGE) return t->depth || t->entries || t->branches || t->leaves || t->overflows ? odd("an empty tree is not", 0) : BW_OK;
    if (!t->depth || t->depth > DEPTH_MAX) return odd("a tree's depth is odd", t->root);
    level stack[DEPTH_MAX];
    tree seen = {0};
    size_t depth = 0;
    stack[0] = (level){.number = t->root};
    bw_err e = enter(w, t, &stack[0], t->depth == 1, &seen);
    for (;;) {
        if (e) return e;
        level *l = &stack[depth];
        if (depth + 1 == t->depth) e = take_leaf(w, l->number, is_free, is_main, &seen);
        else if (l->next < node_count(page_at(w, l->number))) {
            child_of(w, l, &stack[depth + 1]);
            depth++;
            e = enter(w, t, &stack[depth], depth + 1 == t->depth, &seen);
            continue;
        }
        if (!depth--) break;
    }
    if (!e && (seen.entries != t->entries || seen.leaves != t->leaves || seen.branches != t->branches || seen.overflows != t->overflows))
        e = odd("a tree has not what it says", t->root);
    return e;
}

/* ---- the whole ---- */

static bw_err check_meta(const uint8_t *file, size_t len, size_t page_bytes, uint64_t number)
{
    const uint8_t *page = file + number * page_bytes, *m = page + PAGE_HEADER;
    tree free_tree = get_tree(m + 24), main_tree = get_tree(m + 72);
    uint64_t map = get64(m + 16), last = get64(m + 120);
    if (get64(page) != number || get16(page + 10) != META) return odd("a meta page is none", number);
    if (get32(m) != 0xBEEFC0DE || get32(m + 4) != 1) return odd("a meta page is of another version", number);
    if (free_tree.pad != page_bytes || free_tree.flags != INTEGER_KEY || main_tree.flags || main_tree.pad)
        return odd("a meta page has odd flags", number);
    if (get64(m + 8) || last < 1 || last > len / page_bytes + UNWRITTEN_MAX || map > MAP_MAX || map / page_bytes <= last)
        return odd("a meta page has odd limits", number);
    return BW_OK;
}

bw_err bw_pages_check(const void *data, size_t len)
{
    const uint8_t *file = data;
    size_t page_bytes = len >= PAGE_HEADER + META_BYTES ? get32(file + PAGE_HEADER + 24) : 0;
    if (page_bytes < 512 || page_bytes > 65536 || page_bytes & (page_bytes - 1) || len / page_bytes < 2)
        return bw_fail(BW_ERR_CORRUPT, "it does not begin as an LMDB file");
    bw_err e = check_meta(file, len, page_bytes, 0);
    if (!e) e = check_meta(file, len, page_bytes, 1);
    if (e) return e;
    const uint8_t *m = file + PAGE_HEADER;
    if (get64(m + 128) < get64(m + page_bytes + 128)) m += page_bytes;
    walk w = {.file = file, .page_bytes = page_bytes, 
              .pages = get64(m + 120) + 1, .written = len / page_bytes, .transaction = get64(m + 128)};
    if (!(w.used = calloc(1, (size_t)(w.pages / 8 + 1)))) return bw_fail(BW_ERR_NO_MEMORY, "no memory to check %zu bytes", len);
    tree free_tree = get_tree(m + 24), main_tree = get_tree(m + 72);
    e = check_tree(&w, &main_tree, false, true);
    for (uint32_t i = 0; !e && i < w.tree_count; i++) {
        if (w.trees[i].flags || w.trees[i].pad) e = odd("a tree has odd flags", w.trees[i].root);
        else e = check_tree(&w, &w.trees[i], false, false);
    }
    if (!e) e = check_tree(&w, &free_tree, true, false);
    free(w.used);
    return e;
}
