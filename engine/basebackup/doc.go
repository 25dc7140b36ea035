// SPDX-License-Identifier: Apache-2.0

// Package basebackup copies a running server's data directory into the
// repository.
//
//	pg_backup_start ─▶ walk ─▶ tasks ─▶ workers ─▶ frames ─▶ packs ─▶ repository
//	                            │         read, verify pages, compress
//	pg_control last ◀───────────┘
//	pg_backup_stop ─▶ wait until the repository holds its WAL ─▶ manifest
//
// Files are read while the server writes them: what is torn, grown, shrunk or
// gone is mended by the WAL from the backup's start on. A page whose checksum
// stays wrong although it was read again, and that recovery will not write anew,
// is damage in the server's own file: it is stored as it is, noted in the manifest
// and returned as a warning.
//
// Memory is bounded by Config.Bounds. The lists of files grow with the database; what they
// leave is divided among workers, each with a frame and a pack that it fills, and two packs
// that are being stored (sizes.go). Workers and uploads run on threads of their own where
// they are to stand back for others.
//
// Small files share frames, large ones are cut into frames at fixed positions, so
// that the same content gives the same frames: a backup that was interrupted is
// taken up by reading again and storing only the frames that are not there yet.
//
// An incremental backup reads what the WAL says has changed since another backup, its
// base, and takes the rest from the packs that the base's list of files names. So its
// own list is whole, names packs only and no chain, and it restores in one pass when every
// other backup is gone:
//
//	pg_backup_start ─▶ wait for the WAL before it ─▶ indexes since the base's start ─┐
//	  walk ─▶ changed blocks, new and grown files, all that WAL does not tell of ◀───┘
//	       ─▶ tasks ─▶ as above; a frame that equals the base's is not stored again
//
// What a block is that nobody changed since the base's start is what the base has. A
// block that the base read while it was written is told by WAL behind that start, and so
// is read again or written anew by redo. Relations' free space maps, the SLRUs,
// configuration and everything else that WAL does not tell of are read whole, and have
// frames of their own, so that they can be compared with the base's. Where the indexes do
// not reach from the base to here without a doubt (a segment is missing, timelines do
// not connect, an extension wrote what only it knows, wal_level was minimal, checksums
// were switched) everything is read and the manifest says why.
//
// Who cannot open the sealed repository that he writes knows the base's list of files and
// the indexes from his own copies. The server then begins a new segment of WAL when the
// backup has begun, so that the one it began in has its index.
//
// Frames of which little is used any more are stored anew, a tenth of the data at most by
// one backup, so that a restore never reads much more than there is.
//
// A snapshot is made the same way, but that its files are not read: they are cloned into
// a directory on the server's own file system, which takes well under a second whatever
// their size. Its list of files and its manifest are in the repository, so that it is a
// base like any other backup; its bytes are not, unless Copy puts them there.
//
//	pg_backup_start ─▶ walk ─▶ clone into NAME.tmp ─▶ pg_control last ─▶ pg_backup_stop
//	  ─▶ sync ─▶ rename to NAME ─▶ wait for WAL ─▶ manifest
//
// Where the server's storage can be snapshotted as a whole that is done instead, by
// whoever runs the server: a Volume. All of one backup lies in one volume, for several
// have no moment in common. Its snapshot holds more than a backup does, and a control
// file that names a checkpoint: restore takes that away.
//
//	pg_backup_start ─▶ walk ─▶ cut the snapshot ─▶ pg_backup_stop
//	  ─▶ wait until volumes can be made of it ─▶ wait for WAL ─▶ manifest
//
// It is told from another by a random number that its directory and its manifest both
// hold: a snapshot is where that number is, on this machine or a disk that was carried
// to another, and nowhere else. It is removed after its manifest, and renamed before.
//
// The session that started the backup stays open until it is stopped; if it
// breaks, so does the backup. Nothing is listed before the manifest is written,
// and that is written last.
package basebackup
