/* Documents that bring credentials, from whoever answers. The first byte picks the kind. What parses has keys that a header
 * can carry, and written out as a document it parses to the same. */
#include <stdlib.h>

#include "auth/credential_process.h"
#include "auth/credentials.h"
#include "base/strbuf.h"

static void check_text(const char *s, bool needed)
{
    if (!s) {
        if (needed)
            abort();
        return;
    }
    if (!*s)
        abort();
    for (; *s; s++)
        if ((unsigned char)*s <= ' ' || *s == 0x7f)
            abort();
}

static bool same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : !a && !b;
}

/* JSON strings; the keys hold neither quotes nor backslashes in the check below. */
static void check_again(const sf_credentials *c)
{
    sf_credentials *again;
    sf_strbuf b;

    if (strpbrk(c->access_key_id, "\"\\") || strpbrk(c->secret_access_key, "\"\\") ||
        (c->session_token && strpbrk(c->session_token, "\"\\")))
        return;
    sf__strbuf_init(&b, &sf__allocator_default);
    sf__strbuf_printf(&b, "{\"Version\":1,\"AccessKeyId\":\"%s\",\"SecretAccessKey\":\"%s\"", c->access_key_id,
                      c->secret_access_key);
    if (c->session_token)
        sf__strbuf_printf(&b, ",\"SessionToken\":\"%s\"", c->session_token);
    sf__strbuf_puts(&b, "}");
    if (sf__credentials_parse(&again, SF_CREDENTIALS_FROM_PROCESS, sf_bytes_of(b.s, b.n), &sf__allocator_default,
                              NULL) == SF_OK) { /* what came as XML may not be UTF-8 that JSON takes */
        if (!same(c->access_key_id, again->access_key_id) || !same(c->secret_access_key, again->secret_access_key) ||
            !same(c->session_token, again->session_token) || again->expires_us != 0)
            abort();
        sf__credentials_release(again);
    }
    sf__strbuf_cleanup(&b);
}

static void check_command(sf_bytes text)
{
    char *command = sf__strndup(&sf__allocator_default, text.p, text.n), **words;
    size_t total = 0;

    if (command && sf__command_split(&words, command, &sf__allocator_default, NULL) == SF_OK) {
        for (char **w = words; *w; w++)
            total += strlen(*w);
        if (total > text.n)
            abort();
        sf__free(&sf__allocator_default, words);
    }
    sf__free(&sf__allocator_default, command);
}

/* What is shown of it: one line. */
static void check_said(sf_bytes text)
{
    char said[SF_SAID_BYTES], last[16];

    sf__said(said, sizeof(said), text);
    sf__said_last(last, sizeof(last), text);
    for (const char *c = said; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            abort();
    for (const char *c = last; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_credentials *c;
    sf_bytes text;
    int64_t time;
    char *token;

    if (size == 0)
        return 0;
    check_said(sf_bytes_of(data + 1, size - 1));
    text = sf_bytes_of(data + 1, size - 1);
    switch (data[0] % 7) {
    case 4:
        if (sf__sso_token_parse(&token, &time, text, &sf__allocator_default, NULL) == SF_OK) {
            check_text(token, true);
            sf__secret_free(&sf__allocator_default, token);
        }
        break;
    case 5:
        if (sf__credential_time_parse(text, &time) && time < 0 - INT64_C(86400000000))
            abort();
        break;
    case 6:
        check_command(text);
        break;
    default:
        if (sf__credentials_parse(&c, (sf_credential_document)(data[0] % 7), text, &sf__allocator_default, NULL) != SF_OK)
            break;
        check_text(c->access_key_id, true);
        check_text(c->secret_access_key, true);
        check_text(c->session_token, false);
        check_again(c);
        sf__credentials_release(c);
        break;
    }
    return 0;
}
