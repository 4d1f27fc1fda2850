"""Prints the types of a Parquet file's columns, then its rows as JSON, one a line, by DuckDB."""

import json
import sys

import duckdb

table = duckdb.read_parquet(sys.argv[1])
print(json.dumps({name: str(kind) for name, kind in zip(table.columns, table.types)}))
for row in table.fetchall():
    print(json.dumps(dict(zip(table.columns, row))))
