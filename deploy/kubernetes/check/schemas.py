"""Whether an object is one that its API server would take. Strict: a field that nobody knows is a mistake, not a wish.

Every schema comes in a package: Kubernetes' own in kubernetes-validate, KEDA's and the Prometheus operator's as models
generated from their CRDs, Strimzi's as the CRDs that Strimzi's own generator wrote into a folder.
"""

import functools
from pathlib import Path

import jsonschema
import kubernetes_validate
import pydantic
import yaml

# The oldest and the newest that are validated against: what base uses is stable in all between.
KUBERNETES = ("1.30", "1.37")


def complaints(thing: dict, crds: Path | None) -> list[str]:
    """What is wrong with it by its schema."""
    group = thing["apiVersion"].rpartition("/")[0]
    if group == "kafka.strimzi.io":
        return _by_crd(thing, crds) if crds else []
    if group == "keda.sh":
        from cloudcoil.models.keda import v1alpha1

        return _by_model(thing, v1alpha1)
    if group == "monitoring.coreos.com":
        from cloudcoil.models.prometheus_operator import v1

        return _by_model(thing, v1)
    return _by_kubernetes(thing)


def _by_kubernetes(thing: dict) -> list[str]:
    found = []
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"Kubernetes {version}: {_where(error.path)}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            found.append(f"Kubernetes {version}: {error.message}")
    return found


def _by_model(thing: dict, models) -> list[str]:
    model = getattr(models, thing["kind"], None)
    if model is None:
        return [f"there is no model of {thing['apiVersion']} {thing['kind']}"]
    try:
        understood = model.model_validate(thing)
    except pydantic.ValidationError as error:
        return [f"{_where(one['loc'])}: {one['msg']}" for one in error.errors()]
    # The models skip fields that they don't know, and take "15" for 15. What comes out again tells.
    again = understood.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return [f"{where}: unknown, or of the wrong type" for where in _differences(thing, again)]


def _by_crd(thing: dict, crds: Path) -> list[str]:
    schema = _crd_schemas(crds).get((thing["apiVersion"], thing["kind"]))
    if schema is None:
        return [f"no CRD in {crds} tells of {thing['apiVersion']} {thing['kind']}"]
    validator = jsonschema.Draft202012Validator(schema)
    return [f"{_where(error.path)}: {error.message}" for error in validator.iter_errors(thing)]


@functools.cache
def _crd_schemas(crds: Path) -> dict:
    schemas = {}
    for file in sorted(crds.glob("*.yaml")):
        spec = yaml.safe_load(file.read_text())["spec"]
        for version in spec["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            schemas[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = _strict(schema)
    return schemas


def _strict(schema):
    """The same, and fields that it doesn't name are refused; an API server would drop them without a word."""
    if not isinstance(schema, dict):
        return schema
    schema = {key: _strict(value) for key, value in schema.items() if key != "properties"} | (
        {"properties": {name: _strict(field) for name, field in schema["properties"].items()}}
        if isinstance(schema.get("properties"), dict)
        else {}
    )
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema


def _differences(given, understood, where="") -> list[str]:
    if isinstance(given, dict) and isinstance(understood, dict):
        keys = given.keys() | understood.keys()
        return [
            one
            for key in sorted(keys)
            for one in _differences(given.get(key), understood.get(key), f"{where}.{key}".lstrip("."))
        ]
    if isinstance(given, list) and isinstance(understood, list) and len(given) == len(understood):
        return [
            one for i, pair in enumerate(zip(given, understood)) for one in _differences(*pair, f"{where}[{i}]")
        ]
    return [] if given == understood and type(given) is type(understood) else [where]


def _where(path) -> str:
    return ".".join(str(part) for part in path) or "the object"
