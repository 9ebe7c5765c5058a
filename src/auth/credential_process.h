/* Running the command of a credential_process. Waits: worker threads only. */
#ifndef SF_AUTH_CREDENTIAL_PROCESS_H
#define SF_AUTH_CREDENTIAL_PROCESS_H

#include <stdatomic.h>

#include "auth/said.h"
#include "base/alloc.h"
#include "base/bytes.h"

#define SF_CREDENTIAL_PROCESS_BYTES (64u << 10)

/* What the command prints, terminated, *n bytes of it; the caller overwrites and frees it. The command is split into words
 * as a shell would (quotes, backslashes), and started without one; it reads nothing. `complaint` gets the end of what it writes to
 * standard error, fit for messages; that of an error holds it already. It and
 * what it started are killed at the deadline (SF_TIMEOUT), soon after *stop was set (SF_CANCELLED), and when it prints more
 * than SF_CREDENTIAL_PROCESS_BYTES (SF_CORRUPT). Another end than success is SF_DENIED; a command that cannot be started
 * SF_INVALID. */
sf_status sf__credential_process_run(char **out, size_t *n, char complaint[SF_SAID_BYTES], const char *command,
                                     uint64_t deadline_ns, const atomic_bool *stop, const sf_allocator *a, sf_error *err);

/* The words of a command, for execvp(); SF_INVALID for an open quote, no word at all, or too many. One block of memory,
 * the caller's. */
sf_status sf__command_split(char ***out, const char *command, const sf_allocator *a, sf_error *err);

#endif
