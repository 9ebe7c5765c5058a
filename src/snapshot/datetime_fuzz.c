/* Dates and times: what parses lies within the years 1 to 9999 (plus a zone's day) and, written, parses to the same. */
#include <stdlib.h>

#include "snapshot/datetime.h"
#include "snapshot/lax.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool ok)
{
    if (!ok)
        abort();
}

static void round_trip(int64_t us)
{
    char text[SF_DATETIME_TEXT], folder[SF_DATETIME_TEXT];
    sf_datetime back;

    sf__datetime_format(text, us);
    sf__datetime_format_folder(folder, us);
    if (us < INT64_C(-62135596800000000) || us >= INT64_C(253402300800000000))
        return; /* a zone led out of the years that can be written */
    expect(sf__datetime_parse(sf_bytes_str(text), &back) && back.us == us && !back.naive);
    expect(sf__datetime_parse(sf_bytes_str(folder), &back) && back.us == us && strlen(folder) == 27);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_bytes text = sf_bytes_of(data, size);
    sf_lax_int i;
    sf_datetime t;
    sf_decimal d;
    int64_t us;

    if (sf__datetime_parse(text, &t))
        round_trip(t.us);
    if (sf__datetime_from_number(text, &t))
        round_trip(t.us);
    if (sf__decimal_parse(text, &d))
        expect(d.nanos < 1000000000 && (d.has_fraction || d.nanos == 0) && (d.negative ? d.whole <= 0 : d.whole >= 0));
    (void)(sf__lax_int_from_text(text, &i) && i.fits);
    if (size >= 8) {
        memcpy(&us, data, 8);
        round_trip(us);
    }
    return 0;
}
