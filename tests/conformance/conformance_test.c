/* Every fixture through the public API.
 *   SF_FIXTURES          the folder of the fixtures
 *   SF_SNAPSHOT_URL      where the snapshots are, "%s" standing for the case; default: the fixture's own folder
 *   SF_DATABASE_URL      the same for SlateDB databases; default: the fixture's own folder
 * Prints one line a failed check and "N passed, N failed" at the end. */
#include <cjson/cJSON.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <shardyfusion/reader.h>

static unsigned passed, failed;
static sf_runtime *rt;
static const char *fixtures;

#define CHECK(ok, ...) check((ok), __VA_ARGS__)

__attribute__((format(printf, 2, 3))) static bool check(bool ok, const char *fmt, ...)
{
    va_list args;

    if (ok) {
        passed++;
        return true;
    }
    failed++;
    va_start(args, fmt);
    fputs("FAILED ", stdout);
    vprintf(fmt, args);
    putchar('\n');
    va_end(args);
    return false;
}

/* Terminated; *n may be NULL. */
static char *read_bytes(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    size_t have;
    char *text;

    if (!f)
        return NULL;
    if (fstat(fileno(f), &st) != 0 || !(text = malloc((size_t)st.st_size + 1))) {
        fclose(f);
        return NULL;
    }
    have = fread(text, 1, (size_t)st.st_size, f);
    text[have] = '\0';
    if (n)
        *n = have;
    fclose(f);
    return text;
}

static char *read_file(const char *path)
{
    return read_bytes(path, NULL);
}

static bool copy_file(sf_bucket *to, const char *path, const char *key, sf_error *err)
{
    size_t n;
    char *bytes = read_bytes(path, &n);
    bool ok = bytes && sf_bucket_put(to, key, (sf_bytes){(const uint8_t *)bytes, n}, NULL, 20000, NULL, err) == SF_OK;

    free(bytes);
    return ok;
}

/* Everything below a local folder; `key` is empty or ends in a slash. */
static bool copy_folder(sf_bucket *to, const char *folder, const char *key, sf_error *err)
{
    DIR *d = opendir(folder);
    struct dirent *entry;
    bool ok = d != NULL;

    while (ok && (entry = readdir(d))) {
        char path[1400], name[1400];
        struct stat st;

        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        snprintf(name, sizeof(name), "%s%s", key, entry->d_name);
        if (stat(path, &st) != 0)
            ok = false;
        else if (S_ISDIR(st.st_mode))
            ok = copy_folder(to, path, strcat(name, "/"), err);
        else
            ok = copy_file(to, path, name, err);
    }
    if (d)
        closedir(d);
    return ok;
}

static size_t unhex(const char *hex, uint8_t **out)
{
    size_t n = strlen(hex) / 2;

    *out = malloc(n + 1);
    for (size_t i = 0; i < n; i++) {
        unsigned v;

        sscanf(hex + 2 * i, "%2x", &v);
        (*out)[i] = (uint8_t)v;
    }
    return n;
}

static void case_url(char out[1024], const char *variable, const char *name, const char *local)
{
    const char *pattern = getenv(variable);

    if (!pattern) {
        snprintf(out, 1024, "%s", local);
        return;
    }
    const char *mark = strstr(pattern, "%s");
    char dashed[128];

    snprintf(dashed, sizeof(dashed), "%s", name);
    for (char *p = dashed; *p && strcmp(variable, "SF_DATABASE_URL") == 0; p++)
        if (*p == '_')
            *p = '-'; /* bucket names have no underscore */
    snprintf(out, 1024, "%.*s%s%s", (int)(mark - pattern), pattern, dashed, mark + 2);
}

/* ------------------------------------------------------------------ snapshots ------------------------------------ */

/* cJSON ends a text at its first NUL, so NULs travel as this code point, which no fixture uses. */
#define NUL_ESCAPE "\\u0000"
#define NUL_STAND_IN "\\uf8ff"
#define NUL_STAND_IN_UTF8 "\xef\xa3\xbf"
#define MAX_COLUMNS 2 /* of a context */

