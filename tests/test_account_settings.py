"""Account settings: of one principal, of the whole account, and what holds."""

import pytest

from ecs_calls import refused

NAMES = [
    "awsvpcTrunking", "containerInsights", "containerInstanceLongArnFormat", "defaultLogDriverMode", "fargateEventWindows",
    "fargateFIPSMode", "fargateTaskRetirementWaitPeriod", "guardDutyActivate", "serviceLongArnFormat", "tagResourceAuthorization",
    "taskLongArnFormat",
]


@pytest.fixture
def account(ecs):
    """The account's number, and its settings as they were before."""
    number = ecs.list_account_settings(effectiveSettings=True)["settings"][0]["principalArn"].split(":")[4]
    root = f"arn:aws:iam::{number}:root"
    principals = [root, f"arn:aws:iam::{number}:user/ann", f"arn:aws:iam::{number}:role/deploy/ci"]
    yield principals
    for principal in principals:
        for setting in everything(ecs, principalArn=principal):
            ecs.delete_account_setting(name=setting["name"], principalArn=principal)


def everything(ecs, **arguments):
    pages = ecs.get_paginator("list_account_settings").paginate(PaginationConfig={"PageSize": 1}, **arguments)
    return [setting for page in pages for setting in page["settings"]]


def holds(ecs, name, principal):
    [setting] = ecs.list_account_settings(name=name, principalArn=principal, effectiveSettings=True)["settings"]
    assert setting["principalArn"] == principal
    return setting["value"]


def test_what_holds_where_nobody_chose(ecs, account):
    settings = everything(ecs, effectiveSettings=True)
    assert [one["name"] for one in settings] == NAMES
    assert {one["name"]: one["value"] for one in settings} == {
        "awsvpcTrunking": "disabled", "containerInsights": "disabled", "containerInstanceLongArnFormat": "enabled",
        "defaultLogDriverMode": "non-blocking", "fargateEventWindows": "disabled", "fargateFIPSMode": "disabled",
        "fargateTaskRetirementWaitPeriod": "7", "guardDutyActivate": "off", "serviceLongArnFormat": "enabled",
        "tagResourceAuthorization": "on", "taskLongArnFormat": "enabled",
    }
    assert [one["name"] for one in settings if one["type"] == "aws_managed"] == ["guardDutyActivate"]
    assert everything(ecs) == [], "nothing was chosen"


def test_ones_own_comes_before_the_accounts_and_that_before_awss(ecs, account):
    root, ann, role = account
    put = ecs.put_account_setting_default(name="defaultLogDriverMode", value="blocking")["setting"]
    assert put == {"name": "defaultLogDriverMode", "value": "blocking", "principalArn": root, "type": "user"}
    assert holds(ecs, "defaultLogDriverMode", ann) == "blocking"
    put = ecs.put_account_setting(name="defaultLogDriverMode", value="non-blocking", principalArn=ann)["setting"]
    assert put == {"name": "defaultLogDriverMode", "value": "non-blocking", "principalArn": ann, "type": "user"}
    assert [holds(ecs, "defaultLogDriverMode", who) for who in account] == ["blocking", "non-blocking", "blocking"]
    assert [one["value"] for one in everything(ecs, principalArn=ann)] == ["non-blocking"]
    assert everything(ecs, principalArn=role) == []
    gone = ecs.delete_account_setting(name="defaultLogDriverMode", principalArn=ann)["setting"]
    assert gone == {"name": "defaultLogDriverMode", "value": "blocking", "principalArn": ann, "type": "user"}
    assert ecs.delete_account_setting(name="defaultLogDriverMode")["setting"]["value"] == "non-blocking"
    assert holds(ecs, "defaultLogDriverMode", ann) == "non-blocking"
    again = ecs.delete_account_setting(name="defaultLogDriverMode")["setting"]
    assert again["value"] == "non-blocking", "taking back what was not put changes nothing"


def test_a_put_without_a_principal_is_the_callers_and_lists_filter_by_value(ecs, account):
    root = account[0]
    assert ecs.put_account_setting(name="fargateTaskRetirementWaitPeriod", value="14")["setting"]["principalArn"] == root
    ecs.put_account_setting(name="awsvpcTrunking", value="enabled", principalArn=root)
    assert [one["name"] for one in everything(ecs)] == ["awsvpcTrunking", "fargateTaskRetirementWaitPeriod"]
    assert [one["value"] for one in everything(ecs, name="awsvpcTrunking", value="enabled")] == ["enabled"]
    assert everything(ecs, name="awsvpcTrunking", value="disabled") == []


def test_new_clusters_take_the_accounts_container_insights(ecs, account, cluster):
    def settings_of(name):
        return ecs.describe_clusters(clusters=[name], include=["SETTINGS"])["clusters"][0]["settings"]

    ecs.put_account_setting_default(name="containerInsights", value="enhanced")
    name = f"{cluster}-insights"
    ecs.create_cluster(clusterName=name)
    try:
        assert settings_of(name) == [{"name": "containerInsights", "value": "enhanced"}]
        assert settings_of(cluster) == [{"name": "containerInsights", "value": "disabled"}], "one that was there stays as it was"
    finally:
        ecs.delete_cluster(cluster=name)


@pytest.mark.parametrize("arguments, field", [
    ({"name": "lamp", "value": "on"}, "name"),
    ({"name": "awsvpcTrunking", "value": "perhaps"}, "value"),
    ({"name": "fargateTaskRetirementWaitPeriod", "value": "8"}, "value"),
    ({"name": "serviceLongArnFormat", "value": "disabled"}, "value"),
    ({"name": "guardDutyActivate", "value": "on"}, "name"),
    ({"name": "awsvpcTrunking", "value": "on", "principalArn": "ann"}, "principalArn"),
    ({"name": "awsvpcTrunking", "value": "on", "principalArn": "arn:aws:iam::999999999999:user/ann"}, "principalArn"),
])
def test_bad_settings_name_the_field_and_change_nothing(ecs, account, arguments, field):
    with refused("InvalidParameterException", field):
        ecs.put_account_setting(**arguments)
    if "principalArn" not in arguments:
        with refused("InvalidParameterException", field):
            ecs.put_account_setting_default(**arguments)
    assert everything(ecs) == []


def test_bad_lists_and_deletes(ecs, account):
    with refused("InvalidParameterException", "name"):
        ecs.list_account_settings(value="enabled")
    with refused("InvalidParameterException", "maxResults"):
        ecs.list_account_settings(maxResults=11)
    with refused("InvalidParameterException", "maxResults"):
        ecs.list_account_settings(maxResults=0)
    with refused("InvalidParameterException", "nextToken"):
        ecs.list_account_settings(nextToken="garbled")
    with refused("InvalidParameterException", "principalArn"):
        ecs.list_account_settings(principalArn="ann")
    with refused("InvalidParameterException", "name"):
        ecs.delete_account_setting(name="lamp")
    first = ecs.list_account_settings(effectiveSettings=True)
    assert len(first["settings"]) == 10 and first["nextToken"], "a page has ten"
