/* What an S3 store cannot do, how it is found out, and what is done instead. */
#include "base/container.h"
#include "base/error.h"
#include "store/s3_call.h"
#include "store/s3_xml.h"

#define MOST_CHILDREN 16u
#define LAST_REFUSAL 3u
static const char *const lacks[S3_ABILITIES] = {
    ("store objects on a condition; it is asked before whether they are there, and two writers of one object that look "
     "at the same instant are not told apart"),
    "complete uploads on a condition; two writers of one object that end at the same instant are not told apart",
    "list objects the second way; they are listed the first way",
    "delete many objects at once; they are deleted one by one",
    "say what HEAD asks; one byte of the object is read instead",
};

static void call_on_child(sf_store_op *done);

bool sf__s3_is_missing(const struct s3_store *s, enum s3_ability what)
{
    return s->missing[what].refusals >= LAST_REFUSAL;
}

static void note_missing(struct s3_call *c, enum s3_ability what, bool plainly)
{
    struct s3_store *s = c->s;

    s->missing[what].refusals = plainly ? LAST_REFUSAL : s->missing[what].refusals + !sf__s3_is_missing(s, what);
    if (!s->missing[what].told)
        sf__log(&s->log, SF_LOG_WARN, "s3", "%s: the store cannot %s%s%s", s->base.url, lacks[what],
                c->error.message[0] ? ": " : "", c->error.message);
    s->missing[what].told = true;
}

enum s3_ability sf__s3_ability_of(sf_store_verb verb)
{
    switch (verb) {
    case SF_STORE_PUT:
        return PUTS_ON_CONDITION;
    case SF_STORE_MULTIPART_COMPLETE:
        return COMPLETES_ON_CONDITION;
    case SF_STORE_LIST:
        return LISTS_V2;
    case SF_STORE_DELETE_MANY:
        return DELETES_MANY;
    case SF_STORE_HEAD:
        return HEADS;
    default:
        return S3_ABILITIES;
    }
}

/* After an answer that shows that the store knows what was asked: what it has refused before was somebody's bad moment. */
void sf__s3_note_present(struct s3_call *c)
{
    enum s3_ability what = sf__s3_ability_of(c->op->verb);
    bool asked = what == LISTS_V2 ? !c->list_v1 : what == DELETES_MANY || what == HEADS || c->on_condition;

    if (what != S3_ABILITIES && asked && !sf__s3_is_missing(c->s, what))
        c->s->missing[what].refusals = 0;
}

/* Whether other operations have to come before this one, or in its place. */
bool sf__s3_needs_others(const struct s3_call *c)
{
    enum s3_ability what = sf__s3_ability_of(c->op->verb);

    switch (what) {
    case PUTS_ON_CONDITION:
        return c->op->create_only && !c->op->strict && sf__s3_is_missing(c->s, what);
    case DELETES_MANY:
    case HEADS:
        return sf__s3_is_missing(c->s, what);
    default:
        return false;
    }
}

/* Begun anew, with a request that is built anew. */
static enum s3_call_state rebuilt(struct s3_call *c)
{
    sf__credentials_release(c->credentials);
    c->credentials = NULL;
    return CALL_SIGNING;
}

/* After an answer that the store does not know what was asked in this form: the other form; CALL_DONE when that is none. A
 * completed upload goes without its condition: its callers have looked before whether the object is there, which is as near as
 * it gets. */
enum s3_call_state sf__s3_other_way(struct s3_call *c, const sf_s3_answer *ans)
{
    enum s3_ability what = sf__s3_ability_of(c->op->verb);

    if (what == HEADS)
        return CALL_ASKING; /* what that says decides what is noted */
    if (what == PUTS_ON_CONDITION && (c->op->if_match || c->op->strict))
        return CALL_DONE;
    if (what == LISTS_V2 && (c->list_v1 || (c->op->continuation && !sf__s3_list_marker(c->op->continuation))))
        return CALL_DONE; /* halfway through there is no other */
    note_missing(c, what, ans->plainly);
    sf__s3_call_note_retry(c, 0);
    if (what == DELETES_MANY)
        return CALL_ASKING;
    c->list_v1 = what == LISTS_V2;
    c->dropped = what == PUTS_ON_CONDITION || what == COMPLETES_ON_CONDITION;
    return what == PUTS_ON_CONDITION ? CALL_ASKING : rebuilt(c);
}

