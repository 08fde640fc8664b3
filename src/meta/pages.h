/* meta/pages.h: is the structure of an LMDB file sound? Without LMDB, which trusts what it reads: a bounded walk over the pages.
 *
 * What LMDB 0.9 keeps (64-bit, little-endian), as far as it is checked here:
 *   pages 0, 1   header · magic 0xBEEFC0DE, version 1 · address · map size · two trees (free, main) · last page · transaction;
 *                the one with the higher transaction counts
 *   page header  u64 its number · u16 pad · u16 flags (1 branch, 2 leaf, 4 overflow, 8 meta) · u16 lower, u16 upper (overflow: u32 pages)
 *                then (lower - 16) / 2 offsets of nodes, which fill upper … page size without a gap
 *   node         u16 lo, u16 hi, u16 flags, u16 key length · key · a leaf's data (lo | hi << 16 bytes; flag 1: the number of an overflow page;
 *                flag 2: a tree) ; a branch's child is lo | hi << 16 | flags << 32
 *   tree         u32 pad, u16 flags, u16 depth, u64 branch, leaf and overflow pages, u64 entries, u64 root
 * Sound: both meta pages are; every page of every tree says its own number and kind, lies in the file and is used once; depth and counts
 * are as the tree says; keys ascend, and between the keys of the branches above; the pages of the free list are in no tree, and in it
 * once. Then a reader meets nothing unexpected, and a writer overwrites nothing that is in use. Whether the entries are the right ones
 * is not said here: their checksums do (entry.h). */
#ifndef BW_META_PAGES_H
#define BW_META_PAGES_H

#include "base/err.h"

#include <stddef.h>

/* bw_pages_check: file: all of data.mdb. CORRUPT says what is wrong and where; NO_MEMORY. Pure, bounded by len. */
bw_err bw_pages_check(const void *file, size_t len);

#endif
