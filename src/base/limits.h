/* Every bound on what stored bytes may make us do, in one place, each with its reason. */
#ifndef SF_BASE_LIMITS_H
#define SF_BASE_LIMITS_H

/* _CURRENT is a few hundred bytes; a run id and a URL of 8 KiB each still fit. */
#define SF_LIMIT_CURRENT_BYTES (64u << 10)
/* A snapshot manifest takes ~400 bytes a shard, of which ~90 are for opening it: 80 MiB is 200,000 shards. */
#define SF_LIMIT_SNAPSHOT_MANIFEST_BYTES (80u << 20)
/* What a snapshot manifest may say of one shard so that it opens without a look at the shard's own: ~65 bytes an SST and two keys;
 * 16 KiB are 60 GiB. And what all shards of a snapshot may have of that, so that the manifest stays within its own limit: a quarter,
 * as text, which 200,000 shards of an SST each have. What exceeds either is left out. */
#define SF_LIMIT_OPENING_RECORD_BYTES (16u << 10)
#define SF_LIMIT_OPENING_RECORDS_BYTES (16u << 20)
/* A run record is half a kilobyte; an error message of some pages still fits. */
#define SF_LIMIT_RUN_RECORD_BYTES (64u << 10)
/* The record of a finished shard is some hundred bytes and two keys, which may be 64 KiB each and longer when escaped. */
#define SF_LIMIT_SHARD_RECORD_BYTES (1u << 20)
/* num_dbs is only a number in the manifest; opened shards cost memory, absent ones one pointer each. */
#define SF_LIMIT_SHARDS (1u << 20)
/* A SlateDB manifest takes ~250 bytes an SST: 64 MiB is 250,000 SSTs of 256 MiB. */
#define SF_LIMIT_SLATEDB_MANIFEST_BYTES (64u << 20)
#define SF_LIMIT_SLATEDB_SSTS (1u << 20)
/* Plain size of one data block: block size is at most 64 KiB, but one row may be larger (SlateDB allows values below
 * 4 GiB; nobody stores a row of 512 MiB in a look-up service). */
#define SF_LIMIT_BLOCK_BYTES (512u << 20)
/* Plain size of a filter or index block of one SST: 10^8 rows at 10 bits, 10^6 blocks with long keys. */
#define SF_LIMIT_META_BYTES (256u << 20)
/* A data block above this holds one row: SlateDB ends a block at 64 KiB at most, unless its first row is longer, which then
 * is its only one. With slack for other writers. */
#define SF_LIMIT_BLOCK_OF_ROWS_BYTES (1u << 20)
/* Rows shrink no more than this; that is as far as deflate goes. Only Zstandard can go further, on one byte repeated: up to
 * SF_LIMIT_INFLATE_FREE_BYTES a row may be such a one. Our writer stores longer ones as they are (compressor.c). */
#define SF_LIMIT_INFLATE_RATIO 1040u
#define SF_LIMIT_INFLATE_FREE_BYTES (64u << 20)
/* Plain size of the sidecar of an SQLite shard: some 1 % of shard.db, more with long keys; 256 MiB belong to 20 GiB. */
#define SF_LIMIT_SIDECAR_BYTES (256u << 20)
/* A row of an SQLite shard: SQLite itself, as it is built by default, takes and gives no longer ones. */
#define SF_LIMIT_SQLITE_ROW_BYTES 1000000000u
/* One WAL object: 0.17 flushes at 64 MiB of rows. */
#define SF_LIMIT_WAL_BYTES (1u << 30)
/* WAL objects to replay when a database is opened at its newest state. */
#define SF_LIMIT_WAL_OBJECTS 100000u
/* One page of a listing and the number of pages of one listing. */
#define SF_LIMIT_LIST_PAGE_BYTES (16u << 20)
#define SF_LIMIT_LIST_PAGES 10000u
/* Names of one listing: two million objects of 100 bytes each. An endless one stops here if not at its deadline. */
#define SF_LIMIT_LIST_BYTES (256u << 20)
/* A CEL expression of a manifest. cel-cpp stops at 100,000 code points. */
#define SF_LIMIT_CEL_TEXT_BYTES 100000u
/* Its columns: every name in the text is looked up among them. Nobody writes so many. */
#define SF_LIMIT_CEL_COLUMNS 256u
/* How deep its parts may be nested: what is built, checked and evaluated recurses, some hundred bytes of stack for each. Chains of
 * && and || are flat, so that only what people nest by hand counts. */
#define SF_LIMIT_CEL_DEPTH 200u
/* Parts that one evaluation visits, and what takes as long, as 64 bytes of a text do: ten thousand times what a rule for routing
 * takes, and still some milliseconds. */
#define SF_LIMIT_CEL_STEPS 200000u
/* What one evaluation may build: texts, lists. As much may the regular expressions take that are made ready with the expression. */
#define SF_LIMIT_CEL_BYTES (1u << 20)
/* A regular expression, and what its states may take: some hundred kilobytes. */
#define SF_LIMIT_CEL_PATTERN_BYTES 2000u

#endif
