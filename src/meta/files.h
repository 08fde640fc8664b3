/* meta/files.h: the files beside LMDB in <data>/meta: reading them bounded, their names, and putting damaged ones aside. Internal. */
#ifndef BW_META_FILES_H
#define BW_META_FILES_H

#include "base/bytes.h"

#define BW_DATA_FILE "data.mdb"
#define BW_FILE_NAME_MAX 64

/* A file read front to back. Nothing is trusted: what is asked for beyond the file's end is simply not there. */
typedef struct bw_source {
    int fd;
    uint64_t size, at; /* of the next byte that take gives */
    uint64_t read;     /* the file's offset of the window's end */
    bw_buf window;
    size_t pos;
    bool failed; /* not at the end, but an input/output error or no memory: the error is set */
} bw_source;
/* bw_source_open: NOT_FOUND, IO. */
bw_err bw_source_open(int dir_fd, const char *name, bw_source *out);
void bw_source_close(bw_source *s);
/* bw_source_take: len bytes, valid until the next call, or NULL: the file ends before (or failed). */
const uint8_t *bw_source_take(bw_source *s, size_t len);
static inline uint64_t bw_source_left(const bw_source *s) { return s->size - s->at; }
/* bw_source_zeros: nothing but zeros follows. */
bool bw_source_zeros(bw_source *s);

/* "<kind>-<sequence, 16 hex digits>" */
void bw_file_name(char out[BW_FILE_NAME_MAX], const char *kind, uint64_t sequence);
bool bw_file_number(const char *name, const char *kind, uint64_t *sequence);

/* bw_file_aside: rename to "<name>.damaged-<n>", n free; the folder is synced. NOT_FOUND when there is nothing. */
bw_err bw_file_aside(int dir_fd, const char *name, char aside[BW_FILE_NAME_MAX]);

#endif
