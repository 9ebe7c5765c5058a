/* INI files of other tools: whatever they hold, every item lies inside the text, is trimmed, and the items written out
 * as a file are read as the same items again. */
#include <stdlib.h>

#include "auth/ini.h"
#include "base/strbuf.h"

struct trace {
    sf_bytes text;
    sf_strbuf file; /* the items as a file */
    sf_strbuf list; /* what reading that file has to give */
};

static void check_inside(sf_bytes text, sf_bytes b)
{
    if (b.n == 0)
        return;
    if (b.p < text.p || b.n > text.n || (size_t)(b.p - text.p) > text.n - b.n)
        abort();
    if (memchr(b.p, '\n', b.n) || b.p[0] == ' ' || b.p[b.n - 1] == ' ' || b.p[0] == '\t' || b.p[b.n - 1] == '\t')
        abort();
}

static void add(sf_strbuf *out, const char *before, sf_bytes b, const char *after)
{
    sf__strbuf_puts(out, before);
    sf__strbuf_add(out, b.p, b.n);
    sf__strbuf_puts(out, after);
}

static void list_item(sf_strbuf *out, const sf_ini_item *it)
{
    add(out, "[", it->section, "]");
    add(out, "(", it->parent, ")");
    add(out, "", it->name, "=");
    add(out, "", it->value, "\n");
}

static void on_item(void *ctx, const sf_ini_item *it)
{
    struct trace *t = ctx;

    check_inside(t->text, it->section);
    check_inside(t->text, it->parent);
    check_inside(t->text, it->name);
    check_inside(t->text, it->value);
    if (it->fault)
        return;
    if (it->section.n == 0 || it->name.n == 0 || memchr(it->name.p, '=', it->name.n))
        abort();
    add(&t->file, "[", it->section, "]\n");
    if (it->parent.n > 0) { /* it takes a setting to have settings below it */
        add(&t->file, "", it->parent, "=\n");
        list_item(&t->list, &(sf_ini_item){.section = it->section, .name = it->parent});
    }
    add(&t->file, it->parent.n > 0 ? " " : "", it->name, "="); /* no blank: a '#' behind one begins a comment */
    add(&t->file, "", it->value, "\n");
    list_item(&t->list, it);
}

static void on_item_again(void *ctx, const sf_ini_item *it)
{
    list_item(ctx, it);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct trace t = {.text = sf_bytes_of(data, size)};
    sf_strbuf again;

    sf__strbuf_init(&t.file, &sf__allocator_default);
    sf__strbuf_init(&t.list, &sf__allocator_default);
    sf__strbuf_init(&again, &sf__allocator_default);
    sf__ini_parse(t.text, on_item, &t);
    sf__ini_parse(sf_bytes_of(t.file.s, t.file.n), on_item_again, &again);
    if (t.list.n != again.n || (again.n > 0 && memcmp(t.list.s, again.s, again.n) != 0))
        abort();
    sf__strbuf_cleanup(&t.file);
    sf__strbuf_cleanup(&t.list);
    sf__strbuf_cleanup(&again);
    return 0;
}