static cJSON *parse_with_nuls(char *text)
{
    for (char *p = text; p && (p = strstr(p, NUL_ESCAPE)) != NULL;)
        memcpy(p, NUL_STAND_IN, strlen(NUL_STAND_IN));
    return text ? cJSON_Parse(text) : NULL;
}

static sf_bytes text_of(const char *text, uint8_t **owned)
{
    char *copy = strdup(text), *to = copy;

    for (const char *p = copy; *p;) {
        if (strncmp(p, NUL_STAND_IN_UTF8, 3) == 0) {
            *to++ = '\0';
            p += 3;
        } else {
            *to++ = *p++;
        }
    }
    *owned = (uint8_t *)copy;
    return (sf_bytes){*owned, (size_t)(to - copy)};
}

/* A typed key of expected.json; false for one that C cannot express (integers above 63 bits). */
static bool key_of(const cJSON *typed, sf_key *key, uint8_t **owned)
{
    const cJSON *v = typed->child;

    *owned = NULL;
    if (strcmp(v->string, "int") == 0) {
        char *end;
        long long i = strtoll(v->valuestring, &end, 10);
        char back[32];

        snprintf(back, sizeof(back), "%lld", i);
        *key = sf_key_int(i);
        return strcmp(back, v->valuestring) == 0;
    }
    if (strcmp(v->string, "str") == 0) {
        sf_bytes text = text_of(v->valuestring, owned);

        *key = sf_key_str((const char *)text.p, text.n);
        return true;
    }
    if (strcmp(v->string, "bytes") == 0) {
        size_t n = unhex(v->valuestring, owned);

        *key = sf_key_bytes(*owned, n);
        return true;
    }
    return false;
}

/* A key as expected.json has it, with the context that it routes by in snapshots of CEL. */
struct question {
    sf_key key;
    uint8_t *owned;
    sf_routing_context context;
    sf_routing_value values[MAX_COLUMNS];
    uint8_t *owned_values[MAX_COLUMNS];
    const cJSON *row;
};

static void question_cleanup(struct question *q)
{
    free(q->owned);
    for (size_t i = 0; i < MAX_COLUMNS; i++)
        free(q->owned_values[i]);
    *q = (struct question){0};
}

static bool routing_value_of(const cJSON *column, sf_routing_value *out, uint8_t **owned)
{
    const cJSON *v = column->child;

    *out = (sf_routing_value){.column = column->string};
    if (strcmp(v->string, "int") == 0) {
        out->type = SF_ROUTING_INT;
        out->i = strtoll(v->valuestring, NULL, 10);
    } else if (strcmp(v->string, "str") == 0) {
        out->type = SF_ROUTING_STR;
        out->b = text_of(v->valuestring, owned);
    } else if (strcmp(v->string, "bytes") == 0) {
        out->type = SF_ROUTING_BYTES;
        out->b.n = unhex(v->valuestring, owned);
        out->b.p = *owned;
    } else {
        return false;
    }
    return true;
}

/* False for keys that C cannot express. The question must stay where it is. */
static bool question_of(const char *name, const cJSON *row, struct question *q)
{
    const cJSON *context = cJSON_GetObjectItem(row, "context"), *column;

    *q = (struct question){.row = row};
    if (!key_of(cJSON_GetObjectItem(row, "key"), &q->key, &q->owned))
        return false;
    if (!context)
        return true;
    cJSON_ArrayForEach(column, context)
    {
        size_t i = q->context.count;

        if (!CHECK(i < MAX_COLUMNS && routing_value_of(column, &q->values[i], &q->owned_values[i]),
                   "%s: column %s is not known to this test", name, column->string))
            return false;
        q->context.count++;
    }
    q->context.values = q->values;
    q->key.context = &q->context;
    return true;
}

static bool value_is(const sf_value *v, const cJSON *expected)
{
    uint8_t *want;
    size_t n;
    bool same;

    if (cJSON_IsNull(expected))
        return !v->found;
    n = unhex(expected->valuestring, &want);
    same = v->found && v->bytes.n == n && (n == 0 || memcmp(v->bytes.p, want, n) == 0);
    free(want);
    return same;
}

