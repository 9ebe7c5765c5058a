/* What the files of the extension that write share: options and results in Python's terms. */
#ifndef SHARDYFUSION_PYTHON_WRITING_H
#define SHARDYFUSION_PYTHON_WRITING_H

#include "state.h"

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
};

bool writer_options_from_python(PyObject *dict, struct parsed_options *p);

/* What keys of a shard were given as: they must be of one kind. */
#define KIND_STR 1u
#define KIND_BYTES 2u

/* `kinds` of all shards, or NULL when keys are integers. */
PyObject *report_to_python(const sf_write_report *r, const uint8_t *kinds);
PyObject *progress_to_python(const sf_write_progress *p);

#endif
