/* support/hostile.h: one daemon for tests that mistreat it, and a good client that must be served meanwhile.
 *
 * hostile_start and hostile_stop are the group's set-up and tear-down, hostile_nothing_is_lost each test's tear-down: the good client's
 * records are all there, the daemon lives, and its memory is near what it was. Everything else ends the test with a message when it
 * cannot be done. */
#ifndef BW_TESTS_SUPPORT_HOSTILE_H
#define BW_TESTS_SUPPORT_HOSTILE_H

#include "support/bus.h"
#include "support/wire.h"

enum { HELLO = 1, METADATA = 2, CREATE = 3, PRODUCE = 7, FETCH = 8, SUBSCRIBE = 9, LIST_OFFSETS = 13, STATUS = 21, CLOSING = 2 };
enum { PATIENCE_MS = 10000 };
#ifdef __SANITIZE_ADDRESS__
enum { RSS_ROOM_KIB = 600 << 10 };
#else
enum { RSS_ROOM_KIB = 96 << 10 };
#endif


extern test_daemon hostile_daemon;
extern bw_bus *hostile_bus;
extern bw_producer *hostile_good;
extern char hostile_stream_path[400], hostile_rep_path[420];
extern long hostile_rss_before;

int hostile_start(void **state);
int hostile_stop(void **state);
int hostile_nothing_is_lost(void **state);
long hostile_rss_kib(void);
/* The good client sends one record to the topic "good". */
void hostile_good_client_is_served(void);

int hostile_dial(void);
int hostile_hello(void); /* dialled, and HELLO answered */
/* Sends a frame; the header is freed. The daemon may have closed: that shows at the next receive. */
void hostile_send(int fd, uint16_t type, uint32_t correlation, wire_buf *header, const void *payload, size_t len);
void hostile_receive(int fd, wire_buf *answer);
/* The next answer is this error; closing: and then the connection ends. says: in its message; may be NULL. */
void hostile_expect_error(int fd, int error, uint32_t correlation, bool closing, const char *says);
wire_buf hostile_produce_header(const char *topic, int64_t partition, bool create);
wire_buf hostile_fetch_header(const char *topic, int64_t max_bytes);
int64_t hostile_end_of(const char *topic);
/* A sound batch, the first of the topic, as it lies in the log; its size. */
size_t hostile_sound_batch(const char *topic, uint8_t *out, size_t size);

#endif
