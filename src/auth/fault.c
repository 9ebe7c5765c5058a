#include "auth/fault.h"

#include <string.h>

#include "base/xml.h"

void sf__s3_fault_text(char *out, size_t cap, const char *s)
{
    size_t n = strlen(s);

    if (n >= cap) {
        n = cap - 1;
        while (n > 0 && ((unsigned char)s[n] & 0xc0) == 0x80)
            n--;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)s[i] < ' ' || s[i] == 0x7f ? ' ' : s[i];
    out[n] = '\0';
}

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

void sf__s3_fault_field(sf_s3_fault *f, const char *name, const char *text)
{
    if (is(name, "Code"))
        sf__s3_fault_text(f->code, sizeof(f->code), text);
    else if (is(name, "Message"))
        sf__s3_fault_text(f->message, sizeof(f->message), text);
    else if (is(name, "Region"))
        sf__s3_fault_text(f->region, sizeof(f->region), text);
    else if (is(name, "RequestId"))
        sf__s3_fault_text(f->request_id, sizeof(f->request_id), text);
    else if (is(name, "ActualObjectSize"))
        f->has_actual_size = sf__xml_u64(text, &f->actual_size);
}

bool sf__s3_fault_element(sf_s3_fault *f, const char *path, const char *text)
{
    if (strncmp(path, "ErrorResponse/", 14) == 0) /* the token service wraps its errors */
        path += 14;
    if (strncmp(path, "Error/", 6) == 0)
        sf__s3_fault_field(f, path + 6, text);
    return is(path, "Error");
}

struct fault_reader {
    sf_s3_fault *out;
    bool is_error;
};

static void fault_end(sf_xml_reader *r, const char *path, const char *text)
{
    struct fault_reader *f = r->ctx;

    if (sf__s3_fault_element(f->out, path, text))
        f->is_error = true;
}

bool sf__s3_fault_read(sf_bytes body, sf_s3_fault *out, const sf_allocator *a)
{
    struct fault_reader f = {.out = out};

    *out = (sf_s3_fault){0};
    if (sf__xml_read(body, fault_end, &f, a, NULL) == SF_OK && f.is_error)
        return true;
    *out = (sf_s3_fault){0};
    return false;
}
