/* Temporary files have no name, also where the file system cannot make them without one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/temp_file.h"

static int tmpfile_errno; /* of open() with O_TMPFILE; 0: it works */

/* The library's, too. */
int open(const char *path, int flags, ...)
{
    va_list args;
    mode_t mode = 0;

    if ((flags & O_TMPFILE) == O_TMPFILE && tmpfile_errno != 0) {
        errno = tmpfile_errno;
        return -1;
    }
    va_start(args, flags);
    if (flags & (O_CREAT | O_TMPFILE))
        mode = va_arg(args, mode_t);
    va_end(args);
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static unsigned files_in(const char *folder)
{
    DIR *d = opendir(folder);
    unsigned n = 0;

    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static void nameless(void **state)
{
    static const struct {
        int error;
        sf_status expected;
    } cases[] = {{0, SF_OK},      {EOPNOTSUPP, SF_OK}, {EISDIR, SF_OK},
                 {EINVAL, SF_OK}, {ENOSPC, SF_IO},     {EMFILE, SF_EXHAUSTED}};
    char folder[] = "/tmp/sf-temp-XXXXXX";

    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_error e = SF_ERROR_INIT;
        struct stat st;
        sf_status rc;
        char c = 0;
        int fd;

        tmpfile_errno = cases[i].error;
        rc = sf__temp_file_nameless(folder, "folder of the test", &sf__allocator_default, &fd, &e);
        tmpfile_errno = 0;
        if (rc != cases[i].expected)
            fail_msg("%s: %s", strerror(cases[i].error), e.message);
        assert_int_equal(files_in(folder), 0);
        if (rc != SF_OK) {
            assert_non_null(strstr(e.message, "folder of the test /tmp/sf-temp-"));
            assert_non_null(strstr(e.message, cases[i].error == ENOSPC ? ": make room there" : "raise its limit"));
            continue;
        }
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_nlink, 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        assert_int_equal(pwrite(fd, "x", 1, 5), 1);
        assert_int_equal(pread(fd, &c, 1, 5), 1);
        assert_int_equal(c, 'x');
        close(fd);
    }
    assert_int_equal(rmdir(folder), 0);
}

static void named(void **state)
{
    char folder[] = "/tmp/sf-temp-XXXXXX", *names[2];
    int fds[2], in;
    struct stat st;

    assert_non_null(mkdtemp(folder));
    in = open(folder, O_RDONLY | O_DIRECTORY);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(sf__temp_file_named(in, &sf__allocator_default, &fds[i], &names[i], NULL), SF_OK);
        assert_true(sf__temp_file_is_one(names[i]));
        assert_int_equal(fstatat(in, names[i], &st, AT_SYMLINK_NOFOLLOW), 0);
        assert_int_equal(st.st_mode, S_IFREG | 0600);
    }
    assert_string_not_equal(names[0], names[1]);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(unlinkat(in, names[i], 0), 0);
        sf__free(&sf__allocator_default, names[i]);
        close(fds[i]);
    }
    assert_false(sf__temp_file_is_one("0123456789abcdef-0123456789abcdef0123456789abcdef.db"));
    close(in);
    assert_int_equal(rmdir(folder), 0);
}

static void missing_folders(void **state)
{
    sf_error e = SF_ERROR_INIT;
    int fd;

    for (int i = 0; i < 2; i++) {
        tmpfile_errno = i == 0 ? 0 : EOPNOTSUPP;
        assert_int_equal(sf__temp_file_nameless("/nonexistent/x", "folder", &sf__allocator_default, &fd, &e), SF_IO);
        assert_non_null(strstr(e.message, "folder /nonexistent/x: "));
        assert_non_null(strstr(e.message, "No such file or directory"));
    }
    tmpfile_errno = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nameless),
        cmocka_unit_test(named),
        cmocka_unit_test(missing_folders),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
