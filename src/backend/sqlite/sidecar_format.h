/* Numbers of the sidecar's layout that encoder and decoder share; private to them. */
#ifndef SF_BACKEND_SQLITE_SIDECAR_FORMAT_H
#define SF_BACKEND_SQLITE_SIDECAR_FORMAT_H

#define SF_SIDECAR_MAGIC "SQPC"
#define SF_SIDECAR_VERSION 8u
#define SF_SIDECAR_HEAD_BYTES 18u /* before the tag */

/* What a page of a database may have; larger than what shards are written with. */
#define SF_DB_PAGE_BYTES_MIN 512u
#define SF_DB_PAGE_BYTES_MAX 65536u

/* The frame header's descriptor byte, behind the magic number. */
#define SF_ZSTD_DESCRIPTOR_OFF 4u
#define SF_ZSTD_CHECKSUM_FLAG 0x04u
#define SF_ZSTD_LEVEL 3

#endif
