// Writes partition folders with Apache Kafka's own classes, for Busway to read: one a codec, one with transactions and their
// control batches, one as compaction leaves it. Beside each .log lies `expected`, what Kafka's own reader finds in it.
//   java -cp 'build/compat/jars/*' tests/compat/MakeSegment.java tests/compat/kafka-3.9
// Lines of `expected`, fields separated by blanks:
//   batch  base last count leaderEpoch codec append|create flags(t transactional, c control, d delete horizon, -) producerId
//          producerEpoch baseSequence maxTimestamp bytes
//   record offset timestamp key value headers(none, or name=value,…)
// Keys and values: null, "-" for empty, hex up to 64 bytes, else #length:crc32c.

import java.io.File;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.Iterator;
import java.util.Map;
import java.util.Random;
import java.util.UUID;
import java.util.zip.CRC32C;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.*;
import org.apache.kafka.common.record.Record;
import org.apache.kafka.common.utils.ByteBufferOutputStream;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.storage.internals.log.LogConfig;
import org.apache.kafka.storage.internals.log.LogSegment;

public class MakeSegment {
    static final long START = 1700000000000L;
    static final byte MAGIC = RecordBatch.MAGIC_VALUE_V2;

    static String bytes(ByteBuffer b) {
        if (b == null) return "null";
        byte[] all = new byte[b.remaining()];
        b.duplicate().get(all);
        if (all.length == 0) return "-";
        if (all.length > 64) {
            CRC32C crc = new CRC32C();
            crc.update(all);
            return String.format("#%d:%08x", all.length, crc.getValue());
        }
        StringBuilder hex = new StringBuilder();
        for (byte x : all) hex.append(String.format("%02x", x));
        return hex.toString();
    }

    static void expect(File dir, File log) throws IOException {
        try (FileRecords records = FileRecords.open(log, false); PrintWriter out = new PrintWriter(new File(dir, "expected"))) {
            for (FileLogInputStream.FileChannelRecordBatch b : records.batches()) {
                b.ensureValid();
                String flags = (b.isTransactional() ? "t" : "") + (b.isControlBatch() ? "c" : "")
                        + (b.deleteHorizonMs().isPresent() ? "d" : "");
                out.printf("batch %d %d %d %d %s %s %s %d %d %d %d %d\n", b.baseOffset(), b.lastOffset(), b.countOrNull(),
                        b.partitionLeaderEpoch(), b.compressionType().name, b.timestampType() == TimestampType.LOG_APPEND_TIME ? "append" : "create",
                        flags.isEmpty() ? "-" : flags, b.producerId(), b.producerEpoch(), b.baseSequence(), b.maxTimestamp(), b.sizeInBytes());
                for (Iterator<Record> it = b.iterator(); it.hasNext();) {
                    Record r = it.next();
                    StringBuilder headers = new StringBuilder();
                    for (Header h : r.headers())
                        headers.append(headers.length() > 0 ? "," : "").append(h.key()).append("=")
                                .append(bytes(h.value() == null ? null : ByteBuffer.wrap(h.value())));
                    out.printf("record %d %d %s %s %s\n", r.offset(), r.timestamp(), bytes(r.key()), bytes(r.value()),
                            headers.length() > 0 ? headers : "none");
                }
            }
        }
    }

    /** A partition folder with one segment, written through Kafka's LogSegment: log and indexes. */
    static class Folder implements AutoCloseable {
        final File dir;
        final LogSegment segment;
        final long base;

        Folder(File root, String name, long base) throws IOException {
            dir = new File(root, name + "-0");
            if (dir.exists()) for (File f : dir.listFiles()) f.delete();
            dir.mkdirs();
            this.base = base;
            // An index entry after every 512 bytes, so that these small segments have some.
            LogConfig config = new LogConfig(Map.of("index.interval.bytes", "512", "segment.index.bytes", "65536"));
            segment = LogSegment.open(dir, base, config, Time.SYSTEM, 0, false);
            UUID id = UUID.nameUUIDFromBytes(name.getBytes(StandardCharsets.UTF_8));
            Files.writeString(new File(dir, "partition.metadata").toPath(),
                    "version: 0\ntopic_id: " + new Uuid(id.getMostSignificantBits(), id.getLeastSignificantBits()) + "\n");
            Files.writeString(new File(dir, "leader-epoch-checkpoint").toPath(), "0\n1\n5 " + base + "\n");
        }

        void append(MemoryRecords records) throws IOException {
            long last = -1, maxTime = -1, maxOffset = -1;
            for (MutableRecordBatch b : records.batches()) {
                last = b.lastOffset();
                if (b.maxTimestamp() > maxTime) {
                    maxTime = b.maxTimestamp();
                    maxOffset = b.lastOffset();
                }
            }
            segment.append(last, maxTime, maxOffset, records);
        }

        public void close() throws IOException {
            segment.onBecomeInactiveSegment();
            segment.close(); // trims the indexes
            expect(dir, new File(dir, String.format("%020d.log", base)));
        }
    }

    static byte[] text(int seed, int length) {
        Random random = new Random(seed);
        byte[] out = new byte[length];
        for (int i = 0; i < length; i++) out[i] = (byte) ("abcd".charAt(random.nextInt(4)));
        return out;
    }

