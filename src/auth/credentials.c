#include "auth/credentials.h"

#include <time.h>

#include "base/error.h"
#include "base/json.h"
#include "base/wipe.h"
#include "base/xml.h"

void sf__secret_free(const sf_allocator *a, char *s)
{
    if (s)
        explicit_bzero(s, strlen(s));
    sf__free(a, s);
}

/* ------------------------------------------------------------------ the triple ----------------------------------- */

/* Bytes that would end a header, or that no key has. */
static sf_status check_part(sf_bytes b, const char *what, sf_error *err)
{
    if (b.n > SF_CREDENTIAL_BYTES)
        return sf_fail(err, SF_INVALID, "credentials: %s is longer than %u bytes", what, SF_CREDENTIAL_BYTES);
    for (size_t i = 0; i < b.n; i++)
        if (b.p[i] <= ' ' || b.p[i] == 0x7f)
            return sf_fail(err, SF_INVALID, "credentials: %s holds a blank or control character", what);
    return SF_OK;
}

static sf_credentials *credentials_alloc(int64_t expires_us, const sf_allocator *a)
{
    sf_credentials *c = sf__calloc(a, 1, sizeof(*c));

    if (!c)
        return NULL;
    c->refs = 1;
    c->alloc = a;
    c->expires_us = expires_us < 0 ? 1 : expires_us; /* over, and near enough to reckon with */
    return c;
}

sf_status sf__credentials_new(sf_credentials **out, sf_bytes access_key_id, sf_bytes secret_access_key,
                              sf_bytes session_token, int64_t expires_us, const sf_allocator *a, sf_error *err)
{
    sf_credentials *c;
    sf_status rc = check_part(access_key_id, "the access key id", err);

    if (rc == SF_OK)
        rc = check_part(secret_access_key, "the secret access key", err);
    if (rc == SF_OK)
        rc = check_part(session_token, "the session token", err);
    if (rc == SF_OK && (access_key_id.n == 0 || secret_access_key.n == 0))
        rc = sf_fail(err, SF_INVALID, "credentials: a key is empty");
    if (rc != SF_OK)
        return rc;
    c = credentials_alloc(expires_us, a);
    if (!c)
        return sf_fail(err, SF_NOMEM, "credentials");
    c->access_key_id = sf__strndup(a, access_key_id.p, access_key_id.n);
    c->secret_access_key = sf__strndup(a, secret_access_key.p, secret_access_key.n);
    if (session_token.n > 0)
        c->session_token = sf__strndup(a, session_token.p, session_token.n);
    if (!c->access_key_id || !c->secret_access_key || (session_token.n > 0 && !c->session_token)) {
        sf__credentials_release(c);
        return sf_fail(err, SF_NOMEM, "credentials");
    }
    *out = c;
    return SF_OK;
}

sf_status sf__credentials_none(sf_credentials **out, const char *looked_at, int64_t expires_us, const sf_allocator *a,
                               sf_error *err)
{
    sf_credentials *c = credentials_alloc(expires_us, a);

    if (c && looked_at)
        c->looked_at = sf__strdup(a, looked_at);
    if (!c || (looked_at && !c->looked_at)) {
        sf__credentials_release(c);
        return sf_fail(err, SF_NOMEM, "credentials");
    }
    *out = c;
    return SF_OK;
}

sf_credentials *sf__credentials_acquire(sf_credentials *c)
{
    c->refs++;
    return c;
}

void sf__credentials_release(sf_credentials *c)
{
    const sf_allocator *a;

    if (!c || --c->refs > 0)
        return;
    a = c->alloc;
    sf__secret_free(a, c->access_key_id);
    sf__secret_free(a, c->secret_access_key);
    sf__secret_free(a, c->session_token);
    sf__free(a, c->looked_at);
    sf__free(a, c);
}

/* ------------------------------------------------------------------ times ---------------------------------------- */

static bool take_digits(sf_cursor *c, size_t count, int *out)
{
    sf_cursor rest = *c;
    sf_bytes b;
    int v = 0;

    if (!sf_cursor_take(&rest, count, &b))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (b.p[i] < '0' || b.p[i] > '9')
            return false;
        v = v * 10 + (b.p[i] - '0');
    }
    *c = rest;
    *out = v;
    return true;
}

static bool take_mark(sf_cursor *c, char mark)
{
    sf_bytes b;

    if (c->n == 0 || c->p[0] != (uint8_t)mark)
        return false;
    return sf_cursor_take(c, 1, &b);
}

