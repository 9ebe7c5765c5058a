#include "snapshot/run_record.h"

#include <stdlib.h>
#include <yaml.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/strbuf.h"
#include "base/utf8.h"
#include "snapshot/datetime.h"
#include "snapshot/lax.h"

#define MAX_DEPTH 32u
#define PREFIX "run record: "

static const char *const statuses[] = {
    [SF_RUN_RUNNING] = "running",
    [SF_RUN_SUCCEEDED] = "succeeded",
    [SF_RUN_FAILED] = "failed",
};

/* ------------------------------------------------------------------ plain scalars -------------------------------- */

static bool is_one_of(sf_bytes text, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (sf_bytes_eq(text, sf_bytes_str(words[i])))
            return true;
    return false;
}
#define IS_ONE_OF(text, words) is_one_of(text, words, sizeof(words) / sizeof((words)[0]))

static bool is_null(sf_bytes text)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};

    return IS_ONE_OF(text, words);
}

/* Without quotes YAML 1.1 may take these for something else than a text. Wide on purpose where numbers and times begin:
 * quotes are never wrong. */
static bool needs_quotes(sf_bytes text)
{
    static const char *const words[] = {"yes",   "Yes",   "YES", "no", "No", "NO",  "true", "True", "TRUE", "false",
                                        "False", "FALSE", "on",  "On", "ON", "off", "Off",  "OFF",  "=",    "<<"};

    return is_null(text) || IS_ONE_OF(text, words) || strchr("0123456789+-.", text.p[0]);
}

static bool is_number(sf_bytes text)
{
    sf_lax_int i;
    sf_decimal d;

    return sf__lax_int_from_text(text, &i) || sf__decimal_parse(text, &d);
}

/* ------------------------------------------------------------------ writing -------------------------------------- */

struct output {
    sf_strbuf text;
    yaml_emitter_t emitter;
};

static int on_output(void *ctx, unsigned char *p, size_t n)
{
    struct output *o = ctx;

    sf__strbuf_add(&o->text, p, n);
    return !o->text.failed;
}

/* Takes the event, however it ends. `made` is what its initialiser said. */
static bool emit(struct output *o, yaml_event_t *event, int made)
{
    return made && yaml_emitter_emit(&o->emitter, event);
}

static bool emit_scalar(struct output *o, const char *text, bool plain)
{
    yaml_event_t e;

    return emit(o, &e,
                yaml_scalar_event_initialize(&e, NULL, NULL, (const yaml_char_t *)text, (int)strlen(text), plain, 1,
                                             YAML_ANY_SCALAR_STYLE));
}

static bool emit_name(struct output *o, const char *name)
{
    return emit_scalar(o, name, true);
}

static bool emit_text(struct output *o, const char *name, const char *text)
{
    if (!emit_name(o, name))
        return false;
    return text ? emit_scalar(o, text, !needs_quotes(sf_bytes_str(text))) : emit_scalar(o, "null", true);
}

static bool emit_time(struct output *o, const char *name, int64_t us)
{
    char text[SF_DATETIME_TEXT];

    sf__datetime_format(text, us);
    return emit_name(o, name) && emit_scalar(o, text, false); /* plain, it would be a time instead of a text */
}

static bool emit_int(struct output *o, const char *name, int64_t v)
{
    char text[SF_LAX_INT_TEXT];

    snprintf(text, sizeof(text), "%lld", (long long)v);
    return emit_name(o, name) && emit_scalar(o, text, true);
}

static bool emit_begin(struct output *o)
{
    yaml_event_t e;

    return emit(o, &e, yaml_stream_start_event_initialize(&e, YAML_UTF8_ENCODING)) &&
           emit(o, &e, yaml_document_start_event_initialize(&e, NULL, NULL, NULL, 1)) &&
           emit(o, &e, yaml_mapping_start_event_initialize(&e, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE));
}

static bool emit_end(struct output *o)
{
    yaml_event_t e;

    return emit(o, &e, yaml_mapping_end_event_initialize(&e)) &&
           emit(o, &e, yaml_document_end_event_initialize(&e, 1)) && emit(o, &e, yaml_stream_end_event_initialize(&e));
}

