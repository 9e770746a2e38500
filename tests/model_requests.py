"""Requests made out of AWS's model: for each action the smallest and the fullest that the model allows, and every way to break them."""

import copy

from botocore.session import get_session

MODEL = get_session().get_service_model("ecs")
OPERATIONS = sorted(MODEL.operation_names)
# What any operation may answer besides its own errors.
COMMON = {"AccessDeniedException", "ClientException", "InvalidParameterException"}
# How a value of each type is got wrong for good: no reader takes it for the right one.
WRONG = {"string": [], "list": "x", "structure": "x", "map": "x", "integer": "x", "long": "x", "double": "x", "float": "x", "boolean": "x",
         "timestamp": [], "blob": []}
# Plausible texts, by the member's name; others get their own name.
TEXTS = {"cpu": "256", "memory": "512", "clientToken": "token-1", "image": "hello:latest", "name": "one", "key": "stack"}
# Deep enough for everything in the model, and an end for what contains itself.
DEPTH = 12


def errors_of(operation):
    """The errors the operation may answer by the model."""
    return {shape.name for shape in MODEL.operation_model(operation).error_shapes} | COMMON


def smallest(operation):
    """Only what is required."""
    return _value(MODEL.operation_model(operation).input_shape, operation, DEPTH, required_only=True)


def fullest(operation):
    """Every member there is, lists with one item."""
    return _value(MODEL.operation_model(operation).input_shape, operation, DEPTH, required_only=False)


def _value(shape, name, depth, required_only):
    kind, limits = shape.type_name, shape.metadata
    if kind == "structure":
        wanted = shape.required_members if required_only or depth == 0 else shape.members
        return {member: _value(shape.members[member], member, depth - 1, required_only) for member in wanted}
    if kind == "list":
        return [_value(shape.member, name.removesuffix("s"), depth - 1, required_only)] if depth > 0 else []
    if kind == "map":
        return {"key": _value(shape.value, name, depth - 1, required_only)}
    if kind in ("integer", "long", "double", "float"):
        return limits.get("min", 1)
    if kind == "string":
        return limits.get("enum", [TEXTS.get(name, name)])[0]
    return {"boolean": True, "timestamp": 1700000000, "blob": "aGVsbG8="}[kind]


def _members(shape, value, path=(), text=""):
    """Every member in a request, with the way to it and the text by which AWS names it."""
    if shape.type_name == "structure":
        for name, inner in value.items():
            at, called = (*path, name), f"{text}.{name}" if text else name
            yield shape.members[name], at, called, name in shape.required_members
            yield from _members(shape.members[name], inner, at, called)
    elif shape.type_name == "list":
        for number, inner in enumerate(value):
            yield from _members(shape.member, inner, (*path, number), f"{text}.{number + 1}.member")
    elif shape.type_name == "map":
        for key, inner in value.items():
            yield from _members(shape.value, inner, (*path, key), f"{text}.{key}.member")


def _with(request, path, value):
    changed = copy.deepcopy(request)
    at = changed
    for step in path[:-1]:
        at = at[step]
    if value is _with:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return changed


def broken(operation):
    """Requests with one fault each: (the request, the error's code, the member as AWS names it)."""
    request = fullest(operation)
    for shape, path, called, is_required in _members(MODEL.operation_model(operation).input_shape, request):
        # A document is whatever JSON it is.
        if not getattr(shape, "is_document_type", False):
            yield _with(request, path, WRONG[shape.type_name]), "SerializationException", path[-1]
        if is_required:
            yield _with(request, path, _with), "InvalidParameterException", f"'{called}'"
        limits = shape.metadata
        if _enum(shape):
            yield _with(request, path, "NO_SUCH"), "InvalidParameterException", f"'{called}'"
        elif shape.type_name == "list" and _enum(shape.member):
            yield _with(request, path, ["NO_SUCH"]), "InvalidParameterException", f"'{called}"
        for bound, step in (("min", -1), ("max", 1)):
            outside = _outside(shape, _at(request, path), limits[bound] + step) if bound in limits else None
            if outside is not None:
                yield _with(request, path, outside), "InvalidParameterException", f"'{called}"


def _enum(shape):
    return shape.type_name == "string" and shape.enum


def _at(request, path):
    for step in path:
        request = request[step]
    return request


def _outside(shape, value, size):
    """A value just outside of a bound; none where there is no such value."""
    if shape.type_name in ("integer", "long", "double"):
        # Beyond 32 bits is another fault: the number cannot be read at all.
        return size if abs(size) < 2**31 else None
    if size < 0:
        return None
    return "x" * size if shape.type_name == "string" else value * size
