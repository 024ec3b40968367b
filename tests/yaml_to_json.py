"""Reads YAML documents from standard input and prints them as one JSON array.

Argument: the version of YAML, 1.1 (what Kubernetes reads: 0440 is octal, `on` is true) or 1.2.
"""

import json
import re
import sys

from ruamel.yaml import YAML

version = tuple(int(part) for part in sys.argv[1].split("."))


def load(text):
    # The parser in Python: no compiled part is needed, and it refuses duplicate keys. One for each document: it
    # forgets the version behind the first.
    yaml = YAML(typ="safe", pure=True)
    yaml.version = version
    return yaml.load(text)


documents = [load(text) for text in re.split(r"(?m)^---$", sys.stdin.read())]
json.dump([document for document in documents if document is not None], sys.stdout, default=str)