/* Where the key belongs; the peer could not open every run, so that it is not known of all of them. */
static void check_route(const char *name, const sf_snapshot *snap, const struct question *q)
{
    const cJSON *db_id = cJSON_GetObjectItem(q->row, "db_id");
    sf_error err = SF_ERROR_INIT;
    uint32_t routed = 0;
    sf_status rc = sf_snapshot_route(snap, &q->key, &routed, &err);

    if (cJSON_GetObjectItem(q->row, "route_error"))
        CHECK(rc == SF_NO_ROUTE, "%s: a value without a shard: %s (%s)", name, sf_status_name(rc), err.message);
    else if (db_id)
        CHECK(rc == SF_OK && (int)routed == db_id->valueint, "%s: a key routes to %u, expected %d: %s", name, routed,
              db_id->valueint, err.message);
}

static void check_get(const char *name, sf_reader *reader, const struct question *q)
{
    const cJSON *value = cJSON_GetObjectItem(q->row, "value");
    sf_error err = SF_ERROR_INIT;
    sf_value v = {0};
    sf_status rc = sf_reader_get(reader, &q->key, 10000, &v, &err);

    if (value)
        CHECK(rc == SF_OK && value_is(&v, value), "%s: get: %s", name, err.message);
    else /* one that fails in the peer has to fail here */
        CHECK(rc != SF_OK, "%s: a look-up must fail", name);
    sf_value_release(&v);
}

static void check_multi_get(const char *name, sf_reader *reader, const struct question *questions, size_t n)
{
    sf_key *keys = calloc(n + 1, sizeof(*keys));
    sf_value *values = calloc(n + 1, sizeof(*values));
    sf_error err = SF_ERROR_INIT;

    for (size_t i = 0; i < n; i++)
        keys[i] = questions[i].key;
    if (CHECK(sf_reader_multi_get(reader, keys, n, 30000, values, &err) == SF_OK, "%s: multi_get: %s", name, err.message))
        for (size_t i = 0; i < n; i++) {
            CHECK(value_is(&values[i], cJSON_GetObjectItem(questions[i].row, "value")), "%s: multi_get %zu", name, i);
            sf_value_release(&values[i]);
        }
    free(keys);
    free(values);
}

static void check_lookups(const char *name, sf_reader *reader, const cJSON *lookups)
{
    struct question *questions = calloc((size_t)cJSON_GetArraySize(lookups) + 1, sizeof(*questions));
    sf_snapshot *snap = sf_reader_borrow(reader, NULL);
    size_t used = 0;
    const cJSON *row;

    cJSON_ArrayForEach(row, lookups)
    {
        struct question *q = &questions[used];
        bool is_known = question_of(name, row, q);

        if (is_known && cJSON_GetObjectItem(row, "value"))
            check_route(name, snap, q);
        if (is_known)
            check_get(name, reader, q);
        if (is_known && cJSON_GetObjectItem(row, "value"))
            used++;
        else
            question_cleanup(q);
    }
    check_multi_get(name, reader, questions, used);
    sf_snapshot_give_back(snap);
    for (size_t i = 0; i < used; i++)
        question_cleanup(&questions[i]);
    free(questions);
}

static sf_status expected_status(const char *error)
{
    static const struct {
        const char *name;
        sf_status status;
    } map[] = {
        {"ReaderStateError", SF_NO_SNAPSHOT},
        {"ManifestParseError", SF_BAD_MANIFEST},
        {"FileNotFoundError", SF_NOT_FOUND},
    };

    for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
        if (strcmp(map[i].name, error) == 0)
            return map[i].status;
    return SF_OK;
}

