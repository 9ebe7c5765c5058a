/* Rows out of Arrow streams: every type that is taken gives the very shards that rows added one by one give. */
#include "world.h"

#include "writer/arrow_format.h"

#define ROWS 300
#define BATCH 70

/* ------------------------------------------------------------------ a producer ----------------------------------- */

/* Columns of rows [begin, end) in one of Arrow's layouts, sliced out of a longer array: `offset` rows stand in front. */
struct producer {
    const char *key_format, *value_format;
    const char *key_name, *value_name;
    int64_t offset;               /* of the children */
    int64_t parent_offset;        /* of the batch itself */
    int64_t null_key, null_value; /* this row is null; -1: none */
    int64_t next;
    int fail_at; /* this call of get_next fails; 0: none */
    int calls;
    unsigned released, schemas, arrays; /* alive */
    bool dictionary;
};

static sf_key key_of_row(const struct producer *p, int64_t row, char text[32])
{
    int n;

    if (strchr("cCsSiIlL", p->key_format[0]))
        return sf_key_int(p->key_format[0] == 'c' ? row % 100 : p->key_format[0] == 'C' ? row % 200 : row * 3);
    n = snprintf(text, 32, p->key_format[0] == 'w' ? "%08d" : row % 2 ? "k%d" : "a key of some length %d", (int)row);
    return p->key_format[0] == 'u' || p->key_format[0] == 'U' || strcmp(p->key_format, "vu") == 0
               ? sf_key_str(text, (size_t)n)
               : sf_key_bytes(text, (size_t)n);
}

static sf_bytes value_of_row(const struct producer *p, int64_t row, char text[64])
{
    int n = snprintf(text, 64,
                     p->value_format[0] == 'w' ? "%010d"
                     : row % 3                 ? "v%d"
                                               : "a value that is longer %d",
                     (int)row);

    if (row % 7 == 0 && p->value_format[0] != 'w')
        n = 0;
    return sf_bytes_of(text, (size_t)n);
}

static void release_schema(struct ArrowSchema *s)
{
    struct producer *p = s->private_data;

    for (int64_t i = 0; i < s->n_children; i++)
        free(s->children[i]);
    free(s->children);
    p->schemas--;
    s->release = NULL;
}

static void release_child(struct ArrowSchema *s)
{
    s->release = NULL;
}

static int get_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out)
{
    static struct ArrowSchema nothing = {.format = "+l"};
    struct producer *p = stream->private_data;
    const char *const formats[] = {"l", p->value_format, p->key_format}, *const names[] = {"other", p->value_name,
                                                                                           p->key_name};

    *out =
        (struct ArrowSchema){.format = "+s", .name = "", .n_children = 3, .release = release_schema, .private_data = p};
    out->children = calloc(3, sizeof(*out->children));
    for (int i = 0; i < 3; i++) {
        out->children[i] = calloc(1, sizeof(**out->children));
        *out->children[i] = (struct ArrowSchema){.format = formats[i],
                                                 .name = names[i],
                                                 .release = release_child,
                                                 .dictionary = p->dictionary && i == 2 ? &nothing : NULL};
    }
    p->schemas++;
    return 0;
}

static void release_array(struct ArrowArray *a)
{
    struct producer *p = a->private_data;

    for (int64_t i = 0; i < a->n_children; i++) {
        for (int64_t b = 0; b < a->children[i]->n_buffers; b++)
            free((void *)(uintptr_t)a->children[i]->buffers[b]);
        free((void *)(uintptr_t)a->children[i]->buffers);
        free(a->children[i]);
    }
    free(a->children);
    p->arrays--;
    a->release = NULL;
}

static void put_fixed(uint8_t *out, const char *format, int64_t i, sf_bytes text, int64_t number)
{
    size_t width = strchr("cC", format[0]) ? 1 : strchr("sS", format[0]) ? 2 : strchr("iI", format[0]) ? 4 : 8;

    if (format[0] == 'w')
        memcpy(out + i * (int64_t)text.n, text.p, text.n);
    else
        memcpy(out + i * (int64_t)width, &number, width); /* little-endian machines only, as the test says below */
}

static struct ArrowArray *make_column(struct producer *p, const char *format, int64_t begin, int64_t length, bool is_key)
{
    int64_t off = p->offset, total = off + p->parent_offset + length;
    struct ArrowArray *a = calloc(1, sizeof(*a));
    bool variable = strchr("uUzZ", format[0]) || format[0] == 'v', view = format[0] == 'v';
    bool wide = format[0] == 'U' || format[0] == 'Z';
    int64_t null_row = is_key ? p->null_key : p->null_value;
    uint8_t *valid = calloc(1, (size_t)total / 8 + 1), *fixed = calloc(16, (size_t)total + 1),
            *data = calloc(1, 64 * (size_t)total + 64);
    int64_t used = 0;

