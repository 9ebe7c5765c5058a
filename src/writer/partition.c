#include "writer/partition.h"

#include "base/error.h"
#include "base/grow.h"
#include "base/utf8.h"

static sf_status bad_row(sf_status rc, sf_error *err, uint64_t number)
{
    return sf_error_prefix(err, rc, "row %llu: ", (unsigned long long)number);
}

static sf_status check_lengths(const sf_row_limits *limits, size_t key_bytes, size_t value_bytes, sf_error *err)
{
    if (key_bytes < limits->min_key_bytes)
        return sf_fail(err, SF_BAD_ROW, "the key is empty");
    if (key_bytes > limits->max_key_bytes)
        return sf_fail(err, SF_BAD_ROW, "key of %zu bytes, at most %zu can be stored", key_bytes, limits->max_key_bytes);
    if (value_bytes > limits->max_value_bytes)
        return sf_fail(err, SF_BAD_ROW, "value of %zu bytes, at most %zu can be stored", value_bytes,
                       limits->max_value_bytes);
    if (value_bytes > limits->max_row_bytes - key_bytes)
        return sf_fail(err, SF_BAD_ROW, "row of %zu bytes, at most %zu can be stored", key_bytes + value_bytes,
                       limits->max_row_bytes);
    return SF_OK;
}

static sf_status check_key(const sf_partition *p, const sf_key *key, sf_error *err)
{
    if (key->type == SF_KEY_STR && !sf_utf8_is_valid(key->b))
        return sf_fail(err, SF_BAD_ROW, "the key is not valid UTF-8");
    if (p->int64_keys && key->type == SF_KEY_UINT && key->u > INT64_MAX)
        return sf_fail(err, SF_BAD_ROW, "key %llu is above 2^63-1 and cannot be routed", (unsigned long long)key->u);
    return SF_OK;
}

sf_status sf__partition_place(const sf_partition *p, const sf_key *key, sf_bytes value, uint64_t number,
                              sf_placed_row *out, sf_error *err)
{
    sf_status rc = check_key(p, key, err);

    if (rc == SF_OK)
        rc = sf__key_encode_for_write(p->encoding, key, out->scratch, &out->key, err);
    if (rc == SF_OK)
        rc = check_lengths(&p->limits, out->key.n, value.n, err);
    if (rc == SF_OK && p->cel) { /* the last thing: a value that is inferred stays */
        rc = sf__cel_shards_place(p->cel, key, &out->db_id, err);
        if (rc != SF_OK)
            return bad_row(rc, err, number);
    } else if (rc == SF_OK) {
        rc = sf__router_route(&p->router, key, &out->db_id, err);
    }
    return rc == SF_OK ? SF_OK : bad_row(SF_BAD_ROW, err, number);
}

sf_status sf__partition_check(const sf_partition *p, const sf_placed_row *row, sf_key_type type, sf_bytes value,
                              uint64_t number, sf_error *err)
{
    sf_key key = {.type = type, .b = row->key};
    uint32_t db_id = row->db_id;
    sf_status rc = check_lengths(&p->limits, row->key.n, value.n, err);

    if (rc == SF_OK && (type == SF_KEY_INT) != (p->encoding == SF_KEY_U64BE || p->encoding == SF_KEY_U32BE))
        rc = sf_fail(err, SF_BAD_ROW, "the key was encoded as another type");
    if (rc == SF_OK && type == SF_KEY_INT)
        rc = sf__key_decode(p->encoding, row->key, &key, err);
    if (rc == SF_OK && !p->cel)
        rc = sf__router_route(&p->router, &key, &db_id, err);
    if (rc != SF_OK)
        return bad_row(SF_BAD_ROW, err, number);
    if (db_id == row->db_id)
        return SF_OK;
    sf_fail(err, SF_NO_ROUTE, "the key belongs to shard %u and came to shard %u", db_id, row->db_id);
    return bad_row(SF_NO_ROUTE, err, number);
}

/* ------------------------------------------------------------------ counting ------------------------------------- */

void sf__row_counts_init(sf_row_counts *c, const sf_allocator *a)
{
    *c = (sf_row_counts){.alloc = a};
}

void sf__row_counts_cleanup(sf_row_counts *c)
{
    if (c->shards)
        sf__free(c->alloc, c->shards);
    *c = (sf_row_counts){0};
}

