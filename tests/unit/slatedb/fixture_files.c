#include "fixture_files.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

static int name_cmp(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

struct names names_in(const char *dir, const char *suffix)
{
    struct names n = {0};
    DIR *d = opendir(dir);
    size_t len = strlen(suffix);

    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        size_t name_len = strlen(e->d_name);

        if (e->d_name[0] == '.' || name_len < len || strcmp(e->d_name + name_len - len, suffix) != 0)
            continue;
        n.v = realloc(n.v, (n.count + 1) * sizeof(*n.v));
        if (!n.v || !(n.v[n.count++] = strdup(e->d_name)))
            abort();
    }
    if (d)
        closedir(d);
    if (n.count > 0)
        qsort(n.v, n.count, sizeof(*n.v), name_cmp);
    return n;
}

void names_free(struct names *n)
{
    for (size_t i = 0; i < n->count; i++)
        free(n->v[i]);
    free(n->v);
    *n = (struct names){0};
}

bool file_read(const char *path, struct out *o)
{
    FILE *f = fopen(path, "rb");
    uint8_t part[65536];
    size_t n;

    if (!f)
        return false;
    while ((n = fread(part, 1, sizeof(part), f)) > 0)
        out_put(o, part, n);
    if (ferror(f))
        abort();
    fclose(f);
    return true;
}
