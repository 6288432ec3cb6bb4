/* SPDX-License-Identifier: MIT */
/*
 * Snapshots in files: writing one, and reading, checking, restoring and
 * mapping what was written.  The format is in docs/SNAPSHOT-FORMAT.md.
 *
 * In libweir-image (pkg-config weir-image), beside libweir.  The conventions
 * are those of weir.h; weir_error_text() tells of these functions too.
 */
#ifndef WEIR_IMAGE_H
#define WEIR_IMAGE_H

#include <weir/heap_snapshot.h>
#include <weir/snapshot.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Writing ------------------------------------------------------------ */

enum weir_image_codec {
	WEIR_CODEC_NONE, /* pages as they are, and mappable */
	WEIR_CODEC_LZ4,
	WEIR_CODEC_ZSTD,
};

struct weir_image_options {
	size_t size;    /* sizeof(struct weir_image_options) of the caller */
	unsigned codec; /* enum weir_image_codec */
	int level;      /* of the codec; 0: its default */
	unsigned mode;  /* permission bits of a new file; 0: 0600 */
};

/*
 * Read a snapshot that has begun (weir_snapshot_read()) into the file `path`:
 * under a temporary name in the same directory, synced, and renamed when it is
 * whole, so that at any time, also after a crash, `path` is the old file or
 * the new.  An error (-ENOSPC, -EIO, ...; those of read) aborts the snapshot,
 * and the temporary file is removed.  A symbolic link stays, and the file that
 * it leads to is replaced; -EINVAL for what is not a regular file.
 */
WEIR_API int weir_image_write_file(weir_snapshot *snapshot, const char *path,
				   const struct weir_image_options *options);

/* The same to a descriptor: a pipe, a socket, a file at its offset.  Not
 * synced, not closed.  One that does not block is waited for; -EPIPE comes
 * without SIGPIPE. */
WEIR_API int weir_image_write_fd(weir_snapshot *snapshot, int fd,
				 const struct weir_image_options *options);

/* The same for a snapshot of a heap, which may be written more than once: an
 * error leaves it as it is.  The file has two regions, objects with references
 * and leaf objects, with all that was alive at its place; not where objects
 * begin. */
WEIR_API int weir_image_write_heap(const weir_heap_snapshot *snapshot,
				   const char *path,
				   const struct weir_image_options *options);
/* And to a descriptor. */
WEIR_API int weir_image_write_heap_fd(const weir_heap_snapshot *snapshot,
				      int fd,
				      const struct weir_image_options *options);

/* ---- Reading ------------------------------------------------------------ */

/* Verified contents of one file, or of a whole one and its deltas. */
typedef struct weir_image weir_image;

/*
 * Open files in their order: a whole one, then the delta that follows it, and
 * so on.  Everything is verified (checksums, that each page is there, and only
 * once, that they follow each other) before it returns.  -EBADMSG: torn,
 * truncated, changed or no snapshot at all, with file, offset and cause in the
 * text; -EINVAL: not a chain; -ENOTSUP: a version or a codec that this library
 * lacks; -ENOMEM and what opening and reading files return.
 *
 * An image may be used by any number of threads at once, also to read parts of
 * it in parallel, but not beside weir_image_close().
 */
WEIR_API int weir_image_open(const char *const *paths, size_t count,
			     weir_image **image);
/* The same for one file that may be a delta without what it follows, to look at
 * it: what is not in it can be neither read nor mapped (-ENODATA). */
WEIR_API int weir_image_open_part(const char *path, weir_image **image);
/* NULL is allowed.  What was mapped from it stays. */
WEIR_API void weir_image_close(weir_image *image);

struct weir_image_info {
	size_t size;      /* sizeof of the caller's */
	uint8_t id[16];   /* of the last file */
	uint8_t base[16]; /* the one the FIRST file follows: zero if whole */
	unsigned kind;    /* enum weir_snapshot_kind */
	size_t regions;   /* how many */
	size_t page;      /* page size in bytes */
	uint64_t time_ns; /* of the last file, CLOCK_REALTIME */
};
WEIR_API int weir_image_info(const weir_image *image,
			     struct weir_image_info *info);

struct weir_image_region {
	size_t size;      /* sizeof of the caller's */
	uint64_t address; /* where it was */
	uint64_t bytes;   /* how long */
	uint64_t data;    /* of them, in pages that are not zero */
	size_t unit;      /* page or 2 MiB: see weir_region_info */
	unsigned flags;   /* WEIR_REGION_*, as it had them */
	char name[32];    /* as given */
};
WEIR_API int weir_image_region(const weir_image *image, size_t i,
			       struct weir_image_region *region);

/* Copy [offset, offset + bytes) of region i to memory.  -EIO if a file was
 * changed since it was opened and no longer matches.  A chunk of the file, of
 * up to 2 MiB, is read and verified as a whole: read much at once. */
WEIR_API int weir_image_read(const weir_image *image, size_t i, uint64_t offset,
			     void *to, size_t bytes);

/* Where data is: the first bytes of region i at or behind `offset` that are in
 * pages that are not zero: [*start, *start + *bytes), as far as they go on.
 * *bytes is 0 if there are none. */
WEIR_API int weir_image_data(const weir_image *image, size_t i, uint64_t offset,
			     uint64_t *start, uint64_t *bytes);

/*
 * Map region i, private and copy-on-write: reading takes pages from the file
 * as they are touched, writing changes nothing but the process's memory.
 * Exactly at `address`, where nothing may be mapped (-EEXIST), or if NULL where
 * it was saved.  Compressed pages and small runs are copied.  The mapping is
 * the caller's, to be unmapped with munmap(); the files must not be changed
 * while it lasts (written anew by weir_image_write_file() they are not).
 */
WEIR_API int weir_image_map(const weir_image *image, size_t i, void *address,
			    void **mapped);

#ifdef __cplusplus
}
#endif
#endif