bool sf__row_counts_reserve(sf_row_counts *c, uint32_t count)
{
    if (!SF_RESERVE(c->alloc, &c->shards, &c->shard_cap, count))
        return false;
    for (; c->shard_count < count; c->shard_count++)
        c->shards[c->shard_count] = (sf_shard_rows){0};
    return true;
}

bool sf__row_counts_renumber(sf_row_counts *c, uint32_t num_dbs, const uint32_t *places)
{
    sf_row_counts renumbered = *c;

    if (!places)
        return sf__row_counts_reserve(c, num_dbs);
    renumbered.shards = NULL;
    renumbered.shard_count = 0;
    renumbered.shard_cap = 0;
    if (!sf__row_counts_reserve(&renumbered, num_dbs))
        return false;
    for (uint32_t i = 0; i < c->shard_count; i++)
        renumbered.shards[places[i]] = c->shards[i];
    if (c->shards)
        sf__free(c->alloc, c->shards);
    *c = renumbered;
    return true;
}

static size_t bucket_of(size_t n)
{
    return n == 0 ? 0 : n > UINT32_MAX ? SF_HISTOGRAM_BUCKETS - 1 : 32 - (size_t)__builtin_clz((unsigned)n);
}

void sf__row_counts_add(sf_row_counts *c, const sf_placed_row *row, sf_key_type key_type, size_t value_bytes)
{
    sf_shard_rows *shard = &c->shards[row->db_id];

    if (shard->count++ == 0)
        shard->key_type = key_type;
    c->rows++;
    c->key_bytes += row->key.n;
    c->value_bytes += value_bytes;
    c->key_sizes[bucket_of(row->key.n)]++;
    c->value_sizes[bucket_of(value_bytes)]++;
}

/* ------------------------------------------------------------------ sampling ------------------------------------- */

bool sf__sample_init(sf_sample *s, size_t cap, const sf_allocator *a)
{
    *s = (sf_sample){.alloc = a, .cap = cap};
    if (cap > 0)
        s->rows = sf__calloc(a, cap, sizeof(*s->rows));
    return cap == 0 || s->rows;
}

static void forget(sf_sample *s, sf_sampled *row)
{
    sf__free(s->alloc, (void *)(uintptr_t)row->key.p);
}

void sf__sample_cleanup(sf_sample *s)
{
    for (size_t i = 0; i < s->count; i++)
        forget(s, &s->rows[i]);
    if (s->rows)
        sf__free(s->alloc, s->rows);
    *s = (sf_sample){0};
}

static int compare(const sf_sampled *a, uint64_t hash, sf_bytes key)
{
    if (a->hash != hash)
        return a->hash < hash ? -1 : 1;
    return sf_bytes_cmp(a->key, key);
}

/* The first row that is not below. */
static size_t position(const sf_sample *s, uint64_t hash, sf_bytes key)
{
    size_t low = 0, high = s->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (compare(&s->rows[middle], hash, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void sf__sample_renumber(sf_sample *s, const uint32_t *places)
{
    for (size_t i = 0; i < s->count && places; i++)
        s->rows[i].db_id = places[s->rows[i].db_id];
}

bool sf__sample_add(sf_sample *s, const sf_placed_row *row, sf_bytes value)
{
    uint64_t hash;
    size_t at;
    char *copy;

    if (s->cap == 0)
        return true;
    hash = sf__xxh3_64(row->key);
    if (s->count == s->cap && s->rows[s->count - 1].hash < hash)
        return true; /* nearly all rows end here */
    at = position(s, hash, row->key);
    if (at < s->count && compare(&s->rows[at], hash, row->key) == 0) {
        s->rows[at].value_hash = sf__xxh3_128(value);
        return true;
    }
    if (at == s->cap)
        return true;
    copy = sf__strndup(s->alloc, row->key.p, row->key.n);
    if (!copy)
        return false;
    if (s->count == s->cap)
        forget(s, &s->rows[--s->count]);
    memmove(s->rows + at + 1, s->rows + at, (s->count - at) * sizeof(*s->rows));
    s->rows[at] = (sf_sampled){hash, row->db_id, sf_bytes_of(copy, row->key.n), sf__xxh3_128(value)};
    s->count++;
    return true;
}
