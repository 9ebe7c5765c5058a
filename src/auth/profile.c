#include "auth/profile.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth/credential_process.h"
#include "auth/credentials.h"
#include "auth/ini.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/strbuf.h"

/* Real ones have a few hundred lines. */
#define MAX_FILE_BYTES (1u << 20)

/* ------------------------------------------------------------------ files ---------------------------------------- */

void sf__text_file_cleanup(sf_text_file *f, const sf_allocator *a)
{
    if (f->s)
        explicit_bzero(f->s, f->n);
    sf__free(a, f->s);
    *f = (sf_text_file){0};
}

static sf_status read_all(int fd, sf_text_file *f, const sf_allocator *a, sf_error *err)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return sf_fail(err, SF_INVALID, "%s", strerror(errno));
    if (!S_ISREG(st.st_mode)) { /* /dev/null stands for "no file", a folder is what containers make of a missing one */
        f->absent = S_ISDIR(st.st_mode) ? "a folder" : "not a file";
        return SF_OK;
    }
    if (st.st_size > (off_t)MAX_FILE_BYTES)
        return sf_fail(err, SF_INVALID, "more than %u bytes", MAX_FILE_BYTES);
    f->s = sf__calloc(a, 1, (size_t)st.st_size + 1);
    if (!f->s)
        return sf_fail(err, SF_NOMEM, "%lld bytes", (long long)st.st_size);
    while (f->n < (size_t)st.st_size) {
        ssize_t n = read(fd, f->s + f->n, (size_t)st.st_size - f->n);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return sf_fail(err, SF_INVALID, "%s", strerror(errno));
        if (n == 0)
            break;
        f->n += (size_t)n;
    }
    return SF_OK;
}

/* Windows' editors write a mark in front, or UTF-16, of which nothing would be recognised. */
static sf_status check_text(sf_text_file *f, sf_error *err)
{
    if (f->n >= 2 && (memcmp(f->s, "\xff\xfe", 2) == 0 || memcmp(f->s, "\xfe\xff", 2) == 0))
        return sf_fail(err, SF_INVALID, "text in UTF-16: save it as UTF-8");
    if (f->n > 0 && memchr(f->s, '\0', f->n))
        return sf_fail(err, SF_INVALID, "no text: it holds zero bytes (save it as UTF-8)");
    if (f->n >= 3 && memcmp(f->s, "\xef\xbb\xbf", 3) == 0) {
        f->n -= 3;
        memmove(f->s, f->s + 3, f->n);
        memset(f->s + f->n, 0, 3);
    }
    return SF_OK;
}

sf_status sf__text_file_read(sf_text_file *f, const char *path, bool named, const sf_allocator *a, sf_error *err)
{
    int fd = SF_FD(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)); /* a pipe that nobody writes to must not hold us up */
    sf_status rc;

    *f = (sf_text_file){0};
    if (fd < 0) {
        f->absent = errno == EACCES ? "we may not read it" : "no such file";
        if (errno == ENOENT || errno == ENOTDIR || (errno == EACCES && !named))
            return SF_OK;
        return sf__fail_errno(err, errno, SF_INVALID, "%s", path);
    }
    rc = read_all(fd, f, a, err);
    close(fd);
    if (rc == SF_OK)
        rc = check_text(f, err);
    if (rc != SF_OK) {
        sf__text_file_cleanup(f, a);
        sf_error_prefix(err, rc, "%s: ", path);
    }
    return rc;
}

/* Services often run without the variable. */
static sf_status find_home(sf_shared_files *f, const sf_environment *env, sf_error *err)
{
    const char *home = SF_ENV(env, "HOME");
    struct passwd record, *found = NULL;
    char text[4096];

    if (!home && !env->get && getpwuid_r(geteuid(), &record, text, sizeof(text), &found) == 0 && found)
        home = found->pw_dir;
    if (!home || !*home)
        return SF_OK;
    f->home = sf__strdup(f->alloc, home);
    return f->home ? SF_OK : sf_fail(err, SF_NOMEM, "path");
}

