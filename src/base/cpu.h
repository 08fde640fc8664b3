/* base/cpu.h: what differs from processor to processor. */
#ifndef BW_BASE_CPU_H
#define BW_BASE_CPU_H

/* bw_cpu_relax: inside a spin: tells the core that this thread waits for another one. */
static inline void bw_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#else
    __asm__ volatile("" ::: "memory");
#endif
}

#endif
