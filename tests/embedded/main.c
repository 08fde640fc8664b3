/* embedded/main.c: embedded CASE [ARGUMENT…]: see README.md. */
#include "embedded/embedded.h"

#include <string.h>

int main(int argc, char **argv)
{
    const struct { const char *name; int (*run)(int argc, char **argv); } cases[] = {
        {"kills", em_case_kills}, {"over", em_case_over}, {"self", em_case_self},
        {"first", em_case_first}, {"first-child", em_case_first}, {"race", em_case_race}, {"figures", em_case_figures}};
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; argc > 1 && i < sizeof cases / sizeof *cases; i++)
        if (strcmp(argv[1], cases[i].name) == 0) return cases[i].run(argc - 2, argv + 2);
    fputs("usage: embedded kills|over|self [N [SEED]] | first [TIMES] | race [PROCESSES] | figures [N [SEED]]\n", stderr);
    return 64;
}
