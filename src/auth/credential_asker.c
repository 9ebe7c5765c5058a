#include "auth/credential_asker.h"

#include <stdatomic.h>
#include <string.h>

#include "base/container.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/options.h"
#include "base/thread.h"
#include "net/question.h"

/* Of a text only so much is kept. More than any message shows, so that a secret that is cut here is not shown in part. */
#define TEXT_BYTES 4096u

struct sf_asker {
    sf_credential_source source;
    atomic_uint refs;
    atomic_bool asking;
};

/* Threads of the process that think for nobody. */
static atomic_uint dropped;

struct sf_credential_answer {
    sf_asker *asker;  /* acquired */
    pthread_t thread; /* joined by whoever takes the answer, detached when it is dropped */
    /* the thread's until `home` was posted */
    char *access_key_id, *secret_access_key, *session_token;
    int64_t expires_us;
    sf_status code;
    char text[TEXT_BYTES];
    sf_task *home;
    sf_question question; /* of the fetch to the thread */
};

/* ------------------------------------------------------------------ the source ----------------------------------- */

static sf_status take_source(sf_credential_source *out, const sf_credential_source *given, sf_error *err)
{
    sf_status rc;

    *out = (sf_credential_source){0};
    rc = sf__options_take(out, sizeof(*out), given, "source of credentials", err);
    if (rc != SF_OK)
        return rc;
    if (!out->get || !out->retain != !out->release)
        return sf_fail(err, SF_INVALID, "source of credentials: %s is missing",
                       !out->get     ? "get"
                       : out->retain ? "release"
                                     : "retain");
    return SF_OK;
}

sf_status sf__asker_new(sf_asker **out, const sf_credential_source *source, sf_error *err)
{
    sf_credential_source whole;
    sf_status rc = take_source(&whole, source, err);
    sf_asker *a;

    if (rc != SF_OK)
        return rc;
    a = sf__calloc(&sf__allocator_default, 1, sizeof(*a));
    if (!a)
        return sf_fail(err, SF_NOMEM, "source of credentials");
    a->source = whole;
    atomic_init(&a->refs, 1);
    if (whole.retain)
        whole.retain(whole.ctx);
    *out = a;
    return SF_OK;
}

sf_asker *sf__asker_acquire(sf_asker *a)
{
    atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
    return a;
}

