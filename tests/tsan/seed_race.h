/* tests/tsan/seed_race.h: included before append.c of the seeded build: every release store of it is relaxed, so that what is
 * published (P1) is not ordered behind the copy. ThreadSanitizer must report it; if it does not, it is not looking. */
#include <stdatomic.h>
#define memory_order_release memory_order_relaxed
