"""Docker as the runtime: the tests in docker_runtime_inside.py, run in network, mount and process namespaces of their own.

There they start a Docker of their own; whatever they leave ends with the namespaces.
"""

import shutil

import pytest

from docker_namespaces import make_folder, run_inside


@pytest.fixture(scope="module")
def folder():
    place = make_folder(__file__)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def test_services_and_restarts_in_docker(folder, hello_archive, shell_archive):
    run_inside("docker_runtime_inside.py", folder, hello_archive, shell_archive)
