/* Every command and option there is. What help, the man page and docs/cli.md say stands here, and only here. */
#include "cli.h"

#include <string.h>

const struct option_spec cli_options[OPT_COUNT] = {
    [OPT_CURRENT_URL] = {"current-url", .type = VALUE_TEXT, .metavar = "URL",
                         .help = "The pointer, such as s3://bucket/prefix/_CURRENT, or the prefix in which a _CURRENT lies; or "
                                 "postgresql://HOST/DATABASE, where pointer and manifests are in PostgreSQL. SHARDY_CURRENT "
                                 "otherwise, then current_url of reader.toml."},
    [OPT_CONFIG] = {"config", .type = VALUE_FILE, .metavar = "PATH", .help = "The file of settings. SHARDY_CONFIG otherwise, then reader.toml in the current folder, then in ~/.config/shardy."},
    [OPT_CREDENTIALS] = {"credentials", .type = VALUE_FILE, .metavar = "PATH",
                         .help = "The file of credentials. SHARDY_CREDENTIALS otherwise, then credentials.toml in the same folders."},
    [OPT_S3_OPTION] = {"s3-option", .type = VALUE_PAIR, .metavar = "KEY=VALUE", .repeats = true,
                       .help = "One setting of how to reach S3, over the profile's: endpoint_url, region, addressing_style, verify_ssl, "
                               "connect_timeout, read_timeout, max_attempts, request_payer. May be given several times."},
    [OPT_OUTPUT_FORMAT] = {"output-format", 'o', VALUE_CHOICE, "FORMAT", .choices = "json|jsonl|table|text|csv|tsv",
                           .help = "How results are written: jsonl (default), json, table, text, csv or tsv."},
    [OPT_VALUE_ENCODING] = {"value-encoding", .type = VALUE_CHOICE, .metavar = "ENCODING", .choices = "base64|hex|utf8|auto",
                            .help = "How values are written: base64 (default in JSON), hex, utf8 (what is no UTF-8 becomes U+FFFD), or auto "
                                    "(default otherwise): text where it is printable, else 0x and hex."},
    [OPT_COLOR] = {"color", .type = VALUE_CHOICE, .metavar = "WHEN", .choices = "auto|always|never",
                   .help = "Colours: auto means on a terminal, unless NO_COLOR is set."},
    [OPT_REF] = {"ref", .type = VALUE_TEXT, .metavar = "REF", .help = "Look at this manifest, as history shows it, instead of the one that the pointer names."},
    [OPT_OFFSET] = {"offset", .type = VALUE_UINT, .metavar = "N", .most = UINT32_MAX, .help = "The same by its number in history: 0 is the newest."},
    [OPT_SQLITE_MODE] = {"sqlite-mode", .type = VALUE_CHOICE, .metavar = "MODE", .choices = "download|range|auto",
                         .help = "How SQLite shards are read: as copies below local_root, page by page, or, by default, as their sizes say."},
    [OPT_SQLITE_SHARD_BYTES] = {"sqlite-auto-per-shard-bytes", .type = VALUE_UINT, .metavar = "BYTES", .most = UINT64_MAX,
                                .help = "For --sqlite-mode auto: page by page when a shard has so many bytes. Default: 16777216."},
    [OPT_SQLITE_TOTAL_BYTES] = {"sqlite-auto-total-bytes", .type = VALUE_UINT, .metavar = "BYTES", .most = UINT64_MAX,
                                .help = "For --sqlite-mode auto: page by page when all shards together have so many. Default: 2147483648."},
    [OPT_TIMEOUT] = {"timeout", .type = VALUE_SECONDS, .metavar = "SECONDS", .help = "For opening, and for each operation. Default: 60."},
    [OPT_RELOCATE] = {"relocate", .type = VALUE_FLAG, .help = "Look below the given prefix for what was published below another one, as in a mirror."},
    [OPT_CONFINE] = {"confine", .type = VALUE_FLAG, .help = "Refuse what lies outside of the prefix."},
    [OPT_NO_CONFINE] = {"no-confine", .type = VALUE_FLAG, .help = "Read what lies outside of the prefix all the same."},
    [OPT_NO_WARN] = {"no-warn", 'q', VALUE_FLAG, .help = "No warnings on standard error; errors stay."},
    [OPT_VERSION] = {"version", .type = VALUE_FLAG, .help = "Show the version and exit."},
    [OPT_GENERATE] = {"generate", .type = VALUE_CHOICE, .metavar = "KIND", .choices = "man|markdown|complete-bash|complete-zsh|complete-fish",
                      .help = "Print the man page, the same in Markdown, or completions for a shell, and exit."},
    [OPT_HELP] = {"help", 'h', VALUE_FLAG, .help = "Show help, of the command if one is named, and exit."},
    [OPT_ROUTING_CONTEXT] = {"routing-context", .type = VALUE_PAIR, .metavar = "KEY=VALUE", .repeats = true,
                             .help = "The value of a column by which a snapshot with CEL sharding routes, for all keys. May be given several times."},
    [OPT_STRICT] = {"strict", .type = VALUE_FLAG, .help = "Exit with 1 when the key is missing."},
    [OPT_EXIT_CODE] = {"exit-code", .type = VALUE_FLAG, .help = "Exit with 3 when a key is missing."},
    [OPT_RAW] = {"raw", .type = VALUE_FLAG, .help = "Write the bytes of the value and nothing else. Exits with 1 when the key is missing."},
    [OPT_REMOTE] = {"remote", .type = VALUE_FLAG, .help = "Also read the pointer anew: degraded is a snapshot that it does not name."},
    [OPT_STALENESS] = {"staleness-threshold", .type = VALUE_SECONDS, .metavar = "SECONDS", .help = "A snapshot that was made longer ago is degraded."},
    [OPT_LIMIT] = {"limit", .type = VALUE_UINT, .metavar = "N", .least = 1, .most = UINT64_MAX, .help = "At most so many."},
    [OPT_LATEST] = {"latest", .type = VALUE_FLAG, .help = "What the pointer names."},
    [OPT_PREFIX] = {"prefix", .type = VALUE_TEXT, .metavar = "TEXT", .help = "Only keys whose stored bytes begin with this."},
    [OPT_FROM] = {"from", .type = VALUE_TEXT, .metavar = "KEY", .help = "From this key on."},
    [OPT_TO] = {"to", .type = VALUE_TEXT, .metavar = "KEY", .help = "Up to this key, which is left out."},
    [OPT_REVERSE] = {"reverse", .type = VALUE_FLAG, .help = "Highest key first."},
    [OPT_SHARD] = {"shard", .type = VALUE_UINT, .metavar = "DB_ID", .most = UINT32_MAX - 1, .help = "Of this shard only."},
    [OPT_DEEP] = {"deep", .type = VALUE_FLAG, .help = "Read every byte."},
    [OPT_KEYS] = {"keys", .type = VALUE_FLAG, .help = "Also compare rows, and print those that differ."},
    [OPT_JOBS] = {"jobs", 'j', VALUE_UINT, "N", .least = 1, .most = 256, .help = "Shards that are read at a time. Default: one per processor."},
    [OPT_INTERVAL] = {"interval", .type = VALUE_SECONDS, .metavar = "SECONDS", .least = 100, .help = "Between two looks, 0.1 or more. Default: 5."},
    [OPT_CHANGES] = {"changes", .type = VALUE_UINT, .metavar = "N", .least = 1, .most = UINT64_MAX, .help = "End after so many changes."},
    [OPT_SCRIPT] = {"script", .type = VALUE_FILE, .metavar = "FILE", .help = "The script, in YAML; - is standard input."},
    [OPT_OUTPUT] = {"output", .type = VALUE_FILE, .metavar = "FILE", .help = "Write results to this file instead of standard output."},
    [OPT_RUN_ID] = {"run-id", .type = VALUE_TEXT, .metavar = "RUN_ID", .help = "The newest manifest of this run, among the newest 100."},
    [OPT_FORCE] = {"force", .type = VALUE_FLAG, .help = "Do not look whether the manifest and its shards are there."},
    [OPT_YES] = {"yes", 'y', VALUE_FLAG, .help = "Do not ask."},
    [OPT_DRY_RUN] = {"dry-run", 'n', VALUE_FLAG, .help = "Only show what would be deleted."},
    [OPT_OLD_RUNS] = {"include-old-runs", .type = VALUE_FLAG, .help = "Also give up runs that no manifest names: of writers that failed. All that was published stays."},
    [OPT_OLDER_THAN] = {"older-than", .type = VALUE_DURATION, .metavar = "AGE", .help = "Also give up runs that were published longer ago, such as 7d or 24h."},
    [OPT_KEEP_LAST] = {"keep-last", .type = VALUE_UINT, .metavar = "N", .least = 1, .most = UINT32_MAX, .help = "Also give up runs beyond the N newest."},
    [OPT_MAX_RETRIES] = {"max-retries", .type = VALUE_UINT, .metavar = "N", .most = 1000, .help = "Retries of each request to the store."},
    [OPT_KEY] = {"key", .type = VALUE_TEXT, .metavar = "COLUMN", .help = "Required: the column, or the member, that is the key."},
    [OPT_VALUE] = {"value", .type = VALUE_TEXT, .metavar = "COLUMN", .repeats = true,
                   .help = "The column, or the member, that is the value: a text as it is, other JSON as it stands there; --value-encoding tells when "
                           "it is base64 or hex. Several make a JSON object of them. Required without --values."},
    [OPT_VALUES] = {"values", .type = VALUE_CHOICE, .metavar = "FORM", .choices = "json",
                    .help = "The value is a JSON object (json): the whole row, or of the --value columns."},
    [OPT_KEY_FORMAT] = {"key-format", .type = VALUE_CHOICE, .metavar = "FORMAT", .choices = "text|hex|base64",
                        .help = "How keys stand in the file. Default: text, which for integers is a decimal number."},
    [OPT_CEL] = {"cel", .type = VALUE_TEXT, .metavar = "EXPRESSION", .help = "A CEL expression tells the shard of a row, instead of the hash of its key."},
    [OPT_CEL_COLUMN] = {"cel-column", .type = VALUE_PAIR, .metavar = "NAME=TYPE", .repeats = true,
                        .help = "A column of the expression: int, uint, double, bool, string or bytes. `key` is the key. May be given several times. Default: "
                                "key alone, of the type that --key-encoding has."},
    [OPT_CEL_MODE] = {"cel-mode", .type = VALUE_CHOICE, .metavar = "MODE", .choices = "direct|categorical|inferred",
                      .help = "What the expression gives: the shard's number (direct), one of the --cel-value (categorical, the default with them), or "
                              "a value for which a shard is made (inferred). Default: direct."},
    [OPT_CEL_VALUE] = {"cel-value", .type = VALUE_TEXT, .metavar = "VALUE", .repeats = true,
                       .help = "A value that a shard stands for; the first is shard 0. All are integers or all are texts. May be given several times."},
    [OPT_CUSTOM] = {"custom", .type = VALUE_PAIR, .metavar = "KEY=JSON", .repeats = true, .help = "A member of the manifest's custom part. May be given several times."},
    [OPT_INPUT_FORMAT] = {"input-format", .type = VALUE_CHOICE, .metavar = "FORMAT", .choices = "csv|jsonl|parquet", .help = "csv, jsonl or parquet. Default: what the file's name ends with."},
    [OPT_NUM_DBS] = {"num-dbs", .type = VALUE_UINT, .metavar = "N", .least = 1, .most = 1 << 20, .help = "The number of shards. Required without --cel."},
    [OPT_KEY_ENCODING] = {"key-encoding", .type = VALUE_CHOICE, .metavar = "ENCODING", .choices = "u64be|u32be|utf8|raw", .help = "How keys are stored. Default: u64be, whole numbers."},
    [OPT_BACKEND] = {"backend", .type = VALUE_CHOICE, .metavar = "BACKEND", .choices = "slatedb|sqlite", .help = "What shards are. Default: slatedb."},
    [OPT_COMPRESSION] = {"compression", .type = VALUE_CHOICE, .metavar = "CODEC", .choices = "none|snappy|zlib|lz4|zstd", .help = "Of blocks of SlateDB. Default: none."},
    [OPT_BLOCK_BYTES] = {"block-bytes", .type = VALUE_UINT, .metavar = "BYTES", .least = 1, .most = UINT32_MAX, .help = "When a block of SlateDB is full. Default: 4096."},
    [OPT_BITS_PER_KEY] = {"bits-per-key", .type = VALUE_UINT, .metavar = "N", .most = 64, .help = "Of the filters of SlateDB. Default: 10."},
    [OPT_MIN_FILTER_KEYS] = {"min-filter-keys", .type = VALUE_UINT, .metavar = "N", .most = UINT32_MAX, .help = "Tables of SlateDB with fewer rows get no filter. Default: 1."},
    [OPT_SST_BYTES] = {"sst-bytes", .type = VALUE_UINT, .metavar = "BYTES", .least = 1, .most = UINT64_MAX, .help = "When a table of SlateDB is full. Default: 64 MiB."},
    [OPT_PAGE_BYTES] = {"page-bytes", .type = VALUE_UINT, .metavar = "BYTES", .most = 65536, .help = "Of SQLite: a power of two from 4096 to 65536; 0: chosen from the sizes of the values. Default: 4096."},
    [OPT_NO_SIDECAR] = {"no-sidecar", .type = VALUE_FLAG, .help = "Of SQLite: write no file of interior pages beside the database."},
    [OPT_INT64_KEYS] = {"int64-keys", .type = VALUE_FLAG, .help = "Refuse keys from 2^63 on, which the existing Python package cannot look up."},
    [OPT_ON_DUPLICATE] = {"on-duplicate", .type = VALUE_CHOICE, .metavar = "WHAT", .choices = "last|error", .help = "Of rows with one key the last counts (default), or it is an error."},
    [OPT_ON_BAD_ROW] = {"on-bad-row", .type = VALUE_CHOICE, .metavar = "WHAT", .choices = "fail|skip", .help = "A row that cannot be published ends it (default), or is left out, and counted as bad_rows."},
    [OPT_REJECTS] = {"rejects", .type = VALUE_FILE, .metavar = "FILE", .help = "With --on-bad-row skip: write a line of JSON for each row that is left out, with its line and the reason."},
    [OPT_MEMORY_BYTES] = {"memory-bytes", .type = VALUE_UINT, .metavar = "BYTES", .least = 1, .most = UINT64_MAX, .help = "Of rows before they spill to disk. Default: 128 MiB."},
    [OPT_SPILL_FOLDER] = {"spill-folder", .type = VALUE_FILE, .metavar = "PATH", .help = "Where rows spill. Default: TMPDIR, else /tmp."},
    [OPT_MIN_ROWS_PERCENT] = {"min-rows-percent", .type = VALUE_UINT, .metavar = "N", .least = 1, .most = 1000000, .help = "Publish no fewer rows than this part of those that are published now."},
    [OPT_MAX_ROWS_PERCENT] = {"max-rows-percent", .type = VALUE_UINT, .metavar = "N", .least = 1, .most = 1000000, .help = "No more than this."},
    [OPT_SAMPLE_KEYS] = {"sample-keys", .type = VALUE_UINT, .metavar = "N", .least = 1, .most = UINT32_MAX, .help = "So many keys must read back before anything is published."},
    [OPT_MAX_EMPTY_SHARDS] = {"max-empty-shards", .type = VALUE_UINT, .metavar = "N", .most = UINT32_MAX - 1, .help = "Publish nothing when more shards are empty."},
    [OPT_RETRY_SECONDS] = {"retry-seconds", .type = VALUE_SECONDS, .metavar = "SECONDS", .help = "Before the first retry of a shard. Default: 1."},
    [OPT_RETRY_MULTIPLIER] = {"retry-multiplier", .type = VALUE_SECONDS, .metavar = "FACTOR", .help = "Each further retry waits so many times as long. Default: 2."},
    [OPT_KEEP_LOSERS] = {"keep-losers", .type = VALUE_FLAG, .help = "Do not delete attempts at shards that lost."},
    [OPT_RESUME] = {"resume", .type = VALUE_FLAG, .help = "With --run-id: keep the shards that earlier tries of the run finished, with this option, where their rows are the same."},
    [OPT_REUSE_UNCHANGED] = {"reuse-unchanged", .type = VALUE_FLAG, .help = "Of a shard whose rows are those of the snapshot that is published, store nothing and name the one that is there."},
    [OPT_RUN_REGISTRY] = {"run-registry", .type = VALUE_TEXT, .metavar = "FOLDER", .help = "Where the run's record lies, below the prefix. Default: runs."},
    [OPT_NO_RUN_RECORD] = {"no-run-record", .type = VALUE_FLAG, .help = "Store no record of the run, and so no lease."},
    [OPT_LEASE_SECONDS] = {"lease-seconds", .type = VALUE_UINT, .metavar = "SECONDS", .least = 1, .most = 604800, .help = "So long the run counts as alive after its last sign of life. Default: 600."},
    [OPT_HEARTBEAT_SECONDS] = {"heartbeat-seconds", .type = VALUE_UINT, .metavar = "SECONDS", .least = 1, .most = 604800, .help = "Between two signs of life. Default: 60."},
    [OPT_SHARD_PREFIX] = {"shard-prefix", .type = VALUE_TEXT, .metavar = "FOLDER", .help = "Where shards lie, below the prefix. Default: shards."},
    [OPT_DB_PATH_TEMPLATE] = {"db-path-template", .type = VALUE_TEXT, .metavar = "TEMPLATE", .help = "The name of a shard's folder. Default: db={db_id:05d}."},
    [OPT_EXPECT] = {"expect", .type = VALUE_TEXT, .metavar = "WHAT", .help = "What the pointer must name when it is moved: any (default), absent, or a manifest."},
    [OPT_WRITE] = {"write", .type = VALUE_FLAG, .help = "Also write, replace and delete an object of its own below the prefix."},
    [OPT_POLICY] = {"policy", .type = VALUE_CHOICE, .metavar = "PURPOSE", .choices = "read|publish|cleanup",
                    .help = "Instead print the least IAM policy for read, publish (rollback, too) or cleanup, and look at no storage."},
    [OPT_HTML] = {"html", .type = VALUE_FILE, .metavar = "FILE", .help = "Write a page that shows the same as pictures, shard by shard, too. It needs no network."},
    [OPT_S3_PREFIX] = {"s3-prefix", .type = VALUE_TEXT, .metavar = "URL",
                       .help = "With manifests in PostgreSQL: the prefix below which shards and run records lie. s3_prefix of reader.toml otherwise."},
};

