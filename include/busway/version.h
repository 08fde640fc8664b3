/* busway/version.h: the library's version and the symbol export macro. */
#ifndef BUSWAY_VERSION_H
#define BUSWAY_VERSION_H

#define BW_VERSION_MAJOR 0
#define BW_VERSION_MINOR 1
#define BW_VERSION_PATCH 0
#define BW_VERSION_STRING "0.1.0"

#if defined(__GNUC__)
#define BW_API __attribute__((visibility("default")))
#define BW_PRINTF(fmt_index, first_arg) __attribute__((format(printf, fmt_index, first_arg)))
#else
#define BW_API
#define BW_PRINTF(fmt_index, first_arg)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* bw_version: the version of the library that is loaded, "MAJOR.MINOR.PATCH". Static memory; any thread. Since 0.1. */
BW_API const char *bw_version(void);

#ifdef __cplusplus
}
#endif
#endif
