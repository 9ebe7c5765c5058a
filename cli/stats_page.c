/* The page of `shardy stats --html`: bars in SVG, tables beside them for whoever cannot see or hover. */
#include "stats.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BARS_MAX 200  /* of a chart: more would be thinner than a pixel */
#define TABLE_MAX 500 /* shards in the table */

/* A chart, in units of the SVG. */
#define WIDTH 720
#define HEIGHT 240
#define LEFT 64
#define RIGHT 8
#define TOP 20
#define BOTTOM 32

static const char STYLE[] =
    ":root{color-scheme:light dark;--page:#fbfbfa;--ink:#16161a;--soft:#5b5b62;--line:#dcdcd8;--bar:#2a6fc9;--mark:#b3261e}"
    "@media(prefers-color-scheme:dark){:root{--page:#17181b;--ink:#f2f2f0;--soft:#a9a9ae;--line:#36373c;--bar:#5c9ded;--mark:#ff8a7a}}"
    "*{box-sizing:border-box}"
    "body{margin:0 auto;max-width:52rem;padding:1.5rem 1rem 4rem;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}"
    "h1{font-size:1.35rem;margin:0 0 .25rem;overflow-wrap:anywhere}h2{font-size:1.05rem;margin:2.25rem 0 .25rem}"
    "p{margin:.25rem 0;color:var(--soft)}"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:1rem 0}"
    "dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.75rem;padding:0;margin:1.25rem 0;list-style:none}"
    ".tiles li{border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem;color:var(--soft);font-size:.875rem}"
    ".tiles b{display:block;color:var(--ink);font-size:1.3rem;font-weight:600}"
    ".wide{overflow-x:auto}svg{display:block;width:100%;min-width:36rem;height:auto}"
    "svg text{fill:var(--soft);font-size:12px}.bar{fill:var(--bar)}.bar:hover{fill:var(--ink)}"
    ".grid{stroke:var(--line)}.halo{stroke:var(--page);stroke-width:2.5;opacity:.7}.mean{stroke:var(--mark);stroke-width:1.5;stroke-dasharray:5 4}"
    "svg .mark{fill:var(--mark);stroke:var(--page);stroke-width:4;stroke-linejoin:round;paint-order:stroke}"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.875rem}"
    "th,td{text-align:right;padding:.2rem .6rem;border-bottom:1px solid var(--line)}th{color:var(--soft);font-weight:500}"
    "th,td{white-space:nowrap}td:last-child,th:last-child{white-space:normal;text-align:left;overflow-wrap:anywhere}summary{cursor:pointer;margin:2rem 0 .5rem}";

/* ------------------------------------------------------------------ text ------------------------------------------ */

/* As text or inside of quotes; what a terminal would not get stands there as it would be told there. */
static void put(struct text *t, const char *s)
{
    struct text plain = {0};

    text_escaped(&plain, s, strlen(s));
    for (const char *p = text_str(&plain); *p; p++) {
        const char *entity = *p == '&'   ? "&amp;"
                             : *p == '<' ? "&lt;"
                             : *p == '>' ? "&gt;"
                             : *p == '"' ? "&quot;"
                                         : NULL;

        if (entity)
            text_puts(t, entity);
        else
            text_putc(t, *p);
    }
    text_free(&plain);
}

/* "1,234,567" */
static void put_count(struct text *t, uint64_t n)
{
    char digits[24];
    size_t count = (size_t)snprintf(digits, sizeof(digits), "%" PRIu64, n);

    for (size_t i = 0; i < count; i++) {
        if (i > 0 && (count - i) % 3 == 0)
            text_putc(t, ',');
        text_putc(t, digits[i]);
    }
}

static void put_amount(struct text *t, uint64_t n, bool is_size)
{
    if (is_size)
        text_size(t, n);
    else
        put_count(t, n);
}

/* ------------------------------------------------------------------ charts ---------------------------------------- */

struct bar {
    uint64_t value;
    char label[32]; /* below it */
    char what[64];  /* said where the pointer is */
};

struct chart {
    const char *title;
    bool is_size; /* bytes, not a number */
    double mean;  /* a line at it; 0: none */
    struct bar bars[BARS_MAX];
    size_t n;
};

/* Between lines of the grid: 1, 2 or 5 times a power of ten, of bytes a power of two, so that there are at most five. */
static uint64_t step_of(uint64_t most, bool is_size)
{
    static const uint64_t shares[] = {1, 2, 5};
    uint64_t step = 1, power = 1;

    for (size_t i = 1; step < UINT64_MAX / 32 && most / step >= 5; i++) {
        power *= i % 3 == 0 ? 10 : 1;
        step = is_size ? step * 2 : shares[i % 3] * power;
    }
    return step;
}

