//! Brings spans to an OpenTelemetry collector, in batches from a bounded queue. A collector that is away or slow costs spans, never a
//! request: nobody waits for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanProcessor};

use crate::failure::Failure;
use crate::span_layer::Sink;

/// Most spans that wait; what comes beyond is dropped. A span takes about half a kilobyte.
const QUEUE: usize = 16_384;
/// Most spans sent at once.
const BATCH: usize = 1_024;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// How long the collector may take for a batch.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last batches may take when the process ends.
const FLUSH: Duration = Duration::from_secs(3);

/// The way to a collector.
#[derive(Clone)]
pub(crate) struct Export(Arc<BatchSpanProcessor>);

impl Export {
    /// Begins to send to `endpoint`, whose absence is no error. Must be called inside of the async runtime that carries the connection.
    ///
    /// # Errors
    /// [`Failure`] if the endpoint is no URL that can be dialled, or one of OpenTelemetry's own variables is wrong.
    pub(crate) fn start(endpoint: &str, role: &'static str) -> Result<Self, Failure> {
        let wrong = |error: &dyn fmt::Display| Failure::setting("--otlp-endpoint", format!("{error}"));
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(TIMEOUT).build();
        let exporter = Outspoken { inner: exporter.map_err(|error| wrong(&error))?, is_failing: AtomicBool::new(false) };
        let config =
            BatchConfigBuilder::default().with_max_queue_size(QUEUE).with_max_export_batch_size(BATCH).with_scheduled_delay(DELAY).build();
        let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        processor.set_resource(&resource(role));
        Ok(Self(Arc::new(processor)))
    }

    /// Sends what waits, for a moment at most.
    pub(crate) fn finish(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH) {
            tracing::debug!(%error, "the last spans may not have reached the collector");
        }
    }
}

impl Sink for Export {
    fn take(&self, span: SpanData) {
        self.0.on_end(span);
    }
}

/// Who speaks. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` add to it, and win.
fn resource(role: &'static str) -> Resource {
    let name = match role {
        "up" => "berth".to_owned(),
        role => format!("berth-{role}"),
    };
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let known = [KeyValue::new("service.version", env!("CARGO_PKG_VERSION")), KeyValue::new("host.name", host)];
    // What comes later wins.
    let resource =
        Resource::builder_empty().with_service_name(name).with_attributes(known).with_detector(Box::<EnvResourceDetector>::default());
    match std::env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => resource.with_service_name(name),
        _ => resource,
    }
    .build()
}

/// Says once that spans cannot be delivered, and once that they can again.
struct Outspoken<E> {
    inner: E,
    is_failing: AtomicBool,
}

impl<E: fmt::Debug> fmt::Debug for Outspoken<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<E: opentelemetry_sdk::trace::SpanExporter> opentelemetry_sdk::trace::SpanExporter for Outspoken<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let outcome = self.inner.export(batch).await;
        match &outcome {
            Ok(()) if self.is_failing.swap(false, Ordering::Relaxed) => tracing::info!("the collector takes spans again"),
            Err(error) if !self.is_failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, spans, "the collector takes no spans; they are dropped until it does");
            }
            _ => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