static void check_open_error(const char *name, const cJSON *expected, sf_status rc, const char *message)
{
    const cJSON *contract = cJSON_GetObjectItem(expected, "contract_error");
    const cJSON *open = cJSON_GetObjectItem(expected, "open");
    const char *class = contract ? contract->valuestring
                                 : cJSON_GetObjectItem(cJSON_GetObjectItem(open, "error"), "class")->valuestring;
    sf_status want = expected_status(class);
    bool ok = rc == want || (want == SF_NO_SNAPSHOT && rc == SF_NO_CURRENT);

    CHECK(ok, "%s: open ended with %s (%s), expected %s", name, sf_status_name(rc), message, class);
}

/* The part of a reference that does not depend on where the snapshot lies. */
static const char *ref_tail(const char *ref)
{
    const char *tail = strstr(ref, "/manifests/");

    return tail ? tail : ref;
}

static void check_larger_budget(const char *name, const char *url, const cJSON *open)
{
    sf_reader_options opts = SF_READER_OPTIONS_INIT;
    sf_snapshot_info info;
    sf_snapshot *snap;
    sf_reader *reader;
    sf_error err = SF_ERROR_INIT;

    opts.max_fallbacks = 4;
    if (!CHECK(sf_reader_open(&reader, rt, url, &opts, &err) == SF_OK, "%s: four fallbacks: %s", name, err.message))
        return;
    snap = sf_reader_borrow(reader, NULL);
    sf_snapshot_get_info(snap, &info);
    CHECK(strcmp(ref_tail(info.manifest_ref), ref_tail(cJSON_GetObjectItem(open, "manifest_ref")->valuestring)) == 0,
          "%s: four fallbacks reach %s", name, info.manifest_ref);
    sf_snapshot_give_back(snap);
    sf_reader_free(reader);
}

static void check_opened(const char *name, const cJSON *expected, sf_reader *reader)
{
    const cJSON *info = cJSON_GetObjectItem(expected, "snapshot_info");
    sf_snapshot *snap = sf_reader_borrow(reader, NULL);
    sf_snapshot_info have;

    sf_snapshot_get_info(snap, &have);
    CHECK(strcmp(have.run_id, cJSON_GetObjectItem(info, "run_id")->valuestring) == 0, "%s: run id %s", name, have.run_id);
    CHECK(strcmp(ref_tail(have.manifest_ref), ref_tail(cJSON_GetObjectItem(info, "manifest_ref")->valuestring)) == 0,
          "%s: manifest ref %s", name, have.manifest_ref);
    CHECK(have.num_dbs == (uint32_t)cJSON_GetObjectItem(info, "num_dbs")->valueint, "%s: num_dbs", name);
    CHECK((double)have.row_count == cJSON_GetObjectItem(info, "row_count")->valuedouble, "%s: row_count", name);
    sf_snapshot_give_back(snap);
    check_lookups(name, reader, cJSON_GetObjectItem(expected, "lookups"));
}

/* Without a folder shards are read by ranges. With one: twice, the second time from the copies of the first. */
static void check_sqlite_copies(const char *name, const char *url, const cJSON *expected)
{
    char folder[] = "/tmp/sf-sqlite-XXXXXX", command[64];

    if (!CHECK(mkdtemp(folder) != NULL, "%s: no folder for copies", name))
        return;
    for (unsigned i = 0; i < 2; i++) {
        sf_reader_options opts = SF_READER_OPTIONS_INIT;
        sf_reader *reader = NULL;
        sf_error err = SF_ERROR_INIT;

        opts.sqlite_folder = folder;
        opts.sqlite_mode = SF_SQLITE_DOWNLOAD;
        if (CHECK(sf_reader_open(&reader, rt, url, &opts, &err) == SF_OK, "%s: %s", name, err.message))
            check_opened(name, expected, reader);
        sf_reader_free(reader);
    }
    snprintf(command, sizeof(command), "rm -r '%s'", folder);
    CHECK(system(command) == 0, "%s: the folder of copies is still there", name);
}

