/* Open a snapshot, look up keys, scan its first rows.
 *     read_snapshot PREFIX KEY...           keys are integers or texts, as the snapshot's encoding wants them */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <shardyfusion/reader.h>

static sf_key parse_key(const char *text, sf_key_encoding encoding)
{
    if (encoding == SF_KEY_U64BE || encoding == SF_KEY_U32BE)
        return sf_key_int(strtoll(text, NULL, 10));
    return encoding == SF_KEY_UTF8 ? sf_key_str(text, strlen(text)) : sf_key_bytes(text, strlen(text));
}

static sf_status look_up(sf_reader *reader, sf_key_encoding encoding, int n, char **keys, sf_error *err)
{
    for (int i = 0; i < n; i++) {
        sf_key key = parse_key(keys[i], encoding);
        sf_value value = {0};
        sf_status rc = sf_reader_get(reader, &key, 5000, &value, err);

        if (rc != SF_OK)
            return rc;
        printf("%s = ", keys[i]);
        if (value.found)
            printf("%zu bytes\n", value.bytes.n);
        else
            puts("(absent)");
        sf_value_release(&value);
    }
    return SF_OK;
}

static sf_status first_rows(sf_snapshot *snap, sf_error *err)
{
    sf_scan_options options = SF_SCAN_OPTIONS_INIT;
    sf_scan *scan;
    const sf_row *rows;
    size_t count;
    sf_status rc;

    options.limit = 3;
    rc = sf_scan_open(&scan, snap, &options, err);
    if (rc != SF_OK)
        return rc;
    while ((rc = sf_scan_next(scan, 100, 5000, &rows, &count, err)) == SF_OK && count > 0)
        for (size_t i = 0; i < count; i++)
            printf("row: key of %zu bytes, value of %zu bytes\n", rows[i].key.n, rows[i].value.n);
    sf_scan_close(scan);
    return rc;
}

int main(int argc, char **argv)
{
    sf_error err = SF_ERROR_INIT;
    sf_runtime *rt = NULL;
    sf_reader *reader = NULL;
    sf_snapshot *snap = NULL;
    sf_snapshot_info info;
    sf_status rc;

    if (argc < 2) {
        fprintf(stderr, "usage: %s PREFIX KEY...\n", argv[0]);
        return 2;
    }
    rc = sf_runtime_new(&rt, NULL, &err);
    if (rc == SF_OK)
        rc = sf_reader_open(&reader, rt, argv[1], NULL, &err);
    if (rc == SF_OK) {
        snap = sf_reader_borrow(reader, &err);
        rc = snap ? SF_OK : err.code;
    }
    if (rc == SF_OK) {
        char run_id[256]; /* of storage: whatever a terminal would obey is escaped */

        sf_snapshot_get_info(snap, &info);
        sf_text_escape(run_id, sizeof(run_id), (sf_bytes){(const uint8_t *)info.run_id, strlen(info.run_id)});
        printf("run %s: %u shards, %llu rows\n", run_id, info.num_dbs, (unsigned long long)info.row_count);
        rc = look_up(reader, info.key_encoding, argc - 2, argv + 2, &err);
    }
    if (rc == SF_OK)
        rc = first_rows(snap, &err);
    if (rc != SF_OK)
        fprintf(stderr, "%s: %s\n", sf_status_name(rc), err.message);
    sf_snapshot_give_back(snap);
    sf_reader_free(reader);
    sf_runtime_release(rt);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fputs("standard output could not be written\n", stderr);
        return 1;
    }
    return rc == SF_OK ? 0 : 1;
}
