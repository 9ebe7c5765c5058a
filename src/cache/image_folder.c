#include "cache/image_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

#define NAME_DIGITS 32u
#define NAME_BYTES (NAME_DIGITS + sizeof(SF_IMAGE_SUFFIX))

static bool is_image(const char *name, const char *suffix)
{
    return strspn(name, "0123456789abcdef") == NAME_DIGITS && strcmp(name + NAME_DIGITS, suffix) == 0;
}

struct found {
    uint64_t bytes; /* of all that is there */
    bool sweep;     /* what nobody writes any more goes */
    char oldest[NAME_BYTES];
    int64_t used_us; /* it */
};

bool sf__image_folder_names(int folder, const char *name, int fd)
{
    struct stat mine, there;

    return fstat(fd, &mine) == 0 && fstatat(folder, name, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
           mine.st_ino == there.st_ino && mine.st_dev == there.st_dev;
}

/* Whoever writes it has it locked. */
static bool sweep(int folder, const char *name)
{
    int fd = SF_FD(openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    bool swept = false;

    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
        swept = sf__image_folder_names(folder, name, fd) && unlinkat(folder, name, 0) == 0;
        flock(fd, LOCK_UN);
    }
    if (fd >= 0)
        close(fd);
    return swept;
}

static void take(struct found *w, int folder, const char *name)
{
    bool made = is_image(name, SF_IMAGE_SUFFIX);
    struct stat st;
    int64_t used_us;

    if ((!made && !is_image(name, SF_IMAGE_MAKING_SUFFIX)) || fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISREG(st.st_mode))
        return;
    if (!made && w->sweep && sweep(folder, name))
        return;
    w->bytes += (uint64_t)st.st_size;
    used_us = (int64_t)st.st_mtim.tv_sec * 1000000 + st.st_mtim.tv_nsec / 1000;
    if (made && (w->oldest[0] == '\0' || used_us < w->used_us)) {
        memcpy(w->oldest, name, NAME_DIGITS + sizeof(SF_IMAGE_SUFFIX)); /* with what ends it */
        w->used_us = used_us;
    }
}

static struct found look(int folder, bool sweep)
{
    int fd = SF_FD(openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct found w = {.sweep = sweep};

    if (!d && fd >= 0)
        close(fd);
    for (struct dirent *e; d && (e = readdir(d));)
        take(&w, folder, e->d_name);
    if (d)
        closedir(d);
    return w;
}

uint64_t sf__image_folder_bytes(int folder)
{
    return look(folder, false).bytes;
}

bool sf__image_folder_shrink(int folder, uint64_t more, uint64_t most, int64_t since_us)
{
    struct found w = look(folder, true);

    if (more > most)
        return false;
    while (w.bytes > most - more && w.oldest[0] != '\0' && w.used_us < since_us && unlinkat(folder, w.oldest, 0) == 0)
        w = look(folder, false);
    return w.bytes <= most - more;
}