static void check_snapshot(const char *name)
{
    char path[1024], local[1024], url[1024];
    sf_reader_options opts = SF_READER_OPTIONS_INIT;
    sf_reader *reader = NULL;
    sf_error err = SF_ERROR_INIT;
    cJSON *expected;
    char *text;
    sf_status rc;
    const char *outcome, *backend;

    snprintf(path, sizeof(path), "%s/snapshots/%s/expected.json", fixtures, name);
    snprintf(local, sizeof(local), "%s/snapshots/%s/bucket/golden/%s", fixtures, name, name);
    text = read_file(path);
    expected = parse_with_nuls(text);
    free(text);
    if (!CHECK(expected != NULL, "%s: cannot read %s", name, path))
        return;
    case_url(url, "SF_SNAPSHOT_URL", name, local);
    backend = cJSON_GetObjectItem(expected, "backend")->valuestring;
    outcome = cJSON_GetObjectItem(cJSON_GetObjectItem(expected, "open"), "outcome")->valuestring;
    rc = sf_reader_open(&reader, rt, url, &opts, &err);
    if (cJSON_GetObjectItem(expected, "contract") && strcmp(name, "stray-impossible-date") == 0) {
        /* the peer fails here; the look-ups are those of the run that has to be served */
        if (CHECK(rc == SF_OK, "%s: %s", name, err.message))
            check_lookups(name, reader, cJSON_GetObjectItem(expected, "lookups"));
    } else if (strcmp(outcome, "ok") != 0) {
        check_open_error(name, expected, rc, err.message);
        if (cJSON_HasObjectItem(expected, "open_with_max_fallback_attempts_4"))
            check_larger_budget(name, url, cJSON_GetObjectItem(expected, "open_with_max_fallback_attempts_4"));
    } else if (CHECK(rc == SF_OK, "%s: %s: %s", name, sf_status_name(rc), err.message)) {
        check_opened(name, expected, reader);
        if (strcmp(backend, "sqlite") == 0)
            check_sqlite_copies(name, url, expected);
    }
    sf_reader_free(reader);
    cJSON_Delete(expected);
}

/* ------------------------------------------------------------------ databases ------------------------------------ */

struct expected_rows {
    struct {
        uint8_t *k, *v;
        size_t kn, vn;
        bool hashed; /* only the length of the value is known here */
    } *rows;
    size_t count;
};

static void load_rows(const char *path, struct expected_rows *out)
{
    char *text = read_file(path), *save = NULL;

    *out = (struct expected_rows){0};
    for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
        cJSON *row = cJSON_Parse(line);
        const cJSON *v = cJSON_GetObjectItem(row, "v");

        out->rows = realloc(out->rows, (out->count + 1) * sizeof(*out->rows));
        out->rows[out->count].kn = unhex(cJSON_GetObjectItem(row, "k")->valuestring, &out->rows[out->count].k);
        out->rows[out->count].hashed = !v;
        out->rows[out->count].v = NULL;
        if (v)
            out->rows[out->count].vn = unhex(v->valuestring, &out->rows[out->count].v);
        else
            out->rows[out->count].vn = (size_t)cJSON_GetObjectItem(row, "vn")->valuedouble;
        out->count++;
        cJSON_Delete(row);
    }
    free(text);
}

static void free_rows(struct expected_rows *e)
{
    for (size_t i = 0; i < e->count; i++) {
        free(e->rows[i].k);
        free(e->rows[i].v);
    }
    free(e->rows);
}

static bool row_is(const struct expected_rows *e, size_t i, sf_bytes value)
{
    return value.n == e->rows[i].vn && (e->rows[i].hashed || value.n == 0 || memcmp(value.p, e->rows[i].v, value.n) == 0);
}

static bool get_one(sf_snapshot *s, const void *key, size_t n, sf_value *out, sf_error *err)
{
    sf_bytes k = {key, n};
    sf_call *c;
    sf_status rc = sf_snapshot_get_start(&c, s, 0, &k, 1, 20000, NULL, NULL, err);

    if (rc != SF_OK)
        return false;
    rc = sf_call_wait(c, err);
    *out = sf_call_values(c, NULL)[0];
    sf_call_values(c, NULL)[0] = (sf_value){0};
    sf_call_release(c);
    return rc == SF_OK;
}

