/* Lets each call that opens, renames, links, removes or looks at a file below $SLOW_FOLDER take $SLOW_MS longer, and
   then adds a byte to the file $SLOW_CALLS. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void linger(const char *path) {
    const char *folder = getenv("SLOW_FOLDER");
    if (!folder || !path || strncmp(path, folder, strlen(folder))) return;
    usleep(1000 * atoi(getenv("SLOW_MS")));
    int calls = syscall(SYS_openat, AT_FDCWD, getenv("SLOW_CALLS"), O_WRONLY | O_APPEND);
    if (calls >= 0) { (void)!write(calls, ".", 1); close(calls); }
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define SLOW(type, name, arguments, path, call) \
    type name arguments { linger(path); return REAL(name) call; }
#define MODE(flags) mode_t mode = 0; va_list more; va_start(more, flags); \
    if (flags & (O_CREAT | O_TMPFILE)) mode = va_arg(more, mode_t); va_end(more);

int open(const char *path, int flags, ...) { MODE(flags) linger(path); return REAL(open)(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) linger(path); return REAL(open64)(path, flags, mode); }
SLOW(int, rename, (const char *from, const char *to), to, (from, to))
SLOW(int, link, (const char *from, const char *to), to, (from, to))
SLOW(int, linkat, (int a, const char *from, int b, const char *to, int flags), to, (a, from, b, to, flags))
SLOW(int, unlink, (const char *path), path, (path))
SLOW(int, statx, (int at, const char *path, int flags, unsigned mask, struct statx *found), path,
     (at, path, flags, mask, found))
