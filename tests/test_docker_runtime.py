"""Docker as the runtime: the tests in docker_runtime_inside.py, run in network, mount and process namespaces of their own.

There they start a Docker of their own; whatever they leave ends with the namespaces.
"""

from docker_namespaces import run_inside


def test_services_and_restarts_in_docker(docker_folder, hello_archive, shell_archive):
    run_inside("docker_runtime_inside.py", docker_folder, hello_archive, shell_archive)