    memset(data, '#', 64);
    memset(valid, 0xff, (size_t)total / 8 + 1);
    for (int64_t i = 0; i < total; i++) {
        int64_t row = begin + i - off - p->parent_offset;
        char text[64];
        sf_key key = {.type = SF_KEY_INT};
        sf_bytes b;

        if (row < begin) {
            b = sf_bytes_str("?");
        } else if (is_key) {
            key = key_of_row(p, row, text);
            b = key.type == SF_KEY_INT ? sf_bytes_of(NULL, 0) : key.b;
        } else {
            b = value_of_row(p, row, text);
        }
        if (row == null_row && row >= begin)
            valid[i / 8] &= (uint8_t)~(1u << (i % 8));
        if (!variable) {
            if (row >= begin)
                put_fixed(fixed, format, i, b, key.i);
            continue;
        }
        memcpy(data + used, b.p ? b.p : data, b.n);
        if (view) {
            int32_t n = (int32_t)b.n, where[2] = {1, (int32_t)used};

            memcpy(fixed + 16 * i, &n, 4);
            memcpy(fixed + 16 * i + 4, b.p ? b.p : data, b.n <= 12 ? b.n : 4);
            if (n > 12)
                memcpy(fixed + 16 * i + 8, where, 8);
        }
        used += (int64_t)b.n;
        if (wide)
            memcpy(fixed + 8 * (i + 1), &used, 8);
        else if (!view)
            memcpy(fixed + 4 * (i + 1), &(int32_t){(int32_t)used}, 4);
    }
    *a = (struct ArrowArray){.length = length + p->parent_offset,
                             .offset = off,
                             .null_count = null_row >= 0 ? -1 : 0,
                             .n_buffers = view       ? 4
                                          : variable ? 3
                                                     : 2,
                             .release = NULL,
                             .private_data = p};
    a->buffers = calloc(4, sizeof(*a->buffers));
    a->buffers[0] = valid;
    a->buffers[1] = fixed;
    a->buffers[view ? 3 : 2] = data; /* data buffer number 1 of a view */
    if (!variable) {
        free(data);
        a->buffers[2] = NULL;
    }
    return a;
}

static int get_next(struct ArrowArrayStream *stream, struct ArrowArray *out)
{
    struct producer *p = stream->private_data;
    int64_t length = ROWS - p->next < BATCH ? ROWS - p->next : BATCH;

    if (++p->calls == p->fail_at)
        return EIO;
    *out = (struct ArrowArray){.release = NULL};
    if (length == 0)
        return 0;
    *out = (struct ArrowArray){
        .length = length, .offset = p->parent_offset, .n_children = 3, .release = release_array, .private_data = p};
    out->children = calloc(3, sizeof(*out->children));
    out->children[0] = make_column(p, "l", p->next, length, true);
    out->children[1] = make_column(p, p->value_format, p->next, length, false);
    out->children[2] = make_column(p, p->key_format, p->next, length, true);
    p->next += length;
    p->arrays++;
    return 0;
}

static const char *get_last_error(struct ArrowArrayStream *stream)
{
    (void)stream;
    return "the disk is gone";
}

static void release_stream(struct ArrowArrayStream *stream)
{
    ((struct producer *)stream->private_data)->released++;
    stream->release = NULL;
}

static struct ArrowArrayStream stream_of(struct producer *p)
{
    return (struct ArrowArrayStream){get_schema, get_next, get_last_error, release_stream, p};
}

static struct producer producer_of(const char *key_format, const char *value_format)
{
    return (struct producer){.key_format = key_format,
                             .value_format = value_format,
                             .key_name = "k",
                             .value_name = "v",
                             .null_key = -1,
                             .null_value = -1};
}

/* ------------------------------------------------------------------ tests ---------------------------------------- */

static sf_writer_options options_for(const struct producer *p)
{
    sf_writer_options o = world_options();

    o.key_encoding = strchr("cCsSiIlL", p->key_format[0]) ? SF_KEY_U64BE : SF_KEY_RAW;
    return o;
}