/* With "~/", $NAME and ${NAME} for what they stand for; an unknown name stays, as botocore leaves it. */
static void expand_path(sf_strbuf *out, const char *s, const char *home, const sf_environment *env)
{
    if (s[0] == '~' && (s[1] == '/' || s[1] == '\0') && home) {
        sf__strbuf_puts(out, home);
        s++;
    }
    while (*s) {
        bool braced = s[0] == '$' && s[1] == '{';
        const char *begin = s + 1 + braced, *value = NULL;
        size_t n = s[0] == '$' ? strspn(begin, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") : 0;
        char name[128];

        if (n > 0 && n < sizeof(name) && (!braced || begin[n] == '}')) {
            memcpy(name, begin, n);
            name[n] = '\0';
            value = sf__env_get(env, name);
        }
        if (value) {
            sf__strbuf_puts(out, value);
            s = begin + n + braced;
        } else {
            sf__strbuf_putc(out, *s++);
        }
    }
}

static sf_status open_shared(sf_shared_files *f, sf_text_file *file, char **path, const sf_environment *env,
                             const char *variable, const char *usual, sf_error *err)
{
    const char *named = SF_ENV(env, variable);
    sf_strbuf b;

    if (!named && !f->home)
        return SF_OK;
    sf__strbuf_init(&b, f->alloc);
    expand_path(&b, named ? named : usual, f->home, env);
    *path = sf__strbuf_detach(&b);
    if (!*path)
        return sf_fail(err, SF_NOMEM, "path");
    return sf__text_file_read(file, *path, named != NULL, f->alloc, err);
}

sf_status sf__shared_files_read(sf_shared_files *f, const sf_environment *env, const sf_allocator *a, sf_error *err)
{
    sf_status rc;

    *f = (sf_shared_files){.alloc = a};
    rc = find_home(f, env, err);
    if (rc == SF_OK)
        rc = open_shared(f, &f->credentials, &f->credentials_path, env, "AWS_SHARED_CREDENTIALS_FILE",
                         "~/.aws/credentials", err);
    if (rc == SF_OK)
        rc = open_shared(f, &f->config, &f->config_path, env, "AWS_CONFIG_FILE", "~/.aws/config", err);
    return rc;
}

void sf__shared_files_cleanup(sf_shared_files *f)
{
    sf__text_file_cleanup(&f->credentials, f->alloc);
    sf__text_file_cleanup(&f->config, f->alloc);
    sf__free(f->alloc, f->credentials_path);
    sf__free(f->alloc, f->config_path);
    sf__free(f->alloc, f->home);
    *f = (sf_shared_files){.alloc = f->alloc};
}

/* ------------------------------------------------------------------ profiles ------------------------------------- */

static const struct setting {
    const char *parent, *name;
    size_t offset;
} settings[] = {
#define AT(field) offsetof(sf_profile, field)
    {"", "aws_access_key_id", AT(access_key)},
    {"", "aws_secret_access_key", AT(secret_key)},
    {"", "aws_session_token", AT(token)},
    {"", "aws_security_token", AT(token)}, /* its older name */
    {"", "region", AT(region)},
    {"", "endpoint_url", AT(endpoint)},
    {"", "services", AT(services)},
    {"", "ca_bundle", AT(ca_bundle)},
    {"", "ignore_configured_endpoint_urls", AT(ignore_endpoints)},
    {"", "use_fips_endpoint", AT(use_fips)},
    {"", "use_dualstack_endpoint", AT(use_dualstack)},
    {"s3", "use_dualstack_endpoint", AT(s3_dualstack)},
    {"s3", "addressing_style", AT(addressing)},
    {"s3", "endpoint_url", AT(s3_endpoint)},
    {"", "role_arn", AT(role_arn)},
    {"", "role_session_name", AT(role_session)},
    {"", "external_id", AT(external_id)},
    {"", "source_profile", AT(source_profile)},
    {"", "credential_source", AT(credential_source)},
    {"", "web_identity_token_file", AT(web_identity_file)},
    {"", "credential_process", AT(process)},
    {"", "sso_session", AT(sso_session)},
    {"", "sso_start_url", AT(sso_start_url)},
    {"", "sso_region", AT(sso_region)},
    {"", "sso_account_id", AT(sso_account)},
    {"", "sso_role_name", AT(sso_role)},
};
#define SETTINGS (sizeof(settings) / sizeof(settings[0]))
/* Settings of the sections that a profile names. */
static const struct setting service_settings[] =
    {
        {"s3", "endpoint_url", AT(s3_endpoint)},
        {"sts", "endpoint_url", AT(sts_endpoint)},
        {"sso", "endpoint_url", AT(sso_endpoint)},
    },
                            session_settings[] = {
                                {"", "sso_start_url", AT(sso_start_url)},
                                {"", "sso_region", AT(sso_region)},
#undef AT
                            };

/* One section of one file, looked for by its words. */
struct reading {
    sf_profile *p;
    const char *path;
    const char *kind, *name; /* [KIND NAME]; kind NULL: [NAME] */
    bool is_config;          /* where [default] stands for [profile default] */
    const struct setting *settings;
    size_t setting_count;
    /* found out */
    sf_bytes section; /* the last one that was looked at, and whether it is ours */
    bool ours, found;
    size_t seen[SETTINGS]; /* in which line this file sets it */
    sf_bytes seen_in[SETTINGS];
    sf_status rc;
    sf_error *err;
};

static bool is_name(sf_bytes b, const char *s)
{
    return b.n == strlen(s) && (b.n == 0 || strncasecmp((const char *)b.p, s, b.n) == 0);
}

/* "KIND NAME", with a shell's quotes and backslashes, as botocore splits it. */
static bool is_kind_and_name(struct reading *r, sf_bytes section)
{
    char *text, **words = NULL;
    bool same = false;

    if (!sf_bytes_starts_with(section, sf_bytes_str(r->kind)))
        return false;
    text = sf__strndup(r->p->alloc, section.p, section.n);
    if (!text || sf__command_split(&words, text, r->p->alloc, NULL) == SF_NOMEM)
        r->rc = sf_fail(r->err, SF_NOMEM, "profile");
    else if (words)
        same = words[0] && words[1] && !words[2] && strcmp(words[0], r->kind) == 0 && strcmp(words[1], r->name) == 0;
    sf__free(r->p->alloc, words);
    sf__free(r->p->alloc, text);
    return same;
}

static bool is_ours(struct reading *r, sf_bytes section)
{
    if (section.p == r->section.p && section.n == r->section.n)
        return r->ours;
    r->section = section;
    r->ours = r->kind ? is_kind_and_name(r, section) : sf_bytes_eq(section, sf_bytes_str(r->name));
    if (!r->ours && (r->is_config || !r->kind) && strcmp(r->name, "default") == 0)
        r->ours = is_name(section, "default");
    r->found = r->found || r->ours;
    return r->ours;
}

static void take_value(struct reading *r, size_t i, const sf_ini_item *it)
{
    char **to = (char **)((char *)r->p + r->settings[i].offset);
    bool again = r->seen[i] > 0;

    if (again && sf_bytes_eq(r->seen_in[i], it->section)) {
        r->rc = sf_fail(r->err, SF_INVALID, "%s: line %zu sets %s again, which line %zu has set", r->path, it->line,
                        r->settings[i].name, r->seen[i]);
        return;
    }
    r->seen[i] = it->line;
    r->seen_in[i] = it->section;
    if (i < 2 && r->settings == settings && !r->p->keys_path)
        r->p->keys_path = r->path;
    if (i < 4 && r->settings == settings && r->p->keys_path && r->p->keys_path != r->path)
        return;  /* keys belong together: none of another file's */
    if (again) { /* [default] and [profile default]: the later one, as botocore takes it */
        sf__secret_free(r->p->alloc, *to);
        *to = NULL;
    }
    if (*to || it->value.n == 0)
        return;
    *to = sf__strndup(r->p->alloc, it->value.p, it->value.n);
    if (!*to)
        r->rc = sf_fail(r->err, SF_NOMEM, "profile");
}

static void on_item(void *ctx, const sf_ini_item *it)
{
    struct reading *r = ctx;

    if (r->rc != SF_OK)
        return;
    if (it->fault && (it->section.n == 0 || is_ours(r, it->section))) {
        r->rc = sf_fail(r->err, SF_INVALID, "%s: line %zu is %s", r->path, it->line, it->fault); /* it may hold a secret */
        return;
    }
    if (it->fault || !is_ours(r, it->section))
        return;
    for (size_t i = 0; i < r->setting_count && r->rc == SF_OK; i++)
        if (is_name(it->parent, r->settings[i].parent) && is_name(it->name, r->settings[i].name))
            take_value(r, i, it);
}

static sf_status read_section(struct reading *r, const sf_text_file *file)
{
    sf__ini_parse(sf_bytes_of(file->s, file->n), on_item, r);
    return r->rc;
}

/* [services NAME] holds the endpoint of each service below its name; [sso-session NAME] where its users come from. */
static sf_status read_named(sf_profile *p, const sf_shared_files *f, const char *kind, const char *name, const char *of,
                            const struct setting *table, size_t count, sf_error *err)
{
    struct reading r = {
        .p = p, .path = f->config_path, .kind = kind, .name = name, .settings = table, .setting_count = count, .err = err};

    if (!name)
        return SF_OK;
    if (f->config.s && read_section(&r, &f->config) != SF_OK)
        return r.rc;
    if (!r.found)
        return sf_fail(err, SF_INVALID, "profile \"%s\": there is no [%s %s] in %s", of, kind, name,
                       f->config_path ? f->config_path : "the config file");
    return SF_OK;
}

sf_status sf__profile_read(sf_profile *p, const sf_shared_files *f, const char *name, sf_error *err)
{
    struct reading r = {
        .p = p, .path = f->credentials_path, .name = name, .settings = settings, .setting_count = SETTINGS, .err = err};
    sf_status rc;

    *p = (sf_profile){.alloc = f->alloc};
    rc = read_section(&r, &f->credentials);
    p->in_credentials = r.found;
    if (rc == SF_OK) {
        r = (struct reading){.p = p,
                             .path = f->config_path,
                             .kind = "profile",
                             .name = name,
                             .is_config = true,
                             .settings = settings,
                             .setting_count = SETTINGS,
                             .err = err};
        rc = read_section(&r, &f->config);
        p->in_config = r.found;
    }
    if (rc == SF_OK)
        rc = read_named(p, f, "services", p->services, name, service_settings, 3, err);
    if (rc == SF_OK)
        rc = read_named(p, f, "sso-session", p->sso_session, name, session_settings, 2, err);
    if (rc != SF_OK)
        sf__profile_cleanup(p);
    return rc;
}

void sf__profile_cleanup(sf_profile *p)
{
    char **all[] = {&p->access_key,        &p->secret_key,    &p->token,          &p->region,
                    &p->endpoint,          &p->s3_endpoint,   &p->sts_endpoint,   &p->sso_endpoint,
                    &p->services,          &p->addressing,    &p->ca_bundle,      &p->ignore_endpoints,
                    &p->use_fips,          &p->use_dualstack, &p->s3_dualstack,   &p->role_arn,
                    &p->role_session,      &p->external_id,   &p->source_profile, &p->credential_source,
                    &p->web_identity_file, &p->process,       &p->sso_session,    &p->sso_start_url,
                    &p->sso_region,        &p->sso_account,   &p->sso_role};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        sf__secret_free(p->alloc, *all[i]);
        *all[i] = NULL;
    }
}
