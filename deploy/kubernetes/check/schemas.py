"""Whether an API server would accept an object. Strict: an unknown field is a mistake.

Schemas come in packages: Kubernetes' own in kubernetes-validate, KEDA's and the Prometheus operator's as models generated
from their CRDs. Strimzi's come in none; strimzi.yaml beside this is ours, of what we use.
"""

import functools
from pathlib import Path

import jsonschema
import kubernetes_validate
import pydantic
import yaml

# The oldest and the newest version to validate against: base uses only fields that are stable in all between.
KUBERNETES = ("1.30", "1.37")

UNCHECKED = (
    "Strimzi's CRDs come in no package: its objects are checked against strimzi.yaml, a short schema of ours, not against "
    "Strimzi's own"
)


def complaints(thing: dict) -> list[str]:
    """What its schema finds wrong with it."""
    group = thing["apiVersion"].rpartition("/")[0]
    if group == "kafka.strimzi.io":
        return _by_ours(thing)
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
    # The models skip unknown fields, and accept "15" for 15. The output shows both.
    again = understood.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return [f"{where}: unknown, or of the wrong type" for where in _differences(thing, again)]


def _by_ours(thing: dict) -> list[str]:
    schema = _strimzi()
    if thing["kind"] not in schema:
        return [f"strimzi.yaml has no {thing['kind']}"]
    validator = jsonschema.Draft202012Validator({"$defs": schema["$defs"], **schema[thing["kind"]]})
    return [f"{_where(error.path)}: {error.message}" for error in validator.iter_errors(thing)]


@functools.cache
def _strimzi() -> dict:
    return yaml.safe_load(Path(__file__).with_name("strimzi.yaml").read_text())


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
