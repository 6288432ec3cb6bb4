/* SPDX-License-Identifier: MIT */
/*
 * Compression of chunks: LZ4 blocks and Zstandard frames, each chunk by itself.
 * A build may lack either.  One wi_codec may be used by one thread at a time;
 * it is made for compression or for decompression, as it is first used.
 */
#ifndef WEIR_RUNTIME_IMAGE_CODEC_H
#define WEIR_RUNTIME_IMAGE_CODEC_H

#include <stdbool.h>
#include <stddef.h>

/* What compression keeps from one chunk to the next.  Begins all zero. */
struct wi_codec {
	void *compressor;   /* ZSTD_CCtx */
	void *decompressor; /* ZSTD_DCtx */
};

/* "none", "lz4", "zstd"; "unknown" for any other number. */
const char *wi_codec_name(unsigned codec);

/* Whether this build has it; NONE it has. */
bool wi_codec_present(unsigned codec);

/* 0, or what weir_error_text() says of a codec or a level that is not to be
 * had: -EINVAL, -ENOTSUP. */
int wi_codec_check(unsigned codec, int level);

/*
 * Compress to at most `room` bytes.  Returns how many, 0 if they do not fit (or
 * anything fails): then the chunk is stored as it is.
 */
size_t wi_codec_compress(struct wi_codec *c, unsigned codec, int level,
			 void *to, size_t room, const void *from, size_t bytes);

/* Exactly `bytes` bytes from `stored`: 0, or -EBADMSG, -ENOMEM, without a
 * text. */
int wi_codec_expand(struct wi_codec *c, unsigned codec, void *to, size_t bytes,
		    const void *from, size_t stored);

void wi_codec_destroy(struct wi_codec *c);

#endif
