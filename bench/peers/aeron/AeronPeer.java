/* bench/peers/aeron/AeronPeer.java: Aeron IPC: an exclusive publication with tryClaim, a subscription that polls, both spinning, in two
 * processes. A message holds BATCH records. The media driver lives in the receiving process, one thread for all its duties. Terms of
 * 64 MiB, bounds checks off, as its samples have it. Nothing is stored on disk and no checksum is made. */
import io.aeron.Aeron;
import io.aeron.ExclusivePublication;
import io.aeron.Subscription;
import io.aeron.driver.MediaDriver;
import io.aeron.driver.ThreadingMode;
import io.aeron.logbuffer.BufferClaim;
import io.aeron.logbuffer.FragmentHandler;
import org.agrona.concurrent.BackoffIdleStrategy;
import org.agrona.concurrent.UnsafeBuffer;

public final class AeronPeer {
    private static final int THERE = 1001, BACK = 1002;
    private static final String CHANNEL = "aeron:ipc?term-length=64m";

    public static void main(String[] args) {
        Peer p = new Peer(args);
        boolean server = p.role.equals("read") || p.role.equals("pong");
        MediaDriver driver = server ? MediaDriver.launch(new MediaDriver.Context()
            .aeronDirectoryName(p.where + "/aeron").dirDeleteOnStart(true).threadingMode(ThreadingMode.SHARED)
            .sharedIdleStrategy(new BackoffIdleStrategy(10, 10, 1000, 100_000)).ipcTermBufferLength(64 << 20)
            .ipcMtuLength(65504).termBufferSparseFile(false)) : null;
        Aeron aeron = Aeron.connect(new Aeron.Context().aeronDirectoryName(p.where + "/aeron"));
        switch (p.role) {
            case "read" -> read(p, aeron);
            case "write" -> write(p, aeron);
            case "pong" -> pong(p, aeron);
            default -> ping(p, aeron);
        }
        aeron.close();
        if (driver != null) driver.close();
    }

    private static void send(ExclusivePublication out, BufferClaim claim, UnsafeBuffer records, int length) {
        while (out.tryClaim(length, claim) < 0) Thread.onSpinWait();
        claim.buffer().putBytes(claim.offset(), records, 0, length);
        claim.commit();
    }

    private static void poll(Subscription in, FragmentHandler handler, int limit) {
        while (in.poll(handler, limit) == 0) Thread.onSpinWait();
    }

    private static void read(Peer p, Aeron aeron) {
        Subscription in = aeron.addSubscription(CHANNEL, THERE);
        Peer.ready();
        FragmentHandler handler = (buffer, offset, length, header) -> {
            for (int at = offset; at < offset + length; at += p.recordBytes)
                p.take(buffer.getByte(at), buffer.getByte(at + p.recordBytes - 1));
        };
        while (p.wants()) poll(in, handler, 256);
        p.reportRate();
    }

    private static void write(Peer p, Aeron aeron) {
        ExclusivePublication out = aeron.addExclusivePublication(CHANNEL, THERE);
        UnsafeBuffer records = new UnsafeBuffer(p.recordsOf(p.batch));
        BufferClaim claim = new BufferClaim();
        while (!out.isConnected()) Thread.onSpinWait();
        for (long sent = 0; sent < p.warm + p.records; sent += p.batch) send(out, claim, records, p.batch * p.recordBytes);
        while (out.isConnected()) Thread.onSpinWait(); /* until the reader has all */
    }

    private static void pong(Peer p, Aeron aeron) {
        Subscription in = aeron.addSubscription(CHANNEL, THERE);
        ExclusivePublication out = aeron.addExclusivePublication(CHANNEL, BACK);
        UnsafeBuffer record = new UnsafeBuffer(p.recordsOf(1));
        BufferClaim claim = new BufferClaim();
        FragmentHandler handler = (buffer, offset, length, header) -> {
            p.take(buffer.getByte(offset), buffer.getByte(offset + length - 1));
            send(out, claim, record, p.recordBytes);
        };
        Peer.ready();
        while (p.wants()) poll(in, handler, 1);
        while (out.isConnected()) Thread.onSpinWait();
    }

    private static void ping(Peer p, Aeron aeron) {
        Subscription in = aeron.addSubscription(CHANNEL, BACK);
        ExclusivePublication out = aeron.addExclusivePublication(CHANNEL, THERE);
        UnsafeBuffer record = new UnsafeBuffer(p.recordsOf(1));
        BufferClaim claim = new BufferClaim();
        FragmentHandler handler = (buffer, offset, length, header) -> p.sum += buffer.getByte(offset) + buffer.getByte(offset + length - 1);
        while (!out.isConnected() || !in.isConnected()) Thread.onSpinWait();
        p.ping(() -> {
            send(out, claim, record, p.recordBytes);
            poll(in, handler, 1);
        });
    }
}