    static SimpleRecord sample(int i, boolean large) {
        int[] lengths = {5, 0, 1, 63, 64, 65, 127, 128, 200};
        byte[] key = i % 3 == 0 ? null : i % 5 == 0 ? new byte[0] : ("key-" + i).getBytes(StandardCharsets.UTF_8);
        byte[] value = i % 7 == 3 ? null : text(i, lengths[i % lengths.length]);
        if (large && i % 20 == 19) { // over 32 KiB and 64 KiB: several blocks of snappy and lz4
            value = new byte[70000];
            for (int at = 0; at < value.length; at++) value[at] = (byte) ('a' + at / 1000 % 26);
        }
        Header[] headers = new Header[i % 4 == 2 ? 3 : 0];
        if (headers.length > 0) {
            headers[0] = new RecordHeader("trace", ("00-" + i).getBytes(StandardCharsets.UTF_8));
            headers[1] = new RecordHeader("null", (byte[]) null);
            headers[2] = new RecordHeader("é", new byte[0]);
        }
        return new SimpleRecord(START + i * 250L - (i % 2) * 900L, key, value, headers);
    }

    static MemoryRecords batch(Compression codec, TimestampType type, long base, long producer, int sequence, boolean transactional,
            int first, int count) {
        MemoryRecordsBuilder b = MemoryRecords.builder(ByteBuffer.allocate(1 << 16), MAGIC, codec, type, base, START + 123456, producer,
                (short) (producer < 0 ? -1 : 3), sequence, transactional, false, 5);
        for (int i = 0; i < count; i++) b.append(sample(first + i, codec.type() != CompressionType.NONE));
        return b.build();
    }

    static void codec(File root, CompressionType type) throws IOException {
        Compression codec = Compression.of(type).build();
        try (Folder f = new Folder(root, "codec-" + type.name, 100)) {
            long offset = 100;
            int[] counts = {1, 2, 5, 20, 10};
            for (int c = 0; c < counts.length; c++) {
                boolean append = c == 2, produced = c >= 3;
                f.append(batch(codec, append ? TimestampType.LOG_APPEND_TIME : TimestampType.CREATE_TIME, offset, produced ? 4000 : -1,
                        produced ? c * 100 : -1, false, (int) offset, counts[c]));
                offset += counts[c];
            }
        }
    }

    static void transactions(File root) throws IOException {
        try (Folder f = new Folder(root, "transactions", 0)) {
            f.append(batch(Compression.NONE, TimestampType.CREATE_TIME, 0, 4000, 0, true, 0, 3));
            f.append(batch(Compression.zstd().build(), TimestampType.CREATE_TIME, 3, 4001, 0, true, 3, 4));
            f.append(batch(Compression.NONE, TimestampType.CREATE_TIME, 7, -1, -1, false, 7, 1));
            f.append(MemoryRecords.withEndTransactionMarker(8, START + 10000, 5, 4000, (short) 3,
                    new EndTransactionMarker(ControlRecordType.ABORT, 7)));
            f.append(MemoryRecords.withEndTransactionMarker(9, START + 10001, 5, 4001, (short) 3,
                    new EndTransactionMarker(ControlRecordType.COMMIT, 7)));
            f.append(batch(Compression.NONE, TimestampType.CREATE_TIME, 10, 4000, 3, true, 10, 2));
            f.append(MemoryRecords.withEndTransactionMarker(12, START + 10002, 5, 4000, (short) 3,
                    new EndTransactionMarker(ControlRecordType.COMMIT, 8)));
        }
    }

    /** Gaps inside and between batches, a batch emptied of its records, a delete horizon. */
    static void compacted(File root) throws IOException {
        try (Folder f = new Folder(root, "compacted", 0)) {
            MemoryRecordsBuilder b = MemoryRecords.builder(ByteBuffer.allocate(4096), MAGIC, Compression.NONE, TimestampType.CREATE_TIME, 0,
                    -1, 4000, (short) 3, 0, false, false, 5);
            for (int i : new int[] {2, 3, 7}) b.appendWithOffset(i, sample(i, false));
            b.overrideLastOffset(9);
            f.append(b.build());

            ByteBuffer empty = ByteBuffer.allocate(DefaultRecordBatch.RECORD_BATCH_OVERHEAD);
            DefaultRecordBatch.writeEmptyHeader(empty, MAGIC, 4000, (short) 3, 10, 10, 14, 5, TimestampType.CREATE_TIME, START + 5000, false,
                    false);
            empty.flip();
            f.append(MemoryRecords.readableRecords(empty));

            ByteBufferOutputStream stream = new ByteBufferOutputStream(4096);
            MemoryRecordsBuilder horizon = new MemoryRecordsBuilder(stream, MAGIC, Compression.lz4().build(), TimestampType.CREATE_TIME, 20, -1, -1,
                    (short) -1, -1, false, false, 5, 4096, START + 86400000L);
            horizon.appendWithOffset(21, new SimpleRecord(START + 6000, "gone".getBytes(StandardCharsets.UTF_8), null));
            horizon.appendWithOffset(25, sample(25, false));
            f.append(horizon.build());
        }
    }

    public static void main(String[] args) throws IOException {
        File root = new File(args[0]);
        for (CompressionType type : new CompressionType[] {CompressionType.NONE, CompressionType.GZIP, CompressionType.SNAPPY,
                CompressionType.LZ4, CompressionType.ZSTD})
            codec(root, type);
        transactions(root);
        compacted(root);
    }
}
