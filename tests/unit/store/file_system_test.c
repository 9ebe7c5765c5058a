/* The file store on file systems that are nearly POSIX, in folders that somebody else has locked, and beside what killed
 * writers left. The linker puts the functions below in front of the system's (meson.build: --wrap). */
#include "../net/on_loop.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/file.h"

static const char *check_row = ""; /* the row of the table, for messages */
#define CHECK_INT(got, expected)                                                         \
    do {                                                                                 \
        long got_ = (long)(got), expected_ = (long)(expected);                           \
        if (got_ != expected_)                                                           \
            fail_msg("%s: line %d: %ld, not %ld", check_row, __LINE__, got_, expected_); \
    } while (0)
#define CHECK_TEXT(got, expected)                                                             \
    do {                                                                                      \
        const char *got_ = (got);                                                             \
        if (strcmp(got_, expected) != 0)                                                      \
            fail_msg("%s: line %d: \"%s\", not \"%s\"", check_row, __LINE__, got_, expected); \
    } while (0)

/* ------------------------------------------------------------------ calls that fail ------------------------------ */

static struct {
    int link, renameat2, flock, sync_folder, sync_file; /* errno; 0: it works */
    bool linked_all_the_same;                           /* link() works and says that it did not */
    long crash_at;                                      /* the process ends before this call; -1: never */
    atomic_long calls;
    atomic_int busy; /* locks that somebody else had */
    atomic_int file_syncs;
} fs = {.crash_at = -1};

static void count(void)
{
    if (atomic_fetch_add(&fs.calls, 1) == fs.crash_at)
        _exit(0);
}

static int refuse(int e)
{
    errno = e;
    return -1;
}

int __real_link(const char *from, const char *to);
int __real_renameat2(int a, const char *from, int b, const char *to, unsigned flags);
int __real_rename(const char *from, const char *to);
int __real_unlink(const char *path);
int __real_flock(int fd, int how);
int __real_fsync(int fd);
int __wrap_link(const char *from, const char *to);
int __wrap_renameat2(int a, const char *from, int b, const char *to, unsigned flags);
int __wrap_rename(const char *from, const char *to);
int __wrap_unlink(const char *path);
int __wrap_flock(int fd, int how);
int __wrap_fsync(int fd);

int __wrap_link(const char *from, const char *to)
{
    count();
    if (fs.linked_all_the_same)
        return __real_link(from, to) == 0 ? refuse(EEXIST) : -1;
    return fs.link ? refuse(fs.link) : __real_link(from, to);
}

int __wrap_renameat2(int a, const char *from, int b, const char *to, unsigned flags)
{
    count();
    return fs.renameat2 ? refuse(fs.renameat2) : __real_renameat2(a, from, b, to, flags);
}

int __wrap_rename(const char *from, const char *to)
{
    count();
    return __real_rename(from, to);
}

int __wrap_unlink(const char *path)
{
    count();
    return __real_unlink(path);
}

int __wrap_flock(int fd, int how)
{
    int rc;

    count();
    assert_true(how == LOCK_UN || (how & LOCK_NB)); /* nothing waits in a lock */
    rc = fs.flock ? refuse(fs.flock) : __real_flock(fd, how);
    if (rc != 0 && errno == EWOULDBLOCK)
        atomic_fetch_add(&fs.busy, 1);
    return rc;
}

int __wrap_fsync(int fd)
{
    struct stat st;
    int e;

    count();
    e = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) ? fs.sync_folder : fs.sync_file;
    atomic_fetch_add(&fs.file_syncs, !S_ISDIR(st.st_mode));
    return e ? refuse(e) : __real_fsync(fd);
}

/* ------------------------------------------------------------------ world ---------------------------------------- */

static const sf_allocator *const heap = &sf__allocator_default;

struct world {
    sf_loop *loop;
    sf_store *store;
    char folder[64];
};

