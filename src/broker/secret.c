/* broker/secret.c: hashes of passwords (yescrypt, by the C library's crypt) and of tokens (SHA-256: they are random, nothing can be guessed). */
#include "broker/users.h"

#include <crypt.h>
#include <mbedtls/sha256.h>
#include <stdio.h>
#include <stdlib.h>

/* Of no password: what is tried for a user that is not there takes as long. */
#define NOBODY "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$tnSYvahCwPBHKZUspmcxMfb0.WiB9W.zEaKlOBL35rC"

bool bw_secret_equal(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b);
    unsigned differ = la != lb;
    for (size_t i = 0; i < la && lb; i++) differ |= (unsigned char)a[i] ^ (unsigned char)b[i % lb];
    return !differ;
}

bw_err bw_secret_hash_password(const char *password, char out[BW_USER_HASH_MAX])
{
    char setting[CRYPT_GENSALT_OUTPUT_SIZE];
    void *space = NULL;
    int size = 0;
    const char *hash = crypt_gensalt_rn("$y$", 0, NULL, 0, setting, sizeof setting) ? crypt_ra(password, setting, &space, &size) : NULL;
    bool fits = hash && hash[0] == '$' && strlen(hash) < BW_USER_HASH_MAX;
    if (fits) snprintf(out, BW_USER_HASH_MAX, "%s", hash);
    free(space);
    return fits ? BW_OK : bw_fail(BW_ERR_INTERNAL, "the password can't be hashed: this system's crypt has no yescrypt");
}

bool bw_secret_is_password(const char *password, const char *hash)
{
    void *space = NULL;
    int size = 0;
    const char *kept = *hash ? hash : NOBODY, *now = crypt_ra(password, kept, &space, &size);
    bool same = now && now[0] == '$' && bw_secret_equal(now, kept);
    free(space);
    return same && *hash;
}

void bw_secret_hash_token(const char *token, size_t len, char out[BW_USER_HASH_MAX])
{
    uint8_t digest[32];
    mbedtls_sha256_ret((const uint8_t *)token, len, digest, 0);
    for (size_t i = 0; i < sizeof digest; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}
