"""Who may import whom (docs/architecture.md), and that dvc.yaml names all code that a stage reaches."""

import ast
import copy
import re
import sys
import tomllib
from functools import cache
from pathlib import Path, PurePosixPath

import pytest
from ruamel.yaml import YAML

from pipeline.paper.__main__ import CODE as CODE_OF_PAPER
from pipeline.training.name import CODE as CODE_OF_TRAINING

ROOT = Path(__file__).parents[1]
PACKAGE = "pipeline"
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))
DVC = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
STAGES = ("prepare", "train", "evaluate", "export")

SCRATCH = {".training"}  # holds what no stage declares

ONLY_HERE = {
    "mlflow": {"tracking"},
    "ruamel": {"params"},
    "yaml": set(),
    "pydantic": {"params", "server"},
    "dvc": {"experiment"},
}
OTHERS_ALLOWED = {
    "vae": {"torch"},
    "runtime": {"numpy", "onnxruntime", "PIL"},
    "server": {"numpy", "PIL", "fastapi", "orjson", "prometheus_client", "pydantic", "starlette", "uvicorn"},
}
STDLIB_OF_VAE = {"collections", "dataclasses", "functools", "itertools", "math", "typing"}
NAMED_BY_CODE = {f"{PACKAGE}.train": CODE_OF_TRAINING, f"{PACKAGE}.paper.training": CODE_OF_PAPER}
SHAPES_NO_WEIGHTS = {
    f"{PACKAGE}.train": {"errors", "files", "threads", "tracking", "workplace"},
    # What reads and checks recipes: the answers stand in a run's name themselves.
    f"{PACKAGE}.paper.training": {"errors", "files", "params", "sweep", "workplace", f"{PACKAGE}.paper.plan"},
}
READS_CODE = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "cloudpickle"}


def name_of(file):
    """pipeline/vae/model.py -> pipeline.vae.model"""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in FILES}


def room_of(module):
    """pipeline.vae.model -> vae; the package itself has no room. The server is a room inside the runtime's folder."""
    return "server" if module.startswith("pipeline.runtime.server") else [*module.split("."), ""][1]


def table_of_rooms(layout):
    """What each room imports beside the leaves, by the table of docs/architecture.md."""
    section = layout.partition("## The rooms")[2].partition("\n## ")[0]
    table = {}
    for place, uses in re.findall(r"^\| `(\S+)` \| .* \| ?(.*) \|$", section, re.MULTILINE):
        room = room_of(f"{PACKAGE}.{place.removesuffix('.py').strip('/').replace('/', '.')}")
        table.setdefault(room, set()).update(re.findall(r"`(\w+)`", uses))
    return table


TABLE = table_of_rooms((ROOT / "docs/architecture.md").read_text(encoding="utf-8"))
LEAVES = {"errors", "files", "image_file"}


@cache
def nodes(file):
    return list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


def imported_names(file):
    """Every module that a file may import, at any depth of its code; a name may be a module's or a value's."""
    for node in nodes(file):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tops(file):
    """The libraries and packages that a file imports: torch, pipeline, ..."""
    return {name.split(".")[0] for name in imported_names(file)}


def direct_imports(module):
    """Modules of ours that `module` imports, and the packages that Python runs on the way to them."""
    ours = {name for name in imported_names(MODULES[module]) if name in MODULES}
    return ours | {name.rpartition(".")[0] for name in ours if "." in name} - {module}


def reached_from(module):
    """All modules of ours that run when `module` does."""
    reached, open_ = set(), [module]
    while open_:
        here = open_.pop()
        if here not in reached:
            reached.add(here)
            open_ += direct_imports(here)
    return reached