/* Returns whether the scan ended without an error; every row it showed must be the expected one. */
static bool scan_all(const char *name, sf_snapshot *s, const struct expected_rows *e, bool reverse, sf_error *err)
{
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_scan *scan;
    const sf_row *rows;
    size_t count = 0, seen = 0;
    sf_status rc;

    o.db_id = 0;
    o.reverse = reverse;
    if (sf_scan_open(&scan, s, &o, err) != SF_OK)
        return false;
    while ((rc = sf_scan_next(scan, 100, 20000, &rows, &count, err)) == SF_OK && count > 0)
        for (size_t i = 0; i < count; i++, seen++) {
            size_t at = reverse ? e->count - 1 - seen : seen;

            if (!CHECK(seen < e->count && rows[i].key.n == e->rows[at].kn &&
                           memcmp(rows[i].key.p, e->rows[at].k, rows[i].key.n) == 0 && row_is(e, at, rows[i].value),
                       "%s: row %zu of the %s scan", name, seen, reverse ? "backward" : "forward")) {
                sf_scan_close(scan);
                return false;
            }
        }
    if (rc == SF_OK)
        CHECK(seen == e->count, "%s: scan gave %zu rows of %zu", name, seen, e->count);
    sf_scan_close(scan);
    return rc == SF_OK;
}

/* The kinds of error that README.md of the fixtures names. */
static bool kind_is(const cJSON *kind, sf_status status)
{
    static const struct {
        const char *name;
        sf_status status;
    } map[] = {
        {"corruption", SF_CORRUPT},
        {"not found", SF_NOT_FOUND},
        {"unsupported", SF_UNSUPPORTED},
        {"merge operator", SF_MERGE_OPERATOR},
    };

    for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
        if (cJSON_IsString(kind) && strcmp(map[i].name, kind->valuestring) == 0)
            return map[i].status == status;
    return false;
}

/* A failed read is right when the case has an error of this kind. */
static bool may_fail_with(const cJSON *meta, sf_status status)
{
    const cJSON *kind;

    if (kind_is(cJSON_GetObjectItem(meta, "expected_error"), status) ||
        kind_is(cJSON_GetObjectItem(meta, "tolerated_error"), status))
        return true;
    cJSON_ArrayForEach(kind, cJSON_GetObjectItem(meta, "accepted_errors"))
    {
        if (kind_is(kind, status))
            return true;
    }
    return false;
}

/* At least one read has to report the case's error, unless its rows may be returned without. */
static bool must_fail(const cJSON *meta)
{
    return cJSON_IsString(cJSON_GetObjectItem(meta, "expected_error")) && !cJSON_HasObjectItem(meta, "tolerated_rows");
}

/* `meta`: of the case; its errors are those of the newest state. */
static void check_state(const char *name, const char *url, const char *checkpoint, const char *rows_file,
                        const cJSON *meta)
{
    struct expected_rows e;
    sf_snapshot *s = NULL;
    sf_error err = SF_ERROR_INIT;
    const cJSON *absent;
    char path[1024];
    bool complained = false;

    snprintf(path, sizeof(path), "%s/slatedb/%s/%s", fixtures, name, rows_file);
    load_rows(path, &e);
    if (sf_snapshot_open_shard(&s, rt, url, NULL, checkpoint, 20000, &err) != SF_OK) {
        complained = true;
        CHECK(!checkpoint && may_fail_with(meta, err.code) && err.message[0], "%s: open: %s: %s", name,
              sf_status_name(err.code), err.message);
    } else {
        for (size_t i = 0; i < e.count; i++) {
            sf_value v = {0};

            if (get_one(s, e.rows[i].k, e.rows[i].kn, &v, &err)) {
                CHECK(v.found && row_is(&e, i, v.bytes), "%s: get of row %zu", name, i);
            } else {
                complained = true;
                CHECK(!checkpoint && may_fail_with(meta, err.code), "%s: get of row %zu: %s: %s", name, i,
                      sf_status_name(err.code), err.message);
            }
            sf_value_release(&v);
        }
        cJSON_ArrayForEach(absent, cJSON_GetObjectItem(meta, "absent_keys"))
        {
            sf_value v = {0};
            uint8_t *k;
            size_t n = unhex(absent->valuestring, &k);

            if (!checkpoint && get_one(s, k, n, &v, &err))
                CHECK(!v.found, "%s: absent key %s was found", name, absent->valuestring);
            else if (!checkpoint)
                CHECK(may_fail_with(meta, err.code), "%s: get of absent key %s: %s: %s", name, absent->valuestring,
                      sf_status_name(err.code), err.message);
            sf_value_release(&v);
            free(k);
        }
        for (int reverse = 0; reverse < 2; reverse++)
            if (!scan_all(name, s, &e, reverse, &err)) {
                complained = true;
                CHECK(!checkpoint && may_fail_with(meta, err.code), "%s: scan: %s: %s", name, sf_status_name(err.code),
                      err.message);
            }
    }
    if (!checkpoint && must_fail(meta))
        CHECK(complained, "%s: nobody reported the damage", name);
    sf_snapshot_give_back(s);
    free_rows(&e);
}

