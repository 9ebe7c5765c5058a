/* What the files of the extension that write share: options and results in Python's terms. */
#ifndef SHARDYFUSION_PYTHON_WRITING_H
#define SHARDYFUSION_PYTHON_WRITING_H

#include "convert.h"

#include "shardyfusion/writer.h"

/* Each takes NULL and None for "nothing was given"; false with an exception. Texts are borrowed from the dictionary. */
bool slatedb_options_from_python(PyObject *dict, sf_slatedb_options *out);
bool sqlite_options_from_python(PyObject *dict, sf_sqlite_options *out);

/* What the options point to, until the writer has copied it. */
struct parsed_options {
    sf_writer_options o;
    sf_s3_options s3, shard_s3;
    sf_slatedb_options slatedb;
    sf_sqlite_options sqlite;
    struct parsed_cel {
        sf_cel_sharding sharding;
        sf_routing_column *columns;
        struct routing values;
    } cel;
};

/* To be cleaned up in any case. */
bool writer_options_from_python(PyObject *dict, struct parsed_options *p);
void parsed_options_cleanup(struct parsed_options *p);
/* A CEL sharding from a dictionary, which keeps its texts. As above. */
bool cel_from_python(PyObject *dict, struct parsed_cel *p);
void parsed_cel_cleanup(struct parsed_cel *p);

/* The words of options, by the values of their enums, up to NULL. */
extern const char *const key_encoding_words[], *const backend_words[];
/* One of a report's attempts, which may come from another process. Texts are borrowed from the dictionary. */
bool reported_attempt_from_python(PyObject *dict, sf_attempt *out, const char **opening);

PyObject *report_to_python(sf_writer *w);
PyObject *progress_to_python(const sf_write_progress *p);

#endif