static void expect_same_shards_by(struct world *w, const char *name, struct producer *p, const sf_cel_sharding *cel)
{
    struct ArrowArrayStream stream = stream_of(p);
    sf_writer_options o = options_for(p);
    sf_writer *by_arrow, *by_row;
    const sf_write_report *a, *b;

    o.cel = cel;
    o.num_dbs = cel ? 0 : o.num_dbs;
    o.run_id = "by-arrow";
    by_arrow = world_writer(w, &o);
    if (sf_writer_add_arrow(by_arrow, &stream, "k", "v", &w->err) != SF_OK || sf_writer_build(by_arrow, &w->err) != SF_OK)
        fail_msg("%s: %s", name, w->err.message);
    assert_int_equal(p->released, 1);
    assert_int_equal(p->schemas + p->arrays, 0);
    o.run_id = "by-row";
    by_row = world_writer(w, &o);
    for (int64_t i = ROWS; i-- > 0;) { /* in another order */
        char k[32], v[64];
        sf_key key = key_of_row(p, i, k);

        if (key.type == SF_KEY_INT && strchr("cC", p->key_format[0]) && i + (p->key_format[0] == 'c' ? 100 : 200) < ROWS)
            continue; /* comes again: the last one counts */
        assert_int_equal(sf_writer_add(by_row, &key, value_of_row(p, i, v), &w->err), SF_OK);
    }
    assert_int_equal(sf_writer_build(by_row, &w->err), SF_OK);
    a = sf_writer_report(by_arrow);
    b = sf_writer_report(by_row);
    assert_int_equal(a->rows, ROWS);
    assert_int_equal(a->attempt_count, b->attempt_count);
    for (size_t i = 0; i < a->attempt_count; i++)
        if (strcmp(a->attempts[i].content_hash, b->attempts[i].content_hash) != 0)
            fail_msg("%s: shard %lld differs", name, (long long)a->attempts[i].db_id);
    sf_writer_abort(by_arrow, NULL, NULL);
    sf_writer_abort(by_row, NULL, NULL);
    sf_writer_free(by_arrow);
    sf_writer_free(by_row);
    assert_int_equal(world_object_count(w, "shards"), 0);
}

/* By the hash of keys, and by an expression over them. */
static void expect_same_shards(struct world *w, const char *name, struct producer *p)
{
    bool integers = options_for(p).key_encoding == SF_KEY_U64BE;
    char first = p->key_format[0] == 'v' ? p->key_format[1] : p->key_format[0];
    const sf_routing_column key = {"key", integers ? "int" : first == 'u' || first == 'U' ? "string" : "bytes"};
    sf_cel_sharding cel = SF_CEL_SHARDING_INIT;
    struct producer again = *p;

    expect_same_shards_by(w, name, p, NULL);
    cel.expr = integers ? "key % 5" : "size(key)";
    cel.columns = &key;
    cel.column_count = 1;
    cel.mode = SF_ROUTING_INFERRED;
    expect_same_shards_by(w, name, &again, &cel);
}

static void test_types(void **state)
{
    static const char *const keys[] = {"c", "C", "s", "S", "i", "I", "l", "L", "u", "U", "vu", "z", "Z", "vz", "w:8"};
    static const char *const values[] = {"z", "Z", "vz", "u", "U", "vu", "w:10"};
    struct world *w = *state;
    char name[64];

    if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
        skip();
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        struct producer p = producer_of(keys[i], "z");

        p.offset = (int64_t)i % 3 * 5;
        p.parent_offset = (int64_t)i % 4;
        snprintf(name, sizeof(name), "key %s", keys[i]);
        expect_same_shards(w, name, &p);
    }
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct producer p = producer_of("l", values[i]);

        p.offset = (int64_t)i % 2 * 9;
        snprintf(name, sizeof(name), "value %s", values[i]);
        expect_same_shards(w, name, &p);
    }
}