/* By ascending name. */
static bool emit_fields(struct output *o, const sf_run_record *r)
{
    return emit_text(o, "db_path_template", r->db_path_template) && emit_text(o, "error_message", r->error_message) &&
           emit_text(o, "error_type", r->error_type) && emit_int(o, "format_version", r->format_version) &&
           emit_time(o, "lease_expires_at", r->lease_expires_at_us) && emit_text(o, "manifest_ref", r->manifest_ref) &&
           (!r->manifest_store || emit_text(o, "manifest_store", r->manifest_store)) &&
           emit_text(o, "run_id", r->run_id) && emit_text(o, "s3_prefix", r->s3_prefix) &&
           emit_text(o, "shard_prefix", r->shard_prefix) && emit_time(o, "started_at", r->started_at_us) &&
           emit_text(o, "status", statuses[r->status]) && emit_time(o, "updated_at", r->updated_at_us) &&
           emit_text(o, "writer_type", r->writer_type);
}

static sf_status check_texts(const sf_run_record *r, sf_error *err)
{
    const char *const texts[] = {r->run_id,       r->writer_type,      r->s3_prefix,
                                 r->shard_prefix, r->db_path_template, r->manifest_ref,
                                 r->error_type,   r->error_message,    r->manifest_store};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (i < 5 && !texts[i])
            return sf_fail(err, SF_INVALID, PREFIX "a required text is missing");
        if (texts[i] && !sf_utf8_is_valid(sf_bytes_str(texts[i])))
            return sf_fail(err, SF_INVALID, PREFIX "a text is not UTF-8");
    }
    return SF_OK;
}

sf_status sf__run_record_format(char **out, size_t *n, const sf_run_record *r, const sf_allocator *a, sf_error *err)
{
    struct output o;
    sf_status rc = check_texts(r, err);
    bool ok;

    if (rc != SF_OK)
        return rc;
    sf__strbuf_init(&o.text, a);
    if (!yaml_emitter_initialize(&o.emitter))
        return sf_fail(err, SF_NOMEM, "run record");
    yaml_emitter_set_output(&o.emitter, on_output, &o);
    yaml_emitter_set_width(&o.emitter, 80);
    ok = emit_begin(&o) && emit_fields(&o, r) && emit_end(&o);
    if (!ok && o.emitter.error == YAML_EMITTER_ERROR)
        rc = sf_fail(err, SF_INVALID, PREFIX "%s", o.emitter.problem);
    else if (!ok || o.text.failed)
        rc = sf_fail(err, SF_NOMEM, "run record");
    yaml_emitter_delete(&o.emitter);
    if (rc != SF_OK) {
        sf__strbuf_cleanup(&o.text);
        return rc;
    }
    *n = o.text.n;
    *out = sf__strbuf_detach(&o.text);
    return SF_OK;
}

/* ------------------------------------------------------------------ parsing -------------------------------------- */

/* A value of the mapping as it stands in the document. */
struct scalar {
    bool plain; /* no quotes: may be null or a number */
    sf_bytes text;
};

enum field_kind { REQUIRED_TEXT, OPTIONAL_TEXT, TIME, STATUS, INTEGER };

static const struct field {
    const char *name;
    enum field_kind kind;
    size_t offset; /* in sf_run_record */
} fields[] = {
    {"format_version", INTEGER, offsetof(sf_run_record, format_version)},
    {"run_id", REQUIRED_TEXT, offsetof(sf_run_record, run_id)},
    {"writer_type", REQUIRED_TEXT, offsetof(sf_run_record, writer_type)},
    {"status", STATUS, offsetof(sf_run_record, status)},
    {"started_at", TIME, offsetof(sf_run_record, started_at_us)},
    {"updated_at", TIME, offsetof(sf_run_record, updated_at_us)},
    {"lease_expires_at", TIME, offsetof(sf_run_record, lease_expires_at_us)},
    {"s3_prefix", REQUIRED_TEXT, offsetof(sf_run_record, s3_prefix)},
    {"shard_prefix", REQUIRED_TEXT, offsetof(sf_run_record, shard_prefix)},
    {"db_path_template", REQUIRED_TEXT, offsetof(sf_run_record, db_path_template)},
    {"manifest_ref", OPTIONAL_TEXT, offsetof(sf_run_record, manifest_ref)},
    {"manifest_store", OPTIONAL_TEXT, offsetof(sf_run_record, manifest_store)},
    {"error_type", OPTIONAL_TEXT, offsetof(sf_run_record, error_type)},
    {"error_message", OPTIONAL_TEXT, offsetof(sf_run_record, error_message)},
};
#define FIELD_COUNT (sizeof(fields) / sizeof(fields[0]))

