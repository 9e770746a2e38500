"""What Berth shows of itself: traces of tasks at an OpenTelemetry collector, log lines for programs, metrics of the loops."""

import contextlib
import json
import os
import re
import socket

import pytest

import http_call
from berth import http_text, until
from containers import IDLE, ended, hello, running, shell, start, stop
from ecs_calls import container, register, run, service, until_status, until_steady
from fake_agent import FakeAgent
from otlp_collector import Collector

SERVER = 2  # SpanKind of OTLP


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.end()


def needs_root(name):
    if os.geteuid() != 0:
        pytest.skip(f"SKIPPED (needs root): {name}: real containers need namespaces, mounts and cgroups")


def metrics(berth):
    lines = http_text(berth.endpoint + "/metrics").splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))}


def log_lines(berth):
    """Every line that the log has by now, parsed; what is written for people goes to stdout and does not begin with a brace."""
    lines = berth.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


# -- traces ----------------------------------------------------------------------------------------------------------------


def test_a_tasks_trace_has_the_tasks_id_and_shows_its_whole_way(new_up, collector):
    needs_root("a task's trace")
    up = new_up(arguments=["--otlp-endpoint", collector.endpoint])
    task = running(up, shell(IDLE))
    arn = task["taskArn"]
    way = ["RunTask", "commit", "dispatch", "pull", "create", "start", "report", "SubmitTaskStateChange"]
    collector.until("all spans of a task", lambda _: set(way) <= {span.name for span in collector.of(arn)})
    spans = collector.of(arn)
    assert all(span.attributes["task"] == arn for span in spans), spans
    first = {}
    for span in spans:
        first.setdefault(span.name, span)
        assert span.start <= span.end, span
        assert span.resource["service.name"] == "berth"

    root = first["RunTask"]
    assert root.parent == "" and root.id == root.trace[16:], "the first span's id is known to every process"
    assert root.kind == SERVER
    assert all(span.parent for span in spans if span is not root)
    ids = {span.id for span in spans}
    assert all(span.parent in ids for span in spans if span is not root), "it is one tree"

    starts = [first[name].start for name in way]
    assert starts == sorted(starts), {name: first[name].start - root.start for name in way}
    assert first["commit"].end <= root.end, "the answer goes out after the commit"
    assert first["commit"].end <= first["start"].start, "no container starts before the task is durable"
    assert first["pull"].end <= first["create"].start and first["create"].end <= first["start"].start
    told = [span for span in spans if span.name == "report" and span.attributes["status"] == "RUNNING"]
    folded = [span for span in spans if span.name == "SubmitTaskStateChange" and span.attributes["status"] == "RUNNING"]
    assert len(told) == len(folded) == 1
    assert told[0].start <= folded[0].start <= folded[0].end <= told[0].end, "the report is under way while it is folded in"
    assert first["start"].end <= told[0].start, "RUNNING is said of what runs"
    assert first["pull"].attributes["container_name"] == "app"

    (call,) = [span for span in collector.spans if span.name == "RunTask" and span.trace != root.trace]
    assert call.attributes["request_id"] == root.attributes["request_id"]
    assert (call.trace, call.id) in root.links and (root.trace, root.id) in call.links

    stop(up, arn)
    stopped = ("report", "STOPPED")
    collector.until(
        "the end in the trace", lambda _: stopped in {(span.name, span.attributes.get("status")) for span in collector.of(arn)}
    )
    assert "stop" in {span.name for span in collector.of(arn)}


def test_a_step_that_fails_is_an_error_in_the_trace(new_up, collector):
    needs_root("a failed step's span")
    up = new_up(arguments=["--otlp-endpoint", collector.endpoint])
    task = ended(up, start(up, container(image="none-such:1")))
    collector.until("the failed pull", lambda _: "pull" in {span.name for span in collector.of(task["taskArn"])})
    (pull,) = [span for span in collector.of(task["taskArn"]) if span.name == "pull"]
    assert pull.is_error and pull.attributes["image"] == "none-such:1"
    assert pull.attributes["error"] in task["stoppedReason"] + str(task["containers"])


def test_ten_tasks_of_one_call_are_ten_traces_and_the_callers_own(new_berth, collector):
    berth = new_berth(arguments=["--otlp-endpoint", collector.endpoint]).start()
    agent = FakeAgent(berth, "default", cpu=10_000, memory=10_000).join()
    definition = register(berth.ecs, containers=[container()])
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    body = {"cluster": "default", "taskDefinition": definition, "count": 10}
    answer = http_call.call(berth, "RunTask", body, change=lambda headers: headers.update(traceparent=f"00-{trace}-{parent}-01"))
    arns = [task["taskArn"] for task in answer.json["tasks"]]
    assert len(arns) == 10
    collector.until("ten traces", lambda _: all({"RunTask", "commit", "dispatch"} <= {s.name for s in collector.of(arn)} for arn in arns))
    (call,) = collector.until("the call's span", lambda spans: [span for span in spans if span.trace == trace])
    assert (call.name, call.parent) == ("RunTask", parent), "the caller's own trace goes on here"
    roots = {span.trace: span for arn in arns for span in collector.of(arn) if span.name == "RunTask"}
    assert len(roots) == 10
    assert all(root.links == [(trace, call.id)] for root in roots.values())
    assert {link[0] for link in call.links} == set(roots)
    assert {root.attributes["request_id"] for root in roots.values()} == {answer.headers["x-amzn-requestid"]}
    agent.leave()


