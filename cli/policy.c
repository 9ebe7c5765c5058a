/* doctor --policy: a document for IAM. Nothing is asked; the prefix is what the URL says. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

enum purpose { PURPOSE_READ, PURPOSE_PUBLISH, PURPOSE_CLEANUP }; /* as --policy's choices */

/* Where requests of this bucket go tells the partition; "aws" for stores of others, which take it as it is.
 */
static const char *partition_of(struct cli *c)
{
    sf_error e = SF_ERROR_INIT;
    const char *partition = "aws";
    sf_bucket_info info;
    sf_bucket *bucket;

    if (sf_bucket_open(&bucket, c->rt, c->settings.current_url, &c->settings.s3, &e) != SF_OK)
        return partition;
    sf_bucket_get_info(bucket, &info);
    if (info.region && strncmp(info.region, "cn-", 3) == 0)
        partition = "aws-cn";
    else if (info.region && strncmp(info.region, "us-gov-", 7) == 0)
        partition = "aws-us-gov";
    sf_bucket_close(bucket);
    return partition;
}

/* What would be a pattern or a variable stands for itself. */
static void put_literal(struct text *t, const char *s)
{
    for (; *s; s++)
        if (strchr("*?$", *s))
            text_printf(t, "${%c}", *s);
        else
            text_putc(t, *s);
}

static void put_statement(struct json *j, const char *id, const char *const *actions, const char *resource,
                          const char *listed)
{
    json_open(j, NULL, '{');
    json_text(j, "Sid", id);
    json_text(j, "Effect", "Allow");
    json_open(j, "Action", '[');
    for (; *actions; actions++)
        json_text(j, NULL, *actions);
    json_close(j, ']');
    json_text(j, "Resource", resource);
    if (listed) {
        json_open(j, "Condition", '{');
        json_open(j, "StringLikeIfExists", '{'); /* without it what is missing would be forbidden: it has no prefix */
        json_text(j, "s3:prefix", listed);
        json_close(j, '}');
        json_close(j, '}');
    }
    json_close(j, '}');
}

static void put_policy(struct text *t, enum out_format format, enum purpose purpose, const char *bucket_arn,
                       const char *below)
{
    static const char *const on_objects[][5] = {
        [PURPOSE_READ] = {"s3:GetObject"},
        [PURPOSE_PUBLISH] = {"s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"},
        [PURPOSE_CLEANUP] = {"s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}};
    static const char *const listing[] = {"s3:ListBucket", NULL}, *const uploads[] = {"s3:ListBucketMultipartUploads",
                                                                                      NULL};
    char *objects = cli_format("%s/%s*", bucket_arn, below), *listed = cli_format("%s*", below);
    struct json j;

    json_begin(&j, t, format);
    json_open(&j, NULL, '{');
    json_text(&j, "Version", "2012-10-17");
    json_open(&j, "Statement", '[');
    put_statement(&j, "Objects", on_objects[purpose], objects, NULL);
    put_statement(&j, "Names", listing, bucket_arn, listed);
    if (purpose == PURPOSE_CLEANUP)
        put_statement(&j, "Uploads", uploads, bucket_arn, NULL);
    json_close(&j, ']');
    json_close(&j, '}');
    json_end(&j);
    free(objects);
    free(listed);
}

int policy_print(struct cli *c, const char *url, uint64_t purpose)
{
    char root[1024], key[4096], *end;
    sf_error e = SF_ERROR_INIT;
    struct text t = {0}, arn = {0}, below = {0};

    if (sf_url_split(url, root, sizeof(root), key, sizeof(key), &e) != SF_OK)
        return cli_fail_with(c, "doctor", NULL, &e);
    if (strncmp(root, "s3://", 5) != 0)
        return cli_fail(c, "doctor", NULL, "policies are for s3://, not for %s", url);
    end = strrchr(key, '/');
    if (strcmp(end ? end + 1 : key, "_CURRENT") == 0)
        *(end ? end : key) = '\0';
    text_printf(&arn, "arn:%s:s3:::", partition_of(c));
    put_literal(&arn, root + 5);
    put_literal(&below, key);
    if (*key)
        text_putc(&below, '/');
    put_policy(&t, c->settings.has_format && c->out.format == FORMAT_JSONL ? FORMAT_JSONL : FORMAT_JSON,
               (enum purpose)purpose, text_str(&arn), text_str(&below));
    out_write(&c->out, &t);
    text_free(&t);
    text_free(&arn);
    text_free(&below);
    return 0;
}
