/* bench/peers/chronicle/ChroniclePeer.java: Chronicle Queue: an appender and a tailer in two processes, both spinning. An excerpt holds
 * BATCH records. Blocks of 64 MiB, a mapped file on the same disk as Busway's log; no checksum, nothing deleted behind. */
import net.openhft.chronicle.bytes.Bytes;
import net.openhft.chronicle.queue.ChronicleQueue;
import net.openhft.chronicle.queue.ExcerptAppender;
import net.openhft.chronicle.queue.ExcerptTailer;
import net.openhft.chronicle.queue.impl.single.SingleChronicleQueueBuilder;

public final class ChroniclePeer {
    public static void main(String[] args) {
        Peer p = new Peer(args);
        switch (p.role) {
            case "read" -> read(p);
            case "write" -> write(p);
            case "pong" -> pong(p);
            default -> ping(p);
        }
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }

    private static ChronicleQueue open(Peer p, String name) {
        return SingleChronicleQueueBuilder.single(p.where + "/" + name).blockSize(64 << 20).build();
    }

    private static Bytes<?> records(Peer p, int count) {
        Bytes<?> b = Bytes.allocateDirect((long) count * p.recordBytes);
        b.write(p.recordsOf(count));
        return b;
    }

    private static void append(ExcerptAppender out, Bytes<?> records) {
        records.readPosition(0);
        out.writeBytes(records);
    }

    /* One excerpt: every record of it. */
    private static void receive(Peer p, ExcerptTailer in, Bytes<?> buffer) {
        buffer.clear();
        while (!in.readBytes(buffer)) Thread.onSpinWait();
        for (long at = 0; at < buffer.readRemaining(); at += p.recordBytes)
            p.take(buffer.readByte(at), buffer.readByte(at + p.recordBytes - 1));
    }

    private static void read(Peer p) {
        ExcerptTailer in = open(p, "there").createTailer();
        Bytes<?> buffer = Bytes.allocateDirect((long) p.batch * p.recordBytes);
        Peer.ready();
        while (p.wants()) receive(p, in, buffer);
        p.reportRate();
    }

    private static void write(Peer p) {
        ExcerptAppender out = open(p, "there").createAppender();
        Bytes<?> records = records(p, p.batch);
        for (long sent = 0; sent < p.warm + p.records; sent += p.batch) append(out, records);
    }

    private static void pong(Peer p) {
        ExcerptTailer in = open(p, "there").createTailer();
        ExcerptAppender out = open(p, "back").createAppender();
        Bytes<?> record = records(p, 1), buffer = Bytes.allocateDirect(p.recordBytes);
        Peer.ready();
        while (p.wants()) {
            receive(p, in, buffer);
            append(out, record);
        }
    }

    private static void ping(Peer p) {
        ExcerptAppender out = open(p, "there").createAppender();
        ExcerptTailer in = open(p, "back").createTailer();
        Bytes<?> record = records(p, 1), buffer = Bytes.allocateDirect(p.recordBytes);
        Peer answers = new Peer(new String[] {"read", p.where, "1", "" + p.recordBytes, "" + Long.MAX_VALUE / 4, "0", "0"});
        p.ping(() -> {
            append(out, record);
            receive(answers, in, buffer);
        });
    }
}
