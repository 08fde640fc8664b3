package busway

/*
#include "shim.h"
*/
import "C"

import (
	"time"
	"unsafe"
)

// Finding is one of Verify.
type Finding struct {
	Path     string // file or folder
	Position uint64 // byte in the file
	Offset   int64  // of the record where known, else -1
	IsError  bool   // false: a note
	Message  string
}

// VerifyTotals is what Verify has seen.
type VerifyTotals struct {
	Topics, Partitions, Segments, Batches, Records, Bytes, Errors, Notes uint64
}

type verifying struct {
	finding  func(Finding)
	progress func(done, total uint64)
	thrown   *panicked
}

// Verify checks every byte of a data directory, partition folder or segment file; no daemon, nothing is changed. The functions may be nil. ErrCorrupt:
// there are errors. ErrNewerFormat, ErrNotFound, ErrNotPermitted, ErrIO.
func Verify(path string, finding func(Finding), progress func(doneBytes, totalBytes uint64)) (VerifyTotals, error) {
	name, err := cstring("verify", path)
	if err != nil {
		return VerifyTotals{}, err
	}
	defer C.free(unsafe.Pointer(name))
	v := &verifying{finding: finding, progress: progress}
	handle, forget := handleOf(v)
	defer forget()
	var t C.bw_verify_totals
	r := C.bwgo_verify(name, handle, &t)
	v.thrown.throw()
	return VerifyTotals{uint64(t.topics), uint64(t.partitions), uint64(t.segments), uint64(t.batches), uint64(t.records), uint64(t.bytes),
		uint64(t.errors), uint64(t.notes)}, resultError("verify", r)
}

// Marker is what a control batch says of its producer's transaction.
type Marker int

// Markers.
const (
	NoMarker     Marker = C.BW_DUMP_NO_MARKER
	AbortMarker  Marker = C.BW_DUMP_ABORT
	CommitMarker Marker = C.BW_DUMP_COMMIT
)

// DumpBatch is a batch's header as it is on the disk.
type DumpBatch struct {
	Position               uint64
	Size                   uint32 // bytes, whole
	BaseOffset, LastOffset int64
	Count, LeaderEpoch     int32
	Attributes             int16
	Codec                  Codec
	TimestampType          TimestampType
	BaseTime, MaxTime      time.Time
	ProducerID             int64
	ProducerEpoch          int16
	BaseSequence           int32
	CRC                    uint32
	CRCOK, Transactional   bool
	Control                bool
	Marker                 Marker
}

type dumping struct {
	fn     func(DumpBatch, *View) bool
	info   batchInfo
	thrown *panicked
}

func (d *dumping) show(b *C.bw_dump_batch, record *C.bw_record_view) bool {
	batch := DumpBatch{uint64(b.position), uint32(b.size), int64(b.base_offset), int64(b.last_offset), int32(b.count), int32(b.leader_epoch),
		int16(b.attributes), Codec(b.codec), TimestampType(b.timestamp_type), time.UnixMilli(int64(b.base_timestamp_ms)),
		time.UnixMilli(int64(b.max_timestamp_ms)), int64(b.producer_id), int16(b.producer_epoch), int32(b.base_sequence), uint32(b.crc),
		bool(b.crc_ok), bool(b.is_transactional), bool(b.is_control), Marker(b.marker)}
	if record == nil {
		return d.fn(batch, nil)
	}
	defer d.info.life.Add(1)
	return d.fn(batch, &View{record, &d.info, d.info.life.Load()})
}

// Dump walks a segment file: fn is called once a batch with nil, then, if records are asked for, once a record, which is good during the call; false
// ends it. It stops at the end of the data. ErrCorrupt at the first broken batch.
func Dump(segment string, records bool, fn func(batch DumpBatch, record *View) bool) error {
	if fn == nil {
		return failure("dump", ErrInvalidArgument, "there is no function")
	}
	name, err := cstring("dump", segment)
	if err != nil {
		return err
	}
	defer C.free(unsafe.Pointer(name))
	d := &dumping{fn: fn}
	handle, forget := handleOf(d)
	defer forget()
	want := C.int(0)
	if records {
		want = 1
	}
	r := C.bwgo_dump(name, want, handle)
	d.thrown.throw()
	return resultError("dump", r)
}
