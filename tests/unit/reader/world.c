#include "world.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CASE_FOLDER SF_FIXTURES_DIR "/snapshots/history-three-runs/bucket/golden/history-three-runs"

void world_put_object(struct world *w, const char *key, sf_bytes body)
{
    assert_int_equal(sf_bucket_put(w->bucket, key, body, NULL, SF_TIMEOUT_NONE, NULL, NULL), SF_OK);
}

void world_delete_object(struct world *w, const char *key)
{
    assert_int_equal(sf_bucket_delete(w->bucket, key, SF_TIMEOUT_NONE, NULL), SF_OK);
}

static void put_file(struct world *w, const char *path, const char *key)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    uint8_t *bytes;

    assert_non_null(f);
    assert_int_equal(fstat(fileno(f), &st), 0);
    bytes = malloc((size_t)st.st_size + 1);
    assert_int_equal(fread(bytes, 1, (size_t)st.st_size, f), st.st_size);
    fclose(f);
    world_put_object(w, key, sf_bytes_of(bytes, (size_t)st.st_size));
    free(bytes);
}

void world_put_folder(struct world *w, const char *path, const char *key)
{
    DIR *d = opendir(path);
    struct dirent *entry;

    assert_non_null(d);
    while ((entry = readdir(d))) {
        char below[1024], name[1024];
        struct stat st;

        if (entry->d_name[0] == '.')
            continue;
        snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
        snprintf(name, sizeof(name), "%s%s%s", key, key[0] ? "/" : "", entry->d_name);
        assert_int_equal(stat(below, &st), 0);
        if (S_ISDIR(st.st_mode))
            world_put_folder(w, below, name);
        else
            put_file(w, below, name);
    }
    closedir(d);
}

/* The full name of the manifest of run `n`. */
void world_manifest_name(unsigned n, char out[static 256])
{
    char end[32];
    DIR *d = opendir(CASE_FOLDER "/manifests");
    struct dirent *entry;

    snprintf(end, sizeof(end), "_run_id=run-%03u", n);
    out[0] = '\0';
    assert_non_null(d);
    while ((entry = readdir(d)))
        if (strstr(entry->d_name, end))
            snprintf(out, 256, "manifests/%.200s/manifest", entry->d_name);
    closedir(d);
    assert_true(out[0] != '\0');
}

void world_point_at(struct world *w, const char *ref)
{
    char text[1024];

    snprintf(text, sizeof(text),
             "{\"format_version\":1,\"manifest_content_type\":\"application/x-sqlite3\",\"manifest_ref\":"
             "\"s3://bucket/golden/history-three-runs/%s\",\"run_id\":\"x\",\"updated_at\":\"2026-01-01T00:00:00Z\"}",
             ref);
    world_put_object(w, "copy/_CURRENT", sf_bytes_str(text));
}

void world_point_at_run(struct world *w, unsigned n)
{
    char name[256];

    world_manifest_name(n, name);
    world_point_at(w, name);
}

void world_open(struct world *w, const sf_runtime_options *o)
{
    assert_int_equal(sf_runtime_new(&w->rt, o, NULL), SF_OK);
    assert_int_equal(sf_bucket_open(&w->bucket, w->rt, PREFIX, NULL, NULL), SF_OK);
    world_put_folder(w, CASE_FOLDER, "copy");
}

void world_close(struct world *w)
{
    sf_bucket_close(w->bucket);
    sf_runtime_release(w->rt);
}

int world_set_up(void **state)
{
    struct world *w = *state = calloc(1, sizeof(*w));

    if (!w)
        return 1;
    world_open(w, NULL);
    return 0;
}

int world_tear_down(void **state)
{
    world_close(*state);
    free(*state);
    return 0;
}

sf_reader *world_open_reader(struct world *w)
{
    sf_reader *r = NULL;
    sf_error e = SF_ERROR_INIT;

    if (sf_reader_open(&r, w->rt, PREFIX, NULL, &e) != SF_OK)
        fail_msg("open: %s", e.message);
    return r;
}

char *world_run_id(sf_reader *r)
{
    static char text[64];
    sf_snapshot *s = sf_reader_borrow(r, NULL);
    sf_snapshot_info info;

    assert_non_null(s);
    sf_snapshot_get_info(s, &info);
    snprintf(text, sizeof(text), "%s", info.run_id);
    sf_snapshot_give_back(s);
    return text;
}
