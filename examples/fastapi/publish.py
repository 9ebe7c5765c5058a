"""Publishes 1,000 profiles, for a first look: python publish.py"""

import json
import os

from shardyfusion import HashShardedWriteConfig, PythonRecordInput
from shardyfusion.writer.python import write_hash_sharded

people = [{"id": n, "name": f"user {n}"} for n in range(1000)]
rows = PythonRecordInput[dict[str, object]](
    key_fn=lambda person: int(str(person["id"])), value_fn=lambda person: json.dumps(person).encode()
)
result = write_hash_sharded(people, HashShardedWriteConfig(num_dbs=4, s3_prefix=os.environ["PROFILES"]), rows)
print(result.manifest_ref)
