#include "dotenv.h"

#include <string.h>

static void clear(struct text *t)
{
    t->n = 0;
    text_add(t, "", 0);
}

/* Behind the quote at *p; false when it is never closed. */
static bool quoted(const char **p, struct text *value)
{
    static const char letters[] = "nrtabfv", said[] = "\n\r\t\a\b\f\v";
    char quote = *(*p)++;

    for (; **p && **p != quote; (*p)++) {
        const char *letter;

        if (**p != '\\' || !(*p)[1]) {
            text_putc(value, **p);
            continue;
        }
        (*p)++;
        letter = quote == '"' ? strchr(letters, **p) : NULL;
        if (letter)
            text_putc(value, said[letter - letters]);
        else if (**p == '\\' || **p == quote)
            text_putc(value, **p);
        else
            text_add(value, *p - 1, 2); /* no escape */
    }
    if (!**p)
        return false;
    (*p)++;
    return true;
}

/* To the line's end, without a comment behind a blank, and without blanks around it. */
static void bare(const char **p, struct text *value)
{
    size_t n = strcspn(*p, "\r\n");
    size_t length = n;

    for (size_t i = 0; i < n; i++)
        if ((*p)[i] == '#' && (i == 0 || strchr(" \t", (*p)[i - 1]))) {
            length = i;
            break;
        }
    while (length > 0 && strchr(" \t", (*p)[length - 1]))
        length--;
    text_add(value, *p, length);
    *p += n;
}

static bool line(const char **p, struct text *name, struct text *value)
{
    const char *blanks = " \t";

    clear(name);
    clear(value);
    *p += strspn(*p, blanks);
    if (strncmp(*p, "export", 6) == 0 && (*p)[6] && strchr(blanks, (*p)[6]))
        *p += 6 + strspn(*p + 6, blanks);
    text_add(name, *p, strcspn(*p, "= \t\r\n#'\""));
    *p += name->n;
    *p += strspn(*p, blanks);
    if (name->n == 0 || **p != '=')
        return false;
    (*p)++;
    *p += strspn(*p, blanks);
    if (**p == '\'' || **p == '"')
        return quoted(p, value);
    bare(p, value);
    return true;
}

bool dotenv_next(const char **p, struct text *name, struct text *value)
{
    bool found = false;

    while (**p && !found) {
        *p += strspn(*p, "\r\n");
        found = line(p, name, value);
        *p += strcspn(*p, "\r\n"); /* what stands behind a quoted value, or is no variable */
    }
    return found;
}
