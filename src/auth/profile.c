#include "auth/profile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth/ini.h"
#include "base/error.h"

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
    if (!S_ISREG(st.st_mode))
        return SF_OK; /* /dev/null stands for "no file" */
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

sf_status sf__text_file_read(sf_text_file *f, const char *path, bool named, const sf_allocator *a, sf_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    sf_status rc;

    if (fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR || (errno == EACCES && !named))
            return SF_OK;
        return sf_fail(err, SF_INVALID, "%s: %s", path, strerror(errno));
    }
    rc = read_all(fd, f, a, err);
    close(fd);
    if (rc != SF_OK) {
        sf__text_file_cleanup(f, a);
        sf_error_prefix(err, rc, "%s: ", path);
    }
    return rc;
}

static sf_status open_shared(sf_text_file *f, const sf_environment *env, const char *variable, const char *usual,
                             const sf_allocator *a, sf_error *err)
{
    const char *home = SF_ENV(env, "HOME"), *named = SF_ENV(env, variable);
    char *path;
    sf_status rc;

    if (named && !(named[0] == '~' && named[1] == '/'))
        return sf__text_file_read(f, named, true, a, err);
    if (!home)
        return SF_OK;
    path = sf__asprintf(a, "%s/%s", home, named ? named + 2 : usual);
    if (!path)
        return sf_fail(err, SF_NOMEM, "path");
    rc = sf__text_file_read(f, path, named != NULL, a, err);
    sf__free(a, path);
    return rc;
}

sf_status sf__shared_files_read(sf_shared_files *f, const sf_environment *env, const sf_allocator *a, sf_error *err)
{
    sf_status rc;

    *f = (sf_shared_files){.alloc = a};
    rc = open_shared(&f->credentials, env, "AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials", a, err);
    if (rc == SF_OK)
        rc = open_shared(&f->config, env, "AWS_CONFIG_FILE", ".aws/config", a, err);
    if (rc != SF_OK)
        sf__shared_files_cleanup(f);
    return rc;
}

void sf__shared_files_cleanup(sf_shared_files *f)
{
    sf__text_file_cleanup(&f->credentials, f->alloc);
    sf__text_file_cleanup(&f->config, f->alloc);
}

/* ------------------------------------------------------------------ profiles ------------------------------------- */

struct reading {
    sf_profile *p;
    const char *name;
    bool is_config; /* the file being read: there sections are called "profile NAME" */
    bool nomem;
};

static bool equals(sf_bytes b, const char *s)
{
    return sf_bytes_eq(b, sf_bytes_str(s));
}

static void set(struct reading *r, char **to, sf_bytes value)
{
    if (*to || value.n == 0 || memchr(value.p, '\0', value.n))
        return;
    *to = sf__strndup(r->p->alloc, value.p, value.n);
    if (!*to)
        r->nomem = true;
}

/* Whether `section` is `word` NAME. */
static bool section_is(sf_bytes section, const char *word, const char *name)
{
    size_t n = strlen(word);

    if (!sf_bytes_starts_with(section, sf_bytes_str(word)))
        return false;
    section = sf_bytes_of(section.p + n, section.n - n);
    if (section.n == 0 || (section.p[0] != ' ' && section.p[0] != '\t'))
        return false;
    while (section.n > 0 && (section.p[0] == ' ' || section.p[0] == '\t'))
        section = sf_bytes_of(section.p + 1, section.n - 1);
    return equals(section, name);
}

static void profile_on_item(void *ctx, const sf_ini_item *it)
{
    struct reading *r = ctx;
    sf_profile *p = r->p;
    bool plain = equals(it->section, r->name);
    bool ours = r->is_config ? section_is(it->section, "profile", r->name) || (plain && strcmp(r->name, "default") == 0)
                             : plain;
    const struct {
        const char *parent, *name;
        char **to;
    } settings[] = {
        {"", "aws_access_key_id", &p->access_key},
        {"", "aws_secret_access_key", &p->secret_key},
        {"", "aws_session_token", &p->token},
        {"", "region", &p->region},
        {"", "endpoint_url", &p->endpoint},
        {"", "services", &p->services},
        {"", "ca_bundle", &p->ca_bundle},
        {"s3", "addressing_style", &p->addressing},
        {"s3", "endpoint_url", &p->s3_endpoint},
        {"", "role_arn", &p->role_arn},
        {"", "role_session_name", &p->role_session},
        {"", "external_id", &p->external_id},
        {"", "source_profile", &p->source_profile},
        {"", "credential_source", &p->credential_source},
        {"", "web_identity_token_file", &p->web_identity_file},
        {"", "credential_process", &p->process},
        {"", "sso_session", &p->sso_session},
        {"", "sso_start_url", &p->sso_start_url},
        {"", "sso_region", &p->sso_region},
        {"", "sso_account_id", &p->sso_account},
        {"", "sso_role_name", &p->sso_role},
    };

    if (!ours)
        return;
    p->found = true;
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
        if (equals(it->parent, settings[i].parent) && equals(it->name, settings[i].name))
            set(r, settings[i].to, it->value);
}

/* [services NAME] holds the endpoint of each service below its name; [sso-session NAME] where its users come from. */
static void named_section_on_item(void *ctx, const sf_ini_item *it)
{
    struct reading *r = ctx;
    sf_profile *p = r->p;

    if (p->services && section_is(it->section, "services", p->services) && equals(it->parent, "s3") &&
        equals(it->name, "endpoint_url"))
        set(r, &p->s3_endpoint, it->value);
    if (!p->sso_session || it->parent.n > 0 || !section_is(it->section, "sso-session", p->sso_session))
        return;
    if (equals(it->name, "sso_start_url"))
        set(r, &p->sso_start_url, it->value);
    if (equals(it->name, "sso_region"))
        set(r, &p->sso_region, it->value);
}

sf_status sf__profile_read(sf_profile *p, const sf_shared_files *f, const char *name, sf_error *err)
{
    struct reading r = {.p = p, .name = name};
    sf_bytes config = sf_bytes_of(f->config.s, f->config.n);

    *p = (sf_profile){.alloc = f->alloc};
    sf__ini_parse(sf_bytes_of(f->credentials.s, f->credentials.n), profile_on_item, &r);
    r.is_config = true;
    sf__ini_parse(config, profile_on_item, &r);
    sf__ini_parse(config, named_section_on_item, &r);
    if (!r.nomem)
        return SF_OK;
    sf__profile_cleanup(p);
    return sf_fail(err, SF_NOMEM, "profile");
}

void sf__profile_cleanup(sf_profile *p)
{
    char **all[] = {&p->access_key,     &p->secret_key,    &p->token,          &p->region,
                    &p->endpoint,       &p->s3_endpoint,   &p->services,       &p->addressing,
                    &p->ca_bundle,      &p->role_arn,      &p->role_session,   &p->external_id,
                    &p->source_profile, &p->credential_source, &p->web_identity_file, &p->process,
                    &p->sso_session,    &p->sso_start_url, &p->sso_region,     &p->sso_account,
                    &p->sso_role};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (*all[i])
            explicit_bzero(*all[i], strlen(*all[i]));
        sf__free(p->alloc, *all[i]);
        *all[i] = NULL;
    }
}
