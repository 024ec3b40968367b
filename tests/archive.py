"""Runs SQL over audit lines in DuckDB, laid out in folders as deploy/fluent-bit writes them.

Arguments: a directory that holds the folders, the file that makes the view, and the files of queries. Prints one JSON
object: for each query, by its file's name, its rows as objects; under `columns` name and type of each of the view's.
"""

import json
import os
import pathlib
import sys

import duckdb

directory, view, *queries = sys.argv[1:]
texts = {path: pathlib.Path(path).read_text().rstrip().removesuffix(";") for path in [view, *queries]}
os.chdir(directory)
# Nothing is fetched while the tests run.
database = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
database.execute("SET TimeZone = 'UTC'")
database.execute(texts[view])


def rows(sql):
    # DuckDB writes the JSON itself: times would need another package to become Python's.
    database.execute(f"COPY ({sql}) TO 'answer.json' (FORMAT json)")
    return [json.loads(line) for line in pathlib.Path("answer.json").read_text().splitlines()]


answer = {pathlib.Path(path).stem: rows(texts[path]) for path in queries}
answer["columns"] = {row["column_name"]: row["column_type"] for row in rows("SELECT column_name, column_type FROM (DESCRIBE audit)")}
# Forces every column of every line through its type; what does not fit is an error.
answer["all"] = rows("SELECT * FROM audit")
print(json.dumps(answer))
