"""Print what a pyproject.toml needs to be built and run, with some extras, one requirement a line. Python 3.11 on."""

import sys

import tomllib

path, extras = sys.argv[1], sys.argv[2].split(",")
with open(path, "rb") as stream:
    content = tomllib.load(stream)
project = content["project"]
further = (need for extra in extras for need in project["optional-dependencies"][extra])
print("\n".join(dict.fromkeys([*content["build-system"]["requires"], *project["dependencies"], *further])))
