/* Pointers: a parsed one, written and parsed again, is the same; and written again it has the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "snapshot/current.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const sf_allocator *a = &sf__allocator_default;
    sf_error err = {.code = SF_OK};
    sf_current c, back;
    char *text, *again;
    sf_status rc = sf__current_parse(&c, sf_bytes_of(data, size), a, &err);

    if (rc != SF_OK) {
        expect(rc == SF_BAD_MANIFEST && err.code == rc && err.message[0] != '\0');
        return 0;
    }
    expect(sf__current_format(&text, c.manifest_ref, c.manifest_content_type, c.run_id, c.updated_at_us, a, NULL) ==
           SF_OK);
    /* what is written is ASCII with escapes, so it may be longer than what was read */
    rc = sf__current_parse(&back, sf_bytes_str(text), a, &err);
    if (rc == SF_OK) {
        expect(strcmp(c.manifest_ref, back.manifest_ref) == 0 && strcmp(c.run_id, back.run_id) == 0);
        expect(c.updated_at_us == back.updated_at_us && !back.updated_at_naive);
        expect(strcmp(back.manifest_content_type, c.manifest_content_type) == 0);
        expect(sf__current_format(&again, back.manifest_ref, back.manifest_content_type, back.run_id,
                                  back.updated_at_us, a, NULL) == SF_OK);
        expect(strcmp(text, again) == 0);
        sf__free(a, again);
        sf__current_cleanup(&back, a);
    } else {
        expect(rc == SF_BAD_MANIFEST && strlen(text) > size);
    }
    sf__free(a, text);
    sf__current_cleanup(&c, a);
    return 0;
}
