/* demo/source.c: the package manager's log and /proc. */
#include "demo/source.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#define LINE_MAX_BYTES 65536

/* The n-th word of text, from 0; false when there are fewer. */
static bool word(const char *text, int n, size_t *at, size_t *len)
{
    const char *s = text;
    for (;; n--) {
        while (*s == ' ' || *s == '\t') s++;
        if (!*s) return false;
        const char *end = s;
        while (*end && *end != ' ' && *end != '\t') end++;
        if (n == 0) return *at = (size_t)(s - text), *len = (size_t)(end - s), true;
        s = end;
    }
}

/* dpkg.log: "DATE TIME status STATE PACKAGE VERSION", "DATE TIME install|upgrade|… PACKAGE OLD NEW", "DATE TIME startup …". */
static void key_dpkg(demo_line *l)
{
    size_t at = 0, len = 0;
    if (!word(l->text, 2, &at, &len)) return;
    bool status = len == 6 && memcmp(l->text + at, "status", 6) == 0;
    bool startup = len == 7 && memcmp(l->text + at, "startup", 7) == 0;
    if (!startup && !word(l->text, status ? 4 : 3, &at, &len)) return;
    l->key = at;
    l->key_len = len;
}

static void key_first(demo_line *l) { word(l->text, 0, &l->key, &l->key_len); }

/* The first kind that has a line is taken: a line a package's event, keyed by it where the format is known. */
static const struct kind {
    const char *pattern;
    void (*key)(demo_line *l);
} kinds[] = {
    {"/var/log/dpkg.log*", key_dpkg}, {"/var/log/pacman.log*", key_first},      {"/var/log/dnf.rpm.log*", key_first},
    {"/var/log/apk.log*", key_first}, {"/var/log/apt/history.log*", key_first},
};

/* Rotation: dpkg.log.2.gz is older than dpkg.log.1, which is older than dpkg.log. */
static int rotation(const char *path)
{
    const char *s = path + strlen(path);
    while (s > path && !(s[-1] == '.' && isdigit((unsigned char)*s))) s--;
    return s > path ? atoi(s) : 0;
}

static int oldest_first(const void *a, const void *b) { return rotation(*(char *const *)b) - rotation(*(char *const *)a); }

static bool load_file(demo_lines *out, size_t *room, const char *path, void (*key)(demo_line *l), char *buffer)
{
    gzFile f = gzopen(path, "rbe"); /* reads plain files too */
    if (!f) return true;
    bool ok = true;
    while (ok && gzgets(f, buffer, LINE_MAX_BYTES)) {
        size_t len = strcspn(buffer, "\n");
        buffer[len] = 0;
        if (len == 0) continue;
        if (out->count == *room) {
            size_t more = *room ? *room * 2 : 4096;
            demo_line *grown = realloc(out->lines, more * sizeof *grown);
            if (!(ok = grown != NULL)) break;
            out->lines = grown;
            *room = more;
        }
        demo_line *l = &out->lines[out->count];
        *l = (demo_line){.text = strdup(buffer), .len = len};
        if (!(ok = l->text != NULL)) break;
        key(l);
        out->count++;
    }
    gzclose(f);
    return ok;
}

bool demo_lines_load(demo_lines *out)
{
    *out = (demo_lines){0};
    size_t room = 0;
    bool ok = true;
    char *buffer = malloc(LINE_MAX_BYTES);
    for (size_t k = 0; ok && buffer && k < sizeof kinds / sizeof *kinds && out->count == 0; k++) {
        glob_t found;
        if (glob(kinds[k].pattern, 0, NULL, &found) != 0) continue;
        qsort(found.gl_pathv, found.gl_pathc, sizeof(char *), oldest_first);
        for (size_t i = 0; i < found.gl_pathc && ok; i++) ok = load_file(out, &room, found.gl_pathv[i], kinds[k].key, buffer);
        snprintf(out->from, sizeof out->from, "%s", kinds[k].pattern);
        globfree(&found);
    }
    ok = ok && buffer;
    free(buffer);
    return ok;
}

void demo_lines_free(demo_lines *lines)
{
    for (size_t i = 0; i < lines->count; i++) free(lines->lines[i].text);
    free(lines->lines);
    *lines = (demo_lines){0};
}

/* One file of /proc: a sensor a line, named by its `column`-th word. */
static void sample_file(const char *path, const char *name, int column, demo_sample_fn fn, void *opaque)
{
    char text[32768], key[192];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return;
    text[n] = 0;
    for (char *line = text, *next; line && *line; line = next) {
        size_t at = 0, len = 0;
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        if (!word(line, column, &at, &len)) continue;
        const char *value = line + at + len;
        if (len && line[at + len - 1] == ':') len--;
        while (*value == ' ' || *value == '\t') value++;
        int key_len = snprintf(key, sizeof key, "%s.%.*s", name, (int)len, line + at);
        if (key_len > 0 && (size_t)key_len < sizeof key && *value) fn(opaque, key, (size_t)key_len, value, strlen(value));
    }
}

static void sample_whole(const char *path, const char *key, demo_sample_fn fn, void *opaque)
{
    char text[512];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    ssize_t n = read(fd, text, sizeof text);
    close(fd);
    while (n > 0 && text[n - 1] == '\n') n--;
    if (n > 0) fn(opaque, key, strlen(key), text, (size_t)n);
}

void demo_sample(unsigned round, demo_sample_fn fn, void *opaque)
{
    sample_file("/proc/meminfo", "meminfo", 0, fn, opaque);
    sample_file("/proc/stat", "stat", 0, fn, opaque);
    sample_file("/proc/pressure/cpu", "pressure.cpu", 0, fn, opaque);
    sample_file("/proc/pressure/memory", "pressure.memory", 0, fn, opaque);
    sample_file("/proc/pressure/io", "pressure.io", 0, fn, opaque);
    sample_file("/proc/diskstats", "disk", 2, fn, opaque);
    sample_file("/proc/net/dev", "net", 0, fn, opaque);
    sample_whole("/proc/loadavg", "loadavg", fn, opaque);
    if (round % 8) return; /* the processes are more work: less often */
    DIR *proc = opendir("/proc");
    for (struct dirent *e; proc && (e = readdir(proc));) {
        char path[64], key[64];
        if (!isdigit((unsigned char)e->d_name[0]) || strlen(e->d_name) > 10) continue;
        snprintf(path, sizeof path, "/proc/%.10s/statm", e->d_name);
        snprintf(key, sizeof key, "process.%.10s", e->d_name);
        sample_whole(path, key, fn, opaque);
    }
    if (proc) closedir(proc);
}