#define OPTIONS(...) (const struct option_use[]){__VA_ARGS__ __VA_OPT__(,) {OPT_COUNT, NULL}}
#define METADATA "Reads the pointer and the manifest only, so it works when shards are gone."

const struct command_spec cli_commands[] = {
    {
        .name = "get",
        .summary = "Look up one key",
        .arguments = "KEY",
        .least = 1,
        .most = 1,
        .run = cmd_get,
        .options = OPTIONS({OPT_RAW}, {OPT_STRICT}, {OPT_EXIT_CODE}, {OPT_ROUTING_CONTEXT}),
        .description = "KEY is a number where the snapshot's keys are numbers, else text. One that begins with - stands behind --. Only "
                       "the shard that holds the key is opened.",
        .exits = "0: done, whether the key is there or not. 1: failed, or missing with --strict or --raw. 3: missing with --exit-code.",
        .examples = {
            {"shardy get 1",
             "{\"op\": \"get\", \"key\": \"1\", \"found\": true, \"value\": \"cnVuMjrl5rz+TwgMOuZbB3xFkF+9tW6l8ZjTUvl3wd4=\""
             "}\n"},
            {"shardy -o text get 1",
             "1=0x72756e323ae5e6bcfe4f080c3ae65b077c45905fbdb56ea5f198d352f977c1de\n"},
            {"shardy get --exit-code 3",
             "{\"op\": \"get\", \"key\": \"3\", \"found\": false, \"value\": \"null\"}\n"},
        },
    },
    {
        .name = "multiget",
        .summary = "Look up several keys",
        .arguments = "KEYS...|-",
        .least = 1,
        .most = SIZE_MAX,
        .run = cmd_multiget,
        .options = OPTIONS({OPT_EXIT_CODE}, {OPT_ROUTING_CONTEXT}),
        .description = "With - the keys are the lines of standard input, without blanks around them; blank lines are skipped.",
        .exits = "0: done, whether the keys are there or not. 1: failed. 3: one is missing, with --exit-code.",
        .examples = {
            {"shardy -o table multiget 1 2 3",
             "KEY  VALUE\n"
             "---  --------------------------------------------------------------------------------------------\n"
             "1    0x72756e323ae5e6bcfe4f080c3ae65b077c45905fbdb56ea5f198d352f977c1de\n"
             "2    0x72756e323ab21ef46b9109f745c166ef349b29e3dba0d9ca9fa98cf69e7af189d8275041e2dc01432508872cbc\n"
             "3    null\n"},
            {"printf '1\\n2\\n' | shardy multiget -",
             "{\"op\": \"multiget\", \"results\": [{\"key\": \"1\", \"found\": true, \"value\": \"cnVuMjrl5rz+TwgMOuZbB3xFkF"
             "+9tW6l8ZjTUvl3wd4=\"}, {\"key\": \"2\", \"found\": true, \"value\": \"cnVuMjqyHvRrkQn3RcFm7zSbKePboNnKn6mM9p56"
             "8YnYJ1BB4twBQyUIhyy8\"}]}\n"},
        },
    },
    {
        .name = "info",
        .summary = "Show what the snapshot is",
        .arguments = "",
        .run = cmd_info,
        .options = OPTIONS(),
        .description = METADATA " When the manifest that the pointer names is malformed, an older one is shown; a warning says so, and "
                       "rejected_ref names the other.",
        .exits = "0: done. 1: failed.",
        .examples = {{"shardy info",
             "{\"op\": \"info\", \"run_id\": \"run-002\", \"num_dbs\": 4, \"sharding\": \"hash\", \"created_at\": \"2026-11-"
             "23T22:10:41.949043+00:00\", \"manifest_ref\": \"s3://bucket/golden/history-three-runs/manifests/2026-11-23T22:"
             "10:41.957034Z_run_id=run-002/manifest\", \"row_count\": 120, \"key_encoding\": \"u64be\", \"hash_algorithm\": "
             "\"xxh3_64\"}\n"}, {"shardy -o text info",
             "run_id=run-002\n"
             "num_dbs=4\n"
             "sharding=ShardingStrategy.HASH\n"
             "created_at=2026-11-23T22:10:41.949043+00:00\n"
             "manifest_ref=s3://bucket/golden/history-three-runs/manifests/2026-11-23T22:10:41.957034Z_run_id=run-002/manife"
             "st\n"
             "row_count=120\n"
             "key_encoding=KeyEncoding.U64BE\n"
             "hash_algorithm=ShardHashAlgorithm.XXH3_64\n"}},
    },
    {
        .name = "shards",
        .summary = "Show the snapshot's shards",
        .arguments = "",
        .run = cmd_shards,
        .options = OPTIONS(),
        .description = METADATA,
        .exits = "0: done. 1: failed.",
        .examples = {{"shardy -o text shards",
             "db_id=0  rows=36  min=4  max=286\n"
             "db_id=1  rows=29  min=22  max=288\n"
             "db_id=2  rows=22  min=1  max=295\n"
             "db_id=3  rows=33  min=2  max=299\n"}},
    },
    {
        .name = "health",
        .summary = "Check that the snapshot can be served",
        .arguments = "",
        .run = cmd_health,
        .options = OPTIONS({OPT_STALENESS}, {OPT_REMOTE}),
        .description = "Opens every shard. manifest_age_seconds counts from when the snapshot was made. Degraded is one that is older than the "
                       "threshold, or that is served because the manifest that the pointer names is malformed. With --remote also one that the pointer does not "
                       "name any more, and current_ref tells what it names: of a session that looks at its snapshot for long, or of --ref and --offset.",
        .exits = "0: healthy. 1: degraded. 2: unhealthy, or failed.",
        .examples = {{"shardy health --staleness-threshold 3600", NULL}},
    },
    {
        .name = "route",
        .summary = "Tell the shard of a key",
        .arguments = "KEY",
        .least = 1,
        .most = 1,
        .run = cmd_route,
        .options = OPTIONS({OPT_ROUTING_CONTEXT}),
        .description = METADATA " The key need not be there.",
        .exits = "0: done. 1: failed.",
        .examples = {{"shardy route 1",
             "{\"op\": \"route\", \"key\": \"1\", \"db_id\": 2}\n"}, {"shardy -o text route 1",
             "1 -> shard 2\n"}},
    },
    {
        .name = "explain",
        .summary = "Tell how a look-up of a key goes",
        .arguments = "KEY",
        .least = 1,
        .most = 1,
        .run = cmd_explain,
        .options = OPTIONS({OPT_ROUTING_CONTEXT}),
        .description = "Its steps, each with requests, stored bytes that came, and microseconds: manifest (pointer and manifest), route, open (the shard), get, "
                       "and again, from memory. Of SlateDB also each object that may have the key, newest first: whether its filter rules the key out, and "
                       "the block that was read otherwise.",
        .exits = "0: done, whether the key is there or not. 1: failed.",
        .examples = {{"shardy -o table explain 1", NULL}},
    },
    {
        .name = "history",
        .summary = "List the published manifests, newest first",
        .arguments = "",
        .run = cmd_history,
        .options = OPTIONS({OPT_LIMIT, "At most so many. Default: 10."}),
        .description = "Reads names only, no manifest. The one that the pointer names is marked.",
        .exits = "0: done. 1: failed.",
        .examples = {{"shardy -o text history",
             "[0] 2026-11-23T22:10:41.957034+00:00  run_id=run-002  (current)\n"
             "[1] 2026-11-23T22:10:41.374219+00:00  run_id=run-001\n"
             "[2] 2026-11-23T22:10:40.928694+00:00  run_id=run-000\n"}},
    },
    {
        .name = "scan",
        .summary = "Print rows in the order of their keys",
        .arguments = "",
        .run = cmd_scan,
        .options = OPTIONS({OPT_FROM}, {OPT_TO}, {OPT_PREFIX}, {OPT_REVERSE}, {OPT_LIMIT, "At most so many rows."}, {OPT_SHARD}),
        .description = "Of all shards. Rows are printed as they come, in memory that does not grow with their number.",
        .exits = "0: done. 1: failed.",
        .examples = {{"shardy -o csv scan --from 100 --to 110 --reverse",
             "key,value\n"
             "108,0x72756e323ad9a71c5a79f07b3dde9d9422f2ad7dc845800ea267f999f654310604c9b139aec656e7fef26974cdee09\n"
             "105,0x72756e323a39a935c2c74a1c13fa2d58931a912bc9594f19f961a8684c6dc9fb46f8575f54fd8c98fe7a570d3507431b\n"
             "103,0x72756e323a09f0eb49a24d6b4b950a9fd3fc91da25e141443f75f4ad0b3b599f88d71bc9ce5e\n"
             "102,0x72756e323a6eb89e6b9a29e829965a76f30350c3ee8765c7b7b5b80e3680d953a258be9f1ebb6aeeadc5738928ef760c\n"}, {"shardy -o csv scan --limit 3",
             "key,value\n"
             "1,0x72756e323ae5e6bcfe4f080c3ae65b077c45905fbdb56ea5f198d352f977c1de\n"
             "2,0x72756e323ab21ef46b9109f745c166ef349b29e3dba0d9ca9fa98cf69e7af189d8275041e2dc01432508872cbc\n"
             "4,0x72756e323a847e7641b75098cfc8b9a8\n"}},
    },
    {
        .name = "verify",
        .summary = "Check that the snapshot is whole",
        .arguments = "",
        .run = cmd_verify,
        .options = OPTIONS({OPT_DEEP}, {OPT_JOBS}),
        .description = "Opens every shard, and reads of its objects those parts that describe the rest: of SlateDB filters, indexes, "
                       "statistics and footers, which must agree with its manifest; of SQLite the size, and the sidecar. With --deep it "
                       "reads all: every checksum, of SQLite its own check of the database; whether keys ascend, lie where indexes say, are in the filters, and belong "
                       "to their shard; the number of rows, the lowest and the highest key, and the content hash where the manifest tells one. (manifest_rows is shown where the manifest tells more rows than there are: "
                       "some writers count rows that were overwritten.) Each shard is told good or bad, with how much was found and the first thing that is wrong: "
                       "its object, and the offset in it.",
        .exits = "0: all is good. 1: something is not, or it failed.",
        .examples = {{"shardy -o text verify --deep",
             "db_id=0  status=good  objects=1  bytes=2.3 KiB  rows=36\n"
             "db_id=1  status=good  objects=1  bytes=1.8 KiB  rows=29\n"
             "db_id=2  status=good  objects=1  bytes=1.5 KiB  rows=22\n"
             "db_id=3  status=good  objects=1  bytes=2.1 KiB  rows=33\n"}},
    },
    {
        .name = "diff",
        .summary = "Show what two snapshots differ in",
        .arguments = "FROM TO",
        .least = 2,
        .most = 2,
        .run = cmd_diff,
        .options = OPTIONS({OPT_KEYS}, {OPT_EXIT_CODE, "Exit with 3 when they differ."}),
        .description = "Each is a number of the history, a run id, or a manifest's name as history shows it. Without --keys the manifests are "
                       "compared. With it, rows: those that were added, removed or changed, as they are found, in memory that does not grow "
                       "with their number. Shards of the same rows are not read.",
        .exits = "0: done. 1: failed. 3: they differ, with --exit-code.",
        .examples = {{"shardy -o text diff run-001 run-002",
             "run_id: run-001 -> run-002\n"
             "manifest_ref: s3://bucket/golden/history-three-runs/manifests/2026-11-23T22:10:41.374219Z_run_id=run-001/manif"
             "est -> s3://bucket/golden/history-three-runs/manifests/2026-11-23T22:10:41.957034Z_run_id=run-002/manifest\n"
             "created_at: 2026-11-23T22:10:41.365305+00:00 -> 2026-11-23T22:10:41.949043+00:00\n"
             "num_dbs: 3 -> 4\n"
             "shards[0].row_count: 49 -> 36\n"
             "shards[0].db_url: s3://bucket/golden/history-three-runs/shards/run_id=run-001/db=00000/attempt=00 -> s3://buck"
             "et/golden/history-three-runs/shards/run_id=run-002/db=00000/attempt=00\n"
             "shards[1].row_count: 44 -> 29\n"
             "shards[1].db_url: s3://bucket/golden/history-three-runs/shards/run_id=run-001/db=00001/attempt=00 -> s3://buck"
             "et/golden/history-three-runs/shards/run_id=run-002/db=00001/attempt=00\n"
             "shards[2].row_count: 27 -> 22\n"
             "shards[2].db_url: s3://bucket/golden/history-three-runs/shards/run_id=run-001/db=00002/attempt=00 -> s3://buck"
             "et/golden/history-three-runs/shards/run_id=run-002/db=00002/attempt=00\n"
             "shards[3].row_count: null -> 33\n"
             "shards[3].db_url: null -> s3://bucket/golden/history-three-runs/shards/run_id=run-002/db=00003/attempt=00\n"}},
    },
    {
        .name = "du",
        .summary = "Show what each run takes in storage",
        .arguments = "",
        .run = cmd_du,
        .options = OPTIONS({OPT_S3_PREFIX}),
        .description = "Lists all objects below the prefix: shards, manifests and records of each run, and what belongs to none. A run without "
                       "manifest is being written, or is left over (see cleanup), unless it is in use: the snapshot that is served names shards of it.",
        .exits = "0: done. 1: failed.",
        .examples = {{"shardy -o table du",
             "RUN_ID   OBJECTS     BYTES  IN_SHARDS  STATE\n"
             "-------  -------  --------  ---------  ---------\n"
             "run-002       46  32.4 KiB   20.0 KiB  current\n"
             "run-001       35  30.3 KiB   17.9 KiB  published\n"
             "run-000       24  28.6 KiB   16.2 KiB  published\n"
             "null           1     247 B        0 B  other\n"}},
    },
    {
        .name = "stats",
        .summary = "Show how rows and their sizes are spread",
        .arguments = "",
        .run = cmd_stats,
        .options = OPTIONS({OPT_HTML}),
        .description = "Reads every row. largest_over_mean is the number of rows of the fullest shard over the mean. The histograms have sizes in "
                       "bytes by powers of two.",
        .exits = "0: done. 1: failed.",
        .examples = {{"shardy -o text stats",
             "rows=120  shards=4  rows_per_shard=22..36  largest_over_mean=1.20\n"
             "key_bytes=960 B  value_bytes=4.1 KiB\n"
             "keys:\n"
             "  up to         15 bytes         120 rows  ########################################\n"
             "values:\n"
             "  up to         15 bytes           7 rows  ##\n"
             "  up to         31 bytes          38 rows  #############\n"
             "  up to         63 bytes          75 rows  #########################\n"}},
    },
    {
        .name = "watch",
        .summary = "Follow the pointer, and print each change",
        .arguments = "",
        .run = cmd_watch,
        .options = OPTIONS({OPT_INTERVAL}, {OPT_CHANGES}),
        .description = "Prints what the pointer names, then every other snapshot that it is found to name. Failures are said, and do not end it. Each "
                       "line stands for itself, so that they may go to a log.",
        .exits = "0: so many changes were seen. 1: it could not begin.",
        .examples = {{"shardy -o text watch --interval 10", NULL}},
    },
    {
        .name = "doctor",
        .summary = "Find out why reading or publishing fails",
        .arguments = "",
        .run = cmd_doctor,
        .options = OPTIONS({OPT_WRITE}, {OPT_POLICY}, {OPT_S3_PREFIX}),
        .description = "Checks, one after the other: settings; of S3 credentials (which, and where they were found; none is shown), endpoint, "
                       "tls and clock; where manifests are in PostgreSQL, database; pointer, list, snapshot, shard (the smallest one is opened), ranges (whether a part of an object can be "
                       "read), and latency (of 20 reads of the pointer; both with --write only where that is in PostgreSQL). With --write also write, create-only (If-None-Match), replace-only "
                       "(If-Match) and delete, by an object _doctor-... below the prefix, which is removed whatever comes; without it nothing is "
                       "written. Each is ok, warning, failed, or skipped where an earlier failure leaves nothing to look at. Requests are not repeated, "
                       "and --timeout is for all of them together.\n"
                       "A policy is a document for IAM, of the prefix that the URL names; what stands behind the last / is not taken for "
                       "a pointer unless it is _CURRENT. Buckets with keys of KMS ask for kms:Decrypt, and to publish for kms:GenerateDataKey, besides. "
                       "Its condition lets names be listed without a prefix, too: otherwise S3 would say of what is missing that it is forbidden.",
        .exits = "0: nothing failed. 1: something did. 2: the command line is wrong.",
        .examples = {{"shardy -o text doctor --write", NULL},
                     {"shardy --current-url s3://bucket/prefix/_CURRENT doctor --policy read -o jsonl",
                      "{\"Version\": \"2012-10-17\", \"Statement\": [{\"Sid\": \"Objects\", \"Effect\": \"Allow\", \"Action\": [\"s3:GetObject\"], "
                      "\"Resource\": \"arn:aws:s3:::bucket/prefix/*\"}, {\"Sid\": \"Names\", \"Effect\": \"Allow\", \"Action\": [\"s3:ListBucket\"], "
                      "\"Resource\": \"arn:aws:s3:::bucket\", \"Condition\": {\"StringLikeIfExists\": {\"s3:prefix\": \"prefix/*\"}}}]}\n"}},
    },
    {
        .name = "exec",
        .summary = "Run the commands of a script",
        .arguments = "",
        .run = cmd_exec,
        .options = OPTIONS({OPT_SCRIPT}, {OPT_OUTPUT}),
        .description = "The script is a mapping in YAML: commands is a list of mappings with op (get, multiget, refresh, info, shards, route, "
                       "health or history) and what it needs: key, keys, routing_context, staleness_threshold, limit. on_error is stop "
                       "(default) or continue. Results, failures included, are written as they come, one a line in JSON.",
        .exits = "0: done. 1: a command failed, or the script is wrong.",
        .examples = {
            {"echo '{commands: [{op: get, key: 1}, {op: route, key: 1}]}' | shardy exec --script -",
             "{\"op\": \"get\", \"key\": \"1\", \"found\": true, \"value\": \"cnVuMjrl5rz+TwgMOuZbB3xFkF+9tW6l8ZjTUvl3wd4=\""
             "}\n"
             "{\"op\": \"route\", \"key\": \"1\", \"db_id\": 2}\n"},
        },
    },
    {
        .name = "publish",
        .summary = "Publish the rows of a file as a new snapshot",
        .arguments = "FILE.csv|FILE.jsonl|FILE.parquet|-",
        .least = 1,
        .most = 1,
        .run = cmd_publish,
        .options = OPTIONS({OPT_KEY}, {OPT_KEY_FORMAT}, {OPT_VALUE}, {OPT_VALUES}, {OPT_INPUT_FORMAT}, {OPT_NUM_DBS}, {OPT_KEY_ENCODING}, {OPT_INT64_KEYS},
                           {OPT_CEL}, {OPT_CEL_COLUMN}, {OPT_CEL_MODE}, {OPT_CEL_VALUE},
                           {OPT_RUN_ID, "Of the new snapshot. Default: a random one."}, {OPT_CUSTOM}, {OPT_BACKEND},
                           {OPT_COMPRESSION}, {OPT_BLOCK_BYTES}, {OPT_BITS_PER_KEY}, {OPT_MIN_FILTER_KEYS}, {OPT_SST_BYTES},
                           {OPT_PAGE_BYTES}, {OPT_NO_SIDECAR}, {OPT_ON_DUPLICATE}, {OPT_ON_BAD_ROW}, {OPT_REJECTS}, {OPT_EXPECT}, {OPT_MIN_ROWS_PERCENT},
                           {OPT_MAX_ROWS_PERCENT}, {OPT_MAX_EMPTY_SHARDS}, {OPT_SAMPLE_KEYS}, {OPT_MEMORY_BYTES}, {OPT_SPILL_FOLDER},
                           {OPT_JOBS, "Threads that build shards, beside this one. Default: one per processor."},
                           {OPT_MAX_RETRIES, "Retries of a shard whose writing failed. Default: 2."}, {OPT_RETRY_SECONDS}, {OPT_RETRY_MULTIPLIER},
                           {OPT_RESUME}, {OPT_REUSE_UNCHANGED}, {OPT_KEEP_LOSERS}, {OPT_RUN_REGISTRY}, {OPT_NO_RUN_RECORD}, {OPT_LEASE_SECONDS}, {OPT_HEARTBEAT_SECONDS},
                           {OPT_SHARD_PREFIX}, {OPT_DB_PATH_TEMPLATE}, {OPT_S3_PREFIX}),
        .description = "CSV has a line with the names of its columns; in it quotes, commas and line ends stand in quotes. JSON lines have an object each. "
                       "Parquet files are read by a Python that has shardyfusion and pyarrow: SHARDY_PYTHON, or python3. "
                       "With - rows come from standard input. A row that cannot be published ends it, unless such rows are left out, and is named by its line, or in Parquet by its number; what makes it "
                       "unclear where the next row begins, as a stray quote of CSV does, always ends it. "
                       "Readers see the new snapshot once all of it is stored, and nothing of it when "
                       "this fails or is stopped. The prefix is that of --current-url, which need not have a pointer yet. With manifests in PostgreSQL "
                       "manifest and pointer are stored there in one transaction, in tables that are made when they are missing (unless ensure_table "
                       "is false); --expect takes a run id.",
        .exits = "0: published. 1: failed, or stopped; the pointer names what it named. 2: the command line is wrong.",
        .examples = {{"printf 'id,name\\n7,Ada\\n' | shardy publish - --input-format csv --key id --value name --num-dbs 8", NULL},
                     {"printf 'id,name,country\\n7,Ada,gb\\n8,Eva,de\\n' | shardy publish - --input-format csv --key id --value name --cel country "
                      "--cel-column country=string --cel-mode inferred", NULL},
                     {"shardy scan | shardy publish - --input-format jsonl --key key --value value --value-encoding base64 --num-dbs 8 "
                      "--current-url ./copy", NULL}},
    },
    {
        .name = "rollback",
        .summary = "Make the pointer name another manifest",
        .arguments = "",
        .run = cmd_rollback,
        .options = OPTIONS({OPT_RUN_ID}, {OPT_FORCE}, {OPT_YES}),
        .description = "The manifest is told by --ref, --offset or --run-id; it may be older or newer than the present one. The manifest and "
                       "every shard must be there, and nobody may move the pointer meanwhile, unless forced; a store that gives no ETags, or knows no conditions, "
                       "cannot tell whether somebody does, and needs --force. On a terminal it shows what "
                       "changes, and asks.",
        .exits = "0: the pointer names it. 1: failed, or not agreed to. 2: not exactly one manifest was told.",
        .examples = {{"shardy rollback --offset 1",
             "Rolled back _CURRENT to: s3://bucket/golden/history-three-runs/manifests/2026-11-23T22:10:41.374219Z_run_id=ru"
             "n-001/manifest\n"}, {"shardy rollback --run-id run-000 --yes",
             "Rolled back _CURRENT to: s3://bucket/golden/history-three-runs/manifests/2026-11-23T22:10:40.928694Z_run_id=ru"
             "n-000/manifest\n"}},
    },
    {
        .name = "cleanup",
        .summary = "Delete what writers left behind",
        .arguments = "",
        .run = cmd_cleanup,
        .options = OPTIONS({OPT_DRY_RUN}, {OPT_OLD_RUNS}, {OPT_OLDER_THAN}, {OPT_KEEP_LAST}, {OPT_MAX_RETRIES}, {OPT_YES}, {OPT_S3_PREFIX}),
        .description = "Always: attempts at shards that no kept manifest names, and unfinished uploads. With one of --include-old-runs, "
                       "--older-than and --keep-last also runs that no manifest names, and with the latter two those that were published and "
                       "that neither of the given ones keeps: their manifests, shards and records. What the pointer names stays, and so does a run whose writer lives, or whose "
                       "last sign of life is less than an hour old. It can be cut short anywhere and run again. On a terminal it shows "
                       "what would go, and asks. In JSON, others has manifests, run records and uploads. With manifests in PostgreSQL all of this goes by what that "
                       "names; nothing is deleted when that is a snapshot of another prefix.",
        .exits = "0: done. 1: failed, or not agreed to; what was deleted is shown.",
        .examples = {{"shardy cleanup --dry-run",
             "{\"op\": \"cleanup\", \"dry_run\": true, \"run_id\": \"run-002\", \"stale_attempts\": [], \"total_objects_dele"
             "ted\": 0, \"total_prefixes_removed\": 0, \"others\": []}\n"}, {"shardy -o text cleanup --keep-last 1 --yes",
             "Deleted below s3://bucket/golden/history-three-runs:\n"
             "  manifest            run_id=run-000  objects=1  s3://bucket/golden/history-three-runs/manifests/2026-11-23T22"
             ":10:40.928694Z_run_id=run-000/\n"
             "  old run             run_id=run-000  objects=22  s3://bucket/golden/history-three-runs/shards/run_id=run-000/"
             "\n"
             "  run record          run_id=run-000  objects=1  s3://bucket/golden/history-three-runs/runs/2026-11-23T22:10:4"
             "0.643356Z_run_id=run-000_e2825b6975014b90a8769c7866bd6097/\n"
             "  manifest            run_id=run-001  objects=1  s3://bucket/golden/history-three-runs/manifests/2026-11-23T22"
             ":10:41.374219Z_run_id=run-001/\n"
             "  old run             run_id=run-001  objects=33  s3://bucket/golden/history-three-runs/shards/run_id=run-001/"
             "\n"
             "  run record          run_id=run-001  objects=1  s3://bucket/golden/history-three-runs/runs/2026-11-23T22:10:4"
             "0.955922Z_run_id=run-001_475b1ed2703a4152b7abf503988b2fd3/\n"
             "  in all: prefixes=6  objects=59\n"}},
    },
};
const size_t cli_command_count = sizeof(cli_commands) / sizeof(cli_commands[0]);

