/* What daemon.sh needs beside the shell:
 *   daemon_tool notify PATH        a service manager's socket: prints each message on a line, ends with the one that says STOPPING=1
 *   daemon_tool listen PATH        a socket where somebody listens, until killed
 *   daemon_tool stale PATH         a socket where nobody listens
 *   daemon_tool json               each line of standard input is a JSON object with time, level and event; else line and 1
 *   daemon_tool meta-format DIR N  the metadata in DIR says that format N wrote it */
#include <jansson.h>
#include <lmdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int bound(const char *path, int type)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type, 0);
    if (strlen(path) >= sizeof a.sun_path) return -1;
    memcpy(a.sun_path, path, strlen(path));
    return fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0 ? fd : -1;
}

static int notify(const char *path)
{
    char text[512];
    int fd = bound(path, SOCK_DGRAM);
    if (fd < 0) return 1;
    for (;;) {
        ssize_t n = recv(fd, text, sizeof text - 1, 0);
        if (n < 0) return 1;
        text[n] = 0;
        puts(text);
        fflush(stdout);
        if (strstr(text, "STOPPING=1")) return 0;
    }
}

static int listen_for_ever(const char *path)
{
    int fd = bound(path, SOCK_STREAM);
    if (fd < 0 || listen(fd, 5)) return 1;
    puts("listening");
    fflush(stdout);
    for (;;) pause();
}

static int check_json(void)
{
    char line[65536];
    int count = 0;
    while (fgets(line, sizeof line, stdin)) {
        json_error_t error;
        json_t *j = json_loads(line, 0, &error);
        bool good = j && json_is_string(json_object_get(j, "time")) && json_is_string(json_object_get(j, "level")) &&
                    json_is_string(json_object_get(j, "event"));
        json_decref(j);
        count++;
        if (!good) return printf("line %d: %s", count, line), 1;
    }
    printf("%d lines\n", count);
    return count == 0;
}

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static uint32_t crc32c(const uint8_t *p, size_t len)
{
    uint32_t crc = ~0u;
    for (size_t i = 0; i < len; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

/* The state of the metadata begins with the format's number and ends with its checksum. */
static int meta_format(const char *dir, unsigned number)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi names;
    uint8_t state[32];
    MDB_val key = {5, "state"}, value;
    if (mdb_env_create(&env) || mdb_env_set_maxdbs(env, 8) || mdb_env_open(env, dir, 0, 0600)) return 1;
    int rc = mdb_txn_begin(env, NULL, 0, &txn);
    if (!rc) rc = mdb_dbi_open(txn, NULL, 0, &names);
    if (!rc) rc = mdb_get(txn, names, &key, &value);
    if (!rc && value.mv_size != sizeof state) rc = 1;
    if (!rc) {
        memcpy(state, value.mv_data, sizeof state);
        put32(state, number);
        put32(state + 28, crc32c(state, 28));
        value.mv_data = state;
        rc = mdb_put(txn, names, &key, &value, 0);
    }
    if (!rc) rc = mdb_txn_commit(txn);
    mdb_env_close(env);
    return rc != 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "notify")) return notify(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "listen")) return listen_for_ever(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "stale")) return bound(argv[2], SOCK_STREAM) < 0;
    if (argc == 2 && !strcmp(argv[1], "json")) return check_json();
    if (argc == 4 && !strcmp(argv[1], "meta-format")) return meta_format(argv[2], (unsigned)atoi(argv[3]));
    return 2;
}
