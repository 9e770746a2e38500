"""kill -9 of dockerd: the tests in docker_faults_inside.py, run in network, mount and process namespaces of their own."""

import shutil

import pytest

from docker_namespaces import make_folder, run_inside


@pytest.fixture(scope="module")
def folder():
    place = make_folder(__file__)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def test_kill_9_of_dockerd(folder, hello_archive, shell_archive):
    run_inside("docker_faults_inside.py", folder, hello_archive, shell_archive)