const struct command_spec cli_session_commands[] = {
    {
        .name = "refresh",
        .summary = "Look at what the pointer names now",
        .arguments = "",
        .run = cmd_refresh,
        .options = OPTIONS(),
        .description = "Also after use.",
        .exits = "",
    },
    {
        .name = "use",
        .summary = "Look at another manifest",
        .arguments = "",
        .run = cmd_use,
        .options = OPTIONS({OPT_LATEST}),
        .description = "One of --offset N, --ref REF and --latest. The pointer stays where it is.",
        .exits = "",
    },
    {
        .name = "help",
        .summary = "Show the commands, or tell more of one",
        .arguments = "[COMMAND]",
        .most = 1,
        .run = cmd_help,
        .options = OPTIONS(),
        .description = "",
        .exits = "",
    },
    {
        .name = "quit",
        .summary = "End; exit, and the end of input, too",
        .arguments = "",
        .run = cmd_quit,
        .options = OPTIONS(),
        .description = "",
        .exits = "",
    },
    {
        .name = "exit",
        .summary = "End",
        .arguments = "",
        .run = cmd_quit,
        .options = OPTIONS(),
        .description = "",
        .exits = "",
    },
};
const size_t cli_session_command_count = sizeof(cli_session_commands) / sizeof(cli_session_commands[0]);

