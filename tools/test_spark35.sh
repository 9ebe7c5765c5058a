#!/usr/bin/env bash
# Publishes from the oldest Spark that we mean to work with, by hand: it takes 300 MB to download.
#
#     tools/test_spark35.sh build-python/python
set -euo pipefail
cd "$(dirname "$0")/.."
package=$(realpath "$1")
venv=.cache/spark35
[ -x $venv/bin/python ] || .venv/bin/python -m venv $venv
$venv/bin/pip install --quiet 'pyspark==3.5.*' 'pyarrow<20' 'pandas<3' 'numpy<2' pydantic
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cat >"$folder/publish.py" <<'EOF'
import sys

from pyspark.sql import SparkSession

from shardyfusion import HashShardedWriteConfig, ShardedReader, SingleDbWriteConfig, ValueSpec
from shardyfusion.config import ColumnWriteInput
from shardyfusion.writer.spark import write_hash_sharded, write_single_db

folder = sys.argv[1]
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").config("spark.driver.host", "127.0.0.1").getOrCreate()
rows = spark.range(0, 30000, 1, 3).selectExpr("id", "cast(concat('value ', id) as binary) v")
input = ColumnWriteInput("ID", ValueSpec.binary_col("V"))
for name, write, config in [
    ("many", write_hash_sharded, HashShardedWriteConfig(s3_prefix=f"file://{folder}/many", num_dbs=3)),
    ("one", write_single_db, SingleDbWriteConfig(s3_prefix=f"file://{folder}/one")),
]:
    assert write(rows, config, input).stats.rows_written == 30000
    with ShardedReader(s3_prefix=f"file://{folder}/{name}", local_root=f"{folder}/read") as reader:
        assert reader.multi_get([0, 29999, 30000]) == {0: b"value 0", 29999: b"value 29999", 30000: None}
print(f"Spark {spark.version}: published and read")
spark.stop()
EOF
PYTHONPATH=$package PYSPARK_PYTHON=$venv/bin/python $venv/bin/python "$folder/publish.py" "$folder"
