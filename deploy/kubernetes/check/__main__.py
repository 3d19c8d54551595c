"""Renders the manifests of deploy/kubernetes and checks the result: scripts/manifests runs it.

Checks schemas, then what schemas can't know (checks.py), then that each check works (mutations.py).
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

import checks
import mutations
import schemas

HERE = checks.ROOT / "deploy/kubernetes"

# The renderings: every folder, alone and combined.
RENDERINGS = {
    "base": (["base"], []),
    "base with topics, keda, podmonitor": (
        ["base"],
        ["components/topics", "components/keda", "components/podmonitor"],
    ),
    "managed": (["overlays/managed"], []),
    "managed with keda": (["overlays/managed"], ["overlays/managed/keda"]),
    "managed with all": (
        ["overlays/managed", "downsample", "bridge", "sink", "source"],
        ["overlays/managed/keda", "overlays/managed/downsample-keda", "components/podmonitor", "components/alerts"],
    ),
    "strimzi": (["overlays/strimzi"], []),
    "strimzi with keda": (["overlays/strimzi"], ["overlays/strimzi/keda"]),
    "strimzi with bridge, sink and source": (
        ["overlays/strimzi", "overlays/strimzi/bridge", "overlays/strimzi/sink", "overlays/strimzi/source"],
        [],
    ),
    "strimzi with aggregates": (
        ["overlays/strimzi", "overlays/strimzi/downsample"],
        ["overlays/strimzi/keda", "overlays/strimzi/downsample-keda"],
    ),
    "base with aggregates": (["base", "downsample"], ["components/topics", "components/keda-downsample"]),
    "strimzi with connect": (["overlays/strimzi", "overlays/strimzi/connect"], []),
}


def render(kubectl: str, folder: Path) -> list[dict]:
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    if done.returncode != 0 or done.stderr:
        # Warnings too: they announce fields that the next version of Kustomize drops.
        raise ValueError(done.stderr.strip())
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]


def combine(scratch: Path, resources: list[str], components: list[str]) -> None:
    """A user's own kustomization. Kustomize accepts only relative paths."""
    relative = lambda paths: [os.path.relpath(HERE / path, scratch) for path in paths]
    scratch.joinpath("kustomization.yaml").write_text(
        yaml.safe_dump({"resources": relative(resources), "components": relative(components)})
    )


def from_the_readme(scratch: Path) -> None:
    """The kustomization that README.md describes."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```", (HERE / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    beside = os.path.relpath(checks.ROOT, scratch)
    scratch.joinpath("kustomization.yaml").write_text(re.sub(r"^(  - )genwatch/", rf"\1{beside}/", text, flags=re.MULTILINE))


def main() -> int:
    parser = argparse.ArgumentParser(description="Renders deploy/kubernetes and checks it.")
    parser.add_argument("--kubectl", required=True)
    parser.add_argument("--out", required=True, type=Path, help="folder of the rendered manifests")
    arguments = parser.parse_args()

    wrong = objects = 0
    renderings = {}
    for name in [*RENDERINGS, "README.md"]:
        scratch = arguments.out / name.replace(",", "").replace(" ", "-")
        scratch.mkdir(parents=True, exist_ok=True)
        try:
            from_the_readme(scratch) if name == "README.md" else combine(scratch, *RENDERINGS[name])
            rendering = renderings[name] = checks.Rendering(render(arguments.kubectl, scratch))
        except ValueError as error:
            print(f"FAILED  {name}: can't be rendered: {error}")
            wrong += 1
            continue
        objects += len(rendering.objects)
        scratch.joinpath("rendered.yaml").write_text(yaml.safe_dump_all(rendering.objects, sort_keys=False))
        found = 0
        for check in checks.CHECKS:
            for complaint in check(rendering):
                print(f"FAILED  {name}: {check.__name__.replace('_', ' ')}: {complaint}")
                found += 1
        wrong += found
        if found == 0:
            print(f"ok      {name}: {len(rendering.objects)} objects, {len(checks.CHECKS)} checks")
    if wrong == 0:
        for overlooked in mutations.unnoticed(renderings):
            print(f"FAILED  mutations: {overlooked}")
            wrong += 1
    print(f"NOTE    {schemas.UNCHECKED}")
    print(f"{len(renderings)} renderings, {objects} objects, {len(mutations.MUTATIONS)} mutations, {wrong} complaints")
    return 1 if wrong else 0


sys.exit(main())