static const struct command_spec *find(const struct command_spec *commands, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

const struct command_spec *cli_command_find(const char *name)
{
    return find(cli_commands, cli_command_count, name);
}

const struct command_spec *cli_session_command_find(const char *name)
{
    const struct command_spec *c = find(cli_session_commands, cli_session_command_count, name);

    if (!c)
        c = find(cli_commands, cli_command_count, name);
    return c && c->run == cmd_exec ? NULL : c; /* a session within the session */
}

const struct section cli_sections[] = {
    {"SETTINGS", "Options win over environment variables, those over files. Options stand before or behind the command; what stands behind "
                 "-- is no option."},
    {"FILES", "reader.toml is looked for in the current folder, then in ~/.config/shardy. [reader] has current_url, s3_prefix, local_root "
              "(where copies of SQLite shards lie), credentials_profile, sqlite_mode, slate_env_file (a file of AWS_* variables that shards are reached "
              "with); [output] has format, value_encoding and null_repr (how "
              "a missing value is written). [manifest_store] has backend (s3 or postgres), dsn (a postgresql:// URL, or host=... dbname=...), table_name, "
              "pointer_table_name and ensure_table (true: publish makes tables that are missing). Other keys are ignored, with a warning. A password is better kept where libpq looks for it: ~/.pgpass, or PGPASSWORD.\n"
              "credentials.toml is looked for in the same places. Each table is a profile, of which credentials_profile, else \"default\" is "
              "used: endpoint_url, region, access_key_id, secret_access_key, session_token, addressing_style, signature_version, "
              "verify_ssl, connect_timeout, read_timeout, max_attempts. Without the file credentials come from the environment, as "
              "other tools for AWS find them."},
    {"ENVIRONMENT", "SHARDY_CURRENT, SHARDY_CONFIG, SHARDY_CREDENTIALS: as the options of these names. SHARDY_MANIFEST_DSN: as dsn of [manifest_store]. NO_COLOR: no colours. COLUMNS: the "
                    "width of the terminal. AWS_* and S3_*: where credentials, region and endpoint come from."},
    {"INTERACTIVE MODE", "Without a command, commands are read from standard input, on a terminal with line editing, completion by the tab key, and a "
                         "history that is kept in ~/.local/state/shardy/history. Ctrl-C gives a line up, or ends the command that runs (three times: the program). Words are cut as a shell does it. Beside the commands above but "
                         "for exec there are refresh (look at what the pointer names now), use (look at another manifest: --offset N, --ref REF or "
                         "--latest), help and quit; health SECONDS and history N are short for their options. Results are in JSON unless "
                         "told otherwise."},
    {"OUTPUT", "In JSON each result is one object whose members come in a fixed order; numbers are exact. text and table are for people: "
               "they round sizes and times, and escape what could change a terminal, as csv and tsv do on one. csv has a line with names first; tsv "
               "escapes tab, line ends and backslash by a backslash.\n"
               "Failures go to standard error, in JSON as {\"op\", \"error\", \"key\"}."},
    {"EXIT STATUS", "0: done. 1: failed, also when not all of the output could be written. 2: the command line is wrong; for health: "
                    "unhealthy. 3: not found, where --exit-code asks for it. Nothing is said when whoever reads the output goes away."},
};
const size_t cli_section_count = sizeof(cli_sections) / sizeof(cli_sections[0]);
