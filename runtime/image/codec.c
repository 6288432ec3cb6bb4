/* SPDX-License-Identifier: MIT */
/* Compression of chunks; see codec.h. */
#include "runtime/image/codec.h"

#include <errno.h>
#ifdef WEIR_LZ4
#include <lz4.h>
#include <lz4hc.h>
#endif
#ifdef WEIR_ZSTD
#include <zstd.h>
#endif

#include <weir/embed.h>
#include <weir/image.h>

static const char *const names[] = {
	[WEIR_CODEC_NONE] = "none",
	[WEIR_CODEC_LZ4] = "lz4",
	[WEIR_CODEC_ZSTD] = "zstd",
};

#define CODECS (sizeof names / sizeof *names)

const char *wi_codec_name(unsigned codec)
{
	return codec < CODECS ? names[codec] : "unknown";
}

bool wi_codec_present(unsigned codec)
{
	switch (codec) {
	case WEIR_CODEC_NONE:
#ifdef WEIR_LZ4
	case WEIR_CODEC_LZ4:
#endif
#ifdef WEIR_ZSTD
	case WEIR_CODEC_ZSTD:
#endif
		return true;
	default:
		return false;
	}
}

/* The levels that a codec has. */
static void levels(unsigned codec, int *least, int *most)
{
	*least = *most = 0;
#ifdef WEIR_LZ4
	if (codec == WEIR_CODEC_LZ4) {
		*least = -65536; /* LZ4's greatest acceleration */
		*most = LZ4HC_CLEVEL_MAX;
	}
#endif
#ifdef WEIR_ZSTD
	if (codec == WEIR_CODEC_ZSTD) {
		*least = ZSTD_minCLevel();
		*most = ZSTD_maxCLevel();
	}
#endif
}

int wi_codec_check(unsigned codec, int level)
{
	int least, most;

	if (codec >= CODECS)
		return weir_error_set(EINVAL,
				      "there is no codec %u; see enum "
				      "weir_image_codec",
				      codec);
	if (!wi_codec_present(codec))
		return weir_error_set(
			ENOTSUP,
			"this build of the library has no %s; build it with "
			"lib%s's headers installed (Debian: lib%s-dev)",
			names[codec], names[codec], names[codec]);
	levels(codec, &least, &most);
	if (level < least || level > most)
		return weir_error_set(EINVAL,
				      "%s has no level %d, but %d to %d",
				      names[codec], level, least, most);
	return 0;
}

#ifdef WEIR_LZ4
static size_t lz4_compress(int level, void *to, size_t room, const void *from,
			   size_t bytes)
{
	int n;

	if (level > 0)
		n = LZ4_compress_HC(from, to, (int)bytes, (int)room, level);
	else
		n = LZ4_compress_fast(from, to, (int)bytes, (int)room,
				      level ? -level : 1);
	return n > 0 ? (size_t)n : 0;
}
#endif

#ifdef WEIR_ZSTD
static size_t zstd_compress(struct wi_codec *c, int level, void *to,
			    size_t room, const void *from, size_t bytes)
{
	size_t n;

	if (!c->compressor)
		c->compressor = ZSTD_createCCtx();
	if (!c->compressor)
		return 0;
	n = ZSTD_compressCCtx(c->compressor, to, room, from, bytes,
			      level ? level : ZSTD_CLEVEL_DEFAULT);
	return ZSTD_isError(n) ? 0 : n;
}
#endif

size_t wi_codec_compress(struct wi_codec *c, unsigned codec, int level,
			 void *to, size_t room, const void *from, size_t bytes)
{
	(void)c, (void)level, (void)to, (void)room, (void)from, (void)bytes;
	switch (codec) {
#ifdef WEIR_LZ4
	case WEIR_CODEC_LZ4:
		return lz4_compress(level, to, room, from, bytes);
#endif
#ifdef WEIR_ZSTD
	case WEIR_CODEC_ZSTD:
		return zstd_compress(c, level, to, room, from, bytes);
#endif
	default:
		return 0;
	}
}

#ifdef WEIR_ZSTD
static int zstd_expand(struct wi_codec *c, void *to, size_t bytes,
		       const void *from, size_t stored)
{
	if (!c->decompressor)
		c->decompressor = ZSTD_createDCtx();
	if (!c->decompressor)
		return -ENOMEM;
	/* One frame: with several, or ones to be skipped, there would be many
	 * encodings of the same. */
	if (ZSTD_findFrameCompressedSize(from, stored) != stored)
		return -EBADMSG;
	return ZSTD_decompressDCtx(c->decompressor, to, bytes, from, stored) ==
			       bytes
		       ? 0
		       : -EBADMSG;
}
#endif

int wi_codec_expand(struct wi_codec *c, unsigned codec, void *to, size_t bytes,
		    const void *from, size_t stored)
{
	(void)c, (void)to, (void)bytes, (void)from, (void)stored;
	switch (codec) {
#ifdef WEIR_LZ4
	case WEIR_CODEC_LZ4:
		return LZ4_decompress_safe(from, to, (int)stored, (int)bytes) ==
				       (int)bytes
			       ? 0
			       : -EBADMSG;
#endif
#ifdef WEIR_ZSTD
	case WEIR_CODEC_ZSTD:
		return zstd_expand(c, to, bytes, from, stored);
#endif
	default:
		return -ENOTSUP;
	}
}

void wi_codec_destroy(struct wi_codec *c)
{
#ifdef WEIR_ZSTD
	ZSTD_freeCCtx(c->compressor);
	ZSTD_freeDCtx(c->decompressor);
#endif
	c->compressor = c->decompressor = NULL;
}
