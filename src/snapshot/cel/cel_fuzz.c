/* CEL: a text compiles or is refused with a reason; what compiles is evaluated within its bounds, twice to
 * the same value. */
#include <stdlib.h>
#include <string.h>

#include "snapshot/cel/cel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool ok)
{
    if (!ok)
        abort();
}

static const sf_cel_column columns[] = {
    {{(const uint8_t *)"i", 1}, SF_CEL_INT},    {{(const uint8_t *)"u", 1}, SF_CEL_UINT},
    {{(const uint8_t *)"d", 1}, SF_CEL_DOUBLE}, {{(const uint8_t *)"b", 1}, SF_CEL_BOOL},
    {{(const uint8_t *)"s", 1}, SF_CEL_STRING}, {{(const uint8_t *)"y", 1}, SF_CEL_BYTES},
    {{(const uint8_t *)"a.b", 3}, SF_CEL_INT},  {{(const uint8_t *)"key", 3}, SF_CEL_STRING},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const sf_allocator *a = &sf__allocator_default;
    sf_cel_value values[8] = {
        sf__cel_int(-3),
        sf__cel_uint(7),
        sf__cel_double(1.5),
        sf__cel_bool(true),
        sf__cel_string(sf_bytes_str("h\xc3\xa9llo")),
        sf__cel_bytes(sf_bytes_of("\x00\xff", 2)),
        {.kind = SF_CEL_ABSENT},
        sf__cel_bytes(sf_bytes_of("k\x00y", 3)),
    };
    sf_cel_value first, second;
    sf_error err = SF_ERROR_INIT;
    sf_cel_memory m, again;
    sf_cel *c;
    bool ok;

    if (sf__cel_compile(&c, sf_bytes_of(data, size), columns, 8, a, &err) != SF_OK) {
        expect(err.code == SF_INVALID && err.message[0] != '\0');
        return 0;
    }
    sf__cel_memory_init(&m, a);
    sf__cel_memory_init(&again, a);
    ok = sf__cel_eval(c, values, NULL, &m, &first);
    expect(ok || m.reason[0] != '\0');
    expect(sf__cel_eval(c, values, NULL, &again, &second) == ok);
    if (ok) {
        bool same;

        expect(first.kind == second.kind);
        m.steps_left = again.steps_left = UINT32_MAX;
        expect(sf__cel_equal(&m, &first, &second, &same));
        expect(same || first.kind == SF_CEL_DOUBLE || first.kind == SF_CEL_LIST || first.kind == SF_CEL_MAP); /* not a NaN */
    } else {
        expect(strcmp(m.reason, again.reason) == 0);
    }
    sf__cel_memory_cleanup(&again);
    sf__cel_memory_cleanup(&m);
    sf__cel_free(c);
    return 0;
}