static void test_refusals(void **state)
{
    static const struct {
        const char *name, *key, *value, *key_column;
        int64_t null_key, null_value;
        int fail_at;
        bool dictionary;
        sf_status status;
        const char *message;
    } cases[] = {
        {"float key", "g", "z", "k", -1, -1, 0, false, SF_INVALID,
         "key column 'k' has type double, which is neither integer, text nor binary: cast it"},
        {"list value", "l", "+l", "k", -1, -1, 0, false, SF_INVALID, "value column 'v' has type list"},
        {"integer value", "l", "l", "k", -1, -1, 0, false, SF_INVALID,
         "value column 'v' has type int64, which is neither text nor binary: cast it, or have each value be a JSON object"},
        {"places behind the point", "d:38,2", "z", "k", -1, -1, 0, false, SF_INVALID,
         "key column 'k' has type decimal(38, 2)"},
        {"time key", "tsu:Europe/Berlin", "z", "k", -1, -1, 0, false, SF_INVALID, "has type timestamp[us, Europe/Berlin]"},
        {"date key", "tdD", "z", "k", -1, -1, 0, false, SF_INVALID, "has type date32"},
        {"two columns", "l", "z", "other", -1, -1, 0, false, SF_INVALID, "the rows have 2 columns 'other'"},
        {"no such column", "l", "z", "key", -1, -1, 0, false, SF_INVALID,
         "no key column 'key' among 3: 'other', 'v', 'k'"},
        {"dictionary of lists", "i", "z", "k", -1, -1, 0, true, SF_INVALID, "has type dictionary of list"},
        {"null key", "l", "z", "k", 75, -1, 0, false, SF_BAD_ROW, "row 76: the key is null"},
        {"null value", "l", "z", "k", -1, 149, 0, false, SF_BAD_ROW, "row 150: the value is null"},
        {"stream", "l", "z", "k", -1, -1, 3, false, SF_INVALID, "next batch (5): the disk is gone"},
        {"text under u64be", "u", "z", "k", -1, -1, 0, false, SF_BAD_ROW, "row 1: u64be encoding expects int key"},
    };
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct producer p = producer_of(cases[i].key, cases[i].value);
        struct ArrowArrayStream stream = stream_of(&p);
        sf_writer_options o = world_options();
        sf_writer *writer = world_writer(w, &o);

        p.null_key = cases[i].null_key;
        p.null_value = cases[i].null_value;
        p.fail_at = cases[i].fail_at;
        p.dictionary = cases[i].dictionary;
        if (strcmp(cases[i].key_column, "other") == 0)
            p.key_name = "other";
        if (sf_writer_add_arrow(writer, &stream, cases[i].key_column, NULL, &w->err) != cases[i].status ||
            !strstr(w->err.message, cases[i].message))
            fail_msg("%s: %s", cases[i].name, w->err.message);
        assert_int_equal(p.released, 1);
        assert_int_equal(p.schemas + p.arrays, 0);
        stream = stream_of(&p);
        assert_int_equal(sf_writer_add_arrow(writer, &stream, NULL, NULL, &w->err), SF_STATE);
        assert_int_equal(p.released, 2); /* whatever happens, it is the writer's */
        sf_writer_free(writer);
    }
}

/* The values are JSON, of columns that come in any order. */
static void test_json(void **state)
{
    static const char *const wanted[] = {"v", "k", "missing"};
    struct world *w = *state;
    struct producer p = producer_of("l", "u");
    struct ArrowArrayStream stream = stream_of(&p);
    sf_writer_options o = world_options();
    sf_writer *by_arrow = world_writer(w, &o), *by_row;
    const sf_write_report *a, *b;

    assert_int_equal(sf_writer_add_arrow_json(by_arrow, &stream, "k", wanted, 3, &w->err), SF_OK);
    assert_int_equal(p.released, 1);
    assert_int_equal(sf_writer_build(by_arrow, &w->err), SF_OK);
    o.run_id = "by-row";
    by_row = world_writer(w, &o);
    for (int64_t i = 0; i < ROWS; i++) {
        char text[64], object[128];
        sf_bytes v = value_of_row(&p, i, text);
        sf_key key = sf_key_int(i * 3);
        int n =
            snprintf(object, sizeof(object), "{\"k\":%d,\"missing\":null,\"v\":\"%.*s\"}", (int)i * 3, (int)v.n, text);

        assert_int_equal(sf_writer_add(by_row, &key, sf_bytes_of(object, (size_t)n), &w->err), SF_OK);
    }
    assert_int_equal(sf_writer_build(by_row, &w->err), SF_OK);
    a = sf_writer_report(by_arrow);
    b = sf_writer_report(by_row);
    assert_int_equal(a->attempt_count, b->attempt_count);
    for (size_t i = 0; i < a->attempt_count; i++)
        assert_string_equal(a->attempts[i].content_hash, b->attempts[i].content_hash);
    sf_writer_free(by_arrow);
    sf_writer_free(by_row);
}

/* Its functions are gone with it. */
static bool leave_out(void *ctx, uint64_t number, const sf_key *key, sf_bytes value, const sf_error *why)
{
    char *told = ctx;
    size_t n = strlen(told);

    assert_null(value.p);
    snprintf(told + n, 256 - n, "%llu%s %s\n", (unsigned long long)number, key ? " with a key" : "", why->message);
    return true;
}

static void test_bad_rows_left_out(void **state)
{
    struct world *w = *state;
    struct producer p = producer_of("l", "z");
    struct ArrowArrayStream stream = stream_of(&p);
    sf_writer_options o = world_options();
    char told[256] = "";
    sf_writer *writer;
    uint64_t rows;

    p.null_key = 75;
    p.null_value = 149;
    o.on_bad_row = leave_out;
    o.on_bad_row_ctx = told;
    writer = world_writer(w, &o);
    assert_int_equal(sf_writer_add_arrow(writer, &stream, "k", NULL, &w->err), SF_OK);
    assert_string_equal(told, "76 row 76: the key is null\n150 with a key row 150: the value is null\n");
    rows = sf_writer_report(writer)->rows;
    assert_int_equal(sf_writer_report(writer)->bad_rows, 2);
    assert_int_equal(sf_writer_finish(writer, &w->err), SF_OK);
    assert_int_equal(sf_writer_report(writer)->published_rows, rows);
    sf_writer_free(writer);
}

