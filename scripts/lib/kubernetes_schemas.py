"""Unpacks the JSON schemas of some Kubernetes releases from a wheel of kubernetes-validate, for use with kubeconform.

Usage: kubernetes_schemas.py WHEEL DIRECTORY RELEASE…   (releases such as 1.33)

The schemas have URLs as their ids, and references between them use these URLs. Without the ids, the references are to files
in the same directory.
"""

import json
import pathlib
import sys
import zipfile

DEFINITIONS = "/api/_definitions.json"


def main(wheel: str, directory: str, releases: list[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for release in releases:
            folder = f"kubernetes_validate/kubernetes-json-schema/v{release}.0-local-strict/"
            members = [name for name in archive.namelist() if name.startswith(folder)]
            if not members:
                sys.exit(f"the wheel has no schemas of Kubernetes {release}")
            target = pathlib.Path(directory, release)
            target.mkdir(parents=True, exist_ok=True)
            for member in members:
                text = archive.read(member).decode().replace(f'"{DEFINITIONS}', f'"{pathlib.Path(DEFINITIONS).name}')
                schema = json.loads(text)
                schema.pop("$id", None)
                (target / pathlib.Path(member).name).write_text(json.dumps(schema))


main(sys.argv[1], sys.argv[2], sys.argv[3:])