static bool take_offset(sf_cursor *c, int *minutes)
{
    int sign = c->n > 0 && c->p[0] == '-' ? -1 : 1, h, m;

    *minutes = 0;
    if (c->n == 0 || take_mark(c, 'Z') || take_mark(c, 'z')) /* without a zone it is UTC: what else could both sides mean */
        return true;
    if (c->n > 3 && c->p[0] == ' ')
        *c = sf_bytes_of(c->p + 1, c->n - 1);
    if (sf_bytes_eq(*c, sf_bytes_str("UTC"))) {
        c->n = 0;
        return true;
    }
    if (!take_mark(c, '+') && !take_mark(c, '-'))
        return false;
    if (!take_digits(c, 2, &h))
        return false;
    if (c->n == 3 && !take_mark(c, ':')) /* the colon may be left out */
        return false;
    if (!take_digits(c, 2, &m) || h > 23 || m > 59)
        return false;
    *minutes = sign * (h * 60 + m);
    return true;
}

bool sf__credential_time_parse(sf_bytes s, int64_t *out_us)
{
    struct tm t = {0};
    int offset, digit;

    if (!take_digits(&s, 4, &t.tm_year) || !take_mark(&s, '-') || !take_digits(&s, 2, &t.tm_mon) ||
        !take_mark(&s, '-') || !take_digits(&s, 2, &t.tm_mday) ||
        !(take_mark(&s, 'T') || take_mark(&s, 't') || take_mark(&s, ' ')) || !take_digits(&s, 2, &t.tm_hour) ||
        !take_mark(&s, ':') || !take_digits(&s, 2, &t.tm_min) || !take_mark(&s, ':') || !take_digits(&s, 2, &t.tm_sec))
        return false;
    if (t.tm_year < 1970 || t.tm_mon < 1 || t.tm_mon > 12 || t.tm_mday < 1 || t.tm_mday > 31 || t.tm_hour > 23 ||
        t.tm_min > 59 || t.tm_sec > 60)
        return false;
    if (take_mark(&s, '.'))
        while (take_digits(&s, 1, &digit)) /* below what matters */
            continue;
    if (!take_offset(&s, &offset) || s.n > 0)
        return false;
    t.tm_year -= 1900;
    t.tm_mon -= 1;
    *out_us = ((int64_t)timegm(&t) - (int64_t)offset * 60) * 1000000;
    return true;
}

/* ------------------------------------------------------------------ JSON ----------------------------------------- */

static sf_bytes text_of(const sf_json *object, const char *name)
{
    const sf_json *v = sf__json_get(object, name);

    return v && v->kind == SF_JSON_STRING ? v->str : (sf_bytes){0};
}

/* Milliseconds since 1970, as SSO gives them. */
static bool parse_ms(const sf_json *v, int64_t *out_us)
{
    int64_t ms = 0;

    if (!v || v->kind != SF_JSON_INT || v->raw.n == 0 || v->raw.n > 15)
        return false;
    for (size_t i = 0; i < v->raw.n; i++) {
        if (v->raw.p[i] < '0' || v->raw.p[i] > '9')
            return false;
        ms = ms * 10 + (v->raw.p[i] - '0');
    }
    *out_us = ms * 1000;
    return true;
}

/* Absent and null: never. */
static bool parse_expiry(const sf_json *v, int64_t *out_us)
{
    *out_us = 0;
    if (!v || v->kind == SF_JSON_NULL)
        return true;
    return v->kind == SF_JSON_STRING ? sf__credential_time_parse(v->str, out_us) : parse_ms(v, out_us);
}

static sf_status take_json(sf_credentials **out, const sf_json *object, const char *const names[4],
                           const sf_allocator *a, sf_error *err)
{
    sf_bytes id = text_of(object, names[0]), secret = text_of(object, names[1]), token = text_of(object, names[2]);
    int64_t expires_us;

    if (id.n == 0 || secret.n == 0)
        return sf_fail(err, SF_CORRUPT, "the document has no %s", id.n == 0 ? names[0] : names[1]);
    if (!parse_expiry(sf__json_get(object, names[3]), &expires_us))
        return sf_fail(err, SF_CORRUPT, "%s is not a time", names[3]);
    return sf__credentials_new(out, id, secret, token, expires_us, a, err);
}