static void test_a_stream_is_read_once(void **state)
{
    struct world *w = *state;
    struct ArrowArrayStream stream = {.release = NULL};
    sf_writer_options o = world_options();
    sf_writer *writer = world_writer(w, &o);

    assert_int_equal(sf_writer_add_arrow(writer, &stream, NULL, NULL, &w->err), SF_INVALID);
    assert_string_equal(w->err.message, "the Arrow stream was read before");
    sf_writer_free(writer);
}

/* uint64 above what Python routes: the first key of the third batch. */
static int get_next_too_large(struct ArrowArrayStream *stream, struct ArrowArray *out)
{
    struct producer *p = stream->private_data;
    int rc = get_next(stream, out);

    if (p->calls == 3)
        ((uint64_t *)(uintptr_t)out->children[2]->buffers[1])[0] = UINT64_C(1) << 63;
    return rc;
}

static void test_key_that_cannot_be_routed(void **state)
{
    struct world *w = *state;
    struct producer p = producer_of("L", "z");
    struct ArrowArrayStream stream = stream_of(&p);
    sf_writer_options o = world_options();
    sf_writer *writer;

    o.int64_keys = true;
    writer = world_writer(w, &o);
    stream.get_next = get_next_too_large;
    assert_int_equal(sf_writer_add_arrow(writer, &stream, "k", "v", &w->err), SF_BAD_ROW);
    assert_string_equal(w->err.message, "row 141: key 9223372036854775808 is above 2^63-1 and cannot be routed");
    sf_writer_free(writer);
    o.int64_keys = false;
    o.run_id = "r2";
    p = producer_of("L", "z");
    stream = stream_of(&p);
    stream.get_next = get_next_too_large;
    writer = world_writer(w, &o);
    assert_int_equal(sf_writer_add_arrow(writer, &stream, "k", "v", &w->err), SF_OK);
    sf_writer_free(writer);
}

/* ------------------------------------------------------------------ nested and empty columns --------------------- */

/* One batch, whose arrays lie in the test. */
struct fixed {
    struct ArrowSchema key, value, *children[2];
    struct ArrowArray keys, values, *columns[2];
    int64_t rows, off, null_count;
    const void *valid; /* whether the rows themselves are */
    bool done;
};

static void release_nothing(struct ArrowArray *a)
{
    a->release = NULL;
}

static int fixed_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out)
{
    struct fixed *f = stream->private_data;

    f->children[0] = &f->key;
    f->children[1] = &f->value;
    *out = (struct ArrowSchema){.format = "+s", .n_children = 2, .children = f->children};
    return 0;
}

static int fixed_next(struct ArrowArrayStream *stream, struct ArrowArray *out)
{
    struct fixed *f = stream->private_data;

    *out = (struct ArrowArray){.release = NULL};
    if (f->done)
        return 0;
    f->done = true;
    f->columns[0] = &f->keys;
    f->columns[1] = &f->values;
    *out = (struct ArrowArray){.length = f->rows,
                               .offset = f->off,
                               .null_count = f->null_count,
                               .n_buffers = 1,
                               .buffers = &f->valid,
                               .n_children = 2,
                               .children = f->columns,
                               .release = release_nothing};
    return 0;
}

static void release_fixed(struct ArrowArrayStream *stream)
{
    stream->release = NULL;
}

static sf_status add_fixed(struct world *w, struct fixed *f, sf_key_encoding encoding, const char *run_id, char hash[33])
{
    struct ArrowArrayStream stream = {fixed_schema, fixed_next, NULL, release_fixed, f};
    sf_writer_options o = world_options();
    sf_writer *writer;
    sf_status rc;

    o.key_encoding = encoding;
    o.num_dbs = 1;
    o.run_id = run_id;
    writer = world_writer(w, &o);
    f->done = false;
    rc = sf_writer_add_arrow(writer, &stream, "k", "v", &w->err);
    if (rc == SF_OK)
        rc = sf_writer_finish(writer, &w->err);
    if (rc == SF_OK && sf_writer_report(writer)->winner_count > 0)
        snprintf(hash, 33, "%s", sf_writer_report(writer)->winners[0].content_hash);
    if (rc == SF_OK)
        assert_int_equal(sf_writer_report(writer)->rows, f->rows);
    sf_writer_free(writer);
    return rc;
}

static bool note_value(void *ctx, uint64_t number, const sf_key *key, sf_bytes value, const sf_error *why)
{
    (void)number;
    (void)key;
    (void)why;
    *(unsigned *)ctx += value.p && value.n == 0;
    return true;
}

