"""Short forms that tests of tasks with network interfaces of their own share."""

import subprocess

from containers import pids_of
from ecs_calls import register, run, until_status

ZONE = "us-east-1a"


def network(*subnets, groups=()):
    """`networkConfiguration` with these subnets and security groups."""
    return {"awsvpcConfiguration": {"subnets": list(subnets), "securityGroups": list(groups)}}


def subnet_of(ec2, zone=ZONE):
    """The default VPC's subnet in a zone."""
    filters = [{"Name": "default-for-az", "Values": ["true"]}, {"Name": "availability-zone", "Values": [zone]}]
    [found] = ec2.describe_subnets(Filters=filters)["Subnets"]
    return found["SubnetId"]


def interfaces(ec2, subnet=None, group=None):
    """Interfaces by their private addresses."""
    given = {"subnet-id": subnet, "group-id": group}
    filters = [{"Name": name, "Values": [value]} for name, value in given.items() if value]
    return {one["PrivateIpAddress"]: one for one in ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"]}


def details(task):
    """What a task's attachment says, by name."""
    [attachment] = task["attachments"]
    return {pair["name"]: pair["value"] for pair in attachment["details"]}


def address(task):
    return details(task)["privateIPv4Address"]


def groups_of(ec2, task):
    """The security groups of a task's interface."""
    return [group["GroupId"] for group in interfaces(ec2, details(task)["subnetId"])[address(task)]["Groups"]]


def running(up, *containers, on, cluster="default", **members):
    """Runs a task there and waits for it; gives the task."""
    definition = register(up.ecs, containers=list(containers), networkMode="awsvpc", **members)
    [arn] = run(up.ecs, cluster, definition, networkConfiguration=on)
    return until_status(up.ecs, cluster, arn, "RUNNING")


def inside(task, *command, **settings):
    """Runs a program of this machine in a task's network namespace; gives the finished process."""
    timeout = settings.pop("timeout", 60)
    for _ in range(20):
        # A container's shell starts programs that end at any moment: another process of it leads there as well.
        for pid in pids_of(task["containers"][0]):
            done = subprocess.run(["nsenter", "-t", str(pid), "-n", *command], capture_output=True, text=True, timeout=timeout, check=False, **settings)
            if "nsenter: " not in done.stderr:
                return done
    raise AssertionError(f"no process of {task['taskArn']} leads into its namespace")


def fetched(task, host, port=80, patience=2):
    """What a process in the task's network namespace is answered over HTTP; `None` if nothing comes."""
    script = f"import urllib.request as r; print(r.urlopen('http://{host}:{port}/', timeout={patience}).read().decode())"
    done = inside(task, "python3", "-c", script)
    return done.stdout if done.returncode == 0 else None
