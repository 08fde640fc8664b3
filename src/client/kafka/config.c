/* client/kafka/config.c: kafka://HOST:PORT[,HOST:PORT]…[?NAME=VALUE[&…]]: what a URL says, as librdkafka's configuration.
 *
 * NAME is any option of librdkafka (CONFIGURATION.md), passed on as it is; or `config`, a file with NAME=VALUE lines (blank ones and
 * those with '#' in front are skipped) for what does not belong on a command line; or `transport`, which must be auto. %XX is a byte.
 * Options that Busway's own calls decide can't be given. Messages name options, never their values. */
#include "client/kafka/kafka.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { OPTIONS_MAX = 512, LINE_MAX_BYTES = 16384 };

/* What the calls of the library decide, and by what. */
static const char *const ours[][2] = {
    {"bootstrap.servers", "the URL"}, {"metadata.broker.list", "the URL"}, {"group.id", "consumer options"},
    {"group.instance.id", "consumer options"}, {"transactional.id", "producer options"}, {"transaction.timeout.ms", "producer options"},
    {"enable.auto.commit", "consumer options"}, {"auto.commit.interval.ms", "consumer options"},
    {"enable.auto.offset.store", "the library"}, {"enable.partition.eof", "the library"}, {"auto.offset.reset", "consumer options"},
    {"isolation.level", "consumer options"}, {"session.timeout.ms", "consumer options"}, {"max.poll.interval.ms", "consumer options"},
    {"acks", "producer options"}, {"request.required.acks", "producer options"}, {"enable.idempotence", "producer options"},
    {"linger.ms", "producer options"}, {"queue.buffering.max.ms", "producer options"}, {"batch.size", "producer options"},
    {"compression.type", "producer options"}, {"compression.codec", "producer options"}, {"delivery.timeout.ms", "producer options"},
    {"message.timeout.ms", "producer options"}, {"queue.buffering.max.kbytes", "producer options"}, {"partitioner", "the library"},
    {"check.crcs", "consumer options"},
};

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* A copy with %XX resolved; NULL: a broken one, or no memory. */
static char *unescape(const char *from, size_t len)
{
    char *out = malloc(len + 1);
    size_t n = 0;
    for (size_t i = 0; out && i < len; i++) {
        int c = (unsigned char)from[i];
        if (c == '%') {
            int high = i + 2 < len ? hex_digit(from[i + 1]) : -1, low = high >= 0 ? hex_digit(from[i + 2]) : -1;
            if (low < 0 || (high == 0 && low == 0)) {
                free(out);
                return NULL;
            }
            c = high * 16 + low;
            i += 2;
        }
        out[n++] = (char)c;
    }
    if (out) out[n] = 0;
    return out;
}

/* name and value are malloc'd and taken over, also on error. */
static bw_err add_option(bw_kbus *k, char *name, char *value)
{
    bw_err e = name && value ? BW_OK : bw_fail(BW_ERR_INVALID_ARGUMENT, "kafka://: '%%' must be followed by two hex digits; write %%25 for it");
    if (!e && !*name) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "kafka://: an option has no name");
    if (!e && strcmp(name, "transport") == 0 && strcmp(value, "auto") != 0)
        e = bw_fail(BW_ERR_UNSUPPORTED, "kafka://: transport=%.20s: a cluster is reached over its own protocol only", value);
    for (size_t i = 0; !e && i < sizeof ours / sizeof ours[0]; i++)
        if (strcmp(name, ours[i][0]) == 0) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "kafka://: %s is not for the URL: %s decide", name, ours[i][1]);
    if (!e && k->option_count == OPTIONS_MAX) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "kafka://: more than %d options", OPTIONS_MAX);
    if (e || strcmp(name, "transport") == 0) {
        free(name);
        free(value);
        return e;
    }
    if (!k->options && !(k->options = calloc(OPTIONS_MAX, sizeof *k->options))) {
        free(name);
        free(value);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a bus");
    }
    k->options[k->option_count++] = (bw_kafka_option){name, value};
    return BW_OK;
}

static char *trimmed(char *text)
{
    while (*text == ' ' || *text == '\t') text++;
    size_t n = strlen(text);
    while (n && strchr(" \t\r\n", text[n - 1])) text[--n] = 0;
    return text;
}

static bw_err read_file(bw_kbus *k, const char *path)
{
    FILE *f = fopen(path, "re");
    if (!f) return bw_fail_errno(errno, "kafka://: config=%s", path);
    char *line = malloc(LINE_MAX_BYTES);
    bw_err e = line ? BW_OK : bw_fail(BW_ERR_NO_MEMORY, "no memory for a bus");
    for (int number = 1; !e && fgets(line, LINE_MAX_BYTES, f); number++) {
        char *text = trimmed(line), *equals = strchr(text, '=');
        if (!*text || *text == '#') continue;
        if (!equals) {
            e = bw_fail(BW_ERR_INVALID_ARGUMENT, "%s, line %d: it is not NAME=VALUE", path, number);
            break;
        }
        *equals = 0;
        e = add_option(k, strdup(trimmed(text)), strdup(trimmed(equals + 1)));
        if (e) e = bw_error_context(e, "%s, line %d", path, number);
    }
    free(line);
    fclose(f);
    return e;
}

