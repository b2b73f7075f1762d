"""The description at /openapi.json, and the server held to it by Schemathesis."""

import re
import subprocess

from server_process import vae_serve

# What a description cannot say: the rows of a request, the shape of an image, classes, the largest index.
UNSAYABLE = "positive_data_acceptance"


def test_generated_requests_find_no_failure_and_no_answer_that_is_not_described(
    mlp, schemathesis_environment, tmp_path
):
    options = ["--phases", "coverage,fuzzing", "--max-examples", "30", "--seed", "1", "--checks", "all"]
    options += ["--exclude-checks", UNSAYABLE, "--generation-database", "none", "--request-timeout", "20"]
    with vae_serve(mlp.folder) as address:
        command = [
            schemathesis_environment,
            "-I",
            schemathesis_environment.with_name("schemathesis"),
            "--no-color",
            "run",
            *options,
        ]
        ended = subprocess.run(
            [*command, f"http://{address}/openapi.json"], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
    assert not ended.returncode, ended.stdout + ended.stderr
    operations, generated = (
        int(re.search(pattern, ended.stdout)[1]) for pattern in (r"Tested: (\d+)", r"(\d+) generated")
    )
    assert operations == 19
    assert generated > 200


def test_every_error_that_a_route_may_answer_is_described_in_its_own_form(client):
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method, described in methods.items():
            errors = {status: found for status, found in described["responses"].items() if status != "200"}
            assert {"401", "421", "422", "429", "503"} <= set(errors), (method, path)
            for found in errors.values():
                schema = found["content"]["application/json"]["schema"]
                assert list(schema["properties"]) == ["error"], (method, path)


def test_another_method_is_told_all_that_the_path_takes(client):
    assert client.delete("/sample").headers["allow"] == "GET, HEAD, POST"
    assert client.get("/decode").headers["allow"] == "POST"
    assert client.post("/v2/models/sampler").headers["allow"] == "GET, HEAD"
