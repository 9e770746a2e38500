//! Spans go in as the loops make them and come out as a collector would get them.

use std::sync::Arc;
use std::sync::mpsc;

use tracing::{info_span, subscriber::with_default};
use tracing_subscriber::layer::SubscriberExt;

use super::*;

const ARN: &str = "arn:aws:ecs:us-east-1:000000000000:task/default/0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

impl Sink for mpsc::Sender<SpanData> {
    fn take(&self, span: SpanData) {
        let _ = self.send(span);
    }
}

/// What comes out of `work`, in the order of the spans' ends.
fn spans_of(ratio: f64, work: impl FnOnce()) -> Vec<SpanData> {
    let (sink, spans) = mpsc::channel();
    let subscriber = tracing_subscriber::registry().with(SpanLayer::new(sink, Ratio::new(ratio)));
    with_default(subscriber, work);
    spans.into_iter().collect()
}

fn trace(span: &SpanData) -> String {
    span.span_context.trace_id().to_string()
}

fn attribute<'a>(span: &'a SpanData, name: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|pair| pair.key.as_str() == name).map(|pair| &pair.value)
}

#[test]
fn spans_about_a_task_meet_in_the_trace_that_has_its_id() {
    let spans = spans_of(1.0, || {
        drop(info_span!(target: TARGET, "request", task = ARN, begins = true));
        let commit = info_span!(target: TARGET, "commit", task = %ARN);
        commit.in_scope(|| drop(info_span!(target: TARGET, "write")));
    });
    let names: Vec<_> = spans.iter().map(|span| span.name.as_ref()).collect();
    assert_eq!(names, ["request", "write", "commit"]);
    assert!(spans.iter().all(|span| trace(span) == "0123456789abcdef0123456789abcdef"));
    let [root, write, commit] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(root.span_context.span_id().to_string(), "0123456789abcdef", "every process can tell the first span's id");
    assert_eq!(root.parent_span_id, SpanId::INVALID);
    assert_eq!(commit.parent_span_id, root.span_context.span_id());
    assert_eq!(write.parent_span_id, commit.span_context.span_id());
    assert_eq!(attribute(commit, "task"), Some(&Value::from(ARN)));
    assert_eq!(attribute(root, "begins"), None, "how a span is to be placed is no attribute");
}

#[test]
fn a_request_is_depicted_in_each_of_its_tasks_traces() {
    let spans = spans_of(1.0, || {
        let call = info_span!(target: TARGET, "request", otel.name = "RunTask", otel.kind = "server", request_id = "r1");
        call.in_scope(|| {
            drop(info_span!(target: TARGET, "request", task = ARN, begins = true));
            drop(info_span!(target: TARGET, "request", task = OTHER, begins = true));
        });
    });
    let [first, second, call] = &spans[..] else { panic!("{spans:?}") };
    for picture in [first, second] {
        assert_eq!((picture.name.as_ref(), &picture.span_kind), ("RunTask", &SpanKind::Server));
        assert_eq!(picture.start_time, call.start_time, "it began with the call");
        assert_eq!(attribute(picture, "request_id"), Some(&Value::from("r1")));
        assert_eq!(picture.links.links[0].span_context.span_id(), call.span_context.span_id());
        assert_ne!(trace(picture), trace(call));
    }
    assert_eq!(trace(second), OTHER);
    let linked: Vec<_> = call.links.iter().map(|link| link.span_context.trace_id().to_string()).collect();
    assert_eq!(linked, [trace(first), trace(second)]);
}

#[test]
fn a_name_that_is_known_later_is_the_spans_name() {
    let spans = spans_of(1.0, || {
        let call = info_span!(target: TARGET, "request", otel.name = "unknown", otel.kind = "server");
        call.record("otel.name", "DescribeVpcs");
    });
    let [call] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((call.name.as_ref(), &call.span_kind), ("DescribeVpcs", &SpanKind::Server));
}