static void put_chart(struct text *t, const struct chart *c)
{
    const double across = WIDTH - LEFT - RIGHT, high = HEIGHT - TOP - BOTTOM;
    double room = across / (double)(c->n > 0 ? c->n : 1), bar = room > 3 ? room * 0.8 : room;
    size_t every = (c->n + 7) / 8; /* labels have room for eight */
    uint64_t most = 0, step, top;

    for (size_t i = 0; i < c->n; i++)
        most = c->bars[i].value > most ? c->bars[i].value : most;
    step = step_of(most, c->is_size);
    top = most - most % step + (most % step > 0 || most == 0 ? step : 0);
    if (bar > 48)
        bar = 48;

    text_printf(t, "<h2>%s</h2><div class=\"wide\"><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">",
                c->title, WIDTH, HEIGHT, c->title);
    for (uint64_t tick = 0; tick <= top; tick += step) {
        double y = TOP + high * (1 - (double)tick / (double)top);

        text_printf(t, "<path class=\"grid\" d=\"M%d %.1fH%d\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">", LEFT,
                    y, WIDTH - RIGHT, LEFT - 6, y + 4);
        put_amount(t, tick, c->is_size);
        text_puts(t, "</text>");
    }
    for (size_t i = 0; i < c->n; i++) {
        double h = high * (double)c->bars[i].value / (double)top, x = LEFT + room * ((double)i + 0.5);

        if (c->bars[i].value > 0 && h < 1)
            h = 1; /* what is there is seen */
        text_printf(t,
                    "<rect class=\"bar\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\"><title>%s: ", x - bar / 2,
                    TOP + high - h, bar, h, c->bars[i].what);
        put_amount(t, c->bars[i].value, c->is_size);
        text_puts(t, c->is_size ? "</title></rect>" : " rows</title></rect>");
        if (i % every == 0)
            text_printf(t, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>", x, HEIGHT - BOTTOM + 18,
                        c->bars[i].label);
    }
    if (c->mean > 0) {
        double y = TOP + high * (1 - c->mean / (double)top);

        text_printf(t, "<path class=\"halo\" d=\"M%d %.1fH%d\"/><path class=\"mean\" d=\"M%d %.1fH%d\"/>", LEFT, y,
                    WIDTH - RIGHT, LEFT, y, WIDTH - RIGHT);
        text_printf(t, "<text class=\"mark\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">mean ", WIDTH - RIGHT, y - 5);
        if (c->is_size || c->mean >= 10)
            put_amount(t, (uint64_t)(c->mean + 0.5), c->is_size);
        else
            text_printf(t, "%.2g", c->mean); /* the line is drawn between two rows */
        text_puts(t, "</text>");
    }
    text_puts(t, "</svg></div>");
}

static uint64_t rows_of(const struct shard_stats *s)
{
    return s->rows;
}

static uint64_t bytes_of(const struct shard_stats *s)
{
    return s->key_bytes + s->value_bytes;
}

/* A bar a shard, or a bar the largest of so many that follow each other. */
static void put_shards(struct text *t, const struct stats *s, const char *title, bool is_size,
                       uint64_t (*value_of)(const struct shard_stats *))
{
    struct chart *c = cli_alloc(1, sizeof(*c));
    uint32_t together = (s->shard_count + BARS_MAX - 1) / BARS_MAX;
    uint64_t all = is_size ? s->key_bytes + s->value_bytes : s->rows;

    c->title = title;
    c->is_size = is_size;
    c->mean = s->shard_count > 0 ? (double)all / s->shard_count : 0;
    for (uint32_t first = 0; first < s->shard_count; first += together) {
        struct bar *b = &c->bars[c->n++];
        uint32_t largest = first;

        for (uint32_t i = first; i < s->shard_count && i - first < together; i++)
            largest = value_of(&s->shards[i]) > value_of(&s->shards[largest]) ? i : largest;
        b->value = value_of(&s->shards[largest]);
        snprintf(b->label, sizeof(b->label), "%" PRIu32, first);
        snprintf(b->what, sizeof(b->what), "shard %" PRIu32, largest);
    }
    put_chart(t, c);
    if (together > 1)
        text_printf(t, "<p>A bar is the largest of %" PRIu32 " shards that follow each other; the mean is of all.</p>",
                    together);
    free(c);
}

static void put_sizes(struct text *t, const char *title, const uint64_t counts[SF_HISTOGRAM_BUCKETS])
{
    struct chart *c = cli_alloc(1, sizeof(*c));
    size_t first = 0, last = SF_HISTOGRAM_BUCKETS;

    while (first < SF_HISTOGRAM_BUCKETS && counts[first] == 0)
        first++;
    while (last > first && counts[last - 1] == 0)
        last--;
    c->title = title;
    for (size_t i = first; i < last; i++) {
        struct bar *b = &c->bars[c->n++];
        struct text size = {0};

        text_size(&size, i == 0 ? 0 : UINT64_C(1) << i);
        b->value = counts[i];
        snprintf(b->label, sizeof(b->label), i == 0 ? "%s" : "&lt; %s", text_str(&size));
        snprintf(b->what, sizeof(b->what), "%" PRIu64 " to %" PRIu64 " bytes", i == 0 ? 0 : UINT64_C(1) << (i - 1),
                 (UINT64_C(1) << i) - 1);
        text_free(&size);
    }
    put_chart(t, c);
    free(c);
}

/* ------------------------------------------------------------------ tables ---------------------------------------- */

static void put_fact(struct text *t, const char *name, const char *fact)
{
    text_printf(t, "<dt>%s</dt><dd>", name);
    put(t, fact ? fact : "");
    text_puts(t, "</dd>");
}

static void put_tile(struct text *t, const char *what, uint64_t n, bool is_size)
{
    text_puts(t, "<li><b>");
    put_amount(t, n, is_size);
    text_printf(t, "</b>%s</li>", what);
}

static int fullest_first(const void *a, const void *b)
{
    const struct shard_stats *x = *(const struct shard_stats *const *)a, *y = *(const struct shard_stats *const *)b;

    if (x->rows != y->rows)
        return x->rows < y->rows ? 1 : -1;
    return (x > y) - (x < y);
}

static void put_table(struct text *t, const struct cli *c, const struct stats *s)
{
    const struct shard_stats **order = cli_alloc(s->shard_count + 1, sizeof(const struct shard_stats *));
    uint32_t shown = s->shard_count < TABLE_MAX ? s->shard_count : TABLE_MAX;
    double mean = s->shard_count > 0 ? (double)s->rows / s->shard_count : 0;

    for (uint32_t i = 0; i < s->shard_count; i++)
        order[i] = &s->shards[i];
    qsort(order, s->shard_count, sizeof(*order), fullest_first);
    text_puts(t, "<details><summary>");
    if (shown < s->shard_count)
        text_printf(t, "The %" PRIu32 " fullest shards as a table", shown);
    else
        text_puts(t, "The shards as a table, the fullest first");
    text_puts(t, "</summary><div class=\"wide\"><table><tr><th>shard</th><th>rows</th><th>over mean</th><th>keys</th><th>values</th>"
                 "<th>stored</th><th>where</th></tr>");
    for (uint32_t i = 0; i < shown; i++) {
        sf_shard_info info = {0};
        uint32_t db_id = (uint32_t)(order[i] - s->shards);

        (void)sf_snapshot_get_shard(c->snap, db_id, &info);
        text_printf(t, "<tr><td>%" PRIu32 "</td><td>", db_id);
        put_count(t, order[i]->rows);
        text_printf(t, "</td><td>%.2f</td><td>", mean > 0 ? (double)order[i]->rows / mean : 0);
        text_size(t, order[i]->key_bytes);
        text_puts(t, "</td><td>");
        text_size(t, order[i]->value_bytes);
        text_puts(t, "</td><td>");
        text_size(t, info.db_bytes);
        text_puts(t, "</td><td>");
        put(t, info.db_url ? info.db_url : "(no rows)");
        text_puts(t, "</td></tr>");
    }
    text_puts(t, "</table></div></details>");
    free(order);
}

double stats_skew(const struct stats *s)
{
    return s->rows > 0 ? (double)s->most_rows * s->shard_count / (double)s->rows : 0;
}

void stats_page(struct text *t, const struct cli *c, const struct stats *s)
{
    struct text created = {0};

    text_puts(
        t,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
        "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"><title>");
    put(t, c->info.run_id);
    text_printf(t, "</title><style>%s</style></head>\n<body><h1>Snapshot ", STYLE);
    put(t, c->info.run_id);
    text_puts(t, "</h1><dl>");
    text_time(&created, c->info.created_at_us);
    put_fact(t, "made", text_str(&created));
    put_fact(t, "manifest", c->info.manifest_ref);
    put_fact(t, "published below", c->info.s3_prefix);
    put_fact(t, "routed by", c->info.strategy == SF_SHARDING_CEL ? "a rule in CEL" : "a hash of the key");
    text_puts(t, "</dl><ul class=\"tiles\">");
    put_tile(t, "rows", s->rows, false);
    put_tile(t, "shards", s->shard_count, false);
    put_tile(t, "of keys", s->key_bytes, true);
    put_tile(t, "of values", s->value_bytes, true);
    put_tile(t, "rows in the fullest shard", s->most_rows, false);
    put_tile(t, "rows in the emptiest", s->least_rows, false);
    text_printf(t, "<li><b>%.2f</b>fullest over mean</li></ul>\n", stats_skew(s));
    text_free(&created);

    put_shards(t, s, "Rows of each shard", false, rows_of);
    put_shards(t, s, "Bytes of each shard, keys and values", true, bytes_of);
    put_sizes(t, "Rows by the size of their key", s->keys);
    put_sizes(t, "Rows by the size of their value", s->values);
    put_table(t, c, s);
    text_printf(t, "<p>shardy %s, <code>shardy stats --html</code></p></body></html>\n", SF_VERSION_STRING);
}