def faults_of_deps(stage, dvc):
    """What a stage reaches beyond its deps in dvc.yaml, and which of its deps of code it does not reach."""
    deps = [PurePosixPath(dep) for dep in dvc["stages"][stage]["deps"] if dep.startswith(f"{PACKAGE}/")]
    reached = {PurePosixPath(MODULES[name].relative_to(ROOT)) for name in reached_from(f"{PACKAGE}.{stage}")}
    reached.discard(PurePosixPath(PACKAGE, "__init__.py"))  # a docstring alone, see below
    return {
        "missing": sorted(str(file) for file in reached if not any(file.is_relative_to(dep) for dep in deps)),
        "superfluous": sorted(str(dep) for dep in deps if not any(file.is_relative_to(dep) for file in reached)),
    }


def calls():
    """Every call in the package: (where, dotted name, keywords)."""
    for file in FILES:
        for node in nodes(file):
            if isinstance(node, ast.Call):
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                yield f"{file.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), keywords


def imports_of(room):
    """The other rooms that a room imports; the leaves, which any may use, are told of leaves alone."""
    imported = {room_of(other) for name in MODULES if room_of(name) == room for other in direct_imports(name)}
    return imported - {room, ""} - (set() if room in LEAVES else LEAVES)


def test_every_module_has_a_room():
    assert {room_of(name) for name in MODULES} - {""} == set(TABLE)


@pytest.mark.parametrize("room", TABLE)
def test_a_room_imports_what_the_table_says(room):
    assert imports_of(room) == TABLE[room]


def test_only_the_opening_of_a_model_by_its_name_in_the_registry_brings_the_store_into_the_runtime():
    runtime = [name for name in MODULES if room_of(name) == "runtime"]
    assert [name for name in runtime if "tracking" in map(room_of, direct_imports(name))] == [
        f"{PACKAGE}.runtime.registry"
    ]


def test_nothing_imports_a_stage():
    assert {
        f"{name} imports {stage}" for name in MODULES for stage in STAGES if stage in map(room_of, direct_imports(name))
    } == set()


@pytest.mark.parametrize("library", ONLY_HERE)
def test_a_library_is_imported_by_its_room_alone(library):
    users = {room_of(name) for name, file in MODULES.items() if library in tops(file)}
    assert users == ONLY_HERE[library]


@pytest.mark.parametrize("room", OTHERS_ALLOWED)
def test_a_room_needs_only_these_libraries(room):
    used = {top for name, file in MODULES.items() if room_of(name) == room for top in tops(file)}
    assert used - sys.stdlib_module_names - {PACKAGE} <= OTHERS_ALLOWED[room]


def test_the_mathematics_touches_no_file():
    used = {top for name, file in MODULES.items() if room_of(name) == "vae" for top in tops(file)}
    assert used & sys.stdlib_module_names <= STDLIB_OF_VAE


def test_a_package_that_every_stage_runs_holds_no_code():
    statements = ast.parse((ROOT / PACKAGE / "__init__.py").read_text()).body
    assert [type(statement) for statement in statements] == [ast.Expr]


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_the_code_that_a_stage_reaches_and_no_other(stage):
    assert faults_of_deps(stage, DVC) == {"missing": [], "superfluous": []}


@pytest.mark.parametrize("dep", ["pipeline/vae", "pipeline/checkpoint.py", "pipeline/train.py", "pipeline/errors.py"])
def test_a_missing_dep_is_noticed(dep):
    doctored = copy.deepcopy(DVC)
    doctored["stages"]["train"]["deps"].remove(dep)
    missing = faults_of_deps("train", doctored)["missing"]
    assert missing
    assert all(file.startswith(dep) for file in missing)


def test_a_superfluous_dep_is_noticed():
    doctored = copy.deepcopy(DVC)
    doctored["stages"]["train"]["deps"].append("pipeline/runtime")
    assert faults_of_deps("train", doctored)["superfluous"] == ["pipeline/runtime"]


def test_a_changed_server_never_retrains_and_a_changed_density_always_does():
    assert not any("runtime" in dep for dep in DVC["stages"]["train"]["deps"])
    assert "pipeline.vae.densities" in reached_from("pipeline.train")