static void open_store(struct world *w)
{
    assert_int_equal(sf__loop_new(&w->loop, heap, NULL), SF_OK);
    assert_int_equal(sf__store_file_new(&w->store, w->loop, heap, NULL), SF_OK);
}

static void close_store(struct world *w)
{
    sf__store_release(w->store);
    sf__loop_free(w->loop);
}

static struct world begin(void)
{
    struct world w = {.folder = "/tmp/sf-files-XXXXXX"};

    memset(&fs, 0, sizeof(fs));
    fs.crash_at = -1;
    assert_non_null(mkdtemp(w.folder));
    return w;
}

static void end(struct world *w)
{
    char command[128];

    memset(&fs, 0, sizeof(fs));
    fs.crash_at = -1;
    snprintf(command, sizeof(command), "rm -r '%s'", w->folder);
    assert_int_equal(system(command), 0);
}

static const char *path_of(const struct world *w, const char *name)
{
    static char paths[8][256];
    static unsigned next;
    char *out = paths[next++ % 8];

    snprintf(out, 256, "%s/%s", w->folder, name);
    return out;
}

struct running {
    sf_store_op op;
    sf_error error;
    char key[256];
    struct world *w;
    struct gate gate;
};

static void on_done(sf_store_op *op)
{
    struct running *r = op->ctx;

    r->error = *op->error;
    gate_arrive(&r->gate);
}

static void submit(void *arg)
{
    struct running *r = arg;

    sf__store_submit(r->w->store, &r->op);
}

static void cancel(void *arg)
{
    struct running *r = arg;

    sf__store_cancel(r->w->store, &r->op);
}

static void start(struct world *w, struct running *r, sf_store_op op)
{
    static const struct gate gate = GATE_INIT;

    r->op = op;
    snprintf(r->key, sizeof(r->key), "%s", op.key);
    r->op.key = r->key;
    r->w = w;
    r->gate = gate;
    r->op.done = on_done;
    r->op.ctx = r;
    if (r->op.deadline_ns == 0)
        r->op.deadline_ns = SF_NO_DEADLINE;
    on_loop(w->loop, submit, r);
}

static void finish(struct running *r)
{
    gate_wait(&r->gate, 1);
    gate_leave(&r->gate);
}

/* The results are dropped; *out (may be NULL) is the operation without them, *err (too) how it ended. */
static sf_status run_to(struct world *w, sf_store_op op, sf_store_op *out, sf_error *err)
{
    struct running r;

    start(w, &r, op);
    finish(&r);
    if (r.error.code == SF_OK)
        sf__store_op_cleanup(&r.op, heap);
    if (out)
        *out = r.op;
    if (err)
        *err = r.error;
    return r.error.code;
}

static sf_status run(struct world *w, sf_store_op op, sf_store_op *out)
{
    return run_to(w, op, out, NULL);
}

static sf_store_op put_op(const struct world *w, const char *name, const char *text)
{
    return (sf_store_op){.verb = SF_STORE_PUT, .key = path_of(w, name) + 1, .body = sf_bytes_str(text)};
}