static sf_status read_json(sf_credentials **out, sf_credential_document kind, const sf_json *root,
                           const sf_allocator *a, sf_error *err)
{
    static const char *const process[] = {"AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"},
                             *const endpoint[] = {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"},
                             *const sso[] = {"accessKeyId", "secretAccessKey", "sessionToken", "expiration"};
    const sf_json *version;
    sf_bytes code;

    if (root->kind != SF_JSON_OBJECT)
        return sf_fail(err, SF_CORRUPT, "the document is no JSON object");
    switch (kind) {
    case SF_CREDENTIALS_FROM_PROCESS:
        version = sf__json_get(root, "Version");
        if (!version || !sf_bytes_eq(version->raw, sf_bytes_str("1")))
            return sf_fail(err, SF_UNSUPPORTED, "the document's Version is not 1");
        return take_json(out, root, process, a, err);
    case SF_CREDENTIALS_FROM_ENDPOINT:
        code = text_of(root, "Code");
        if (code.n > 0 && !sf_bytes_eq(code, sf_bytes_str("Success")))
            return sf_fail(err, SF_DENIED, "the document's Code is not Success");
        return take_json(out, root, endpoint, a, err);
    default:
        return take_json(out, sf__json_get(root, "roleCredentials"), sso, a, err);
    }
}

/* ------------------------------------------------------------------ XML ------------------------------------------ */

struct role_reader {
    char *id, *secret, *token, *expiration;
};

/* ".../Credentials/NAME", whatever the call was named. */
static void role_end(sf_xml_reader *r, const char *path, const char *text)
{
    struct role_reader *role = r->ctx;
    const char *at = strstr(path, "Result/Credentials/"), *name = at ? strrchr(at, '/') + 1 : "";
    const struct {
        const char *name;
        char **to;
    } parts[] = {
        {"AccessKeyId", &role->id},
        {"SecretAccessKey", &role->secret},
        {"SessionToken", &role->token},
        {"Expiration", &role->expiration},
    };

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (strcmp(name, parts[i].name) == 0)
            sf__xml_set_text(r, parts[i].to, text);
}

/* AssumeRole and AssumeRoleWithWebIdentity of the token service. */
static sf_status read_role(sf_bytes body, sf_credentials **out, const sf_allocator *a, sf_error *err)
{
    struct role_reader role = {0};
    sf_allocator wiping;
    int64_t expires_us = 0;
    sf_status rc;

    sf__wiping_allocator(&wiping, a);
    rc = sf__xml_read(body, role_end, &role, &wiping, err);
    if (rc == SF_OK && (!role.id || !role.secret || !role.token || !role.expiration))
        rc = sf_fail(err, SF_CORRUPT, "XML: no credentials of an assumed role");
    if (rc == SF_OK && !sf__credential_time_parse(sf_bytes_str(role.expiration), &expires_us))
        rc = sf_fail(err, SF_CORRUPT, "XML: Expiration is not a time");
    if (rc == SF_OK)
        rc = sf__credentials_new(out, sf_bytes_str(role.id), sf_bytes_str(role.secret), sf_bytes_str(role.token),
                                 expires_us, a, err);
    sf__free(&wiping, role.id);
    sf__free(&wiping, role.secret);
    sf__free(&wiping, role.token);
    sf__free(&wiping, role.expiration);
    return rc;
}

/* ------------------------------------------------------------------ any document --------------------------------- */

sf_status sf__credentials_parse(sf_credentials **out, sf_credential_document kind, sf_bytes text, const sf_allocator *a,
                                sf_error *err)
{
    sf_json_doc doc;
    sf_allocator wiping;
    sf_status rc;

    if (kind == SF_CREDENTIALS_FROM_STS)
        return read_role(text, out, a, err);
    sf__wiping_allocator(&wiping, a);
    rc = sf__json_parse(&doc, text, 0, &wiping, err);
    if (rc != SF_OK)
        return rc;
    rc = read_json(out, kind, doc.root, a, err);
    sf__json_cleanup(&doc);
    return rc;
}

sf_status sf__sso_token_parse(char **token, int64_t *expires_us, sf_bytes text, const sf_allocator *a, sf_error *err)
{
    sf_json_doc doc;
    sf_allocator wiping;
    sf_bytes value;
    sf_status rc;

    sf__wiping_allocator(&wiping, a);
    rc = sf__json_parse(&doc, text, 0, &wiping, err);
    if (rc != SF_OK)
        return rc;
    value = text_of(doc.root, "accessToken");
    if (value.n == 0)
        rc = sf_fail(err, SF_CORRUPT, "the document has no accessToken");
    else if (!sf__json_get(doc.root, "expiresAt") || !parse_expiry(sf__json_get(doc.root, "expiresAt"), expires_us))
        rc = sf_fail(err, SF_CORRUPT, "expiresAt is not a time");
    else
        rc = check_part(value, "the accessToken", err);
    if (rc == SF_OK) {
        *token = sf__strndup(a, value.p, value.n);
        if (!*token)
            rc = sf_fail(err, SF_NOMEM, "SSO token");
    }
    sf__json_cleanup(&doc);
    return rc;
}
