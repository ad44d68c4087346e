/*
** The replacement of fcntl(2) that SQLite calls. It is C because fcntl is variadic: on Apple
** arm64 variadic arguments travel on the stack, where a function of fixed arity does not look.
**
** The third argument is read as a pointer whatever the command, as glibc's and musl's own fcntl
** do: SQLite always passes one, and an int arrives in a slot that is at least as wide on every
** ABI that this is built for. Its upper half may be garbage, which a command with an int ignores.
*/
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>

/* Answers 0, or the error number. Never unwinds. */
typedef int (*fusion_request)(int fd, int cmd, struct flock *lock);

static int dispatch(fusion_request request, int fd, int cmd, void *arg) {
  int error;
  if (cmd != F_SETLK && cmd != F_SETLKW && cmd != F_GETLK) return fcntl(fd, cmd, arg);
  error = request(fd, cmd, (struct flock *)arg);
  if (error == 0) return 0;
  errno = error;
  return -1;
}

/*
** One trampoline for each copy of SQLite: a system call's replacement gets no context argument.
** The setters are hidden: a second image of this addon in the process must not be bound to the
** first one's.
*/
#define TRAMPOLINE(copy) \
  static fusion_request copy##_request; \
  static int copy##_fcntl(int fd, int cmd, ...) { \
    va_list ap; \
    void *arg; \
    va_start(ap, cmd); \
    arg = va_arg(ap, void *); \
    va_end(ap); \
    return dispatch(copy##_request, fd, cmd, arg); \
  } \
  __attribute__((visibility("hidden"))) void (*fusion_##copy##_fcntl(fusion_request request))(void) { \
    copy##_request = request; \
    return (void (*)(void))copy##_fcntl; \
  }

TRAMPOLINE(bundled)
TRAMPOLINE(node)