/* A value without bytes is told as one, whatever its pointer says. */
static void test_empty_values_of_bad_rows(void **state)
{
    static const int64_t keys[] = {-1};
    static const int32_t value_at[] = {0, 0};
    const void *key_buffers[] = {NULL, keys}, *value_buffers[] = {NULL, value_at, NULL};
    struct fixed f = {
        .key = {.format = "l", .name = "k"},
        .value = {.format = "z", .name = "v"},
        .keys = {.length = 1, .n_buffers = 2, .buffers = key_buffers},
        .values = {.length = 1, .n_buffers = 3, .buffers = value_buffers},
        .rows = 1,
    };
    struct ArrowArrayStream stream = {fixed_schema, fixed_next, NULL, release_fixed, &f};
    struct world *w = *state;
    sf_writer_options o = world_options();
    sf_key key = sf_key_int(-2);
    unsigned told = 0;
    sf_writer *writer;

    o.on_bad_row = note_value;
    o.on_bad_row_ctx = &told;
    writer = world_writer(w, &o);
    assert_int_equal(sf_writer_add_arrow(writer, &stream, "k", "v", &w->err), SF_OK);
    assert_int_equal(sf_writer_add(writer, &key, sf_bytes_of(NULL, 0), &w->err), SF_OK);
    assert_int_equal(told, 2);
    sf_writer_free(writer);
}

/* Runs of indexes into text, sliced at every level: rows a a b c c, without values of their own. */
static void test_nested(void **state)
{
    static const int32_t text_at[] = {0, 1, 2, 3, 4}, value_at[] = {0, 1, 2, 3, 4, 5}, key_at[] = {0, 1, 2, 3, 4, 5};
    static const int16_t ends[] = {1, 4, 5, 7};
    static const uint8_t index[] = {0, 9, 1, 2, 3}, good = 0xff, no_second = 0xff & ~(1 << 3), no_b = 0xff & ~(1 << 2);
    const void *text_buffers[] = {NULL, text_at, "xabc"}, *index_buffers[] = {NULL, index}, *end_buffers[] = {NULL, ends};
    const void *value_buffers[] = {NULL, value_at, "vwxyz"}, *key_buffers[] = {NULL, key_at, "aabcc"};
    struct ArrowSchema text = {.format = "u"}, end = {.format = "s"}, indexes = {.format = "C", .dictionary = &text};
    struct ArrowSchema *run_schemas[] = {&end, &indexes};
    struct ArrowArray dictionary = {.length = 3, .offset = 1, .n_buffers = 3, .buffers = text_buffers};
    struct ArrowArray run_values = {
        .length = 4, .offset = 1, .n_buffers = 2, .buffers = index_buffers, .dictionary = &dictionary};
    struct ArrowArray run_ends = {.length = 4, .n_buffers = 2, .buffers = end_buffers},
                      *runs[] = {&run_ends, &run_values};
    struct fixed f = {
        .key = {.format = "+r", .name = "k", .n_children = 2, .children = run_schemas},
        .value = {.format = "z", .name = "v"},
        .keys = {.length = 5, .offset = 2, .n_children = 2, .children = runs},
        .values = {.length = 5, .n_buffers = 3, .buffers = value_buffers},
        .rows = 5,
    };
    struct fixed plain = {
        .key = {.format = "u", .name = "k"},
        .value = f.value,
        .values = f.values,
        .rows = 5,
        .keys = {.length = 5, .n_buffers = 3, .buffers = key_buffers},
    };
    struct world *w = *state;
    char nested[33] = "", flat[33] = "";
    uint8_t shifted[5];

    /* logical rows 2..6: run 1 (to 4), run 1, run 2, run 3, run 3; their indexes 1, 2, 3 less one */
    memcpy(shifted, index, sizeof(shifted));
    shifted[2] = 0, shifted[3] = 1, shifted[4] = 2, shifted[1] = 0;
    index_buffers[1] = shifted;
    if (add_fixed(w, &f, SF_KEY_UTF8, "nested", nested) != SF_OK ||
        add_fixed(w, &plain, SF_KEY_UTF8, "flat", flat) != SF_OK)
        fail_msg("%s", w->err.message);
    assert_string_equal(nested, flat);
    run_values.null_count = -1;
    index_buffers[0] = &good;
    assert_int_equal(add_fixed(w, &f, SF_KEY_UTF8, "no nulls", nested), SF_OK);
    assert_string_equal(nested, flat);
    index_buffers[0] = &no_second;
    assert_int_equal(add_fixed(w, &f, SF_KEY_UTF8, "null index", nested), SF_BAD_ROW);
    assert_string_equal(w->err.message, "row 3: the key is null");
    index_buffers[0] = NULL;
    dictionary.null_count = 1;
    text_buffers[0] = &no_b; /* behind the index */
    assert_int_equal(add_fixed(w, &f, SF_KEY_UTF8, "null entry", nested), SF_BAD_ROW);
    assert_string_equal(w->err.message, "row 3: the key is null");
    text_buffers[0] = NULL;
    shifted[3] = 3;
    assert_int_equal(add_fixed(w, &f, SF_KEY_UTF8, "wrong index", nested), SF_BAD_ROW);
    assert_string_equal(w->err.message, "row 3: the key has an index outside of its dictionary");
}