void sf__asker_release(sf_asker *a)
{
    if (!a || atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (a->source.release)
        a->source.release(a->source.ctx);
    sf__free(&sf__allocator_default, a);
}

const sf_credential_source *sf__asker_source(const sf_asker *a)
{
    return &a->source;
}

/* ------------------------------------------------------------------ the answer ----------------------------------- */

static void keys_clear(sf_credential_answer *w)
{
    sf__secret_free(&sf__allocator_default, w->access_key_id);
    sf__secret_free(&sf__allocator_default, w->secret_access_key);
    sf__secret_free(&sf__allocator_default, w->session_token);
    w->access_key_id = w->secret_access_key = w->session_token = NULL;
}

static void answer_free(sf_question *q)
{
    sf_credential_answer *w = sf_container_of(q, sf_credential_answer, question);

    keys_clear(w);
    explicit_bzero(w->text, sizeof(w->text));
    sf__asker_release(w->asker);
    sf__free(&sf__allocator_default, w);
}

static void answer_home(sf_question *q)
{
    sf_task *home = sf_container_of(q, sf_credential_answer, question)->home;

    home->run(home);
}

void sf_credential_answer_fail(sf_credential_answer *w, sf_status code, const char *text)
{
    size_t n;

    if (!text)
        text = "no reason was given";
    n = strnlen(text, TEXT_BYTES - 1);
    keys_clear(w);
    w->code = code == SF_OK ? SF_DENIED : code;
    memcpy(w->text, text, n);
    w->text[n] = '\0';
}

void sf_credential_answer_set(sf_credential_answer *w, const char *access_key_id, const char *secret_access_key,
                              const char *session_token, int64_t expires_us)
{
    const sf_allocator *a = &sf__allocator_default;

    keys_clear(w);
    w->access_key_id = sf__strdup(a, access_key_id ? access_key_id : "");
    w->secret_access_key = sf__strdup(a, secret_access_key ? secret_access_key : "");
    w->session_token = sf__strdup(a, session_token ? session_token : "");
    w->expires_us = expires_us;
    w->code = SF_OK;
    if (!w->access_key_id || !w->secret_access_key || !w->session_token)
        sf_credential_answer_fail(w, SF_NOMEM, "credentials");
}

static bool holds(const char *text, const char *secret)
{
    return secret && *secret && strstr(text, secret);
}

sf_status sf__answer_take(sf_credentials **out, sf_credential_answer *answer, const sf_credentials *known,
                          const sf_allocator *a, sf_error *err)
{
    sf_status rc;

    if (answer->code == SF_OK) {
        rc = sf__credentials_new(out, sf_bytes_str(answer->access_key_id), sf_bytes_str(answer->secret_access_key),
                                 sf_bytes_str(answer->session_token), answer->expires_us, a, err);
    } else {
        bool leaks =
            known && (holds(answer->text, known->access_key_id) || holds(answer->text, known->secret_access_key) ||
                      holds(answer->text, known->session_token));

        for (char *p = answer->text; *p; p++) /* one line, for logs */
            if ((unsigned char)*p < ' ' || *p == 0x7f)
                *p = ' ';
        rc = sf_fail(err, answer->code, "%s", leaks ? "(text withheld)" : answer->text);
    }
    pthread_join(answer->thread, NULL); /* get() has returned: the runtime's end must not come before the thread's */
    sf__question_release(&answer->question);
    return rc;
}

/* ------------------------------------------------------------------ asking --------------------------------------- */

static void *ask_on_thread(void *arg)
{
    sf_credential_answer *w = arg;

    w->asker->source.get(w->asker->source.ctx, w);
    atomic_store(&w->asker->asking, false); /* first: whoever learns the answer may ask again */
    if (!sf__question_answer(&w->question))
        atomic_fetch_sub(&dropped, 1);
    return NULL;
}

sf_status sf__asker_ask(sf_credential_answer **out, sf_asker *a, sf_loop *loop, sf_task *home, sf_error *err)
{
    sf_credential_answer *w;
    int rc;

    if (atomic_load(&dropped) >= SF_ASKER_MAX_DROPPED)
        return sf_fail(err, SF_UNAVAILABLE, "too many questions are open that nobody waits for any more");
    if (atomic_exchange(&a->asking, true))
        return sf_fail(err, SF_UNAVAILABLE, "it has not answered the question before yet");
    w = sf__calloc(&sf__allocator_default, 1, sizeof(*w));
    if (!w) {
        atomic_store(&a->asking, false);
        return sf_fail(err, SF_NOMEM, "credentials");
    }
    w->asker = sf__asker_acquire(a);
    sf__question_init(&w->question, loop, answer_home, answer_free);
    w->home = home;
    sf_credential_answer_fail(w, SF_INVALID, "it has given no answer");
    rc = sf__thread_start(&w->thread, ask_on_thread, w);
    if (rc != 0) {
        atomic_store(&a->asking, false);
        sf__question_not_asked(&w->question);
        sf__question_release(&w->question);
        return sf__fail_errno(err, rc, SF_EXHAUSTED, "a thread to ask on");
    }
    *out = w;
    return SF_OK;
}

bool sf__answer_drop(sf_credential_answer *w)
{
    atomic_fetch_add(&dropped, 1); /* before the thread may learn of it */
    if (!sf__question_drop(&w->question)) {
        atomic_fetch_sub(&dropped, 1);
        return false;
    }
    pthread_detach(w->thread); /* it thinks for nobody, and touches nothing but the process's memory from now on */
    sf__question_release(&w->question);
    return true;
}

void sf__asker_after_fork(void)
{
    atomic_store(&dropped, 0);
}
