/* tests/support/proxy/makecerts.c: certificates for tests: makecerts FOLDER writes NAME.pem and NAME.key for
 *   ca, otherca     authorities                          server      of ca, for localhost and 127.0.0.1
 *   expired         as server, until yesterday           elsewhere   of ca, for elsewhere.example
 *   stranger        as server, but of otherca            alice       of ca, a client
 *   renewed         as server, another key
 * Elliptic keys: made in milliseconds. */
#include <mbedtls/asn1write.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/ecp.h>
#include <mbedtls/entropy.h>
#include <mbedtls/oid.h>
#include <mbedtls/x509_crt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static mbedtls_entropy_context entropy;
static mbedtls_ctr_drbg_context random_source;
static const char *folder;
static int serial;

static void must(int rc, const char *what)
{
    if (rc >= 0) return;
    fprintf(stderr, "makecerts: %s: -0x%04x\n", what, (unsigned)-rc);
    exit(2);
}

static void write_file(const char *name, const char *kind, const unsigned char *text)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.%s", folder, name, kind);
    FILE *f = fopen(path, "w");
    if (!f || fputs((const char *)text, f) == EOF || fclose(f)) must(-1, path);
}

static void day(int days, char out[16])
{
    time_t t = time(NULL) + (time_t)days * 86400;
    struct tm tm;
    strftime(out, 16, "%Y%m%d%H%M%S", gmtime_r(&t, &tm));
}

/* The names as a subjectAltName: written from the back, as mbedTLS does. */
static size_t alternatives(const char *dns, int loopback, unsigned char *space, size_t size, unsigned char **at)
{
    static const unsigned char address[] = {127, 0, 0, 1};
    unsigned char *p = space + size;
    size_t len = 0;
    if (loopback) {
        len += (size_t)mbedtls_asn1_write_raw_buffer(&p, space, address, 4);
        len += (size_t)mbedtls_asn1_write_len(&p, space, 4);
        len += (size_t)mbedtls_asn1_write_tag(&p, space, MBEDTLS_ASN1_CONTEXT_SPECIFIC | 7);
    }
    len += (size_t)mbedtls_asn1_write_raw_buffer(&p, space, (const unsigned char *)dns, strlen(dns));
    len += (size_t)mbedtls_asn1_write_len(&p, space, strlen(dns));
    len += (size_t)mbedtls_asn1_write_tag(&p, space, MBEDTLS_ASN1_CONTEXT_SPECIFIC | 2);
    len += (size_t)mbedtls_asn1_write_len(&p, space, len);
    len += (size_t)mbedtls_asn1_write_tag(&p, space, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE);
    *at = p;
    return len;
}

static void make(const char *name, mbedtls_pk_context *key, const char *issuer, mbedtls_pk_context *issuer_key, const char *dns, int days)
{
    unsigned char text[4096], space[512], *at;
    char subject[64], by[64], from[16], until[16];
    mbedtls_x509write_cert w;
    mbedtls_mpi number;
    mbedtls_pk_init(key);
    must(mbedtls_pk_setup(key, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY)), "key");
    must(mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(*key), mbedtls_ctr_drbg_random, &random_source), "key");
    must(mbedtls_pk_write_key_pem(key, text, sizeof text), "key");
    write_file(name, "key", text);
    mbedtls_x509write_crt_init(&w);
    mbedtls_mpi_init(&number);
    must(mbedtls_mpi_lset(&number, ++serial), "serial");
    must(mbedtls_x509write_crt_set_serial(&w, &number), "serial");
    snprintf(subject, sizeof subject, "CN=%s", name);
    snprintf(by, sizeof by, "CN=%s", issuer);
    day(days < 0 ? days - 30 : -1, from);
    day(days, until);
    must(mbedtls_x509write_crt_set_subject_name(&w, subject), "subject");
    must(mbedtls_x509write_crt_set_issuer_name(&w, by), "issuer");
    must(mbedtls_x509write_crt_set_validity(&w, from, until), "validity");
    mbedtls_x509write_crt_set_version(&w, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(&w, MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(&w, key);
    mbedtls_x509write_crt_set_issuer_key(&w, issuer_key ? issuer_key : key);
    must(mbedtls_x509write_crt_set_basic_constraints(&w, !issuer_key, -1), "constraints");
    if (dns) {
        size_t len = alternatives(dns, strcmp(dns, "localhost") == 0, space, sizeof space, &at);
        const char *oid = MBEDTLS_OID_SUBJECT_ALT_NAME;
        must(mbedtls_x509write_crt_set_extension(&w, oid, strlen(oid), 0, at, len), "names");
    }
    must(mbedtls_x509write_crt_pem(&w, text, sizeof text, mbedtls_ctr_drbg_random, &random_source), name);
    write_file(name, "pem", text);
    mbedtls_x509write_crt_free(&w);
    mbedtls_mpi_free(&number);
}

int main(int argc, char **argv)
{
    mbedtls_pk_context ca, other, key[6];
    if (argc != 2) {
        fputs("usage: makecerts FOLDER\n", stderr);
        return 2;
    }
    folder = argv[1];
    mbedtls_entropy_init(&entropy);
    mbedtls_ctr_drbg_init(&random_source);
    must(mbedtls_ctr_drbg_seed(&random_source, mbedtls_entropy_func, &entropy, NULL, 0), "random numbers");
    make("ca", &ca, "ca", NULL, NULL, 3650);
    make("otherca", &other, "otherca", NULL, NULL, 3650);
    make("server", &key[0], "ca", &ca, "localhost", 30);
    make("expired", &key[1], "ca", &ca, "localhost", -1);
    make("elsewhere", &key[2], "ca", &ca, "elsewhere.example", 30);
    make("stranger", &key[3], "otherca", &other, "localhost", 30);
    make("alice", &key[4], "ca", &ca, NULL, 30);
    make("renewed", &key[5], "ca", &ca, "localhost", 30);
    for (int i = 0; i < 6; i++) mbedtls_pk_free(&key[i]);
    mbedtls_pk_free(&ca);
    mbedtls_pk_free(&other);
    mbedtls_ctr_drbg_free(&random_source);
    mbedtls_entropy_free(&entropy);
    return 0;
}
