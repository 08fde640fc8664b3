/* Shared by the fuzzers. Each defines fuzz_input, which takes one input; a property that does not hold ends the program, so that libFuzzer
 * keeps the input. One of the properties is held here for all of them: memory.
 *
 * The bytes that live at once on the heap while an input is taken are counted through the sanitizer's hooks, and must stay within
 *     4 × input + 1 MiB + what fuzz_allow was told
 * where fuzz_allow is for output whose limit the decoder was given or states. Afterwards as much must live as before: a decoder leaks
 * nothing, whatever its input. What a fuzzer does for itself (encoders, a second opinion) goes between fuzz_pause and fuzz_resume and
 * is given back there; memory that an error message or a library keeps for ever is let through once. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
static int fuzz_input(const uint8_t *data, size_t size);

/* The sanitizer's; declared here because gcc's headers do not have them. */
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t), void (*on_free)(const volatile void *));
size_t __sanitizer_get_allocated_size(const volatile void *p);

#define FUZZ_CHECK(condition)                                                                                                  \
    do {                                                                                                                       \
        if (!(condition)) {                                                                                                    \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                                    \
            abort();                                                                                                           \
        }                                                                                                                      \
    } while (0)

static struct {
    bool installed, counting;
    int64_t live, peak; /* since the input began */
    size_t allowed;
    uint64_t inputs;
} fuzz_memory;

static void fuzz_on_malloc(const volatile void *p, size_t size)
{
    (void)p;
    if (!fuzz_memory.counting) return;
    fuzz_memory.live += (int64_t)size;
    if (fuzz_memory.live > fuzz_memory.peak) fuzz_memory.peak = fuzz_memory.live;
}

static void fuzz_on_free(const volatile void *p)
{
    if (fuzz_memory.counting && p) fuzz_memory.live -= (int64_t)__sanitizer_get_allocated_size(p);
}

static inline void fuzz_allow(size_t bytes) { fuzz_memory.allowed += bytes; }
/* What lz4's decoder takes for two blocks of the size that a frame claims, at most 4 MiB, whatever is in them. */
enum { FUZZ_LZ4_BLOCKS = (2 * 4096 + 256) * 1024 };
static inline void fuzz_pause(void) { fuzz_memory.counting = false; }
static inline void fuzz_resume(void) { fuzz_memory.counting = true; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!fuzz_memory.installed) {
        fuzz_memory.installed = true;
        FUZZ_CHECK(__sanitizer_install_malloc_and_free_hooks(fuzz_on_malloc, fuzz_on_free) > 0);
        fuzz_input(data, size); /* once uncounted: what is made at first use and kept */
    }
    fuzz_memory.live = fuzz_memory.peak = 0;
    fuzz_memory.allowed = 0;
    fuzz_memory.counting = true;
    int result = fuzz_input(data, size);
    fuzz_memory.counting = false;
    if (fuzz_memory.peak > (int64_t)(4 * size + (1u << 20) + fuzz_memory.allowed)) {
        fprintf(stderr, "an input of %zu bytes took %lld bytes of memory; allowed: 4 times the input, 1 MiB and %zu\n", size,
                (long long)fuzz_memory.peak, fuzz_memory.allowed);
        abort();
    }
    if (fuzz_memory.live > 0 && fuzz_memory.inputs++ > 0) {
        /* Kept for later use: then a second taking of the same input keeps nothing more. */
        fuzz_memory.live = 0;
        fuzz_memory.counting = true;
        fuzz_input(data, size);
        fuzz_memory.counting = false;
        if (fuzz_memory.live > 0) {
            fprintf(stderr, "an input of %zu bytes leaves %lld bytes of memory behind, each time\n", size, (long long)fuzz_memory.live);
            abort();
        }
    }
    return result;
}

#endif
