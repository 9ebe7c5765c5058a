#include "toml.h"

#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>

#include <toml++/toml.h>

struct toml_document {
    toml::table root;
};

struct toml_document *toml_parse(const char *text, size_t n, char *why, size_t why_size)
{
    try {
        return new toml_document{toml::parse(std::string_view(text, n))};
    } catch (const toml::parse_error &e) {
        const auto &at = e.source().begin;

        snprintf(why, why_size, "line %u, column %u: %.*s", static_cast<unsigned>(at.line),
                 static_cast<unsigned>(at.column), static_cast<int>(e.description().size()), e.description().data());
    } catch (const std::exception &e) {
        snprintf(why, why_size, "%s", e.what());
    }
    return nullptr;
}

void toml_free(struct toml_document *t)
{
    delete t;
}

bool toml_has_table(const struct toml_document *t, const char *table)
{
    return t->root.get_as<toml::table>(table) != nullptr;
}

void toml_each_key(const struct toml_document *t, const char *table, toml_key_fn tell, void *of)
{
    const auto *in = table ? t->root.get_as<toml::table>(table) : &t->root;

    if (in)
        for (const auto &entry : *in)
            tell(of, std::string(entry.first.str()).c_str());
}

struct toml_value toml_get(const struct toml_document *t, const char *table, const char *key)
{
    struct toml_value v = {};
    const auto *in = t->root.get_as<toml::table>(table);
    const auto *node = in ? in->get(key) : nullptr;

    if (!node)
        return v;
    v.kind = TOML_OTHER;
    if (const auto *text = node->as_string()) {
        if (strlen(text->get().c_str()) == text->get().size()) {
            v.kind = TOML_TEXT;
            v.text = text->get().c_str();
        }
    } else if (const auto *integer = node->as_integer()) {
        v.kind = TOML_INTEGER;
        v.integer = integer->get();
        v.real = static_cast<double>(integer->get());
    } else if (const auto *real = node->as_floating_point()) {
        v.kind = TOML_REAL;
        v.real = real->get();
    } else if (const auto *boolean = node->as_boolean()) {
        v.kind = TOML_BOOL;
        v.boolean = boolean->get();
    }
    return v;
}
