//! The metrics of the process, for Prometheus to scrape.
//!
//! The exporter has a listener of its own (its feature `http-listener`), which cannot do what is needed here: it keeps each connection
//! as long as the other side likes, so that strangers who ask nothing take all file descriptors of the replica; without a descriptor it accepts
//! again and again, without a pause; its errors are text without the kind; and it does not say which port it was given.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

use crate::listen::listen;
use crate::options::way_on;

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsServerError {
    /// The port is taken, or not allowed.
    #[error("cannot serve metrics on {address}: {error}; {}", way_on(.error))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        error: std::io::Error,
    },
    /// Another recorder is installed in this process.
    #[error("another metrics recorder is installed in this process: {0}")]
    Recorder(String),
}

/// Serves `GET /metrics` as long as it lives. One recorder for each process; several servers may show it.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// Connections at a time: a scraper needs one. Beyond them the oldest one ends: it has asked nothing, or does not
/// read.
const CONNECTIONS_MAX: usize = 16;
const HEADER_MAX: Duration = Duration::from_secs(2);
const REQUEST_MAX: Duration = Duration::from_secs(10);
const UPKEEP: Duration = Duration::from_secs(5);
const SECONDS: &[f64] =
    &[0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
const ENTRIES: &[f64] = &[0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

fn recorder() -> Result<PrometheusHandle, MetricsServerError> {
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    let install = || {
        PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_entries".to_owned()), ENTRIES))
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(|error| error.to_string())
    };
    HANDLE.get_or_init(install).clone().map_err(MetricsServerError::Recorder)
}

impl MetricsServer {
    /// Installs the recorder and listens. Call it before the replica is built: a metric that was looked
    /// up earlier goes nowhere.
    ///
    /// # Errors
    /// A [`MetricsServerError`].
    pub async fn start(address: SocketAddr) -> Result<MetricsServer, MetricsServerError> {
        let handle = recorder()?;
        let failed = |error| MetricsServerError::Listen { address, error };
        let listener = listen(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let mut tasks = JoinSet::new();
        let upkeep = handle.clone();
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                upkeep.run_upkeep();
            }
        });
        tasks.spawn(serve(listener, handle));
        Ok(MetricsServer { address, _tasks: tasks })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, handle: PrometheusHandle) {
    let mut connections = JoinSet::new();
    let mut oldest: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        while connections.try_join_next().is_some() {}
        oldest.retain(|connection| !connection.is_finished());
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: it passes.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if oldest.len() >= CONNECTIONS_MAX
            && let Some(connection) = oldest.pop_front()
        {
            connection.abort();
        }
        let handle = handle.clone();
        oldest.push_back(connections.spawn(async move {
            let answer = service_fn(move |request| {
                let response = respond(&request, &handle);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_MAX)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            let _ = tokio::time::timeout(REQUEST_MAX, connection).await;
        }));
    }
}

fn respond(request: &Request<Incoming>, handle: &PrometheusHandle) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, handle.render()),
        (&Method::GET, _) => (StatusCode::NOT_FOUND, "see /metrics\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "GET /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    response
}