def test_a_services_tasks_have_traces_too_and_what_the_sampler_leaves_out_is_left_out(new_berth, collector):
    berth = new_berth(arguments=["--otlp-endpoint", collector.endpoint]).start()
    agent = FakeAgent(berth, "default", cpu=10_000, memory=10_000).join()
    definition = register(berth.ecs, containers=[container()])
    berth.ecs.create_service(cluster="default", serviceName="web", taskDefinition=definition, desiredCount=2)
    until("two tasks", lambda: len(berth.ecs.list_tasks(cluster="default")["taskArns"]) == 2)
    for arn in berth.ecs.list_tasks(cluster="default")["taskArns"]:
        collector.until("a service's task", lambda _, arn=arn: {"service", "commit"} <= {span.name for span in collector.of(arn)})
        root = next(span for span in collector.of(arn) if span.name == "service")
        assert root.parent == "" and root.attributes["service"] == "web"
    agent.leave()
    berth.terminate()

    silent = new_berth(arguments=["--otlp-endpoint", collector.endpoint, "--otlp-ratio", "0"]).start()
    before = len(collector.spans)
    silent.ecs.list_clusters()
    # What waits is sent at a clean end.
    assert silent.terminate() == 0
    assert len(collector.spans) == before


def test_a_clean_end_sends_the_last_spans(new_berth, collector):
    berth = new_berth(arguments=["--otlp-endpoint", collector.endpoint]).start()
    with contextlib.suppress(berth.ecs.exceptions.ClusterNotFoundException):
        berth.ecs.list_tasks(cluster="none-such")
    assert berth.terminate() == 0
    (span,) = [span for span in collector.spans if span.name == "ListTasks"]
    assert span.attributes["code"] == "ClusterNotFoundException"
    assert not span.is_error, "it is the caller's error, not the server's"
    assert span.resource["service.name"] == "berth-server"


def test_a_collector_that_is_away_costs_spans_and_nothing_else(new_berth):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        berth = new_berth(arguments=["--otlp-endpoint", f"http://127.0.0.1:{port}", "--log-format", "json"]).start()
        for _ in range(200):
            berth.ecs.list_clusters()
        until("the log to say so", lambda: [line for line in log_lines(berth) if "takes no spans" in line["message"]])
        berth.ecs.list_clusters()
    back = Collector(port)
    try:

        def arrives(spans):
            berth.ecs.list_clusters()
            return "ListClusters" in {span.name for span in spans}

        back.until("spans to come once it is there", arrives)
        until("the log to say so", lambda: [line for line in log_lines(berth) if "takes spans again" in line["message"]])
        assert len([line for line in log_lines(berth) if "takes no spans" in line["message"]]) == 1, "it is said once"
    finally:
        back.end()
    assert berth.terminate() == 0


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--otlp-endpoint", "https://127.0.0.1:4317"], "without TLS"),
        (["--otlp-endpoint", "collector"], "--otlp-endpoint"),
        (["--otlp-ratio", "2"], "--otlp-ratio"),
        (["--log-format", "xml"], "--log-format"),
    ],
)
def test_wrong_settings_are_named(new_berth, arguments, named):
    berth = new_berth(arguments=arguments).start(wait=False)
    assert berth.wait() == 2
    assert named in berth.tail()


# -- log lines -------------------------------------------------------------------------------------------------------------


def test_log_lines_for_programs(new_berth):
    berth = new_berth(arguments=["--log-format", "json", "--log", "debug"]).start()
    agent = FakeAgent(berth, "default", cpu=10_000, memory=10_000).join()
    definition = register(berth.ecs, containers=[container()])
    (arn,) = run(berth.ecs, "default", definition)
    with pytest.raises(berth.ecs.exceptions.ClusterNotFoundException) as refused:
        berth.ecs.list_tasks(cluster="none-such")
    request_id = refused.value.response["ResponseMetadata"]["RequestId"]
    until_line = lambda what, of: until(what, lambda: next((line for line in log_lines(berth) if of(line)), None))  # noqa: E731

    line = until_line("the refused call's line", lambda line: line.get("request_id") == request_id)
    assert (line["level"], line["target"], line["action"]) == ("INFO", "berth::request", "ListTasks")
    assert (line["status"], line["code"], line["error"]) == (400, "ClusterNotFoundException", "Cluster not found.")
    line = until_line("the task's line", lambda line: line.get("task") == arn)
    assert line["message"] == "a task is placed" and ":container-instance/default/" in line["container_instance"]
    for line in log_lines(berth):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"]), line
        assert line["level"] in {"DEBUG", "INFO", "WARN", "ERROR"} and line["target"] and "message" in line, line
        assert line["target"] != "berth.span", "spans are no log lines"
        assert line.get("task", arn).startswith("arn:aws:ecs:"), line
    assert all(line.get("request_id") for line in log_lines(berth) if line["target"] == "berth::request")
    # Every line of the process is one: what people read is on stdout, and that says where the server is.
    foreign = [line for line in berth.log.read_text().splitlines() if not line.startswith("{")]
    assert not [line for line in foreign if re.search(r"\b(DEBUG|INFO|WARN|ERROR)\b", line)], foreign
    agent.leave()