#[test]
fn a_callers_trace_goes_on() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let spans = spans_of(0.0, || {
        drop(info_span!(target: TARGET, "request", traceparent = parent));
        drop(info_span!(target: TARGET, "request", traceparent = unsampled));
        drop(info_span!(target: TARGET, "request", traceparent = "nonsense"));
    });
    let [span] = &spans[..] else { panic!("the caller decides what is kept of his own trace: {spans:?}") };
    assert_eq!(trace(span), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
    assert!(span.parent_span_is_remote);
}

#[test]
fn malformed_parents_are_none() {
    for text in [
        "",
        "00",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        "00-zaf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-é",
    ] {
        assert!(parse_traceparent(text).is_none(), "{text}");
    }
    let later = parse_traceparent("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more");
    assert!(later.is_some_and(|context| context.is_sampled()), "later versions may say more");
}

#[test]
fn all_processes_leave_out_the_same_tasks() {
    let ids: Vec<String> = (0..1_000_u128).map(|n| format!("{:032x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))).collect();
    let kept = |begins: bool| {
        let spans = spans_of(0.25, || {
            for id in ids.iter().skip(1) {
                drop(info_span!(target: TARGET, "any", task = %id, begins));
            }
        });
        spans.iter().map(trace).collect::<Vec<_>>()
    };
    let (server, agent) = (kept(true), kept(false));
    assert_eq!(server, agent);
    assert!((150..350).contains(&server.len()), "{} of 999", server.len());
    assert_eq!(spans_of(0.0, || drop(info_span!(target: TARGET, "any", task = ARN))).len(), 0);
    assert_eq!(Ratio::new(1.0), Ratio::default());
}

#[test]
fn an_error_that_is_recorded_later_is_the_spans() {
    let spans = spans_of(1.0, || {
        let span = info_span!(target: TARGET, "pull", task = ARN, error = tracing::field::Empty);
        span.record("error", tracing::field::display("no such image"));
    });
    assert_eq!(spans[0].status, Status::error("no such image"));
    assert_eq!(attribute(&spans[0], "error"), Some(&Value::from("no such image")));
}

#[test]
fn what_a_span_holds_is_bounded() {
    let text = "é".repeat(LONGEST_TEXT);
    let spans = spans_of(1.0, || {
        let call = info_span!(target: TARGET, "request", text = %text);
        call.in_scope(|| {
            for n in 1..=100_u128 {
                drop(info_span!(target: TARGET, "request", task = format!("{n:032x}"), begins = true));
            }
        });
    });
    let call = spans.last().unwrap();
    assert_eq!(call.links.len(), MOST_LINKS);
    let Some(Value::String(kept)) = attribute(call, "text") else { panic!("{call:?}") };
    assert!(kept.as_str().len() <= LONGEST_TEXT && kept.as_str().starts_with('é'));
}

#[test]
fn what_is_no_tasks_id_has_a_trace_of_its_own() {
    let spans = spans_of(1.0, || {
        for task in ["", "default/7", "00000000000000000000000000000000", "zz23456789abcdef0123456789abcdef"] {
            drop(info_span!(target: TARGET, "any", task));
        }
    });
    let traces: std::collections::BTreeSet<_> = spans.iter().map(trace).collect();
    assert_eq!(traces.len(), 4);
    assert!(spans.iter().all(|span| span.span_context.is_valid()));
}

#[test]
fn spans_of_other_threads_end_where_they_end() {
    let (sink, spans) = mpsc::channel();
    let subscriber = Arc::new(tracing_subscriber::registry().with(SpanLayer::new(sink, Ratio::default())));
    let span = with_default(Arc::clone(&subscriber), || info_span!(target: TARGET, "report", task = ARN));
    std::thread::spawn(move || drop(span)).join().unwrap();
    drop(subscriber);
    assert_eq!(spans.into_iter().count(), 1);
}
