/* support/links.h: what tests of links do again and again: add one, wait until two topics are equal, read a partition whole. */
#ifndef BW_TESTS_SUPPORT_LINKS_H
#define BW_TESTS_SUPPORT_LINKS_H

#include "support/bus.h"

#include <busway/link.h>

/* link_add: options as "name=value", up to a NULL. */
void link_add(const char *url, const char *name, const char *const *options);
/* link_number: of the link's description. link_text: likewise; its state, for example, in a static buffer. */
long long link_number(const char *url, const char *name, const char *field);
const char *link_text(const char *url, const char *name, const char *field);

/* A record as it lies in a log. */
typedef struct seen {
    int64_t offset;
    char value[40];
    bool foreign;   /* a merge brought it */
    uint32_t sum;   /* of key, value and timestamp */
} seen;

typedef struct seen_list {
    seen *items;
    size_t count;
} seen_list;

/* read_whole: the partition from its beginning to its present end; free(items). */
seen_list read_whole(const char *url, const char *topic, int32_t partition, bw_isolation isolation);
int64_t end_of(const char *url, const char *topic, int32_t partition);
/* wait_for_end: until the partition ends at or behind `end`; ends the test after timeout_ms. */
void wait_for_end(const char *url, const char *topic, int32_t partition, int64_t end, int timeout_ms);
/* assert_mirrors: two partitions are equal, offset by offset. */
void assert_mirrors(const char *origin_url, const char *topic, const char *mirror_url, const char *mirror, int32_t partition);

#endif