struct input {
    yaml_parser_t parser;
    sf_run_record record;
    bool seen[FIELD_COUNT];
    sf_arena *arena;
    sf_error *err;
    sf_status status; /* of the first failure */
};

static bool fail(struct input *in, const char *what)
{
    in->status = sf_fail(in->err, SF_CORRUPT, PREFIX "%s", what);
    return false;
}

static bool fail_field(struct input *in, const struct field *f, const char *what)
{
    in->status = sf_fail(in->err, SF_CORRUPT, PREFIX "%s %s", f->name, what);
    return false;
}

/* To be deleted by the caller when true. */
static bool next_event(struct input *in, yaml_event_t *e)
{
    if (yaml_parser_parse(&in->parser, e))
        return true;
    if (in->parser.error == YAML_MEMORY_ERROR)
        in->status = sf_fail(in->err, SF_NOMEM, "run record");
    else
        in->status = sf_fail(in->err, SF_CORRUPT, PREFIX "line %zu: %s", in->parser.problem_mark.line + 1,
                             in->parser.problem ? in->parser.problem : "not YAML");
    return false;
}

static bool keep_text(struct input *in, const struct field *f, const struct scalar *s, const char **out)
{
    if (s->text.n > 0 && memchr(s->text.p, 0, s->text.n))
        return fail_field(in, f, "holds a NUL character");
    *out = sf__arena_strndup(in->arena, s->text.p, s->text.n);
    if (!*out)
        in->status = sf_fail(in->err, SF_NOMEM, "run record");
    return *out != NULL;
}

static bool take_text(struct input *in, const struct field *f, const struct scalar *s, void *out)
{
    bool null = s->plain && is_null(s->text);

    if (null && f->kind == OPTIONAL_TEXT) {
        *(const char **)out = NULL;
        return true;
    }
    if (null || (s->plain && is_number(s->text)))
        return fail_field(in, f, "is not a text");
    return keep_text(in, f, s, out);
}

static bool take_time(struct input *in, const struct field *f, const struct scalar *s, int64_t *out)
{
    sf_datetime t;

    if (!sf__datetime_parse(s->text, &t))
        return fail_field(in, f, "is not a date and time");
    *out = t.us;
    return true;
}

static bool take_status(struct input *in, const struct field *f, const struct scalar *s, sf_run_status *out)
{
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        if (sf_bytes_eq(s->text, sf_bytes_str(statuses[i]))) {
            *out = (sf_run_status)i;
            return true;
        }
    }
    return fail_field(in, f, "is none of running, succeeded, failed");
}

static bool take_int(struct input *in, const struct field *f, const struct scalar *s, int64_t *out)
{
    sf_lax_int i;

    if (!sf__lax_int_from_text(s->text, &i) || !i.fits)
        return fail_field(in, f, "is not an integer");
    *out = i.v;
    return true;
}

static bool take_field(struct input *in, size_t index, const struct scalar *s)
{
    const struct field *f = &fields[index];
    void *out = (char *)&in->record + f->offset;

    in->seen[index] = true;
    switch (f->kind) {
    case REQUIRED_TEXT:
    case OPTIONAL_TEXT:
        return take_text(in, f, s, out);
    case TIME:
        return take_time(in, f, s, out);
    case STATUS:
        return take_status(in, f, s, out);
    case INTEGER:
        break;
    }
    return take_int(in, f, s, out);
}

/* FIELD_COUNT for a name that means nothing to us. */
static size_t field_index(const yaml_event_t *name)
{
    sf_bytes text = sf_bytes_of(name->data.scalar.value, name->data.scalar.length);
    size_t i = 0;

    while (i < FIELD_COUNT && !sf_bytes_eq(text, sf_bytes_str(fields[i].name)))
        i++;
    return i;
}

