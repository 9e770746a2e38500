"""kill -9 of dockerd: the tests in docker_faults_inside.py, run in network, mount and process namespaces of their own."""

from docker_namespaces import run_inside


def test_kill_9_of_dockerd(docker_folder, hello_archive, shell_archive):
    run_inside("docker_faults_inside.py", docker_folder, hello_archive, shell_archive)
