/* support/bus.h: a private daemon and what tests do with it again and again. Public API only.
 *
 * $BUSWAYD is the daemon's path, $TMPDIR where folders are made, $BUSWAY_TEST_TRANSPORT direct or ipc (default direct). */
#ifndef BW_TESTS_SUPPORT_BUS_H
#define BW_TESTS_SUPPORT_BUS_H

#include <busway/busway.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

typedef struct test_daemon {
    pid_t pid;
    char dir[256];  /* the data directory */
    char url[320];  /* ipc:// */
    const char *arguments[8]; /* more of them, for the next start */
} test_daemon;

/* All of these end the test with a message when something can't be done. */
void daemon_make(test_daemon *d);    /* folder and URL, nothing started */
void daemon_start(test_daemon *d);   /* start and wait until it answers */
void daemon_start_doomed(test_daemon *d, const char *kill_point); /* BUSWAY_KILL; it answers when this returns, or is dead already */
void daemon_stop(test_daemon *d, int signal_number); /* send and wait for its end */
void daemon_remove(test_daemon *d);  /* stop if it runs, remove the folder */

bool test_is_direct(void);
pid_t test_server_pid(bw_bus *bus); /* of the daemon, or the program, that serves it: by its status */
void test_run(const char *format, ...) __attribute__((format(printf, 1, 2))); /* a command of the shell; the test fails when it does */
bw_bus *test_bus(const char *url);   /* with the transport under test */
bw_bus *test_bus_by(const char *url, bw_transport transport);
bw_producer *test_producer(bw_bus *bus, bw_acks acks);
bw_consumer *test_consumer(bw_bus *bus, const char *topic, int32_t partition, int64_t offset);
/* The value of the record as text; sent synchronously; the offset. */
int64_t test_send(bw_producer *p, const char *topic, int32_t partition, const char *value);
bw_record test_record(const char *key, const char *value); /* NULL: null */
/* Poll until count records were read or the time is over; each is handed to fn (may be NULL). How many were read. */
typedef void (*test_record_fn)(void *opaque, const bw_batch *batch, const bw_record_view *record);
size_t test_read(bw_consumer *c, size_t count, int timeout_ms, test_record_fn fn, void *opaque);
int64_t now_ms(void); /* monotonic */
/* A number of the bus's statistics. */
long long test_stat(bw_bus *bus, const char *name);
long test_rss_kib(void);

/* assert_ok(call): BW_OK, else the code's name and the message. */
void check_ok(bw_err e, const char *what, const char *file, int line);
#define assert_ok(call) check_ok((call), #call, __FILE__, __LINE__)
void check_err(bw_err e, bw_err wanted, const char *what, const char *file, int line);
#define assert_err(call, wanted) check_err((call), (wanted), #call, __FILE__, __LINE__)

#endif
