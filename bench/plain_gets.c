/* Ranged GETs by libcurl and nothing else: what reading has to cost at least.
 *     plain_gets each|all ENDPOINT ACCESS SECRET REGION CONNECTIONS < LIST
 * LIST: a path (/bucket/key, percent-encoded as it goes over the wire) and a range (FIRST-LAST) a line. `each`: one after the other over one connection; prints
 * the milliseconds of each. `all`: at once, over at most CONNECTIONS; prints the milliseconds of all of them. */
#include <string.h>

#include <curl/curl.h>

#include "bench.h"

#define MAX_GETS 20000

struct get {
    char *url, *range;
    CURL *easy;
    size_t bytes;
};

static const char *access_secret, *provider;
static struct curl_slist *headers;
static struct get gets[MAX_GETS];

static size_t count_bytes(char *p, size_t size, size_t n, void *ctx)
{
    *(size_t *)ctx += size * n;
    return size * n;
}

static void set_up(CURL *easy, struct get *g)
{
    curl_easy_setopt(easy, CURLOPT_URL, g->url);
    curl_easy_setopt(easy, CURLOPT_RANGE, g->range);
    curl_easy_setopt(easy, CURLOPT_AWS_SIGV4, provider);
    curl_easy_setopt(easy, CURLOPT_USERPWD, access_secret);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, count_bytes);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &g->bytes);
    curl_easy_setopt(easy, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT, 60L);
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
}

static void check(const struct get *g, CURLcode rc)
{
    unsigned long long first, last;

    must(rc == CURLE_OK, curl_easy_strerror(rc));
    must(sscanf(g->range, "%llu-%llu", &first, &last) == 2 && g->bytes <= last - first + 1 && g->bytes > 0,
         "a range's length");
}

static void fetch_each(size_t count)
{
    CURL *easy = curl_easy_init();

    printf("[");
    for (size_t i = 0; i <= count; i++) { /* the first one connects, and does not count */
        struct get *g = &gets[i ? i - 1 : 0];
        double start = seconds();

        g->bytes = 0;
        set_up(easy, g);
        check(g, curl_easy_perform(easy));
        if (i)
            printf("%s%.4f", i > 1 ? ", " : "", (seconds() - start) * 1e3);
    }
    printf("]\n");
    curl_easy_cleanup(easy);
}

static void fetch_all(size_t count, long connections)
{
    CURLM *multi = curl_multi_init();
    double start = seconds();
    int running = 1, left;

    curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, connections);
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, connections);
    for (size_t i = 0; i < count; i++) {
        gets[i].easy = curl_easy_init();
        set_up(gets[i].easy, &gets[i]);
        curl_easy_setopt(gets[i].easy, CURLOPT_PRIVATE, &gets[i]);
        curl_multi_add_handle(multi, gets[i].easy);
    }
    while (running) {
        CURLMsg *m;

        must(curl_multi_perform(multi, &running) == CURLM_OK, "curl_multi_perform");
        while ((m = curl_multi_info_read(multi, &left)) != NULL) {
            struct get *g;

            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &g);
            check(g, m->data.result);
        }
        if (running)
            curl_multi_poll(multi, NULL, 0, 1000, NULL);
    }
    printf("[%.4f]\n", (seconds() - start) * 1e3);
    for (size_t i = 0; i < count; i++) {
        curl_multi_remove_handle(multi, gets[i].easy);
        curl_easy_cleanup(gets[i].easy);
    }
    curl_multi_cleanup(multi);
}

int main(int argc, char **argv)
{
    static char secret[512], aws[128], line[8192], path[4096], range[64], url[4600];
    size_t count = 0;

    must(argc == 7, "usage: plain_gets each|all ENDPOINT ACCESS SECRET REGION CONNECTIONS; this");
    snprintf(secret, sizeof(secret), "%s:%s", argv[3], argv[4]);
    snprintf(aws, sizeof(aws), "aws:amz:%s:s3", argv[5]);
    access_secret = secret;
    provider = aws;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    headers =
        curl_slist_append(NULL, "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    while (fgets(line, sizeof(line), stdin)) {
        must(count < MAX_GETS && sscanf(line, "%4095s %63s", path, range) == 2, "reading the list");
        snprintf(url, sizeof(url), "%s%s", argv[2], path);
        gets[count].url = strdup(url);
        gets[count++].range = strdup(range);
    }
    if (strcmp(argv[1], "all") == 0)
        fetch_all(count, strtol(argv[6], NULL, 10));
    else
        fetch_each(count);
    return 0;
}
