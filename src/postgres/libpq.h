/* The part of libpq that we use, loaded when it is first needed: a program that keeps its manifests elsewhere need not have it,
 * and the wheel need not bring it with its Kerberos and LDAP. The ABI is that of libpq.so.5, the same since 2005. */
#ifndef SF_POSTGRES_LIBPQ_H
#define SF_POSTGRES_LIBPQ_H

#include "shardyfusion/base.h"

typedef struct pg_conn PGconn;
typedef struct pg_result PGresult;

typedef struct sf_pq_option { /* PQconninfoOption */
    char *keyword, *envvar, *compiled, *val, *label, *dispchar;
    int dispsize;
} sf_pq_option;

enum { SF_PQ_CONNECTION_OK = 0 };
enum { SF_PQ_POLLING_FAILED = 0, SF_PQ_POLLING_READING = 1, SF_PQ_POLLING_WRITING = 2, SF_PQ_POLLING_OK = 3 };
enum { SF_PQ_COMMAND_OK = 1, SF_PQ_TUPLES_OK = 2 };
enum { SF_PQ_DIAG_SQLSTATE = 'C', SF_PQ_DIAG_MESSAGE_PRIMARY = 'M' };

#define SF_LIBPQ_FUNCTIONS(X)                                                                                        \
    X(sf_pq_option *, conninfoParse, (const char *conninfo, char **message))                                         \
    X(void, conninfoFree, (sf_pq_option * options))                                                                  \
    X(void, freemem, (void *p))                                                                                      \
    X(PGconn *, connectStartParams, (const char *const *keywords, const char *const *values, int expand))            \
    X(int, connectPoll, (PGconn * conn))                                                                             \
    X(int, status, (const PGconn *conn))                                                                             \
    X(int, socket, (const PGconn *conn))                                                                             \
    X(char *, errorMessage, (const PGconn *conn))                                                                    \
    X(void, finish, (PGconn * conn))                                                                                 \
    X(int, setnonblocking, (PGconn * conn, int on))                                                                  \
    X(void *, setNoticeReceiver, (PGconn * conn, void (*receive)(void *ctx, const PGresult *r), void *ctx))          \
    X(int, sendQuery, (PGconn * conn, const char *text))                                                             \
    X(int, sendQueryParams,                                                                                          \
      (PGconn * conn, const char *text, int n, const unsigned *types, const char *const *values, const int *lengths, \
       const int *formats, int result_format))                                                                       \
    X(int, flush, (PGconn * conn))                                                                                   \
    X(int, consumeInput, (PGconn * conn))                                                                            \
    X(int, isBusy, (PGconn * conn))                                                                                  \
    X(PGresult *, getResult, (PGconn * conn))                                                                        \
    X(int, resultStatus, (const PGresult *r))                                                                        \
    X(char *, resultErrorField, (const PGresult *r, int field))                                                      \
    X(int, ntuples, (const PGresult *r))                                                                             \
    X(int, nfields, (const PGresult *r))                                                                             \
    X(char *, getvalue, (const PGresult *r, int row, int column))                                                    \
    X(int, getisnull, (const PGresult *r, int row, int column))                                                      \
    X(int, getlength, (const PGresult *r, int row, int column))                                                      \
    X(void, clear, (PGresult * r))

typedef struct sf_libpq {
#define SF_LIBPQ_MEMBER(type, name, args) type(*name) args;
    SF_LIBPQ_FUNCTIONS(SF_LIBPQ_MEMBER)
#undef SF_LIBPQ_MEMBER
} sf_libpq;

/* Of the process, for good. SF_UNSUPPORTED when it cannot be loaded. Any thread. */
sf_status sf__libpq_load(const sf_libpq **out, sf_error *err);

#endif