/* Over a value that nobody asked for, whose first event is `e`; deletes it. Counting instead of recursion. */
static bool skip_value(struct input *in, yaml_event_t *e)
{
    unsigned depth = 0;

    for (;;) {
        yaml_event_type_t type = e->type;
        bool tagged = (type == YAML_SCALAR_EVENT && e->data.scalar.tag) ||
                      (type == YAML_MAPPING_START_EVENT && e->data.mapping_start.tag) ||
                      (type == YAML_SEQUENCE_START_EVENT && e->data.sequence_start.tag);

        yaml_event_delete(e);
        if (type == YAML_ALIAS_EVENT || tagged)
            return fail(in, "holds a tag or an alias");
        if (type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT)
            depth++;
        if (type == YAML_MAPPING_END_EVENT || type == YAML_SEQUENCE_END_EVENT)
            depth--;
        if (depth == 0)
            return true;
        if (depth > MAX_DEPTH)
            return fail(in, "is nested too deep");
        if (!next_event(in, e))
            return false;
    }
}

static bool take_value(struct input *in, size_t index)
{
    struct scalar s;
    yaml_event_t e;
    bool ok;

    if (!next_event(in, &e))
        return false;
    if (index == FIELD_COUNT)
        return skip_value(in, &e);
    if (e.type != YAML_SCALAR_EVENT || e.data.scalar.tag) {
        yaml_event_delete(&e);
        return fail_field(in, &fields[index], "is not a plain value");
    }
    s = (struct scalar){e.data.scalar.style == YAML_PLAIN_SCALAR_STYLE,
                        sf_bytes_of(e.data.scalar.value, e.data.scalar.length)};
    ok = take_field(in, index, &s);
    yaml_event_delete(&e);
    return ok;
}

static bool take_members(struct input *in)
{
    for (;;) {
        yaml_event_t e;
        yaml_event_type_t type;
        size_t index = FIELD_COUNT;

        if (!next_event(in, &e))
            return false;
        type = e.type;
        if (type == YAML_SCALAR_EVENT && !e.data.scalar.tag)
            index = field_index(&e);
        else if (type != YAML_MAPPING_END_EVENT)
            type = YAML_NO_EVENT;
        yaml_event_delete(&e);
        if (type == YAML_MAPPING_END_EVENT)
            return true;
        if (type == YAML_NO_EVENT)
            return fail(in, "a name is not a plain text");
        if (!take_value(in, index))
            return false;
    }
}

static bool expect_event(struct input *in, yaml_event_type_t expected, const char *otherwise)
{
    yaml_event_t e;
    bool ok;

    if (!next_event(in, &e))
        return false;
    ok = e.type == expected && !(expected == YAML_MAPPING_START_EVENT && e.data.mapping_start.tag);
    yaml_event_delete(&e);
    return ok || fail(in, otherwise);
}

static bool take_document(struct input *in)
{
    static const char no_mapping[] = "payload must decode to a mapping";

    if (!expect_event(in, YAML_STREAM_START_EVENT, no_mapping) ||
        !expect_event(in, YAML_DOCUMENT_START_EVENT, no_mapping) ||
        !expect_event(in, YAML_MAPPING_START_EVENT, no_mapping) || !take_members(in) ||
        !expect_event(in, YAML_DOCUMENT_END_EVENT, no_mapping) ||
        !expect_event(in, YAML_STREAM_END_EVENT, "is more than one document"))
        return false;
    for (size_t i = 0; i < FIELD_COUNT; i++)
        if (!in->seen[i] && fields[i].kind != OPTIONAL_TEXT && fields[i].kind != INTEGER)
            return fail_field(in, &fields[i], "is missing");
    return true;
}

sf_status sf__run_record_parse(sf_run_record *out, sf_arena *arena, sf_bytes text, sf_error *err)
{
    struct input in = {.record = {.format_version = 1}, .arena = arena, .err = err, .status = SF_OK};

    if (text.n > SF_LIMIT_RUN_RECORD_BYTES)
        return sf_fail(err, SF_CORRUPT, PREFIX "%zu bytes are more than %u", text.n, SF_LIMIT_RUN_RECORD_BYTES);
    if (!yaml_parser_initialize(&in.parser))
        return sf_fail(err, SF_NOMEM, "run record");
    yaml_parser_set_encoding(&in.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&in.parser, text.p ? text.p : (const uint8_t *)"", text.n);
    if (take_document(&in))
        *out = in.record;
    yaml_parser_delete(&in.parser);
    return in.status;
}