def test_an_agents_log_lines_have_the_tasks_arn(new_up):
    needs_root("an agent's log lines")
    up = new_up(arguments=["--log-format", "json", "--log", "debug"])
    arn = running(up, shell(IDLE))["taskArn"]
    steps = [line for line in log_lines(up) if line["target"].startswith("berth_agent") and line.get("task") == arn]
    assert steps, "the agent says what it does for a task"
    reports = [line for line in log_lines(up) if line["message"] == "an agent reports on a task" and line["task"] == arn]
    assert "RUNNING" in {line["status"] for line in reports}
    stop(up, arn)


# -- metrics ---------------------------------------------------------------------------------------------------------------


def test_metrics_of_the_loops_count(new_up):
    needs_root("metrics of launches")
    up = new_up()
    before = metrics(up)
    assert before["berth_control_launches_total"] == 0 and before["berth_control_queue"] == 0
    arn = running(up, hello())["taskArn"]
    tiny = register(up.ecs, containers=[shell(IDLE)])
    up.ecs.create_service(cluster="default", serviceName="web", taskDefinition=tiny, desiredCount=2)
    until_steady(up.ecs, "default", "web")
    huge = register(up.ecs, containers=[shell(IDLE, cpu=900_000)])
    assert up.ecs.run_task(cluster="default", taskDefinition=huge, count=3)["failures"]
    up.ecs.create_cluster(clusterName="empty")
    with pytest.raises(up.ecs.exceptions.InvalidParameterException):
        up.ecs.run_task(cluster="empty", taskDefinition=tiny)

    after = metrics(up)
    assert after['berth_control_placed_tasks_total{for="request"}'] == 1
    assert after['berth_control_placed_tasks_total{for="service"}'] == 2
    assert after['berth_control_refused_tasks_total{reason="RESOURCE:CPU"}'] == 3
    assert after["berth_control_launches_total"] == 3
    assert after["berth_control_launch_seconds_count"] == 3
    assert 0 < after["berth_control_launch_seconds_sum"] < 600
    assert after['berth_control_reports_total{outcome="changed"}'] >= 3
    assert after["berth_control_services_planned_total"] >= 2
    for loop in ("owner", "dispatch"):
        assert after[f'berth_control_loop_lag_seconds_count{{loop="{loop}"}}'] > before.get(
            f'berth_control_loop_lag_seconds_count{{loop="{loop}"}}', 0
        )
    assert after["berth_control_queue"] == 0
    assert after['berth_container_instances{cluster="default",status="connected"}'] == 1
    assert after['berth_tasks{cluster="default",status="running"}'] == 3
    for name in ("berth_store_commits_total", "berth_store_queue", "berth_store_sync_seconds_count"):
        assert name in after
    assert not [name for name in after if "task/" in name or arn[-32:] in name], "no task has a series"
    up.ecs.update_service(cluster="default", service="web", desiredCount=0)
    until("the service to be empty", lambda: service(up.ecs, "default", "web")["runningCount"] == 0)
    stop(up, arn)


def test_reports_on_unknown_tasks_and_repeated_ones_are_counted(new_berth):
    berth = new_berth().start()
    agent = FakeAgent(berth, "default", cpu=10_000, memory=10_000).join()
    (arn,) = run(berth.ecs, "default", register(berth.ecs, containers=[container()]))
    until_status(berth.ecs, "default", arn, "RUNNING")
    told = lambda outcome: metrics(berth).get(f'berth_control_reports_total{{outcome="{outcome}"}}', 0)  # noqa: E731
    repeated, unknown = told("repeated"), told("unknown")
    again = {"cluster": "default", "task": arn, "status": "RUNNING"}
    assert http_call.call(berth, "SubmitTaskStateChange", again).status == 200
    assert http_call.call(berth, "SubmitTaskStateChange", again | {"task": arn[:-32] + "0" * 31 + "1"}).status == 400
    assert (told("repeated"), told("unknown")) == (repeated + 1, unknown + 1)
    agent.leave()
