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
// Small files share frames, large ones are cut into frames at fixed positions, so
// that the same content gives the same frames: a backup that was interrupted is
// taken up by reading again and storing only the frames that are not there yet.
//
// A snapshot is made the same way, but that its files are not read: they are cloned into
// a directory on the server's own file system, which takes well under a second whatever
// their size. Its list of files and its manifest are in the repository, so that it is a
// base like any other backup; its bytes are not, unless Copy puts them there.
//
//	pg_backup_start ─▶ walk ─▶ clone into NAME.tmp ─▶ pg_control last ─▶ pg_backup_stop
//	  ─▶ sync ─▶ rename to NAME ─▶ wait for WAL ─▶ manifest
//
// It is told from another by a random number that its directory and its manifest both
// hold: a snapshot is where that number is, on this machine or a disk that was carried
// to another, and nowhere else. It is removed after its manifest, and renamed before.
//
// The session that started the backup stays open until it is stopped; if it
// breaks, so does the backup. Nothing is listed before the manifest is written,
// and that is written last.
package basebackup