/* What the last byte of an object tells of it. */
static void after_size(struct s3_call *c, const sf_store_op *child)
{
    sf_store_op *op = c->op;
    uint64_t size = child->object_size;

    /* ranges are ignored, but that is told */
    if (c->error.code != SF_OK && child->longer > 0 && child->longer != SF_STORE_ALL) {
        sf_error_clear(&c->error);
        size = child->longer;
    }
    if (c->error.code != SF_OK && c->told_empty) {
        sf_error_clear(&c->error);
        return;
    }
    if (c->error.code != SF_OK)
        return;
    if (!c->told_empty || size > 0)
        note_missing(c, HEADS, false);
    op->object_size = size;
    if (child->etag[0])
        memcpy(op->etag, child->etag, sizeof(op->etag));
}

/* What the other operations ended with is this one's end, unless they were but to find something out. */
static enum s3_call_state after_others(struct s3_call *c)
{
    sf_store_op *op = c->op, *child = &c->children[0].op;

    if (c->cancelled) {
        sf__s3_call_cancelled(c);
        return CALL_DONE;
    }
    if (op->verb == SF_STORE_PUT && c->error.code == SF_NOT_FOUND) {
        sf_error_clear(&c->error);
        c->dropped = true;
        return rebuilt(c);
    }
    if (op->verb == SF_STORE_PUT && c->error.code == SF_OK) {
        op->may_be_ours = c->uncertain;
        sf_fail(&c->error, SF_CONFLICT, "the object is there; the store cannot compare, so it was asked before%s",
                c->uncertain ? "; an earlier attempt, whose answer was lost, may have succeeded" : "");
        c->error.http_status = 200;
    } else if (op->verb == SF_STORE_HEAD) {
        after_size(c, child);
    }
    if (op->verb != SF_STORE_DELETE_MANY)
        c->error.attempts = c->attempts;
    return CALL_DONE;
}

static void child_start(struct s3_call *c, struct s3_child *child)
{
    static const struct {
        sf_store_verb verb;
        uint64_t len;
    } asks[] = {[SF_STORE_PUT] = {SF_STORE_HEAD, 0},
                [SF_STORE_HEAD] = {SF_STORE_GET_SUFFIX, 1},
                [SF_STORE_DELETE_MANY] = {SF_STORE_DELETE, 0}};

    child->parent = c;
    child->open = true;
    child->op = (sf_store_op){
        .verb = asks[c->op->verb].verb,
        .len = asks[c->op->verb].len,
        .key = c->op->verb == SF_STORE_DELETE_MANY ? c->op->keys[c->next_key++] : c->op->key,
        .deadline_ns = c->deadline_ns,
        .done = call_on_child,
        .ctx = child,
    };
    c->children_open++;
    sf__store_submit(&c->s->base, &child->op);
}

static void call_on_child(sf_store_op *done)
{
    struct s3_child *child = done->ctx;
    struct s3_call *c = child->parent;

    child->open = false;
    c->children_open--;
    c->attempts += done->error->attempts;
    if (done->error->code != SF_OK && c->error.code == SF_OK) {
        c->error = *done->error;
        c->error.operation[0] = '\0'; /* it is a part of ours */
    }
    sf__store_op_cleanup(done, c->s->base.alloc);
    if (c->error.code == SF_OK && !c->cancelled && c->op->verb == SF_STORE_DELETE_MANY && c->next_key < c->op->key_count)
        child_start(c, child);
    else if (c->children_open == 0)
        sf__s3_call_enter(c, after_others(c));
}

/* Ends in call_on_child(): no operation completes inside of its submission. */
void sf__s3_ask_others(struct s3_call *c)
{
    size_t count = c->op->verb == SF_STORE_DELETE_MANY ? c->op->key_count : 1;

    c->child_count = count < MOST_CHILDREN ? count : MOST_CHILDREN;
    sf_error_clear(&c->error);
    c->children = sf__calloc(c->s->base.alloc, c->child_count, sizeof(*c->children));
    if (!c->children) {
        sf_fail(&c->error, SF_NOMEM, "S3 request");
        sf__s3_call_enter(c, CALL_POSTED);
        return;
    }
    for (size_t i = 0; i < c->child_count; i++)
        child_start(c, &c->children[i]);
}
