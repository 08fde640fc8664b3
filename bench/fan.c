/* bench/fan.c: one writer and several readers, several writers and no reader.
 *
 * Here nobody holds the writer back: it runs as fast as it can, its own rate is a figure, and the log is kept (readers) or
 * deleted behind it (writers). Readers share one core and the writer has the other; writers are spread over two cores and take
 * the next MiB of batches from one counter, so that all of them work until the last record. */
#include "bus.h"

bool bench_fan_role(const bench_run *run, uint32_t index)
{
    uint64_t done = 0, sum = 0;
    if (index == 0) {
        bench_writer w;
        bench_writer_slot *slot = &run->shared->writer[0];
        if (!bench_writer_open(&w, run) || !bench_arrive(run->shared)) return false;
        while (done < run->records) {
            if (!bench_writer_write(&w, run, 0)) return false;
            done += w.count;
            if (done >= run->warm_records && !slot->start_ns) slot->start_ns = bench_now_ns();
        }
        slot->end_ns = bench_now_ns();
        return bench_writer_close(&w, run);
    }
    bench_reader r;
    bench_reader_slot *slot = &run->shared->reader[index - 1];
    if (!bench_reader_open(&r, run, 0) || !bench_arrive(run->shared)) return false;
    while (done < run->records) {
        uint32_t n = bench_reader_read(&r, run, false, &sum);
        if (!n) return false;
        if (done < run->warm_records && done + n >= run->warm_records) slot->start_ns = bench_now_ns();
        done += n;
    }
    slot->end_ns = bench_now_ns();
    slot->checksum = sum;
    bench_reader_close(&r);
    return true;
}

bool bench_writers_role(const bench_run *run, uint32_t index)
{
    bench_writer w;
    bench_writer_slot *slot = &run->shared->writer[index];
    uint64_t step = bench_step_records(run), at;
    if (!bench_writer_open(&w, run) || !bench_arrive(run->shared)) return false;
    while ((at = atomic_fetch_add(&run->shared->claimed, step)) < run->records) {
        if (at >= run->warm_records && !slot->start_ns) slot->start_ns = bench_now_ns();
        uint64_t end = at + step < run->records ? at + step : run->records;
        for (; at < end; at += w.count)
            if (!bench_writer_write(&w, run, (int32_t)(index % run->c->partitions))) return false;
    }
    slot->end_ns = bench_now_ns();
    return bench_writer_close(&w, run);
}
