/* The rules of the gate: what a new snapshot must hold to be announced. Pure; any thread. Each answers SF_REFUSED, whose
 * message begins with "not published: ". */
#ifndef SF_WRITER_GATE_H
#define SF_WRITER_GATE_H

#include "shardyfusion/writer.h"

/* `winners` ascend by db_id; shards without one are empty. */
sf_status sf__gate_check_empty_shards(const sf_attempt *winners, size_t count, uint32_t num_dbs, uint32_t most,
                                      sf_error *err);
/* Against the rows of the snapshot before; a share of 0 is not asked for. */
sf_status sf__gate_check_rows(uint64_t rows, uint64_t previous_rows, double least_share, double most_share,
                              sf_error *err);

#endif
