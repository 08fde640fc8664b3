/* demo/shared.c: the counters' file, journals, hashes, latency buckets. */
#include "demo/demo.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

const char *const demo_topic_names[DEMO_TOPICS] = {"packages", "sensors"};
const char *const demo_reader_names[DEMO_READERS] = {"direct", "socket"};

int64_t demo_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int demo_fail(const char *format, ...)
{
    va_list args;
    fputs("busway-demo: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return 1;
}

int demo_fail_bw(const char *what) { return demo_fail("%s: %s", what, bw_error_message()); }

bool demo_shared_map(demo *d, bool create)
{
    char path[320];
    snprintf(path, sizeof path, "%s/counters", d->folder);
    int fd = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0600);
    if (fd < 0) return demo_fail("%s: %s", path, strerror(errno)), false;
    void *map = MAP_FAILED;
    if (!create || ftruncate(fd, sizeof(demo_shared)) == 0)
        map = mmap(NULL, sizeof(demo_shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED) return demo_fail("%s: %s", path, strerror(errno)), false;
    d->shared = map;
    return true;
}

static uint64_t fnv(uint64_t h, const void *data, size_t len)
{
    const uint8_t *s = data;
    for (size_t i = 0; i < len; i++) h = (h ^ s[i]) * UINT64_C(1099511628211);
    return h;
}

uint64_t demo_hash(const void *key, size_t key_len, const void *value, size_t value_len, int64_t seq, int64_t ns)
{
    uint64_t h = fnv(UINT64_C(14695981039346656037), &key_len, sizeof key_len);
    h = fnv(fnv(h, key, key_len), value, value_len);
    return fnv(fnv(h, &seq, sizeof seq), &ns, sizeof ns);
}

unsigned demo_bucket(int64_t ns)
{
    if (ns < 16) return ns < 0 ? 0 : (unsigned)ns;
    unsigned power = 63 - (unsigned)__builtin_clzll((uint64_t)ns);
    return (power - 3) * 16 + (unsigned)(ns >> (power - 4) & 15);
}

double demo_bucket_ns(unsigned bucket)
{
    if (bucket < 16) return bucket;
    return (double)(16 + bucket % 16) * (double)(UINT64_C(1) << (bucket / 16 - 1));
}

static bool number(const bw_header *h, int64_t *out)
{
    int64_t v = 0;
    const char *s = h->value;
    if (!s || h->value_len == 0 || h->value_len > 18) return false;
    for (size_t i = 0; i < h->value_len; i++) {
        if (s[i] < '0' || s[i] > '9') return false;
        v = v * 10 + (s[i] - '0');
    }
    *out = v;
    return true;
}

bool demo_record_identity(const bw_record_view *record, int64_t *seq, int64_t *ns)
{
    bw_header_iter it;
    bw_header h;
    int found = 0;
    bw_header_iter_init(&it, record);
    while (bw_header_iter_next(&it, &h) == 1) {
        if (h.name_len == 3 && memcmp(h.name, "seq", 3) == 0) found += number(&h, seq);
        if (h.name_len == 2 && memcmp(h.name, "ns", 2) == 0) found += number(&h, ns);
    }
    return found == 2;
}

void demo_journal_path(const demo *d, const char *who, char *out, size_t size)
{
    snprintf(out, size, "%s/journal.%s", d->folder, who);
}

demo_entry *demo_journal_load(const demo *d, const char *who, size_t *count)
{
    char path[320];
    struct stat st;
    *count = 0;
    demo_journal_path(d, who, path, sizeof path);
    FILE *f = fopen(path, "rbe");
    if (!f || fstat(fileno(f), &st) != 0 || st.st_size < (off_t)sizeof(demo_entry)) {
        if (f) fclose(f);
        return NULL;
    }
    size_t n = (size_t)st.st_size / sizeof(demo_entry);
    demo_entry *entries = malloc(n * sizeof *entries);
    if (entries) *count = fread(entries, sizeof *entries, n, f);
    fclose(f);
    return entries;
}
