/* Arrow's texts for types: nothing is read behind the end, what is taken has a name, and widths that its values can have. */
#include <stdlib.h>
#include <string.h>

#include "writer/arrow_format.h"

static void must(bool ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), name[64], little[3], again[80], *end;
    struct ArrowSchema inner = {.format = text}, outer = {.format = "i", .dictionary = &inner};
    sf_arrow_format f = {.layout = SF_ARROW_RUNS};

    must(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    sf__arrow_type_name(&inner, little, sizeof(little));
    must(strlen(little) == 2);
    sf__arrow_type_name(&inner, name, sizeof(name));
    must(name[0] != '\0');
    sf__arrow_type_name(&outer, again, sizeof(again));
    must(strncmp(again, "dictionary of ", 14) == 0 && strncmp(again + 14, name, strlen(name)) == 0);
    if (sf__arrow_format_parse(&f, text)) {
        must(strncmp(name, "Arrow format", 12) != 0);
        must(f.layout < SF_ARROW_INDEX);
        if (f.layout == SF_ARROW_DECIMAL)
            must(f.width >= 4 && f.width <= 32 && (f.width & (f.width - 1)) == 0);
        else if (f.layout == SF_ARROW_FIXED)
            must(strtoul(text + 2, &end, 10) == f.width && *end == '\0' && end > text + 2);
        else
            must(f.width <= 8 && (!f.is_text || f.width == 0));
    } else {
        must(f.layout == SF_ARROW_RUNS);
    }
    free(text);
    return 0;
}
