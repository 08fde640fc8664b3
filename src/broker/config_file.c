/* broker/config_file.c: the configuration file: ini, by inih, with the file and line in every message.
 *
 *   # comment            options before any section, or in [daemon], are the daemon's
 *   [topic-defaults]     Kafka's topic names: retention.ms = 7d
 *   [link NAME]          a link to a peer, with the options of `busway link add`: url = tcp://berlin:7070
 *
 * inih's handler is not told the line: the reader counts, and inih hands over each line before it reads the next. An option given twice
 * is an error, but for `listen`, whose values add up. */
#include "broker/config_tables.h"

#include "base/os.h"

#include <ini.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#define FILE_BYTES_MAX (1u << 20)
#define OPTIONS_MAX 64

typedef struct file_reader {
    bw_daemon_config *config;
    const char *path;
    const char *at, *end;
    int line;
    bw_err error; /* the first */
    int seen[2][OPTIONS_MAX]; /* line where daemon, topic option i was given; 0: not yet */
} file_reader;

/* fgets for inih, bounded; a line that does not fit is an error, not two lines. */
static char *read_line(char *out, int size, void *stream)
{
    file_reader *r = stream;
    if (r->at == r->end || r->error || size < 3) return NULL;
    r->line++;
    const char *nl = memchr(r->at, '\n', (size_t)(r->end - r->at));
    size_t len = (size_t)((nl ? nl + 1 : r->end) - r->at);
    if (len > (size_t)size - 1) {
        r->error = bw_fail(BW_ERR_INVALID_CONFIG, "%s:%d: the line has %zu characters; at most %d are read", r->path, r->line, len, size - 2);
        return NULL;
    }
    memcpy(out, r->at, len);
    out[len] = 0;
    r->at += len;
    return out;
}

static bw_err check_once(file_reader *r, int table, const bw_option *first, const bw_option *o)
{
    size_t i = (size_t)(o - first);
    if (i >= OPTIONS_MAX) return bw_fail(BW_ERR_INTERNAL, "too many options in a table");
    int before = r->seen[table][i];
    r->seen[table][i] = r->line;
    if (before) return bw_fail(BW_ERR_INVALID_CONFIG, "%s is given twice, first in line %d", o->name, before);
    return BW_OK;
}

/* `listen` again: what was there, a comma, the new value. */
static bw_err add_to_list(bw_daemon_config *c, const bw_option *o, const char *value)
{
    char text[4096], all[8192];
    bw_option_print(o, c, text, sizeof text);
    snprintf(all, sizeof all, "%s,%s", text, value);
    return bw_option_parse(o, c, all, strlen(all));
}

static bw_err take_option(file_reader *r, const char *section, const char *name, const char *value)
{
    bool topics = !strcmp(section, "topic-defaults");
    if (!strncmp(section, "link ", 5) && section[5]) return bw_daemon_config_link(r->config, section + 5, name, value);
    if (!topics && *section && strcmp(section, "daemon"))
        return bw_fail(BW_ERR_INVALID_CONFIG, "unknown section [%.60s]; there are [daemon], [topic-defaults] and [link NAME]", section);
    const bw_option *table = topics ? bw_topic_options : bw_daemon_options;
    const bw_option *o = bw_option_find(table, topics ? bw_topic_option_count : bw_daemon_option_count, name, strlen(name));
    if (topics) {
        bw_err e = o ? check_once(r, 1, table, o) : BW_OK;
        return e ? e : bw_topic_config_set(r->config->topic_defaults, r->config->topic_defaults, name, strlen(name), value, strlen(value));
    }
    if (!o && bw_option_find(bw_topic_options, bw_topic_option_count, name, strlen(name)))
        return bw_fail(BW_ERR_INVALID_CONFIG, "%s is a topic's option: put it under [topic-defaults]", name);
    if (!o) return bw_fail(BW_ERR_INVALID_CONFIG, "unknown option '%.60s'; buswayd --help-config lists them all", name);
    if (o->kind == BW_OPTION_LIST && r->seen[0][o - table]) return add_to_list(r->config, o, value);
    bw_err e = check_once(r, 0, table, o);
    return e ? e : bw_option_parse(o, r->config, value, strlen(value));
}

static int on_option(void *user, const char *section, const char *name, const char *value)
{
    file_reader *r = user;
    if (r->error) return 0;
    bw_err e = take_option(r, section, name, value);
    if (e) r->error = bw_error_context(e, "%s:%d", r->path, r->line);
    return !e;
}

bw_err bw_daemon_config_parse(bw_daemon_config *c, const char *name, const char *text, size_t len)
{
    if (!c->topic_defaults) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the configuration");
    if (len > FILE_BYTES_MAX) return bw_fail(BW_ERR_INVALID_CONFIG, "%s has %zu bytes; at most %u are read", name, len, FILE_BYTES_MAX);
    if (len && memchr(text, 0, len)) return bw_fail(BW_ERR_INVALID_CONFIG, "%s holds a NUL byte: it is no text", name);
    file_reader *r = calloc(1, sizeof *r);
    if (!r) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the configuration");
    *r = (file_reader){.config = c, .path = name, .at = text, .end = text + len};
    int bad_line = ini_parse_stream(read_line, r, on_option, r);
    bw_err e = r->error;
    free(r);
    if (e || !bad_line) return e;
    return bw_fail(BW_ERR_INVALID_CONFIG, "%s:%d: neither [section] nor name = value nor # comment", name, bad_line);
}

bw_err bw_daemon_config_load(bw_daemon_config *c, const char *path)
{
    char real[PATH_MAX];
    if (!realpath(path, real)) return bw_fail_errno(errno, "cannot open the configuration file %s", path);
    int fd = bw_os_open(AT_FDCWD, real, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0) return bw_fail_errno(errno, "cannot open the configuration file %s", path);
    struct stat st;
    bw_err e = BW_OK;
    char *text = NULL;
    ssize_t n = 0;
    if (bw_os_fstat(fd, &st)) e = bw_fail_errno(errno, "cannot read the configuration file %s", path);
    else if (!S_ISREG(st.st_mode)) e = bw_fail(BW_ERR_INVALID_CONFIG, "the configuration file %s is no regular file", path);
    else if (st.st_size > (off_t)FILE_BYTES_MAX)
        e = bw_fail(BW_ERR_INVALID_CONFIG, "the configuration file %s has %lld bytes; at most %u are read", path, (long long)st.st_size,
                    FILE_BYTES_MAX);
    else if (!(text = malloc((size_t)st.st_size + 1))) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for the configuration file");
    else if ((n = bw_os_pread(fd, text, (size_t)st.st_size, 0)) < 0) e = bw_fail_errno(errno, "cannot read the configuration file %s", path);
    if (!e) e = bw_daemon_config_parse(c, path, text, (size_t)n);
    free(text);
    bw_os_close(fd);
    return e;
}