/* A batch is an array of structs: a null one is no row, whatever its columns say, and whether or not nulls were counted. */
static void test_null_structs(void **state)
{
    static const int64_t keys[] = {1, 2, 3, 4}, counts[] = {-1, 1};
    static const int32_t value_at[] = {0, 1, 2, 3, 4};
    static const uint8_t all = 0xff, no_third = 0xff & ~(1 << 2);
    const void *key_buffers[] = {NULL, keys}, *value_buffers[] = {NULL, value_at, "vwxy"};
    struct fixed f = {
        .key = {.format = "l", .name = "k"},
        .value = {.format = "z", .name = "v"},
        .keys = {.length = 4, .n_buffers = 2, .buffers = key_buffers},
        .values = {.length = 4, .n_buffers = 3, .buffers = value_buffers},
        .rows = 3,
        .off = 1,
    };
    struct world *w = *state;
    char hash[33] = "";

    for (size_t i = 0; i < 2; i++) {
        f.null_count = counts[i];
        f.valid = &all;
        assert_int_equal(add_fixed(w, &f, SF_KEY_U64BE, i == 0 ? "uncounted" : "counted", hash), SF_OK);
        f.valid = &no_third;
        assert_int_equal(add_fixed(w, &f, SF_KEY_U64BE, i == 0 ? "uncounted-null" : "counted-null", hash), SF_BAD_ROW);
        assert_string_equal(w->err.message, "row 2: a row of the batch is null");
    }
}

static void test_decimals(void **state)
{
    static const struct {
        const char *format;
        uint64_t words[4]; /* of one number, lowest first */
        sf_status status;
        const char *message;
    } cases[] = {
        {"d:38,0", {77, 0, 0, 0}, SF_OK, NULL},
        {"d:9,0,32", {77, 0, 0, 0}, SF_OK, NULL},
        {"d:18,0,64", {77, 0, 0, 0}, SF_OK, NULL},
        {"d:76,0,256", {77, 0, 0, 0}, SF_OK, NULL},
        {"d:38,0", {UINT64_MAX, 0, 0, 0}, SF_OK, NULL},
        {"d:38,0", {0, 1, 0, 0}, SF_BAD_ROW, "row 1: the key is a decimal number of more than 64 bits"},
        {"d:76,0,256", {1, 0, 0, 1}, SF_BAD_ROW, "more than 64 bits"},
        {"d:38,0", {UINT64_MAX, UINT64_MAX, 0, 0}, SF_BAD_ROW, "row 1: u64be encoding requires value in [0, 2^64-1], got -1"},
        {"d:38,0", {5, UINT64_MAX, 0, 0}, SF_BAD_ROW, "more than 64 bits"},
    };
    static const int32_t value_at[] = {0, 1};
    const void *value_buffers[] = {NULL, value_at, "v"}, *buffers[] = {NULL, NULL};
    struct world *w = *state;

    if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
        skip();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixed f = {
            .key = {.format = cases[i].format, .name = "k"},
            .value = {.format = "z", .name = "v"},
            .rows = 1,
            .keys = {.length = 1, .n_buffers = 2, .buffers = buffers},
            .values = {.length = 1, .n_buffers = 3, .buffers = value_buffers},
        };
        char hash[33], run_id[20];

        buffers[1] = cases[i].words;
        snprintf(run_id, sizeof(run_id), "r%zu", i);
        if (add_fixed(w, &f, SF_KEY_U64BE, run_id, hash) != cases[i].status ||
            (cases[i].message && !strstr(w->err.message, cases[i].message)))
            fail_msg("%zu: %s", i, w->err.message);
    }
}

