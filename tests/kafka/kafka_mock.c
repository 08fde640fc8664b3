/* kafka_mock: librdkafka's mock cluster as a program of its own, so that several processes can use it.
 *
 * usage: kafka_mock [BROKERS]. Prints the bootstrap servers, then obeys lines from its input until that ends:
 *   topic NAME PARTITIONS     down BROKER     up BROKER     errors API-KEY CODE[,CODE…]     rtt BROKER MS
 * each answered with "ok" or "error …". Topics that are written to without this get 4 partitions. */
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static rd_kafka_resp_err_t push_errors(rd_kafka_mock_cluster_t *cluster, int key, const char *codes)
{
    rd_kafka_resp_err_t list[64];
    size_t n = 0;
    for (const char *at = codes; *at && n < 64; at += strcspn(at, ","), at += *at == ',') list[n++] = (rd_kafka_resp_err_t)atoi(at);
    rd_kafka_mock_push_request_errors_array(cluster, (int16_t)key, n, list);
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static void obey(rd_kafka_mock_cluster_t *cluster, const char *line)
{
    char word[32], text[256];
    int number = 0, other = 0;
    rd_kafka_resp_err_t r = RD_KAFKA_RESP_ERR__INVALID_ARG;
    if (sscanf(line, "topic %255s %d", text, &number) == 2) r = rd_kafka_mock_topic_create(cluster, text, number, 1);
    else if (sscanf(line, "errors %d %255s", &number, text) == 2) r = push_errors(cluster, number, text);
    else if (sscanf(line, "rtt %d %d", &number, &other) == 2) r = rd_kafka_mock_broker_set_rtt(cluster, number, other);
    else if (sscanf(line, "%31s %d", word, &number) == 2) {
        if (strcmp(word, "down") == 0) r = rd_kafka_mock_broker_set_down(cluster, number);
        else if (strcmp(word, "up") == 0) r = rd_kafka_mock_broker_set_up(cluster, number);
    }
    if (r) printf("error %s\n", rd_kafka_err2name(r));
    else puts("ok");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    char why[256], line[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "log_level", "0", NULL, 0);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    rd_kafka_mock_cluster_t *cluster = rk ? rd_kafka_mock_cluster_new(rk, argc > 1 ? atoi(argv[1]) : 1) : NULL;
    if (!cluster) return fprintf(stderr, "kafka_mock: no cluster\n"), 1;
    puts(rd_kafka_mock_cluster_bootstraps(cluster));
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) obey(cluster, line);
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(rk);
    return 0;
}