static void check_database(const char *name)
{
    char path[1024], local[1024], url[1024];
    cJSON *meta;
    char *text;
    const cJSON *checkpoint;
    sf_bucket *copy = NULL;
    sf_error err = SF_ERROR_INIT;

    snprintf(path, sizeof(path), "%s/slatedb/%s/meta.json", fixtures, name);
    snprintf(local, sizeof(local), "%s/slatedb/%s/db", fixtures, name);
    text = read_file(path);
    meta = text ? cJSON_Parse(text) : NULL;
    free(text);
    if (!CHECK(meta != NULL, "%s: cannot read %s", name, path))
        return;
    case_url(url, "SF_DATABASE_URL", name, local);
    if (strstr(name, "clone") && !getenv("SF_DATABASE_URL")) {
        /* a clone names its parent from the root of the store, so it needs a store whose root is the case's folder */
        snprintf(local, sizeof(local), "%s/slatedb/%s", fixtures, name);
        snprintf(url, sizeof(url), "mem://%s/db", name);
        if (!CHECK(sf_bucket_open(&copy, rt, url, NULL, &err) == SF_OK && copy_folder(copy, local, "", &err),
                   "%s: copy: %s", name, err.message)) {
            sf_bucket_close(copy);
            cJSON_Delete(meta);
            return;
        }
    }
    check_state(name, url, NULL, "expected.jsonl", meta);
    checkpoint = cJSON_GetObjectItem(meta, "checkpoint_id");
    if (checkpoint)
        check_state(name, url, checkpoint->valuestring, "expected_checkpoint.jsonl", meta);
    sf_bucket_close(copy);
    cJSON_Delete(meta);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_case(const struct dirent *d)
{
    return d->d_name[0] != '.' && !strstr(d->d_name, "README");
}

static void for_each_case(const char *folder, void (*run)(const char *))
{
    struct dirent **names;
    char path[1024];
    int n;

    snprintf(path, sizeof(path), "%s/%s", fixtures, folder);
    n = scandir(path, &names, is_case, by_name);
    CHECK(n > 0, "no cases below %s", path);
    for (int i = 0; i < n; i++) {
        run(names[i]->d_name);
        free(names[i]);
    }
    if (n >= 0)
        free(names);
}

int main(void)
{
    sf_error err = SF_ERROR_INIT;

    fixtures = getenv("SF_FIXTURES");
    if (!fixtures || sf_runtime_new(&rt, NULL, &err) != SF_OK) {
        fprintf(stderr, "SF_FIXTURES is not set, or no runtime: %s\n", err.message);
        return 2;
    }
    for_each_case("snapshots", check_snapshot);
    for_each_case("slatedb", check_database);
    sf_runtime_release(rt);
    printf("%u passed, %u failed\n", passed, failed);
    return failed > 0;
}
