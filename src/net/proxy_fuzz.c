/* A list of hosts that are reached directly, a line feed, and a host. What matches still does with other entries around it,
 * and in capitals. */
#include <ctype.h>
#include <stdlib.h>

#include "base/strbuf.h"
#include "net/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const sf_allocator *a = &sf__allocator_default;
    const uint8_t *end = size > 0 ? memchr(data, '\n', size) : NULL;
    size_t n = end ? (size_t)(end - data) : size;
    sf_bytes host = end ? sf_bytes_of(end + 1, size - n - 1) : (sf_bytes){0};
    sf_strbuf more;
    char *list;

    if (memchr(data, '\0', n))
        return 0;
    list = sf__strndup(a, data, n);
    sf__strbuf_init(&more, a);
    sf__strbuf_printf(&more, "nobody.invalid:1,%s,10.0.0.0/33", list);
    for (size_t i = 0; i < more.n; i++)
        more.s[i] = (char)toupper((unsigned char)more.s[i]);
    if (sf__no_proxy_matches(list, host, 443) && !sf__no_proxy_matches(more.s, host, 443))
        abort();
    sf__strbuf_cleanup(&more);
    sf__free(a, list);
    return 0;
}