static bw_err parse_options(bw_kbus *k, const char *at)
{
    bw_err e = BW_OK;
    while (*at && !e) {
        size_t len = strcspn(at, "&");
        const char *equals = memchr(at, '=', len);
        if (len && !equals) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "kafka://: an option is not NAME=VALUE");
        if (len && !e) {
            char *name = unescape(at, (size_t)(equals - at)), *value = unescape(equals + 1, len - (size_t)(equals + 1 - at));
            if (name && value && strcmp(name, "config") == 0) {
                e = read_file(k, value);
                free(name);
                free(value);
            } else {
                e = add_option(k, name, value);
            }
        }
        at += len;
        if (*at == '&') at++;
    }
    return e;
}

bw_err bw_kafka_config_parse(bw_kbus *k, const char *rest)
{
    size_t len = strcspn(rest, "/?");
    if (len == 0) return bw_fail(BW_ERR_INVALID_ARGUMENT, "kafka:// names no broker: kafka://host:9092[,host:9092]…");
    k->brokers = unescape(rest, len);
    if (!k->brokers) return bw_fail(BW_ERR_INVALID_ARGUMENT, "kafka://: the brokers can't be read");
    if (strchr(k->brokers, '@'))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "kafka:// takes no user in front of '@': write ?sasl.username=… or ?config=FILE");
    rest += len;
    if (*rest == '/') rest++;
    if (*rest && *rest != '?')
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "kafka://%s: there is no path on a cluster: options begin with '?'", k->brokers);
    return *rest ? parse_options(k, rest + 1) : BW_OK;
}

void bw_kafka_config_free(bw_kbus *k)
{
    for (size_t i = 0; i < k->option_count; i++) {
        explicit_bzero(k->options[i].value, strlen(k->options[i].value));
        free(k->options[i].name);
        free(k->options[i].value);
    }
    free(k->options);
    free(k->brokers);
}

void bw_kafka_conf_set(rd_kafka_conf_t *conf, bw_err *e, const char *name, const char *value)
{
    char why[512];
    if (*e) return;
    if (RK(conf_set)(conf, name, value, why, sizeof why) == RD_KAFKA_CONF_OK) return;
    *e = bw_fail(BW_ERR_INVALID_ARGUMENT, "kafka://: option %s: %s", name, why);
}

void bw_kafka_conf_set_int(rd_kafka_conf_t *conf, bw_err *e, const char *name, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    bw_kafka_conf_set(conf, e, name, text);
}

bool bw_kafka_conf_is_given(const bw_kbus *k, const char *name)
{
    for (size_t i = 0; i < k->option_count; i++)
        if (strcmp(k->options[i].name, name) == 0) return true;
    return false;
}

/* ---- what librdkafka says ---- any of its threads */

static bool ends_waiting(rd_kafka_resp_err_t error)
{
    return error == RD_KAFKA_RESP_ERR__AUTHENTICATION || error == RD_KAFKA_RESP_ERR__SSL || error == RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED;
}

void bw_kafka_note(bw_kbus *k, rd_kafka_resp_err_t error, const char *text)
{
    if (error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) return; /* follows from what was said before */
    pthread_mutex_lock(&k->trouble.mutex);
    if (ends_waiting(error) || !k->trouble.error) {
        if (ends_waiting(error)) k->trouble.error = error;
        snprintf(k->trouble.text, sizeof k->trouble.text, "%s", text);
    }
    pthread_mutex_unlock(&k->trouble.mutex);
}

static void on_error(rd_kafka_t *rk, int error, const char *reason, void *opaque)
{
    (void)rk;
    bw_kbus *k = opaque;
    bw_kafka_note(k, (rd_kafka_resp_err_t)error, reason);
    bw_bus_log(k->bus, BW_LOG_WARN, "kafka: %s", reason);
}

static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    bw_kbus *k = RK(opaque)(rk);
    bw_log_level to = level <= 3 ? BW_LOG_ERROR : level <= 5 ? BW_LOG_WARN : level == 6 ? BW_LOG_INFO : BW_LOG_DEBUG;
    if (k) bw_bus_log(k->bus, to, "kafka: %s: %s", facility, text);
}

bw_err bw_kafka_conf_new(bw_kbus *k, rd_kafka_conf_t **out)
{
    bw_err e = BW_OK;
    rd_kafka_conf_t *conf = RK(conf_new)();
    bw_kafka_conf_set(conf, &e, "bootstrap.servers", k->brokers);
    bw_kafka_conf_set(conf, &e, "client.id", k->bus->client_id);
    bw_kafka_conf_set_int(conf, &e, "socket.connection.setup.timeout.ms", k->bus->connect_timeout_ms < 1000 ? 1000 : k->bus->connect_timeout_ms);
    for (size_t i = 0; i < k->option_count; i++) bw_kafka_conf_set(conf, &e, k->options[i].name, k->options[i].value);
    RK(conf_set_opaque)(conf, k);
    RK(conf_set_error_cb)(conf, on_error);
    RK(conf_set_log_cb)(conf, on_log);
    if (e) RK(conf_destroy)(conf);
    else *out = conf;
    return e;
}

bw_err bw_kafka_new(bw_kbus *k, rd_kafka_type_t type, rd_kafka_conf_t *conf, rd_kafka_t **out)
{
    char why[512];
    *out = RK(new)(type, conf, why, sizeof why);
    if (*out) return BW_OK;
    RK(conf_destroy)(conf);
    return bw_fail(BW_ERR_INVALID_ARGUMENT, "kafka://%s: %s", k->brokers, why);
}
