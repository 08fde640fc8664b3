/* bench/peers/Peer.java: what the Java peers share: arguments, records, the lines that peers.py reads. See peer.h: the same contract. */
import java.util.Arrays;
import java.util.Locale;

final class Peer {
    final String role, where;
    final int batch, recordBytes, points;
    final long records, warm;
    long done, sum, startNs, endNs;
    private final long[] sample;
    private int samples;

    Peer(String[] a) {
        role = a[0];
        where = a[1];
        batch = Integer.parseInt(a[2]);
        recordBytes = Integer.parseInt(a[3]);
        records = Long.parseLong(a[4]);
        warm = Long.parseLong(a[5]);
        points = Integer.parseInt(a[6]);
        sample = new long[role.equals("ping") ? (int) records : points + 1];
    }

    static void ready() {
        System.out.println("ready");
        System.out.flush();
    }

    byte[] recordsOf(int count) {
        byte[] r = new byte[count * recordBytes];
        int x = 1;
        for (int i = 0; i < r.length; i++) {
            x = x * 1664525 + 1013904223;
            r[i] = (byte) (x >>> 24);
        }
        return r;
    }

    /* One record came: its first and its last byte. */
    void take(byte first, byte last) {
        sum += (first & 0xFF) + (last & 0xFF);
        done++;
        if (done == warm) startNs = System.nanoTime();
        if (points > 0 && done > warm && (done - warm) % (records / points) == 0) sample[samples++] = System.nanoTime();
        if (done == warm + records) endNs = System.nanoTime();
    }

    boolean wants() {
        return done < warm + records;
    }

    void reportRate() {
        StringBuilder s = new StringBuilder();
        long before = startNs;
        for (int i = 0; i < samples; i++) {
            s.append(String.format(Locale.ROOT, "%s%.1f", i > 0 ? "," : "", records / points * 1e9 / (sample[i] - before)));
            before = sample[i];
        }
        System.out.printf(Locale.ROOT, "{\"rate\":%.1f,\"sum\":%d,\"points\":[%s]}%n", records * 1e9 / (endNs - startNs), sum, s);
        System.out.flush();
    }

    void ping(Runnable turn) {
        for (long i = 0; i < warm + records; i++) {
            long before = System.nanoTime();
            turn.run();
            if (i >= warm) sample[samples++] = System.nanoTime() - before;
        }
        double[] at = {1, 5, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99};
        Arrays.sort(sample);
        StringBuilder s = new StringBuilder();
        for (double p : at) s.append(String.format(Locale.ROOT, "%s[%s,%d]", s.length() > 0 ? "," : "", p, sample[(int) (samples * p / 100)]));
        System.out.println("{\"percentiles\":[" + s + "]}");
        System.out.flush();
    }
}