def faults_of_named_code(module, patterns):
    """What a training reaches beyond the CODE in its name, and the patterns of CODE that it does not reach.

    Left out are docstrings alone, and what shapes no weights.
    """
    reached = {
        MODULES[name].relative_to(ROOT / PACKAGE)
        for name in reached_from(module)
        if not {name, room_of(name)} & SHAPES_NO_WEIGHTS[module] and len(ast.parse(MODULES[name].read_text()).body) > 1
    }
    covered = {
        pattern: {file.relative_to(ROOT / PACKAGE) for file in (ROOT / PACKAGE).glob(pattern)} for pattern in patterns
    }
    return {
        "missing": sorted(map(str, reached.difference(*covered.values()))),
        "superfluous": sorted(pattern for pattern, files in covered.items() if not files & reached),
    }


@pytest.mark.parametrize("module", NAMED_BY_CODE)
def test_the_code_in_the_name_of_a_training_is_what_it_reaches(module):
    assert faults_of_named_code(module, NAMED_BY_CODE[module]) == {"missing": [], "superfluous": []}


@pytest.mark.parametrize(("module", "pattern"), [(m, pattern) for m, code in NAMED_BY_CODE.items() for pattern in code])
def test_code_that_is_missing_in_a_name_is_noticed(module, pattern):
    others = [other for other in NAMED_BY_CODE[module] if other != pattern]
    assert faults_of_named_code(module, others)["missing"]
    assert faults_of_named_code(module, [*others, pattern, "runtime/*.py"])["superfluous"] == ["runtime/*.py"]


def test_the_stages_are_those_of_dvc_yaml():
    assert tuple(DVC["stages"]) == STAGES
    assert [stage["cmd"].split()[:3] for stage in DVC["stages"].values()] == [
        ["python", "-m", f"{PACKAGE}.{stage}"] for stage in STAGES
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_every_path_of_a_command_is_a_dep_or_an_output(stage):
    spec = DVC["stages"][stage]
    declared = [path for kind in ("deps", "outs", "metrics", "plots") for path in map(path_of, spec.get(kind, []))]
    paths = [path for path in spec["cmd"].split()[3:] if path not in SCRATCH]
    assert paths
    assert all(any(other.is_relative_to(path) for other in declared) for path in paths)


@pytest.mark.parametrize("ignored", [".gitignore", ".dvcignore"])
def test_scratch_folders_are_ignored(ignored):
    lines = (ROOT / ignored).read_text().splitlines()
    assert {f"/{path}/" for path in SCRATCH} <= set(lines)


def path_of(entry):
    """An entry of deps or outs is a path, or a mapping from one to its options."""
    return PurePosixPath(entry if isinstance(entry, str) else next(iter(entry)))


def test_no_code_is_read_from_data():
    assert {f"{name} imports {top}" for name, file in MODULES.items() for top in tops(file) & READS_CODE} == set()
    assert [where for where, name, _ in calls() if name in ("eval", "exec", "compile", "__import__")] == []


def test_arrays_and_weights_are_loaded_without_pickle():
    assert [where for where, _, keywords in calls() if keywords.get("allow_pickle", "False") != "False"] == []
    loads = [(where, keywords.get("weights_only")) for where, name, keywords in calls() if name == "torch.load"]
    assert [where for where, weights_only in loads if weights_only != "True"] == []


def test_no_extra_that_goes_beside_another_runtime_brings_its_own():
    """onnxruntime and onnxruntime-gpu overwrite each other's files: `[runtime-cpu,serve]` must not install both."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    brings = {name for name, needed in extras.items() if any("runtime" in requirement for requirement in needed)}
    assert brings == {"runtime", "runtime-cpu", "train"}


def test_no_command_runs_in_a_shell():
    assert [where for where, name, keywords in calls() if keywords.get("shell") == "True" or name == "os.system"] == []


def test_no_exception_is_caught_unnamed():
    handlers = [(file, node) for file in FILES for node in nodes(file) if isinstance(node, ast.ExceptHandler)]
    assert handlers
    assert [f"{file}:{node.lineno}" for file, node in handlers if node.type is None] == []