/* Data frames without rows do not know the types of their columns. */
static void test_empty_frames(void **state)
{
    static const struct {
        const char *key, *value;
        const char *refusal; /* of a row; NULL: it would be taken */
    } cases[] = {
        {"n", "n", "row 1: the key is null"},
        {"e", "e", "key column 'k' has type halffloat"},
        {"f", "f", "'k' has type float"},
        {"g", "g", "'k' has type double"},
        {"b", "b", "'k' has type bool"},
        {"l", "b", "value column 'v' has type bool"},
        {"tdD", "z", "'k' has type date32"},
        {"l", "+l", "'v' has type list"},
        {"l", "l", "'v' has type int64"},
        {"t", "z", "'k' has type Arrow format 't'"},
        {"l", "z", NULL},
        {"u", "z", NULL},
    };
    struct world *w = *state;
    char hash[33], run_id[20];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static const double number = 1.5;
        const void *buffers[] = {NULL, &number};
        struct fixed f = {
            .key = {.format = cases[i].key, .name = "k"},
            .value = {.format = cases[i].value, .name = "v"},
            .keys = {.n_buffers = i == 0 ? 0 : 2, .buffers = buffers},
            .values = {.n_buffers = i == 0 ? 0 : 2, .buffers = buffers},
        };

        snprintf(run_id, sizeof(run_id), "r%zu", i);
        if (add_fixed(w, &f, SF_KEY_U64BE, run_id, hash) != SF_OK)
            fail_msg("%s, %s: %s", cases[i].key, cases[i].value, w->err.message);
        world_expect_current(w, run_id);
        if (!cases[i].refusal)
            continue;
        f.rows = f.keys.length = f.values.length = 1;
        snprintf(run_id, sizeof(run_id), "s%zu", i);
        assert_int_not_equal(add_fixed(w, &f, SF_KEY_U64BE, run_id, hash), SF_OK);
        if (!strstr(w->err.message, cases[i].refusal))
            fail_msg("%s, %s: %s", cases[i].key, cases[i].value, w->err.message);
    }
}

/* Each text in memory of its own, so that a byte too many is noticed. */
static void test_formats(void **state)
{
    static const struct {
        const char *format, *name;
        bool taken;
        size_t width;
    } cases[] = {
        {"", "Arrow format ''", false, 0},
        {"t", "Arrow format 't'", false, 0},
        {"ts", "Arrow format 'ts'", false, 0},
        {"td", "Arrow format 'td'", false, 0},
        {"ti", "Arrow format 'ti'", false, 0},
        {"tt", "Arrow format 'tt'", false, 0},
        {"tD", "Arrow format 'tD'", false, 0},
        {"tsu", "timestamp[us]", false, 0},
        {"tsn:", "timestamp[ns]", false, 0},
        {"tsm:UTC", "timestamp[ms, UTC]", false, 0},
        {"tdm", "date64", false, 0},
        {"tts", "time[s]", false, 0},
        {"tDx", "Arrow format 'tDx'", false, 0},
        {"tiM", "interval", false, 0},
        {"d", "Arrow format 'd'", false, 0},
        {"d:", "Arrow format 'd:'", false, 0},
        {"d:38", "Arrow format 'd:38'", false, 0},
        {"d:38,", "Arrow format 'd:38,'", false, 0},
        {"d:38,0", "decimal(38, 0)", true, 16},
        {"d:9,0,32", "decimal(9, 0)", true, 4},
        {"d:9,0,40", "decimal(9, 0)", false, 0},
        {"d:9,-2", "decimal(9, -2)", false, 0},
        {"d:99999999999,0", "Arrow format 'd:99999999999,0'", false, 0},
        {"w", "Arrow format 'w'", false, 0},
        {"w:", "fixed_size_binary()", false, 0},
        {"w:16", "fixed_size_binary(16)", true, 16},
        {"w:-1", "fixed_size_binary(-1)", false, 0},
        {"w:1x", "fixed_size_binary(1x)", false, 0},
        {"w:99999999999", "fixed_size_binary(99999999999)", false, 0},
        {"v", "Arrow format 'v'", false, 0},
        {"+", "Arrow format '+'", false, 0},
        {"+w:", "fixed_size_list()", false, 0},
        {"+u", "union", false, 0},
        {"l", "int64", true, 8},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ArrowSchema s = {.format = strdup(cases[i].format)};
        sf_arrow_format f = {.width = 0};
        char name[64];

        sf__arrow_type_name(&s, name, sizeof(name));
        assert_string_equal(name, cases[i].name);
        if (sf__arrow_format_parse(&f, s.format) != cases[i].taken || f.width != cases[i].width)
            fail_msg("%s: %zu bytes", cases[i].format, f.width);
        free((void *)(uintptr_t)s.format);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {WORLD_TEST(test_types),
                                       WORLD_TEST(test_refusals),
                                       WORLD_TEST(test_bad_rows_left_out),
                                       WORLD_TEST(test_a_stream_is_read_once),
                                       WORLD_TEST(test_key_that_cannot_be_routed),
                                       WORLD_TEST(test_nested),
                                       WORLD_TEST(test_null_structs),
                                       WORLD_TEST(test_decimals),
                                       WORLD_TEST(test_empty_frames),
                                       WORLD_TEST(test_json),
                                       WORLD_TEST(test_empty_values_of_bad_rows),
                                       cmocka_unit_test(test_formats)};

    return cmocka_run_group_tests_name("arrow", tests, NULL, NULL);
}