static void write_file(const struct world *w, const char *name, const char *text, int age_s)
{
    struct timespec times[2] = {{time(NULL) - age_s, 0}, {time(NULL) - age_s, 0}};
    FILE *f = fopen(path_of(w, name), "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(utimensat(AT_FDCWD, path_of(w, name), times, 0), 0);
}

static bool exists(const struct world *w, const char *name)
{
    struct stat st;

    return lstat(path_of(w, name), &st) == 0;
}

/* What it holds; "-" when it is not there. */
static const char *content(const struct world *w, const char *name)
{
    static char text[64];
    FILE *f = fopen(path_of(w, name), "r");

    if (!f)
        return "-";
    text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
    fclose(f);
    return text;
}

/* How many files, hidden ones too, lie in a folder. */
static int file_count(const struct world *w, const char *folder)
{
    DIR *d = opendir(path_of(w, folder));
    int n = -2;

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* ------------------------------------------------------------------ nearly POSIX --------------------------------- */

static void every_kind_of_put(struct world *w)
{
    sf_store_op op = put_op(w, "f/a", "1"), got;

    op.create_only = true;
    CHECK_INT(run(w, op, &got), SF_OK);
    CHECK_TEXT(content(w, "f/a"), "1");
    CHECK_INT(run(w, op, &got), SF_CONFLICT);
    op = put_op(w, "f/a", "2");
    CHECK_INT(run(w, op, &got), SF_OK);
    op = put_op(w, "f/a", "3");
    op.if_match = "\"other\"";
    CHECK_INT(run(w, op, NULL), SF_CONFLICT);
    CHECK_TEXT(content(w, "f/a"), "2");
    op.if_match = got.etag;
    CHECK_INT(run(w, op, NULL), SF_OK);
    CHECK_TEXT(content(w, "f/a"), "3");
    CHECK_INT(file_count(w, "f"), 1);
}

static void upload_in_parts(struct world *w)
{
    sf_store_op op = put_op(w, "f/b", ""), got;
    char id[64], etag[128];
    const char *etags = etag;

    op.verb = SF_STORE_MULTIPART_CREATE;
    {
        struct running r;

        start(w, &r, op);
        finish(&r);
        CHECK_INT(r.error.code, SF_OK);
        snprintf(id, sizeof(id), "%s", r.op.upload_id_out);
        sf__store_op_cleanup(&r.op, heap);
    }
    op = put_op(w, "f/b", "parts");
    op.verb = SF_STORE_MULTIPART_PART;
    op.upload_id = id;
    op.part_number = 1;
    CHECK_INT(run(w, op, &got), SF_OK);
    memcpy(etag, got.etag, sizeof(etag));
    op.verb = SF_STORE_MULTIPART_COMPLETE;
    op.create_only = true;
    op.keys = &etags;
    op.key_count = 1;
    CHECK_INT(run(w, op, &got), SF_OK);
    CHECK_TEXT(content(w, "f/b"), "parts");
}

static void file_systems_that_cannot(void **state)
{
    static const struct {
        const char *name;
        int link, renameat2, flock, sync_folder;
    } rows[] = {
        {"everything works", 0, 0, 0, 0},
        {"no links: EPERM", EPERM, 0, 0, 0},
        {"no links: EOPNOTSUPP", EOPNOTSUPP, 0, 0, 0},
        {"no links: EMLINK", EMLINK, 0, 0, 0},
        {"no links: ENOSYS", ENOSYS, 0, 0, 0},
        {"no links: EINVAL", EINVAL, 0, 0, 0},
        {"no links: EACCES", EACCES, 0, 0, 0},
        {"no links: EXDEV", EXDEV, 0, 0, 0},
        {"nor RENAME_NOREPLACE: EINVAL", EPERM, EINVAL, 0, 0},
        {"nor RENAME_NOREPLACE: ENOSYS", ENOSYS, ENOSYS, 0, 0},
        {"no locks: ENOSYS", 0, 0, ENOSYS, 0},
        {"no locks: ENOLCK", 0, 0, ENOLCK, 0},
        {"no locks: EBADF", 0, 0, EBADF, 0},
        {"no locks: EOPNOTSUPP", 0, 0, EOPNOTSUPP, 0},
        {"none of the three", EPERM, ENOSYS, ENOSYS, 0},
        {"folders are not synced", 0, 0, 0, EINVAL},
        {"nor in this way", EPERM, EINVAL, EOPNOTSUPP, EBADF},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct world w = begin();

        check_row = rows[i].name;
        open_store(&w);
        fs.link = rows[i].link;
        fs.renameat2 = rows[i].renameat2;
        fs.flock = rows[i].flock;
        fs.sync_folder = rows[i].sync_folder;
        every_kind_of_put(&w);
        upload_in_parts(&w);
        close_store(&w);
        end(&w);
    }
}

/* What a disk fails to do, and what we may not, stays what it is; nothing is left. */
static void failures_stay_failures(void **state)
{
    static const struct {
        const char *name;
        int link, renameat2, flock, sync_folder, sync_file;
        bool create_only;
        sf_status expected;
    } rows[] = {
        {"link: EIO", .link = EIO, .create_only = true, .expected = SF_IO},
        {"link: ENOSPC", .link = ENOSPC, .create_only = true, .expected = SF_IO},
        {"link: EDQUOT", .link = EDQUOT, .create_only = true, .expected = SF_IO},
        {"link: EROFS", .link = EROFS, .create_only = true, .expected = SF_DENIED},
        {"renameat2: EIO", .link = EPERM, .renameat2 = EIO, .create_only = true, .expected = SF_IO},
        {"flock: EIO", .flock = EIO, .expected = SF_IO},
        {"sync: EIO", .sync_file = EIO, .expected = SF_IO},
        {"sync: ENOSPC", .sync_file = ENOSPC, .expected = SF_IO},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct world w = begin();
        sf_store_op op;

        check_row = rows[i].name;
        open_store(&w);
        fs.link = rows[i].link;
        fs.renameat2 = rows[i].renameat2;
        fs.flock = rows[i].flock;
        fs.sync_folder = rows[i].sync_folder;
        fs.sync_file = rows[i].sync_file;
        op = put_op(&w, "f/g/a", "1");
        op.create_only = rows[i].create_only;
        CHECK_INT(run(&w, op, NULL), rows[i].expected);
        CHECK_INT(exists(&w, "f"), false);
        close_store(&w);
        end(&w);
    }
}

static void a_link_whose_answer_was_lost(void **state)
{
    struct world w = begin();
    sf_store_op op = put_op(&w, "a", "1");

    (void)state;
    open_store(&w);
    fs.linked_all_the_same = true;
    op.create_only = true;
    assert_int_equal(run(&w, op, NULL), SF_OK);
    assert_string_equal(content(&w, "a"), "1");
    assert_int_equal(file_count(&w, "."), 1);
    close_store(&w);
    end(&w);
}

/* As if a while had passed. */
static void age_claims(const struct world *w)
{
    DIR *d = opendir(w->folder);

    for (struct dirent *e; (e = readdir(d));)
        if (strncmp(e->d_name, ".sf-tmp-claim-", 14) == 0)
            write_file(w, e->d_name, "", 2 * 60);
    closedir(d);
}

/* A writer that dies before any of its calls: the object is there whole, or it is not, and the next one gets through. */
static void killed_at_any_call(void **state)
{
    static const struct {
        const char *name;
        int link, renameat2, flock;
        bool create_only;
    } rows[] = {
        {"links", 0, 0, 0, true},
        {"RENAME_NOREPLACE", EPERM, 0, 0, true},
        {"locks", EPERM, EINVAL, 0, true},
        {"claims", EPERM, EINVAL, ENOSYS, true},
        {"replaced under a lock", 0, 0, 0, false},
        {"replaced under a claim", 0, 0, ENOSYS, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (long at = 0, survived = 0; !survived; at++) {
            struct world w = begin();
            sf_store_op op = put_op(&w, "a", "new");
            const char *before = rows[i].create_only ? "-" : "old";
            bool there;
            int status;
            pid_t pid;

            check_row = rows[i].name;
            op.create_only = rows[i].create_only;
            if (!op.create_only)
                write_file(&w, "a", "old", 0);
            fs.link = rows[i].link;
            fs.renameat2 = rows[i].renameat2;
            fs.flock = rows[i].flock;
            pid = fork();
            if (pid == 0) {
                open_store(&w);
                fs.crash_at = at;
                run(&w, op, NULL);
                _exit(7);
            }
            assert_int_equal(waitpid(pid, &status, 0), pid);
            survived = WEXITSTATUS(status) == 7;
            CHECK_INT(survived || strcmp(content(&w, "a"), before) == 0 || strcmp(content(&w, "a"), "new") == 0, true);
            age_claims(&w);
            open_store(&w);
            there = exists(&w, "a");
            CHECK_INT(run(&w, op, NULL), op.create_only && there ? SF_CONFLICT : SF_OK);
            CHECK_TEXT(content(&w, "a"), "new");
            close_store(&w);
            end(&w);
        }
}

/* ------------------------------------------------------------------ locks ---------------------------------------- */

static int lock(const struct world *w, const char *name)
{
    int fd = open(path_of(w, name), O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(__real_flock(fd, LOCK_EX | LOCK_NB), 0);
    return fd;
}

static void wait_for_tries(int n)
{
    while (atomic_load(&fs.busy) < n)
        usleep(1000);
}

/* Whoever may read a folder can lock it. Readers, what is to be new, and other folders do not care. */
static void a_locked_folder_holds_up_nobody_for_ever(void **state)
{
    struct world w = begin();
    sf_store_op op;
    sf_error e;
    char process[160];
    int held;

    (void)state;
    open_store(&w);
    assert_int_equal(run(&w, put_op(&w, "f/a", "1"), NULL), SF_OK);
    held = lock(&w, "f");
    op = put_op(&w, "f/a", "");
    op.verb = SF_STORE_GET;
    op.len = SF_STORE_ALL;
    op.max_bytes = 10;
    assert_int_equal(run(&w, op, NULL), SF_OK);
    op = put_op(&w, "f/b", "new");
    op.create_only = true;
    assert_int_equal(run(&w, op, NULL), SF_OK);
    assert_int_equal(run(&w, put_op(&w, "g/a", "1"), NULL), SF_OK);

    op = put_op(&w, "f/a", "2");
    snprintf(process, sizeof(process), "%s/f was locked all the time, by process %ld", w.folder, (long)getpid());
    for (int64_t ms = 60;; ms *= 2) { /* so long that it comes as far as the lock */
        op.deadline_ns = sf__deadline_in_ms(ms);
        assert_int_equal(run_to(&w, op, NULL, &e), SF_TIMEOUT);
        if (strstr(e.message, process))
            break;
        assert_true(ms < 10000);
    }
    assert_string_equal(content(&w, "f/a"), "1");
    assert_int_equal(file_count(&w, "f"), 2);
    close(held);
    close_store(&w);
    end(&w);
}

static void it_waits_for_a_lock_without_a_thread(void **state)
{
    enum { MANY = 64 }; /* more than there are threads */
    struct world w = begin();
    struct running puts[MANY], last;
    int held;

    (void)state;
    open_store(&w);
    assert_int_equal(run(&w, put_op(&w, "f/a", "1"), NULL), SF_OK);
    held = lock(&w, "f");
    for (int i = 0; i < MANY; i++)
        start(&w, &puts[i], put_op(&w, "f/a", "2"));
    wait_for_tries(MANY);
    assert_int_equal(run(&w, put_op(&w, "g/a", "1"), NULL), SF_OK); /* nothing holds up other folders */
    start(&w, &last, put_op(&w, "f/b", "3"));
    wait_for_tries(2 * MANY);
    on_loop(w.loop, cancel, &last);
    finish(&last);
    assert_int_equal(last.error.code, SF_CANCELLED);
    close(held);
    for (int i = 0; i < MANY; i++) {
        finish(&puts[i]);
        assert_int_equal(puts[i].error.code, SF_OK);
    }
    assert_string_equal(content(&w, "f/a"), "2");
    assert_int_equal(file_count(&w, "f"), 1); /* what was cancelled left nothing */
    close_store(&w);
    end(&w);
}

/* However often the name has to wait, what was written is synced once. */
static void waiting_syncs_once(void **state)
{
    struct world w = begin();
    struct running put, upload;
    sf_store_op op, created;
    const char *etag;
    int held;

    (void)state;
    open_store(&w);
    assert_int_equal(run(&w, put_op(&w, "f/a", "1"), NULL), SF_OK);
    op = put_op(&w, "f/b", "23");
    op.verb = SF_STORE_MULTIPART_CREATE;
    start(&w, &upload, op);
    finish(&upload);
    created = upload.op;
    op.verb = SF_STORE_MULTIPART_PART;
    op.upload_id = created.upload_id_out;
    op.part_number = 1;
    start(&w, &upload, op);
    finish(&upload);
    etag = upload.op.etag;
    op.verb = SF_STORE_MULTIPART_COMPLETE;
    op.keys = &etag;
    op.key_count = 1;
    held = lock(&w, "f");
    atomic_store(&fs.file_syncs, 0);
    atomic_store(&fs.busy, 0);
    start(&w, &put, put_op(&w, "f/a", "2"));
    {
        struct running completing;

        start(&w, &completing, op);
        wait_for_tries(12);
        close(held);
        finish(&put);
        finish(&completing);
        assert_int_equal(completing.error.code, SF_OK);
    }
    assert_int_equal(put.error.code, SF_OK);
    assert_int_equal(fs.file_syncs, 2);
    assert_string_equal(content(&w, "f/b"), "23");
    sf__store_op_cleanup(&created, heap);
    close_store(&w);
    end(&w);
}

/* ------------------------------------------------------------------ links ----------------------------------------- */

/* As text, one name a line. */
static const char *listing(struct world *w, const char *prefix, const char *delimiter)
{
    static char text[4096];
    struct running r;
    sf_store_op op = put_op(w, prefix, "");
    size_t n = 0;

    op.verb = SF_STORE_LIST;
    op.delimiter = delimiter;
    start(w, &r, op);
    finish(&r);
    CHECK_INT(r.error.code, SF_OK);
    text[0] = '\0';
    for (size_t i = 0; i < r.op.entry_count; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s\n", r.op.entries[i].key + strlen(w->folder)); /* "/", too */
    sf__store_op_cleanup(&r.op, heap);
    return text;
}

/* Folders that lead to themselves and to one another, 64 deep and as many ways at each step, are an end to no listing. */
static void links_lead_nowhere(void **state)
{
    static const char *const links[][2] = {
        {".", "p/empty/a"},        {".", "p/empty/b"},       {"..", "p/empty/c"},
        {"../empty", "p/empty/d"}, {"../../p", "p/full/up"}, {"../../p", "p/full/again"},
        {"full", "p/other"},       {"full/x", "p/file"},     {"nothing", "p/dangling"}};
    struct world w = begin();

    (void)state;
    open_store(&w);
    assert_int_equal(run(&w, put_op(&w, "p/full/x", "x"), NULL), SF_OK);
    assert_int_equal(mkdir(path_of(&w, "p/empty"), 0777), 0);
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++)
        assert_int_equal(symlink(links[i][0], path_of(&w, links[i][1])), 0);
    check_row = "all";
    CHECK_TEXT(listing(&w, "p/", NULL), "p/file\np/full/x\n");
    check_row = "prefixes";
    CHECK_TEXT(listing(&w, "p/", "/"), "p/file\np/full/\np/other/\n");
    check_row = "asked for by name";
    CHECK_TEXT(listing(&w, "p/other/", NULL), "p/other/x\n");
    CHECK_TEXT(listing(&w, "p/full/up/", "/"), "p/full/up/file\np/full/up/full/\np/full/up/other/\n");
    close_store(&w);
    end(&w);
}

/* ------------------------------------------------------------------ what was left behind -------------------------- */

#define OLD_PUT ".sf-tmp-00000000000000000000000000000001"
#define NEW_PUT ".sf-tmp-00000000000000000000000000000002"
#define LOCKED_PUT ".sf-tmp-00000000000000000000000000000003"
#define OLD_UPLOAD ".sf-upload-00000000000000000000000000000004"

static void killed_puts_are_swept(void **state)
{
    struct world w = begin();
    struct running list;
    sf_store_op op;
    int held;

    (void)state;
    open_store(&w);
    write_file(&w, OLD_PUT, "x", 2 * SF_FILE_ABANDONED_S);
    write_file(&w, NEW_PUT, "x", 0);
    write_file(&w, LOCKED_PUT, "x", 2 * SF_FILE_ABANDONED_S);
    write_file(&w, OLD_UPLOAD, "x", 2 * SF_FILE_ABANDONED_S);
    held = lock(&w, LOCKED_PUT);

    op = put_op(&w, "", "");
    op.verb = SF_STORE_LIST;
    start(&w, &list, op);
    finish(&list);
    assert_int_equal(list.op.entry_count, 0); /* nobody sees them as objects */
    sf__store_op_cleanup(&list.op, heap);
    op.verb = SF_STORE_MULTIPART_LIST;
    start(&w, &list, op);
    finish(&list);
    assert_int_equal(list.op.upload_count, 4); /* but as what can be aborted */
    for (size_t i = 0; i < 4; i++) {
        sf_store_op drop = {
            .verb = SF_STORE_MULTIPART_ABORT, .key = list.op.uploads[i].key, .upload_id = list.op.uploads[i].id};

        if (strstr(list.op.uploads[i].key, LOCKED_PUT))
            assert_int_equal(run(&w, drop, NULL), SF_OK);
    }
    sf__store_op_cleanup(&list.op, heap);
    assert_true(exists(&w, LOCKED_PUT)); /* its writer is alive */

    assert_int_equal(run(&w, put_op(&w, "a", "1"), NULL), SF_OK);
    assert_false(exists(&w, OLD_PUT));
    assert_true(exists(&w, NEW_PUT));
    assert_true(exists(&w, LOCKED_PUT));
    assert_true(exists(&w, OLD_UPLOAD)); /* its run decides */
    close(held);
    assert_int_equal(run(&w, put_op(&w, "a", "1"), NULL), SF_OK);
    assert_false(exists(&w, LOCKED_PUT));
    close_store(&w);
    end(&w);
}

static void empty_folders_go(void **state)
{
    struct world w = begin();
    sf_store_op op;

    (void)state;
    open_store(&w);
    op = put_op(&w, "f/g/a", "1"); /* refused: there is nothing to replace */
    op.if_match = "\"other\"";
    assert_int_equal(run(&w, op, NULL), SF_CONFLICT);
    assert_false(exists(&w, "f"));

    assert_int_equal(run(&w, put_op(&w, "p/shards/run_id=1/db=0/a", "1"), NULL), SF_OK);
    assert_int_equal(run(&w, put_op(&w, "p/shards/run_id=2/db=0/a", "1"), NULL), SF_OK);
    op = put_op(&w, "p/shards/run_id=1/db=0/a", "");
    op.verb = SF_STORE_DELETE;
    assert_int_equal(run(&w, op, NULL), SF_OK);
    assert_true(exists(&w, "p/shards/run_id=1/db=0")); /* nobody asked for it */
    op.tidy = true;
    assert_int_equal(run(&w, op, NULL), SF_OK);
    assert_false(exists(&w, "p/shards/run_id=1"));
    op.key = path_of(&w, "p/shards/run_id=2/db=0/a") + 1;
    assert_int_equal(run(&w, op, NULL), SF_OK);
    assert_false(exists(&w, "p/shards"));
    assert_true(exists(&w, "p")); /* the prefix may be somebody's */
    close_store(&w);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_at_any_call), /* first: it forks */
        cmocka_unit_test(file_systems_that_cannot),
        cmocka_unit_test(failures_stay_failures),
        cmocka_unit_test(a_link_whose_answer_was_lost),
        cmocka_unit_test(a_locked_folder_holds_up_nobody_for_ever),
        cmocka_unit_test(it_waits_for_a_lock_without_a_thread),
        cmocka_unit_test(waiting_syncs_once),
        cmocka_unit_test(links_lead_nowhere),
        cmocka_unit_test(killed_puts_are_swept),
        cmocka_unit_test(empty_folders_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
